/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The host's own processor as the oracle: one instruction from a given state, faults included. */
#define _GNU_SOURCE
#include <asm/hwcap2.h>
#include <asm/prctl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <ucontext.h>

/* Those of <elf.h>: ours are page faults. */
#undef PF_W
#undef PF_R
#undef PF_X

#include "cpu/x86/xstate.h"
#include "insn.h"

/*
 * All registers are the test's while it runs, so everything of ours is at fixed addresses below 2 GiB.
 * The numbers are also in the assembly below.
 */
#define AREA 0x30000000ull
struct save_area {
	u64 gpr[16];			/* 0x00 */
	u64 rflags, rip;		/* 0x80 */
	u64 fs, gs;			/* 0x90 */
	u64 host_rsp, host_fs, host_gs; /* 0xa0 */
	u64 mask;			/* 0xb8 */
	u64 end;			/* 0xc0 */
	u64 out_fs, out_gs;		/* 0xc8 */
	u64 out_rflags;			/* 0xd8 */
	u16 sel[8];			/* 0xe0: ES CS SS DS FS GS */
	u32 mxcsr;			/* 0xf0 */
	u32 running;			/* 0xf4 */
	u64 bases;			/* 0xf8: enum bases */
	u64 out_gpr[16];		/* 0x100 */
	u8 pad[0x1000 - 0x180];
	u8 in[XSAVE_AREA];  /* 0x1000 */
	u8 out[XSAVE_AREA]; /* 0x2000 */
	struct {	    /* 0x3000 */
		u64 gpr[16], rip, rflags, trap, error, cr2;
	} fault;
	struct {		/* ends of the test's code come here */
		u8 jmp[8];	/* jmp *2(%rip): to */
		const char *to; /* aligned, since AC may be set */
	} ends[TAILS];
};
_Static_assert(offsetof(struct save_area, mask) == 0xb8 &&
		       offsetof(struct save_area, out_gpr) == 0x100 &&
		       offsetof(struct save_area, mxcsr) == 0xf0 &&
		       offsetof(struct save_area, bases) == 0xf8 &&
		       offsetof(struct save_area, out) == 0x2000,
	       "known to the assembly");

/* How the bases of FS and GS are changed and read; known to the assembly. */
enum bases { BASES_PRCTL, BASES_INSN, BASES_LEFT };

#define area ((struct save_area *)AREA)
u8 *const native_arena = (u8 *)ARENA;

extern void native_enter(void);
extern const char native_leave[], native_tail0[], native_tail1[], native_tail2[], native_tail3[];

/*
 * The bases of FS and GS go by arch_prctl where the kernel does not enable FSGSBASE for user mode: it would not
 * keep what the instructions write. Either way changes RAX, RCX, RDI, RSI, R11 and flags.
 */
__asm__(".set A, 0x30000000\n"
	".macro prctl code, place\n"
	"mov $\\code, %edi; mov \\place, %rsi; mov $158, %eax; syscall\n"
	".endm\n"
	".macro get_bases fs, gs\n"
	"cmpb $1, A+0xf8; ja 4f; jb 3f\n"
	"rdfsbase %rax; mov %rax, \\fs; rdgsbase %rax; mov %rax, \\gs; jmp 4f\n"
	"3: prctl 0x1003, $\\fs; prctl 0x1004, $\\gs\n"
	"4:\n"
	".endm\n"
	".macro set_bases fs, gs\n"
	"cmpb $1, A+0xf8; ja 4f; jb 3f\n"
	"mov \\fs, %rax; wrfsbase %rax; mov \\gs, %rax; wrgsbase %rax; jmp 4f\n"
	"3: prctl 0x1002, \\fs; prctl 0x1001, \\gs\n"
	"4:\n"
	".endm\n"
	".pushsection .text\n"
	"native_enter:\n"
	"push %rbx; push %rbp; push %r12; push %r13; push %r14; push %r15\n"
	"mov %rsp, A+0xa0\n"
	"stmxcsr A+0xf0\n"
	"get_bases A+0xa8, A+0xb0\n"
	"mov A+0xb8, %eax; mov A+0xbc, %edx; xrstor64 A+0x1000\n"
	"set_bases A+0x90, A+0x98\n"
	"movl $1, A+0xf4\n"
	"mov $A+0x80, %rsp; popfq\n"
	"mov A+0x00, %rax; mov A+0x08, %rcx; mov A+0x10, %rdx; mov A+0x18, %rbx\n"
	"mov A+0x20, %rsp; mov A+0x28, %rbp; mov A+0x30, %rsi; mov A+0x38, %rdi\n"
	"mov A+0x40, %r8; mov A+0x48, %r9; mov A+0x50, %r10; mov A+0x58, %r11\n"
	"mov A+0x60, %r12; mov A+0x68, %r13; mov A+0x70, %r14; mov A+0x78, %r15\n"
	"jmp *A+0x88\n"
	"native_tail0: movq $0, A+0xc0; jmp 1f\n"
	"native_tail1: movq $1, A+0xc0; jmp 1f\n"
	"native_tail2: movq $2, A+0xc0; jmp 1f\n"
	"native_tail3: movq $3, A+0xc0\n"
	"1: mov %rax, A+0x100; mov %rcx, A+0x108; mov %rdx, A+0x110; mov %rbx, A+0x118\n"
	"mov %rsp, A+0x120; mov %rbp, A+0x128; mov %rsi, A+0x130; mov %rdi, A+0x138\n"
	"mov %r8, A+0x140; mov %r9, A+0x148; mov %r10, A+0x150; mov %r11, A+0x158\n"
	"mov %r12, A+0x160; mov %r13, A+0x168; mov %r14, A+0x170; mov %r15, A+0x178\n"
	"mov A+0xa0, %rsp\n"
	"pushfq; pop %rax; mov %rax, A+0xd8\n"
	"get_bases A+0xc8, A+0xd0\n"
	"mov %es, A+0xe0; mov %cs, A+0xe2; mov %ss, A+0xe4; mov %ds, A+0xe6; mov %fs, A+0xe8; mov "
	"%gs, A+0xea\n"
	"mov A+0xb8, %eax; mov A+0xbc, %edx; xsave64 A+0x2000\n"
	"native_leave:\n"
	"movl $0, A+0xf4\n"
	"pushq $0x202; popfq\n"
	"xor %eax, %eax; mov %eax, %ds; mov %eax, %es\n"
	"cmpb $1, A+0xf8; ja 2f; mov %eax, %fs; mov %eax, %gs; 2:\n"
	"set_bases A+0xa8, A+0xb0\n"
	"fninit; ldmxcsr A+0xf0\n"
	"testb $4, A+0xb8; jz 2f; vzeroupper\n"
	"2: pop %r15; pop %r14; pop %r13; pop %r12; pop %rbp; pop %rbx; ret\n"
	".popsection\n");

static struct sigaction engines[NSIG]; /* the handlers that were there before */

static const s8 gregs[16] = {
	[RAX] = REG_RAX, [RCX] = REG_RCX, [RDX] = REG_RDX, [RBX] = REG_RBX,
	[RSP] = REG_RSP, [RBP] = REG_RBP, [RSI] = REG_RSI, [RDI] = REG_RDI,
	[R8] = REG_R8,	 [R9] = REG_R9,	  [R10] = REG_R10, [R11] = REG_R11,
	[R12] = REG_R12, [R13] = REG_R13, [R14] = REG_R14, [R15] = REG_R15,
};

/* In the handler, where no thread-local errno may be touched. */
static inline __attribute__((always_inline)) void get_bases(void)
{
	long fs = SYS_arch_prctl, gs = SYS_arch_prctl;

	if (area->bases == BASES_LEFT)
		return;
	if (area->bases == BASES_INSN) {
		__asm__ volatile("rdfsbase %0" : "=r"(area->out_fs));
		__asm__ volatile("rdgsbase %0" : "=r"(area->out_gs));
		return;
	}
	__asm__ volatile("syscall"
			 : "+a"(fs)
			 : "D"(ARCH_GET_FS), "S"(&area->out_fs)
			 : "rcx", "r11", "memory");
	__asm__ volatile("syscall"
			 : "+a"(gs)
			 : "D"(ARCH_GET_GS), "S"(&area->out_gs)
			 : "rcx", "r11", "memory");
}

/* FS is the test's: nothing here may use thread-local storage before native_leave has put it back. */
__attribute__((no_stack_protector, no_sanitize("address", "undefined", "thread"))) static void
handler(int sig, siginfo_t *info, void *context)
{
	ucontext_t *uc = context;
	greg_t *g = uc->uc_mcontext.gregs;
	const u8 *fp = (const u8 *)uc->uc_mcontext.fpregs;

	if (!area->running) {
		engines[sig].sa_sigaction(sig, info, context);
		return;
	}
	__asm__ volatile("pushfq; andl $~0x40000, (%%rsp); popfq" ::: "memory", "cc"); /* AC */
	get_bases();
	__asm__ volatile(
		"mov %%es, %0; mov %%cs, %1; mov %%ss, %2; mov %%ds, %3; mov %%fs, %4; mov %%gs, %5"
		: "=m"(area->sel[0]), "=m"(area->sel[1]), "=m"(area->sel[2]), "=m"(area->sel[3]),
		  "=m"(area->sel[4]), "=m"(area->sel[5]));
	for (unsigned i = 0; i < 16; i++)
		area->fault.gpr[i] = g[gregs[i]];
	area->fault.rip = g[REG_RIP];
	area->fault.rflags = g[REG_EFL];
	area->fault.trap = g[REG_TRAPNO];
	area->fault.error = g[REG_ERR];
	area->fault.cr2 = g[REG_CR2];
	for (unsigned i = 0; i < XSAVE_AREA; i += 8)
		if (i < 2816)
			*(u64 *)(area->out + i) = *(const u64 *)(fp + i);
	area->end = ~0ull;
	g[REG_RIP] = (greg_t)native_leave;
	g[REG_RSP] = area->host_rsp;
	g[REG_EFL] = 0x202;
}

static void signals(void)
{
	static const int list[] = { SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP };
	static u8 stack[65536];
	stack_t ss = { .ss_sp = stack, .ss_size = sizeof(stack) };
	struct sigaction sa;

	sigaltstack(&ss, NULL);
	memset(&sa, 0, sizeof(sa));
	sa.sa_sigaction = handler;
	sa.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
	for (unsigned i = 0; i < ARRAY_SIZE(list); i++)
		sigaction(list[i], &sa, &engines[list[i]]);
}

static bool map(u64 address, u64 size)
{
	void *p = mmap((void *)address, size, PROT_READ | PROT_WRITE | PROT_EXEC,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);

	if (p != (void *)address)
		return false;
	memset(p, 0, size);
	return true;
}

static bool has_fsgsbase;

/* System calls are dear: where the bases go by them, only for a case that uses or changes one. */
static enum bases bases_wanted(const struct testcase *c)
{
	if (has_fsgsbase)
		return BASES_INSN;
	if (c->zi.attributes & (ZYDIS_ATTRIB_HAS_SEGMENT_FS | ZYDIS_ATTRIB_HAS_SEGMENT_GS) ||
	    c->zi.meta.branch_type == ZYDIS_BRANCH_TYPE_FAR)
		return BASES_PRCTL;
	for (unsigned i = 0; i < c->zi.operand_count; i++)
		if (c->ops[i].type == ZYDIS_OPERAND_TYPE_REGISTER &&
		    ZydisRegisterGetClass(c->ops[i].reg.value) == ZYDIS_REGCLASS_SEGMENT)
			return BASES_PRCTL;
	return BASES_LEFT;
}

bool host_has_fsgsbase(void)
{
	return getauxval(AT_HWCAP2) & HWCAP2_FSGSBASE;
}

/* What the process has below 4 GiB beside the arena, such as a sanitizer's shadow: 32-bit addresses reach it. */
static struct {
	u64 from, to;
} low_maps[16];
static unsigned nlow_maps;

static bool low_maps_note(void)
{
	FILE *f = fopen("/proc/self/maps", "re");
	char line[512];
	u64 from, to;

	while (f && fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%lx-%lx", &from, &to) != 2 || from >> 32 ||
		    (from >= ARENA && to <= ARENA + ARENA_SIZE))
			continue;
		if (nlow_maps == ARRAY_SIZE(low_maps))
			break;
		low_maps[nlow_maps].from = from;
		low_maps[nlow_maps++].to = to;
	}
	return f && fclose(f) == 0 && nlow_maps < ARRAY_SIZE(low_maps);
}

bool native_is_stray(const struct testcase *c, const struct state *st)
{
	for (unsigned i = 0; i < c->zi.operand_count; i++) {
		u64 at;

		if (c->ops[i].type != ZYDIS_OPERAND_TYPE_MEMORY)
			continue;
		at = operand_address(st, c, &c->ops[i]);
		for (unsigned k = 0; k < nlow_maps; k++)
			if (at + 64 > low_maps[k].from && at < low_maps[k].to)
				return true;
	}
	return false;
}

const char *native_init(void)
{
	static const char *const tails[TAILS] = { native_tail0, native_tail1, native_tail2,
						  native_tail3 };

	if (!state_mask || state_mask == 1)
		return "the host has no XSAVE";
	if (!map(AREA, sizeof(struct save_area)) || !map(ARENA + CODE_OFF, CODE_SIZE) ||
	    !map(ARENA + DATA_OFF, DATA_SIZE) || !map(ARENA + RO_OFF, RO_SIZE) ||
	    !map(ARENA + STACK_OFF, STACK_SIZE))
		return "the addresses of the test are taken";
	if (!low_maps_note())
		return "the process's own memory map cannot be read";
	area->mask = state_mask;
	for (unsigned i = 0; i < TAILS; i++) {
		memcpy(area->ends[i].jmp, "\xff\x25\2\0\0\0\xcc\xcc", 8);
		area->ends[i].to = tails[i];
	}
	has_fsgsbase = host_has_fsgsbase();
	signals();
	return NULL;
}

/* A jump, by way of one that reaches all addresses, to where the state is saved. */
static void put_tail(u64 at, unsigned tail)
{
	s32 distance = (u64)&area->ends[tail] - (at + 5);

	*(u8 *)at = 0xe9;
	memcpy((u8 *)at + 1, &distance, 4);
}

void native_code(const struct testcase *c)
{
	memset(native_arena + CODE_OFF, 0xcc, CODE_SIZE);
	memcpy((u8 *)c->start, c->before, c->nbefore);
	memcpy((u8 *)c->at, c->bytes, c->zi.length);
	memcpy((u8 *)c->at + c->zi.length, c->behind, c->nbehind);
	for (unsigned i = 0; i < TAILS; i++)
		put_tail(c->tail[i], i);
}

void native_run(const struct testcase *c, const struct state *in, struct outcome *out)
{
	memcpy(area->gpr, in->gpr, sizeof(in->gpr));
	area->rflags = in->rflags;
	area->rip = c->start;
	area->fs = in->fs_base;
	area->gs = in->gs_base;
	area->out_fs = in->fs_base;
	area->out_gs = in->gs_base;
	area->bases = bases_wanted(c);
	memcpy(area->in, in->xsave, 2816);
	memset(area->out + XS_HEADER, 0, 64);
	native_enter();
	memcpy(out->st.xsave, area->out, 2816);
	memcpy(out->st.sel, area->sel, sizeof(out->st.sel));
	out->st.fs_base = area->out_fs;
	out->st.gs_base = area->out_gs;
	out->vector = -1;
	out->error = out->cr2 = 0;
	if (area->end < TAILS) {
		memcpy(out->st.gpr, area->out_gpr, sizeof(area->out_gpr));
		out->st.rflags = area->out_rflags;
		out->rip = c->tail[area->end];
		return;
	}
	memcpy(out->st.gpr, area->fault.gpr, sizeof(area->fault.gpr));
	out->st.rflags = area->fault.rflags;
	out->rip = area->fault.rip;
	out->vector = area->fault.trap;
	out->error = area->fault.error;
	out->cr2 = area->fault.cr2;
}

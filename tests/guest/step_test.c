/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Single steps by TF and execution breakpoints: where each #DB comes, and what DR6 says. */
#include <string.h>

#include "vm.h"

#define TF 0x100u
#define BS (1u << 14)
#define BD (1u << 13)

static uint64_t dr6(struct vm *vm)
{
	struct kvm_debugregs d;

	if (vm_ioctl(vm, vm->vcpu, KVM_GET_DEBUGREGS, (unsigned long)&d))
		check_fatal("KVM_GET_DEBUGREGS", "refused");
	return d.dr6;
}

static void debug_set(struct vm *vm, const uint64_t *db, uint64_t dr7)
{
	struct kvm_debugregs d = { .dr6 = 0xffff0ff0, .dr7 = dr7 };

	if (db)
		memcpy(d.db, db, sizeof(d.db));
	if (vm_ioctl(vm, vm->vcpu, KVM_SET_DEBUGREGS, (unsigned long)&d))
		check_fatal("KVM_SET_DEBUGREGS", "refused");
}

static void flags_set(struct vm *vm, uint64_t set)
{
	struct kvm_regs r = vm_regs(vm);

	r.rflags |= set;
	vm_set_regs(vm, &r);
}

/* What comes next: a vector and the offset of the saved RIP in the code. */
struct stop {
	int vector;
	unsigned at;
};
#define STOPS 24

struct walk {
	const char *name;
	const uint8_t *code, *end;
	enum vm_mode mode;
	unsigned cpl;
	struct stop stop[STOPS]; /* the last: vector -1, which is HLT, or 6, or 13 */
};

static void walk_run(struct vm *vm, const struct walk *w)
{
	struct vm_frame f;

	vm_enter(vm, w->mode, w->cpl);
	vm_load(vm, VM_CODE, w->code, w->end - w->code);
	debug_set(vm, NULL, 0x400);
	flags_set(vm, TF);
	for (unsigned i = 0; i < STOPS; i++) {
		const struct stop *s = &w->stop[i];
		int reason = vm_run(vm);

		if (s->vector == -1) {
			if (reason != KVM_EXIT_HLT)
				check_failed(w->name, "expected the end, got %s",
					     vm_exit_text(vm, reason));
			return;
		}
		f = vm_frame(vm);
		if (reason != KVM_EXIT_IO || f.vector != s->vector || f.rip != VM_CODE + s->at) {
			check_failed(w->name, "stop %u: expected %d at %x, got %d at %lx (%s)", i,
				     s->vector, s->at, f.vector, f.rip - VM_CODE,
				     vm_exit_text(vm, reason));
			return;
		}
		if (s->vector == 1 && !(dr6(vm) & BS))
			check_failed(w->name, "stop %u: DR6 %lx", i, dr6(vm));
		if (s->vector == 6 || s->vector == 13) {
			CHECK_EQ(f.rflags & TF, TF);
			return;
		}
	}
}

#define WALK(name, mode, cpl) #name, name, name##_end, mode, cpl
#define DB(at)                                                                                     \
	{                                                                                          \
		1, at                                                                              \
	}
#define END                                                                                        \
	{                                                                                          \
		-1, 0                                                                              \
	}

/* Offsets are of the instructions; HLT is not stepped over, as it exits before. */
GUEST(plain, 64, "nop; inc %eax; mov 0x20000, %ecx; mov %ecx, 0x20004; cpuid; hlt");
GUEST(jumps, 64, "jmp 1f; nop\n 1: call 2f; hlt\n 2: test %eax, %eax; jz 3f; nop\n 3: ret");
GUEST(reps, 64, "mov $2, %ecx; mov $0x20000, %esi; mov $0x20010, %edi; rep movsb; nop; hlt");
GUEST(popf_off, 64, "pushf; andl $~0x100, (%rsp); popf; nop; nop; hlt");
GUEST(popf_on, 64, "pushf; orl $0x100, (%rsp); popf; nop; nop; hlt");
GUEST(iret_on, 64,
      "lea 1f(%rip), %rdx; mov %rsp, %rcx; mov %ss, %eax; push %rax; push %rcx; pushf; orl $0x100, "
      "(%rsp)\n"
      "mov %cs, %eax; push %rax; push %rdx; iretq\n 1: nop; nop; hlt");
GUEST(ss_load, 64, "mov %ss, %ecx; mov %ecx, %ss; inc %eax; inc %eax; hlt");
GUEST(ints, 64, "int $0x80; nop; int3; nop; hlt");
GUEST(ud_step, 64, "nop; ud2");
GUEST(icebp, 64, ".byte 0xf1; nop; hlt");
GUEST(sse_step, 64,
      "movups 0x20000, %xmm0; paddd %xmm0, %xmm0; movups %xmm0, 0x20010; fld1; fstpl 0x20020; hlt");
GUEST(plain32, 32, "nop; push %eax; pop %ecx; call 1f; hlt\n 1: ret");
GUEST(plain16, 16, "nop; push %ax; pop %cx; call 1f; hlt\n 1: ret");
GUEST(user64, 64, "nop; inc %eax; int $0x80; nop; ud2");

static const struct walk walks[] = {
	{ WALK(plain, VM_LONG, 0), { DB(1), DB(3), DB(10), DB(17), DB(19), END } },
	{ WALK(jumps, VM_LONG, 0), { DB(3), DB(9), DB(11), DB(14), DB(8), END } },
	/* Behind each iteration: RIP stays at the REP until the last one. */
	{ WALK(reps, VM_LONG, 0), { DB(5), DB(10), DB(15), DB(15), DB(17), DB(18), END } },
	/* POPF that clears TF is itself stepped, as TF was set when it began. */
	{ WALK(popf_off, VM_LONG, 0), { DB(1), DB(8), DB(9), END } },
	/* MOV SS: no stop between it and the next instruction. */
	{ WALK(ss_load, VM_LONG, 0), { DB(2), DB(6), DB(8), END } },
	/* INT clears TF on its way; what follows it has TF again, by IRET. */
	{ WALK(ints, VM_LONG, 0), { { 0x80, 2 }, DB(3), { 3, 4 }, DB(5), END } },
	/* A fault has no step of its own. */
	{ WALK(ud_step, VM_LONG, 0), { DB(1), { 6, 1 } } },
	{ WALK(sse_step, VM_LONG, 0), { DB(8), DB(12), DB(20), DB(22), DB(29), END } },
	{ WALK(plain32, VM_PM32, 0), { DB(1), DB(2), DB(3), DB(9), DB(8), END } },
	{ WALK(plain32, VM_PAGED32, 0), { DB(1), DB(2), DB(3), DB(9), DB(8), END } },
	{ WALK(plain32, VM_COMPAT, 0), { DB(1), DB(2), DB(3), DB(9), DB(8), END } },
	{ WALK(plain16, VM_REAL, 0), { DB(1), DB(2), DB(3), DB(7), DB(6), END } },
	{ WALK(plain16, VM_PM16, 0), { DB(1), DB(2), DB(3), DB(7), DB(6), END } },
	{ WALK(plain16, VM_V86, 3), { DB(1), DB(2), DB(3), DB(7), DB(6), { 13, 6 } } },
	{ WALK(user64, VM_LONG, 3), { DB(1), DB(3), { 0x80, 5 }, DB(6), { 6, 6 } } },
};

static void steps(void)
{
	struct vm vm;

	vm_make(&vm, 0);
	for (unsigned i = 0; i < sizeof(walks) / sizeof(walks[0]); i++)
		walk_run(&vm, &walks[i]);
	vm_destroy(&vm);
}

/* TF set by POPF and IRET: the first stop is behind the instruction that follows. */
static void begins(void)
{
	struct vm_frame f;
	struct vm vm;

	vm_make(&vm, 0);
	VM_START(&vm, VM_LONG, 0, popf_on);
	f = VM_FAULT(&vm, 1);
	CHECK_EQ(f.rip, VM_CODE + 10);
	CHECK_EQ(f.rflags & TF, TF);
	VM_FAULT(&vm, 1);
	CHECK_EXIT(&vm, KVM_EXIT_HLT);
	VM_START(&vm, VM_LONG, 0, iret_on);
	f = VM_FAULT(&vm, 1);
	CHECK_EQ(f.rip, VM_CODE + (iret_on_end - iret_on) - 2);
	/* ICEBP: vector 1 without BS, a trap. */
	VM_START(&vm, VM_LONG, 0, icebp);
	debug_set(&vm, NULL, 0x400);
	f = VM_FAULT(&vm, 1);
	CHECK_EQ(f.rip, VM_CODE + 1);
	CHECK_EQ(dr6(&vm) & (BS | 0xf), 0);
	vm_destroy(&vm);
}

/* SYSCALL clears what SFMASK says; with TF left, the step is behind SYSCALL, in the kernel. */
GUEST(user_syscall, 64, "syscall; nop; ud2");
GUEST(kernel_entry, 64, "nop; inc %eax; sysretq");

static void over_syscall(void)
{
	struct vm_frame f;
	struct vm vm;

	vm_make(&vm, 0);
	for (unsigned masked = 0; masked < 2; masked++) {
		VM_START(&vm, VM_LONG, 3, user_syscall);
		VM_LOAD(&vm, VM_CODE + 0x800, kernel_entry);
		vm_msr(&vm, 0xc0000081, (uint64_t)0x08 << 32 | (uint64_t)0x20 << 48);
		vm_msr(&vm, 0xc0000082, VM_CODE + 0x800);
		vm_msr(&vm, 0xc0000084, masked ? TF : 0);
		/* Its stack is the kernel's when #DB comes at CPL 0. */
		debug_set(&vm, NULL, 0x400);
		flags_set(&vm, TF);
		f = VM_FAULT(&vm, 1);
		if (masked) {
			/* SYSRET brings TF back, and is itself what is stepped. */
			CHECK_EQ(f.rip, VM_CODE + 2);
			CHECK_EQ(f.cs, SEL_USER64);
		} else {
			CHECK_EQ(f.rip, VM_CODE + 0x800);
			CHECK_EQ(f.cs, SEL_CODE64);
			f = VM_FAULT(&vm, 1);
			CHECK_EQ(f.rip, VM_CODE + 0x801);
		}
	}
	vm_destroy(&vm);
}

/* Execution breakpoints: before the instruction, once, with RF in the frame. */
GUEST(breaks, 64, "mov $3, %ecx; xor %eax, %eax\n 1: inc %eax; nop; dec %ecx; jnz 1b; nop; hlt");

static void breakpoints(void)
{
	/* inc at 7, nop at 9, nop at 14. */
	const uint64_t db[4] = { VM_CODE + 7, VM_CODE + 9, VM_CODE + 14, VM_CODE + 15 };
	static const struct {
		unsigned at, bit;
	} hits[] = { { 7, 0 }, { 9, 1 }, { 7, 0 }, { 9, 1 }, { 7, 0 }, { 9, 1 }, { 14, 2 } };
	struct vm_frame f;
	struct vm vm;

	vm_make(&vm, 0);
	VM_START(&vm, VM_LONG, 0, breaks);
	debug_set(&vm, db, 0x400 | 1 | 2 << 2 | 1 << 4);
	for (unsigned i = 0; i < 7; i++) {
		f = VM_FAULT(&vm, 1);
		CHECK_EQ(f.rip, VM_CODE + hits[i].at);
		CHECK_EQ(f.rflags >> 16 & 1, 1);
		CHECK_EQ(dr6(&vm) & (BS | 0xf), 1u << hits[i].bit);
		debug_set(&vm, db, 0x400 | 1 | 2 << 2 | 1 << 4);
	}
	CHECK_EXIT(&vm, KVM_EXIT_HLT);
	CHECK_EQ(vm_regs(&vm).rax, 3);
	/* Not enabled: no stop. */
	VM_START(&vm, VM_LONG, 0, breaks);
	debug_set(&vm, db, 0x400);
	CHECK_EXIT(&vm, KVM_EXIT_HLT);
	vm_destroy(&vm);
}

/* Set by the guest, in code that is hot; and cleared again. */
GUEST(break_guest, 64,
      "lea 1f(%rip), %rax; mov %rax, %db0; mov $1000, %ecx; xor %edx, %edx\n"
      "2: call 1f; dec %ecx; jnz 2b; mov $1, %eax; mov %rax, %db7; call 1f; xor %eax, %eax; mov "
      "%rax, %db7; call 1f; hlt\n"
      "1: inc %edx; ret");

static void breakpoint_by_guest(void)
{
	struct vm_frame f;
	struct vm vm;

	vm_make(&vm, 0);
	VM_START(&vm, VM_LONG, 0, break_guest);
	f = VM_FAULT(&vm, 1);
	CHECK_EQ(f.rip, VM_CODE + (break_guest_end - break_guest) - 3);
	CHECK_EQ(vm_regs(&vm).rdx, 1000);
	CHECK_EXIT(&vm, KVM_EXIT_HLT);
	CHECK_EQ(vm_regs(&vm).rdx, 1002);
	vm_destroy(&vm);
}

/* A step and a breakpoint at once: one #DB that tells both. General detection: #DB at MOV DR. */
GUEST(both_stops, 64, "nop; nop; inc %eax; hlt");
GUEST(detect, 64, "nop; mov %rax, %db1; hlt");

static void order(void)
{
	const uint64_t db[4] = { VM_CODE + 1 };
	struct vm_frame f;
	struct vm vm;

	vm_make(&vm, 0);
	VM_START(&vm, VM_LONG, 0, both_stops);
	debug_set(&vm, db, 0x401);
	flags_set(&vm, TF);
	f = VM_FAULT(&vm, 1);
	CHECK_EQ(f.rip, VM_CODE + 1);
	/* The trap of the first NOP is told; the breakpoint with it, or as a fault of its own behind it. */
	CHECK_EQ(dr6(&vm) & BS, BS);
	if (!(dr6(&vm) & 1)) {
		f = VM_FAULT(&vm, 1);
		CHECK_EQ(f.rip, VM_CODE + 1);
		CHECK_EQ(dr6(&vm) & 1, 1);
	}
	f = VM_FAULT(&vm, 1);
	CHECK_EQ(f.rip, VM_CODE + 2);
	VM_START(&vm, VM_LONG, 0, detect);
	debug_set(&vm, NULL, 0x400 | 1u << 13);
	f = VM_FAULT(&vm, 1);
	CHECK_EQ(f.rip, VM_CODE + 1);
	CHECK_EQ(dr6(&vm) & BD, BD);
	/* The handler runs with GD clear. */
	{
		struct kvm_debugregs d;

		vm_ioctl(&vm, vm.vcpu, KVM_GET_DEBUGREGS, (unsigned long)&d);
		CHECK_EQ(d.dr7 >> 13 & 1, 0);
	}
	vm_destroy(&vm);
}

/* Steps across a device access: one #DB, behind the completed instruction. */
GUEST(step_mmio, 64, "mov $0x10000000, %ebx; addl $1, 4(%rbx); nop; hlt");

static void over_device(void)
{
	struct vm_frame f;
	struct vm vm;

	vm_make(&vm, 0);
	VM_START(&vm, VM_LONG, 0, step_mmio);
	debug_set(&vm, NULL, 0x400);
	flags_set(&vm, TF);
	f = VM_FAULT(&vm, 1);
	CHECK_EQ(f.rip, VM_CODE + 5);
	CHECK_EXIT(&vm, KVM_EXIT_MMIO);
	memcpy(vm.run->mmio.data, "\x05\0\0\0", 4);
	CHECK_EXIT(&vm, KVM_EXIT_MMIO);
	CHECK_EQ(vm.run->mmio.is_write, 1);
	CHECK_EQ(vm.run->mmio.data[0], 6);
	f = VM_FAULT(&vm, 1);
	CHECK_EQ(f.rip, VM_CODE + 9);
	f = VM_FAULT(&vm, 1);
	CHECK_EQ(f.rip, VM_CODE + 10);
	CHECK_EXIT(&vm, KVM_EXIT_HLT);
	vm_destroy(&vm);
}

VM_TESTS({ .name = "steps", .run = steps }, { .name = "where steps begin", .run = begins },
	 { .name = "over SYSCALL", .run = over_syscall },
	 { .name = "execution breakpoints", .run = breakpoints },
	 { .name = "a breakpoint of the guest's", .run = breakpoint_by_guest },
	 { .name = "order", .run = order }, { .name = "over a device access", .run = over_device });

/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Code that leaves its page by a constant: jumps, calls and instructions on two pages, whose other page changes its place. */
#include <string.h>

#include "vm.h"

#define PTE_GLOBAL 0x100ull
#define CR4_PGE	   0x80ull

/*
 * Linear pages from 0x40000 on, mapped to themselves at first: A calls and jumps into B, both at the same offsets in A' and B';
 * S ends in the first two bytes of an instruction, T and T' begin with the rest of it.
 */
#define A	0x40000ul
#define B	0x41000ul
#define A_OTHER 0x42000ul
#define B_OTHER 0x43000ul
#define S	0x44000ul
#define T	0x45000ul
#define T_OTHER 0x46000ul
#define A_AGAIN 0x50000ul /* a second place of A, with B' behind it */
#define B_AGAIN 0x51000ul

#define ROUNDS "300" /* until all that can be linked is */
#define ROUND(f, into)                                                                             \
	"mov $" ROUNDS ", %ecx; 1: call *%" f "; dec %ecx; jnz 1b; mov %rax, %" into "\n"
#define RUN(flush)                                                                                 \
	ROUND("rbx", "r8")                                                                         \
	"mov %rsi, (%rdi)\n" flush "\n" ROUND("rbp", "r9") ROUND("rbx", "r10") "hlt"

GUEST(run_invlpg, 64, RUN("invlpg (%rdx)"));
GUEST(run_pge, 64,
      RUN("mov %cr4, %rax; mov %rax, %r11; btr $7, %rax; mov %rax, %cr4; mov %r11, %cr4"));
GUEST(run_cr3, 64, RUN("mov %cr3, %rax; mov %rax, %cr3"));

static const struct {
	const char *name;
	const uint8_t *code, *end;
	bool global; /* pages, but for the one that moves */
	bool moved_global;
} flushes[] = {
	{ "INVLPG", run_invlpg, run_invlpg_end, true, true },
	{ "INVLPG, not global", run_invlpg, run_invlpg_end, false, false },
	{ "CR4.PGE", run_pge, run_pge_end, true, true },
	{ "CR3", run_cr3, run_cr3_end, false, false },
	{ "CR3, the others global", run_cr3, run_cr3_end, true, false },
};

#define F_CALL	0xff0
#define F_JMP	0xfe0
#define F_JCC	0xfd0
#define F_FALL	0xff8
#define F_BACK	0x020
#define F_LEAF	0x010
#define F_FAR	0xf00
#define F_SPLIT 0xffe
#define F_SKIP	0xf00

static const struct {
	const char *name;
	uint64_t function, moved, to; /* the linear page @moved is mapped to @to */
	uint64_t before, after;
} ways[] = {
	{ "call", A + F_CALL, B, B_OTHER, 1, 2 },
	{ "jmp", A + F_JMP, B, B_OTHER, 1, 2 },
	{ "jcc", A + F_JCC, B, B_OTHER, 1, 2 },
	{ "no jump", A + F_FALL, B, B_OTHER, 1, 2 },
	{ "jmp back", B + F_BACK, A, A_OTHER, 1, 2 },
	{ "an instruction on two pages", S + F_SPLIT, T, T_OTHER, 1, 0x201 },
	{ "jmp to an instruction on two pages", S + F_SKIP, T, T_OTHER, 1, 0x201 },
};

static void put(struct vm *vm, uint64_t at, const char *bytes, size_t n)
{
	memcpy(vm->ram + at, bytes, n);
}
#define PUT(vm, at, bytes) put(vm, at, bytes, sizeof(bytes) - 1)

/* A branch with the opcode @op to the linear address @target; it will run at @at. */
static void put_branch(struct vm *vm, uint64_t at, const char *op, size_t n, uint64_t target)
{
	uint32_t rel = (uint32_t)(target - (at + n + 4));

	put(vm, at, op, n);
	memcpy(vm->ram + at + n, &rel, 4);
}

/* What pages hold: A and A' differ in F_FAR, B and B' in F_LEAF. */
static void lay_out(struct vm *vm)
{
	for (unsigned k = 0; k < 2; k++) {
		uint64_t a = k ? A_OTHER : A, b = k ? B_OTHER : B, t = k ? T_OTHER : T;

		put_branch(vm, a + F_CALL, "\xe8", 1, b + F_LEAF);
		PUT(vm, a + F_CALL + 5, "\xc3");
		put_branch(vm, a + F_JMP, "\xe9", 1, b + F_LEAF);
		PUT(vm, a + F_JCC, "\x39\xc0"); /* cmp eax, eax */
		put_branch(vm, a + F_JCC + 2, "\x0f\x84", 2, b + F_LEAF);
		PUT(vm, a + F_FALL, "\x90\x90\x90\x90\x90\x90\x90\x90");
		PUT(vm, b, "\xeb\x0e");
		put_branch(vm, b + F_BACK, "\xe9", 1, a + F_FAR);
		PUT(vm, a + F_FAR, "\xb8\x01\0\0\0\xc3"); /* mov eax, 1; ret */
		PUT(vm, b + F_LEAF, "\xb8\x01\0\0\0\xc3");
		PUT(vm, t, "\0\0\0\xc3");
		if (k) {
			vm->ram[a + F_FAR + 1] = 2;
			vm->ram[b + F_LEAF + 1] = 2;
			vm->ram[t] = 2;
		}
	}
	PUT(vm, S + F_SPLIT, "\xb8\x01"); /* mov eax, 1 or 0x201 */
	put_branch(vm, S + F_SKIP, "\xe9", 1, S + F_SPLIT);
}

static void start(struct vm *vm, bool global)
{
	struct kvm_sregs s;

	vm_enter(vm, VM_LONG, 0);
	lay_out(vm);
	*vm_pte(vm, A_AGAIN) = (*vm_pte(vm, A_AGAIN) & 0xfff) | A;
	*vm_pte(vm, B_AGAIN) = (*vm_pte(vm, B_AGAIN) & 0xfff) | B_OTHER;
	for (uint64_t lin = A; lin <= B_AGAIN; lin += 0x1000)
		*vm_pte(vm, lin) = (*vm_pte(vm, lin) & ~PTE_GLOBAL) | (global ? PTE_GLOBAL : 0);
	s = vm_sregs(vm);
	s.cr4 |= CR4_PGE;
	vm_set_sregs(vm, &s);
}

static struct kvm_regs run(struct vm *vm, uint64_t first, uint64_t second, uint64_t lin,
			   uint64_t pte)
{
	struct kvm_regs r = vm_regs(vm);

	r.rbx = first;
	r.rbp = second;
	r.rdi = VM_PT + (lin >> 12) * 8;
	r.rsi = pte;
	r.rdx = lin;
	vm_set_regs(vm, &r);
	CHECK_EXIT(vm, KVM_EXIT_HLT);
	return vm_regs(vm);
}

/* The guest maps the other page somewhere else, and says so. */
static void moved(void)
{
	for (unsigned f = 0; f < sizeof(flushes) / sizeof(flushes[0]); f++) {
		for (unsigned w = 0; w < sizeof(ways) / sizeof(ways[0]); w++) {
			struct kvm_regs r;
			struct vm vm;
			uint64_t pte;

			vm_make(&vm, 0);
			start(&vm, flushes[f].global);
			vm_load(&vm, VM_CODE, flushes[f].code, flushes[f].end - flushes[f].code);
			if (!flushes[f].moved_global)
				*vm_pte(&vm, ways[w].moved) &= ~PTE_GLOBAL;
			pte = (*vm_pte(&vm, ways[w].moved) & 0xfff) | ways[w].to;
			r = run(&vm, ways[w].function, ways[w].function, ways[w].moved, pte);
			if (r.r8 != ways[w].before || r.r9 != ways[w].after ||
			    r.r10 != ways[w].after)
				check_failed(ways[w].name, "%s: %llx, then %llx and %llx",
					     flushes[f].name, r.r8, r.r9, r.r10);
			vm_destroy(&vm);
		}
	}
}

/* One page of code at two places with different neighbours: each place keeps its own. */
static void two_places(void)
{
	static const uint16_t functions[] = { F_CALL, F_JMP, F_JCC, F_FALL };

	for (unsigned k = 0; k < 2 * sizeof(functions) / sizeof(functions[0]); k++) {
		uint64_t f = functions[k / 2], first = (k & 1 ? A_AGAIN : A) + f,
			 second = (k & 1 ? A : A_AGAIN) + f;
		struct kvm_regs r;
		struct vm vm;

		vm_make(&vm, 0);
		start(&vm, true);
		VM_LOAD(&vm, VM_CODE, run_invlpg);
		r = run(&vm, first, second, A, *vm_pte(&vm, A));
		if (r.r8 != 1u + (k & 1) || r.r9 != 2u - (k & 1) || r.r10 != 1u + (k & 1))
			check_failed("two places", "%#lx: %llx, %llx, %llx", f, r.r8, r.r9, r.r10);
		vm_destroy(&vm);
	}
}

/* The guest patches the function that is called across the page. */
static void patched(void)
{
	struct kvm_regs r;
	struct vm vm;

	vm_make(&vm, 0);
	start(&vm, true);
	VM_LOAD(&vm, VM_CODE, run_invlpg);
	r = vm_regs(&vm);
	r.rbx = r.rbp = A + F_CALL;
	r.rdi = B + F_LEAF; /* the 8 bytes of mov eax, 5; ret */
	r.rsi = 0xc300000005b8ull;
	r.rdx = VM_DATA;
	vm_set_regs(&vm, &r);
	CHECK_EXIT(&vm, KVM_EXIT_HLT);
	r = vm_regs(&vm);
	CHECK_EQ(r.r8, 1);
	CHECK_EQ(r.r9, 5);
	CHECK_EQ(r.r10, 5);
	vm_destroy(&vm);
}

/* Branches that go as far as they can, and 2 GiB behind the start of their page: to nothing, which the fault tells. */
static void far_away(void)
{
	static const struct {
		const char *name, *op;
		size_t n;
	} branches[] = { { "call", "\xe8", 1 }, { "jmp", "\xe9", 1 }, { "jcc", "\x0f\x84", 2 } };

	for (unsigned k = 0; k < sizeof(branches) / sizeof(branches[0]); k++) {
		uint64_t at = A + F_CALL, target = at + branches[k].n + 4 + 0x7fffffff;
		struct kvm_regs r;
		struct vm vm;

		vm_make(&vm, 0);
		start(&vm, true);
		put_branch(&vm, at, branches[k].op, branches[k].n, target);
		r = vm_regs(&vm);
		r.rip = at;
		r.rflags |= 0x40; /* ZF */
		vm_set_regs(&vm, &r);
		if (vm_fault(&vm, 14, branches[k].name).cr2 != target)
			check_failed(branches[k].name, "not to %#lx", target);
		vm_destroy(&vm);
	}
}

GUEST(once, 64, "xor %ecx, %ecx; call *%rbx; mov %rax, %r8; hlt");

/* Flags that were put away before an access and are needed in the other page: the first time, when nothing is linked yet, too. */
static void flags_kept(void)
{
	static const uint16_t functions[] = { 0xe00, 0xffb };

	for (unsigned k = 0; k < sizeof(functions) / sizeof(functions[0]); k++) {
		struct kvm_regs r;
		struct vm vm;

		vm_make(&vm, 0);
		start(&vm, true);
		VM_LOAD(&vm, VM_CODE, once);
		PUT(&vm, A + 0xe00, "\x39\xc9"); /* cmp ecx, ecx; the call stores */
		put_branch(&vm, A + 0xe02, "\xe8", 1, B);
		PUT(&vm, A + 0xe07, "\xc3");
		PUT(&vm, A + 0xffb, "\x39\xc9\x41\x89\x0f"); /* cmp ecx, ecx; mov [r15], ecx */
		PUT(&vm, B, "\x0f\x94\xc0\x0f\xb6\xc0\xc3"); /* sete al; movzx eax, al; ret */
		r = vm_regs(&vm);
		r.rbx = A + functions[k];
		r.r15 = VM_DATA;
		vm_set_regs(&vm, &r);
		CHECK_EXIT(&vm, KVM_EXIT_HLT);
		CHECK_EQ(vm_regs(&vm).r8, 1);
		vm_destroy(&vm);
	}
}

VM_TESTS({ .name = "the other page moved", .run = moved, .seconds = 60 },
	 { .name = "one page at two places", .run = two_places, .seconds = 60 },
	 { .name = "the other page patched", .run = patched },
	 { .name = "flags", .run = flags_kept },
	 { .name = "as far as branches go", .run = far_away });

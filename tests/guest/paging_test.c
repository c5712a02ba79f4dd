/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Paging as a guest sees it: what a flush drops and keeps, exact faults, accessed and dirty bits. */
#include <string.h>

#include "vm.h"

#define P	  0x01ull
#define W	  0x02ull
#define U	  0x04ull
#define A	  0x20ull
#define D	  0x40ull
#define PS	  0x80ull
#define G	  0x100ull
#define NX	  (1ull << 63)
#define PWU	  (P | W | U)
#define CR0_WP	  (1u << 16)
#define CR4_PGE	  (1u << 7)
#define CR4_PCIDE (1u << 17)
#define CR4_SMEP  (1u << 20)
#define CR4_SMAP  (1u << 21)

/* Two frames with different first words, to tell which one is mapped. */
#define FRAME_A 0x400000ul
#define FRAME_B 0x600000ul
#define LARGE	0x800000ul /* linear address of a 2 MiB page */

/* Fill 64 fragments of a large page, one page of another, INVLPG at a fragment; sum what is read afterwards. */
GUEST(large_fill, 64,
      "mov $0x800000, %ebx; xor %ecx, %ecx; xor %esi, %esi\n"
      "1: add (%rbx), %rsi; add $0x8000, %ebx; inc %ecx; cmp $64, %ecx; jne 1b; hlt\n"
      "invlpg 0x812345; mov $0x800000, %ebx; xor %ecx, %ecx; xor %esi, %esi\n"
      "1: add (%rbx), %rsi; add $0x8000, %ebx; inc %ecx; cmp $64, %ecx; jne 1b; hlt");
GUEST(large_fill32, 32,
      "mov $0x800000, %ebx; xor %ecx, %ecx; xor %esi, %esi\n"
      "1: add (%ebx), %esi; add $0x8000, %ebx; inc %ecx; cmp $64, %ecx; jne 1b; hlt\n"
      "invlpg 0x812345; mov $0x800000, %ebx; xor %ecx, %ecx; xor %esi, %esi\n"
      "1: add (%ebx), %esi; add $0x8000, %ebx; inc %ecx; cmp $64, %ecx; jne 1b; hlt");

static void frames_write(struct vm *vm)
{
	for (uint64_t i = 0; i < 0x200000; i += 0x1000) {
		vm_poke(vm, FRAME_A + i, 1, 8);
		vm_poke(vm, FRAME_B + i, 3, 8);
	}
}

static void large_sum(struct vm *vm, uint64_t expected, const char *where)
{
	check_exit(vm, KVM_EXIT_HLT, where);
	if (vm_regs(vm).rsi != expected)
		check_failed(where, "sum %llx, expected %lx", vm_regs(vm).rsi, expected);
}

static void invlpg_2m(void)
{
	struct vm vm;

	vm_make(&vm, 0);
	frames_write(&vm);
	VM_START(&vm, VM_LONG, 0, large_fill);
	*vm_pde(&vm, LARGE) = FRAME_A | PWU | PS;
	large_sum(&vm, 64, VM_HERE);
	*vm_pde(&vm, LARGE) = FRAME_B | PWU | PS;
	large_sum(&vm, 3 * 64, VM_HERE);
	VM_START(&vm, VM_PAE, 0, large_fill32);
	*vm_pde(&vm, LARGE) = FRAME_A | PWU | PS;
	large_sum(&vm, 64, VM_HERE);
	*vm_pde(&vm, LARGE) = FRAME_B | PWU | PS;
	large_sum(&vm, 3 * 64, VM_HERE);
	vm_destroy(&vm);
}

/* 4 MiB pages: each of the frames is the first half. */
static void invlpg_4m(void)
{
	struct vm vm;

	vm_make(&vm, 0);
	frames_write(&vm);
	memset(vm.ram + FRAME_B, 0, 0x200000);
	for (uint64_t i = 0; i < 0x200000; i += 0x1000)
		vm_poke(&vm, 0xc00000 + i, 3, 8);
	VM_START(&vm, VM_PAGED32, 0, large_fill32);
	vm_poke(&vm, VM_TABLES + 4 * (LARGE >> 22), FRAME_A | PWU | PS, 4);
	large_sum(&vm, 64, VM_HERE);
	vm_poke(&vm, VM_TABLES + 4 * (LARGE >> 22), 0xc00000 | PWU | PS, 4);
	large_sum(&vm, 3 * 64, VM_HERE);
	vm_destroy(&vm);
}

GUEST(huge_fill, 64,
      "mov $0x40800000, %ebx; xor %ecx, %ecx; xor %esi, %esi\n"
      "1: add (%rbx), %rsi; add $0x8000, %ebx; inc %ecx; cmp $64, %ecx; jne 1b; hlt\n"
      "invlpg 0x7fffffff; mov $0x40800000, %ebx; xor %ecx, %ecx; xor %esi, %esi\n"
      "1: add (%rbx), %rsi; add $0x8000, %ebx; inc %ecx; cmp $64, %ecx; jne 1b; hlt");

/* A 1 GiB page, replaced by a table of 2 MiB pages that names other frames. */
static void invlpg_1g(void)
{
	struct vm vm;

	vm_make(&vm, 0);
	if (!vm_has(&vm, 0x80000001, 0, 3, 26))
		check_skip("no 1 GiB pages in the guest");
	for (uint64_t i = 0; i < 0x200000; i += 0x1000) {
		vm_poke(&vm, 0x800000 + i, 1, 8);
		vm_poke(&vm, 0xa00000 + i, 3, 8);
	}
	VM_START(&vm, VM_LONG, 0, huge_fill);
	vm_poke(&vm, VM_TABLES + 0x1008, 0 | PWU | PS, 8);
	large_sum(&vm, 64, VM_HERE);
	vm_poke(&vm, VM_TABLES + 0x1008, 0x50000 | PWU, 8);
	for (unsigned i = 0; i < 512; i++)
		vm_poke(&vm, 0x50000 + 8 * i, 0xa00000 | PWU | PS, 8);
	large_sum(&vm, 3 * 64, VM_HERE);
	vm_destroy(&vm);
}

/* Code in fragments of a large page: INVLPG of any address of it drops the code, too. */
GUEST(large_code, 64,
      "mov $0x811000, %ebx; call *%rbx; mov %eax, %esi; hlt; invlpg 0x9ff000; call *%rbx; mov "
      "%eax, %edi; hlt");

static void invlpg_code(void)
{
	struct vm vm;

	vm_make(&vm, 0);
	VM_START(&vm, VM_LONG, 0, large_code);
	vm_load(&vm, FRAME_A + 0x11000, "\xb8\x01\x00\x00\x00\xc3", 6);
	vm_load(&vm, FRAME_B + 0x11000, "\xb8\x02\x00\x00\x00\xc3", 6);
	*vm_pde(&vm, LARGE) = FRAME_A | PWU | PS;
	CHECK_EXIT(&vm, KVM_EXIT_HLT);
	*vm_pde(&vm, LARGE) = FRAME_B | PWU | PS;
	CHECK_EXIT(&vm, KVM_EXIT_HLT);
	CHECK_EQ(vm_regs(&vm).rsi, 1);
	CHECK_EQ(vm_regs(&vm).rdi, 2);
	vm_destroy(&vm);
}

/* More functions than the branch cache has entries, there and back, so that each has lost its place to another. */
#define CALL_ALL                                                                                   \
	"mov $0x800000, %ebx; xor %esi, %esi\n"                                                    \
	"1: call *%rbx; add %rax, %rsi; add $64, %ebx; cmp $0xa00000, %ebx; jne 1b\n"              \
	"1: sub $64, %ebx; call *%rbx; add %rax, %rsi; cmp $0x800000, %ebx; jne 1b; hlt\n"
GUEST(many_calls, 64, CALL_ALL CALL_ALL "invlpg 0x9ff000\n" CALL_ALL);

static void functions_write(struct vm *vm, uint64_t frame, char result)
{
	const char code[] = { (char)0xb8, result, 0, 0, 0, (char)0xc3 };

	for (uint64_t i = 0; i < 0x200000; i += 64)
		vm_load(vm, frame + i, code, sizeof(code));
}

static void branches_many(void)
{
	const uint64_t calls = 2 * 0x200000 / 64;
	struct vm vm;

	vm_make(&vm, 0);
	VM_START(&vm, VM_LONG, 0, many_calls);
	functions_write(&vm, FRAME_A, 1);
	functions_write(&vm, FRAME_B, 2);
	*vm_pde(&vm, LARGE) = FRAME_A | PWU | PS;
	large_sum(&vm, calls, VM_HERE);
	large_sum(&vm, calls, VM_HERE);
	*vm_pde(&vm, LARGE) = FRAME_B | PWU | PS;
	large_sum(&vm, 2 * calls, VM_HERE);
	vm_destroy(&vm);
}

/*
 * Global pages: 0x20000 is global, 0x21000 not. Each step reads both into RSI and RDI and halts,
 * and between the steps the host exchanges the frames.
 */
#define READ_BOTH "mov 0x20000, %rsi; mov 0x21000, %rdi; hlt\n"
GUEST(globals, 64,
      "mov %cr4, %rax; or $0x80, %al; mov %rax, %cr4\n" READ_BOTH
      "mov %cr3, %rax; mov %rax, %cr3\n" READ_BOTH
      "mov %cr4, %rax; xor $0x80, %al; mov %rax, %cr4; xor $0x80, %al; mov %rax, %cr4\n" READ_BOTH
      "invlpg 0x20000\n" READ_BOTH);

static void map_two(struct vm *vm, uint64_t a, uint64_t b)
{
	*vm_pte(vm, 0x20000) = a | PWU | G;
	*vm_pte(vm, 0x21000) = b | PWU;
}

/* Keeping what is not flushed is allowed to fail in hardware; a program may not rely on it, so it is only told. */
static void expect_kept(uint64_t got, uint64_t expected, const char *what)
{
	if (got != expected)
		check_note("%s was dropped", what);
}

static void global_pages(void)
{
	struct vm vm;

	vm_make(&vm, 0);
	for (unsigned i = 0; i < 8; i++)
		vm_poke(&vm, 0x40000 + 0x1000 * i, i, 8);
	VM_START(&vm, VM_LONG, 0, globals);
	map_two(&vm, 0x40000, 0x41000);
	CHECK_EXIT(&vm, KVM_EXIT_HLT);
	CHECK_EQ(vm_regs(&vm).rsi, 0);
	CHECK_EQ(vm_regs(&vm).rdi, 1);
	map_two(&vm, 0x42000, 0x43000);
	CHECK_EXIT(&vm, KVM_EXIT_HLT);
	expect_kept(vm_regs(&vm).rsi, 0, "a global page, by a CR3 load,");
	CHECK_EQ(vm_regs(&vm).rdi, 3);
	map_two(&vm, 0x44000, 0x45000);
	CHECK_EXIT(&vm, KVM_EXIT_HLT);
	CHECK_EQ(vm_regs(&vm).rsi, 4);
	CHECK_EQ(vm_regs(&vm).rdi, 5);
	map_two(&vm, 0x46000, 0x47000);
	CHECK_EXIT(&vm, KVM_EXIT_HLT);
	CHECK_EQ(vm_regs(&vm).rsi, 6);
	vm_destroy(&vm);
}

/*
 * PCID: address spaces 1 and 2 with tables of their own. In RSI what 0x20000 holds after each step.
 * RBX, RBP: CR3 values without and RDX, R8 with bit 63 (no flush).
 */
GUEST(pcids, 64,
      "mov 0x20000, %rsi; hlt\n"		      /* 0: space 1 */
      "mov %rbp, %cr3; mov 0x20000, %rsi; hlt\n"      /* 1: space 2 */
      "mov %rdx, %cr3; mov 0x20000, %rsi; hlt\n"      /* 2: space 1, no flush */
      "mov %rbx, %cr3; mov 0x20000, %rsi; hlt\n"      /* 3: space 1, flush */
      "invpcid (%r9), %r10; mov 0x20000, %rsi; hlt\n" /* 4: type in R10 */
      "mov %r8, %cr3; mov 0x20000, %rsi; hlt\n"	      /* 5: space 2, no flush */
      "invpcid (%r9), %r10; mov 0x20000, %rsi; hlt\n" /* 6 */
      "invpcid (%r9), %r10; mov 0x20000, %rsi; hlt\n" /* 7 */
      "invlpg 0x20000; mov 0x20000, %rsi; hlt");      /* 8 */

#define SPACE2 0x50000ul

static void pcid_start(struct vm *vm)
{
	struct kvm_sregs s;
	struct kvm_regs r;

	VM_START(vm, VM_LONG, 0, pcids);
	memcpy(vm->ram + SPACE2, vm->ram + VM_TABLES, 0x4000);
	vm_poke(vm, SPACE2, (SPACE2 + 0x1000) | PWU, 8);
	vm_poke(vm, SPACE2 + 0x1000, (SPACE2 + 0x2000) | PWU, 8);
	vm_poke(vm, SPACE2 + 0x2000, (SPACE2 + 0x3000) | PWU, 8);
	s = vm_sregs(vm);
	s.cr4 |= CR4_PCIDE;
	s.cr3 = VM_TABLES | 1;
	vm_set_sregs(vm, &s);
	r = vm_regs(vm);
	r.rbx = VM_TABLES | 1;
	r.rdx = r.rbx | 1ull << 63;
	r.rbp = SPACE2 | 2;
	r.r8 = r.rbp | 1ull << 63;
	r.r9 = 0x30000;
	vm_set_regs(vm, &r);
}

/* Map 0x20000 of both spaces to fresh frames with values @n and @n + 100; run; the value read. */
static uint64_t pcid_step(struct vm *vm, unsigned n)
{
	vm_poke(vm, 0x40000 + 0x1000 * n, n, 8);
	vm_poke(vm, 0x60000 + 0x1000 * n, n + 100, 8);
	*vm_pte(vm, 0x20000) = (0x40000 + 0x1000 * n) | PWU;
	vm_poke(vm, SPACE2 + 0x3000 + 8 * 0x20, (0x60000 + 0x1000 * n) | PWU, 8);
	check_exit(vm, KVM_EXIT_HLT, "PCID");
	return vm_regs(vm).rsi;
}

static void invpcid_set(struct vm *vm, uint64_t type, uint64_t pcid, uint64_t address)
{
	struct kvm_regs r = vm_regs(vm);

	r.r10 = type;
	vm_poke(vm, 0x30000, pcid, 8);
	vm_poke(vm, 0x30008, address, 8);
	vm_set_regs(vm, &r);
}

static void pcid(void)
{
	struct vm vm;
	uint64_t v;

	vm_make(&vm, 0);
	if (!vm_has(&vm, 1, 0, 2, 17) || !vm_has(&vm, 7, 0, 1, 10))
		check_skip("no PCID or INVPCID in the guest");
	pcid_start(&vm);
	CHECK_EQ(pcid_step(&vm, 0), 0);
	CHECK_EQ(pcid_step(&vm, 1), 101);
	v = pcid_step(&vm, 2);
	CHECK(v == 2 || v == 0); /* space 1 as it was, or anew; never space 2's */
	expect_kept(v, 0, "PCID 1, by a CR3 load without a flush,");
	CHECK_EQ(pcid_step(&vm, 3), 3);
	invpcid_set(&vm, 0, 1, 0x20000); /* one address */
	CHECK_EQ(pcid_step(&vm, 4), 4);
	v = pcid_step(&vm, 5); /* PCID 2 was last read in step 1 */
	CHECK(v == 105 || v == 101);
	invpcid_set(&vm, 1, 2, 0); /* one context */
	CHECK_EQ(pcid_step(&vm, 6), 106);
	invpcid_set(&vm, 2, 0, 0); /* all, global pages too */
	CHECK_EQ(pcid_step(&vm, 7), 107);
	CHECK_EQ(pcid_step(&vm, 8), 108);
	/* Flushing another PCID's address does not touch... but must be kept apart: space 1 is what it says. */
	vm_destroy(&vm);
}

/* INVPCID's own faults. */
GUEST(invpcid_bad, 64, "invpcid (%r9), %r10; hlt");

static void invpcid_faults(void)
{
	static const struct {
		uint64_t type, pcid, address;
		int vector;
	} rows[] = {
		{ 4, 0, 0, 13 },	  { ~0ull, 0, 0, 13 },	    { 0, 0x1000, 0, 13 },
		{ 1, 1ull << 12, 0, 13 }, { 0, 1, 1ull << 60, 13 }, { 3, 0, 0, -1 },
	};
	struct vm vm;

	vm_make(&vm, 0);
	if (!vm_has(&vm, 1, 0, 2, 17) || !vm_has(&vm, 7, 0, 1, 10))
		check_skip("no PCID or INVPCID in the guest");
	for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		pcid_start(&vm);
		VM_LOAD(&vm, VM_CODE, invpcid_bad);
		invpcid_set(&vm, rows[i].type, rows[i].pcid, rows[i].address);
		if (rows[i].vector < 0) {
			CHECK_EXIT(&vm, KVM_EXIT_HLT);
		} else {
			struct vm_frame f = VM_FAULT(&vm, rows[i].vector);

			CHECK_EQ(f.error, 0);
			CHECK_EQ(f.rip, VM_CODE);
		}
	}
	vm_destroy(&vm);
}

/* Accessed and dirty bits, at every level. */
GUEST(read_it, 64, "mov 0x20000, %rax; hlt; mov %rax, 0x20000; hlt; mov %rax, 0x20008; hlt");
GUEST(read_it32, 32, "mov 0x20000, %eax; hlt; mov %eax, 0x20000; hlt; mov %eax, 0x20008; hlt");

static void accessed_dirty_64(struct vm *vm, enum vm_mode mode)
{
	uint64_t *pte, *pde;

	vm_enter(vm, mode, 0);
	if (mode == VM_LONG)
		VM_LOAD(vm, VM_CODE, read_it);
	else
		VM_LOAD(vm, VM_CODE, read_it32);
	pte = vm_pte(vm, 0x20000);
	pde = vm_pde(vm, 0x20000);
	*pte = 0x20000 | PWU;
	*pde &= ~(A | D);
	CHECK_EXIT(vm, KVM_EXIT_HLT);
	CHECK_EQ(*pte, 0x20000 | PWU | A);
	CHECK_EQ(*pde & (A | D), A);
	CHECK_EXIT(vm, KVM_EXIT_HLT);
	CHECK_EQ(*pte, 0x20000 | PWU | A | D);
	CHECK_EQ(*pde & (A | D), A);
	if (mode == VM_LONG) {
		CHECK_EQ(vm_peek(vm, VM_TABLES, 8) & A, A);
		CHECK_EQ(vm_peek(vm, VM_TABLES + 0x1000, 8) & A, A);
	}
	CHECK_EXIT(vm, KVM_EXIT_HLT);
}

/* D of a large page; and no D by a store that faults. */
GUEST(write_large, 64, "mov 0x800000, %rax; hlt; incl 0x800004; hlt; mov %eax, 0x20000; hlt");

static void accessed_dirty(void)
{
	struct vm vm;

	vm_make(&vm, 0);
	accessed_dirty_64(&vm, VM_LONG);
	accessed_dirty_64(&vm, VM_PAE);
	vm_enter(&vm, VM_PAGED32, 0);
	VM_LOAD(&vm, VM_CODE, read_it32);
	vm_poke(&vm, VM_PT + 4 * 0x20, 0x20000 | PWU, 4);
	CHECK_EXIT(&vm, KVM_EXIT_HLT);
	CHECK_EQ(vm_peek(&vm, VM_PT + 4 * 0x20, 4), 0x20000 | PWU | A);
	CHECK_EXIT(&vm, KVM_EXIT_HLT);
	CHECK_EQ(vm_peek(&vm, VM_PT + 4 * 0x20, 4), 0x20000 | PWU | A | D);
	VM_START(&vm, VM_LONG, 0, write_large);
	*vm_pde(&vm, LARGE) = FRAME_A | PWU | PS;
	*vm_pte(&vm, 0x20000) = 0x20000 | P;
	CHECK_EXIT(&vm, KVM_EXIT_HLT);
	CHECK_EQ(*vm_pde(&vm, LARGE), FRAME_A | PWU | PS | A);
	CHECK_EXIT(&vm, KVM_EXIT_HLT);
	CHECK_EQ(*vm_pde(&vm, LARGE), FRAME_A | PWU | PS | A | D);
	VM_FAULT(&vm, 14);
	CHECK_EQ(*vm_pte(&vm, 0x20000) & D, 0);
	vm_destroy(&vm);
}

/* A hot write tag must go with INVLPG when the entry is made read-only; the same for NX and code. */
GUEST(hot_write, 64,
      "mov $100, %ecx\n 1: mov %rcx, 0x20000; loop 1b; hlt; invlpg 0x20000; mov 0x20000, %rax; mov "
      "%rcx, 0x20000; hlt");
GUEST(hot_code, 64,
      "mov $100, %ecx; mov $0x20000, %ebx\n 1: call *%rbx; loop 1b; hlt; invlpg 0x20000; call "
      "*%rbx; hlt");

static void stale_rights(void)
{
	struct vm_frame f;
	struct vm vm;

	vm_make(&vm, 0);
	VM_START(&vm, VM_LONG, 0, hot_write);
	CHECK_EXIT(&vm, KVM_EXIT_HLT);
	*vm_pte(&vm, 0x20000) = 0x20000 | P | U;
	f = VM_FAULT(&vm, 14);
	CHECK_EQ(f.error, 3);
	CHECK_EQ(f.cr2, 0x20000);
	CHECK_EQ(vm_regs(&vm).rax, 1);
	VM_START(&vm, VM_LONG, 0, hot_code);
	vm.ram[0x20000] = 0xc3;
	CHECK_EXIT(&vm, KVM_EXIT_HLT);
	*vm_pte(&vm, 0x20000) |= NX;
	f = VM_FAULT(&vm, 14);
	CHECK_EQ(f.error, 0x11);
	CHECK_EQ(f.cr2, 0x20000);
	CHECK_EQ(f.rip, 0x20000);
	vm_destroy(&vm);
}

/* Every combination of entry rights, CPL, WP, SMEP, SMAP, AC and kind of access: error code and CR2. */
GUEST(access_row, 64,
      "cmp $1, %ecx; je 1f; ja 2f; mov 0x20018, %rax; jmp 3f\n 1: mov %rax, 0x20018; jmp 3f\n 2: "
      "jmp *%rdx\n"
      "3: int $0x80");
enum { READ, WRITE, FETCH };
struct row {
	bool user_page, writable, nx, present, cpl3, wp, smep, smap, ac;
	unsigned kind;
};

/* The error code, or -1 when the access is good: SDM "Determination of Access Rights". */
static int expected_error(const struct row *r)
{
	unsigned code = (r->present ? 1 : 0) | (r->kind == WRITE ? 2 : 0) | (r->cpl3 ? 4 : 0) |
			(r->kind == FETCH ? 0x10 : 0);

	if (!r->present)
		return code;
	if (r->cpl3 && !r->user_page)
		return code;
	if (r->kind == FETCH && (r->nx || (!r->cpl3 && r->user_page && r->smep)))
		return code;
	if (r->kind != FETCH && !r->cpl3 && r->user_page && r->smap && !r->ac)
		return code;
	if (r->kind == WRITE && !r->writable && (r->cpl3 || r->wp))
		return code;
	return -1;
}

static void row_run(struct vm *vm, const struct row *r)
{
	struct kvm_sregs s;
	struct kvm_regs g;
	struct vm_frame f;
	int expected = expected_error(r);
	uint64_t at = r->kind == FETCH ? 0x20000 : 0x20018;

	vm_cpu_enter(vm, VM_LONG, r->cpl3 ? 3 : 0);
	s = vm_sregs(vm);
	s.cr0 = (s.cr0 & ~(uint64_t)CR0_WP) | (r->wp ? CR0_WP : 0);
	s.cr4 |= (r->smep ? CR4_SMEP : 0) | (r->smap ? CR4_SMAP : 0);
	vm_set_sregs(vm, &s);
	g = vm_regs(vm);
	g.rflags = 2 | (r->ac ? 1u << 18 : 0);
	g.rcx = r->kind;
	g.rdx = 0x20000;
	vm_set_regs(vm, &g);
	/* The kernel's but for code at CPL 3, so that SMEP and SMAP are about the page under test. */
	for (unsigned i = 0; i < 0x20; i++)
		*vm_pte(vm, i << 12) = (uint64_t)i << 12 | P | W;
	if (r->cpl3)
		*vm_pte(vm, VM_CODE) |= U;
	*vm_pte(vm, 0x20000) = 0x20000 | (r->present ? P : 0) | (r->writable ? W : 0) |
			       (r->user_page ? U : 0) | (r->nx ? NX : 0);
	f = vm_fault(vm, expected < 0 ? 0x80 : 14, "rights");
	if (expected >= 0 && (f.error != (unsigned)expected || f.cr2 != at))
		check_failed("rights",
			     "user %d writable %d nx %d present %d cpl3 %d wp %d smep %d smap %d "
			     "ac %d kind %u: "
			     "error %lx, cr2 %lx, expected %x",
			     r->user_page, r->writable, r->nx, r->present, r->cpl3, r->wp, r->smep,
			     r->smap, r->ac, r->kind, f.error, f.cr2, expected);
}

static void rights(void)
{
	struct vm vm;

	vm_make(&vm, 0);
	VM_START(&vm, VM_LONG, 0, access_row);
	vm_load(&vm, 0x20000, "\xcd\x80", 2);
	if (!vm_has(&vm, 7, 0, 1, 7) || !vm_has(&vm, 7, 0, 1, 20))
		check_skip("no SMEP or SMAP in the guest");
	for (unsigned bits = 0; bits < 1u << 9; bits++)
		for (unsigned kind = READ; kind <= FETCH; kind++) {
			struct row r = { bits & 1,	bits >> 1 & 1, bits >> 2 & 1, bits >> 3 & 1,
					 bits >> 4 & 1, bits >> 5 & 1, bits >> 6 & 1, bits >> 7 & 1,
					 bits >> 8 & 1, kind };

			row_run(&vm, &r);
		}
	vm_destroy(&vm);
}

/* STAC and CLAC change what is allowed at once, also inside one block; a fault shows AC in the frame. */
GUEST(stac_clac, 64,
      "mov $50, %ecx\n 1: stac; mov 0x20000, %rax; mov %rax, 0x20008; clac; loop 1b\n"
      "stac; mov 0x20000, %rax; clac; mov 0x20000, %rax; hlt");

static void smap_toggle(void)
{
	struct kvm_sregs s;
	struct vm_frame f;
	struct vm vm;

	vm_make(&vm, 0);
	if (!vm_has(&vm, 7, 0, 1, 20))
		check_skip("no SMAP in the guest");
	VM_START(&vm, VM_LONG, 0, stac_clac);
	for (unsigned i = 0; i < 0x20; i++)
		*vm_pte(&vm, i << 12) &= ~U;
	s = vm_sregs(&vm);
	s.cr4 |= CR4_SMAP;
	vm_set_sregs(&vm, &s);
	f = VM_FAULT(&vm, 14);
	CHECK_EQ(f.error, 1);
	CHECK_EQ(f.cr2, 0x20000);
	CHECK_EQ(f.rip, VM_CODE + (stac_clac_end - stac_clac) - 9);
	CHECK_EQ(f.rflags >> 18 & 1, 0);
	vm_destroy(&vm);
}

/* WP toggled by the guest itself around stores to a read-only page. */
GUEST(wp_toggle, 64,
      "mov %cr0, %rax; mov $50, %ecx\n"
      "1: btr $16, %rax; mov %rax, %cr0; mov %rcx, 0x20000; bts $16, %rax; mov %rax, %cr0; loop "
      "1b\n"
      "mov 0x20000, %rdx; mov %rcx, 0x20000; hlt");

static void wp_by_guest(void)
{
	struct vm_frame f;
	struct vm vm;

	vm_make(&vm, 0);
	VM_START(&vm, VM_LONG, 0, wp_toggle);
	*vm_pte(&vm, 0x20000) = 0x20000 | P;
	f = VM_FAULT(&vm, 14);
	CHECK_EQ(f.error, 3);
	CHECK_EQ(f.cr2, 0x20000);
	CHECK_EQ(vm_regs(&vm).rdx, 1);
	CHECK_EQ(vm_peek(&vm, 0x20000, 8), 1);
	vm_destroy(&vm);
}

/* Reserved bits: at each level; error code 9 and more; and a fault on the second page of an access. */
GUEST(read_cross, 64, "mov 0x20ffc, %rax; hlt");
GUEST(write_cross, 64, "mov $-1, %rax; mov %rax, 0x20ffc; hlt");

static void faults_exact(void)
{
	struct vm_frame f;
	struct vm vm;

	vm_make(&vm, 0);
	VM_START(&vm, VM_LONG, 0, read_it);
	*vm_pte(&vm, 0x20000) = 0x20000 | PWU | 1ull << 51;
	f = VM_FAULT(&vm, 14);
	CHECK_EQ(f.error, 9);
	VM_START(&vm, VM_LONG, 0, read_it);
	vm_poke(&vm, VM_TABLES, vm_peek(&vm, VM_TABLES, 8) | PS, 8); /* reserved in the top table */
	CHECK_EXIT(&vm, KVM_EXIT_SHUTDOWN);
	/* Second page absent: CR2 is its first byte, and nothing is stored in the first. */
	VM_START(&vm, VM_LONG, 0, read_cross);
	*vm_pte(&vm, 0x21000) = 0;
	f = VM_FAULT(&vm, 14);
	CHECK_EQ(f.cr2, 0x21000);
	CHECK_EQ(f.error, 0);
	VM_START(&vm, VM_LONG, 0, write_cross);
	vm_poke(&vm, 0x20ff8, 0, 8);
	*vm_pte(&vm, 0x21000) = 0x21000 | P;
	f = VM_FAULT(&vm, 14);
	CHECK_EQ(f.cr2, 0x21000);
	CHECK_EQ(f.error, 3);
	CHECK_EQ(vm_peek(&vm, 0x20ff8, 8), 0);
	/* Non-canonical: #GP(0), CR2 stays. */
	VM_START(&vm, VM_LONG, 0, read_cross);
	vm_load(&vm, VM_CODE, "\x48\x8b\x03", 3);
	{
		struct kvm_regs r = vm_regs(&vm);

		r.rbx = 0x800000000000;
		vm_set_regs(&vm, &r);
	}
	f = VM_FAULT(&vm, 13);
	CHECK_EQ(f.error, 0);
	CHECK_EQ(f.cr2, 0);
	vm_destroy(&vm);
}

/* Paging turned on and off by the guest in 32-bit mode, over memory that moves under it. */
GUEST(toggle_pg, 32,
      "mov %cr0, %eax; mov $30, %ecx; xor %esi, %esi; xor %edi, %edi\n"
      "1: add 0x20000, %esi; btr $31, %eax; mov %eax, %cr0; add 0x20000, %edi; bts $31, %eax; mov "
      "%eax, %cr0; loop 1b; hlt");

static void paging_toggled(void)
{
	struct vm vm;

	vm_make(&vm, 0);
	VM_START(&vm, VM_PAGED32, 0, toggle_pg);
	vm_poke(&vm, VM_PT + 4 * 0x20, 0x40000 | PWU, 4);
	vm_poke(&vm, 0x20000, 1, 4);
	vm_poke(&vm, 0x40000, 100, 4);
	CHECK_EXIT(&vm, KVM_EXIT_HLT);
	CHECK_EQ(vm_regs(&vm).rsi, 3000);
	CHECK_EQ(vm_regs(&vm).rdi, 30);
	vm_destroy(&vm);
}

VM_TESTS({ .name = "INVLPG, 2 MiB page", .run = invlpg_2m },
	 { .name = "INVLPG, 4 MiB page", .run = invlpg_4m },
	 { .name = "INVLPG, 1 GiB page", .run = invlpg_1g },
	 { .name = "INVLPG, code in a large page", .run = invlpg_code },
	 { .name = "INVLPG, more branches than are remembered", .run = branches_many },
	 { .name = "global pages", .run = global_pages }, { .name = "PCID, INVPCID", .run = pcid },
	 { .name = "INVPCID's faults", .run = invpcid_faults },
	 { .name = "accessed and dirty bits", .run = accessed_dirty },
	 { .name = "rights that are taken away", .run = stale_rights },
	 { .name = "rights, all combinations", .run = rights, .seconds = 40 },
	 { .name = "STAC and CLAC", .run = smap_toggle },
	 { .name = "WP toggled", .run = wp_by_guest }, { .name = "faults", .run = faults_exact },
	 { .name = "paging toggled", .run = paging_toggled });

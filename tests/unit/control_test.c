/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Control and debug registers, INVLPG, INVPCID, XCR0: checks, truncation, effects. */
#include "x86_guest.h"

#include "cpu/x86/control.h"
#include "cpu/x86/cpuid.h"

static const struct x86_cpuid_entry model[] = {
	{ .function = 0, .eax = 0xd },
	{ .function = 1, .ecx = 1u << 17 | 1u << 26 },
	{ .function = 7,
	  .flags = X86_CPUID_INDEXED,
	  .ebx = 1u << 0 | 1u << 7 | 1u << 10 | 1u << 20,
	  .ecx = 1u << 2 },
	{ .function = 0xd, .flags = X86_CPUID_INDEXED, .eax = 0xe7 },
	{ .function = 0x80000001, .ecx = 1u << 4, .edx = 1u << 20 | 1u << 29 },
	{ .function = 0x80000008, .eax = 0x3028 },
};

static int setup(void **state)
{
	struct guest *g;

	guest_setup(state);
	g = *state;
	return x86_cpuid_set(g->cpu, model, ARRAY_SIZE(model));
}

/* MOV with control register @cr and general register @gpr. */
static struct x86_insn mov_cr(unsigned cr, unsigned gpr)
{
	struct x86_insn insn = guest_insn(8);

	insn.reg = cr;
	insn.rm = gpr;
	return insn;
}

static enum x86_status load_cr(struct guest *g, unsigned cr, u64 v)
{
	struct x86_insn insn = mov_cr(cr, RBX);

	g->cpu->gpr[RBX] = v;
	return x86_op_mov_to_cr(g->cpu, &insn);
}

static enum x86_status load_dr(struct guest *g, unsigned dr, u64 v)
{
	struct x86_insn insn = mov_cr(dr, RBX);

	g->cpu->gpr[RBX] = v;
	return x86_op_mov_to_dr(g->cpu, &insn);
}

/* Compatibility mode: LMA without CS.L. */
static void compat(struct guest *g)
{
	guest_long(g, 0);
	guest_segment(g, SEG_CS, SEL_CODE0, 0, 0xffffffffu, SEG_FLAT_CODE32(0));
	x86_mode_update(g->cpu);
}

static void test_read_width(void **state)
{
	struct guest *g = *state;
	struct x86_insn insn = mov_cr(3, RAX);

	guest_long(g, 0);
	g->cpu->gpr[RAX] = ~0ull;
	assert_int_equal(x86_op_mov_from_cr(g->cpu, &insn), X86_OK);
	assert_int_equal(g->cpu->gpr[RAX], AT_CR3);
	compat(g);
	g->cpu->cr3 = 0x1200004000ull;
	g->cpu->gpr[RAX] = ~0ull;
	assert_int_equal(x86_op_mov_from_cr(g->cpu, &insn), X86_OK);
	assert_int_equal(g->cpu->gpr[RAX], 0x4000);
}

static void test_cr0(void **state)
{
	struct guest *g = *state;
	u64 cr0;

	guest_long(g, 0);
	cr0 = g->cpu->cr0;
	guest_fault(g, load_cr(g, 0, cr0 | 1ull << 32), VEC_GP, 0);
	guest_fault(g, load_cr(g, 0, cr0 | CR0_NW), VEC_GP, 0);
	guest_fault(g, load_cr(g, 0, cr0 & ~CR0_PE), VEC_GP, 0);
	guest_fault(g, load_cr(g, 0, cr0 & ~CR0_PG), VEC_GP, 0); /* in 64-bit mode */
	assert_int_equal(load_cr(g, 0, (cr0 | CR0_TS | BIT(10)) & ~CR0_ET), X86_OK);
	assert_int_equal(g->cpu->cr0, cr0 | CR0_TS);
	assert_true(g->cpu->mode & MODE_TS);
	compat(g);
	g->cpu->cr4 |= CR4_PCIDE;
	guest_fault(g, load_cr(g, 0, cr0 & ~CR0_PG), VEC_GP, 0);
	g->cpu->cr4 &= ~CR4_PCIDE;
	/* The poisoned upper half does not count outside 64-bit mode. */
	assert_int_equal(load_cr(g, 0, (cr0 & ~CR0_PG) | 0xdeadull << 32), X86_OK);
	assert_false(g->cpu->efer & EFER_LMA);
	assert_true(g->cpu->flush.all);
	/* And back: LMA follows PG. */
	assert_int_equal(load_cr(g, 0, cr0), X86_OK);
	assert_true(g->cpu->efer & EFER_LMA);
}

static void test_long_mode_entry_checks(void **state)
{
	struct guest *g = *state;

	guest_protected(g, 0);
	g->cpu->efer = EFER_LME;
	guest_fault(g, load_cr(g, 0, g->cpu->cr0 | CR0_PG), VEC_GP, 0); /* no PAE */
	g->cpu->cr4 = CR4_PAE;
	g->cpu->seg[SEG_CS].attr |= SA_L;
	guest_fault(g, load_cr(g, 0, g->cpu->cr0 | CR0_PG), VEC_GP, 0);
	g->cpu->seg[SEG_CS].attr &= ~SA_L;
	assert_int_equal(load_cr(g, 0, g->cpu->cr0 | CR0_PG), X86_OK);
	assert_true(g->cpu->mode & MODE_LMA);
	assert_false(g->cpu->mode & MODE_64);
	guest_fault(g, x86_set_efer(g->cpu, 0), VEC_GP, 0); /* LME with PG */
	guest_fault(g, x86_set_efer(g->cpu, g->cpu->efer | EFER_SVME), VEC_GP, 0);
	assert_int_equal(x86_set_efer(g->cpu, EFER_LME | EFER_NX | EFER_SCE), X86_OK);
	assert_true(g->cpu->efer & EFER_LMA);
}

static void test_cr3(void **state)
{
	struct guest *g = *state;

	guest_long(g, 0);
	guest_fault(g, load_cr(g, 3, 1ull << 40), VEC_GP, 0); /* MAXPHYADDR is 40 */
	guest_fault(g, load_cr(g, 3, 1ull << 63 | AT_CR3), VEC_GP, 0);
	assert_int_equal(load_cr(g, 3, 0x8000000000ull), X86_OK);
	assert_int_equal(load_cr(g, 3, AT_CR3), X86_OK);
	assert_true(g->cpu->flush.nonglobal);
	assert_int_equal(load_cr(g, 4, g->cpu->cr4 | CR4_PCIDE), X86_OK);
	g->cpu->flush = (struct x86_flush){ 0 };
	assert_int_equal(load_cr(g, 3, 1ull << 63 | AT_CR3 | 5), X86_OK);
	assert_int_equal(g->cpu->cr3, AT_CR3 | 5);
	assert_false(g->cpu->flush.nonglobal || g->cpu->flush.all); /* bit 63: keep */
	compat(g);
	assert_int_equal(load_cr(g, 3, 0xffffffff00000000ull | AT_CR3), X86_OK);
	assert_int_equal(g->cpu->cr3, AT_CR3);
}

static void test_pae_pdptrs(void **state)
{
	struct guest *g = *state;

	guest_protected(g, 0);
	g->cpu->cr4 = CR4_PAE;
	g->cpu->cr3 = 0x7000;
	guest_put(g, 0x7000, 0x8001, 8);
	guest_put(g, 0x7008, 0x9003, 8); /* bit 1 is reserved */
	guest_fault(g, load_cr(g, 0, g->cpu->cr0 | CR0_PG), VEC_GP, 0);
	assert_false(g->cpu->cr0 & CR0_PG);
	guest_put(g, 0x7008, 0x9fe6, 8); /* not present: whatever */
	assert_int_equal(load_cr(g, 0, g->cpu->cr0 | CR0_PG), X86_OK);
	assert_int_equal(g->cpu->pdptr[0], 0x8001);
	guest_put(g, 0x7018, 1ull << 40 | 1, 8);
	guest_fault(g, load_cr(g, 3, 0x7000), VEC_GP, 0);
	guest_fault(g, load_cr(g, 3, GUEST_HOLE), VEC_GP, 0);
	assert_int_equal(g->cpu->cr3, 0x7000);
}

static void test_cr4(void **state)
{
	struct guest *g = *state;

	guest_long(g, 0);
	guest_fault(g, load_cr(g, 4, g->cpu->cr4 | CR4_LA57), VEC_GP, 0); /* not in CPUID */
	guest_fault(g, load_cr(g, 4, g->cpu->cr4 | CR4_VMXE), VEC_GP, 0);
	guest_fault(g, load_cr(g, 4, g->cpu->cr4 | BIT(15)), VEC_GP, 0);
	guest_fault(g, load_cr(g, 4, g->cpu->cr4 & ~CR4_PAE), VEC_GP, 0);
	g->cpu->cr3 |= 1;
	guest_fault(g, load_cr(g, 4, g->cpu->cr4 | CR4_PCIDE), VEC_GP, 0);
	g->cpu->cr3 &= ~1ull;
	compat(g);
	/* Legal from compatibility mode: LMA counts. */
	assert_int_equal(load_cr(g, 4, g->cpu->cr4 | CR4_PCIDE | CR4_SMEP | CR4_OSXSAVE), X86_OK);
	assert_true(g->cpu->mode & MODE_XSAVE);
	assert_true(g->cpu->flush.all);
}

static u64 tpr;

static u64 get_tpr(void *owner)
{
	(void)owner;
	return tpr;
}

static void set_tpr(void *owner, u64 v)
{
	(void)owner;
	tpr = v;
}

static void test_cr8(void **state)
{
	static const struct x86_platform platform = { .get_tpr = get_tpr, .set_tpr = set_tpr };
	struct guest *g = *state;
	struct x86_insn insn = mov_cr(0, RCX);

	guest_long(g, 0);
	guest_fault(g, load_cr(g, 8, 0x10), VEC_GP, 0);
	assert_int_equal(load_cr(g, 8, 7), X86_OK);
	assert_int_equal(g->cpu->cr8, 7);
	g->cpu->platform = &platform;
	assert_int_equal(load_cr(g, 8, 9), X86_FULL);
	g->cpu->full = true;
	g->cpu->irq_waiting = true;
	assert_int_equal(load_cr(g, 8, 9), X86_OK);
	assert_int_equal(tpr, 9);
	assert_true(g->cpu->kick);
	compat(g);
	insn.prefixes = INSN_LOCK; /* AMD: CR8 */
	assert_int_equal(x86_op_mov_from_cr(g->cpu, &insn), X86_OK);
	assert_int_equal(g->cpu->gpr[RCX], 9);
	insn.reg = 3;
	guest_fault(g, x86_op_mov_from_cr(g->cpu, &insn), VEC_UD, 0);
	guest_fault(g, load_cr(g, 1, 0), VEC_UD, 0);
	guest_cpl(g, 3);
	guest_fault(g, load_cr(g, 0, 0), VEC_GP, 0);
	guest_fault(g, load_cr(g, 5, 0), VEC_UD, 0);
}

static void test_debug_registers(void **state)
{
	struct guest *g = *state;
	struct x86_insn insn = mov_cr(4, RAX);

	guest_long(g, 0);
	assert_int_equal(load_dr(g, 0, 0xdead000012345678ull), X86_OK);
	assert_int_equal(g->cpu->dr[0], 0xdead000012345678ull);
	guest_fault(g, load_dr(g, 6, 1ull << 32), VEC_GP, 0);
	guest_fault(g, load_dr(g, 7, 1ull << 63), VEC_GP, 0);
	assert_int_equal(load_dr(g, 6, 0), X86_OK);
	assert_int_equal(x86_op_mov_from_dr(g->cpu, &insn), X86_OK); /* DR4 is DR6 */
	assert_int_equal(g->cpu->gpr[RAX], 0xffff0ff0);
	g->cpu->cr4 |= CR4_DE;
	guest_fault(g, x86_op_mov_from_dr(g->cpu, &insn), VEC_UD, 0);
	compat(g);
	assert_int_equal(load_dr(g, 1, 0xdead000012345678ull), X86_OK);
	assert_int_equal(g->cpu->dr[1], 0x12345678);
	assert_int_equal(load_dr(g, 7, 0xdead00000000f3ffull), X86_OK);
	assert_int_equal(g->cpu->dr7, 0x27ff);
	insn.reg = 0;
	assert_int_equal(x86_op_mov_from_dr(g->cpu, &insn), X86_FAULT); /* DR7.GD */
	assert_int_equal(g->cpu->exc.vector, VEC_DB);
	assert_int_equal(g->cpu->exc.payload, DR6_BD);
	guest_cpl(g, 3);
	guest_fault(g, load_dr(g, 0, 0), VEC_GP, 0);
}

static void test_machine_status_word(void **state)
{
	struct guest *g = *state;
	struct x86_insn insn = guest_insn(4);

	guest_protected(g, 0);
	insn.rm = RAX;
	g->cpu->gpr[RAX] = 0xfffe;
	assert_int_equal(x86_op_lmsw(g->cpu, &insn), X86_OK);
	assert_true(g->cpu->cr0 & CR0_PE);
	assert_true((g->cpu->cr0 & 0xe) == 0xe);
	assert_int_equal(x86_op_clts(g->cpu, &insn), X86_OK);
	assert_false(g->cpu->cr0 & CR0_TS);
	assert_int_equal(x86_op_smsw(g->cpu, &insn), X86_OK);
	assert_int_equal(g->cpu->gpr[RAX], g->cpu->cr0);
	guest_cpl(g, 3);
	assert_int_equal(x86_op_smsw(g->cpu, &insn), X86_OK);
	g->cpu->cr4 |= CR4_UMIP;
	guest_fault(g, x86_op_smsw(g->cpu, &insn), VEC_GP, 0);
	guest_fault(g, x86_op_clts(g->cpu, &insn), VEC_GP, 0);
	guest_fault(g, x86_op_lmsw(g->cpu, &insn), VEC_GP, 0);
	guest_fault(g, x86_op_invd(g->cpu, &insn), VEC_GP, 0);
}

static void test_invlpg(void **state)
{
	struct guest *g = *state;
	struct x86_insn insn = guest_insn_mem(8, 0x8000000000000000ull);

	guest_long(g, 0);
	g->cpu->flush = (struct x86_flush){ 0 };
	assert_int_equal(x86_op_invlpg(g->cpu, &insn), X86_OK);
	assert_int_equal(g->cpu->flush.npages, 0);
	for (unsigned i = 0; i < 20; i++) {
		insn = guest_insn_mem(8, 0x5000 + 0x1000 * i);
		assert_int_equal(x86_op_invlpg(g->cpu, &insn), X86_OK);
	}
	assert_int_equal(g->cpu->flush.page[0], 0x5000);
	assert_true(g->cpu->flush.npages > X86_FLUSH_PAGES);
	guest_cpl(g, 3);
	guest_fault(g, x86_op_invlpg(g->cpu, &insn), VEC_GP, 0);
}

static void test_invpcid(void **state)
{
	struct guest *g = *state;
	struct x86_insn insn = guest_insn_mem(8, 0x9000);

	guest_long(g, 0);
	g->cpu->flush = (struct x86_flush){ 0 };
	insn.reg = RAX;
	g->cpu->gpr[RAX] = 0;
	guest_put(g, 0x9000, 0, 8);
	guest_put(g, 0x9008, 0x12345000, 8);
	assert_int_equal(x86_op_invpcid(g->cpu, &insn), X86_OK);
	assert_int_equal(g->cpu->flush.page[0], 0x12345000);
	guest_put(g, 0x9008, 1ull << 50, 8);
	guest_fault(g, x86_op_invpcid(g->cpu, &insn), VEC_GP, 0);
	guest_put(g, 0x9000, 5, 8); /* a PCID without PCIDE */
	g->cpu->gpr[RAX] = 1;
	guest_fault(g, x86_op_invpcid(g->cpu, &insn), VEC_GP, 0);
	g->cpu->gpr[RAX] = 3;
	assert_int_equal(x86_op_invpcid(g->cpu, &insn), X86_OK);
	assert_true(g->cpu->flush.nonglobal || g->cpu->flush.all);
	g->cpu->flush = (struct x86_flush){ 0 };
	g->cpu->gpr[RAX] = 2;
	assert_int_equal(x86_op_invpcid(g->cpu, &insn), X86_OK);
	assert_true(g->cpu->flush.all);
	g->cpu->gpr[RAX] = 0x100000002ull;
	guest_fault(g, x86_op_invpcid(g->cpu, &insn), VEC_GP, 0);
	compat(g);
	insn.adsize = 4;
	assert_int_equal(x86_op_invpcid(g->cpu, &insn), X86_OK);
	guest_put(g, 0x9000, 0x1000, 8); /* reserved bits */
	guest_fault(g, x86_op_invpcid(g->cpu, &insn), VEC_GP, 0);
}

static void test_xcr0(void **state)
{
	struct guest *g = *state;
	struct x86_insn insn = guest_insn(4);

	guest_long(g, 0);
	guest_fault(g, x86_op_xsetbv(g->cpu, &insn), VEC_UD, 0);
	g->cpu->cr4 |= CR4_OSXSAVE | CR4_OSFXSR;
	g->cpu->xcr0_host = 7;
	g->cpu->gpr[RAX] = 0xffffffff00000007ull;
	g->cpu->gpr[RDX] = 0xffffffff00000000ull;
	g->cpu->gpr[RCX] = 0xffffffff00000000ull;
	assert_int_equal(x86_op_xsetbv(g->cpu, &insn), X86_OK);
	assert_int_equal(g->cpu->xcr0, 7);
	assert_true(g->cpu->mode & MODE_AVX);
	assert_int_equal(x86_op_xgetbv(g->cpu, &insn), X86_OK);
	assert_int_equal(g->cpu->gpr[RAX], 7);
	assert_int_equal(g->cpu->gpr[RDX], 0);
	guest_fault(g, x86_set_xcr0(g->cpu, 6), VEC_GP, 0);
	guest_fault(g, x86_set_xcr0(g->cpu, 5), VEC_GP, 0);
	guest_fault(g, x86_set_xcr0(g->cpu, 0xe7), VEC_GP, 0); /* not the host's */
	g->cpu->xcr0_host = 0xe7;
	guest_fault(g, x86_set_xcr0(g->cpu, 0x67), VEC_GP, 0);
	guest_fault(g, x86_set_xcr0(g->cpu, 0xe3), VEC_GP, 0);
	assert_int_equal(x86_set_xcr0(g->cpu, 0xe7), X86_OK);
	g->cpu->gpr[RCX] = 1; /* not in CPUID */
	guest_fault(g, x86_op_xgetbv(g->cpu, &insn), VEC_GP, 0);
	guest_fault(g, x86_op_xsetbv(g->cpu, &insn), VEC_GP, 0);
	guest_cpl(g, 3);
	g->cpu->gpr[RCX] = 0;
	guest_fault(g, x86_op_xsetbv(g->cpu, &insn), VEC_GP, 0);
}

#define control_test(f) cmocka_unit_test_setup_teardown(f, setup, guest_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		control_test(test_read_width),
		control_test(test_cr0),
		control_test(test_long_mode_entry_checks),
		control_test(test_cr3),
		control_test(test_pae_pdptrs),
		control_test(test_cr4),
		control_test(test_cr8),
		control_test(test_debug_registers),
		control_test(test_machine_status_word),
		control_test(test_invlpg),
		control_test(test_invpcid),
		control_test(test_xcr0),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* MSRs by their rows, the TSC instructions and hypercalls. */
#include "x86_guest.h"

#include "cpu/x86/cpuid.h"
#include "cpu/x86/host.h"
#include "cpu/x86/msr.h"

static struct {
	u32 index;
	u64 value;
	unsigned reads, writes, logs, calls;
	u64 nr, arg[4];
} seen;

static int platform_rdmsr(void *owner, u32 index, u64 *value)
{
	(void)owner;
	seen.reads++;
	*value = seen.value;
	return index == 0x11 || index == 0x1b || index == 0x1234 ? 0 : index == 0x808 ? -1 : 1;
}

static int platform_wrmsr(void *owner, u32 index, u64 value)
{
	(void)owner;
	seen.writes++;
	seen.index = index;
	seen.value = value;
	return index == 0x11 || index == 0x1b ? 0 : 1;
}

static enum x86_status platform_hypercall(void *owner, u64 nr, const u64 arg[4], u64 *result)
{
	if (((struct x86_cpu *)owner)->cpl) {
		*result = ~0ull;
		return X86_OK;
	}
	seen.calls++;
	seen.nr = nr;
	memcpy(seen.arg, arg, sizeof(seen.arg));
	*result = ~0ull - 1;
	return nr == 12 ? X86_EXIT : X86_OK;
}

static void platform_log(void *owner, const char *what, u64 a, u64 b)
{
	(void)owner;
	(void)what;
	(void)a;
	(void)b;
	seen.logs++;
}

static const struct x86_platform platform = {
	.rdmsr = platform_rdmsr,
	.wrmsr = platform_wrmsr,
	.hypercall = platform_hypercall,
	.log = platform_log,
};

static int setup(void **state)
{
	struct x86_cpuid_entry table[X86_CPUID_MAX];
	struct x86_host host;
	struct guest *g;
	const char *why;

	guest_setup(state);
	g = *state;
	memset(&seen, 0, sizeof(seen));
	assert_int_equal(x86_host_probe(&host, NULL, &why), 0);
	x86_cpuid_set(g->cpu, table, x86_cpuid_supported(&host, table, X86_CPUID_MAX));
	x86_msr_reset(g->cpu);
	guest_long(g, 0);
	g->cpu->platform = &platform;
	g->cpu->owner = g->cpu;
	return 0;
}

static enum x86_status rd(struct guest *g, u32 index)
{
	struct x86_insn insn = guest_insn(4);

	g->cpu->gpr[RCX] = 0xffffffff00000000ull | index;
	g->cpu->gpr[RAX] = g->cpu->gpr[RDX] = ~0ull;
	return x86_op_rdmsr(g->cpu, &insn);
}

static u64 value(const struct guest *g)
{
	assert_int_equal((g->cpu->gpr[RAX] | g->cpu->gpr[RDX]) >> 32, 0);
	return g->cpu->gpr[RDX] << 32 | g->cpu->gpr[RAX];
}

static enum x86_status wr(struct guest *g, u32 index, u64 v)
{
	struct x86_insn insn = guest_insn(4);

	g->cpu->gpr[RCX] = 0xffffffff00000000ull | index;
	g->cpu->gpr[RAX] = 0xdeadull << 32 | (u32)v;
	g->cpu->gpr[RDX] = 0xdeadull << 32 | v >> 32;
	return x86_op_wrmsr(g->cpu, &insn);
}

static void test_rows_are_sorted(void **state)
{
	/* The look-up is a binary search: every row must be found by its own number. */
	static const u32 first[] = {
#define MSR(first, count, name, who, rd, wr, field, mask, reset, saved) first,
#include "cpu/x86/msr.def"
#undef MSR
	};
	static const u32 count[] = {
#define MSR(first, count, name, who, rd, wr, field, mask, reset, saved) count,
#include "cpu/x86/msr.def"
#undef MSR
	};

	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(first); i++) {
		assert_non_null(x86_msr_name(first[i]));
		assert_non_null(x86_msr_name(first[i] + count[i] - 1));
		if (i)
			assert_true(first[i] >= first[i - 1] + count[i - 1]);
	}
	assert_null(x86_msr_name(0x1234));
}

static void test_plain(void **state)
{
	static const u32 rows[] = { 0x174,	0x175,	    0x176,	0xc0000081, 0xc0000082,
				    0xc0000083, 0xc0000100, 0xc0000101, 0xc0000102 };
	struct guest *g = *state;

	for (unsigned i = 0; i < ARRAY_SIZE(rows); i++) {
		assert_int_equal(wr(g, rows[i], 0xffff800012345678ull + i), X86_OK);
		assert_int_equal(rd(g, rows[i]), X86_OK);
		assert_true(value(g) == 0xffff800012345678ull + i);
	}
	assert_true(g->cpu->seg[SEG_GS].base == 0xffff800012345678ull + 7);
	assert_int_equal(seen.reads + seen.writes, 0); /* hot ones stay leaf */
}

static void test_canonical(void **state)
{
	static const u32 rows[] = { 0xc0000082, 0xc0000083, 0xc0000100, 0xc0000101, 0xc0000102 };
	struct guest *g = *state;

	g->cpu->virt_bits = 48;
	for (unsigned i = 0; i < ARRAY_SIZE(rows); i++)
		guest_fault(g, wr(g, rows[i], 0x800000000000ull), VEC_GP, 0);
	assert_int_equal(wr(g, 0x176, 0x800000000000ull), X86_OK);
	assert_true(g->cpu->sysenter_eip == 0xffff800000000000ull);
}

static void test_types(void **state)
{
	struct guest *g = *state;

	assert_int_equal(rd(g, 0x277), X86_OK);
	assert_true(value(g) == 0x0007040600070406ull);
	guest_fault(g, wr(g, 0x277, 0x02), VEC_GP, 0);
	guest_fault(g, wr(g, 0x277, 0x08ull << 56), VEC_GP, 0);
	assert_int_equal(wr(g, 0x277, 0x0007010600070106ull), X86_OK);
	guest_fault(g, wr(g, 0x250, 0x07), VEC_GP, 0); /* UC- is PAT's only */
	assert_int_equal(wr(g, 0x26f, 0x0606060606060606ull), X86_OK);
	assert_true(g->cpu->mtrr_fixed[10] == 0x0606060606060606ull);
	guest_fault(g, wr(g, 0x2ff, 0x1006), VEC_GP, 0);
	assert_int_equal(wr(g, 0x2ff, 0xc06), X86_OK);
	guest_fault(g, wr(g, 0x200, 0x106), VEC_GP, 0);
	guest_fault(g, wr(g, 0x201, 0x400), VEC_GP, 0);
	assert_int_equal(wr(g, 0x20f, 0xff000800), X86_OK);
	assert_true(g->cpu->mtrr_var[15] == 0xff000800);
}

static void test_machine_check(void **state)
{
	struct guest *g = *state;

	assert_int_equal(rd(g, 0x179), X86_OK);
	assert_int_equal(value(g), 32);
	assert_int_equal(wr(g, 0x400, ~0ull), X86_OK);
	assert_int_equal(wr(g, 0x410, ~BIT_ULL(10)), X86_OK);
	guest_fault(g, wr(g, 0x400, 5), VEC_GP, 0);
	assert_int_equal(wr(g, 0x401, 0), X86_OK);
	guest_fault(g, wr(g, 0x401, 1), VEC_GP, 0);
	assert_int_equal(x86_msr_write(g->cpu, 0x401, 1, true), X86_OK);
	g->cpu->mcg_cap = 10;
	guest_fault(g, rd(g, 0x428), VEC_GP, 0);
	guest_fault(g, rd(g, 0x17b), VEC_GP, 0); /* MCG_CTL_P is clear */
}

static void test_read_only(void **state)
{
	struct guest *g = *state;
	u64 v;

	guest_fault(g, wr(g, 0xfe, 0), VEC_GP, 0);
	guest_fault(g, wr(g, 0xce, 0), VEC_GP, 0);
	assert_int_equal(x86_msr_write(g->cpu, 0xce, 5, true), X86_OK);
	assert_int_equal(x86_msr_read(g->cpu, 0xce, &v, true), X86_OK);
	assert_int_equal(v, 5);
	assert_int_equal(x86_msr_write(g->cpu, 0xfe, 0x508, true), X86_OK);
	memset(&g->cpu->exc, 0xff, sizeof(g->cpu->exc));
	assert_int_equal(x86_msr_write(g->cpu, 0xfe, 1, true), X86_FAULT);
	assert_int_equal(g->cpu->exc.vector, 0xff); /* nothing raised for user space */
	guest_fault(g, rd(g, 0x49), VEC_GP, 0);
	assert_int_equal(wr(g, 0x49, 1), X86_OK);
	guest_fault(g, wr(g, 0x49, 2), VEC_GP, 0);
	assert_int_equal(wr(g, 0x8b, 0), X86_OK); /* ignored */
	assert_int_equal(rd(g, 0x8b), X86_OK);
	assert_true(value(g) == (g->cpu->intel ? 0x100000000ull : 0x01000065));
}

static void test_vendor(void **state)
{
	struct guest *g = *state;

	g->cpu->intel = false;
	assert_int_equal(rd(g, 0xc0011029), X86_OK);
	assert_int_equal(value(g), 2);
	guest_fault(g, rd(g, 0x3a), VEC_GP, 0);
	assert_int_equal(wr(g, 0xc0010015, BIT_ULL(18)), X86_OK);
	guest_fault(g, wr(g, 0xc0010015, BIT_ULL(20)), VEC_GP, 0);
	assert_int_equal(wr(g, 0xc0000103, ~0ull), X86_OK);
	assert_true(g->cpu->tsc_aux == 0xffffffff);
	g->cpu->intel = true;
	guest_fault(g, wr(g, 0xc0000103, ~0ull), VEC_GP, 0);
	guest_fault(g, rd(g, 0xc0011029), VEC_GP, 0);
	assert_int_equal(rd(g, 0x3a), X86_OK);
	assert_int_equal(value(g), 1);
}

static void test_platform_and_unknown(void **state)
{
	struct guest *g = *state;

	assert_int_equal(wr(g, 0x11, 0x1001), X86_FULL);
	assert_int_equal(rd(g, 0x1234), X86_FULL);
	assert_int_equal(rd(g, 0x9999), X86_FULL);
	assert_int_equal(seen.reads + seen.writes + g->cpu->unknown_msrs, 0);
	g->cpu->full = true;
	assert_int_equal(wr(g, 0x11, 0x1001), X86_OK);
	assert_int_equal(seen.index, 0x11);
	assert_int_equal(rd(g, 0x1234), X86_OK);
	guest_fault(g, rd(g, 0x808), VEC_GP, 0);
	assert_int_equal(seen.logs, 0);
	guest_fault(g, rd(g, 0x9999), VEC_GP, 0);
	guest_fault(g, wr(g, 0x9999, 1), VEC_GP, 0);
	assert_int_equal(g->cpu->unknown_msrs, 2);
	assert_int_equal(seen.logs, 2);
	assert_int_equal(wr(g, 0x1b, 0xfee00100), X86_OK);
	assert_true(g->cpu->apic_off);
	g->cpu->platform = NULL;
	assert_int_equal(rd(g, 0x1b), X86_OK);
	assert_int_equal(value(g), 0xfee00900);
	guest_cpl(g, 3);
	guest_fault(g, rd(g, 0x10), VEC_GP, 0);
}

static void test_efer(void **state)
{
	struct guest *g = *state;

	guest_fault(g, wr(g, 0xc0000080, g->cpu->efer & ~EFER_LME), VEC_GP, 0);
	guest_fault(g, wr(g, 0xc0000080, g->cpu->efer | BIT(12)), VEC_GP, 0);
	assert_int_equal(wr(g, 0xc0000080, g->cpu->efer & ~EFER_NX), X86_OK);
	assert_true(g->cpu->flush.all);
	assert_true(g->cpu->efer & EFER_LMA);
}

static void test_tsc(void **state)
{
	struct guest *g = *state;
	struct x86_insn insn = guest_insn(4);
	u64 before, offset;

	g->cpu->full = true;
	assert_int_equal(wr(g, 0x10, 1000), X86_OK);
	assert_int_equal(seen.index, 0x10);
	before = x86_tsc_read(g->cpu);
	assert_true(before >= 1000 && before < 1000 + 10000000000ull);
	assert_true(g->cpu->tsc_adjust == g->cpu->tsc_offset);
	offset = g->cpu->tsc_offset;
	assert_int_equal(wr(g, 0x3b, g->cpu->tsc_adjust + 5), X86_OK);
	assert_true(g->cpu->tsc_offset == offset + 5);
	assert_int_equal(x86_msr_write(g->cpu, 0x3b, 0, true), X86_OK);
	assert_true(g->cpu->tsc_offset == offset + 5);
	g->cpu->tsc_aux = 3;
	assert_int_equal(x86_op_rdtscp(g->cpu, &insn), X86_OK);
	assert_int_equal(g->cpu->gpr[RCX], 3);
	assert_true(value(g) >= before);
	insn.rm = R9;
	assert_int_equal(x86_op_rdpid(g->cpu, &insn), X86_OK);
	assert_int_equal(g->cpu->gpr[R9], 3);
	guest_fault(g, x86_op_rdpmc(g->cpu, &insn), VEC_GP, 0);
	guest_fault(g, x86_op_monitor(g->cpu, &insn), VEC_UD, 0);
	guest_cpl(g, 3);
	assert_int_equal(x86_op_rdtsc(g->cpu, &insn), X86_OK);
	g->cpu->cr4 |= CR4_TSD;
	guest_fault(g, x86_op_rdtsc(g->cpu, &insn), VEC_GP, 0);
	guest_fault(g, x86_op_rdtscp(g->cpu, &insn), VEC_GP, 0);
}

static void test_hypercall(void **state)
{
	struct guest *g = *state;
	struct x86_insn insn = guest_insn(4);
	u64 *r = g->cpu->gpr;

	g->cpu->full = true;
	r[RAX] = 5;
	r[RBX] = 0x100000001ull;
	assert_int_equal(x86_op_hypercall(g->cpu, &insn), X86_OK);
	assert_true(seen.arg[0] == 0x100000001ull && r[RAX] == ~0ull - 1);
	r[RAX] = 12;
	assert_int_equal(x86_op_hypercall(g->cpu, &insn), X86_EXIT);
	guest_cpl(g, 3);
	assert_int_equal(x86_op_hypercall(g->cpu, &insn), X86_OK);
	assert_true(r[RAX] == ~0ull && seen.calls == 2);
	guest_protected(g, 0);
	g->cpu->efer = 0;
	x86_mode_update(g->cpu);
	r[RAX] = 0x700000005ull;
	assert_int_equal(x86_op_hypercall(g->cpu, &insn), X86_OK);
	assert_true(seen.nr == 5 && seen.arg[0] == 1 && r[RAX] == 0xfffffffe);
}

static void test_list(void **state)
{
	u32 list[256];
	unsigned n = x86_msr_list(list, 256), kvmclock = 0;

	(void)state;
	assert_true(n > 20 && n <= 256);
	assert_int_equal(x86_msr_list(list, 3), n);
	n = x86_msr_list(list, 256);
	for (unsigned i = 0; i < n; i++)
		kvmclock += list[i] == 0x4b564d01 || list[i] == 0x12;
	assert_int_equal(kvmclock, 2);
}

#define msr_test(f) cmocka_unit_test_setup_teardown(f, setup, guest_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_rows_are_sorted),
		msr_test(test_plain),
		msr_test(test_canonical),
		msr_test(test_types),
		msr_test(test_machine_check),
		msr_test(test_read_only),
		msr_test(test_vendor),
		msr_test(test_platform_and_unknown),
		msr_test(test_efer),
		msr_test(test_tsc),
		msr_test(test_hypercall),
		cmocka_unit_test(test_list),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

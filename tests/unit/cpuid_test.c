/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The host probe, the default CPUID and what a guest sees of it. */
#include <errno.h>

#include "x86_guest.h"

#include "cpu/x86/control.h"
#include "cpu/x86/cpuid.h"
#include "cpu/x86/host.h"
#include "cpu/x86/msr.h"

enum { EAX, EBX, ECX, EDX };

static struct x86_host host_probe(const char *mask)
{
	struct x86_host host;
	const char *why;

	assert_int_equal(x86_host_probe(&host, mask, &why), 0);
	return host;
}

static unsigned model_set(struct guest *g, const char *mask)
{
	struct x86_cpuid_entry table[X86_CPUID_MAX];
	struct x86_host host = host_probe(mask);
	unsigned n = x86_cpuid_supported(&host, table, X86_CPUID_MAX);

	assert_true(n > 10 && n < 100);
	assert_int_equal(x86_cpuid_set(g->cpu, table, n), 0);
	return n;
}

static void test_host_masks(void **state)
{
	struct x86_host full = host_probe(NULL), v2 = host_probe("x86-64-v2"), bad;
	const char *why;
	u32 out[4];

	(void)state;
	assert_true(full.level >= 2 && v2.level == 2);
	assert_true(v2.xcr0 == 3 && v2.xsave_size == 576 && !v2.xsave && !v2.avx && !v2.bmi2);
	assert_true(v2.cx16 && v2.lahf64);
	x86_host_cpuid(&v2, 1, 0, out);
	assert_int_equal(out[ECX] & (1u << 12 | 1u << 25 | 0x3cu << 24),
			 0); /* FMA AES XSAVE.. F16C */
	x86_host_cpuid(&v2, 0xd, 0, out);
	assert_int_equal(out[EAX], 0);
	assert_int_equal(x86_host_probe(&bad, "x86-64-v1", &why), -EINVAL);
	assert_non_null(strstr(why, "x86-64-v2"));
	if (full.level >= 3) {
		struct x86_host v3 = host_probe("x86-64-v3");

		assert_true(v3.xcr0 == 7 && v3.avx2 && v3.bmi2 && !v3.avx512 && !v3.xsaveopt);
	}
}

static void test_hidden_and_given(void **state)
{
	static const struct {
		u32 function;
		u8 reg, bit;
		bool given;
	} bits[] = {
		{ 1, ECX, 31, true },	       { 1, ECX, 21, true },
		{ 1, ECX, 24, false },	       { 1, ECX, 17, true },
		{ 7, EBX, 7, true },	       { 7, EBX, 20, true },
		{ 7, EBX, 0, true },	       { 7, EBX, 10, true },
		{ 7, ECX, 2, true },	       { 7, ECX, 22, true },
		{ 6, EAX, 2, true },	       { 1, ECX, 3, false },
		{ 1, ECX, 5, false },	       { 1, ECX, 27, false },
		{ 1, EDX, 21, false },	       { 7, EBX, 2, false },
		{ 7, EBX, 4, false },	       { 7, EBX, 11, false },
		{ 7, EBX, 14, false },	       { 7, EBX, 25, false },
		{ 7, ECX, 3, false },	       { 7, ECX, 5, false },
		{ 7, ECX, 7, false },	       { 7, ECX, 23, false },
		{ 7, EDX, 5, false },	       { 7, EDX, 24, false },
		{ 0x80000001, ECX, 2, false }, { 0x80000001, EDX, 20, true },
		{ 0x80000001, EDX, 26, true }, { 0x80000001, EDX, 27, true },
		{ 0x80000001, EDX, 29, true }, { 0x80000001, ECX, 29, false },
		{ 0x80000008, EBX, 4, false },
	};
	struct guest *g = *state;

	model_set(g, NULL);
	for (unsigned i = 0; i < ARRAY_SIZE(bits); i++)
		assert_int_equal(
			x86_cpuid_has(g->cpu, bits[i].function, 0, bits[i].reg, bits[i].bit),
			bits[i].given);
	assert_true(g->cpu->phys_bits >= 39 && g->cpu->phys_bits <= 52);
}

static void test_told_to_be_immune(void **state)
{
	struct guest *g = *state;
	u64 caps;

	model_set(g, NULL);
	x86_msr_reset(g->cpu);
	if (g->cpu->intel) {
		assert_true(x86_cpuid_has(g->cpu, 7, 0, EDX, 29));
		assert_true(x86_cpuid_has(g->cpu, 7, 0, EDX, 26));
		assert_int_equal(x86_msr_read(g->cpu, 0x10a, &caps, false), X86_OK);
		assert_int_equal(caps & 0x3, 3); /* RDCL_NO, IBRS_ALL */
		return;
	}
	assert_true(x86_cpuid_has(g->cpu, 0x80000021, 0, EAX, 8));  /* AUTOIBRS */
	assert_true(x86_cpuid_has(g->cpu, 0x80000021, 0, EAX, 29)); /* SRSO_NO */
	assert_true(x86_cpuid_has(g->cpu, 0x80000008, 0, EBX, 29)); /* BTC_NO */
	assert_true(x86_efer_allowed(g->cpu) & EFER_AUTOIBRS);
}

static void test_masked_model(void **state)
{
	struct guest *g = *state;

	model_set(g, "x86-64-v2");
	assert_false(x86_cpuid_has(g->cpu, 1, 0, ECX, 26));
	assert_false(x86_cpuid_has(g->cpu, 1, 0, ECX, 28));
	assert_false(x86_cpuid_has(g->cpu, 7, 0, EBX, 5));
	assert_true(x86_cpuid_has(g->cpu, 7, 0, EBX, 0)); /* FSGSBASE is ours */
	assert_null(x86_cpuid_find(g->cpu, 0xd, 1));
	assert_false(x86_cr4_allowed(g->cpu) & CR4_OSXSAVE);
	assert_int_equal(x86_xcr0_allowed(g->cpu), 1);
}

static void test_kvm_leaves(void **state)
{
	struct guest *g = *state;
	u32 out[4];

	model_set(g, NULL);
	x86_cpuid_run(g->cpu, 0x40000000, 0, out);
	assert_int_equal(out[EAX], 0x40000001);
	assert_memory_equal(&out[1], "KVMKVMKVM\0\0\0", 12);
	x86_cpuid_run(g->cpu, 0x40000001, 0, out);
	assert_int_equal(out[EAX], 0x01003aeb);
}

static void test_dynamic_bits(void **state)
{
	struct guest *g = *state;
	u32 out[4];

	model_set(g, NULL);
	if (!x86_cpuid_has(g->cpu, 1, 0, ECX, 26))
		skip();
	x86_cpuid_run(g->cpu, 1, 0, out);
	assert_false(out[ECX] >> 27 & 1);
	g->cpu->cr4 |= CR4_OSXSAVE;
	x86_cpuid_run(g->cpu, 1, 0, out);
	assert_true(out[ECX] >> 27 & 1);
	x86_cpuid_run(g->cpu, 0xd, 0, out);
	assert_int_equal(out[EBX], 576);
	if (!(x86_xcr0_allowed(g->cpu) & 4))
		return;
	assert_int_equal(x86_set_xcr0(g->cpu, 7), X86_OK);
	x86_cpuid_run(g->cpu, 0xd, 0, out);
	assert_int_equal(out[EBX], 832);
	x86_cpuid_run(g->cpu, 0xd, 1, out);
	if (out[EAX] & 2)
		assert_int_equal(out[EBX], 832);
	g->cpu->apic_off = true;
	x86_cpuid_run(g->cpu, 1, 0, out);
	assert_false(out[EDX] >> 9 & 1);
}

static void test_out_of_range(void **state)
{
	static const struct x86_cpuid_entry table[] = {
		{ .function = 0, .eax = 2, .ebx = 0x756e6547 },
		{ .function = 2, .eax = 0x12345678 },
		{ .function = 0x80000000, .eax = 0x80000008 },
		{ .function = 0x80000008, .eax = 0x3027 },
	};
	struct guest *g = *state;
	struct x86_cpuid_entry bad = { .function = 0x80000008, .eax = 0x2727 };
	u32 out[4];

	assert_int_equal(x86_cpuid_set(g->cpu, table, 4), 0);
	assert_true(g->cpu->intel && g->cpu->phys_bits == 39);
	x86_cpuid_run(g->cpu, 0x1f, 0, out);
	assert_int_equal(out[EAX], 0x12345678);
	x86_cpuid_run(g->cpu, 0x80000009, 0, out);
	assert_int_equal(out[EAX], 0x12345678);
	x86_cpuid_run(g->cpu, 1, 0, out); /* in range, not set */
	assert_int_equal(out[EAX], 0);
	g->cpu->intel = false;
	x86_cpuid_run(g->cpu, 0x1f, 0, out);
	assert_int_equal(out[EAX], 0);
	assert_int_equal(x86_cpuid_set(g->cpu, &bad, 1), -EINVAL);
	assert_int_equal(x86_cpuid_set(g->cpu, table, X86_CPUID_MAX + 1), -E2BIG);
}

static void test_instruction(void **state)
{
	struct guest *g = *state;
	struct x86_insn insn = guest_insn(4);

	model_set(g, NULL);
	guest_long(g, 3);
	g->cpu->gpr[RAX] = 0xffffffff40000000ull;
	g->cpu->gpr[RCX] = ~0ull;
	g->cpu->gpr[RBX] = ~0ull;
	assert_int_equal(x86_op_cpuid(g->cpu, &insn), X86_OK);
	assert_int_equal(g->cpu->gpr[RAX], 0x40000001);
	assert_int_equal(g->cpu->gpr[RBX], 0x4b4d564b);
	g->cpu->misc_features = 1;
	guest_fault(g, x86_op_cpuid(g->cpu, &insn), VEC_GP, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_host_masks),  guest_test(test_hidden_and_given),
		guest_test(test_told_to_be_immune), guest_test(test_masked_model),
		guest_test(test_kvm_leaves),	    guest_test(test_dynamic_bits),
		guest_test(test_out_of_range),	    guest_test(test_instruction),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

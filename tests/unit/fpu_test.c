/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Vector state images: against the host's own instructions, and the checks that the host cannot show. */
#include <errno.h>
#include <linux/kvm.h>

#include "x86_guest.h"

#include "cpu/x86/cpuid.h"
#include "cpu/x86/fpu.h"
#include "cpu/x86/host.h"
#include "cpu/x86/xstate.h"

#define AREA 0x50000u /* in the guest's RAM */

static struct x86_host host;

static int setup(void **state)
{
	struct x86_cpuid_entry table[X86_CPUID_MAX];
	struct guest *g;
	const char *why;

	guest_setup(state);
	g = *state;
	assert_int_equal(x86_host_probe(&host, NULL, &why), 0);
	x86_cpuid_set(g->cpu, table, x86_cpuid_supported(&host, table, X86_CPUID_MAX));
	guest_long(g, 0);
	g->cpu->cr4 |= CR4_OSFXSR | CR4_OSXSAVE;
	g->cpu->xcr0 = host.xsave ? host.xcr0 : 1;
	g->cpu->full = true;
	x86_fpu_reset(g->cpu);
	return 0;
}

static u64 seed = 1;

static u64 random64(void)
{
	seed = seed * 6364136223846793005ull + 1442695040888963407ull;
	return seed ^ seed >> 29;
}

/* Random contents; x87 registers are a mixture of kinds, exceptions stay masked. */
static void state_random(struct x86_cpu *cpu, u64 bv)
{
	for (unsigned i = XS_ST; i < X86_XSAVE_MAX; i += 8)
		if (i < XS_LEGACY || i >= XS_EXTENDED)
			xs_set64(cpu, i, random64());
	for (unsigned i = 0; i < 8; i++) {
		static const u16 exponent[] = { 0, 1, 0x3fff, 0x7fff, 0xffff, 0x8000 };

		xs_set64(cpu, XS_ST + 16 * i + 8, exponent[random64() % 6]);
		if (random64() % 3 == 0)
			xs_set64(cpu, XS_ST + 16 * i, random64() % 2 ? 0 : 1ull << 63);
	}
	xstate_x87_set(cpu, 0x037f, random64() & 0x7900, random64() & 0xff);
	xs_set32(cpu, XS_MXCSR, MXCSR_INIT | (random64() & 0x603f));
	xs_set64(cpu, XS_BV, bv);
}

enum native {
	N_FXSAVE,
	N_XSAVE,
	N_XSAVEOPT,
	N_XSAVEC,
	N_FNSAVE32,
	N_FNSAVE16,
	N_FNSTENV32,
	N_FNSTENV16,
	N_FXRSTOR,
	N_XRSTOR,
	N_FRSTOR32,
	N_FLDENV16,
};

/* Load @state into the host, run one instruction on @area, store the state back; our own state is kept. */
static void native(u8 *state, enum native what, void *area, u64 mask)
{
	static u8 own[X86_XSAVE_MAX] __attribute__((aligned(64)));
	u32 lo = mask, hi = mask >> 32;

#define CASE(n, insn)                                                                              \
	case n:                                                                                    \
		__asm__ volatile("xsave %[own]\n\txrstor %[state]\n\tmov %[lo], %%eax\n\t"         \
				 "mov %[hi], %%edx\n\t" insn " %[area]\n\t"                        \
				 "mov $-1, %%eax\n\tmov %%eax, %%edx\n\t"                          \
				 "xsave %[state]\n\txrstor %[own]"                                 \
				 : [own] "+m"(own), [state] "+m"(*(u8(*)[X86_XSAVE_MAX])state),    \
				   [area] "+m"(*(u8(*)[X86_XSAVE_MAX])area)                        \
				 : [lo] "r"(lo), [hi] "r"(hi), "a"(-1), "d"(-1)                    \
				 : "memory");                                                      \
		break;
	lo = mask;
	switch (what) {
		CASE(N_FXSAVE, "fxsave64")
		CASE(N_XSAVE, "xsave64")
		CASE(N_XSAVEOPT, "xsaveopt64")
		CASE(N_XSAVEC, "xsavec64")
		CASE(N_FNSAVE32, "fnsave")
		CASE(N_FNSAVE16, ".byte 0x66; fnsave")
		CASE(N_FNSTENV32, "fnstenv")
		CASE(N_FNSTENV16, ".byte 0x66; fnstenv")
		CASE(N_FXRSTOR, "fxrstor64")
		CASE(N_XRSTOR, "xrstor64")
		CASE(N_FRSTOR32, "frstor")
		CASE(N_FLDENV16, ".byte 0x66; fldenv")
	}
#undef CASE
}

static const struct {
	enum native what;
	enum x86_status (*op)(struct x86_cpu *, const struct x86_insn *);
	u8 opcode, modrm, opsize;
	bool loads, xsave;
} ops[] = {
	{ N_FXSAVE, x86_op_fxsave, 0xae, 0x00, 8, false, false },
	{ N_XSAVE, x86_op_xsave, 0xae, 0x20, 8, false, true },
	{ N_XSAVEOPT, x86_op_xsave, 0xae, 0x30, 8, false, true },
	{ N_XSAVEC, x86_op_xsave, 0xc7, 0x20, 8, false, true },
	{ N_FNSAVE32, x86_op_fnsave, 0xdd, 0x30, 4, false, false },
	{ N_FNSAVE16, x86_op_fnsave, 0xdd, 0x30, 2, false, false },
	{ N_FNSTENV32, x86_op_fnstenv, 0xd9, 0x30, 4, false, false },
	{ N_FNSTENV16, x86_op_fnstenv, 0xd9, 0x30, 2, false, false },
	{ N_FXRSTOR, x86_op_fxrstor, 0xae, 0x08, 8, true, false },
	{ N_XRSTOR, x86_op_xrstor, 0xae, 0x28, 8, true, true },
	{ N_FRSTOR32, x86_op_frstor, 0xdd, 0x20, 4, true, false },
	{ N_FLDENV16, x86_op_fldenv, 0xd9, 0x20, 2, true, false },
};

/* Where the host shows pointers that we keep to ourselves. */
static void pointers_clear(u8 *image, enum native what)
{
	if (what == N_FNSAVE32 || what == N_FNSTENV32) {
		memset(image + 12, 0, 14);
	} else if (what == N_FNSAVE16 || what == N_FNSTENV16) {
		memset(image + 6, 0, 8);
	} else {
		memset(image + XS_FOP, 0, XS_MXCSR - XS_FOP);
	}
}

static bool is_compact_capable(unsigned i)
{
	return (ops[i].what != N_XSAVEC || host.xsavec) &&
	       (ops[i].what != N_XSAVEOPT || host.xsaveopt);
}

static struct x86_insn op_insn(unsigned i)
{
	struct x86_insn insn = guest_insn_mem(ops[i].opsize, AREA);

	insn.opcode = ops[i].opcode;
	insn.modrm = ops[i].modrm;
	return insn;
}

/* An image that the loads accept, made by the host from another random state. */
static void area_make(struct guest *g, u8 *area, unsigned i, u64 mask)
{
	static u8 other[X86_XSAVE_MAX] __attribute__((aligned(64)));
	struct x86_cpu *c = g->cpu;
	static u8 keep[X86_XSAVE_MAX];

	memcpy(keep, c->xsave, sizeof(keep));
	state_random(c, random64() & host.xcr0);
	memcpy(other, c->xsave, sizeof(other));
	memcpy(c->xsave, keep, sizeof(keep));
	memset(area, 0, X86_XSAVE_MAX);
	switch (ops[i].what) {
	case N_XRSTOR:
		native(other, host.xsavec && random64() & 1 ? N_XSAVEC : N_XSAVE, area, mask);
		break;
	case N_FRSTOR32:
		native(other, N_FNSAVE32, area, 0);
		break;
	case N_FLDENV16:
		native(other, N_FNSTENV16, area, 0);
		break;
	default:
		native(other, N_FXSAVE, area, 0);
	}
}

/* Compare the state after an instruction, by components; a clear bit is the initial state. */
static void state_compare(struct guest *g, u8 *state)
{
	static u8 scratch[X86_XSAVE_MAX] __attribute__((aligned(64)));
	struct x86_cpu *c = g->cpu;

	memcpy(scratch, c->xsave, sizeof(scratch));
	memcpy(c->xsave, state, sizeof(scratch));
	xstate_complete(c, ~0ull);
	memcpy(state, c->xsave, sizeof(scratch));
	memcpy(c->xsave, scratch, sizeof(scratch));
	xstate_complete(c, ~0ull);
	pointers_clear(state, N_FXSAVE);
	pointers_clear(c->xsave, N_FXSAVE);
	assert_memory_equal(state, c->xsave, XS_MXCSR_MASK);
	for (unsigned i = 0; i < 8; i++)
		assert_memory_equal(state + XS_ST + 16 * i, c->xsave + XS_ST + 16 * i, 10);
	assert_memory_equal(state + XS_XMM, c->xsave + XS_XMM, 256);
	for (unsigned i = 2; i < XC_COUNT; i++)
		if (host.xcr0 >> i & 1)
			assert_memory_equal(state + xstate_layout()->offset[i],
					    c->xsave + xstate_layout()->offset[i],
					    xstate_layout()->size[i]);
}

static void compare_once(struct guest *g, unsigned i)
{
	static u8 area[X86_XSAVE_MAX] __attribute__((aligned(64)));
	static u8 state[X86_XSAVE_MAX] __attribute__((aligned(64)));
	struct x86_insn insn = op_insn(i);
	u64 mask = random64() & 3 ? random64() & 0xe7 : ~0ull;

	state_random(g->cpu, random64() & host.xcr0);
	memcpy(state, g->cpu->xsave, sizeof(state));
	if (ops[i].loads) {
		area_make(g, area, i, random64() & 0xe7);
	} else {
		memset(area, 0x5a, sizeof(area));
		memset(area + XS_HEADER, 0, 64);
	}
	/* The host sets XINUSE as it likes: take its view of the same state. */
	native(state, N_FNSTENV32, (u8[X86_XSAVE_MAX]){ 0 }, 0);
	memcpy(g->cpu->xsave, state, sizeof(state));
	memcpy(g->ram + AREA, area, sizeof(area));
	g->cpu->gpr[RAX] = 0xdeadull << 32 | (u32)mask;
	g->cpu->gpr[RDX] = mask >> 32;
	assert_int_equal(ops[i].op(g->cpu, &insn), X86_OK);
	native(state, ops[i].what, area, mask);
	if (!ops[i].loads) {
		pointers_clear(area, ops[i].what);
		pointers_clear(g->ram + AREA, ops[i].what);
		assert_memory_equal(area, g->ram + AREA, sizeof(area));
	}
	state_compare(g, state);
}

static void test_against_the_host(void **state)
{
	struct guest *g = *state;

	if (!host.xsave)
		skip();
	for (unsigned i = 0; i < ARRAY_SIZE(ops); i++)
		for (unsigned n = 0; n < 200 && is_compact_capable(i); n++)
			compare_once(g, i);
}

static void test_no_host_address(void **state)
{
	struct guest *g = *state;

	for (unsigned i = 0; i < ARRAY_SIZE(ops); i++) {
		struct x86_insn insn = op_insn(i);
		struct kvm_fpu fpu;
		u8 image[X86_XSAVE_MAX];

		if (ops[i].loads || (ops[i].xsave && !host.xsave) || !is_compact_capable(i))
			continue;
		g->cpu->gpr[RAX] = g->cpu->gpr[RDX] = ~0ull;
		xs_set64(g->cpu, XS_BV, 3);
		xs_set16(g->cpu, XS_FOP, 0x777);
		xs_set64(g->cpu, XS_FIP, 0x7f1234567890ull);
		xs_set64(g->cpu, XS_FDP, 0x7f1234567890ull);
		memset(g->ram + AREA, 0, 4096);
		x86_fpu_get(g->cpu, &fpu);
		assert_true(!fpu.last_ip && !fpu.last_dp && !fpu.last_opcode);
		x86_xsave_get(g->cpu, image, sizeof(image));
		assert_int_equal(ops[i].op(g->cpu, &insn), X86_OK);
		for (unsigned at = 0; at < 4088; at++) {
			assert_true(guest_get(g, AREA + at, 4) != 0x34567890);
			assert_true(memcmp(image + at, "\x90\x78\x56\x34", 4));
		}
	}
}

static void test_gates(void **state)
{
	struct guest *g = *state;

	for (unsigned i = 0; i < ARRAY_SIZE(ops); i++) {
		struct x86_insn insn = op_insn(i);

		g->cpu->full = false;
		g->cpu->cr0 |= CR0_TS;
		guest_fault(g, ops[i].op(g->cpu, &insn), VEC_NM, 0);
		g->cpu->cr0 &= ~CR0_TS;
		if (ops[i].xsave) {
			g->cpu->cr4 &= ~CR4_OSXSAVE;
			guest_fault(g, ops[i].op(g->cpu, &insn), VEC_UD, 0);
			g->cpu->cr4 |= CR4_OSXSAVE;
		} else {
			g->cpu->intel = true;
			g->cpu->cr0 |= CR0_EM;
			guest_fault(g, ops[i].op(g->cpu, &insn), VEC_NM, 0);
			g->cpu->cr0 &= ~CR0_EM;
		}
		assert_int_equal(ops[i].op(g->cpu, &insn), X86_FULL);
		g->cpu->full = true;
		insn.disp = AREA + 8;
		if (ops[i].opcode == 0xae && !(ops[i].xsave && !host.xsave))
			guest_fault(g, ops[i].op(g->cpu, &insn), VEC_GP, 0);
		insn.disp = 0x8000000000000000ull;
		guest_fault(g, ops[i].op(g->cpu, &insn), VEC_GP, 0);
		insn.disp = 0x1000000; /* not mapped */
		assert_int_equal(ops[i].op(g->cpu, &insn), X86_FAULT);
		assert_int_equal(g->cpu->exc.vector, VEC_PF);
	}
}

/* XSAVES and XRSTORS: the compact form, for the kernel only. */
static void test_supervisor(void **state)
{
	struct guest *g = *state;
	struct x86_insn save = guest_insn_mem(8, AREA), restore = save;
	static u8 before[X86_XSAVE_MAX];

	if (!x86_cpuid_has(g->cpu, 0xd, 1, 0, 3))
		skip();
	save.opcode = restore.opcode = 0xc7;
	save.modrm = 0x28;
	restore.modrm = 0x18;
	g->cpu->gpr[RAX] = g->cpu->gpr[RDX] = ~0ull;
	state_random(g->cpu, host.xcr0);
	memcpy(before, g->cpu->xsave, sizeof(before));
	assert_int_equal(x86_op_xsave(g->cpu, &save), X86_OK);
	assert_true(guest_get(g, AREA + XS_COMP_BV, 8) == (host.xcr0 | 1ull << 63));
	memset(g->cpu->xsave + XS_XMM, 0x5a, 256);
	assert_int_equal(x86_op_xrstor(g->cpu, &restore), X86_OK);
	assert_memory_equal(g->cpu->xsave + XS_XMM, before + XS_XMM, 256);
	guest_put(g, AREA + XS_COMP_BV, 0, 8); /* not compact */
	guest_fault(g, x86_op_xrstor(g->cpu, &restore), VEC_GP, 0);
	guest_cpl(g, 3);
	guest_fault(g, x86_op_xsave(g->cpu, &save), VEC_GP, 0);
	guest_fault(g, x86_op_xrstor(g->cpu, &restore), VEC_GP, 0);
}

static void test_bad_images(void **state)
{
	struct guest *g = *state;
	struct x86_insn insn = guest_insn_mem(8, AREA);
	u8 before[X86_XSAVE_MAX];

	insn.opcode = 0xae;
	insn.modrm = 0x28;
	state_random(g->cpu, 3);
	memcpy(before, g->cpu->xsave, sizeof(before));
	guest_put(g, AREA + XS_MXCSR, 0xffff0000, 4);
	guest_fault(g, x86_op_fxrstor(g->cpu, &insn), VEC_GP, 0);
	if (host.xsave) {
		g->cpu->gpr[RAX] = g->cpu->gpr[RDX] = ~0ull;
		guest_fault(g, x86_op_xrstor(g->cpu, &insn), VEC_GP, 0); /* MXCSR */
		guest_put(g, AREA + XS_MXCSR, MXCSR_INIT, 4);
		guest_put(g, AREA + XS_BV, 1ull << 9, 8); /* not in XCR0 */
		guest_fault(g, x86_op_xrstor(g->cpu, &insn), VEC_GP, 0);
		guest_put(g, AREA + XS_BV, 1, 8);
		guest_put(g, AREA + XS_COMP_BV, 1, 8); /* neither format */
		guest_fault(g, x86_op_xrstor(g->cpu, &insn), VEC_GP, 0);
		guest_put(g, AREA + XS_COMP_BV, 1ull << 63 | 2, 8); /* XSTATE_BV beyond it */
		guest_fault(g, x86_op_xrstor(g->cpu, &insn), VEC_GP, 0);
		guest_put(g, AREA + XS_COMP_BV, 1ull << 63 | 1ull << 11 | 3, 8);
		guest_fault(g, x86_op_xrstor(g->cpu, &insn), VEC_GP, 0);
		guest_put(g, AREA + XS_COMP_BV, 0, 8);
		guest_put(g, AREA + XS_COMP_BV + 8, 1, 8); /* reserved */
		guest_fault(g, x86_op_xrstor(g->cpu, &insn), VEC_GP, 0);
	}
	assert_memory_equal(before, g->cpu->xsave, sizeof(before));
}

/* Two pages that are there, each behind one that is not. */
#define THERE_1 0xe01000u
#define THERE_2 0xe03000u

static void pages_thin_out(struct guest *g)
{
	guest_put(g, 0x6000 + 8 * 7, 0x8007, 8);
	memset(g->ram + 0x8000, 0, PAGE_SIZE);
	guest_put(g, 0x8000 + 8 * 1, AREA | 7, 8);
	guest_put(g, 0x8000 + 8 * 3, (AREA + PAGE_SIZE) | 7, 8);
}

static enum x86_status run_at(struct guest *g, u16 opcode, u8 modrm, u64 at)
{
	struct x86_insn insn = guest_insn_mem(8, at);

	insn.opcode = opcode;
	insn.modrm = modrm;
	if (modrm >> 3 == 0)
		return x86_op_fxsave(g->cpu, &insn);
	if (modrm >> 3 == 1)
		return x86_op_fxrstor(g->cpu, &insn);
	return modrm >> 3 == 5 ? x86_op_xrstor(g->cpu, &insn) : x86_op_xsave(g->cpu, &insn);
}

/* Whole images must be there, also bytes that nothing is read from or written to; the kind of access is that of the instruction. */
static void test_partly_there(void **state)
{
	struct guest *g = *state;

	pages_thin_out(g);
	state_random(g->cpu, 3);
	memset(g->ram + AREA, 0x5a, 2 * PAGE_SIZE);
	for (unsigned room = 416; room < 512; room += 16) {
		u64 at = THERE_1 + PAGE_SIZE - room;

		guest_fault(g, run_at(g, 0xae, 0, at), VEC_PF, PF_W);
		assert_int_equal(g->cpu->exc.payload & PAGE_MASK, THERE_1 + PAGE_SIZE);
		assert_int_equal(g->ram[AREA + PAGE_SIZE - room], 0x5a);
		guest_fault(g, run_at(g, 0xae, 1 << 3, at), VEC_PF, 0);
	}
	assert_int_equal(run_at(g, 0xae, 0, THERE_1 + PAGE_SIZE - 512), X86_OK);
	if (!host.xsave)
		return;
	g->cpu->gpr[RAX] = g->cpu->gpr[RDX] = 0; /* no component: the header still is written */
	guest_fault(g, run_at(g, 0xae, 4 << 3, THERE_1 + PAGE_SIZE - 512), VEC_PF, PF_W);
	guest_fault(g, run_at(g, 0xae, 4 << 3, THERE_2 - 512), VEC_PF, PF_W);
	/* A header that would be #GP is not judged before the base is found missing. */
	memset(g->ram + AREA + PAGE_SIZE, 0xff, 64);
	guest_fault(g, run_at(g, 0xae, 5 << 3, THERE_2 - 512), VEC_PF, 0);
	guest_fault(g, run_at(g, 0xae, 5 << 3, THERE_1 + PAGE_SIZE - 512), VEC_PF, 0);
	if (!(host.xcr0 & XC_AVX) || !x86_cpuid_has(g->cpu, 0xd, 1, 0, 1))
		return;
	g->cpu->gpr[RAX] = XC_AVX; /* XSAVEC of nothing in the legacy region */
	guest_fault(g, run_at(g, 0xc7, 4 << 3, THERE_2 - 64), VEC_PF, PF_W);
	assert_int_equal(run_at(g, 0xc7, 4 << 3, THERE_2), X86_OK);
}

/* Outside 64-bit mode registers 8-15 are neither stored nor loaded. */
static void test_legacy_mode(void **state)
{
	struct guest *g = *state;
	struct x86_insn insn = guest_insn_mem(4, AREA);

	guest_protected(g, 0);
	g->cpu->efer = 0;
	x86_mode_update(g->cpu);
	insn.adsize = 4;
	insn.opcode = 0xae;
	state_random(g->cpu, 3);
	memset(g->ram + AREA, 0x5a, 512);
	assert_int_equal(x86_op_fxsave(g->cpu, &insn), X86_OK);
	assert_memory_equal(g->ram + AREA + XS_XMM, g->cpu->xsave + XS_XMM, 128);
	assert_int_equal(g->ram[AREA + XS_XMM + 128], 0x5a);
	guest_put(g, AREA + XS_XMM, 0x1111, 8);
	guest_put(g, AREA + XS_XMM + 128, 0x2222, 8);
	assert_int_equal(x86_op_fxrstor(g->cpu, &insn), X86_OK);
	assert_int_equal(xs_get64(g->cpu, XS_XMM), 0x1111);
	assert_true(xs_get64(g->cpu, XS_XMM + 128) != 0x2222);
	g->cpu->cr4 &= ~CR4_OSFXSR;
	guest_put(g, AREA + XS_XMM, 0x3333, 8);
	assert_int_equal(x86_op_fxrstor(g->cpu, &insn), X86_OK);
	assert_int_equal(xs_get64(g->cpu, XS_XMM), 0x1111);
}

static void test_pending_exception(void **state)
{
	struct guest *g = *state;
	struct x86_insn insn = guest_insn_mem(4, AREA);

	xstate_x87_set(g->cpu, 0x037e, 0x8081, 0); /* invalid operation, unmasked */
	guest_fault(g, x86_op_fldenv(g->cpu, &insn), VEC_MF, 0);
	guest_fault(g, x86_op_frstor(g->cpu, &insn), VEC_MF, 0);
	assert_int_equal(x86_op_fnstenv(g->cpu, &insn), X86_OK); /* does not wait, then masks */
	assert_int_equal(guest_get(g, AREA, 2), 0x037e);
	assert_int_equal(guest_get(g, AREA + 4, 2), 0x8081);
	assert_int_equal(xs_get16(g->cpu, XS_FCW), 0x037f);
	assert_int_equal(x86_op_fldenv(g->cpu, &insn), X86_OK);
	assert_int_equal(xs_get16(g->cpu, XS_FSW), 0x8081);
}

static void test_ioctl_images(void **state)
{
	struct guest *g = *state;
	u8 image[X86_XSAVE_MAX], again[X86_XSAVE_MAX];
	struct kvm_fpu fpu, fpu2;

	state_random(g->cpu, host.xcr0 | 3);
	x86_xsave_get(g->cpu, image, sizeof(image));
	x86_fpu_get(g->cpu, &fpu);
	x86_fpu_reset(g->cpu);
	assert_int_equal(x86_xsave_set(g->cpu, image, sizeof(image)), 0);
	x86_xsave_get(g->cpu, again, sizeof(again));
	assert_memory_equal(image, again, sizeof(image));
	x86_fpu_reset(g->cpu);
	x86_fpu_set(g->cpu, &fpu);
	x86_fpu_get(g->cpu, &fpu2);
	assert_memory_equal(&fpu, &fpu2, sizeof(fpu));
	assert_int_equal(x86_xsave_set(g->cpu, image, 512), -EINVAL);
	if (host.xcr0 & 4)
		assert_int_equal(x86_xsave_set(g->cpu, image, 600), -EINVAL);
	image[XS_BV + 3] = 1;
	assert_int_equal(x86_xsave_set(g->cpu, image, sizeof(image)), -EINVAL);
	image[XS_BV + 3] = 0;
	image[XS_COMP_BV + 7] = 0x80;
	assert_int_equal(x86_xsave_set(g->cpu, image, sizeof(image)), -EINVAL);
	image[XS_COMP_BV + 7] = 0;
	image[XS_MXCSR + 3] = 0xff;
	assert_int_equal(x86_xsave_set(g->cpu, image, sizeof(image)), -EINVAL);
	x86_xsave_get(g->cpu, again, 100); /* cut, not overrun */
	fpu.mxcsr = 0xffffffff;
	x86_fpu_set(g->cpu, &fpu);
	assert_int_equal(xs_get32(g->cpu, XS_MXCSR) & ~host.mxcsr_mask, 0);
}

#define fpu_test(f) cmocka_unit_test_setup_teardown(f, setup, guest_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		fpu_test(test_against_the_host),
		fpu_test(test_no_host_address),
		fpu_test(test_gates),
		fpu_test(test_supervisor),
		fpu_test(test_bad_images),
		fpu_test(test_partly_there),
		fpu_test(test_legacy_mode),
		fpu_test(test_pending_exception),
		fpu_test(test_ioctl_images),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

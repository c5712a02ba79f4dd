/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Rules of the instructions on EDX:EAX and ECX: MSRs, CPUID, counters, XCR0, and hypercalls. */
#include <string.h>

#include "modes.h"

CODE_FIXED(rdmsr, 0x0f, 0x32)
CODE_FIXED(wrmsr, 0x0f, 0x30)
CODE_FIXED(cpuid, 0x0f, 0xa2)
CODE_FIXED(rdtsc, 0x0f, 0x31)
CODE_FIXED(rdtscp, 0x0f, 0x01, 0xf9)
CODE_FIXED(rdpmc, 0x0f, 0x33)
CODE_FIXED(xgetbv, 0x0f, 0x01, 0xd0)
CODE_FIXED(xsetbv, 0x0f, 0x01, 0xd1)
CODE_FIXED(vmcall, 0x0f, 0x01, 0xc1)
CODE_FIXED(vmmcall, 0x0f, 0x01, 0xd9)

/* Only the low halves of RCX, RAX and RDX count, in 64-bit mode too. */
static u64 garbage(const struct cell *c)
{
	return c->poisoned ? rng_next() << 32 : 0;
}

static void edx_eax(struct world *w, u64 v)
{
	put(w, RAX, v, 4);
	put(w, RDX, v >> 32, 4);
}

static u64 pair(const struct world *w)
{
	return w->gpr[RDX] << 32 | (u32)w->gpr[RAX];
}

/* --- MSRs that are plain values --- */

static u64 *msr_of(struct world *w)
{
	switch ((u32)w->gpr[RCX]) {
	case 0xc0000081:
		return &w->star;
	case 0xc0000082:
		return &w->lstar;
	case 0xc0000102:
		return &w->kernel_gs_base;
	case 0x176:
		return &w->sysenter_eip;
	case 0xc0000103:
		return &w->tsc_aux;
	case 0x277:
		return &w->pat;
	default:
		return NULL;
	}
}

static void prepare_msr(const struct cell *c, struct world *w)
{
	static const u32 list[] = { 0xc0000081, 0xc0000082, 0xc0000102, 0x176,
				    0xc0000103, 0x277,	    0x4f000000 };

	w->gpr[RCX] = list[rng_below(ARRAY_SIZE(list))] | garbage(c);
	w->gpr[RAX] = (u32)rng_next() | garbage(c);
	w->gpr[RDX] = (rng_chance(50) ? 0 : (u32)rng_next()) | garbage(c);
	if ((u32)w->gpr[RCX] == 0x277) { /* memory types */
		w->gpr[RAX] = 0x00070406 | garbage(c);
		w->gpr[RDX] = (rng_chance(70) ? 0x04010506 : 0x02000000) | garbage(c);
	}
}

static void apply_rdmsr(const struct cell *c, struct world *w)
{
	u64 *msr = msr_of(w);

	(void)c;
	if (msr)
		edx_eax(w, *msr);
	else
		fault(w, VEC_GP, 0);
}

static u64 sign48(u64 v)
{
	return (s64)(v << 16) >> 16;
}

static void apply_wrmsr(const struct cell *c, struct world *w)
{
	u64 *msr = msr_of(w), v = pair(w);
	bool address = msr == &w->lstar || msr == &w->kernel_gs_base;

	(void)c;
	if (!msr || (address && sign48(v) != v) || (msr == &w->pat && v >> 56 == 0x02))
		fault(w, VEC_GP, 0);
	else if (msr == &w->tsc_aux)
		*msr = (u32)v;
	else
		*msr = msr == &w->sysenter_eip ? sign48(v) : v;
}

/* --- CPUID --- */

static void prepare_cpuid(const struct cell *c, struct world *w)
{
	static const u32 leaves[] = { 0, 0x80000000, 0x80000002, 0x80000003, 0x80000004 };

	w->gpr[RAX] = leaves[rng_below(ARRAY_SIZE(leaves))] | garbage(c);
	w->gpr[RCX] = garbage(c);
}

static void apply_cpuid(const struct cell *c, struct world *w)
{
	u32 out[4] = { 0 };

	(void)c;
	cpuid_expect((u32)w->gpr[RAX], out);
	put(w, RAX, out[0], 4);
	put(w, RBX, out[1], 4);
	put(w, RCX, out[2], 4);
	put(w, RDX, out[3], 4);
}

/* --- counters --- */

static void prepare_tsd(const struct cell *c, struct world *w)
{
	(void)c;
	if (rng_chance(40))
		w->cr4 |= CR4_TSD;
}

static void apply_rdtsc(const struct cell *c, struct world *w)
{
	if (c->mode->user && w->cr4 & CR4_TSD) {
		fault(w, VEC_GP, 0);
		return;
	}
	edx_eax(w, 0);
	w->any_low = BIT(RAX) | BIT(RDX);
}

static void apply_rdtscp(const struct cell *c, struct world *w)
{
	apply_rdtsc(c, w);
	if (w->vector < 0)
		put(w, RCX, w->tsc_aux, 4);
}

static void apply_gp(const struct cell *c, struct world *w)
{
	(void)c;
	fault(w, VEC_GP, 0);
}

static bool encode_rdpid(struct cell *c)
{
	c->seg = NO_REG;
	code_byte(c, 0xf3); /* it comes before 66h, wherever it stands: measured */
	code_prefixes(c);
	code_byte(c, 0x0f);
	code_byte(c, 0xc7);
	code_modrm(c, 7, pick_register(c, true), 3);
	return true;
}

static void apply_rdpid(const struct cell *c, struct world *w)
{
	put(w, c->rm, w->tsc_aux, is_64(c) ? 8 : 4);
}

/* --- XCR0 --- */

static void prepare_xcr(const struct cell *c, struct world *w)
{
	if (rng_chance(20))
		w->cr4 &= ~CR4_OSXSAVE;
	w->gpr[RCX] = (rng_chance(80) ? 0 : 7) | garbage(c);
	w->gpr[RAX] = (const u32[]){ 1, 3, 7, 2, 5 }[rng_below(5)] | garbage(c);
	w->gpr[RDX] = (rng_chance(90) ? 0 : 1) | garbage(c);
}

/* An operand-size prefix is #UD: said by no manual in words, done by processors. */
static bool xcr_refused(const struct cell *c, struct world *w, bool privileged)
{
	if (c->p66 || !(w->cr4 & CR4_OSXSAVE))
		fault(w, VEC_UD, 0);
	else if ((privileged && c->mode->user) || (u32)w->gpr[RCX])
		fault(w, VEC_GP, 0);
	return w->vector >= 0;
}

static void apply_xgetbv(const struct cell *c, struct world *w)
{
	if (!xcr_refused(c, w, false))
		edx_eax(w, w->xcr0);
}

static void apply_xsetbv(const struct cell *c, struct world *w)
{
	u64 v = pair(w);

	if (xcr_refused(c, w, true))
		return;
	if (v != 1 && v != 3 && v != 7)
		fault(w, VEC_GP, 0);
	else
		w->xcr0 = v;
}

/* --- hypercalls: 32 bits of number, arguments and result outside 64-bit mode; who may is the platform's --- */

static void apply_hypercall(const struct cell *c, struct world *w)
{
	static const u8 order[] = { RAX, RBX, RCX, RDX, RSI };
	unsigned size = is_64(c) ? 8 : 4;

	w->has_hypercall = true;
	for (unsigned i = 0; i < 5; i++)
		w->hypercall[i] = cut(w->gpr[order[i]], size);
	put(w, RAX, 0x123456789abcdef0ull, size);
}

/* Intel's table of opcodes has VMCALL without an operand-size prefix only; AMD's VMMCALL does not care. */
static void apply_vmcall(const struct cell *c, struct world *w)
{
	if (c->p66)
		fault(w, VEC_UD, 0);
	else
		apply_hypercall(c, w);
}

const struct rule rules_msr[] = {
	{ "RDMSR", ALL, true, encode_rdmsr, prepare_msr, apply_rdmsr },
	{ "WRMSR", ALL, true, encode_wrmsr, prepare_msr, apply_wrmsr },
	{ "CPUID", ALL, false, encode_cpuid, prepare_cpuid, apply_cpuid },
	{ "RDTSC", ALL, false, encode_rdtsc, prepare_tsd, apply_rdtsc },
	{ "RDTSCP", ALL, false, encode_rdtscp, prepare_tsd, apply_rdtscp },
	{ "RDPMC", ALL, false, encode_rdpmc, NULL, apply_gp },
	{ "RDPID", ALL, false, encode_rdpid, NULL, apply_rdpid },
	{ "XGETBV", ALL, false, encode_xgetbv, prepare_xcr, apply_xgetbv },
	{ "XSETBV", ALL, false, encode_xsetbv, prepare_xcr, apply_xsetbv },
	{ "VMCALL", ALL, false, encode_vmcall, NULL, apply_vmcall },
	{ "VMMCALL", ALL, false, encode_vmmcall, NULL, apply_hypercall },
};
const unsigned nrules_msr = ARRAY_SIZE(rules_msr);

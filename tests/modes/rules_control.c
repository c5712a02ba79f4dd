/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Rules of control and debug registers, the TLB, and of what only the kernel may do. */
#include <string.h>

#include "cpu/x86/control.h"
#include "modes.h"

static u64 poison(const struct cell *c)
{
	return c->poisoned ? (rng_next() | BIT_ULL(32)) << 32 : 0;
}

/* What the instruction sees of a register that is a control or debug register's partner. */
static u64 partner(const struct cell *c, const struct world *w)
{
	return is_64(c) ? w->gpr[c->rm] : (u32)w->gpr[c->rm];
}

/* --- MOV to and from control registers --- */

static bool encode_cr(struct cell *c, u8 opcode, unsigned low)
{
	code_prefixes(c);
	code_byte(c, 0x0f);
	code_byte(c, opcode);
	/* The mod field is ignored: the operand is a register always. */
	code_modrm(c, low | (c->rex && rng_chance(30) ? 8 : 0), pick_register(c, true),
		   rng_below(4));
	return true;
}

static bool encode_from_cr(struct cell *c)
{
	return encode_cr(c, 0x20, rng_below(8));
}

static bool encode_to_cr(struct cell *c)
{
	return encode_cr(c, 0x22, rng_below(8));
}

static bool encode_from_alt_cr8(struct cell *c)
{
	c->lock = true;
	return encode_cr(c, 0x20, 0);
}

static bool encode_to_alt_cr8(struct cell *c)
{
	c->lock = true;
	return encode_cr(c, 0x22, 0);
}

/* CR8 by REX.R, or where CPUID says so by LOCK MOV CR0. -1: #UD. */
static int cr_number(const struct cell *c)
{
	if (c->lock)
		return has_alt_cr8 && c->reg == 0 ? 8 : -1;
	return c->reg == 0 || (c->reg >= 2 && c->reg <= 4) || c->reg == 8 ? c->reg : -1;
}

/* #UD before #GP. */
static bool cr_refused(const struct cell *c, struct world *w)
{
	if (cr_number(c) < 0)
		fault(w, VEC_UD, 0);
	else if (c->mode->user)
		fault(w, VEC_GP, 0);
	return w->vector >= 0;
}

static void apply_from_cr(const struct cell *c, struct world *w)
{
	int n = cr_number(c);

	if (cr_refused(c, w))
		return;
	put(w, c->rm,
	    n == 0   ? w->cr0
	    : n == 2 ? w->cr2
	    : n == 3 ? w->cr3
	    : n == 4 ? w->cr4
		     : w->cr8,
	    is_64(c) ? 8 : 4);
}

#define CR0_TOYS (CR0_MP | CR0_EM | CR0_TS | CR0_NE | CR0_AM | CR0_WP | CR0_CD)
#define CR0_ALL	 (CR0_TOYS | CR0_PE | CR0_ET | CR0_NW | CR0_PG)

static u64 choose_cr0(const struct cell *c, const struct world *w)
{
	u64 v = w->cr0 ^ (rng_next() & CR0_TOYS);

	switch (rng_below(8)) {
	case 0:
		return v | CR0_NW;
	case 1:
		return (v | CR0_PG) & ~CR0_PE;
	case 2: /* compatibility mode would be left for good */
		return c->mode->lma && !is_64(c) ? v : v & ~CR0_PG;
	case 3:
		return (v & ~CR0_ET) | BIT_ULL(6) | BIT_ULL(20);
	default:
		return v;
	}
}

static u64 choose_cr3(const struct cell *c, const struct world *w)
{
	u64 v = (w->cr3 & ~0xfffull) | (rng_next() & 0x18);

	if (w->cr4 & CR4_PCIDE)
		v |= (rng_next() & 0xfff) | (is_64(c) ? rng_next() & BIT_ULL(63) : 0);
	if (is_64(c) && c->poisoned)
		v |= BIT_ULL(w->phys_bits + rng_below(64 - w->phys_bits));
	return v;
}

static u64 choose_cr4(const struct cell *c, const struct world *w)
{
	u64 v = w->cr4 ^ (rng_next() & (CR4_TSD | CR4_DE | CR4_MCE | CR4_PCE | CR4_UMIP | CR4_PGE));

	switch (rng_below(8)) {
	case 0:
		return v | BIT_ULL(31);
	case 1:
		return v | CR4_PCIDE;
	case 2:
		return c->mode->lma ? v & ~CR4_PAE : v;
	case 3:
		return c->mode->lma ? v ^ CR4_LA57 : v;
	case 4:
		return v & ~CR4_PCIDE;
	default:
		return v;
	}
}

static void prepare_to_cr(const struct cell *c, struct world *w)
{
	int n = cr_number(c);
	u64 v = n == 0	 ? choose_cr0(c, w)
		: n == 3 ? choose_cr3(c, w)
		: n == 4 ? choose_cr4(c, w)
		: n == 8 ? rng_below(20)
			 : rng_next();

	w->gpr[c->rm] = (is_64(c) && n == 3) ? v : v | poison(c);
}

static bool cr0_is_valid(const struct cell *c, u64 v)
{
	if (v >> 32 || (v & CR0_NW && !(v & CR0_CD)) || (v & CR0_PG && !(v & CR0_PE)))
		return false;
	return v & CR0_PG || !is_64(c);
}

static bool cr4_is_valid(const struct cell *c, const struct world *w, u64 v)
{
	if (v >> 31)
		return false;
	if (c->mode->lma && (!(v & CR4_PAE) || (v ^ w->cr4) & CR4_LA57))
		return false;
	return !(v & ~w->cr4 & CR4_PCIDE) || (c->mode->lma && !(w->cr3 & 0xfff));
}

static void apply_to_cr(const struct cell *c, struct world *w)
{
	u64 v = partner(c, w), cr3 = v & ~(w->cr4 & CR4_PCIDE ? BIT_ULL(63) : 0);
	bool ok = true;

	if (cr_refused(c, w))
		return;
	switch (cr_number(c)) {
	case 0:
		ok = cr0_is_valid(c, v);
		w->cr0 = ok ? (v & CR0_ALL) | CR0_ET : w->cr0;
		break;
	case 2:
		w->cr2 = v;
		break;
	case 3:
		ok = !(cr3 >> w->phys_bits);
		w->cr3 = ok ? cr3 : w->cr3;
		break;
	case 4:
		ok = cr4_is_valid(c, w, v);
		w->cr4 = ok ? v : w->cr4;
		break;
	default:
		ok = v < 16;
		w->cr8 = ok ? v : w->cr8;
	}
	if (!ok)
		fault(w, VEC_GP, 0);
}

/* --- MOV to and from debug registers --- */

static bool encode_from_dr(struct cell *c)
{
	return encode_cr(c, 0x21, rng_below(8));
}

static bool encode_to_dr(struct cell *c)
{
	return encode_cr(c, 0x23, rng_below(8));
}

static void prepare_dr(const struct cell *c, struct world *w)
{
	if (rng_chance(30))
		w->cr4 |= CR4_DE;
	if (rng_chance(10))
		w->dr7 |= DR7_GD;
	/* No breakpoint is switched on: the instruction behind would be another test. */
	w->gpr[c->rm] = (u32)(rng_next() & ~0xffull) | poison(c);
}

/* The number that is meant, or -1 with the fault in @w. */
static int dr_number(const struct cell *c, struct world *w)
{
	int n = c->reg;

	if (n > 7 || ((n == 4 || n == 5) && w->cr4 & CR4_DE)) {
		fault(w, VEC_UD, 0);
	} else if (c->mode->user) {
		fault(w, VEC_GP, 0);
	} else if (w->dr7 & DR7_GD) {
		fault(w, VEC_DB, 0);
		w->dr6 |= DR6_BD;
		w->dr7 &= ~(u64)DR7_GD;
	}
	return w->vector >= 0 ? -1 : n == 4 || n == 5 ? n + 2 : n;
}

static void apply_from_dr(const struct cell *c, struct world *w)
{
	int n = dr_number(c, w);

	if (n >= 0)
		put(w, c->rm, n < 4 ? w->dr[n] : n == 6 ? w->dr6 : w->dr7, is_64(c) ? 8 : 4);
}

static void apply_to_dr(const struct cell *c, struct world *w)
{
	int n = dr_number(c, w);
	u64 v = partner(c, w);

	if (n < 0)
		return;
	if (n < 4)
		w->dr[n] = v;
	else if (v >> 32)
		fault(w, VEC_GP, 0);
	else if (n == 6)
		w->dr6 = (v & 0xe00f) | 0xffff0ff0;
	else
		w->dr7 = (v & 0xffff23ff) | 0x400;
}

/* --- the machine status word --- */

static bool encode_0f01(struct cell *c, unsigned reg, bool memory)
{
	if (!c->mem && !memory)
		c->seg = NO_REG;
	code_prefixes(c);
	code_byte(c, 0x0f);
	code_byte(c, 0x01);
	if (memory)
		code_memory(c, reg);
	else
		code_modrm(c, reg, pick_register(c, true), 3);
	return !memory || c->base != NO_REG || c->index != NO_REG;
}

static bool encode_smsw_reg(struct cell *c)
{
	return encode_0f01(c, 4, false);
}

static bool encode_lmsw_reg(struct cell *c)
{
	return encode_0f01(c, 6, false);
}

static void prepare_lmsw(const struct cell *c, struct world *w)
{
	w->gpr[c->rm] = (rng_next() & ~1ull) | (w->cr0 & 1);
	if (!c->poisoned && !is_64(c))
		w->gpr[c->rm] = (u32)w->gpr[c->rm];
}

static void apply_smsw(const struct cell *c, struct world *w)
{
	if (c->mode->user && w->cr4 & CR4_UMIP)
		fault(w, VEC_GP, 0);
	else
		put(w, c->rm, w->cr0, opsize_of(c));
}

static void apply_lmsw(const struct cell *c, struct world *w)
{
	w->cr0 = (w->cr0 & ~0xeull) | (w->gpr[c->rm] & 0xe);
}

/* --- TLB --- */

static bool encode_invlpg(struct cell *c)
{
	return encode_0f01(c, 7, true);
}

static void apply_nothing(const struct cell *c, struct world *w)
{
	(void)c;
	(void)w;
}

static bool encode_invpcid(struct cell *c)
{
	code_prefixes(c);
	code_byte(c, 0x0f);
	code_byte(c, 0x38);
	code_byte(c, 0x82);
	c->reg = pick_register(c, true);
	code_memory(c, c->reg);
	/* REX.R: code_memory() has set the bit already. The type's register must not be part of the address. */
	return (c->base != NO_REG || c->index != NO_REG) && c->base != c->reg && c->index != c->reg;
}

static void prepare_invpcid(const struct cell *c, struct world *w)
{
	u64 pcid = rng_chance(50) ? 0 : rng_chance(80) ? rng_below(4096) : rng_next();
	u64 address = rng_chance(80) ? (u32)rng_next() : rng_next(), lin;
	struct world probe;

	aim_data(c, w);
	w->gpr[c->reg] = rng_below(6) | poison(c);
	probe = *w;
	if (!linear(c, &probe, effective(c, w), 16, false, &lin) || lin - DATA_AT > DATA_SIZE - 16)
		return;
	memcpy(w->data + lin - DATA_AT, &pcid, 8);
	memcpy(w->data + lin - DATA_AT + 8, &address, 8);
}

static void apply_invpcid(const struct cell *c, struct world *w)
{
	u64 type = is_64(c) ? w->gpr[c->reg] : (u32)w->gpr[c->reg], d[2], lin;
	unsigned up = c->id == M_LONG57 ? 7 : 16;
	bool ok;

	if (!c->p66) /* a part of the opcode */
		return fault(w, VEC_UD, 0);
	if (c->mode->user)
		return fault(w, VEC_GP, 0);
	if (!linear(c, w, effective(c, w), 16, false, &lin))
		return;
	memcpy(d, w->data + lin - DATA_AT, 16);
	ok = type <= 3 && !(d[0] >> 12);
	if (type <= 1 && d[0] && !(w->cr4 & CR4_PCIDE))
		ok = false;
	if (type == 0 && (s64)(d[1] << up) >> up != (s64)d[1])
		ok = false;
	if (!ok)
		fault(w, VEC_GP, 0);
}

/* --- the kernel's own, without operands --- */

CODE_FIXED(clts, 0x0f, 0x06)
CODE_FIXED(invd, 0x0f, 0x08)
CODE_FIXED(wbinvd, 0x0f, 0x09)
CODE_FIXED(swapgs, 0x0f, 0x01, 0xf8)
CODE_FIXED(rsm, 0x0f, 0xaa)
CODE_FIXED(monitor, 0x0f, 0x01, 0xc8)
CODE_FIXED(cli, 0xfa)

static void apply_clts(const struct cell *c, struct world *w)
{
	(void)c;
	w->cr0 &= ~CR0_TS;
}

static void prepare_clts(const struct cell *c, struct world *w)
{
	(void)c;
	w->cr0 |= CR0_TS;
}

static void apply_swapgs(const struct cell *c, struct world *w)
{
	u64 base = w->gs_base;

	(void)c;
	w->gs_base = w->kernel_gs_base;
	w->kernel_gs_base = base;
}

/* --- selectors of the task and the local table --- */

static bool encode_0f00(struct cell *c, unsigned reg)
{
	c->seg = NO_REG;
	code_prefixes(c);
	code_byte(c, 0x0f);
	code_byte(c, 0x00);
	code_modrm(c, reg, pick_register(c, true), 3);
	return true;
}

static bool encode_sldt(struct cell *c)
{
	return encode_0f00(c, 0);
}

static bool encode_str(struct cell *c)
{
	return encode_0f00(c, 1);
}

static bool encode_lldt(struct cell *c)
{
	return encode_0f00(c, 2);
}

static bool encode_ltr(struct cell *c)
{
	return encode_0f00(c, 3);
}

static void apply_selector(const struct cell *c, struct world *w, u16 sel)
{
	if (c->mode->user && w->cr4 & CR4_UMIP)
		fault(w, VEC_GP, 0);
	else
		put(w, c->rm, sel, opsize_of(c));
}

static void apply_sldt(const struct cell *c, struct world *w)
{
	apply_selector(c, w, 0);
}

static void apply_str(const struct cell *c, struct world *w)
{
	apply_selector(c, w, 0x40);
}

/* A null selector, whatever lies above its 16 bits. */
static void prepare_null(const struct cell *c, struct world *w)
{
	w->gpr[c->rm] = (w->gpr[c->rm] & ~0xffffull) | rng_below(4);
}

/* Null, a task that is there, or one behind the end of the table; bits 16 and up do not count. */
static void prepare_ltr(const struct cell *c, struct world *w)
{
	u16 sel = rng_chance(70) ? SEL_SPARE_TSS : rng_chance(50) ? 0 : 0x100;

	w->gpr[c->rm] = (w->gpr[c->rm] & ~0xffffull) | sel | rng_below(4);
}

static void apply_ltr(const struct cell *c, struct world *w)
{
	u16 sel = w->gpr[c->rm];

	if ((sel & ~3) != SEL_SPARE_TSS)
		return fault(w, VEC_GP, sel & ~3);
	w->tr = sel;
	w->tss = TSS_BUSY;
}

const struct rule rules_control[] = {
	{ "MOV r,CR", ALL, false, encode_from_cr, NULL, apply_from_cr },
	{ "MOV CR,r", ALL, false, encode_to_cr, prepare_to_cr, apply_to_cr },
	{ "MOV r,CR8 by LOCK", ALL, false, encode_from_alt_cr8, NULL, apply_from_cr },
	{ "MOV CR8,r by LOCK", ALL, false, encode_to_alt_cr8, prepare_to_cr, apply_to_cr },
	{ "MOV r,DR", ALL, false, encode_from_dr, prepare_dr, apply_from_dr },
	{ "MOV DR,r", ALL, false, encode_to_dr, prepare_dr, apply_to_dr },
	{ "SMSW r", ALL, false, encode_smsw_reg, NULL, apply_smsw },
	{ "LMSW r", ALL, true, encode_lmsw_reg, prepare_lmsw, apply_lmsw },
	{ "INVLPG m", ALL, true, encode_invlpg, NULL, apply_nothing },
	{ "INVPCID r,m", ALL, false, encode_invpcid, prepare_invpcid, apply_invpcid },
	{ "CLTS", ALL, true, encode_clts, prepare_clts, apply_clts },
	{ "INVD", ALL, true, encode_invd, NULL, apply_nothing },
	{ "WBINVD", ALL, true, encode_wbinvd, NULL, apply_nothing },
	{ "SWAPGS", LONG64, true, encode_swapgs, NULL, apply_swapgs },
	{ "RSM outside SMM", 0, false, encode_rsm, NULL, NULL },
	{ "MONITOR hidden", 0, false, encode_monitor, NULL, NULL },
	{ "CLI", ALL, true, encode_cli, NULL, apply_nothing },
	{ "SLDT r", ALL & ~REALLIKE, false, encode_sldt, NULL, apply_sldt },
	{ "STR r", ALL & ~REALLIKE, false, encode_str, NULL, apply_str },
	{ "LLDT r", ALL & ~REALLIKE, true, encode_lldt, prepare_null, apply_nothing },
	{ "LTR r", ALL & ~REALLIKE, true, encode_ltr, prepare_ltr, apply_ltr },
};
const unsigned nrules_control = ARRAY_SIZE(rules_control);

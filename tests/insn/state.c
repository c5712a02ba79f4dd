/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Random states: numbers that instructions like, and registers that lead into mapped memory. */
#include <string.h>

#include "cpu/x86/xstate.h"
#include "insn.h"

u64 state_mask;

u64 rng_next(struct rng *r)
{
	u64 z = r->s += 0x9e3779b97f4a7c15ull;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ z >> 27) * 0x94d049bb133111ebull;
	return z ^ z >> 31;
}

unsigned rng_below(struct rng *r, unsigned n)
{
	return (rng_next(r) >> 32) * n >> 32;
}

bool rng_chance(struct rng *r, unsigned percent)
{
	return rng_below(r, 100) < percent;
}

u64 rng_number(struct rng *r)
{
	static const u64 edges[] = {
		0,
		1,
		2,
		~0ull,
		0x7f,
		0x80,
		0xff,
		0x7fff,
		0x8000,
		0xffff,
		0x7fffffff,
		0x80000000,
		0xffffffff,
		0x7fffffffffffffff,
		0x8000000000000000,
		0xffffffff80000000,
		0x100000000,
	};
	u64 v = rng_next(r);

	switch (rng_below(r, 8)) {
	case 0:
	case 1:
		return edges[rng_below(r, ARRAY_SIZE(edges))];
	case 2:
		return v & 0x7f;
	case 3:
		return v & 0xffff;
	case 4:
		return (u32)v;
	default:
		return v;
	}
}

/* Eight bytes as floating point of two sizes, or integers. */
static u64 rng_lane(struct rng *r)
{
	static const u64 doubles[] = {
		0x0000000000000000, 0x8000000000000000, 0x3ff0000000000000, 0xbff0000000000000,
		0x7ff0000000000000, 0xfff0000000000000, 0x7ff8000000000000, 0x7ff0000000000001,
		0x0000000000000001, 0x000fffffffffffff, 0x7fefffffffffffff, 0x0010000000000000,
		0x43e0000000000000, 0xc3e0000000000000, 0x41dfffffffc00000, 0x3fe0000000000000,
	};
	static const u32 floats[] = {
		0x00000000, 0x80000000, 0x3f800000, 0xbf800000, 0x7f800000, 0xff800000, 0x7fc00000,
		0x7f800001, 0x00000001, 0x007fffff, 0x7f7fffff, 0x00800000, 0x4f000000, 0xcf000000,
	};
	u64 v = rng_next(r);

	switch (rng_below(r, 8)) {
	case 0:
		return doubles[v % ARRAY_SIZE(doubles)];
	case 1: /* double near one */
		return (v & 0x801fffffffffffff) | (0x3f00000000000000 + ((v >> 56 & 0x1f) << 52));
	case 2: {
		u64 lo = floats[(v & 0xff) % ARRAY_SIZE(floats)];

		return lo | (u64)floats[(v >> 8 & 0xff) % ARRAY_SIZE(floats)] << 32;
	}
	case 3: /* floats near one */
	case 4:
		return (v & 0x81ffffff81ffffff) | 0x3e0000003e000000;
	case 5:
		return rng_number(r);
	default:
		return v;
	}
}

static void put(u8 *p, u64 v, unsigned n)
{
	memcpy(p, &v, n);
}

/* One x87 register of 80 bits. */
static void random_st(u8 *p, struct rng *r)
{
	static const u16 exponents[] = { 0,	 0,	 1,	 0x3fff, 0x3fff, 0x4000,
					 0x3ffe, 0x7ffe, 0x7fff, 0x403e, 0x4010 };
	u64 mantissa = rng_chance(r, 25) ? rng_number(r) : rng_next(r);
	u16 exponent =
		rng_chance(r, 80) ? exponents[rng_below(r, ARRAY_SIZE(exponents))] : rng_next(r);

	if (rng_chance(r, 10))
		mantissa = exponent = 0;
	else if (rng_chance(r, 90))
		mantissa |= 1ull << 63;
	put(p, mantissa, 8);
	put(p + 8, exponent | (rng_next(r) & 0x8000), 2);
}

static void random_x87(u8 *x, struct rng *r)
{
	static const u8 tags[] = { 0xff, 0xff, 0x3f, 0xfc, 0x0f, 0x00 };
	u16 fcw = 0x7f | (rng_next(r) & 0x0f00), fsw = rng_next(r) & 0x7f7f;

	if ((fcw & 0x300) == 0x100) /* precision: reserved */
		fcw |= 0x300;
	if (rng_chance(r, 12))
		fcw &= ~(rng_next(r) & 0x3f);
	if (rng_chance(r, 60))
		fsw &= ~0x7f;
	if (fsw & ~fcw & 0x3f) /* an exception is pending */
		fsw |= 0x8080;
	else
		fsw &= ~0x80;
	put(x + XS_FCW, fcw, 2);
	put(x + XS_FSW, fsw, 2);
	put(x + XS_FTW, rng_chance(r, 80) ? tags[rng_below(r, sizeof(tags))] : rng_next(r) & 0xff,
	    1);
	for (unsigned i = 0; i < 8; i++)
		random_st(x + XS_ST + 16 * i, r);
}

static void random_vectors(struct state *st, struct rng *r)
{
	const struct xstate_layout *l = xstate_layout();
	u32 mxcsr = 0x1f80 | (rng_next(r) & 0x603f & l->mxcsr_mask);

	if (rng_chance(r, 10))
		mxcsr |= 0x8040 & l->mxcsr_mask;
	if (rng_chance(r, 6))
		mxcsr &= ~(rng_next(r) & 0x1f80);
	memset(st->xsave, 0, XS_EXTENDED);
	random_x87(st->xsave, r);
	put(st->xsave + XS_MXCSR, mxcsr, 4);
	for (unsigned i = 0; i < 256; i += 8)
		put(st->xsave + XS_XMM + i, rng_lane(r), 8);
	for (unsigned c = 2; c < XC_COUNT; c++)
		if (state_mask >> c & 1)
			for (unsigned i = 0; i < l->size[c]; i += 8)
				put(st->xsave + l->offset[c] + i, rng_lane(r), 8);
	put(st->xsave + XS_BV, state_mask, 8);
}

/* Opmasks: all, none, a few. */
static void random_opmasks(struct state *st, struct rng *r)
{
	const struct xstate_layout *l = xstate_layout();

	if (!(state_mask & BIT(5)))
		return;
	for (unsigned k = 0; k < 8; k++) {
		u64 v = rng_next(r);

		if (rng_chance(r, 15))
			v = 0;
		else if (rng_chance(r, 15))
			v = ~0ull;
		put(st->xsave + l->offset[5] + 8 * k, v, 8);
	}
}

/* An address for @size bytes: mostly inside, sometimes across pages, at a hole, not canonical. */
static u64 pick_address(const struct testcase *c, unsigned size, struct rng *r)
{
	u64 data = ARENA + DATA_OFF;
	unsigned kind = rng_below(r, 100), in = rng_below(r, 2 * size + 16);

	if (kind < 35)
		return data + 0x800 + (rng_below(r, DATA_SIZE - 0x1000) & ~63u);
	if (kind < 45)
		return data + 0x800 + (rng_below(r, DATA_SIZE - 0x1000) & -(1u << rng_below(r, 6)));
	if (kind < 70)
		return data + 0x800 + rng_below(r, DATA_SIZE - 0x1000);
	if (kind < 82)
		return data + PAGE_SIZE * (1 + rng_below(r, 3)) - in;
	if (kind < 88)
		return data + DATA_SIZE - in;
	if (kind < 91)
		return data + size - in;
	if (kind < 94)
		return ARENA + RO_OFF + rng_below(r, RO_SIZE);
	if (kind < 96)
		return (1ull << 47) + rng_below(r, 4096);
	return c->target;
}

u64 operand_bias(const struct state *st, const struct testcase *c)
{
	u64 v;

	if (c->zi.meta.category != ZYDIS_CATEGORY_BITBYTE ||
	    c->ops[1].type != ZYDIS_OPERAND_TYPE_REGISTER)
		return 0;
	v = st->gpr[ZydisRegisterGetId(c->ops[1].reg.value)];
	switch (c->zi.operand_width) {
	case 16:
		return ((s16)v >> 4) * 2;
	case 32:
		return ((s32)v >> 5) * 4;
	default:
		return ((s64)v >> 6) * 8;
	}
}

u64 operand_address(const struct state *st, const struct testcase *c, const ZydisDecodedOperand *op)
{
	const ZydisDecodedOperandMem *m = &op->mem;
	u64 ea = m->disp.has_displacement ? m->disp.value : 0;

	if (m->base == ZYDIS_REGISTER_RIP || m->base == ZYDIS_REGISTER_EIP)
		ea += c->at + c->zi.length;
	else if (m->base != ZYDIS_REGISTER_NONE)
		ea += st->gpr[ZydisRegisterGetId(m->base)];
	if (m->index != ZYDIS_REGISTER_NONE && m->type == ZYDIS_MEMOP_TYPE_MEM)
		ea += (m->index == ZYDIS_REGISTER_AL ? st->gpr[RAX] & 0xff
						     : st->gpr[ZydisRegisterGetId(m->index)]) *
		      m->scale;
	if (op->visibility == ZYDIS_OPERAND_VISIBILITY_EXPLICIT)
		ea += operand_bias(st, c);
	if (c->zi.address_width == 32)
		ea = (u32)ea;
	return ea + (m->segment == ZYDIS_REGISTER_FS   ? c->fs_base
		     : m->segment == ZYDIS_REGISTER_GS ? c->gs_base
						       : 0);
}

/* Registers so that @op lies at @want, as nearly as its scale allows. */
static void aim(struct state *st, const struct testcase *c, const ZydisDecodedOperand *op, u64 want,
		struct rng *r)
{
	const ZydisDecodedOperandMem *m = &op->mem;
	bool has_base = m->base != ZYDIS_REGISTER_NONE && m->base != ZYDIS_REGISTER_RIP &&
			m->base != ZYDIS_REGISTER_EIP;
	bool has_index = m->index != ZYDIS_REGISTER_NONE && m->type == ZYDIS_MEMOP_TYPE_MEM &&
			 m->index != ZYDIS_REGISTER_AL;
	u64 high = c->zi.address_width == 32 ? rng_next(r) << 32 : 0;
	unsigned base = ZydisRegisterGetId(m->base), index = ZydisRegisterGetId(m->index);
	u64 now;

	want -= m->segment == ZYDIS_REGISTER_FS	  ? c->fs_base
		: m->segment == ZYDIS_REGISTER_GS ? c->gs_base
						  : 0;
	want -= m->disp.has_displacement ? m->disp.value : 0;
	if (m->base == ZYDIS_REGISTER_RIP || m->base == ZYDIS_REGISTER_EIP)
		return;
	if (has_base && has_index && base == index) {
		st->gpr[base] = want / (m->scale + 1);
	} else if (has_base && has_index) {
		if (rng_chance(r, 60))
			st->gpr[index] = (s64)(s32)rng_below(r, 512) - 256;
		now = st->gpr[index] * m->scale;
		st->gpr[base] = want - now + high;
	} else if (has_base) {
		if (m->index == ZYDIS_REGISTER_AL)
			want -= st->gpr[RAX] & 0xff;
		st->gpr[base] = want + high;
	} else if (has_index) {
		st->gpr[index] = (s64)want / m->scale + high;
	}
}

static bool is_stack(const ZydisDecodedOperand *op)
{
	return op->visibility == ZYDIS_OPERAND_VISIBILITY_HIDDEN &&
	       op->mem.base == ZYDIS_REGISTER_RSP;
}

static void aim_all(struct start *s, const struct testcase *c, bool hidden, struct rng *r)
{
	unsigned safe = ~0u;

	for (unsigned i = 0; i < c->zi.operand_count; i++) {
		const ZydisDecodedOperand *op = &c->ops[i];
		u64 want;

		if (op->type != ZYDIS_OPERAND_TYPE_MEMORY ||
		    (op->visibility == ZYDIS_OPERAND_VISIBILITY_HIDDEN) != hidden)
			continue;
		want = pick_address(c, op->size / 8 ? op->size / 8 : 8, r);
		/* Which of two bad addresses counts is the processor's choice. */
		if (safe != ~0u && i > safe && !image_at(want, op->size / 8))
			want = c->target;
		if (!image_at(want, op->size / 8))
			safe = i;
		if (is_stack(op) && rng_chance(r, 80))
			want = ARENA + STACK_OFF + 0x100 + (rng_below(r, STACK_SIZE - 0x200) & ~7u);
		aim(&s->st, c, op, want, r);
	}
}

u8 *image_at(u64 address, unsigned n)
{
	u64 off = address - ARENA;

	if ((off >= DATA_OFF && off + n <= DATA_OFF + DATA_SIZE) ||
	    (off >= STACK_OFF && off + n <= STACK_OFF + STACK_SIZE))
		return image + off;
	return NULL;
}

static void add_window(struct start *s, s64 lo, s64 hi)
{
	static const struct {
		s64 lo, hi;
	} areas[] = { { DATA_OFF, DATA_OFF + DATA_SIZE }, { STACK_OFF, STACK_OFF + STACK_SIZE } };

	for (unsigned i = 0; i < ARRAY_SIZE(areas); i++) {
		s64 a = lo < areas[i].lo ? areas[i].lo : lo,
		    b = hi > areas[i].hi ? areas[i].hi : hi;

		a &= ~7ll;
		b = (b + 7) & ~7ll;
		if (a < b && s->nwin < WINDOWS)
			s->win[s->nwin++] = (struct window){ a, b - a };
	}
}

static void fill_windows(struct start *s, struct rng *r)
{
	for (unsigned i = 0; i < s->nwin; i++)
		for (unsigned k = 0; k < s->win[i].len; k += 8)
			put(image + s->win[i].off + k, rng_lane(r), 8);
}

/* Zydis gives no size to an XSAVE area. */
static unsigned operand_reach(const struct testcase *c, const ZydisDecodedOperand *op)
{
	bool is_xsave = c->zi.meta.category == ZYDIS_CATEGORY_XSAVE ||
			c->zi.meta.category == ZYDIS_CATEGORY_XSAVEOPT;

	return is_xsave ? 3072 : op->size / 8;
}

/* Around every operand, as wide as the instruction may reach. */
static void choose_windows(struct start *s, const struct testcase *c)
{
	s->nwin = 0;
	for (unsigned i = 0; i < c->zi.operand_count; i++) {
		const ZydisDecodedOperand *op = &c->ops[i];
		s64 around = op->mem.type == ZYDIS_MEMOP_TYPE_VSIB ? 1200 : 320, off;

		if (op->type != ZYDIS_OPERAND_TYPE_MEMORY)
			continue;
		off = operand_address(&s->st, c, op) - ARENA;
		if (off > -0x10000 && off < (s64)ARENA_SIZE + 0x10000)
			add_window(s, off - around, off + around + operand_reach(c, op));
	}
}

void start_make(struct start *s, const struct testcase *c, struct rng *r)
{
	memset(s, 0, offsetof(struct start, st.xsave));
	for (unsigned i = 0; i < 16; i++)
		s->st.gpr[i] = rng_number(r);
	s->st.rflags = 0x202 | (rng_next(r) & FL_ARITH) | (rng_chance(r, 8) ? FL_AC : 0);
	s->st.fs_base = c->fs_base;
	s->st.gs_base = c->gs_base;
	random_vectors(&s->st, r);
	random_opmasks(&s->st, r);
	aim_all(s, c, true, r);
	aim_all(s, c, false, r);
	adjust_registers(s, c, r);
	choose_windows(s, c);
	fill_windows(s, r);
	adjust_memory(s, c, r);
}

void state_init(void)
{
	state_mask = xstate_layout()->xcr0 & 0xe7;
}

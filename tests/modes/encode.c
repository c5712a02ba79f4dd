/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Bytes of the cases: prefixes, ModRM in its 16-bit and 32-bit forms, and the address that they mean by the book. */
#include <string.h>

#include "modes.h"

const char *const prefix_names[PREFIXES] = { "none", "66",    "67",	"66+67",
					     "REX",  "REX.W", "66+REX", "67+REX.W" };

void code_byte(struct cell *c, u8 b)
{
	c->code[c->len++] = b;
}

/* Where the REX byte lies, once code_prefixes() has written it; behind it are the opcode bytes. */
static u8 *rex_of(struct cell *c)
{
	for (unsigned i = 0; i < c->len; i++)
		if ((c->code[i] & 0xf0) == 0x40)
			return &c->code[i];
	return NULL;
}

void code_prefixes(struct cell *c)
{
	static const u8 overrides[] = { [SEG_ES] = 0x26, [SEG_CS] = 0x2e, [SEG_SS] = 0x36,
					[SEG_DS] = 0x3e, [SEG_FS] = 0x64, [SEG_GS] = 0x65 };

	if (c->lock)
		code_byte(c, 0xf0);
	if (c->p66)
		code_byte(c, 0x66);
	if (c->p67)
		code_byte(c, 0x67);
	if (c->seg != NO_REG)
		code_byte(c, overrides[c->seg]);
	if (c->rex)
		code_byte(c, 0x40 | (c->rex_w ? 8 : 0));
}

bool code_fixed(struct cell *c, const u8 *bytes, unsigned n)
{
	c->seg = NO_REG;
	code_prefixes(c);
	while (n--)
		code_byte(c, *bytes++);
	return true;
}

unsigned pick_register(const struct cell *c, bool extended)
{
	unsigned r = rng_below(c->rex && extended ? 16 : 8);

	return r == RSP ? RBX : r; /* the stack of the test is not played with */
}

static void rex_bits(struct cell *c, unsigned reg, unsigned index, unsigned rm)
{
	u8 *rex = rex_of(c);

	if (rex)
		*rex |= (reg >> 3 & 1) << 2 | (index >> 3 & 1) << 1 | (rm >> 3 & 1);
}

void code_modrm(struct cell *c, unsigned reg, unsigned rm, unsigned mod)
{
	rex_bits(c, reg, 0, rm);
	c->reg = reg;
	c->rm = rm;
	code_byte(c, mod << 6 | (reg & 7) << 3 | (rm & 7));
}

/* The eight 16-bit forms: base and index. */
static const u8 forms16[8][2] = {
	{ RBX, RSI },	 { RBX, RDI },	  { RBP, RSI },	   { RBP, RDI },
	{ RSI, NO_REG }, { RDI, NO_REG }, { RBP, NO_REG }, { RBX, NO_REG }
};

static void memory16(struct cell *c, unsigned reg)
{
	unsigned form = rng_below(8), mod = rng_below(3);

	c->base = forms16[form][0];
	c->index = forms16[form][1];
	c->scale = 1;
	if (form == 6 && mod == 0) {
		c->base = NO_REG;
		c->disp = (s16)rng_next();
	} else {
		c->disp = mod == 0 ? 0 : mod == 1 ? (s8)rng_next() : (s16)rng_next();
	}
	code_byte(c, mod << 6 | (reg & 7) << 3 | form);
	for (unsigned i = 0; i < (c->base == NO_REG ? 2 : mod); i++)
		code_byte(c, (u32)c->disp >> 8 * i);
}

static void memory32(struct cell *c, unsigned reg)
{
	bool has_base = rng_chance(85), has_index = rng_chance(60);
	unsigned n, mod, shift = rng_below(4);
	u32 disp = rng_next();

	c->base = has_base ? pick_register(c, true) : NO_REG;
	c->index = has_index ? pick_register(c, true) : NO_REG;
	c->scale = 1u << shift;
	mod = !has_base ? 0 : rng_below(3);
	if (has_base && mod == 0 && (c->base & 7) == RBP)
		mod = 1;
	n = !has_base ? 4 : mod == 1 ? 1 : mod == 2 ? 4 : 0;
	c->disp = n == 4 ? (s32)disp : n == 1 ? (s8)disp : 0;
	rex_bits(c, reg, has_index ? c->index : 0, has_base ? c->base : 0);
	if (has_base && !has_index && (c->base & 7) != RSP) {
		code_byte(c, mod << 6 | (reg & 7) << 3 | (c->base & 7));
	} else {
		code_byte(c, mod << 6 | (reg & 7) << 3 | 4);
		code_byte(c, shift << 6 | (has_index ? c->index & 7 : 4) << 3 |
				     (has_base ? c->base & 7 : 5));
	}
	for (unsigned i = 0; i < n; i++)
		code_byte(c, disp >> 8 * i);
}

void code_memory(struct cell *c, unsigned reg)
{
	c->mem = true;
	c->reg = reg;
	if (adsize_of(c) == 2)
		memory16(c, reg);
	else
		memory32(c, reg);
}

u64 effective(const struct cell *c, const struct world *w)
{
	u64 ea = (s64)c->disp;

	if (c->base != NO_REG)
		ea += w->gpr[c->base];
	if (c->index != NO_REG)
		ea += w->gpr[c->index] * c->scale;
	return cut(ea, adsize_of(c));
}

void aim(const struct cell *c, struct world *w, u64 ea)
{
	unsigned size = adsize_of(c);
	u64 keep = ~cut(~0ull, size), now;

	if (c->base == NO_REG && c->index == NO_REG)
		return;
	if (c->index != NO_REG && (c->base == NO_REG || c->base == c->index)) {
		unsigned factor = c->scale + (c->base == c->index);

		now = cut(ea - (s64)c->disp, size) / factor;
		w->gpr[c->index] = (w->gpr[c->index] & keep) | now;
		return;
	}
	now = (s64)c->disp + (c->index == NO_REG ? 0 : w->gpr[c->index] * c->scale);
	w->gpr[c->base] = (w->gpr[c->base] & keep) | cut(ea - now, size);
}

/* The segment that the operand has without an override: SS with RBP or RSP as base. */
static unsigned segment_of(const struct cell *c)
{
	if (c->seg != NO_REG && !(is_64(c) && c->seg < SEG_FS))
		return c->seg;
	return c->base == RBP || c->base == RSP ? SEG_SS : SEG_DS;
}

bool linear(const struct cell *c, struct world *w, u64 ea, unsigned size, bool write, u64 *lin)
{
	unsigned seg = segment_of(c), up = c->id == M_LONG57 ? 7 : 16;
	u32 limit = segment_limit(c, seg);

	if (is_64(c)) {
		u64 last;

		*lin = ea + (seg == SEG_FS ? w->fs_base : seg == SEG_GS ? w->gs_base : 0);
		last = *lin + size - 1;
		if ((s64)(*lin << up) >> up == (s64)*lin && (s64)(last << up) >> up == (s64)last)
			return true;
	} else if (limit == ~0u || ea + size - 1 <= limit) {
		*lin = (u32)(ea + segment_base(c, seg));
		/* Code segments of protected mode cannot be written. */
		if (!write || seg != SEG_CS || !c->mode->pe || c->mode->vm)
			return true;
	}
	fault(w, seg == SEG_SS ? VEC_SS : VEC_GP, 0);
	return false;
}

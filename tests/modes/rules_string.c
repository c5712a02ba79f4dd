/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Rules of counts and pointers: string instructions, LOOP and JCXZ take rCX, rSI and rDI by address size. */
#include <string.h>

#include "modes.h"

enum { STOS = 0xaa, LODS = 0xac, MOVS = 0xa4, SCAS = 0xae, CMPS = 0xa6 };

/* --- string instructions --- */

static bool encode_string(struct cell *c, u8 opcode, bool repeated)
{
	bool wide = rng_chance(70);

	c->seg = NO_REG;
	c->imm = repeated;
	if (repeated)
		code_byte(c, rng_chance(70) ? 0xf3 : 0xf2);
	code_prefixes(c);
	code_byte(c, opcode | wide);
	c->reg = wide ? 0 : 1;
	return true;
}

#define STRING(name, opcode)                                                                       \
	static bool encode_##name(struct cell *c)                                                  \
	{                                                                                          \
		return encode_string(c, opcode, false);                                            \
	}                                                                                          \
	static bool encode_rep_##name(struct cell *c)                                              \
	{                                                                                          \
		return encode_string(c, opcode, true);                                             \
	}
STRING(stos, STOS)
STRING(lods, LODS)
STRING(movs, MOVS)
STRING(scas, SCAS)
STRING(cmps, CMPS)

static u64 es_base(const struct cell *c)
{
	return is_64(c) ? 0 : segment_base(c, SEG_ES);
}

static void set_low(struct world *w, unsigned r, u64 v, unsigned size)
{
	u64 mask = cut(~0ull, size);

	w->gpr[r] = (w->gpr[r] & ~mask) | (v & mask);
}

/* Pointers into the data with room on both sides, a small count; upper halves stay what they are. */
static void prepare_string(const struct cell *c, struct world *w)
{
	unsigned size = adsize_of(c);

	set_low(w, RSI, DATA_AT + 128 + rng_below(256), size);
	set_low(w, RDI, DATA_AT + 128 + rng_below(256) - es_base(c), size);
	set_low(w, RCX, rng_below(7), size);
	/* Equal elements now and then. */
	if (rng_chance(50))
		memset(w->data, rng_next(), DATA_SIZE);
	if (rng_chance(30))
		w->gpr[RAX] = (w->gpr[RAX] & ~0xffffffffull) | w->data[0] * 0x01010101u;
}

static u8 *element(const struct cell *c, struct world *w, unsigned r)
{
	u64 lin = cut(w->gpr[r], adsize_of(c)) + (r == RDI ? es_base(c) : 0);

	return w->data + (lin - DATA_AT);
}

static void step(const struct cell *c, struct world *w, unsigned r, int by)
{
	put(w, r, w->gpr[r] + (w->df ? -by : by), adsize_of(c));
}

/* Flags of the difference of two elements. */
static void compare(struct world *w, u64 a, u64 b, unsigned size)
{
	u64 d = cut(a - b, size), sign = 1ull << (8 * size - 1);
	u16 f = 0x200;

	a = cut(a, size);
	b = cut(b, size);
	f |= a < b ? AF_CF : 0;
	f |= d ? 0 : AF_ZF;
	f |= d & sign ? AF_SF : 0;
	f |= (a ^ b) & (a ^ d) & sign ? AF_OF : 0;
	f |= (a ^ b ^ d) & 0x10 ? AF_AF : 0;
	f |= __builtin_parity((u8)d) ? 0 : AF_PF;
	w->flags = f;
}

/* One element. Returns whether it was a comparison. */
static bool one(const struct cell *c, struct world *w, u8 opcode, unsigned size)
{
	u64 a = 0, b = 0;

	switch (opcode) {
	case STOS:
		memcpy(element(c, w, RDI), &w->gpr[RAX], size);
		break;
	case LODS:
		memcpy(&a, element(c, w, RSI), size);
		put(w, RAX, a, size);
		break;
	case MOVS:
		memcpy(&a, element(c, w, RSI), size);
		memcpy(element(c, w, RDI), &a, size);
		break;
	case SCAS:
		memcpy(&b, element(c, w, RDI), size);
		compare(w, w->gpr[RAX], b, size);
		break;
	default:
		memcpy(&a, element(c, w, RSI), size);
		memcpy(&b, element(c, w, RDI), size);
		compare(w, a, b, size);
	}
	if (opcode == LODS || opcode == MOVS || opcode == CMPS)
		step(c, w, RSI, size);
	if (opcode != LODS)
		step(c, w, RDI, size);
	return opcode == SCAS || opcode == CMPS;
}

/*
 * What manuals leave open: a count of zero with 32-bit addresses in 64-bit mode. AMD processors change no
 * register; Intel's clear the upper halves of rCX and of the pointers of MOVS and STOS.
 */
static void zero_count(const struct cell *c, struct world *w, u8 opcode)
{
	if (!is_intel || !is_64(c) || adsize_of(c) != 4)
		return;
	put(w, RCX, 0, 4);
	if (opcode == MOVS)
		put(w, RSI, w->gpr[RSI], 4);
	if (opcode == MOVS || opcode == STOS)
		put(w, RDI, w->gpr[RDI], 4);
}

static void apply_string(const struct cell *c, struct world *w)
{
	u8 opcode = c->code[c->len - 1] & 0xfe;
	unsigned size = c->reg ? 1 : opsize_of(c), adsize = adsize_of(c);
	bool repeated = c->imm, until_equal = repeated && c->code[0] == 0xf2;

	if (!repeated) {
		one(c, w, opcode, size);
		return;
	}
	if (!cut(w->gpr[RCX], adsize))
		zero_count(c, w, opcode);
	while (cut(w->gpr[RCX], adsize)) {
		bool compared = one(c, w, opcode, size);

		put(w, RCX, w->gpr[RCX] - 1, adsize);
		if (compared && !(w->flags & AF_ZF) != until_equal)
			break;
	}
}

/* --- LOOP and JCXZ: to the next instruction, taken or not --- */

static bool encode_loop(struct cell *c)
{
	c->seg = NO_REG;
	code_prefixes(c);
	code_byte(c, 0xe0 + rng_below(3));
	code_byte(c, 0);
	return true;
}

static bool encode_jcxz(struct cell *c)
{
	c->seg = NO_REG;
	code_prefixes(c);
	code_byte(c, 0xe3);
	code_byte(c, 0);
	return true;
}

static void prepare_count(const struct cell *c, struct world *w)
{
	set_low(w, RCX, rng_below(3), adsize_of(c));
}

static void apply_loop(const struct cell *c, struct world *w)
{
	put(w, RCX, w->gpr[RCX] - 1, adsize_of(c));
}

static void apply_jcxz(const struct cell *c, struct world *w)
{
	(void)c;
	(void)w;
}

#define ROWS(NAME, name)                                                                           \
	{ NAME, ALL, false, encode_##name, prepare_string, apply_string },                         \
	{                                                                                          \
		"REP " NAME, ALL, false, encode_rep_##name, prepare_string, apply_string           \
	}

const struct rule rules_string[] = {
	ROWS("STOS", stos),
	ROWS("LODS", lods),
	ROWS("MOVS", movs),
	ROWS("SCAS", scas),
	ROWS("CMPS", cmps),
	{ "LOOP", ALL, false, encode_loop, prepare_count, apply_loop },
	{ "JCXZ", ALL, false, encode_jcxz, prepare_count, apply_jcxz },
};
const unsigned nrules_string = ARRAY_SIZE(rules_string);

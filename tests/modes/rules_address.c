/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Rules of effective addresses: sums cut to the address size, segment bases after that, and the table registers. */
#include <string.h>

#include "modes.h"

static bool has_register(const struct cell *c)
{
	return c->base != NO_REG || c->index != NO_REG;
}

/* --- LEA: the address itself --- */

static bool encode_lea(struct cell *c)
{
	unsigned reg;

	code_prefixes(c);
	reg = pick_register(c, true);
	code_byte(c, 0x8d);
	code_memory(c, reg);
	return true;
}

static void apply_lea(const struct cell *c, struct world *w)
{
	put(w, c->reg, effective(c, w), opsize_of(c));
}

/* --- loads and stores --- */

static bool encode_access(struct cell *c, u8 opcode)
{
	unsigned reg;

	if (c->mode->user && c->mode->vm && c->seg == SEG_CS)
		c->seg = NO_REG;
	code_prefixes(c);
	reg = pick_register(c, true);
	code_byte(c, opcode);
	code_memory(c, reg);
	return has_register(c) && c->base != reg && c->index != reg;
}

static bool encode_load(struct cell *c)
{
	return encode_access(c, 0x8b);
}

static bool encode_store(struct cell *c)
{
	return encode_access(c, 0x89);
}

/* Most addresses lead to the data, so many bytes from its ends that scaling does not lead out. */
void aim_data(const struct cell *c, struct world *w)
{
	unsigned seg = c->seg != NO_REG && !(is_64(c) && c->seg < SEG_FS) ? c->seg : SEG_DS;
	u64 base = seg == SEG_FS   ? w->fs_base
		   : seg == SEG_GS ? w->gs_base
		   : is_64(c)	   ? 0
				   : segment_base(c, seg);
	u64 lin = DATA_AT + 64 + rng_below(DATA_SIZE - 128);

	if (is_64(c) && adsize_of(c) == 8 && rng_chance(10))
		lin = BIT_ULL(c->id == M_LONG57 ? 56 : 47) + 16 + rng_below(64);
	aim(c, w, lin - base);
}

/* Whether the access is one that the test can follow: inside the data. */
static bool inside(const struct cell *c, struct world *w, unsigned size, bool write, u64 *lin)
{
	return linear(c, w, effective(c, w), size, write, lin) &&
	       *lin - DATA_AT <= DATA_SIZE - size;
}

static void apply_load(const struct cell *c, struct world *w)
{
	unsigned size = opsize_of(c);
	u64 lin, v = 0;

	if (!inside(c, w, size, false, &lin))
		return;
	memcpy(&v, w->data + lin - DATA_AT, size);
	put(w, c->reg, v, size);
}

static void apply_store(const struct cell *c, struct world *w)
{
	unsigned size = opsize_of(c);
	u64 lin;

	if (inside(c, w, size, true, &lin))
		memcpy(w->data + lin - DATA_AT, &w->gpr[c->reg], size);
}

/* --- descriptor table registers --- */

static bool encode_table(struct cell *c, unsigned reg)
{
	code_prefixes(c);
	code_byte(c, 0x0f);
	code_byte(c, 0x01);
	code_memory(c, reg);
	return has_register(c);
}

static bool encode_sgdt(struct cell *c)
{
	return encode_table(c, 0);
}

static bool encode_sidt(struct cell *c)
{
	return encode_table(c, 1);
}

static bool encode_lgdt(struct cell *c)
{
	return encode_table(c, 2);
}

static bool encode_lidt(struct cell *c)
{
	return encode_table(c, 3);
}

/* A limit and the whole base, whatever the operand size is. */
static void apply_store_table(const struct cell *c, struct world *w, const struct x86_dtable *t)
{
	unsigned size = is_64(c) ? 10 : 6;
	u64 lin;

	if (c->mode->user && w->cr4 & CR4_UMIP) {
		fault(w, VEC_GP, 0);
		return;
	}
	if (!inside(c, w, size, true, &lin))
		return;
	memcpy(w->data + lin - DATA_AT, &t->limit, 2);
	memcpy(w->data + lin - DATA_AT + 2, &t->base, size - 2);
}

static void apply_sgdt(const struct cell *c, struct world *w)
{
	apply_store_table(c, w, &w->gdt);
}

static void apply_sidt(const struct cell *c, struct world *w)
{
	apply_store_table(c, w, &w->idt);
}

/* The same base, so that the test lives on; what must be ignored of it is garbage. */
static void prepare_table(const struct cell *c, struct world *w, u64 base)
{
	bool short_base = !is_64(c) && opsize_of(c) == 2;
	u16 limit = 0x7ff + rng_below(0x400);
	struct world probe;
	u64 lin;

	aim_data(c, w);
	probe = *w;
	if (!inside(c, &probe, 10, false, &lin))
		return;
	if (!is_64(c))
		base |= rng_next() << (short_base ? 24 : 32);
	memcpy(w->data + lin - DATA_AT, &limit, 2);
	memcpy(w->data + lin - DATA_AT + 2, &base, 8);
}

static void prepare_lgdt(const struct cell *c, struct world *w)
{
	prepare_table(c, w, w->gdt.base);
}

static void prepare_lidt(const struct cell *c, struct world *w)
{
	prepare_table(c, w, w->idt.base);
}

static void load_table(const struct cell *c, struct world *w, struct x86_dtable *t)
{
	unsigned size = is_64(c) ? 10 : 6;
	u64 lin, base = 0;

	if (!inside(c, w, size, false, &lin))
		return;
	memcpy(&t->limit, w->data + lin - DATA_AT, 2);
	memcpy(&base, w->data + lin - DATA_AT + 2, size - 2);
	t->base = !is_64(c) && opsize_of(c) == 2 ? base & 0xffffff : base;
}

static void apply_lgdt(const struct cell *c, struct world *w)
{
	load_table(c, w, &w->gdt);
}

static void apply_lidt(const struct cell *c, struct world *w)
{
	load_table(c, w, &w->idt);
}

const struct rule rules_address[] = {
	{ "LEA r,m", ALL, false, encode_lea, NULL, apply_lea },
	{ "MOV r,m", ALL, false, encode_load, aim_data, apply_load },
	{ "MOV m,r", ALL, false, encode_store, aim_data, apply_store },
	{ "SGDT m", ALL, false, encode_sgdt, aim_data, apply_sgdt },
	{ "SIDT m", ALL, false, encode_sidt, aim_data, apply_sidt },
	{ "LGDT m", ALL, true, encode_lgdt, prepare_lgdt, apply_lgdt },
	{ "LIDT m", ALL, true, encode_lidt, prepare_lidt, apply_lidt },
};
const unsigned nrules_address = ARRAY_SIZE(rules_address);

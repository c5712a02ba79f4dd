/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* From a template to bytes: once as plain as can be, then at random. */
#include <string.h>

#include "insn.h"

/* Everything that the bytes say and the template leaves open. */
struct fields {
	u8 seg; /* prefix byte, 0: none */
	bool p67, rex;
	u8 reg, rm; /* 5 bits */
	u8 vvvv;    /* 5 bits */
	u8 aaa, l;
	bool sib, no_rm_x;
	u8 mod, base, index, scale;
	u8 filler[16];
};

static void put(u8 **p, u8 b)
{
	*(*p)++ = b;
}

static unsigned bit(unsigned v, unsigned n)
{
	return v >> n & 1;
}

/* The three bits beyond those of ModRM and SIB: R, X, B as 4, 2, 1. */
static unsigned high_bits(const struct template *t, const struct fields *f)
{
	unsigned rxb = bit(f->reg, 3) << 2;

	if (!t->mem)
		return rxb | bit(f->rm, 3) | (t->encoding == EVEX ? bit(f->rm, 4) << 1 : 0);
	if (!f->sib)
		return rxb | bit(f->base, 3);
	return rxb | bit(f->index, 3) << 1 | bit(f->base, 3);
}

static void put_legacy(u8 **p, const struct template *t, const struct fields *f)
{
	unsigned rxb = high_bits(t, f);

	if (t->lock)
		put(p, 0xf0);
	if (t->p66)
		put(p, 0x66);
	if (t->pf3)
		put(p, 0xf3);
	if (t->pf2)
		put(p, 0xf2);
	if (t->w || rxb || f->rex)
		put(p, 0x40 | t->w << 3 | rxb);
	if (t->map)
		put(p, 0x0f);
	if (t->map >= 2)
		put(p, t->map == 2 ? 0x38 : 0x3a);
}

static void put_vex(u8 **p, const struct template *t, const struct fields *f)
{
	unsigned rxb = high_bits(t, f);
	u8 last = (~f->vvvv & 15) << 3 | f->l << 2 | t->pp;

	if (t->map == 1 && !t->w && !(rxb & 3) && !f->rex) {
		put(p, 0xc5);
		put(p, (rxb & 4 ? 0 : 0x80) | last);
		return;
	}
	put(p, 0xc4);
	put(p, (~rxb & 7) << 5 | t->map);
	put(p, t->w << 7 | last);
}

static void put_evex(u8 **p, const struct template *t, const struct fields *f)
{
	unsigned rxb = high_bits(t, f);
	unsigned v4 = t->vsib ? bit(f->index, 4) : bit(f->vvvv, 4);

	put(p, 0x62);
	put(p, (~rxb & 7) << 5 | !bit(f->reg, 4) << 4 | t->map);
	put(p, t->w << 7 | (~f->vvvv & 15) << 3 | 4 | t->pp);
	put(p, t->z << 7 | f->l << 5 | t->b << 4 | !v4 << 3 | f->aaa);
}

static void encode(const struct template *t, const struct fields *f, u8 bytes[15])
{
	u8 buf[32], *p = buf;

	if (f->seg)
		put(&p, f->seg);
	if (f->p67 || t->p67)
		put(&p, 0x67);
	if (t->encoding == LEGACY)
		put_legacy(&p, t, f);
	else if (t->encoding == VEX)
		put_vex(&p, t, f);
	else
		put_evex(&p, t, f);
	put(&p, t->opcode);
	if (!t->mem) {
		put(&p, 0xc0 | (f->reg & 7) << 3 | (f->rm & 7));
	} else {
		put(&p, f->mod << 6 | (f->reg & 7) << 3 | (f->sib ? 4 : f->base & 7));
		if (f->sib)
			put(&p, f->scale << 6 | (f->index & 7) << 3 | (f->base & 7));
	}
	memcpy(p, f->filler, 16);
	memcpy(bytes, buf, 15);
}

void encode_plain(const struct template *t, u8 bytes[15])
{
	struct fields f = { .rex = t->rex, .reg = t->reg, .rm = t->rm, .aaa = t->aaa, .l = t->l };

	if (t->vsib) {
		f.sib = true;
		f.index = 2;
	}
	encode(t, &f, bytes);
}

/* A register number with those that the engine keeps elsewhere more often. */
static unsigned random_gpr(struct rng *r)
{
	static const u8 special[] = { RSP, R10, R11, R15, RBP, R12, R13,
				      RSI, RDI, RSP, R10, R11, R15 };

	return rng_chance(r, 50) ? special[rng_below(r, sizeof(special))] : rng_below(r, 16);
}

static void random_memory(struct fields *f, const struct template *t, struct rng *r)
{
	unsigned kind = rng_below(r, 12);

	f->base = random_gpr(r);
	f->index = t->vsib ? rng_below(r, t->encoding == EVEX ? 32 : 16) : random_gpr(r);
	f->scale = rng_below(r, 4);
	f->mod = rng_below(r, 3);
	f->sib = t->vsib || kind >= 6;
	if (f->index == RSP && !t->vsib)
		f->index = R12;
	if (kind == 0 && !t->vsib) { /* relative to RIP */
		f->mod = 0;
		f->base = 5;
	} else if (kind == 1 && !t->vsib) { /* no register at all */
		f->sib = true;
		f->mod = 0;
		f->base = 5;
		f->index = 4;
	} else if (kind == 11 && !t->vsib) { /* no base */
		f->mod = 0;
		f->base = 5;
	} else if ((f->base & 7) == 5 && !f->mod) {
		f->mod = 1;
	}
	if ((f->base & 7) == 4 && !f->sib) {
		f->sib = true;
		f->index = 4;
	}
}

static u8 random_segment(struct rng *r)
{
	static const u8 segs[] = { 0x64, 0x65, 0x64, 0x65, 0x2e, 0x36, 0x3e, 0x26 };

	return rng_chance(r, 80) ? 0 : segs[rng_below(r, sizeof(segs))];
}

static void random_fields(struct fields *f, const struct template *t, struct rng *r)
{
	unsigned wide = t->encoding == EVEX ? 32 : 16;

	memset(f, 0, sizeof(*f));
	f->seg = random_segment(r);
	f->p67 = rng_chance(r, 12);
	f->rex = t->rex || rng_chance(r, 10);
	f->reg = t->reg;
	f->rm = t->rm;
	if (rng_chance(r, 80))
		f->reg = rng_chance(r, 60) ? random_gpr(r) : rng_below(r, wide);
	if (rng_chance(r, 80))
		f->rm = rng_chance(r, 60) ? random_gpr(r) : rng_below(r, wide);
	if (rng_chance(r, 70))
		f->vvvv = rng_chance(r, 50) ? random_gpr(r) : rng_below(r, wide);
	f->aaa = t->aaa ? 1 + rng_below(r, 7) : 0;
	f->l = t->encoding == EVEX && t->b && !t->mem ? rng_below(r, 4) : t->l; /* rounding */
	if (t->mem)
		random_memory(f, t, r);
	for (unsigned i = 0; i < 16; i++)
		f->filler[i] = rng_next(r);
}

static void write_le(u8 *p, u64 v, unsigned n)
{
	memcpy(p, &v, n);
}

static u64 segment_base(const struct testcase *c)
{
	if (c->zi.attributes & ZYDIS_ATTRIB_HAS_SEGMENT_FS)
		return c->fs_base;
	return c->zi.attributes & ZYDIS_ATTRIB_HAS_SEGMENT_GS ? c->gs_base : 0;
}

/* Displacements of operands whose address no register gives, and small ones elsewhere. */
static void set_displacement(struct testcase *c, const struct template *t)
{
	unsigned off = c->zi.raw.disp.offset, n = c->zi.raw.disp.size / 8;
	bool has_modrm = c->zi.attributes & ZYDIS_ATTRIB_HAS_MODRM,
	     sib = has_modrm && c->zi.raw.modrm.rm == 4;
	bool is_rip = has_modrm && c->zi.raw.modrm.mod == 0 && c->zi.raw.modrm.rm == 5;
	bool bare = sib && !c->zi.raw.modrm.mod && c->zi.raw.sib.base == 5 &&
		    c->zi.raw.sib.index == 4 && !c->zi.raw.sib.scale;
	bool no_index =
		sib && !c->zi.raw.modrm.mod && c->zi.raw.sib.base == 5 && c->zi.raw.sib.index == 4;
	u64 address = c->target - segment_base(c);

	if (!n)
		return;
	if (is_rip && t->mem)
		write_le(c->bytes + off, address - (c->at + c->zi.length), n);
	else if (bare || no_index || !has_modrm)
		write_le(c->bytes + off, address, n);
}

static void set_immediates(struct testcase *c, struct rng *r)
{
	static const u8 vectors[] = { 0, 1, 5, 6, 8, 13, 14, 0x20, 0x50, 0xff };

	for (unsigned i = 0; i < 2; i++) {
		unsigned off = c->zi.raw.imm[i].offset, n = c->zi.raw.imm[i].size / 8;

		if (!n)
			continue;
		write_le(c->bytes + off, rng_number(r), n);
		if (c->zi.raw.imm[i].is_relative)
			write_le(c->bytes + off,
				 c->tail[n == 1 ? 1 + rng_below(r, 2) : rng_below(r, TAILS)] -
					 (c->at + c->zi.length),
				 n);
		else if (c->zi.mnemonic ==
			 ZYDIS_MNEMONIC_INT) /* not 3, 4, 80h: those are the kernel's */
			c->bytes[off] = vectors[rng_below(r, sizeof(vectors))];
		else if (c->zi.mnemonic == ZYDIS_MNEMONIC_ENTER && i == 0)
			write_le(c->bytes + off, rng_below(r, 64), n);
	}
}

/* Places: the instruction somewhere in the first page, or across its end. */
static void choose_place(struct testcase *c, struct rng *r)
{
	static const u16 offsets[] = { 0x280, 0x400, 0x6f1, 0x800, 0xa33 };

	c->at = ARENA + CODE_OFF + offsets[rng_below(r, ARRAY_SIZE(offsets))];
	if (rng_chance(r, 8))
		c->at = ARENA + CODE_OFF + PAGE_SIZE - 1 - rng_below(r, 14);
	c->tail[TAIL_BACKWARD] = c->at - 0x70;
	c->tail[TAIL_FORWARD] = c->at + 0x70;
	c->tail[TAIL_FAR] = ARENA + CODE_OFF + 0x1800;
}

static void choose_bases(struct testcase *c, struct rng *r)
{
	static const u64 bases[] = { 0, 0x1000, 0x7000, 0x0fff0123, 0xfffffffffffff000ull };
	unsigned n = ARRAY_SIZE(bases) - !host_has_fsgsbase(); /* arch_prctl refuses the last */

	c->fs_base = bases[rng_below(r, n)];
	c->gs_base = bases[rng_below(r, n)];
	c->target = ARENA + DATA_OFF + 0x1000 + rng_below(r, 0x1800);
	if (rng_chance(r, 60))
		c->target &= ~63ull;
}

/* What reads or kills flags, and touches no register that could be an address. */
static const struct snippet {
	u8 n, bytes[7];
} before[] = {
	{ 3, { 0x48, 0x39, 0xc8 } }, /* cmp rax, rcx */
	{ 2, { 0x85, 0xd2 } }, /* test edx, edx */
	{ 1, { 0xf9 } }, /* stc */
	{ 1, { 0xf5 } }, /* cmc */
	{ 4, { 0x49, 0x83, 0xfa, 0x05 } }, /* cmp r10, 5 */
	{ 3, { 0x4d, 0x85, 0xff } }, /* test r15, r15 */
	{ 1, { 0x90 } },
}, behind[] = {
	{ 3, { 0x0f, 0x92, 0xc1 } }, /* setb cl */
	{ 3, { 0x0f, 0x94, 0xc4 } }, /* sete ah */
	{ 4, { 0x41, 0x0f, 0x90, 0xc2 } }, /* seto r10b */
	{ 3, { 0x48, 0x11, 0xd8 } }, /* adc rax, rbx */
	{ 3, { 0x4d, 0x19, 0xdf } }, /* sbb r15, r11 */
	{ 3, { 0x4c, 0x01, 0xc9 } }, /* add rcx, r9 */
	{ 3, { 0xd3, 0xc2, 0x90 } }, /* rol edx, cl */
	{ 3, { 0x48, 0xd1, 0xd2 } }, /* rcl rdx, 1 */
	{ 1, { 0x9f } }, /* lahf */
	{ 3, { 0x49, 0xff, 0xc3 } }, /* inc r11 */
	{ 4, { 0x48, 0x0f, 0x4a, 0xc2 } }, /* cmovp rax, rdx */
	{ 2, { 0x70, 0x00 } }, /* jo +0 */
	{ 2, { 0x7f, 0x00 } }, /* jg +0 */
	{ 1, { 0x9b } }, /* fwait */
};

/* Snippets that test no flag of @undefined. */
static unsigned fill(u8 *p, const struct snippet *s, unsigned n, unsigned count, u32 undefined,
		     struct rng *r)
{
	ZydisDecodedInstruction zi;
	ZydisDecodedOperand ops[ZYDIS_MAX_OPERAND_COUNT];
	unsigned len = 0;

	while (count--) {
		const struct snippet *k = &s[rng_below(r, n)];
		u8 bytes[15] = { 0 };

		memcpy(bytes, k->bytes, k->n);
		if (undefined && insn_decode(bytes, &zi, ops) && zi.cpu_flags &&
		    zi.cpu_flags->tested & undefined)
			continue;
		memcpy(p + len, k->bytes, k->n);
		len += k->n;
	}
	return len;
}

/* Where deferred x87 exceptions come: at a waiting instruction, perhaps behind what a function of the engine does. */
static void defer(struct testcase *c, struct rng *r)
{
	static const struct snippet helpers[] = {
		{ 5, { 0x8c, 0xc8, 0x0f, 0x00, 0xe0 } }, /* mov eax, cs; verr ax */
		{ 1, { 0xfc } }, /* cld */
	}, waiting[] = {
		{ 1, { 0x9b } }, /* fwait */
		{ 1, { 0x9b } },
		{ 2, { 0xd9, 0xd0 } }, /* fnop */
		{ 2, { 0x0f, 0x77 } }, /* emms */
		{ 7, { 0xd9, 0x24, 0x25, 0x40, 0x50, 0x00, 0x10 } }, /* fldenv [data + 40h] */
		{ 7, { 0xdd, 0x24, 0x25, 0x40, 0x50, 0x00, 0x10 } }, /* frstor [data + 40h] */
	};
	u8 *p = c->behind + c->nbehind;

	if (rng_chance(r, 40)) {
		p += fill(p, helpers, ARRAY_SIZE(helpers), 1, 0, r);
		c->past_helper = p - c->behind;
	}
	p += fill(p, waiting, ARRAY_SIZE(waiting), 1, 0, r);
	c->nbehind = p - c->behind;
}

static void surround(struct testcase *c, struct rng *r)
{
	u32 undefined = c->zi.cpu_flags ? c->zi.cpu_flags->undefined : 0;

	c->nbefore = c->nbehind = 0;
	if (rng_chance(r, 65) && !testcase_is_loose(c)) {
		c->nbefore = fill(c->before, before, ARRAY_SIZE(before), rng_below(r, 4), 0, r);
		c->nbehind =
			fill(c->behind, behind, ARRAY_SIZE(behind), rng_below(r, 5), undefined, r);
	}
	if (c->zi.meta.category == ZYDIS_CATEGORY_X87_ALU && rng_chance(r, 50))
		defer(c, r);
	c->start = c->at - c->nbefore;
	c->tail[TAIL_BEHIND] = c->at + c->zi.length + c->nbehind;
}

/*
 * A hypervisor of a host without FSGSBASE was seen to run CLZERO with a base that FS or GS had before, which clears
 * memory of the test itself: there it gets no override but one that does nothing.
 */
static void overrides_avoid(struct testcase *c)
{
	if (c->zi.mnemonic != ZYDIS_MNEMONIC_CLZERO || host_has_fsgsbase())
		return;
	for (unsigned i = 0; i < c->zi.raw.prefix_count; i++)
		if (c->bytes[i] == 0x64 || c->bytes[i] == 0x65)
			c->bytes[i] = 0x3e;
	insn_decode(c->bytes, &c->zi, c->ops);
}

void testcase_make(struct testcase *c, const struct form *form, struct rng *r)
{
	struct fields f;
	bool ok = false;

	memset(c, 0, sizeof(*c));
	c->form = form;
	choose_place(c, r);
	choose_bases(c, r);
	for (unsigned i = 0; i < 40 && !ok; i++) {
		random_fields(&f, &form->t, r);
		encode(&form->t, &f, c->bytes);
		ok = insn_decode(c->bytes, &c->zi, c->ops) &&
		     form_key(&form->t, &c->zi, c->ops) == form->key;
	}
	if (!ok) {
		encode_plain(&form->t, c->bytes);
		insn_decode(c->bytes, &c->zi, c->ops);
	}
	surround(c, r);
	set_displacement(c, &form->t);
	set_immediates(c, r);
	insn_decode(c->bytes, &c->zi, c->ops);
	overrides_avoid(c);
}

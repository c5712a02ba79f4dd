/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Byte patcher: keeps prefixes, opcode and immediates, rebuilds REX, VEX or EVEX, ModRM. */
#include "engine/x86/patch.h"

static unsigned slot_reg(const struct patch *p, enum gpr_slot slot, unsigned old)
{
	return p->slot[slot] == PATCH_KEEP ? old : p->slot[slot];
}

/* Outside 64-bit mode 66h means the other default size, which may be the host's default. */
static bool wants_66(const struct decoded *d, bool seen)
{
	if (d->insn.mode64 || d->state != STATE_NONE || d->mandatory_66)
		return seen;
	return d->insn.opsize == 2;
}

/*
 * Each prefix once, and of REP and REPNE the last, which is the one that counts: what takes their place may be longer, and the
 * whole has 15 bytes at most. Segments and address sizes are in the address; REX comes anew.
 */
static void emit_prefixes(struct emit *e, const struct decoded *d)
{
	unsigned end = d->opcode_off - (d->rex ? 1 : 0);
	bool lock = false, narrow = false;
	u8 rep = 0;

	for (unsigned i = 0; i < end; i++) {
		u8 b = d->insn.bytes[i];

		lock |= b == 0xf0;
		narrow |= b == 0x66;
		if (b == 0xf2 || b == 0xf3)
			rep = b;
	}
	if (lock)
		emit8(e, 0xf0);
	if (rep)
		emit8(e, rep);
	if (wants_66(d, narrow))
		emit8(e, 0x66);
}

static void emit_modrm(struct emit *e, const struct decoded *d, const struct patch *p, unsigned reg,
		       unsigned rm)
{
	if (p->base == PATCH_KEEP)
		emit8(e, 0xc0 | (reg & 7) << 3 | (rm & 7));
	else if (p->index == PATCH_KEEP)
		emit_modrm_disp(e, reg, p->base, p->disp, d->enc == ENC_EVEX);
	else /* EVEX multiplies a displacement of one byte */
		emit_modrm_index(e, reg, p->base, p->index, p->shift, p->disp, d->enc == ENC_EVEX);
	emit_bytes(e, d->insn.bytes + d->imm_off, d->insn.len - d->imm_off);
}

static bool index_is_high(const struct patch *p)
{
	return p->base != PATCH_KEEP && p->index != PATCH_KEEP && p->index > 7;
}

static void emit_rex_for(struct emit *e, const struct decoded *d, const struct patch *p,
			 unsigned reg, unsigned rm)
{
	u8 rex = (d->rex & 8) | (reg >> 3) << 2 | index_is_high(p) << 1 | rm >> 3;

	if (d->rex || rex) {
		leaf_assert(!d->uses_high);
		emit8(e, 0x40 | rex);
	}
}

/* MOV AL/AX/EAX/RAX to and from an absolute address has no ModRM. */
static void patch_moffs(struct emit *e, const struct decoded *d, const struct patch *p)
{
	static const u8 with_modrm[4] = { 0x8a, 0x8b, 0x88, 0x89 };

	emit_rex_for(e, d, p, 0, p->base);
	emit8(e, with_modrm[d->insn.opcode & 3]);
	leaf_assert(p->index == PATCH_KEEP);
	emit_modrm_base(e, 0, p->base, 0);
}

static void patch_opcode_reg(struct emit *e, const struct decoded *d, const struct patch *p)
{
	const struct x86_insn *insn = &d->insn;
	unsigned reg = slot_reg(p, SLOT_OPCODE, insn->reg);
	bool named = false;

	for (unsigned i = 0; i < d->ngpr; i++)
		named |= d->gpr[i].slot == SLOT_OPCODE;
	if (!insn->mode64 && insn->opcode >= 0x40 && insn->opcode <= 0x4f &&
	    d->imm_off - d->opcode_off == 1) {
		/* INC and DEC of one byte are REX prefixes in 64-bit mode. */
		emit_rex_for(e, d, p, 0, reg);
		emit8(e, 0xff);
		emit8(e, (insn->opcode >= 0x48 ? 0xc8 : 0xc0) | (reg & 7));
		return;
	}
	emit_rex_for(e, d, p, 0, named ? reg : 0);
	emit_bytes(e, insn->bytes + d->opcode_off, d->imm_off - d->opcode_off - 1);
	emit8(e, named ? (insn->opcode & ~7) | (reg & 7) : insn->opcode);
	emit_bytes(e, insn->bytes + d->imm_off, insn->len - d->imm_off);
}

static void patch_legacy(struct emit *e, const struct decoded *d, const struct patch *p)
{
	const struct x86_insn *insn = &d->insn;
	unsigned reg = slot_reg(p, SLOT_REG, insn->reg);
	unsigned rm = p->base != PATCH_KEEP ? p->base : slot_reg(p, SLOT_RM, insn->rm);

	emit_prefixes(e, d);
	if (!d->has_modrm) {
		if (insn->has_mem)
			patch_moffs(e, d, p);
		else
			patch_opcode_reg(e, d, p);
		return;
	}
	emit_rex_for(e, d, p, reg, rm);
	emit_bytes(e, insn->bytes + d->opcode_off, d->modrm_off - d->opcode_off - 1);
	emit8(e, !insn->mode64 && d->modrm_off - d->opcode_off == 1 && insn->opcode == 0x82
			 ? 0x80
			 : insn->opcode);
	emit_modrm(e, d, p, reg, rm);
}

static void patch_vex(struct emit *e, const struct decoded *d, const struct patch *p)
{
	const u8 *b = d->insn.bytes + d->opcode_off;
	bool two = b[0] == 0xc5;
	u8 p1 = two ? (b[1] & 0x80) | 0x61 : b[1], p2 = two ? b[1] & 0x7f : b[2];
	unsigned reg = ((d->insn.modrm >> 3) & 7) | (p1 & 0x80 ? 0 : 8);
	unsigned rm = (d->insn.modrm & 7) | (p1 & 0x20 ? 0 : 8);

	reg = slot_reg(p, SLOT_REG, reg);
	rm = p->base != PATCH_KEEP ? p->base : slot_reg(p, SLOT_RM, rm);
	if (p->slot[SLOT_VVVV] != PATCH_KEEP)
		p2 = (p2 & ~0x78) | (~p->slot[SLOT_VVVV] & 15) << 3;
	p1 &= p->base != PATCH_KEEP ? 0x1f : 0x5f;
	p1 |= (reg & 8 ? 0 : 0x80) | (rm & 8 ? 0 : 0x20) |
	      (p->base != PATCH_KEEP && !index_is_high(p) ? 0x40 : 0);
	emit8(e, 0xc4);
	emit8(e, p1);
	emit8(e, p2);
	emit8(e, d->insn.opcode);
	if (d->has_modrm) /* VZEROUPPER has none */
		emit_modrm(e, d, p, reg, rm);
}

static void patch_evex(struct emit *e, const struct decoded *d, const struct patch *p)
{
	const u8 *b = d->insn.bytes + d->opcode_off;
	u8 p0 = b[1];
	unsigned reg = ((d->insn.modrm >> 3) & 7) | (p0 & 0x80 ? 0 : 8);
	unsigned rm = (d->insn.modrm & 7) | (p0 & 0x20 ? 0 : 8);

	reg = slot_reg(p, SLOT_REG, reg);
	rm = p->base != PATCH_KEEP ? p->base : slot_reg(p, SLOT_RM, rm);
	p0 &= p->base != PATCH_KEEP ? 0x1f : 0x5f;
	p0 |= (reg & 8 ? 0 : 0x80) | (rm & 8 ? 0 : 0x20) |
	      (p->base != PATCH_KEEP && !index_is_high(p) ? 0x40 : 0);
	emit8(e, 0x62);
	emit8(e, p0);
	emit8(e, b[2]);
	emit8(e, b[3]);
	emit8(e, d->insn.opcode);
	emit_modrm(e, d, p, reg, rm);
}

void patch_emit(struct emit *e, const struct decoded *d, const struct patch *p)
{
	switch (d->enc) {
	case ENC_VEX:
		patch_vex(e, d, p);
		break;
	case ENC_EVEX:
		patch_evex(e, d, p);
		break;
	default:
		patch_legacy(e, d, p);
		break;
	}
}

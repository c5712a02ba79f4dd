/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Instructions that the host executes itself: registers renamed, memory operand replaced. */
#include "engine/x86/translate.h"

/* Registers that an instruction can be lent when T0 and T1 do not suffice; PC_LENT bits in this order. */
static const u8 lendable[3] = { RSI, RDI, RBP };

struct pool {
	u8 free[5]; /* scratch registers left, taken from the end */
	unsigned n;
	u8 lent; /* bits: lendable[] that must be given back */
};

static bool names(const struct decoded *d, unsigned guest)
{
	if (d->insn.has_mem && d->insn.base == guest) /* it may still be a part of the address */
		return true;
	for (unsigned k = 0; k < d->ngpr; k++)
		if (d->gpr[k].reg == guest)
			return true;
	return false;
}

static unsigned pool_take(struct tr *t, struct pool *p, const struct decoded *d, bool low)
{
	if (!low && p->n) {
		if (p->free[p->n - 1] == T0)
			t->window.valid = false;
		return p->free[--p->n];
	}
	for (unsigned k = 0; k < ARRAY_SIZE(lendable); k++) {
		if (p->lent & BIT(k) || names(d, lendable[k]))
			continue;
		p->lent |= BIT(k);
		emit_store_gs(&t->e, lendable[k], GS(lent[k]));
		return lendable[k];
	}
	leaf_assert(false); /* an instruction names no more registers than x86 has slots */
	return T1;
}

static void pool_return(struct tr *t, const struct pool *p)
{
	for (unsigned k = 0; k < ARRAY_SIZE(lendable); k++)
		if (p->lent & BIT(k))
			emit_load_gs(&t->e, lendable[k], GS(lent[k]));
}

/* Whether the flags must be the guest's when the instruction runs. Those that it leaves undefined may be those that it found. */
static bool needs_flags(const struct tr *t, unsigned i)
{
	const struct decoded *d = &t->d[i];
	bool exact = t->form != FORM_FAST || t->v->engine->options.exact;

	return d->fl_read || (d->fl_write && (exact || t->live_in[i + 1] & ~d->fl_write));
}

/* The first operand that names the register of operand @k: MULX writes one register twice in a certain order. */
static unsigned twin_of(const struct decoded *d, unsigned k)
{
	unsigned j = 0;

	while (d->gpr[j].reg != d->gpr[k].reg)
		j++;
	return j;
}

/* FNSTCW and FNSTSW: the memory forms of x87 that do not look for pending exceptions. */
static bool is_fn(const struct decoded *d)
{
	return d->state == STATE_X87 && (d->insn.opcode == 0xd9 || d->insn.opcode == 0xdd) &&
	       (d->insn.modrm >> 3 & 7) == 7;
}

void tr_native(struct tr *t, unsigned i)
{
	const struct decoded *d = &t->d[i];
	struct patch patch = {
		{ PATCH_KEEP, PATCH_KEEP, PATCH_KEEP, PATCH_KEEP }, PATCH_KEEP, PATCH_KEEP, 0, 0
	};
	struct mem_ref ref = { PATCH_KEEP, PATCH_KEEP, 0 };
	struct pool pool = { { 0 }, 0, 0 };
	u8 scratch[ARRAY_SIZE(d->gpr)];
	unsigned twin;

	if (d->insn.has_mem && (d->state == STATE_X87 || d->state == STATE_MMX) && !is_fn(d))
		emit8(&t->e,
		      0x9b); /* fwait: a pending exception comes before whatever the address does */
	if (d->insn.has_mem)
		ref = tr_operand(t, i);
	if (ref.base == T1 && needs_flags(t, i) && t->flags == FLAGS_SAVED)
		t->window.valid = false;
	if (needs_flags(t, i))
		tr_flags_need(t, ref.base == T1 ? T0 : T1);
	if (ref.base != T0)
		pool.free[pool.n++] = T0;
	if (ref.base != T1)
		pool.free[pool.n++] = T1;
	for (unsigned k = 0; k < d->ngpr; k++) {
		unsigned guest = d->gpr[k].reg;

		scratch[k] = host_of[guest];
		/* RSP beside AH..BH: its host register would need REX. */
		if (scratch[k] == IN_MEMORY && (twin = twin_of(d, k)) < k) {
			scratch[k] = scratch[twin];
		} else if (scratch[k] == IN_MEMORY || (d->uses_high && scratch[k] > 7)) {
			scratch[k] = pool_take(t, &pool, d, d->uses_high);
			tr_gpr_load(t, scratch[k], guest);
		}
		patch.slot[d->gpr[k].slot] = d->gpr[k].high ? scratch[k] + 4 : scratch[k];
	}
	if (d->insn.has_mem) {
		patch.base = ref.base;
		patch.index = ref.index;
		patch.disp = ref.disp;
		if (d->uses_high) {
			patch.base = pool_take(t, &pool, d, true);
			emit_mov(&t->e, patch.base, ref.base);
		}
	}
	if (d->insn.has_mem)
		tr_pc_access(t, i, pool.lent);
	else
		tr_pc(t, i, pool.lent);
	patch_emit(&t->e, d, &patch);
	if (pool.lent)
		tr_pc(t, i, 0);
	for (unsigned k = 0; k < d->ngpr; k++)
		if (scratch[k] != host_of[d->gpr[k].reg] && d->gpr[k].rw & INSN_WRITE)
			tr_gpr_store(t, d->gpr[k].reg, scratch[k]);
	pool_return(t, &pool);
	if (d->fl_write)
		t->flags = FLAGS_HOST;
	tr_window_after(t, i);
}

void tr_lea(struct tr *t, unsigned i)
{
	const struct x86_insn *insn = &t->d[i].insn;
	unsigned dst = t->d[i].gpr[0].reg;

	if (t->form == FORM_FAST && insn->base < 16 && host_of[insn->base] != IN_MEMORY &&
	    (insn->index == INSN_NO_REG || host_of[insn->index] != IN_MEMORY) &&
	    insn->adsize == 8 && insn->opsize >= 4 && host_of[dst] != IN_MEMORY) {
		emit_lea(&t->e, host_of[dst], host_of[insn->base],
			 insn->index == INSN_NO_REG ? EMIT_NO_REG : host_of[insn->index],
			 insn->scale, insn->disp, insn->opsize);
		tr_window_after(t, i);
		return;
	}
	tr_effective(t, i);
	if (insn->opsize == 2) { /* mov dst16, r10w keeps the rest */
		tr_gpr_load(t, T1, dst);
		emit_bytes(&t->e, (const u8[]){ 0x66, 0x45, 0x89, 0xf7 }, 4); /* mov r11w, r10w */
		tr_gpr_store(t, dst, T1);
		return;
	}
	if (insn->opsize == 4)
		emit_mov32(&t->e, T0, T0);
	tr_gpr_store(t, dst, T0);
}

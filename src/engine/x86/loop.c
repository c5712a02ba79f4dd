/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Loops: a block that jumps back to its own start has a second body, for rounds in which no address leaves its range. */
#include "base/bulk.h"
#include "engine/x86/translate.h"

/*
 *	first:	movsd xmm0, [rdx]		each access checked, as in any block
 *		add   rdx, 8
 *		cmp   rdx, rcx
 *		je    exit
 *		dec   byte gs:[wait]; jne first
 *		kick? how many rounds does each address stay in its range of the register cache?
 *		bound = rdx + rounds * 8;  r8 = host - linear address (the guest's r8 is in memory meanwhile)
 *	second:	cmp   rdx, gs:[bound]; je first	the only check of a round, and its poll
 *		movsd xmm0, [r8 + rdx]
 *		add   rdx, 8
 *		cmp   rdx, rcx
 *		jne   second
 *		give r8 back; je exit, by way of the first body's jump
 *
 * An operand whose registers move by constants is known for all rounds to come once it is known for one: its *group* holds
 * what is added to them for the host address in a register that the loop does not name. Operands of another kind are
 * checked in each round: those whose address cannot be foreseen by the register cache, those that leave a page every few
 * rounds (LOOP_FAR) by the TLB, since the range would be another one each time and the jump a guess. What needs C leaves for
 * the same instruction of the first body. R13-R15 of the guest, where the loop names them, are in registers too.
 *
 * Between two polls lie at most LOOP_MOST rounds. The second body holds no tag that a poll could take away: what is asked
 * of the vCPU is done after the first body's jump back or a dispatch, and then all is computed anew. The block itself cannot
 * be killed in between, since a store to code has no tag; that is why its jumps to itself need no link.
 *
 * The check at the head needs the flags to be dead there, so a loop whose flags live on around the jump has no second body.
 */

#define LOOP_MOST  512
#define LOOP_LEAST 4	/* rounds that are worth the way there */
#define LOOP_SPAN  2048 /* bytes that a group accesses in one round */
#define LOOP_NEAR  512	/* what moves by more is LOOP_FAR */
/* Rounds until the next try: of a loop that is long; when a range has come to its end; of a short loop. */
#define WAIT_LONG  2
#define WAIT_EDGE  4
#define WAIT_SHORT 250

/* Named by no instruction without a trace in struct decoded, but by string instructions, which are no part of a loop. */
static const u8 lendable[] = { R8, R9, R10, R11, R12, RDI, RSI, RBP };

static bool mem_is_simple(const struct x86_insn *insn)
{
	return insn->modrm >> 6 != 3 && insn->adsize == 8 && insn->seg < SEG_FS &&
	       !insn->mask_kind && insn->memsize && insn->memsize <= 64 &&
	       insn->disp == (s32)insn->disp;
}

static bool is_simple(const struct decoded *d)
{
	const struct x86_insn *insn = &d->insn;

	if (d->cls == CLS_NOP)
		return true;
	if (d->cls == CLS_LEA)
		return insn->opsize >= (insn->base == INSN_RIP ? 8 : 4) && insn->adsize == 8 &&
		       insn->disp == (s32)insn->disp;
	return d->cls == CLS_NATIVE && !d->uses_high && d->state != STATE_X87 &&
	       d->state != STATE_MMX && !insn->bit_offset &&
	       (!insn->has_mem || (d->has_modrm && mem_is_simple(insn)));
}

/* What registers do in one round. */
struct motion {
	u16 named, written, varies;
	s64 now[16];   /* added since the head */
	s64 round[16]; /* added by a round */
};

static void motion_find(const struct tr *t, struct motion *m)
{
	s64 add;

	bulk_zero(m, sizeof(*m));
	for (unsigned i = 0; i < t->n - 1; i++) {
		const struct decoded *d = &t->d[i];

		for (unsigned k = 0; k < d->ngpr; k++)
			m->named |= BIT(d->gpr[k].reg);
		if ((d->insn.has_mem || d->cls == CLS_LEA) && d->insn.base < 16)
			m->named |= BIT(d->insn.base);
		if ((d->insn.has_mem || d->cls == CLS_LEA) && d->insn.index < 16)
			m->named |= BIT(d->insn.index);
		m->written |= d->gpr_written;
		for (unsigned r = 0; r < 16; r++) {
			if (!(d->gpr_written & BIT(r)))
				continue;
			if (tr_moves_by_constant(d, r, &add))
				m->round[r] += add;
			else
				m->varies |= BIT(r);
		}
	}
	m->named |= m->written;
}

static void motion_step(const struct decoded *d, struct motion *m)
{
	s64 add;

	for (unsigned r = 0; r < 16; r++)
		if (d->gpr_written & BIT(r) && tr_moves_by_constant(d, r, &add))
			m->now[r] += add;
}

/*
 * The host operand is [reg + one register + disp]: the other one, which must not change, is in reg. False when the
 * address cannot be foreseen.
 */
static bool operand_moves(const struct motion *m, const struct x86_insn *insn, s64 *stride)
{
	u16 base = insn->base < 16 ? BIT(insn->base) : 0,
	    index = insn->index < 16 ? BIT(insn->index) : 0;

	if ((base | index) & m->varies || (base & m->written && index & m->written))
		return false;
	*stride = (base ? m->round[insn->base] : 0) +
		  (index ? m->round[insn->index] * insn->scale : 0);
	return true;
}

/* Put operand @i, whose address at the head is its group's registers plus @at, into a group. */
static bool group_join(struct tr *t, unsigned i, s64 at, s64 stride)
{
	const struct x86_insn *insn = &t->d[i].insn;
	struct loop *l = &t->loop;
	s64 end = at + insn->memsize;
	struct loop_group *g = l->group;

	for (; g < l->group + l->ngroups; g++) {
		s64 lo = at < g->lo ? at : g->lo, hi = end > g->hi ? end : g->hi;

		if (g->base != insn->base || g->index != insn->index || g->scale != insn->scale ||
		    hi - lo > LOOP_SPAN)
			continue;
		g->lo = lo;
		g->hi = hi;
		break;
	}
	if (g == l->group + LOOP_GROUPS)
		return false;
	if (g == l->group + l->ngroups) {
		l->ngroups++;
		*g = (struct loop_group){ .base = insn->base,
					  .index = insn->index,
					  .scale = insn->scale,
					  .lo = at,
					  .hi = end,
					  .stride = stride };
	}
	g->write |= insn->access & INSN_WRITE;
	l->of[i] = g - l->group;
	l->at[i] = at;
	return g->lo == (s32)g->lo && g->hi == (s32)g->hi;
}

/* What serves the operand of instruction @i in the second body; false: nothing can. */
static bool operand_plan(struct tr *t, unsigned i, const struct motion *m)
{
	const struct x86_insn *insn = &t->d[i].insn;
	struct loop *l = &t->loop;
	s64 stride, at = insn->disp;

	l->of[i] = LOOP_CHECKED;
	if (operand_moves(m, insn, &stride)) {
		if (insn->base == INSN_RIP)
			at += t->off[i] + insn->len;
		else if (insn->base < 16)
			at += m->now[insn->base];
		if (insn->index < 16)
			at += m->now[insn->index] * insn->scale;
		if (stride >= -LOOP_NEAR && stride <= LOOP_NEAR)
			return group_join(t, i, at, stride);
		l->of[i] = LOOP_FAR;
	}
	return !t->live_in[i] && tr_size_fits(insn->memsize);
}

/* Host registers for the groups and for R13-R15. */
static bool homes_find(struct loop *l, const struct motion *m)
{
	unsigned next = 0;

	for (unsigned r = 0; r < 16; r++)
		l->home[r] = host_of[r];
	for (unsigned k = 0; k < l->ngroups + 3; k++) {
		bool grouped = k < l->ngroups;
		unsigned guest = R13 + k - l->ngroups;

		if (!grouped && !(m->named & BIT(guest)))
			continue;
		while (next < ARRAY_SIZE(lendable) && m->named & BIT(lendable[next]))
			next++;
		if (next == ARRAY_SIZE(lendable))
			return false;
		if (grouped)
			l->group[k].reg = lendable[next];
		else
			l->home[guest] = lendable[next];
		if (!grouped && m->written & BIT(guest))
			l->stored |= BIT(guest);
		l->lent |= BIT(lendable[next++]);
	}
	return true;
}

static bool mover_find(struct loop *l, const struct motion *m)
{
	for (unsigned r = 0; r < 16; r++) {
		s64 step = m->round[r];

		if (m->varies & BIT(r) || !step || step < -(1 << 20) || step > 1 << 20)
			continue;
		l->mover = r;
		l->step = step;
		return true;
	}
	return false;
}

static bool plan(struct tr *t)
{
	const struct decoded *last = &t->d[t->n - 1];
	struct loop *l = &t->loop;
	struct motion m;

	if (last->cls != CLS_BRANCH || last->branch != BR_JCC || t->n < 2 || t->live_in[0] ||
	    t->off[t->n - 1] + last->insn.len + (s64)last->insn.imm != t->off[0] ||
	    last->insn.opsize == 2)
		return false;
	for (unsigned i = 0; i < t->n - 1; i++)
		if (!is_simple(&t->d[i]))
			return false;
	motion_find(t, &m);
	for (unsigned i = 0; i < t->n - 1; i++) {
		if (t->d[i].cls == CLS_NATIVE && t->d[i].insn.has_mem && !operand_plan(t, i, &m))
			return false;
		motion_step(&t->d[i], &m);
	}
	return l->ngroups && mover_find(l, &m) && homes_find(l, &m);
}

void tr_loop_plan(struct tr *t)
{
	const struct engine_options *o = &t->v->engine->options;
	struct loop *l = &t->loop;

	l->on = false;
	/* An exact block keeps flags that look dead; with counters each access counts. */
	if (!t->windows || !o->loops || o->verbose || t->b->exact || o->exact || t->straddles)
		return;
	l->ngroups = 0;
	l->lent = l->stored = 0;
	l->slot = (t->b->gpa >> 4) % LOOP_SLOTS;
	l->on = plan(t);
}

void tr_loop_at(struct tr *t, unsigned i)
{
	if (!t->loop.on)
		return;
	t->loop.body[i] = t->e.p;
	/* The second body may leave for here. */
	if (i < t->n - 1 && t->d[i].insn.has_mem && t->loop.of[i] >= LOOP_FAR &&
	    t->d[i].cls == CLS_NATIVE)
		t->window.valid = false;
}

/* T0 = address of what the group accesses first, at the head. */
static void emit_address(struct tr *t, const struct loop_group *g)
{
	struct emit *e = &t->e;
	unsigned base = EMIT_NO_REG, index = EMIT_NO_REG;

	if (g->base == INSN_RIP) {
		emit_load_gs(e, T0, GS(rip_page));
		base = T0;
	} else if (g->base < 16) {
		base = host_of[g->base] == IN_MEMORY ? T0 : host_of[g->base];
		if (base == T0)
			tr_gpr_load(t, T0, g->base);
	}
	if (g->index < 16) {
		index = host_of[g->index] == IN_MEMORY ? T1 : host_of[g->index];
		if (index == T1)
			tr_gpr_load(t, T1, g->index);
	}
	emit_lea(e, T0, base, index, g->scale, g->lo, 8);
}

/* T1 /= @by, rounded down or one less; it is below 2^31. */
static void emit_divide(struct emit *e, u64 by)
{
	if (!(by & (by - 1))) {
		if (by > 1)
			emit_shift(e, true, SHIFT_SHR, T1, __builtin_ctzll(by));
		return;
	}
	emit_imul_imm(e, T1, (1ull << 32) / by);
	emit_shift(e, true, SHIFT_SHR, T1, 32);
}

#define FAILS_MAX (LOOP_GROUPS * 2 + 2)
struct fails {
	u8 *site[FAILS_MAX];
	unsigned n;
};

static void fail_if(struct tr *t, struct fails *f, enum cc cc)
{
	f->site[f->n++] = emit_jcc(&t->e, cc);
}

/* loop_more becomes at most the rounds that the group's addresses stay in the range, less one. */
static void emit_rounds(struct tr *t, const struct loop_group *g, struct fails *f)
{
	struct emit *e = &t->e;
	u8 *less;

	emit_address(t, g);
	emit_alu_gs(e, ALU_XOR, T0, RC(g->table, tag, g->entry));
	emit_load_gs(e, T1, RC(g->table, limit, g->entry));
	emit_alu(e, ALU_CMP, T0, T1);
	fail_if(t, f, CC_AE);
	emit_alu(e, ALU_SUB, T1, T0);
	emit_alu_imm(e, true, ALU_ADD, T1, (s32)rc_room(g->entry) - (s32)(g->hi - g->lo));
	fail_if(t, f, CC_S);
	if (!g->stride)
		return;
	if (g->stride < 0)
		emit_mov(e, T1, T0);
	emit_divide(e, g->stride < 0 ? -g->stride : g->stride);
	emit_alu_gs(e, ALU_CMP, T1, GS(loop_more));
	less = emit_jcc8(e, 0x73); /* jae */
	emit_store_gs(e, T1, GS(loop_more));
	emit_patch8(e, less);
}

/* The group's register. Flags are clobbered. */
static void emit_group(struct tr *t, const struct motion *m, const struct loop_group *g)
{
	struct emit *e = &t->e;
	unsigned part = g->index < 16 && g->base < 16
				? (m->written & BIT(g->base) ? g->index : g->base)
				: INSN_NO_REG,
		 reg;

	if (g->index >= 16 && g->base >= 16) { /* the address itself */
		emit_address(t, g);
		emit_alu_gs(e, ALU_ADD, T0, RC(g->table, delta, g->entry));
		emit_mov(e, g->reg, T0);
		return;
	}
	emit_load_gs(e, g->reg, RC(g->table, delta, g->entry));
	if (part == INSN_NO_REG)
		return;
	reg = host_of[part];
	if (reg == IN_MEMORY) {
		tr_gpr_load(t, T0, part);
		reg = T0;
	}
	emit_lea(e, g->reg, g->reg, reg, part == g->index ? g->scale : 1, 0, 8);
}

/* What of the guest is in registers that the second body uses; and what that keeps in others. */
static void emit_lend(struct tr *t)
{
	struct loop *l = &t->loop;
	struct motion m;

	motion_find(t, &m);
	for (unsigned r = 0; r < 16; r++)
		if (l->lent & BIT(r))
			emit_store_gs(&t->e, r, GS_GPR(r));
	for (unsigned k = 0; k < l->ngroups; k++)
		emit_group(t, &m, &l->group[k]);
	for (unsigned r = R13; r <= R15; r++)
		if (l->home[r] != IN_MEMORY)
			emit_load_gs(&t->e, l->home[r], GS_GPR(r));
}

/* And back. No flag is touched. */
static void emit_give_back(struct tr *t)
{
	const struct loop *l = &t->loop;
	u32 last = GS(loop_last) + 8 * l->slot;

	emit_store_gs(&t->e, l->home[l->mover], last);
	for (unsigned r = R13; r <= R15; r++)
		if (l->stored & BIT(r))
			emit_store_gs(&t->e, l->home[r], GS_GPR(r));
	for (unsigned r = 0; r < 16; r++)
		if (l->lent & BIT(r))
			emit_load_gs(&t->e, r, GS_GPR(r));
}

static u64 exec(const struct tr *t, const u8 *code)
{
	return (u64)code + t->e.delta;
}

static void emit_wait(struct tr *t, u8 rounds)
{
	emit_store8_gs_imm(&t->e, GS(loop_wait) + t->loop.slot, rounds);
}

void tr_loop_leave(struct tr *t, unsigned i)
{
	emit_wait(t, 1);
	emit_give_back(t);
	emit_jmp_to(&t->e, exec(t, t->loop.body[i]));
}

/* A loop that came to its end soon after the last try is short: no try for a while. */
static void emit_short(struct tr *t)
{
	const struct loop *l = &t->loop;
	u32 start = GS(loop_start) + 8 * l->slot, last = GS(loop_last) + 8 * l->slot;
	s32 progress = (s32)l->step * LOOP_LEAST;
	struct emit *e = &t->e;
	u8 *is_long;

	emit_load_gs(e, T0, last);
	emit_alu_gs(e, ALU_SUB, T0, start);
	emit_alu_imm(e, true, ALU_CMP, T0, progress);
	is_long = emit_jcc(e, progress > 0 ? CC_GE : CC_LE);
	emit_load_gs(e, T0, start);
	emit_lea(e, T0, T0, EMIT_NO_REG, 1, progress, 8);
	emit_store_gs(e, T0, last); /* the next time there is one */
	emit_wait(t, WAIT_SHORT);
	emit_jmp_to(e, exec(t, t->loop.body[0]));
	emit_patch(e, is_long);
}

/* From the first body to the second. */
static void emit_way(struct tr *t)
{
	const struct loop *l = &t->loop;
	struct emit *e = &t->e;
	struct fails f;
	u8 *go;

	f.n = 0; /* the sites stay as they are: clearing them would be a call of libc */
	emit_short(t);
	emit_wait(t, WAIT_LONG);
	emit_op_gs(e, true, 0xc7, 0, GS(loop_more));
	emit32(e, LOOP_MOST - 1);
	for (unsigned k = 0; k < l->ngroups; k++)
		emit_rounds(t, &l->group[k], &f);
	emit_load_gs(e, T1, GS(loop_more));
	emit_alu_imm(e, true, ALU_CMP, T1, LOOP_LEAST - 1);
	go = emit_jcc(e, CC_AE);
	for (unsigned k = 0; k < f.n; k++)
		emit_patch(e, f.site[k]);
	emit_wait(t, WAIT_EDGE);
	emit_jmp_to(e, exec(t, l->body[0]));
	emit_patch(e, go);
	emit_imul_imm(e, T1, l->step);
	tr_gpr_load(t, T0, l->mover);
	emit_store_gs(e, T0, GS(loop_start) + 8 * l->slot);
	emit_lea(e, T1, T1, T0, 1, l->step, 8);
	emit_store_gs(e, T1, GS(loop_bound));
	emit_lend(t);
}

static void body_lea(struct tr *t, unsigned i)
{
	const struct x86_insn *insn = &t->d[i].insn;
	const u8 *home = t->loop.home;
	unsigned dst = home[t->d[i].gpr[0].reg];

	if (insn->base == INSN_RIP) {
		emit_load_gs(&t->e, dst, GS(rip_page));
		emit_lea(&t->e, dst, dst, EMIT_NO_REG, 1, insn->disp + t->off[i] + insn->len, 8);
		return;
	}
	emit_lea(&t->e, dst, insn->base < 16 ? home[insn->base] : EMIT_NO_REG,
		 insn->index < 16 ? home[insn->index] : EMIT_NO_REG, insn->scale, insn->disp,
		 insn->opsize);
}

/* The registers hold the operand's address but for what the group's has. */
static void operand_grouped(const struct tr *t, unsigned i, const struct motion *m, struct patch *p)
{
	const struct x86_insn *insn = &t->d[i].insn;
	const struct loop_group *g = &t->loop.group[t->loop.of[i]];
	bool by_index = insn->index < 16 && !(insn->base < 16 && m->written & BIT(insn->base));

	p->base = g->reg;
	p->disp = insn->disp;
	if (by_index) {
		p->index = t->loop.home[insn->index];
		p->shift = __builtin_ctz(insn->scale);
	} else if (insn->base < 16) {
		p->index = t->loop.home[insn->base];
	} else {
		p->disp = t->loop.at[i] - g->lo;
	}
}

static void body_operand(struct tr *t, unsigned i, const struct motion *m, struct patch *p)
{
	const struct x86_insn *insn = &t->d[i].insn;
	const u8 *home = t->loop.home;
	bool far = t->loop.of[i] == LOOP_FAR;
	unsigned reg = far ? T0 : T1;

	if (t->loop.of[i] < LOOP_FAR) {
		operand_grouped(t, i, m, p);
		return;
	}
	emit_lea(&t->e, reg, insn->base < 16 ? home[insn->base] : EMIT_NO_REG,
		 insn->index < 16 ? home[insn->index] : EMIT_NO_REG, insn->scale, insn->disp, 8);
	tr_translate_loop(t, i, far);
	p->base = reg;
}

static void body_native(struct tr *t, unsigned i, const struct motion *m)
{
	const struct decoded *d = &t->d[i];
	struct patch p = {
		{ PATCH_KEEP, PATCH_KEEP, PATCH_KEEP, PATCH_KEEP }, PATCH_KEEP, PATCH_KEEP, 0, 0
	};

	for (unsigned k = 0; k < d->ngpr; k++)
		p.slot[d->gpr[k].slot] = t->loop.home[d->gpr[k].reg];
	if (d->insn.has_mem) {
		body_operand(t, i, m, &p);
		tr_pc_access(t, i, 0);
	} else {
		tr_pc(t, i, 0);
	}
	patch_emit(&t->e, d, &p);
}

/* The second body; @out: the jump to take when the rounds are used up. */
static void emit_second(struct tr *t, u8 **out)
{
	struct loop *l = &t->loop;
	struct motion m;
	u8 *head = t->e.p;

	motion_find(t, &m);
	t->flags = FLAGS_HOST;
	tr_pc(t, 0, 0);
	emit_alu_gs(&t->e, ALU_CMP, l->home[l->mover], GS(loop_bound));
	*out = emit_jcc(&t->e, CC_E);
	for (unsigned i = 0; i < t->n - 1; i++) {
		if (t->d[i].cls == CLS_LEA)
			body_lea(t, i);
		else if (t->d[i].cls == CLS_NATIVE)
			body_native(t, i, &m);
	}
	emit_jcc_to(&t->e, t->d[t->n - 1].cc, exec(t, head));
}

/* The register cache's entries that the first body uses. */
static bool entries_find(struct tr *t)
{
	struct loop *l = &t->loop;
	u16 found = 0;

	for (unsigned i = 0; i < t->n - 1; i++) {
		const struct slow_path *s = tr_check_of(t, i);
		bool has_mem = t->d[i].cls == CLS_NATIVE && t->d[i].insn.has_mem;

		if (has_mem && l->of[i] == LOOP_CHECKED && !s)
			return false;
		if (!has_mem || l->of[i] >= LOOP_FAR || !s || s->size_class < 0 ||
		    (l->group[l->of[i]].write && !s->write))
			continue;
		l->group[l->of[i]].entry = s->index;
		l->group[l->of[i]].table = s->table;
		found |= BIT(l->of[i]);
	}
	return found == BIT(l->ngroups) - 1;
}

bool tr_loop_back(struct tr *t)
{
	struct loop *l = &t->loop;
	struct loop_regs *regs;
	struct emit *e = &t->e;
	u8 *kick, *out;

	regs = entries_find(t) ? tr_alloc(t, sizeof(*regs)) : NULL;
	if (!regs)
		return false;
	emit_op_gs(e, false, 0xfe, 1, GS(loop_wait) + l->slot); /* dec byte */
	emit_jcc_to(e, CC_NE, exec(t, l->body[0]));
	emit_cmp16_gs_zero(e, GS(cpu.kick));
	kick = emit_jcc(e, CC_NE);
	emit_way(t);
	regs->from = e->p - t->c->code_w - t->b->code;
	emit_second(t, &out);
	regs->to = e->p - t->c->code_w - t->b->code;
	emit_give_back(t);
	emit_jmp_to(e, exec(t, l->branch));
	emit_patch(e, out);
	tr_loop_leave(t, 0);
	emit_patch(e, kick);
	emit_load_gs(e, T0, GS(rip_page));
	emit_lea(e, T0, T0, EMIT_NO_REG, 1, t->off[0], 8);
	emit_jmp_to(e, t->v->stubs.kick);
	for (unsigned r = 0; r < 16; r++)
		regs->home[r] = l->lent & BIT(r)	  ? IN_GPR
				: l->home[r] == IN_MEMORY ? IN_GPR
							  : l->home[r];
	t->b->loop = regs;
	return true;
}

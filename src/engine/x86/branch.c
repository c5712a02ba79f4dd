/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Stack instructions, control transfers and helpers in translated code. */
#include "cpu/x86/ops.h"
#include "engine/x86/translate.h"

void tr_helper(struct tr *t, unsigned i)
{
	struct x86_insn *rec = tr_record(t, i);

	t->window.valid = false; /* T0 is used up here, and the helper may lose tags */
	if (t->flags == FLAGS_HOST)
		emit_flags_save(&t->e, T0, GS_AFLAGS);
	emit_mov_imm64(&t->e, T1, (u64)rec);
	emit_call_to(&t->e, t->v->stubs.op);
	t->flags = FLAGS_SAVED;
}

void tr_raise(struct tr *t, unsigned i, unsigned vector, bool unknown)
{
	struct x86_insn *insn = &t->d[i].insn;

	insn->op = X86_OP_NONE;
	insn->has_mem = false; /* it never gets to its operand */
	insn->imm = vector;
	insn->imm2 = unknown;
	tr_helper(t, i);
}

/* T0 = guest RIP @off bytes behind the start of the page, cut to the mode. T1 is used up. */
static void emit_rip(struct tr *t, s64 off, unsigned opsize)
{
	unsigned size = t->mode & MODE_64 ? 8 : 4;

	emit_load_gs(&t->e, T0, GS(rip_page));
	if (off == (s32)off || size == 4) {
		emit_lea(&t->e, T0, T0, EMIT_NO_REG, 1, (s32)off, size);
	} else { /* almost 2 GiB ahead of the end of the page */
		emit_mov_imm64(&t->e, T1, off);
		emit_lea(&t->e, T0, T0, T1, 1, 0, size);
	}
	if (opsize == 2)
		emit_movzx16(&t->e, T0, T0);
}

static unsigned code_size(const struct tr *t)
{
	return t->mode & MODE_64 ? 8 : t->mode & MODE_32 ? 4 : 2;
}

/*
 * The branch cache in line, so that each site has its own indirect jump for the host to predict.
 * T0 = RIP; flags are saved. Entries are those of the block's mode, found at a fixed place.
 */
static void emit_branch_cache(struct tr *t, bool poll)
{
	struct emit *e = &t->e;
	u32 table = (u64)t->v->ibtc->e - (u64)t->v;

	if (poll) {
		emit_cmp16_gs_zero(e, GS(cpu.kick));
		emit_jcc_to(e, CC_NE, t->v->stubs.dispatch_c_saved);
	}
	emit_mov32(e, T1, T0);
	emit_shift(e, false, SHIFT_SHR, T1, IBTC_BITS);
	emit_alu(e, ALU_XOR, T1, T0);
	if ((t->mode & MODE_CPL) == 3)
		emit_alu_gs(e, ALU_XOR, T1, GS(ibtc_salt));
	emit_alu_imm(e, false, ALU_AND, T1, IBTC_SIZE - 1);
	emit_shift(e, false, SHIFT_SHL, T1, 4);
	emit_op_gs_base(e, true, ALU_CMP << 3 | 3, T0, T1,
			table + offsetof(struct ibtc_entry, rip));
	emit_jcc_to(e, CC_NE, t->v->stubs.near);
	emit_alu_imm(e, true, ALU_AND, T0, -(s32)PAGE_SIZE);
	emit_store_gs(e, T0, GS(rip_page));
	if (t->v->engine->options.verbose)
		emit_op_gs(e, true, 0xff, 0, GS(cached));				   /* inc */
	emit_op_gs_base(e, false, 0xff, 4, T1, table + offsetof(struct ibtc_entry, code)); /* jmp */
}

/* Leave for the RIP in T0; flags wherever they are. */
static void emit_dispatch(struct tr *t, bool poll)
{
	if (t->form == FORM_FAST) {
		if (t->flags == FLAGS_HOST)
			emit_flags_save(&t->e, T1, GS_AFLAGS);
		emit_branch_cache(t, poll);
		return;
	}
	emit_jmp_to(&t->e, t->flags == FLAGS_SAVED ? t->leave_at_saved : t->leave_at);
}

/* The displacement that was just emitted is that of an exit, to be linked to its target. */
static struct exit_link *exit_here(struct tr *t, u16 target_off)
{
	struct exit_link *l = &t->b->exit[t->nexits++];

	leaf_assert(t->nexits <= ARRAY_SIZE(t->b->exit));
	l->site = t->e.p - 4 - t->c->code_w;
	l->target_off = target_off;
	l->from = t->b;
	return l;
}

static void count_chained(struct tr *t)
{
	struct emit *e = &t->e;

	if (!t->v->engine->options.verbose)
		return;
	/* inc changes flags: lea through T0 */
	emit_load_gs(e, T0, GS(chained));
	emit_lea(e, T0, T0, EMIT_NO_REG, 1, 1, 8);
	emit_store_gs(e, T0, GS(chained));
}

static void emit_exit(struct tr *t, u16 target_off)
{
	count_chained(t);
	emit_jmp(&t->e);
	exit_here(t, target_off);
}

/*
 * A jump back with its poll, for a target that does not need the flags; exit_keep() is the other way. Which of them is taken
 * is decided when the exit is linked (cache_link()): the target's code may not even exist yet.
 */
static void emit_exit_poll(struct tr *t, u16 target_off)
{
	struct emit *e = &t->e;
	struct exit_link *l;
	u32 poll;

	count_chained(t);
	poll = e->p - t->c->code_w;
	emit_cmp16_gs_zero(e, GS(cpu.kick));
	emit_jcc(e, CC_NE);
	emit_jmp(e);
	l = exit_here(t, target_off);
	l->poll = poll;
}

/* @saved: the flags are in cpu.aflags. */
static void emit_kick(struct tr *t, s32 target_off, bool saved)
{
	emit_rip(t, target_off, 8);
	emit_jmp_to(&t->e, saved ? t->v->stubs.dispatch_c_saved : t->v->stubs.kick);
}

/* A poll that keeps the flags. T0 = RCX, to be put back behind both ways; the jump is taken when there is nothing. */
static u8 *emit_poll_keep(struct emit *e)
{
	u8 *none;

	emit_mov(e, T0, RCX);
	emit8(e, 0x65); /* movzx ecx, word gs:[kick] */
	emit_bytes(e, (const u8[]){ 0x0f, 0xb7, 0x0c, 0x25 }, 4);
	emit32(e, GS(cpu.kick));
	none = emit_jcc8(e, 0xe3); /* jrcxz */
	emit_mov(e, RCX, T0);
	return none;
}

/* What a poll leads to: the kick, and a poll that keeps the flags. */
static void emit_poll_ways(struct tr *t, struct exit_link *l)
{
	struct emit *e = &t->e;
	u8 *none;

	emit_patch(e, t->c->code_w + l->site - 5); /* the conditional jump before the jump */
	emit_kick(t, l->target_off, false);
	l->keep = e->p - t->c->code_w;
	none = emit_poll_keep(e);
	emit_kick(t, l->target_off, false);
	emit_patch8(e, none);
	emit_mov(e, RCX, T0);
	emit_jmp(e);
	l->keep_site = e->p - 4 - t->c->code_w;
}

/* The way around a link that cannot be made. */
static void emit_around(struct tr *t, struct exit_link *l)
{
	l->keep = t->e.p - t->c->code_w;
	emit_rip(t, l->target_off, 8);
	emit_jmp_to(&t->e,
		    l->kind & LINK_SAVED ? t->v->stubs.dispatch_saved : t->v->stubs.dispatch);
}

static void emit_exit_stubs(struct tr *t)
{
	for (unsigned k = 0; k < t->nexits; k++) {
		struct exit_link *l = &t->b->exit[k];
		u8 *code = t->c->code_w;

		if (t->e.overflow)
			return;
		if (l->poll)
			emit_poll_ways(t, l);
		if (l->kind & LINK_CROSS)
			emit_around(t, l);
		l->stub = t->e.p - code;
		if (t->e.overflow)
			return;
		if (l->poll)
			code[l->poll] = 0xe9;
		emit_patch(&t->e, code + (l->poll ? l->poll + 1 : l->site));
		emit_mov_imm64(&t->e, T1, (u64)l);
		emit_jmp_to(&t->e,
			    l->kind & LINK_SAVED ? t->v->stubs.link_saved : t->v->stubs.link);
	}
}

static bool is_linkable(const struct tr *t, s64 off)
{
	return t->form == FORM_FAST && off >= 0 && off < (s64)PAGE_SIZE && !t->b->straddles;
}

/* Leave for page offset @off, any value, flags wherever they are: the jump is linked while the translation of that page stays. */
static void emit_cross(struct tr *t, s64 off, bool backward)
{
	struct emit *e = &t->e;
	struct exit_link *l;
	s64 pages = off & -(s64)PAGE_SIZE;
	u8 *none;

	if (backward) {
		none = emit_poll_keep(e);
		emit_kick(t, off, t->flags == FLAGS_SAVED);
		emit_patch8(e, none);
		emit_mov(e, RCX, T0);
	}
	if (pages) {
		emit_load_gs(e, T0, GS(rip_page));
		emit_lea(e, T0, T0, EMIT_NO_REG, 1, pages, 8);
		emit_store_gs(e, T0, GS(rip_page));
	}
	count_chained(t);
	emit_jmp(e);
	l = exit_here(t, off - pages);
	l->kind = LINK_CROSS | (t->flags == FLAGS_SAVED ? LINK_SAVED : 0);
}

/*
 * A supervisor's pages are mapped by global entries, most of them, and each at one place. What another page holds is reached by a
 * link then too, see engine_link().
 */
static bool is_crossable(const struct tr *t, s64 off, unsigned opsize)
{
	return t->form == FORM_FAST && t->v->engine->options.cross && (t->mode & MODE_64) &&
	       (t->mode & MODE_CPL) != 3 && opsize != 2 && off == (s32)off;
}

/* Leave for page offset @off (any value), flags wherever they are. */
static void leave_for(struct tr *t, s64 off, bool backward, unsigned opsize)
{
	if (is_crossable(t, off, opsize)) {
		emit_cross(t, off, backward);
		return;
	}
	emit_rip(t, off, opsize);
	emit_dispatch(t, backward);
}

/* Go to page offset @off (any value) with the flags in the host. */
static void emit_goto(struct tr *t, s64 off, bool backward, unsigned opsize)
{
	if (is_linkable(t, off)) {
		if (backward)
			emit_exit_poll(t, off);
		else
			emit_exit(t, off);
		return;
	}
	leave_for(t, off, backward, opsize);
}

void tr_fallthrough(struct tr *t)
{
	unsigned last = t->n - 1;
	s64 end = t->off[last] + t->d[last].insn.len;

	if (t->form == FORM_BOUNCE) {
		tr_flags_need(t, T0);
		emit_jmp_to(&t->e, t->v->stubs.done);
		return;
	}
	if (t->before_straddler || !is_linkable(t, end)) {
		leave_for(t, end, false, code_size(t));
		emit_exit_stubs(t);
		return;
	}
	tr_flags_need(t, T0);
	emit_goto(t, end, false, 8);
	emit_exit_stubs(t);
}

/* How instructions access the stack that do not name it. */
static const struct x86_insn stack_read = { .memsize = 8, .access = INSN_READ };
static const struct x86_insn stack_write = { .memsize = 8, .access = INSN_WRITE };

static struct mem_ref stack_top(struct tr *t, unsigned i)
{
	return tr_window(t, i, RSP, 0, 8, false, &stack_read);
}

static struct mem_ref stack_below(struct tr *t, unsigned i)
{
	return tr_window(t, i, RSP, -8, 8, true, &stack_write);
}

void tr_stack_push_address(struct tr *t, unsigned i)
{
	struct x86_insn *rec = tr_record(t, i);

	emit_lea(&t->e, T0, HOST_RSP, EMIT_NO_REG, 1, -8, 8);
	rec->memsize = 8;
	rec->access = INSN_WRITE;
	rec->stack = true;
	tr_translate(t, i, rec, RSP, 8, true);
}

static void rsp_add(struct tr *t, s32 n)
{
	emit_lea(&t->e, HOST_RSP, HOST_RSP, EMIT_NO_REG, 1, n, 8);
	tr_window_moved(t, RSP, n);
}

static void push_reg(struct tr *t, unsigned i)
{
	unsigned guest = t->d[i].gpr[0].reg, reg = host_of[guest];
	struct mem_ref ref = stack_below(t, i);

	if (reg == IN_MEMORY) {
		tr_gpr_load(t, T1, guest);
		reg = T1;
	}
	tr_pc_access(t, i, 0);
	tr_ref_op(t, true, 0x89, reg, &ref);
	rsp_add(t, -8);
}

static void push_imm(struct tr *t, unsigned i)
{
	struct mem_ref ref = stack_below(t, i);

	tr_pc_access(t, i, 0);
	tr_ref_op(t, true, 0xc7, 0, &ref);
	emit32(&t->e, t->d[i].insn.imm);
	rsp_add(t, -8);
}

/* T1 = the explicit operand of 8 bytes, which the instruction reads. */
static void operand_read(struct tr *t, unsigned i)
{
	struct x86_insn *insn = &t->d[i].insn;
	struct mem_ref ref;

	insn->memsize = 8;
	insn->access = INSN_READ;
	ref = tr_operand(t, i);
	tr_pc_access(t, i, 0);
	tr_ref_op(t, true, 0x8b, T1, &ref);
}

/* PUSH m: load, keep, store. */
static void push_mem(struct tr *t, unsigned i)
{
	struct mem_ref ref;

	operand_read(t, i);
	emit_store_gs(&t->e, T1, GS(target));
	ref = stack_below(t, i);
	emit_load_gs(&t->e, T1, GS(target));
	tr_pc_access(t, i, 0);
	tr_ref_op(t, true, 0x89, T1, &ref);
	rsp_add(t, -8);
}

static void pop_reg(struct tr *t, unsigned i)
{
	unsigned guest = t->d[i].gpr[0].reg,
		 to = guest == RSP || host_of[guest] == IN_MEMORY ? T1 : host_of[guest];
	struct mem_ref ref = stack_top(t, i);

	tr_pc_access(t, i, 0);
	tr_ref_op(t, true, 0x8b, to, &ref);
	rsp_add(t, 8);
	if (to == T1)
		tr_gpr_store(t, guest, T1);
	if (guest == t->window.base)
		t->window.valid = false;
}

static void leave(struct tr *t, unsigned i)
{
	struct mem_ref ref = tr_window(t, i, RBP, 0, 8, false, &stack_read);

	tr_pc_access(t, i, 0);
	tr_ref_op(t, true, 0x8b, T1, &ref);
	emit_lea(&t->e, HOST_RSP, RBP, EMIT_NO_REG, 1, 8, 8);
	emit_mov(&t->e, RBP, T1);
	/* What lies around the old RBP lies around the new RSP. */
	t->window.base = RSP;
	tr_window_moved(t, RSP, 8);
}

/* Returns whether it was emitted by hand; otherwise the caller takes the helper. */
bool tr_stack(struct tr *t, unsigned i)
{
	const struct decoded *d = &t->d[i];

	if (t->form != FORM_FAST || d->insn.opsize != 8 ||
	    (d->insn.has_mem && d->insn.op != X86_OP_push))
		return false;
	if (d->insn.op == X86_OP_leave)
		leave(t, i);
	else if (d->insn.op == X86_OP_push && d->insn.has_mem)
		push_mem(t, i);
	else if (d->insn.op == X86_OP_push && d->ngpr)
		push_reg(t, i);
	else if (d->insn.op == X86_OP_push)
		push_imm(t, i);
	else if (d->ngpr)
		pop_reg(t, i);
	else
		return false;
	return true;
}

/* Push the address behind instruction @i. */
static void push_return(struct tr *t, unsigned i)
{
	struct mem_ref ref = stack_below(t, i);

	emit_load_gs(&t->e, T1, GS(rip_page));
	emit_lea(&t->e, T1, T1, EMIT_NO_REG, 1, t->off[i] + t->d[i].insn.len, 8);
	tr_pc_access(t, i, 0);
	tr_ref_op(t, true, 0x89, T1, &ref);
	rsp_add(t, -8);
}

static void branch_call(struct tr *t, unsigned i)
{
	s64 target = t->off[i] + t->d[i].insn.len + (s64)t->d[i].insn.imm;

	push_return(t, i);
	if (t->flags == FLAGS_DEAD)
		t->flags = FLAGS_HOST;
	if (target >= 0 && target < (s64)PAGE_SIZE) {
		tr_flags_need(t, T0);
		emit_goto(t, target, target <= t->off[i], 8);
		return;
	}
	leave_for(t, target, false, 8); /* whoever recurses returns, and polls there */
}

/* T1 = target of an indirect branch. */
static void indirect_target(struct tr *t, unsigned i)
{
	const struct decoded *d = &t->d[i];

	if (d->insn.has_mem)
		operand_read(t, i);
	else
		tr_gpr_load(t, T1, d->gpr[0].reg);
}

static void branch_indirect(struct tr *t, unsigned i)
{
	indirect_target(t, i);
	if (t->d[i].branch == BR_IND_CALL) {
		emit_store_gs(&t->e, T1, GS(target));
		push_return(t, i);
		emit_load_gs(&t->e, T0, GS(target));
	} else {
		emit_mov(&t->e, T0, T1);
	}
	if (t->flags == FLAGS_DEAD)
		t->flags = FLAGS_HOST;
	emit_dispatch(t, true);
}

static void branch_ret(struct tr *t, unsigned i)
{
	struct mem_ref ref = stack_top(t, i);

	tr_pc_access(t, i, 0);
	tr_ref_op(t, true, 0x8b, T0, &ref);
	rsp_add(t, 8 + (u16)t->d[i].insn.imm);
	if (t->flags == FLAGS_DEAD)
		t->flags = FLAGS_HOST;
	emit_dispatch(t, true);
}

/* Both ways of a conditional branch; the jump to the taken side is at @taken. */
static void two_ways(struct tr *t, unsigned i, u8 *taken)
{
	const struct x86_insn *insn = &t->d[i].insn;
	s64 next = t->off[i] + insn->len, target = next + (s64)insn->imm;

	emit_goto(t, next, false, code_size(t));
	emit_patch(&t->e, taken);
	emit_goto(t, target, target <= t->off[i], code_size(t) == 8 ? 8 : insn->opsize);
}

static void branch_jcc(struct tr *t, unsigned i)
{
	const struct x86_insn *insn = &t->d[i].insn;
	s64 next = t->off[i] + insn->len, target = next + (s64)insn->imm;

	tr_flags_need(t, T0);
	if (!is_linkable(t, next) || !is_linkable(t, target) || t->v->engine->options.verbose) {
		two_ways(t, i, emit_jcc(&t->e, t->d[i].cc));
	} else if (target <= t->off[i]) {
		t->loop.branch = t->e.p;
		emit_jcc(&t->e, t->d[i].cc ^ 1);
		exit_here(t, next);
		if (!t->loop.on || !tr_loop_back(t))
			emit_exit_poll(t, target);
	} else {
		emit_jcc(&t->e, t->d[i].cc);
		exit_here(t, target);
		emit_exit(t, next);
	}
}

#define XCHG_RCX_T0 ((const u8[]){ 0x49, 0x87, 0xce })

/* LOOP and JCXZ on CX: 64-bit mode has no such form. */
static void branch_loop16(struct tr *t, unsigned i)
{
	struct emit *e = &t->e;
	u8 op = t->d[i].insn.opcode;
	u8 *zero, *taken = NULL, *not_taken;

	if (op != 0xe3) {
		emit_lea(e, T0, RCX, EMIT_NO_REG, 1, -1, 4);
		emit_bytes(e, (const u8[]){ 0x66, 0x44, 0x89, 0xf1 }, 4); /* mov cx, t0w */
	}
	emit_movzx16(e, T0, RCX);
	emit_bytes(e, XCHG_RCX_T0, 3);
	zero = emit_jcc8(e, 0xe3);
	emit_bytes(e, XCHG_RCX_T0, 3);
	if (op == 0xe0 || op == 0xe1)
		taken = emit_jcc(e, op == 0xe0 ? CC_NE : CC_E);
	else if (op == 0xe2)
		taken = emit_jmp(e);
	not_taken = emit_jmp(e);
	emit_patch8(e, zero);
	emit_bytes(e, XCHG_RCX_T0, 3);
	if (op == 0xe3)
		taken = emit_jmp(e);
	emit_patch(e, not_taken);
	two_ways(t, i, taken);
}

/* LOOP and JCXZ run as themselves over a short distance. */
static void branch_loop(struct tr *t, unsigned i)
{
	const struct x86_insn *insn = &t->d[i].insn;
	u8 *hit, *miss;

	tr_flags_need(t, T0);
	if (insn->adsize == 2) {
		branch_loop16(t, i);
		return;
	}
	if (insn->adsize == 4)
		emit8(&t->e, 0x67);
	hit = emit_jcc8(&t->e, insn->opcode);
	miss = emit_jmp(&t->e);
	emit_patch8(&t->e, hit);
	hit = emit_jmp(&t->e);
	emit_patch(&t->e, miss);
	two_ways(t, i, hit);
}

void tr_branch(struct tr *t, unsigned i)
{
	const struct decoded *d = &t->d[i];
	bool direct = d->branch == BR_JMP || d->branch == BR_JCC || d->branch == BR_LOOP;
	s64 target = t->off[i] + d->insn.len + (s64)d->insn.imm;

	if (!direct &&
	    (t->form != FORM_FAST || d->insn.opsize != 8 || t->v->engine->options.exact)) {
		tr_helper(t, i);
		tr_fallthrough(t);
		return;
	}
	switch (d->branch) {
	case BR_JMP:
		tr_flags_need(t, T0);
		emit_goto(t, target, target <= t->off[i], code_size(t) == 8 ? 8 : d->insn.opsize);
		break;
	case BR_JCC:
		branch_jcc(t, i);
		break;
	case BR_LOOP:
		branch_loop(t, i);
		break;
	case BR_CALL:
		branch_call(t, i);
		break;
	case BR_RET:
		branch_ret(t, i);
		break;
	default:
		branch_indirect(t, i);
		break;
	}
	emit_exit_stubs(t);
}

/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Checks of addresses in translated code, and what happens where they miss: stubs of the register cache, calls of C. */
#include "engine/x86/translate.h"

/*
 * Five ways to use an entry of the register cache, by what is in which register (enum miss_kind):
 *
 *	MISS_HOST0			MISS_DELTA, MISS_WINDOW		MISS_HOST1
 *	lea  t0, [ea]			lea  t1, [ea]			lea  t1, [ea]
 *	mov  t1, t0			xor  t1, gs:[tag]		xor  t1, gs:[tag]
 *	xor  t1, gs:[tag]		cmp  t1, gs:[limit]		cmp  t1, gs:[limit]
 *	cmp  t1, gs:[limit]		jae  miss			jae  miss
 *	jae  miss			mov  t0, gs:[delta]		add  t1, gs:[host]
 *	add  t0, gs:[delta]		op   [t0 + base + disp]		op   [t1]
 *	op   [t0]
 *
 * The second leaves the difference of host and linear address in T0 for the accesses that follow (window.c); the third
 * touches T1 only, so that such a T0 stays; MISS_LOOP is as it, but T0 is free, and what C would have to do leaves the
 * loop instead (loop.c). A miss calls a stub that looks into the TLB and makes the page the entry's
 * range; what is not in the TLB goes to engine_mem_slow().
 */

static u32 tag_field(bool write)
{
	return write ? offsetof(struct tlb_entry, tag_w) : offsetof(struct tlb_entry, tag_r);
}

/* T0 linear -> T0 offset in the page, T1 TLB entry; returns the jump of a miss. */
static u8 *emit_tlb_probe(struct emit *e, unsigned size, bool write)
{
	emit_mov32(e, T1, T0);
	emit_shift(e, false, SHIFT_SHR, T1, PAGE_SHIFT - 5);
	emit_alu_imm(e, false, ALU_AND, T1, (TLB_SIZE - 1) * sizeof(struct tlb_entry));
	emit_alu_gs(e, ALU_ADD, T1, GS(tlb));
	emit_op_base(e, true, ALU_XOR << 3 | 3, T0, T1, tag_field(write));
	emit_alu_imm(e, true, ALU_CMP, T0, PAGE_SIZE - size);
	return emit_jcc(e, CC_A);
}

#define NEG_T1 ((const u8[]){ 0x49, 0xf7, 0xdf })

/* T1 TLB entry, T0 offset in the page: the entry's range becomes the register cache's. T0 as the kind wants it. */
static void emit_rc_fill(struct emit *e, const struct slow_path *s)
{
	unsigned table = s->table, i = s->index;
	bool delta = s->kind == MISS_DELTA || s->kind == MISS_WINDOW;

	emit_store_gs(e, RAX, GS(stub_rax));
	emit_store_gs(e, RCX, GS(stub_rcx));
	emit_op_base(e, true, 0x8b, RCX, T1, offsetof(struct tlb_entry, tag_r));
	emit_op_base(e, true, 0x8b, RAX, T1, offsetof(struct tlb_entry, page));
	if (!delta)
		emit_alu(e, ALU_ADD, T0, RAX); /* host address */
	emit_alu(e, ALU_SUB, RAX, RCX);
	if (delta)
		emit_mov(e, T0, RAX);
	emit_store_gs(e, RAX, RC(table, delta, i));
	if (s->write) {
		emit_alu(e, ALU_ADD, RAX, RCX);
		emit_store_gs(e, RAX, RC(table, host, i));
		emit_mov_imm32(e, RAX, PAGE_SIZE - rc_room(i));
	} else {
		emit_op_base(e, true, 0x8b, T1, T1, offsetof(struct tlb_entry, info));
		emit_alu_imm(e, true, ALU_AND, T1, -(s32)PAGE_SIZE); /* range */
		emit_bytes(e, NEG_T1, 3);
		emit_alu(e, ALU_AND, RCX, T1);
		emit_alu(e, ALU_ADD, RAX, RCX);
		emit_store_gs(e, RAX, RC(table, host, i));
		emit_bytes(e, NEG_T1, 3);
		emit_lea(e, RAX, T1, EMIT_NO_REG, 1, -(s32)rc_room(i), 8);
	}
	emit_store_gs(e, RCX, RC(table, tag, i));
	emit_store_gs(e, RAX, RC(table, limit, i));
	emit_load_gs(e, RAX, GS(stub_rax));
	emit_load_gs(e, RCX, GS(stub_rcx));
}

/* The result is in T0: back to the block. */
static void emit_stub_ret(struct emit *e, enum miss_kind kind)
{
	if (kind == MISS_HOST1 || kind == MISS_LOOP)
		emit_mov(e, T1, T0);
	if (kind == MISS_HOST1)
		emit_load_gs(e, T0, GS(stub_t0));
	emit8(e, 0xc3);
}

/* A page of the user, accessed by the supervisor: good while AC is set, so the register cache must not have it. */
static void emit_user_page(struct emit *e, enum miss_kind kind)
{
	if (kind == MISS_DELTA || kind == MISS_WINDOW) {
		emit_op_base(e, true, 0x8b, T0, T1, offsetof(struct tlb_entry, page));
		emit_op_base(e, true, ALU_SUB << 3 | 3, T0, T1, offsetof(struct tlb_entry, tag_r));
	} else {
		emit_op_base(e, true, ALU_ADD << 3 | 3, T0, T1, offsetof(struct tlb_entry, page));
	}
	emit_stub_ret(e, kind);
}

/* T1 = the record behind the jump behind the call. */
static void emit_record(struct emit *e)
{
	emit_op_base(e, true, 0x8b, T1, RSP, 0);
	emit_op_base(e, true, 0x8b, T1, T1, 5);
}

/* T0 = linear address: not in the TLB, or the window crosses the end of the page. */
static void emit_stub_slow(struct emit *e, const struct stubs *stubs, enum miss_kind kind,
			   unsigned size)
{
	u8 *cross;

	switch (kind) {
	default:
		emit_record(e);
		emit_jmp_to(e, stubs->mem_slow);
		break;
	case MISS_HOST1:
		emit_record(e);
		emit_jmp_to(e, stubs->mem_slow_t1);
		break;
	case MISS_DELTA:
		emit_record(e);
		emit_jmp_to(e, stubs->mem_slow_delta);
		break;
	case MISS_LOOP: /* what leaves the loop is behind the jump behind the call */
		emit_op_base(e, true, 0x8b, T1, RSP, 0);
		emit_lea(e, RSP, RSP, EMIT_NO_REG, 1, 8, 8);
		emit_lea(e, T1, T1, EMIT_NO_REG, 1, 5, 8);
		emit_bytes(e, (const u8[]){ 0x41, 0xff, 0xe7 }, 3); /* jmp t1 */
		break;
	case MISS_WINDOW:
		emit_mov32(e, T1, T0);
		emit_alu_imm(e, false, ALU_AND, T1, PAGE_SIZE - 1);
		emit_alu_imm(e, false, ALU_CMP, T1, PAGE_SIZE - size);
		cross = emit_jcc(e, CC_A);
		emit_record(e);
		emit_jmp_to(e, stubs->mem_slow_delta);
		emit_patch(e, cross);
		emit_record(e);
		emit_lea(e, RSP, RSP, EMIT_NO_REG, 1, 8, 8);
		emit_op_base(e, false, 0xff, 4, T1, offsetof(struct mem_site, narrow)); /* jmp */
		break;
	}
}

/* Called from a block; behind the call are a jump and the record, for the slow path. */
static void emit_rc_stub(struct emit *e, const struct stubs *stubs, const struct slow_path *s,
			 unsigned size)
{
	u8 *slow, *user = NULL;

	if (s->kind == MISS_HOST1)
		emit_store_gs(e, T0, GS(stub_t0));
	if (s->kind != MISS_HOST0) {
		emit_mov(e, T0, T1);
		emit_alu_gs(e, ALU_XOR, T0, RC(s->table, tag, s->index));
	}
	slow = emit_tlb_probe(e, size, s->write);
	if (!s->table) {
		emit_op_base(e, false, 0xf6, 0, T1,
			     offsetof(struct tlb_entry, info)); /* test byte */
		emit8(e, TLB_USER_PAGE);
		user = emit_jcc(e, CC_NE);
	}
	emit_rc_fill(e, s);
	emit_stub_ret(e, s->kind);
	if (user) {
		emit_patch(e, user);
		emit_user_page(e, s->kind);
	}
	emit_patch(e, slow);
	emit_op_base(e, true, ALU_XOR << 3 | 3, T0, T1, tag_field(s->write));
	emit_stub_slow(e, stubs, s->kind, size);
}

/* The entry for an access of instruction @i through @base. */
static unsigned rc_index(const struct tr *t, unsigned i, unsigned base, bool write, unsigned size)
{
	const struct x86_insn *insn = &t->d[i].insn;
	unsigned hash = t->off[i] >> 4;

	if (base == RSP || base == RBP)
		hash = 0;
	else if (base == INSN_RIP || base == INSN_NO_REG)
		hash = insn->disp >> PAGE_SHIFT;
	if (base >= 16) /* RIP and absolute share with registers that rarely hold addresses */
		base = base == INSN_RIP ? R15 : R14;
	return (base * 2 + write) * 4 + (hash & 3) +
	       (size > 64  ? 2 * RC_CLASS
		: size > 8 ? RC_CLASS
			   : 0);
}

static int size_class(unsigned size)
{
	return size && size <= RC_SPAN_MAX && !(size & (size - 1)) ? __builtin_ctz(size) : -1;
}

bool tr_size_fits(unsigned size)
{
	return size_class(size) >= 0;
}

static struct slow_path *slow_path_new(struct tr *t, unsigned i, struct x86_insn *rec,
				       unsigned base, unsigned size, bool write)
{
	struct slow_path *s = &t->slow[t->nslow++];

	leaf_assert(t->nslow <= ARRAY_SIZE(t->slow));
	s->kind = MISS_HOST0;
	s->audit = NULL;
	s->insn = i;
	s->write = write;
	s->rec = (u64)rec;
	s->size_class = size_class(size);
	s->table = (t->mode & MODE_CPL) == 3;
	s->index = rc_index(t, i, base, write, size);
	if (s->size_class >= 0)
		rec->range = s->table * RC_SIZE + s->index + 1;
	return s;
}

static void slow_path_back(struct tr *t, struct slow_path *s)
{
	s->back = t->e.p;
	if (t->v->engine->options.verbose)
		emit_op_gs(&t->e, true, 0xff, 0, GS(inline_hits)); /* inc */
	if (!t->v->engine->options.audit)
		return;
	emit_op_gs(&t->e, false, 0xff, 1, GS(audit_left)); /* dec */
	s->audit = emit_jcc(&t->e, CC_E);
	s->audited = t->e.p;
}

static void emit_audit(struct tr *t, const struct slow_path *s)
{
	struct emit *e = &t->e;

	emit_patch(e, s->audit);
	emit_store_gs(e, T1, GS(audit_t1));
	emit_mov_imm64(e, T1, s->rec);
	emit_call_to(e, t->v->stubs.audit);
	emit_load_gs(e, T1, GS(audit_t1));
	emit_jmp_to(e, (u64)s->audited + e->delta);
}

void tr_translate(struct tr *t, unsigned i, struct x86_insn *rec, unsigned base, unsigned size,
		  bool write)
{
	struct emit *e = &t->e;
	struct slow_path *s = slow_path_new(t, i, rec, base, size, write);

	t->window.valid = false;
	if (s->size_class < 0) {
		s->site = emit_tlb_probe(e, size, write);
		emit_op_base(e, true, ALU_ADD << 3 | 3, T0, T1, offsetof(struct tlb_entry, page));
	} else {
		emit_mov(e, T1, T0);
		emit_alu_gs(e, ALU_XOR, T1, RC(s->table, tag, s->index));
		emit_alu_gs(e, ALU_CMP, T1, RC(s->table, limit, s->index));
		s->site = emit_jcc(e, CC_AE);
		emit_alu_gs(e, ALU_ADD, T0, RC(s->table, delta, s->index));
	}
	slow_path_back(t, s);
}

void tr_translate_t1(struct tr *t, unsigned i, struct x86_insn *rec, unsigned base, unsigned size,
		     bool write)
{
	struct emit *e = &t->e;
	struct slow_path *s = slow_path_new(t, i, rec, base, size, write);

	s->kind = MISS_HOST1;
	emit_alu_gs(e, ALU_XOR, T1, RC(s->table, tag, s->index));
	emit_alu_gs(e, ALU_CMP, T1, RC(s->table, limit, s->index));
	s->site = emit_jcc(e, CC_AE);
	emit_alu_gs(e, ALU_ADD, T1, RC(s->table, host, s->index));
	slow_path_back(t, s);
}

void tr_translate_delta(struct tr *t, unsigned i, struct mem_site *site, unsigned base,
			unsigned size, bool write, bool window)
{
	struct emit *e = &t->e;
	struct slow_path *s = slow_path_new(t, i, &site->insn, base, size, write);

	s->kind = window ? MISS_WINDOW : MISS_DELTA;
	emit_alu_gs(e, ALU_XOR, T1, RC(s->table, tag, s->index));
	emit_alu_gs(e, ALU_CMP, T1, RC(s->table, limit, s->index));
	s->site = emit_jcc(e, CC_AE);
	emit_load_gs(e, T0, RC(s->table, delta, s->index));
	slow_path_back(t, s);
}

const struct slow_path *tr_check_of(const struct tr *t, unsigned i)
{
	for (unsigned k = 0; k < t->nslow; k++)
		if (t->slow[k].insn == i)
			return &t->slow[k];
	return NULL;
}

void tr_translate_loop(struct tr *t, unsigned i, bool far)
{
	const struct x86_insn *insn = &t->d[i].insn;
	struct slow_path *s = &t->slow[t->nslow++];
	struct emit *e = &t->e;

	leaf_assert(t->nslow <= ARRAY_SIZE(t->slow));
	*s = far ? (struct slow_path){ .insn = i, .size_class = -1 } : *tr_check_of(t, i);
	s->kind = MISS_LOOP;
	s->call = s->audit = NULL;
	if (far) {
		s->site = emit_tlb_probe(e, insn->memsize, insn->access & INSN_WRITE);
		emit_op_base(e, true, ALU_ADD << 3 | 3, T0, T1, offsetof(struct tlb_entry, page));
	} else {
		emit_alu_gs(e, ALU_XOR, T1, RC(s->table, tag, s->index));
		emit_alu_gs(e, ALU_CMP, T1, RC(s->table, limit, s->index));
		s->site = emit_jcc(e, CC_AE);
		emit_alu_gs(e, ALU_ADD, T1, RC(s->table, host, s->index));
	}
	s->back = e->p;
}

static u32 *rc_stub(const struct tr *t, const struct slow_path *s)
{
	return &t->v->rc_stub[s->table][s->index][s->kind][s->size_class];
}

static void emit_stub_call(struct tr *t, struct slow_path *s)
{
	u32 stub = *rc_stub(t, s);

	s->call = NULL;
	emit_call_to(&t->e, (u64)t->c->code_w + t->c->delta + stub);
	if (!stub)
		s->call = t->e.p - 4;
}

void tr_new_stubs(struct tr *t, struct emit *e)
{
	for (unsigned k = 0; k < t->nslow; k++) {
		struct slow_path *s = &t->slow[k];
		u32 *at = s->size_class < 0 || !s->call ? NULL : rc_stub(t, s);
		s32 d;

		if (!at)
			continue;
		if (!*at) {
			*at = e->p - t->c->code_w;
			emit_rc_stub(e, &t->v->stubs, s, 1u << s->size_class);
		}
		d = (s32)(t->c->code_w + *at - (s->call + 4));
		if (!t->e.overflow)
			__builtin_memcpy(s->call, &d, 4);
	}
}

void tr_slow_paths(struct tr *t)
{
	struct emit *e = &t->e;

	for (unsigned k = 0; k < t->nslow; k++) {
		struct slow_path *s = &t->slow[k];

		if (s->audit)
			emit_audit(t, s);
		emit_patch(e, s->site);
		if (s->kind == MISS_LOOP) {
			if (s->size_class >= 0) {
				emit_stub_call(t, s);
				emit_jmp_to(e, (u64)s->back + e->delta);
			}
			tr_loop_leave(t, s->insn);
			continue;
		}
		if (s->size_class >= 0) {
			emit_stub_call(t, s);
			emit_jmp_to(e, (u64)s->back + e->delta);
			emit64(e, s->rec);
			continue;
		}
		emit_op_base(e, true, ALU_XOR << 3 | 3, T0, T1, tag_field(s->write));
		emit_mov_imm64(e, T1, s->rec);
		emit_call_to(e, t->v->stubs.mem_slow);
		emit_jmp_to(e, (u64)s->back + e->delta);
	}
}

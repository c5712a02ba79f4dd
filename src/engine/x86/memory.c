/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Memory operands in translated code: effective address, inline soft TLB, slow paths. */
#include <string.h>

#include "engine/x86/translate.h"

/*
 * Inline access, 64-bit mode (flags are saved or dead). Sizes that are powers of two go through the register cache first:
 *
 *	lea  t0, [guest ea]		; + FS or GS base
 *	mov  t1, t0
 *	xor  t1, gs:[rc.tag]
 *	cmp  t1, gs:[rc.limit]
 *	jae  miss			; call rc_stub; jmp back; .quad record
 *	add  t0, gs:[rc.delta]
 * back:
 *	op   [t0]
 *
 * The stub, or for larger operands the inline code, looks into the TLB:
 *
 *	mov  t1d, t0d
 *	shr  t1d, 7			; 32 bytes per TLB entry
 *	and  t1d, (TLB_SIZE - 1) * 32
 *	add  t1, gs:[tlb]
 *	xor  t0, [t1 + tag]		; offset in the page, if it is this page
 *	cmp  t0, 4096 - size		; and does not cross
 *	ja   slow
 *	add  t0, [t1 + page]
 */

const u8 host_of[16] = {
	[RAX] = RAX,	  [RCX] = RCX,	     [RDX] = RDX,	[RBX] = RBX,
	[RSP] = HOST_RSP, [RBP] = RBP,	     [RSI] = RSI,	[RDI] = RDI,
	[R8] = R8,	  [R9] = R9,	     [R10] = R10,	[R11] = R11,
	[R12] = R12,	  [R13] = IN_MEMORY, [R14] = IN_MEMORY, [R15] = IN_MEMORY,
};

void tr_gpr_load(struct tr *t, unsigned host, unsigned guest)
{
	if (host_of[guest] == IN_MEMORY)
		emit_load_gs(&t->e, host, GS_GPR(guest));
	else if (host_of[guest] != host)
		emit_mov(&t->e, host, host_of[guest]);
}

void tr_gpr_store(struct tr *t, unsigned guest, unsigned host)
{
	if (host_of[guest] == IN_MEMORY)
		emit_store_gs(&t->e, host, GS_GPR(guest));
	else if (host_of[guest] != host)
		emit_mov(&t->e, host_of[guest], host);
}

void tr_pc(struct tr *t, unsigned i, u8 lent)
{
	assert(t->npc < ARRAY_SIZE(t->pc));
	t->pc[t->npc++] = (struct pc_entry){
		.host = emit_pc(&t->e) - t->c->delta - (u64)t->c->code_w - t->b->code,
		.page_off = t->off[i],
		.len = t->d[i].insn.len,
		.flags = (t->flags != FLAGS_HOST ? PC_FLAGS_SAVED : 0) | lent << PC_LENT_SHIFT,
	};
}

struct x86_insn *tr_record(struct tr *t, unsigned i)
{
	static struct x86_insn none;
	struct x86_insn *rec = cache_alloc(t->c, sizeof(*rec));

	if (!rec) {
		t->full = true;
		return &none;
	}
	*rec = t->d[i].insn;
	rec->page_off = t->off[i];
	rec->form = t->form;
	return rec;
}

void tr_flags_spill(struct tr *t, unsigned i)
{
	if (t->flags != FLAGS_HOST)
		return;
	/* The checked forms keep flags exact also where they are dead: they are the oracle. */
	if (t->live_in[i] || t->form != FORM_FAST) {
		emit_flags_save(&t->e, T0, GS_AFLAGS);
		t->flags = FLAGS_SAVED;
	} else {
		t->flags = FLAGS_DEAD;
	}
}

void tr_flags_need(struct tr *t, unsigned tmp)
{
	if (t->flags == FLAGS_SAVED)
		emit_flags_load(&t->e, tmp, GS_AFLAGS);
	t->flags = FLAGS_HOST;
}

void tr_effective(struct tr *t, unsigned i, bool is_lea)
{
	const struct x86_insn *insn = &t->d[i].insn;
	unsigned base = EMIT_NO_REG, index = EMIT_NO_REG;
	s64 disp = insn->disp;

	(void)is_lea;
	if (insn->base == INSN_RIP) {
		emit_load_gs(&t->e, T0, GS(rip_page));
		base = T0;
		disp += t->off[i] + insn->len;
	} else if (insn->base != INSN_NO_REG) {
		base = host_of[insn->base];
		if (base == IN_MEMORY) {
			tr_gpr_load(t, T0, insn->base);
			base = T0;
		}
	}
	if (insn->index != INSN_NO_REG) {
		index = host_of[insn->index];
		if (index == IN_MEMORY) {
			tr_gpr_load(t, T1, insn->index);
			index = T1;
		}
	}
	if (disp != (s32)disp) { /* moffs, or far from RIP */
		emit_mov_imm64(&t->e, T1, disp);
		if (base == EMIT_NO_REG)
			emit_mov(&t->e, T0, T1);
		else
			emit_lea(&t->e, T0, base, T1, 1, 0, 8);
	} else {
		emit_lea(&t->e, T0, base, index, insn->scale, disp, insn->adsize);
	}
	if (insn->adsize == 2)
		emit_movzx16(&t->e, T0, T0);
}

/* T1 = bytes that a register bit offset adds to the address; flags are clobbered. */
static void emit_bit_bias(struct tr *t, unsigned i)
{
	const struct x86_insn *insn = &t->d[i].insn;
	unsigned size = insn->opsize, shift = size == 8 ? 6 : size == 4 ? 5 : 4;

	tr_gpr_load(t, T1, insn->reg);
	if (size == 4) /* movsxd t1, t1d */
		emit_bytes(&t->e, (const u8[]){ 0x4d, 0x63, 0xff }, 3);
	else if (size == 2) /* movsx t1, r11w */
		emit_bytes(&t->e, (const u8[]){ 0x4d, 0x0f, 0xbf, 0xff }, 4);
	emit_shift(&t->e, true, SHIFT_SAR, T1, shift);
	emit_shift(&t->e, true, SHIFT_SHL, T1, shift - 3);
}

void tr_linear(struct tr *t, unsigned i)
{
	const struct x86_insn *insn = &t->d[i].insn;

	tr_effective(t, i, false);
	if (insn->bit_offset) {
		emit_bit_bias(t, i);
		emit_alu(&t->e, ALU_ADD, T0, T1);
		if (insn->adsize == 4)
			emit_mov32(&t->e, T0, T0);
	}
	if (insn->seg == SEG_FS || insn->seg == SEG_GS)
		emit_alu_gs(&t->e, ALU_ADD, T0, GS_SEG_BASE(insn->seg));
}

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

#define RC(table, field, i)                                                                        \
	((u32)(GS(rc[0]) + (table) * sizeof(struct regcache) + offsetof(struct regcache, field) +  \
	       8 * (i)))

/*
 * Miss of a register cache entry: T0 = linear address. Called from a block; behind the call are a jump and the
 * record, for the slow path. Finds the page in the TLB and makes it the entry's range.
 */
static void emit_rc_stub(struct emit *e, const struct stubs *stubs, unsigned table, unsigned i,
			 unsigned size, bool write)
{
	u8 *slow = emit_tlb_probe(e, size, write), *user = NULL;

	if (!table) {
		emit_op_base(e, false, 0xf6, 0, T1,
			     offsetof(struct tlb_entry, info)); /* test byte */
		emit8(e, TLB_USER_PAGE);
		user = emit_jcc(e, CC_NE);
	}
	emit_store_gs(e, RAX, GS(stub_rax));
	emit_store_gs(e, RCX, GS(stub_rcx));
	emit_op_base(e, true, 0x8b, RCX, T1, offsetof(struct tlb_entry, tag_r));
	emit_op_base(e, true, 0x8b, RAX, T1, offsetof(struct tlb_entry, page));
	emit_alu(e, ALU_ADD, T0, RAX); /* host address */
	emit_alu(e, ALU_SUB, RAX, RCX);
	emit_store_gs(e, RAX, RC(table, delta, i));
	if (write) {
		emit_mov_imm32(e, RAX, PAGE_SIZE - RC_ROOM(i));
	} else {
		emit_op_base(e, true, 0x8b, RAX, T1, offsetof(struct tlb_entry, info));
		emit_alu_imm(e, true, ALU_AND, RAX, -(s32)PAGE_SIZE); /* range */
		emit_lea(e, T1, RAX, EMIT_NO_REG, 1, -1, 8);
		emit_bytes(e, (const u8[]){ 0x49, 0xf7, 0xd7 }, 3); /* not t1 */
		emit_alu(e, ALU_AND, RCX, T1);
		emit_lea(e, RAX, RAX, EMIT_NO_REG, 1, -RC_ROOM(i), 8);
	}
	emit_store_gs(e, RCX, RC(table, tag, i));
	emit_store_gs(e, RAX, RC(table, limit, i));
	emit_load_gs(e, RAX, GS(stub_rax));
	emit_load_gs(e, RCX, GS(stub_rcx));
	emit8(e, 0xc3);
	if (user) {
		emit_patch(e, user);
		emit_op_base(e, true, ALU_ADD << 3 | 3, T0, T1, offsetof(struct tlb_entry, page));
		emit8(e, 0xc3);
	}
	emit_patch(e, slow);
	emit_op_base(e, true, ALU_XOR << 3 | 3, T0, T1, tag_field(write));
	emit_op_base(e, true, 0x8b, T1, RSP, 0);
	emit_op_base(e, true, 0x8b, T1, T1, 5); /* behind the jump */
	emit_jmp_to(e, stubs->mem_slow);
}

/* The entry for an access of instruction @i through @base. */
static unsigned rc_index(const struct tr *t, unsigned i, unsigned base, bool write, bool wide)
{
	const struct x86_insn *insn = &t->d[i].insn;
	unsigned hash = t->off[i] >> 4;

	if (base == RSP || base == RBP)
		hash = 0;
	else if (base == INSN_RIP || base == INSN_NO_REG)
		hash = insn->disp >> PAGE_SHIFT;
	if (base >= 16) /* RIP and absolute share with registers that rarely hold addresses */
		base = base == INSN_RIP ? R15 : R14;
	return (base * 2 + write) * 4 + (hash & 3) + (wide ? RC_WIDE : 0);
}

static int size_class(unsigned size)
{
	return size && size <= 64 && !(size & (size - 1)) ? __builtin_ctz(size) : -1;
}

void tr_translate(struct tr *t, unsigned i, struct x86_insn *rec, unsigned base, unsigned size,
		  bool write)
{
	struct emit *e = &t->e;
	struct slow_path *s = &t->slow[t->nslow++];
	unsigned table = (t->mode & MODE_CPL) == 3;

	assert(t->nslow <= ARRAY_SIZE(t->slow));
	s->write = write;
	s->rec = (u64)rec;
	s->size_class = size_class(size);
	if (s->size_class < 0) {
		s->site = emit_tlb_probe(e, size, write);
		emit_op_base(e, true, ALU_ADD << 3 | 3, T0, T1, offsetof(struct tlb_entry, page));
	} else {
		s->table = table;
		s->index = rc_index(t, i, base, write, size > 8);
		emit_mov(e, T1, T0);
		emit_alu_gs(e, ALU_XOR, T1, RC(table, tag, s->index));
		emit_alu_gs(e, ALU_CMP, T1, RC(table, limit, s->index));
		s->site = emit_jcc(e, CC_AE);
		emit_alu_gs(e, ALU_ADD, T0, RC(table, delta, s->index));
	}
	s->back = e->p;
	if (t->v->engine->options.verbose)
		emit_op_gs(e, true, 0xff, 0, GS(inline_hits)); /* inc */
}

static u64 rc_stub(struct tr *t, const struct slow_path *s)
{
	u32 *at = &t->v->rc_stub[s->table][s->index][s->size_class];
	struct emit *e = &t->e;

	if (!*at) {
		u8 *over = emit_jmp(e);

		*at = e->p - t->c->code_w;
		emit_rc_stub(e, &t->v->stubs, s->table, s->index, 1u << s->size_class, s->write);
		emit_patch(e, over);
		t->new_stub[t->nnew_stubs++] = at;
	}
	return (u64)t->c->code_w + t->c->delta + *at;
}

void tr_slow_paths(struct tr *t)
{
	struct emit *e = &t->e;

	for (unsigned k = 0; k < t->nslow; k++) {
		struct slow_path *s = &t->slow[k];
		u64 stub = s->size_class < 0 ? 0 : rc_stub(t, s);

		emit_patch(e, s->site);
		if (stub) {
			emit_call_to(e, stub);
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

void tr_operand(struct tr *t, unsigned i)
{
	const struct x86_insn *insn = &t->d[i].insn;
	struct x86_insn *rec;

	tr_flags_spill(t, i);
	if (t->form == FORM_BOUNCE) {
		emit_load_gs(&t->e, T0, GS(bounce_ptr));
	} else if (t->form == FORM_FAST) {
		rec = tr_record(t, i);
		tr_linear(t, i);
		tr_translate(t, i, rec, tr_base(insn), insn->memsize, insn->access & INSN_WRITE);
	} else {
		rec = tr_record(t, i);
		emit_mov_imm64(&t->e, T1, (u64)rec);
		emit_call_to(&t->e, t->v->stubs.mem_call);
	}
	if (insn->bit_offset) { /* the instruction itself adds the bit offset again */
		emit_bit_bias(t, i);
		emit_alu(&t->e, ALU_SUB, T0, T1);
	}
}

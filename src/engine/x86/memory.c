/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Memory operands in translated code: effective address, the operand's host address. */
#include "engine/x86/translate.h"

/*
 * Inline access, 64-bit mode (flags are saved or dead). Sizes that are powers of two go through the register cache first
 * (miss.c). Its stubs, or for other operands the inline code, look into the TLB:
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
	leaf_assert(t->npc < ARRAY_SIZE(t->pc));
	t->pc[t->npc++] = (struct pc_entry){
		.host = emit_pc(&t->e) - t->c->delta - (u64)t->c->code_w - t->b->code,
		.page_off = t->off[i],
		.len = t->d[i].insn.len,
		.flags = (t->flags != FLAGS_HOST ? PC_FLAGS_SAVED : 0) | lent << PC_LENT_SHIFT,
	};
}

static void record_fill(struct tr *t, unsigned i, struct x86_insn *rec)
{
	*rec = t->d[i].insn;
	rec->page_off = t->off[i];
	rec->form = t->form;
	rec->exact = t->b->exact;
}

void tr_pc_access(struct tr *t, unsigned i, u8 lent)
{
	tr_pc(t, i, lent);
	t->pc[t->npc - 1].flags |= PC_ACCESS;
}

struct x86_insn *tr_record(struct tr *t, unsigned i)
{
	static struct x86_insn none;
	struct x86_insn *rec = tr_alloc(t, sizeof(*rec));

	if (!rec) {
		t->full = true;
		return &none;
	}
	record_fill(t, i, rec);
	return rec;
}

struct mem_site *tr_site(struct tr *t, unsigned i)
{
	static struct mem_site none;
	struct mem_site *site = tr_alloc(t, sizeof(*site));

	if (!site) {
		t->full = true;
		return &none;
	}
	record_fill(t, i, &site->insn);
	site->narrow = t->v->stubs.narrow;
	return site;
}

void tr_flags_spill(struct tr *t, unsigned i)
{
	if (t->flags != FLAGS_HOST)
		return;
	/*
	 * The checked forms keep flags exact also where they are dead: they are the oracle. So does a block whose page
	 * may be written by the mapping that runs it: a store may change the very instruction that makes them dead. By another
	 * mapping a serializing instruction has to follow, which needs all flags.
	 */
	if (t->live_in[i] || t->form != FORM_FAST || t->b->exact) {
		emit_flags_save(&t->e, T1, GS_AFLAGS);
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

void tr_effective(struct tr *t, unsigned i)
{
	const struct x86_insn *insn = &t->d[i].insn;
	unsigned base = EMIT_NO_REG, index = EMIT_NO_REG;
	s64 disp = insn->disp;

	t->window.valid = false;
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

	tr_effective(t, i);
	if (insn->bit_offset) {
		emit_bit_bias(t, i);
		emit_alu(&t->e, ALU_ADD, T0, T1);
		if (insn->adsize == 4)
			emit_mov32(&t->e, T0, T0);
	}
	if (insn->seg == SEG_FS || insn->seg == SEG_GS)
		emit_alu_gs(&t->e, ALU_ADD, T0, GS_SEG_BASE(insn->seg));
}

/* The address needs no register but T1, so that T0 keeps its window. */
static bool fits_t1(const struct tr *t, unsigned i)
{
	const struct decoded *d = &t->d[i];
	const struct x86_insn *insn = &d->insn;
	bool base = insn->base < 16 && host_of[insn->base] == IN_MEMORY,
	     index = insn->index < 16 && host_of[insn->index] == IN_MEMORY;

	for (unsigned k = 0; k < d->ngpr; k++)
		if (host_of[d->gpr[k].reg] == IN_MEMORY)
			return false;
	return !d->uses_high && !insn->bit_offset && insn->adsize == 8 &&
	       insn->disp == (s32)insn->disp && tr_size_fits(insn->memsize) && !(base && index);
}

/* T1 = linear address */
static void linear_t1(struct tr *t, unsigned i)
{
	const struct x86_insn *insn = &t->d[i].insn;
	unsigned base = EMIT_NO_REG, index = EMIT_NO_REG;
	s64 disp = insn->disp;

	if (insn->base == INSN_RIP) {
		emit_load_gs(&t->e, T1, GS(rip_page));
		base = T1;
		disp += t->off[i] + insn->len;
	} else if (insn->base != INSN_NO_REG) {
		base = host_of[insn->base] == IN_MEMORY ? T1 : host_of[insn->base];
	}
	if (insn->index != INSN_NO_REG)
		index = host_of[insn->index] == IN_MEMORY ? T1 : host_of[insn->index];
	if (insn->base != INSN_RIP && (base == T1 || index == T1))
		tr_gpr_load(t, T1, base == T1 ? insn->base : insn->index);
	emit_lea(&t->e, T1, base, index, insn->scale, disp, 8);
	if (insn->seg == SEG_FS || insn->seg == SEG_GS)
		emit_alu_gs(&t->e, ALU_ADD, T1, GS_SEG_BASE(insn->seg));
}

static struct mem_ref operand_fast(struct tr *t, unsigned i)
{
	const struct decoded *d = &t->d[i];
	const struct x86_insn *insn = &d->insn;
	bool write = insn->access & INSN_WRITE;
	struct x86_insn *rec;

	if (!d->uses_high && tr_window_eligible(t, insn))
		return tr_window(t, i, insn->base, insn->disp, insn->memsize, write, NULL);
	tr_flags_spill(t, i);
	rec = tr_record(t, i);
	if (fits_t1(t, i) && insn->disp + PAGE_SIZE <= INT32_MAX) {
		linear_t1(t, i);
		tr_translate_t1(t, i, rec, tr_base(insn), insn->memsize, write);
		return (struct mem_ref){ T1, PATCH_KEEP, 0 };
	}
	tr_linear(t, i);
	tr_translate(t, i, rec, tr_base(insn), insn->memsize, write);
	return (struct mem_ref){ T0, PATCH_KEEP, 0 };
}

struct mem_ref tr_operand(struct tr *t, unsigned i)
{
	const struct x86_insn *insn = &t->d[i].insn;
	struct mem_ref ref = { T0, PATCH_KEEP, 0 };
	struct x86_insn *rec;

	if (t->form == FORM_FAST) {
		ref = operand_fast(t, i);
	} else if (t->form == FORM_BOUNCE) {
		tr_flags_spill(t, i);
		emit_load_gs(&t->e, T0, GS(bounce_ptr));
	} else {
		tr_flags_spill(t, i);
		rec = tr_record(t, i);
		emit_mov_imm64(&t->e, T1, (u64)rec);
		emit_call_to(&t->e, t->v->stubs.mem_call);
	}
	if (insn->bit_offset) { /* the instruction itself adds the bit offset again */
		emit_bit_bias(t, i);
		emit_alu(&t->e, ALU_SUB, T0, T1);
	}
	return ref;
}

void tr_ref_op(struct tr *t, bool wide, u8 op, unsigned reg, const struct mem_ref *ref)
{
	if (ref->index == PATCH_KEEP)
		emit_op_base(&t->e, wide, op, reg, ref->base, ref->disp);
	else
		emit_op_index(&t->e, wide, op, reg, ref->base, ref->index, ref->disp);
}

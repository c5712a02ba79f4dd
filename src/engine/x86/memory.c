/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Memory operands in translated code: effective address, inline soft TLB, slow paths. */
#include <string.h>

#include "engine/x86/translate.h"

/*
 * Inline access, 64-bit mode (flags are saved or dead):
 *
 *	lea  r10, [guest ea]		; + FS or GS base
 *	mov  r11d, r10d
 *	shr  r11d, 7			; 32 bytes per TLB entry
 *	and  r11d, (TLB_SIZE - 1) * 32
 *	add  r11, gs:[tlb]
 *	xor  r10, [r11 + tag]		; offset in the page, if it is this page
 *	cmp  r10, 4096 - size		; and does not cross
 *	ja   slow
 *	add  r10, [r11 + page]
 *	op   [r10]
 */

const u8 host_of[16] = {
	[RAX] = RAX, [RCX] = RCX, [RDX] = RDX, [RBX] = RBX, [RSP] = HOST_RSP, [RBP] = RBP,
	[RSI] = RSI, [RDI] = RDI, [R8] = R8, [R9] = R9, [R10] = IN_MEMORY, [R11] = IN_MEMORY,
	[R12] = R12, [R13] = R13, [R14] = R14, [R15] = IN_MEMORY,
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
		emit_flags_save(&t->e, R10, GS_AFLAGS);
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
		emit_load_gs(&t->e, R10, GS(rip_page));
		base = R10;
		disp += t->off[i] + insn->len;
	} else if (insn->base != INSN_NO_REG) {
		base = host_of[insn->base];
		if (base == IN_MEMORY) {
			tr_gpr_load(t, R10, insn->base);
			base = R10;
		}
	}
	if (insn->index != INSN_NO_REG) {
		index = host_of[insn->index];
		if (index == IN_MEMORY) {
			tr_gpr_load(t, R11, insn->index);
			index = R11;
		}
	}
	if (disp != (s32)disp) { /* moffs, or far from RIP */
		emit_mov_imm64(&t->e, R11, disp);
		if (base == EMIT_NO_REG)
			emit_mov(&t->e, R10, R11);
		else
			emit_lea(&t->e, R10, base, R11, 1, 0, 8);
	} else {
		emit_lea(&t->e, R10, base, index, insn->scale, disp, insn->adsize);
	}
	if (insn->adsize == 2)
		emit_movzx16(&t->e, R10, R10);
}

/* R11 = bytes that a register bit offset adds to the address; flags are clobbered. */
static void emit_bit_bias(struct tr *t, unsigned i)
{
	const struct x86_insn *insn = &t->d[i].insn;
	unsigned size = insn->opsize, shift = size == 8 ? 6 : size == 4 ? 5 : 4;

	tr_gpr_load(t, R11, insn->reg);
	if (size == 4) /* movsxd r11, r11d */
		emit_bytes(&t->e, (const u8[]){ 0x4d, 0x63, 0xdb }, 3);
	else if (size == 2) /* movsx r11, r11w */
		emit_bytes(&t->e, (const u8[]){ 0x4d, 0x0f, 0xbf, 0xdb }, 4);
	emit_shift(&t->e, true, SHIFT_SAR, R11, shift);
	emit_shift(&t->e, true, SHIFT_SHL, R11, shift - 3);
}

void tr_linear(struct tr *t, unsigned i)
{
	const struct x86_insn *insn = &t->d[i].insn;

	tr_effective(t, i, false);
	if (insn->bit_offset) {
		emit_bit_bias(t, i);
		emit_alu(&t->e, ALU_ADD, R10, R11);
		if (insn->adsize == 4)
			emit_mov32(&t->e, R10, R10);
	}
	if (insn->seg == SEG_FS || insn->seg == SEG_GS)
		emit_alu_gs(&t->e, ALU_ADD, R10, GS_SEG_BASE(insn->seg));
}

void tr_translate(struct tr *t, struct x86_insn *rec, unsigned size, bool write)
{
	struct emit *e = &t->e;
	struct slow_path *s = &t->slow[t->nslow++];

	assert(t->nslow <= ARRAY_SIZE(t->slow));
	emit_mov32(e, R11, R10);
	emit_shift(e, false, SHIFT_SHR, R11, PAGE_SHIFT - 5);
	emit_alu_imm(e, false, ALU_AND, R11, (TLB_SIZE - 1) * sizeof(struct tlb_entry));
	emit_alu_gs(e, ALU_ADD, R11, GS(tlb));
	s->write = write;
	emit_op_base(e, true, ALU_XOR << 3 | 3, R10, R11,
		     write ? offsetof(struct tlb_entry, tag_w) : offsetof(struct tlb_entry, tag_r));
	emit_alu_imm(e, true, ALU_CMP, R10, PAGE_SIZE - size);
	s->site = emit_jcc(e, CC_A);
	emit_op_base(e, true, ALU_ADD << 3 | 3, R10, R11, offsetof(struct tlb_entry, page));
	if (t->v->engine->options.verbose) {
		emit_op_gs(e, true, 0xff, 0, GS(inline_hits)); /* inc */
	}
	s->back = e->p;
	s->rec = (u64)rec;
}

void tr_slow_paths(struct tr *t)
{
	struct emit *e = &t->e;

	for (unsigned k = 0; k < t->nslow; k++) {
		struct slow_path *s = &t->slow[k];

		emit_patch(e, s->site);
		emit_op_base(e, true, ALU_XOR << 3 | 3, R10, R11,
			     s->write ? offsetof(struct tlb_entry, tag_w) : offsetof(struct tlb_entry, tag_r));
		emit_mov_imm64(e, R11, s->rec);
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
		emit_load_gs(&t->e, R10, GS(bounce_ptr));
	} else if (t->form == FORM_FAST) {
		rec = tr_record(t, i);
		tr_linear(t, i);
		tr_translate(t, rec, insn->memsize, insn->access & INSN_WRITE);
	} else {
		rec = tr_record(t, i);
		emit_mov_imm64(&t->e, R11, (u64)rec);
		emit_call_to(&t->e, t->v->stubs.mem_call);
	}
	if (insn->bit_offset) { /* the instruction itself adds the bit offset again */
		emit_bit_bias(t, i);
		emit_alu(&t->e, ALU_SUB, R10, R11);
	}
}

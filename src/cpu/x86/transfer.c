/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Far CALL, JMP and RET: through code segments, call gates, task gates and task segments. */
#include "cpu/x86/access.h"
#include "cpu/x86/event.h"
#include "cpu/x86/frame.h"
#include "cpu/x86/mode.h"
#include "cpu/x86/ops.h"

/* Types of system descriptors, SDM table "System-Segment and Gate-Descriptor Types". */
enum {
	SYS_TSS16 = 0x1,
	SYS_CALL16 = 0x4,
	SYS_TASK_GATE = 0x5,
	SYS_TSS = 0x9,
	SYS_CALL = 0xc,
};

struct far_target {
	u16 sel;
	u64 offset;
	unsigned size; /* of the operand */
	bool call;
};

static inline bool is_protected(const struct x86_cpu *cpu)
{
	return (cpu->cr0 & CR0_PE) && !cpu->f.vm;
}

/* ptr16:16, ptr16:32 in the instruction, or m16:16, m16:32, m16:64. */
static enum x86_status far_operand(struct x86_cpu *cpu, const struct x86_insn *insn,
				   struct far_target *t)
{
	enum x86_status st;
	u8 raw[10];
	unsigned i;

	t->size = insn->opsize;
	if (!insn->has_mem) {
		t->sel = insn->imm2;
		t->offset = insn->opsize == 2 ? (u16)insn->imm : (u32)insn->imm;
		return X86_OK;
	}
	if (t->size == 8 && !cpu->intel) /* AMD processors know no m16:64 */
		t->size = 4;
	st = x86_image_read(cpu, insn, raw, t->size + 2);
	if (st)
		return st;
	t->offset = 0;
	for (i = 0; i < t->size; i++)
		t->offset |= (u64)raw[i] << 8 * i;
	t->sel = (u16)(raw[i] | raw[i + 1] << 8);
	return X86_OK;
}

static enum x86_status push_return(struct x86_cpu *cpu, struct x86_stack *stack, unsigned size)
{
	u64 frame[2] = { cpu->seg[SEG_CS].sel, cpu->next_rip };

	return x86_stack_push(cpu, stack, frame, 2, size);
}

static enum x86_status far_real(struct x86_cpu *cpu, const struct far_target *t)
{
	struct x86_stack stack;
	enum x86_status st;

	if (t->offset > cpu->seg[SEG_CS].limit)
		return x86_raise_gp(cpu, 0);
	if (t->call) {
		x86_stack_current(cpu, &stack);
		st = push_return(cpu, &stack, t->size);
		if (st)
			return st;
		x86_stack_commit(cpu, &stack);
	}
	x86_load_segment_real(cpu, SEG_CS, t->sel);
	x86_mode_update(cpu);
	cpu->next_rip = t->offset;
	return X86_OK;
}

/* Straight to a code segment: the privilege does not change. */
static enum x86_status far_code(struct x86_cpu *cpu, const struct far_target *t, struct x86_desc *d)
{
	unsigned dpl = x86_desc_dpl(d);
	struct x86_stack stack;
	struct x86_seg cs;
	enum x86_status st;

	if (d->hi & DESC_C ? dpl > cpu->cpl : (t->sel & 3u) > cpu->cpl || dpl != cpu->cpl)
		return x86_raise_gp(cpu, t->sel & 0xfffc);
	if ((cpu->efer & EFER_LMA) && (d->hi & (DESC_L | DESC_DB)) == (DESC_L | DESC_DB))
		return x86_raise_gp(cpu, t->sel & 0xfffc);
	if (!(d->hi & DESC_P))
		return x86_raise_error(cpu, VEC_NP, t->sel & 0xfffc);
	x86_desc_unpack(d, t->sel, &cs);
	st = x86_desc_mark(cpu, t->sel, d, DESC_ACCESSED);
	if (st == X86_OK)
		st = x86_check_target(cpu, &cs, t->offset);
	if (st == X86_OK && t->call) {
		x86_stack_current(cpu, &stack);
		st = push_return(cpu, &stack, t->size);
		if (st == X86_OK)
			x86_stack_commit(cpu, &stack);
	}
	if (st)
		return st;
	x86_load_code(cpu, d, t->sel, cpu->cpl);
	cpu->next_rip = t->offset;
	x86_mode_update(cpu);
	return X86_OK;
}

/* The new stack of a call to a more privileged segment, with return address and parameters on it. */
static enum x86_status call_inner(struct x86_cpu *cpu, unsigned cpl, unsigned size, unsigned params,
				  struct x86_stack *stack)
{
	struct x86_stack old;
	u64 frame[36], param[32];
	enum x86_status st;
	unsigned n = 0, i;

	x86_stack_current(cpu, &old);
	frame[n++] = cpu->seg[SEG_SS].sel;
	frame[n++] = old.sp;
	if (cpu->efer & EFER_LMA) {
		*stack = (struct x86_stack){ .mask = ~0ull, .wide = true, .access = ACC_SYSTEM };
		st = x86_rsp_from_tss(cpu, cpl, &stack->sp);
		params = 0;
	} else {
		st = x86_stack_from_tss(cpu, cpl, stack);
	}
	if (st == X86_OK && params)
		st = x86_stack_pop(cpu, &old, param, params, size);
	if (st)
		return st;
	for (i = params; i-- > 0;)
		frame[n++] = param[i];
	frame[n++] = cpu->seg[SEG_CS].sel;
	frame[n++] = cpu->next_rip;
	return x86_stack_push(cpu, stack, frame, n, size);
}

/* The gate itself: 16 bytes in IA-32e mode. */
static enum x86_status gate_open(struct x86_cpu *cpu, const struct far_target *t,
				 struct x86_desc *gate, u64 *offset)
{
	bool wide = cpu->efer & EFER_LMA;
	unsigned dpl = x86_desc_dpl(gate);
	enum x86_status st;

	if (dpl < cpu->cpl || dpl < (t->sel & 3u))
		return x86_raise_gp(cpu, t->sel & 0xfffc);
	if (!(gate->hi & DESC_P))
		return x86_raise_error(cpu, VEC_NP, t->sel & 0xfffc);
	if (wide) {
		st = x86_desc_read(cpu, t->sel, true, VEC_GP, gate);
		if (st)
			return st;
	}
	*offset = (gate->hi & 0xffff0000u) | (gate->lo & 0xffff);
	if (wide)
		*offset |= (u64)gate->base_hi << 32;
	else if (x86_desc_type(gate) == SYS_CALL16)
		*offset &= 0xffff;
	return X86_OK;
}

static enum x86_status far_gate(struct x86_cpu *cpu, const struct far_target *t,
				struct x86_desc *gate)
{
	unsigned size = x86_desc_type(gate) == SYS_CALL16 ? 2 : cpu->efer & EFER_LMA ? 8 : 4;
	struct x86_stack stack;
	struct x86_seg cs;
	struct x86_desc d;
	enum x86_status st;
	unsigned cpl;
	u64 offset = 0;
	u16 sel;

	st = gate_open(cpu, t, gate, &offset);
	if (st)
		return st;
	sel = gate->lo >> 16;
	st = x86_gate_code(cpu, sel, &d, &cpl);
	if (st)
		return st;
	if (!t->call && cpl != cpu->cpl)
		return x86_raise_gp(cpu, sel & 0xfffc);
	x86_desc_unpack(&d, sel, &cs);
	st = x86_check_target(cpu, &cs, offset);
	if (st)
		return st;
	if (cpl != cpu->cpl) {
		st = call_inner(cpu, cpl, size, gate->hi & 31, &stack);
	} else if (t->call) {
		x86_stack_current(cpu, &stack);
		st = push_return(cpu, &stack, size);
	}
	if (st)
		return st;
	if (cpl != cpu->cpl && stack.wide)
		x86_seg_set_null(&cpu->seg[SEG_SS], cpl, cpl);
	else if (cpl != cpu->cpl)
		cpu->seg[SEG_SS] = stack.seg;
	if (t->call)
		x86_stack_commit(cpu, &stack);
	x86_load_code(cpu, &d, sel, cpl);
	cpu->next_rip = offset;
	x86_mode_update(cpu);
	return X86_OK;
}

static enum x86_status far_task(struct x86_cpu *cpu, const struct far_target *t,
				const struct x86_desc *d)
{
	unsigned dpl = x86_desc_dpl(d);
	u16 sel = t->sel;

	if (dpl < cpu->cpl || dpl < (sel & 3u))
		return x86_raise_gp(cpu, sel & 0xfffc);
	if (!(d->hi & DESC_P))
		return x86_raise_error(cpu, VEC_NP, sel & 0xfffc);
	if (x86_desc_type(d) == SYS_TASK_GATE)
		sel = d->lo >> 16;
	return x86_task_switch(cpu, sel, t->call ? TASK_CALL : TASK_JMP, cpu->next_rip, false, 0);
}

static enum x86_status far_transfer(struct x86_cpu *cpu, const struct x86_insn *insn, bool call)
{
	struct far_target t = { .call = call };
	bool long_mode = cpu->efer & EFER_LMA;
	struct x86_desc d;
	enum x86_status st;

	st = far_operand(cpu, insn, &t);
	if (st)
		return st;
	if (!is_protected(cpu))
		return far_real(cpu, &t);
	if (x86_sel_is_null(t.sel))
		return x86_raise_gp(cpu, 0);
	st = x86_desc_read(cpu, t.sel, false, VEC_GP, &d);
	if (st)
		return st;
	if (d.hi & DESC_S) {
		if (!(d.hi & DESC_CODE))
			return x86_raise_gp(cpu, t.sel & 0xfffc);
		return far_code(cpu, &t, &d);
	}
	switch (x86_desc_type(&d)) {
	case SYS_CALL:
		return far_gate(cpu, &t, &d);
	case SYS_CALL16:
		if (!long_mode)
			return far_gate(cpu, &t, &d);
		break;
	case SYS_TASK_GATE:
	case SYS_TSS16:
	case SYS_TSS:
		if (!long_mode)
			return far_task(cpu, &t, &d);
		break;
	}
	return x86_raise_gp(cpu, t.sel & 0xfffc);
}

enum x86_status x86_op_call_far(struct x86_cpu *cpu, const struct x86_insn *insn)
{
	return far_transfer(cpu, insn, true);
}

enum x86_status x86_op_jmp_far(struct x86_cpu *cpu, const struct x86_insn *insn)
{
	return far_transfer(cpu, insn, false);
}

static enum x86_status ret_real(struct x86_cpu *cpu, const u64 *v, struct x86_stack *stack)
{
	if (v[0] > cpu->seg[SEG_CS].limit)
		return x86_raise_gp(cpu, 0);
	x86_stack_commit(cpu, stack);
	x86_load_segment_real(cpu, SEG_CS, (u16)v[1]);
	x86_mode_update(cpu);
	cpu->next_rip = v[0];
	return X86_OK;
}

enum x86_status x86_op_ret_far(struct x86_cpu *cpu, const struct x86_insn *insn)
{
	/* CA has the bytes to be released, CB none. */
	u64 release = insn->opcode == 0xca ? (u16)insn->imm : 0;
	struct x86_stack stack;
	struct x86_return r;
	enum x86_status st;
	u64 v[2];

	x86_stack_current(cpu, &stack);
	st = x86_stack_pop(cpu, &stack, v, 2, insn->opsize);
	if (st)
		return st;
	stack.sp = (stack.sp + release) & stack.mask;
	if (!is_protected(cpu))
		return ret_real(cpu, v, &stack);
	st = x86_return_code(cpu, (u16)v[1], v[0], &r);
	if (st)
		return st;
	if (r.cpl > cpu->cpl) {
		u64 outer[2];

		st = x86_stack_pop(cpu, &stack, outer, 2, insn->opsize);
		if (st == X86_OK)
			st = x86_return_stack(cpu, (u16)outer[1], outer[0] + release, &r);
		if (st)
			return st;
		x86_return_outer(cpu, &r);
	} else {
		x86_stack_commit(cpu, &stack);
		x86_load_code(cpu, &r.cs, (u16)v[1], r.cpl);
		x86_mode_update(cpu);
	}
	cpu->next_rip = r.rip;
	return X86_OK;
}

/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* IRET in all modes, and the checks that far returns share with it. */
#include "cpu/x86/access.h"
#include "cpu/x86/event.h"
#include "cpu/x86/frame.h"
#include "cpu/x86/mode.h"
#include "cpu/x86/ops.h"

enum x86_status x86_return_code(struct x86_cpu *cpu, u16 sel, u64 rip, struct x86_return *r)
{
	bool long_mode = cpu->efer & EFER_LMA;
	unsigned rpl = sel & 3, dpl;
	struct x86_seg cs;
	enum x86_status st;

	if (x86_sel_is_null(sel))
		return x86_raise_gp(cpu, 0);
	st = x86_desc_read(cpu, sel, false, VEC_GP, &r->cs);
	if (unlikely(st))
		return st;
	dpl = x86_desc_dpl(&r->cs);
	if ((r->cs.hi & (DESC_S | DESC_CODE)) != (DESC_S | DESC_CODE) || rpl < cpu->cpl ||
	    (r->cs.hi & DESC_C ? dpl > rpl : dpl != rpl) ||
	    (long_mode && (r->cs.hi & (DESC_L | DESC_DB)) == (DESC_L | DESC_DB)))
		return x86_raise_gp(cpu, sel & 0xfffc);
	if (!(r->cs.hi & DESC_P))
		return x86_raise_error(cpu, VEC_NP, sel & 0xfffc);
	st = x86_desc_mark(cpu, sel, &r->cs, DESC_ACCESSED);
	if (unlikely(st))
		return st;
	x86_desc_unpack(&r->cs, sel, &cs);
	r->cs_sel = sel;
	r->cpl = rpl;
	r->rip = rip;
	return x86_check_target(cpu, &cs, rip);
}

enum x86_status x86_return_stack(struct x86_cpu *cpu, u16 sel, u64 sp, struct x86_return *r)
{
	bool to_64 = (cpu->efer & EFER_LMA) && (r->cs.hi & DESC_L);
	struct x86_desc d;
	enum x86_status st;

	r->sp = sp;
	if (x86_sel_is_null(sel)) {
		if (!to_64 || r->cpl == 3 || (sel & 3u) != r->cpl)
			return x86_raise_gp(cpu, 0);
		r->ss = cpu->seg[SEG_SS];
		x86_seg_set_null(&r->ss, sel, r->cpl);
		return X86_OK;
	}
	st = x86_desc_read(cpu, sel, false, VEC_GP, &d);
	if (unlikely(st))
		return st;
	if ((sel & 3u) != r->cpl || x86_desc_dpl(&d) != r->cpl ||
	    (d.hi & (DESC_S | DESC_CODE | DESC_W)) != (DESC_S | DESC_W))
		return x86_raise_gp(cpu, sel & 0xfffc);
	if (!(d.hi & DESC_P))
		return x86_raise_error(cpu, VEC_SS, sel & 0xfffc);
	st = x86_desc_mark(cpu, sel, &d, DESC_ACCESSED);
	x86_desc_unpack(&d, sel, &r->ss);
	return st;
}

/* SDM "RET", return to outer privilege level: data segments that the new CPL may not use become null. */
static void segments_drop(struct x86_cpu *cpu, unsigned cpl)
{
	static const u8 segs[] = { SEG_ES, SEG_DS, SEG_FS, SEG_GS };
	unsigned i;

	for (i = 0; i < ARRAY_SIZE(segs); i++) {
		struct x86_seg *s = &cpu->seg[segs[i]];
		bool conforming = (s->attr & 0xc) == 0xc;
		unsigned dpl = (s->attr & SA_DPL) >> SA_DPL_SHIFT;

		/* A null FS or GS keeps its base: that is how 64-bit systems use it. */
		if (!(s->attr & SA_UNUSABLE) && !conforming && dpl < cpl)
			x86_seg_set_null(s, 0, 0);
	}
}

void x86_return_outer(struct x86_cpu *cpu, const struct x86_return *r)
{
	bool to_64 = (cpu->efer & EFER_LMA) && (r->cs.hi & DESC_L);

	if (r->cpl > cpu->cpl)
		segments_drop(cpu, r->cpl);
	x86_load_code(cpu, &r->cs, r->cs_sel, r->cpl);
	cpu->seg[SEG_SS] = r->ss;
	x86_gpr_write(cpu, RSP, r->sp, to_64 ? 8 : r->ss.attr & SA_DB ? 4 : 2);
	x86_mode_update(cpu);
}

/* Change the flags in @mask to those of @image; bit 1 and reserved bits do not exist here. */
static inline void flags_merge(struct x86_cpu *cpu, u64 image, u64 mask)
{
	x86_rflags_set(cpu, (x86_rflags(cpu) & ~mask) | (image & mask));
}

static inline void nmi_unblock(struct x86_cpu *cpu)
{
	if (unlikely(cpu->event.nmi_blocked)) {
		cpu->event.nmi_blocked = false;
		x86_window_opened(cpu);
	}
}

static enum x86_status iret_real(struct x86_cpu *cpu, unsigned size)
{
	u64 mask = FL_ARITH | FL_TF | FL_IF | FL_DF | FL_IOPL | FL_NT;
	struct x86_stack stack;
	enum x86_status st;
	u64 v[3];

	x86_stack_current(cpu, &stack);
	st = x86_stack_pop(cpu, &stack, v, 3, size);
	if (st)
		return st;
	if (v[0] > cpu->seg[SEG_CS].limit)
		return x86_raise_gp(cpu, 0);
	if (size == 4)
		mask |= FL_RF | FL_AC | FL_ID;
	if (cpu->f.vm)
		mask &= ~(u64)FL_IOPL;
	x86_stack_commit(cpu, &stack);
	x86_load_segment_real(cpu, SEG_CS, (u16)v[1]);
	flags_merge(cpu, v[2], mask);
	if (size == 2)
		cpu->f.rf = 0;
	x86_mode_update(cpu);
	cpu->next_rip = v[0];
	nmi_unblock(cpu);
	return X86_OK;
}

/* SDM "IRET": v8086 mode with VME and IOPL below 3, 16-bit operands: VIF stands for IF. */
static enum x86_status iret_vme(struct x86_cpu *cpu)
{
	u64 mask = FL_ARITH | FL_TF | FL_DF | FL_NT;
	struct x86_stack stack;
	enum x86_status st;
	u64 v[3];

	x86_stack_current(cpu, &stack);
	st = x86_stack_pop(cpu, &stack, v, 3, 2);
	if (st)
		return st;
	if (v[0] > cpu->seg[SEG_CS].limit || (v[2] & FL_TF) || ((v[2] & FL_IF) && cpu->f.vip))
		return x86_raise_gp(cpu, 0);
	x86_stack_commit(cpu, &stack);
	x86_load_segment_real(cpu, SEG_CS, (u16)v[1]);
	flags_merge(cpu, v[2], mask);
	cpu->f.vif = v[2] & FL_IF ? 1 : 0;
	x86_mode_update(cpu);
	cpu->next_rip = v[0];
	nmi_unblock(cpu);
	return X86_OK;
}

static enum x86_status iret_v8086(struct x86_cpu *cpu, unsigned size)
{
	if (cpu->f.iopl == 3)
		return iret_real(cpu, size);
	if (size == 2 && (cpu->cr4 & CR4_VME))
		return iret_vme(cpu);
	return x86_raise_gp(cpu, 0);
}

/* The flags that IRET of this size may change at the present CPL. */
static inline u64 iret_flag_mask(const struct x86_cpu *cpu, unsigned size)
{
	u64 mask = FL_ARITH | FL_TF | FL_DF | FL_NT;

	if (size != 2)
		mask |= FL_RF | FL_AC | FL_ID;
	if (cpu->cpl <= cpu->f.iopl)
		mask |= FL_IF;
	if (cpu->cpl == 0) {
		mask |= FL_IOPL;
		if (size != 2)
			mask |= FL_VIF | FL_VIP;
	}
	return mask;
}

/* From CPL 0 with VM in the popped EFLAGS: v[0..2] are EIP, CS, EFLAGS. */
static enum x86_status iret_to_v8086(struct x86_cpu *cpu, struct x86_stack *stack, const u64 *v)
{
	static const u8 order[] = { SEG_ES, SEG_DS, SEG_FS, SEG_GS };
	enum x86_status st;
	u64 w[6]; /* ESP, SS, ES, DS, FS, GS */
	unsigned i;

	st = x86_stack_pop(cpu, stack, w, 6, 4);
	if (st)
		return st;
	if (v[0] > 0xffff)
		return x86_raise_gp(cpu, 0);
	x86_rflags_set(cpu, v[2]);
	x86_load_segment_real(cpu, SEG_CS, (u16)v[1]);
	x86_load_segment_real(cpu, SEG_SS, (u16)w[1]);
	for (i = 0; i < ARRAY_SIZE(order); i++)
		x86_load_segment_real(cpu, order[i], (u16)w[2 + i]);
	x86_gpr_write(cpu, RSP, w[0], 4);
	cpu->next_rip = v[0];
	nmi_unblock(cpu);
	x86_mode_update(cpu);
	return X86_OK;
}

static enum x86_status iret_protected(struct x86_cpu *cpu, unsigned size)
{
	bool long_64 = x86_is_64(cpu);
	struct x86_stack stack;
	struct x86_return r;
	enum x86_status st;
	u64 v[5], mask;

	x86_stack_current(cpu, &stack);
	/* In 64-bit mode SS:RSP are always on the frame. */
	st = x86_stack_pop(cpu, &stack, v, long_64 ? 5 : 3, size);
	if (unlikely(st))
		return st;
	if (unlikely((v[2] & FL_VM) && size == 4 && cpu->cpl == 0 && !(cpu->efer & EFER_LMA)))
		return iret_to_v8086(cpu, &stack, v);
	st = x86_return_code(cpu, (u16)v[1], v[0], &r);
	if (st == X86_OK && !long_64 && r.cpl > cpu->cpl)
		st = x86_stack_pop(cpu, &stack, v + 3, 2, size);
	if (st == X86_OK && (long_64 || r.cpl > cpu->cpl))
		st = x86_return_stack(cpu, (u16)v[4], v[3], &r);
	if (unlikely(st))
		return st;

	mask = iret_flag_mask(cpu, size);
	flags_merge(cpu, v[2], mask);
	if (long_64 || r.cpl > cpu->cpl) {
		x86_return_outer(cpu, &r);
	} else {
		x86_stack_commit(cpu, &stack);
		x86_load_code(cpu, &r.cs, r.cs_sel, r.cpl);
		x86_mode_update(cpu);
	}
	cpu->next_rip = r.rip;
	nmi_unblock(cpu);
	return X86_OK;
}

enum x86_status x86_op_iret(struct x86_cpu *cpu, const struct x86_insn *insn)
{
	if (!(cpu->cr0 & CR0_PE))
		return iret_real(cpu, insn->opsize);
	if (unlikely(cpu->f.vm))
		return iret_v8086(cpu, insn->opsize);
	if (unlikely(cpu->f.nt)) {
		if (cpu->efer & EFER_LMA)
			return x86_raise_gp(cpu, 0);
		return x86_task_return(cpu, cpu->next_rip);
	}
	return iret_protected(cpu, insn->opsize);
}

/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Entering a handler: the real-mode vector table, and interrupt, trap and task gates of the IDT. */
#include "cpu/x86/access.h"
#include "cpu/x86/event.h"
#include "cpu/x86/frame.h"
#include "cpu/x86/mode.h"

enum {
	GATE_TASK = 0x5,
	GATE_INT16 = 0x6,
	GATE_TRAP16 = 0x7,
	GATE_INT = 0xe,
	GATE_TRAP = 0xf,
};

struct gate {
	u64 offset;
	u16 sel;
	u8 type, ist;
};

/* IF, TF and what else every entry clears. */
static void flags_enter(struct x86_cpu *cpu, bool clear_if)
{
	cpu->f.tf = 0;
	cpu->f.nt = 0;
	cpu->f.rf = 0;
	cpu->f.vm = 0;
	if (clear_if)
		cpu->f.intr = 0;
	cpu->shadow = 0;
	x86_mode_update(cpu);
	if (cpu->f.intr)
		x86_window_opened(cpu);
}

enum x86_status x86_event_real(struct x86_cpu *cpu, const struct x86_event *ev, u64 table)
{
	u64 frame[3] = { (u16)ev->rflags, cpu->seg[SEG_CS].sel, (u16)ev->rip };
	struct x86_stack stack;
	enum x86_status st;
	u16 vector[2];

	st = x86_read(cpu, (u32)(table + ev->vector * 4u), vector, 4, ACC_SYSTEM);
	if (st)
		return st;
	x86_stack_current(cpu, &stack);
	st = x86_stack_push(cpu, &stack, frame, 3, 2);
	if (st)
		return st;
	x86_stack_commit(cpu, &stack);
	x86_load_segment_real(cpu, SEG_CS, vector[1]);
	cpu->next_rip = vector[0];
	cpu->f.tf = 0;
	cpu->f.rf = 0;
	cpu->shadow = 0;
	if (cpu->f.vm && cpu->f.iopl < 3) {
		cpu->f.vif = 0;
	} else {
		cpu->f.intr = 0;
		if (!cpu->f.vm)
			cpu->f.ac = 0;
	}
	x86_mode_update(cpu);
	return X86_OK;
}

/* Read and check the gate; @wide: 16-byte gates of IA-32e mode. */
static enum x86_status gate_read(struct x86_cpu *cpu, const struct x86_event *ev, bool wide,
				 struct gate *g)
{
	unsigned size = wide ? 16 : 8;
	u32 offset = ev->vector * size;
	u32 error = ev->vector * 8u + 2;
	u32 raw[4] = { 0 };
	enum x86_status st;
	gva_t lin = cpu->idt.base + offset;

	if (unlikely(offset + size - 1 > cpu->idt.limit))
		return x86_raise_gp(cpu, error);
	st = x86_read(cpu, wide ? lin : (u32)lin, raw, size, ACC_SYSTEM);
	if (unlikely(st))
		return st;
	g->type = raw[1] >> 8 & 0x1f;
	if (wide ? (g->type | 1) != GATE_TRAP
		 : g->type != GATE_TASK && (g->type & ~9u) != GATE_INT16)
		return x86_raise_gp(cpu, error);
	if (ev->kind == EVENT_SOFT && (raw[1] >> 13 & 3) < cpu->cpl)
		return x86_raise_gp(cpu, error);
	if (!(raw[1] & BIT(15)))
		return x86_raise_error(cpu, VEC_NP, error);
	g->offset = (u64)raw[2] << 32 | (raw[1] & 0xffff0000u) | (raw[0] & 0xffff);
	if (!(g->type & 8))
		g->offset &= 0xffff;
	g->sel = raw[0] >> 16;
	g->ist = raw[1] & 7;
	return X86_OK;
}

static enum x86_status enter_long(struct x86_cpu *cpu, const struct x86_event *ev)
{
	u64 rsp = x86_gpr(cpu, RSP);
	struct x86_stack stack = { .mask = ~0ull, .wide = true };
	u64 frame[6];
	struct x86_desc d;
	enum x86_status st;
	struct gate g;
	unsigned cpl;

	st = gate_read(cpu, ev, true, &g);
	if (likely(st == X86_OK))
		st = x86_gate_code(cpu, g.sel, &d, &cpl);
	if (unlikely(st))
		return st;
	stack.sp = rsp;
	if (g.ist)
		st = x86_rsp_from_tss(cpu, 3 + g.ist, &stack.sp);
	else if (cpl != cpu->cpl)
		st = x86_rsp_from_tss(cpu, cpl, &stack.sp);
	if (unlikely(st))
		return st;
	if (!x86_is_canonical(cpu, g.offset))
		return x86_raise_gp(cpu, 0);

	stack.sp &= ~0xfull;
	stack.access = cpl < cpu->cpl ? ACC_SYSTEM : 0;
	frame[0] = cpu->seg[SEG_SS].sel;
	frame[1] = rsp;
	frame[2] = ev->rflags;
	frame[3] = cpu->seg[SEG_CS].sel;
	frame[4] = ev->rip;
	frame[5] = ev->error;
	st = x86_stack_push(cpu, &stack, frame, ev->has_error ? 6 : 5, 8);
	if (unlikely(st))
		return st;

	if (cpl != cpu->cpl)
		x86_seg_set_null(&cpu->seg[SEG_SS], cpl, cpl);
	x86_load_code(cpu, &d, g.sel, cpl);
	x86_gpr_write(cpu, RSP, stack.sp, 8);
	cpu->next_rip = g.offset;
	flags_enter(cpu, g.type == GATE_INT);
	return X86_OK;
}

static enum x86_status enter_task(struct x86_cpu *cpu, const struct x86_event *ev, u16 sel)
{
	/* The task switch saves cpu's flags: give it the image with RF. */
	u8 rf = cpu->f.rf;
	enum x86_status st;

	cpu->f.rf = ev->rflags >> 16 & 1;
	st = x86_task_switch(cpu, sel, TASK_GATE, ev->rip, ev->has_error, ev->error);
	if (st)
		cpu->f.rf = rf;
	else
		cpu->shadow = 0;
	return st;
}

/* Fill the frame of a protected-mode entry in the order of pushing; returns the number of values. */
static unsigned frame_fill(const struct x86_cpu *cpu, const struct x86_event *ev, bool outer,
			   u64 *f)
{
	static const u8 data_segs[] = { SEG_GS, SEG_FS, SEG_DS, SEG_ES };
	unsigned n = 0, i;

	if (cpu->f.vm)
		for (i = 0; i < 4; i++)
			f[n++] = cpu->seg[data_segs[i]].sel;
	if (outer) {
		f[n++] = cpu->seg[SEG_SS].sel;
		f[n++] = x86_gpr_sized(cpu, RSP, 4);
	}
	f[n++] = (u32)ev->rflags;
	f[n++] = cpu->seg[SEG_CS].sel;
	f[n++] = (u32)ev->rip;
	if (ev->has_error)
		f[n++] = ev->error;
	return n;
}

static void vm86_leave(struct x86_cpu *cpu)
{
	static const u8 data_segs[] = { SEG_GS, SEG_FS, SEG_DS, SEG_ES };
	unsigned i;

	for (i = 0; i < 4; i++)
		x86_seg_set_null(&cpu->seg[data_segs[i]], 0, 0);
}

static enum x86_status enter_protected(struct x86_cpu *cpu, const struct x86_event *ev)
{
	struct x86_stack stack;
	struct x86_seg cs;
	struct x86_desc d;
	enum x86_status st;
	struct gate g;
	unsigned cpl, n;
	u64 frame[10];
	bool outer;

	st = gate_read(cpu, ev, false, &g);
	if (st)
		return st;
	if (g.type == GATE_TASK)
		return enter_task(cpu, ev, g.sel);
	st = x86_gate_code(cpu, g.sel, &d, &cpl);
	if (st)
		return st;
	outer = cpl != cpu->cpl;
	if (cpu->f.vm && cpl)
		return x86_raise_gp(cpu, g.sel & 0xfffc);
	if (outer)
		st = x86_stack_from_tss(cpu, cpl, &stack);
	else
		x86_stack_current(cpu, &stack);
	x86_desc_unpack(&d, g.sel, &cs);
	n = frame_fill(cpu, ev, outer, frame);
	if (st == X86_OK)
		st = x86_check_target(cpu, &cs, g.offset);
	if (st == X86_OK)
		st = x86_stack_push(cpu, &stack, frame, n, g.type & 8 ? 4 : 2);
	if (st)
		return st;

	if (cpu->f.vm)
		vm86_leave(cpu);
	if (outer)
		cpu->seg[SEG_SS] = stack.seg;
	x86_stack_commit(cpu, &stack);
	x86_load_code(cpu, &d, g.sel, cpl);
	cpu->next_rip = g.offset;
	flags_enter(cpu, !(g.type & 1));
	return X86_OK;
}

enum x86_status x86_event_enter(struct x86_cpu *cpu, const struct x86_event *ev)
{
	const u32 with_ext = BIT(VEC_TS) | BIT(VEC_NP) | BIT(VEC_SS) | BIT(VEC_GP);
	enum x86_status st;

	if (likely(cpu->efer & EFER_LMA)) {
		st = enter_long(cpu, ev);
	} else if (cpu->cr0 & CR0_PE) {
		st = enter_protected(cpu, ev);
	} else {
		if (ev->vector * 4u + 3 > cpu->idt.limit)
			return x86_raise_gp(cpu, 0);
		return x86_event_real(cpu, ev, cpu->idt.base);
	}
	/* EXT: the fault belongs to an event from outside the program, not to INT n, INT3 or INTO. */
	if (unlikely(st == X86_FAULT) && ev->kind != EVENT_SOFT &&
	    (with_ext >> cpu->exc.vector & 1))
		cpu->exc.error |= 1;
	return st;
}

/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Stacks and code segments of far transfers and events, checked before anything is loaded. */
#include "cpu/x86/frame.h"
#include "cpu/x86/align.h"
#include "cpu/x86/event.h"
#include "cpu/x86/mode.h"

/* 31 parameters of a call gate, SS, SP, CS, IP. */
#define FRAME_MAX (36 * 8)

void x86_stack_current(const struct x86_cpu *cpu, struct x86_stack *s)
{
	unsigned size = x86_stack_size(cpu);

	s->seg = cpu->seg[SEG_SS];
	s->mask = size == 8 ? ~0ull : size == 4 ? 0xffffffffull : 0xffffull;
	s->sp = x86_gpr_sized(cpu, RSP, size);
	s->access = 0;
	s->wide = size == 8;
	s->fresh = false;
}

void x86_stack_commit(struct x86_cpu *cpu, const struct x86_stack *s)
{
	x86_gpr_write(cpu, RSP, s->sp, s->mask == 0xffff ? 2 : s->mask == ~0ull ? 8 : 4);
}

static enum x86_status stack_linear(struct x86_cpu *cpu, const struct x86_stack *s, u64 ea,
				    unsigned size, unsigned access, gva_t *lin)
{
	enum x86_status st;

	if (likely(s->wide)) {
		if (unlikely(!x86_is_canonical(cpu, ea) || !x86_is_canonical(cpu, ea + size - 1)))
			return x86_raise_error(cpu, VEC_SS, 0);
		*lin = ea;
		return X86_OK;
	}
	st = x86_linear_legacy(cpu, &s->seg, true, ea, size, access, lin);
	if (st == X86_FAULT && s->fresh)
		cpu->exc.error = s->seg.sel & 0xfffc;
	return st;
}

/* Whether [sp, sp + size) wraps inside a 16- or 32-bit stack. */
static inline bool stack_wraps(const struct x86_stack *s, u64 sp, unsigned size)
{
	return !s->wide && sp + size - 1 > s->mask;
}

static inline void frame_store(u8 *at, u64 v, unsigned size)
{
	unsigned i;

	if (size == 8)
		__builtin_memcpy(at, &v, 8);
	else
		for (i = 0; i < size; i++)
			at[i] = (u8)(v >> 8 * i);
}

static inline u64 frame_load(const u8 *at, unsigned size)
{
	u64 v = 0;
	unsigned i;

	if (size == 8)
		__builtin_memcpy(&v, at, 8);
	else
		for (i = 0; i < size; i++)
			v |= (u64)at[i] << 8 * i;
	return v;
}

/* Datum by datum, as the hardware does always: twice, to find faults before the first store. */
static enum x86_status push_wrapping(struct x86_cpu *cpu, struct x86_stack *s, const u64 *v,
				     unsigned n, unsigned size)
{
	unsigned i, pass;
	u64 sp = s->sp;

	for (pass = 0; pass < 2; pass++) {
		sp = s->sp;
		for (i = 0; i < n; i++) {
			enum x86_status st;
			gva_t lin;

			sp = (sp - size) & s->mask;
			st = stack_linear(cpu, s, sp, size, ACC_WRITE, &lin);
			if (st == X86_OK)
				st = pass ? x86_write(cpu, lin, &v[i], size, s->access)
					  : x86_probe(cpu, lin, size, s->access | ACC_WRITE);
			if (st)
				return st;
		}
	}
	s->sp = sp;
	return X86_OK;
}

enum x86_status x86_stack_push(struct x86_cpu *cpu, struct x86_stack *s, const u64 *v, unsigned n,
			       unsigned size)
{
	unsigned i, total = n * size;
	u64 sp = (s->sp - total) & s->mask;
	u8 frame[FRAME_MAX];
	enum x86_status st;
	gva_t lin;

	if (unlikely(stack_wraps(s, sp, total)))
		return push_wrapping(cpu, s, v, n, size);
	st = stack_linear(cpu, s, sp, total, ACC_WRITE, &lin);
	if (st == X86_OK)
		st = x86_align_data(cpu, lin, size, s->access);
	if (st)
		return st;
	for (i = 0; i < n; i++)
		frame_store(frame + (n - 1 - i) * size, v[i], size);
	st = x86_write(cpu, lin, frame, total, s->access | ACC_UNALIGNED);
	if (st == X86_OK)
		s->sp = sp;
	return st;
}

enum x86_status x86_stack_pop(struct x86_cpu *cpu, struct x86_stack *s, u64 *v, unsigned n,
			      unsigned size)
{
	unsigned i, total = n * size;
	u8 frame[FRAME_MAX];
	enum x86_status st;
	gva_t lin;

	/* The stack pointer wraps between data, not inside one: there the segment's limit decides. */
	if (unlikely(n > 1 && stack_wraps(s, s->sp, total))) {
		for (i = 0; i < n; i++) {
			st = x86_stack_pop(cpu, s, v + i, 1, size);
			if (st)
				return st;
		}
		return X86_OK;
	}
	st = stack_linear(cpu, s, s->sp, total, ACC_READ, &lin);
	if (st == X86_OK)
		st = x86_align_data(cpu, lin, size, s->access);
	if (st == X86_OK)
		st = x86_read(cpu, lin, frame, total, s->access | ACC_UNALIGNED);
	if (st)
		return st;
	for (i = 0; i < n; i++)
		v[i] = frame_load(frame + i * size, size);
	s->sp = (s->sp + total) & s->mask;
	return X86_OK;
}

static enum x86_status tss_read(struct x86_cpu *cpu, unsigned offset, void *buf, unsigned size)
{
	const struct x86_seg *tr = &cpu->seg[SEG_TR];

	if (offset + size - 1 > tr->limit)
		return x86_raise_error(cpu, VEC_TS, tr->sel & 0xfffc);
	return x86_read(cpu, tr->base + offset, buf, size, ACC_SYSTEM);
}

enum x86_status x86_rsp_from_tss(struct x86_cpu *cpu, unsigned index, u64 *rsp)
{
	enum x86_status st = tss_read(cpu, 4 + 8 * index, rsp, 8);

	if (st == X86_OK && !x86_is_canonical(cpu, *rsp))
		return x86_raise_error(cpu, VEC_SS, 0);
	return st;
}

enum x86_status x86_stack_from_tss(struct x86_cpu *cpu, unsigned dpl, struct x86_stack *s)
{
	bool wide = cpu->seg[SEG_TR].attr & 0x8;
	unsigned half = wide ? 4 : 2;
	struct x86_desc d;
	enum x86_status st;
	u16 word[4] = { 0 };
	u16 sel;

	st = tss_read(cpu, half + 2 * half * dpl, word, wide ? 6 : 4);
	if (st)
		return st;
	sel = wide ? word[2] : word[1];
	s->sp = wide ? word[0] | (u32)word[1] << 16 : word[0];
	if (x86_sel_is_null(sel))
		return x86_raise_error(cpu, VEC_TS, 0);
	st = x86_desc_read(cpu, sel, false, VEC_TS, &d);
	if (st)
		return st;
	if ((sel & 3u) != dpl || x86_desc_dpl(&d) != dpl ||
	    (d.hi & (DESC_S | DESC_CODE | DESC_W)) != (DESC_S | DESC_W))
		return x86_raise_error(cpu, VEC_TS, sel & 0xfffc);
	if (!(d.hi & DESC_P))
		return x86_raise_error(cpu, VEC_SS, sel & 0xfffc);
	st = x86_desc_mark(cpu, sel, &d, DESC_ACCESSED);
	x86_desc_unpack(&d, sel, &s->seg);
	s->mask = d.hi & DESC_DB ? 0xffffffffull : 0xffffull;
	s->sp &= s->mask;
	s->access = dpl < 3 ? ACC_SYSTEM : 0;
	s->wide = false;
	s->fresh = true;
	return st;
}

enum x86_status x86_gate_code(struct x86_cpu *cpu, u16 sel, struct x86_desc *d, unsigned *cpl)
{
	bool long_mode = cpu->efer & EFER_LMA;
	enum x86_status st;

	if (x86_sel_is_null(sel))
		return x86_raise_gp(cpu, 0);
	st = x86_desc_read(cpu, sel, false, VEC_GP, d);
	if (unlikely(st))
		return st;
	d->base_hi = 0;
	if ((d->hi & (DESC_S | DESC_CODE)) != (DESC_S | DESC_CODE) || x86_desc_dpl(d) > cpu->cpl ||
	    (long_mode && (d->hi & (DESC_L | DESC_DB)) != DESC_L))
		return x86_raise_gp(cpu, sel & 0xfffc);
	if (!(d->hi & DESC_P))
		return x86_raise_error(cpu, VEC_NP, sel & 0xfffc);
	*cpl = d->hi & DESC_C ? cpu->cpl : x86_desc_dpl(d);
	return x86_desc_mark(cpu, sel, d, DESC_ACCESSED);
}

enum x86_status x86_check_target(struct x86_cpu *cpu, const struct x86_seg *cs, u64 rip)
{
	bool ok;

	if ((cpu->efer & EFER_LMA) && (cs->attr & SA_L))
		ok = x86_is_canonical(cpu, rip);
	else
		ok = rip <= cs->limit;
	return ok ? X86_OK : x86_raise_gp(cpu, 0);
}

void x86_load_code(struct x86_cpu *cpu, const struct x86_desc *d, u16 sel, unsigned cpl)
{
	x86_desc_unpack(d, (sel & ~3u) | cpl, &cpu->seg[SEG_CS]);
}

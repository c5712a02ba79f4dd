/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Hardware task switches between 32- and 16-bit task state segments. */
#include "cpu/x86/access.h"
#include "cpu/x86/control.h"
#include "cpu/x86/event.h"
#include "cpu/x86/frame.h"
#include "cpu/x86/mode.h"

/* Fields of both layouts in units of their width (4 or 2 bytes); SDM "Task-State Segment". */
struct tss_layout {
	u8 width;
	u8 size; /* least limit + 1 */
	u8 ip, flags, gpr, seg, ldt;
	u8 nsegs;
};

static const struct tss_layout layout32 = { 4, 104, 8, 9, 10, 18, 24, 6 };
static const struct tss_layout layout16 = { 2, 44, 7, 8, 9, 17, 21, 4 };

#define TSS32_CR3  7
#define TSS32_TRAP 25
#define TSS_WORDS  26

#define DR6_BT	   BIT(15)
#define DR7_LOCAL  0x155u /* L0-L3 and LE */
#define TYPE_TSS32 0x8
#define TYPE_BUSY  0x2

struct task {
	const struct tss_layout *layout;
	struct x86_desc desc;
	u16 sel;
	u32 word[TSS_WORDS];
};

static inline const struct tss_layout *layout_of(unsigned type)
{
	return type & TYPE_TSS32 ? &layout32 : &layout16;
}

/* Find, check and read the TSS to be entered. */
static enum x86_status task_read(struct x86_cpu *cpu, u16 sel, enum x86_task_switch why,
				 struct task *t)
{
	unsigned vector = why == TASK_IRET ? VEC_TS : VEC_GP;
	u8 raw[104] = { 0 };
	struct x86_seg seg;
	enum x86_status st;
	unsigned type, i;

	if (sel & 4)
		return x86_raise_error(cpu, vector, sel & 0xfffc);
	st = x86_desc_read(cpu, sel, false, vector, &t->desc);
	if (st)
		return st;
	type = x86_desc_type(&t->desc);
	if ((t->desc.hi & DESC_S) || (type & 5) != 1 || !(type & TYPE_BUSY) != (why != TASK_IRET) ||
	    x86_sel_is_null(sel))
		return x86_raise_error(cpu, vector, sel & 0xfffc);
	if (!(t->desc.hi & DESC_P))
		return x86_raise_error(cpu, VEC_NP, sel & 0xfffc);
	x86_desc_unpack(&t->desc, sel, &seg);
	t->layout = layout_of(type);
	t->sel = sel;
	if (seg.limit + 1ull < t->layout->size)
		return x86_raise_error(cpu, VEC_TS, sel & 0xfffc);
	st = x86_read(cpu, seg.base, raw, t->layout->size, ACC_SYSTEM);
	for (i = 0; i < TSS_WORDS && i * t->layout->width < t->layout->size; i++)
		t->word[i] = t->layout->width == 4
				     ? raw[4 * i] | raw[4 * i + 1] << 8 | raw[4 * i + 2] << 16 |
					       (u32)raw[4 * i + 3] << 24
				     : (u32)(raw[2 * i] | raw[2 * i + 1] << 8);
	return st;
}

/* Write the registers from EIP to the last segment into the current TSS. */
static enum x86_status task_save(struct x86_cpu *cpu, u32 ip, u32 flags)
{
	const struct x86_seg *tr = &cpu->seg[SEG_TR];
	const struct tss_layout *l = layout_of(tr->attr);
	u32 word[TSS_WORDS] = { 0 };
	u8 raw[64];
	unsigned i, k, n = 10 + l->nsegs;

	word[0] = ip;
	word[1] = flags;
	for (i = 0; i < 8; i++)
		word[2 + i] = x86_gpr_sized(cpu, i, 4);
	for (i = 0; i < l->nsegs; i++)
		word[10 + i] = cpu->seg[i].sel;
	for (i = 0; i < n; i++)
		for (k = 0; k < l->width; k++)
			raw[i * l->width + k] = (u8)(word[i] >> 8 * k);
	return x86_write(cpu, (u32)(tr->base + l->ip * l->width), raw, n * l->width, ACC_SYSTEM);
}

/* The busy bit of the task that is left by JMP or IRET. */
static enum x86_status busy_clear(struct x86_cpu *cpu, u16 sel)
{
	enum x86_status st;
	void *host;
	gva_t lin;
	u8 byte;

	if (!x86_desc_find(cpu, sel, 8, &lin))
		return X86_OK;
	st = x86_host(cpu, lin + 5, 1, ACC_WRITE | ACC_SYSTEM, &host, NULL, NULL);
	if (st)
		return st;
	if (host) {
		__atomic_fetch_and((u8 *)host, (u8)~TYPE_BUSY, __ATOMIC_SEQ_CST);
		return X86_OK;
	}
	st = x86_read(cpu, lin + 5, &byte, 1, ACC_SYSTEM);
	byte &= ~TYPE_BUSY;
	return st ? st : x86_write(cpu, lin + 5, &byte, 1, ACC_SYSTEM);
}

static enum x86_status task_leave(struct x86_cpu *cpu, struct task *t, enum x86_task_switch why,
				  u64 rip)
{
	bool nested = why == TASK_CALL || why == TASK_GATE;
	u16 old = cpu->seg[SEG_TR].sel;
	u32 flags = (u32)x86_rflags(cpu);
	struct x86_seg seg;
	enum x86_status st;

	if (why == TASK_IRET)
		flags &= ~FL_NT;
	st = task_save(cpu, (u32)rip, flags);
	if (st)
		return st;
	if (nested) {
		x86_desc_unpack(&t->desc, t->sel, &seg);
		st = x86_write(cpu, seg.base, &old, 2, ACC_SYSTEM);
		t->word[t->layout->flags] |= FL_NT;
	} else {
		st = busy_clear(cpu, old);
	}
	if (st == X86_OK && why != TASK_IRET)
		st = x86_desc_mark(cpu, t->sel, &t->desc, DESC_BUSY);
	return st;
}

/* Code and stack of the new task: #TS, #NP, #SS with the selector. */
static enum x86_status load_checked(struct x86_cpu *cpu, unsigned sreg, u16 sel, unsigned cpl)
{
	struct x86_desc d;
	enum x86_status st;
	unsigned dpl;
	bool ok;

	if (x86_sel_is_null(sel))
		return sreg == SEG_CS || sreg == SEG_SS ? x86_raise_error(cpu, VEC_TS, 0) : X86_OK;
	st = x86_desc_read(cpu, sel, false, VEC_TS, &d);
	if (st)
		return st;
	dpl = x86_desc_dpl(&d);
	if (sreg == SEG_CS)
		ok = (d.hi & DESC_CODE) && (d.hi & DESC_C ? dpl <= cpl : dpl == cpl);
	else if (sreg == SEG_SS)
		ok = (d.hi & (DESC_CODE | DESC_W)) == DESC_W && dpl == cpl && (sel & 3u) == cpl;
	else
		ok = (d.hi & (DESC_CODE | DESC_W)) != DESC_CODE &&
		     ((d.hi & (DESC_CODE | DESC_C)) == (DESC_CODE | DESC_C) ||
		      (dpl >= cpl && dpl >= (sel & 3u)));
	if (!ok || !(d.hi & DESC_S))
		return x86_raise_error(cpu, VEC_TS, sel & 0xfffc);
	if (!(d.hi & DESC_P))
		return x86_raise_error(cpu, sreg == SEG_SS ? VEC_SS : VEC_NP, sel & 0xfffc);
	st = x86_desc_mark(cpu, sel, &d, DESC_ACCESSED);
	if (st == X86_OK)
		x86_desc_unpack(&d, sel, &cpu->seg[sreg]);
	return st;
}

static enum x86_status load_ldt(struct x86_cpu *cpu, u16 sel)
{
	struct x86_desc d;
	enum x86_status st;

	x86_seg_set_null(&cpu->seg[SEG_LDTR], sel, 0);
	if (x86_sel_is_null(sel))
		return X86_OK;
	if (sel & 4)
		return x86_raise_error(cpu, VEC_TS, sel & 0xfffc);
	st = x86_desc_read(cpu, sel, false, VEC_TS, &d);
	if (st)
		return st;
	if ((d.hi & DESC_S) || x86_desc_type(&d) != 2 || !(d.hi & DESC_P))
		return x86_raise_error(cpu, VEC_TS, sel & 0xfffc);
	x86_desc_unpack(&d, sel, &cpu->seg[SEG_LDTR]);
	return X86_OK;
}

static enum x86_status task_segments(struct x86_cpu *cpu, const struct task *t)
{
	static const u8 order[] = { SEG_CS, SEG_SS, SEG_ES, SEG_DS, SEG_FS, SEG_GS };
	const u32 *sel = &t->word[t->layout->seg];
	unsigned cpl = cpu->f.vm ? 3 : sel[SEG_CS] & 3, i;
	enum x86_status st;

	/* Until a segment is loaded it is unusable; SS carries the CPL. */
	for (i = 0; i < 6; i++)
		x86_seg_set_null(&cpu->seg[i], i < t->layout->nsegs ? (u16)sel[i] : 0,
				 i == SEG_SS ? cpl : 0);
	x86_mode_update(cpu);
	st = load_ldt(cpu, (u16)t->word[t->layout->ldt]);
	if (cpu->f.vm) {
		for (i = 0; i < 6; i++)
			x86_load_segment_real(cpu, i, (u16)sel[i]);
		x86_mode_update(cpu);
		return st;
	}
	for (i = 0; i < ARRAY_SIZE(order) && st == X86_OK; i++)
		st = load_checked(cpu, order[i], cpu->seg[order[i]].sel, cpl);
	x86_mode_update(cpu);
	return st;
}

/* From here on everything, faults too, happens in the new task. */
static enum x86_status task_enter(struct x86_cpu *cpu, const struct task *t)
{
	const struct tss_layout *l = t->layout;
	enum x86_status st = X86_OK;
	unsigned i;

	x86_desc_unpack(&t->desc, t->sel, &cpu->seg[SEG_TR]);
	cpu->seg[SEG_TR].attr |= TYPE_BUSY;
	cpu->cr0 |= CR0_TS;
	cpu->dr7 &= ~(u64)DR7_LOCAL;
	for (i = 0; i < 8; i++)
		x86_gpr_write(cpu, i, t->word[l->gpr + i], l->width == 4 ? 4 : 2);
	cpu->rip = cpu->next_rip = t->word[l->ip];
	if (l->width == 4)
		x86_rflags_set(cpu, t->word[l->flags]);
	else
		x86_rflags_set(cpu, t->word[l->flags] & 0xffff);
	if (l->width == 4 && (cpu->cr0 & CR0_PG))
		st = x86_set_cr3(cpu, t->word[TSS32_CR3]);
	if (st == X86_OK)
		st = task_segments(cpu, t);
	return st;
}

enum x86_status x86_task_switch(struct x86_cpu *cpu, u16 sel, enum x86_task_switch why, u64 rip,
				bool has_error, u32 error)
{
	struct task t = { .sel = sel };
	enum x86_status st;

	/* Device memory under a TSS would need a restart in the middle: not before full context. */
	st = task_read(cpu, sel, why, &t);
	if (st == X86_OK)
		st = task_leave(cpu, &t, why, rip);
	if (st)
		return st;
	st = task_enter(cpu, &t);
	if (st == X86_OK && cpu->next_rip > cpu->seg[SEG_CS].limit)
		st = x86_raise_gp(cpu, 0);
	if (st == X86_OK && has_error)
		st = x86_push(cpu, error, t.layout->width);
	if (st == X86_OK && t.layout->width == 4 && (t.word[TSS32_TRAP] & 1))
		st = x86_raise_db(cpu, DR6_BT);
	return st;
}

enum x86_status x86_task_return(struct x86_cpu *cpu, u64 rip)
{
	const struct x86_seg *tr = &cpu->seg[SEG_TR];
	enum x86_status st;
	u16 link;

	st = x86_read(cpu, (u32)tr->base, &link, 2, ACC_SYSTEM);
	if (st)
		return st;
	return x86_task_switch(cpu, link, TASK_IRET, rip, false, 0);
}

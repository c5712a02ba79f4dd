/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Descriptors and segment registers: reading, unpacking, loading, with every check and its error code. */
#include "cpu/x86/access.h"
#include "cpu/x86/event.h"
#include "cpu/x86/mode.h"
#include "cpu/x86/segment.h"

bool x86_desc_find(const struct x86_cpu *cpu, u16 sel, unsigned size, gva_t *lin)
{
	const struct x86_seg *ldt = &cpu->seg[SEG_LDTR];
	bool local = sel & 4;
	u32 limit = local ? ldt->limit : cpu->gdt.limit;
	u32 offset = sel & ~7u;

	if (local && (ldt->attr & (SA_P | SA_UNUSABLE)) != SA_P)
		return false;
	if (offset + size - 1 > limit)
		return false;
	*lin = (local ? ldt->base : cpu->gdt.base) + offset;
	if (!(cpu->efer & EFER_LMA))
		*lin = (u32)*lin;
	return true;
}

enum x86_status x86_desc_read(struct x86_cpu *cpu, u16 sel, bool wide, unsigned vector,
			      struct x86_desc *d)
{
	enum x86_status st;
	u32 raw[4] = { 0 };
	gva_t lin;

	if (!x86_desc_find(cpu, sel, wide ? 16 : 8, &lin))
		return x86_raise_error(cpu, vector, sel & 0xfffc);
	st = x86_read(cpu, lin, raw, wide ? 16 : 8, ACC_SYSTEM);
	if (st)
		return st;
	/* The type field of the upper half must say "nothing". */
	if (wide && (raw[3] & 0x1f00))
		return x86_raise_error(cpu, vector, sel & 0xfffc);
	d->lo = raw[0];
	d->hi = raw[1];
	d->base_hi = raw[2];
	return X86_OK;
}

void x86_desc_unpack(const struct x86_desc *d, u16 sel, struct x86_seg *seg)
{
	u32 limit = (d->lo & 0xffff) | (d->hi & 0xf0000);

	seg->base =
		(u64)d->base_hi << 32 | (d->hi & 0xff000000u) | (d->hi & 0xff) << 16 | d->lo >> 16;
	seg->attr = d->hi >> 8 & 0xf0ff;
	seg->limit = seg->attr & SA_G ? limit << 12 | 0xfff : limit;
	seg->sel = sel;
}

enum x86_status x86_desc_mark(struct x86_cpu *cpu, u16 sel, struct x86_desc *d, u32 bits)
{
	enum x86_status st;
	gva_t lin;
	void *host;
	u8 byte;

	if ((d->hi & bits) == bits || !x86_desc_find(cpu, sel, 8, &lin))
		return X86_OK;
	d->hi |= bits;
	byte = d->hi >> 8;
	/* Only the byte with the type is touched. */
	st = x86_host(cpu, lin + 5, 1, ACC_WRITE | ACC_SYSTEM, &host, NULL, NULL);
	if (st)
		return st;
	if (!host)
		return x86_write(cpu, lin + 5, &byte, 1, ACC_SYSTEM);
	__atomic_fetch_or((u8 *)host, (u8)(bits >> 8), __ATOMIC_SEQ_CST);
	return X86_OK;
}

void x86_seg_set_null(struct x86_seg *seg, u16 sel, unsigned dpl)
{
	seg->sel = sel;
	seg->base = 0;
	seg->attr = SA_UNUSABLE | (u16)(dpl << SA_DPL_SHIFT);
}

void x86_load_segment_real(struct x86_cpu *cpu, unsigned sreg, u16 sel)
{
	struct x86_seg *s = &cpu->seg[sreg];

	s->sel = sel;
	s->base = (u32)sel << 4;
	if (cpu->f.vm) {
		s->limit = 0xffff;
		s->attr = 0x3 | SA_S | SA_DPL | SA_P;
		return;
	}
	/* Real mode keeps limit and size, as "unreal mode" wants; a null segment of protected mode is gone. */
	if (s->attr & SA_UNUSABLE) {
		s->limit = 0xffff;
		s->attr = 0x3;
	}
	s->attr = (s->attr & ~(SA_DPL | SA_UNUSABLE)) | SA_P | SA_S;
}

static enum x86_status load_null(struct x86_cpu *cpu, unsigned sreg, u16 sel)
{
	if (sreg != SEG_SS) {
		x86_seg_set_null(&cpu->seg[sreg], sel, 0);
		return X86_OK;
	}
	if (!x86_is_64(cpu) || cpu->cpl == 3 || (sel & 3) != cpu->cpl)
		return x86_raise_gp(cpu, 0);
	x86_seg_set_null(&cpu->seg[SEG_SS], sel, cpu->cpl);
	return X86_OK;
}

static bool stack_is_allowed(const struct x86_cpu *cpu, u16 sel, const struct x86_desc *d)
{
	return (d->hi & (DESC_S | DESC_CODE | DESC_W)) == (DESC_S | DESC_W) &&
	       (sel & 3) == cpu->cpl && x86_desc_dpl(d) == cpu->cpl;
}

static bool data_is_allowed(const struct x86_cpu *cpu, u16 sel, const struct x86_desc *d)
{
	unsigned dpl = x86_desc_dpl(d);

	if (!(d->hi & DESC_S) || (d->hi & (DESC_CODE | DESC_W)) == DESC_CODE)
		return false;
	if ((d->hi & (DESC_CODE | DESC_C)) == (DESC_CODE | DESC_C))
		return true;
	return (sel & 3u) <= dpl && cpu->cpl <= dpl;
}

enum x86_status x86_load_segment(struct x86_cpu *cpu, unsigned sreg, u16 sel)
{
	struct x86_desc d;
	enum x86_status st;

	if (!(cpu->cr0 & CR0_PE) || cpu->f.vm) {
		x86_load_segment_real(cpu, sreg, sel);
		x86_mode_update(cpu);
		return X86_OK;
	}
	if (x86_sel_is_null(sel)) {
		st = load_null(cpu, sreg, sel);
	} else {
		st = x86_desc_read(cpu, sel, false, VEC_GP, &d);
		if (st)
			return st;
		if (sreg == SEG_SS ? !stack_is_allowed(cpu, sel, &d)
				   : !data_is_allowed(cpu, sel, &d))
			return x86_raise_gp(cpu, sel & 0xfffc);
		if (!(d.hi & DESC_P))
			return x86_raise_error(cpu, sreg == SEG_SS ? VEC_SS : VEC_NP, sel & 0xfffc);
		st = x86_desc_mark(cpu, sel, &d, DESC_ACCESSED);
		if (st == X86_OK)
			x86_desc_unpack(&d, sel, &cpu->seg[sreg]);
	}
	/* In 64-bit mode the mode word does not depend on ES, SS, DS; FS and GS are never in it. */
	if (st == X86_OK && !x86_is_64(cpu) && sreg < SEG_FS)
		x86_mode_update(cpu);
	return st;
}

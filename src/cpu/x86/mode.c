/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The mode word and RFLAGS, computed from what they are made of. */
#include "cpu/x86/mode.h"
#include "cpu/x86/debug.h"
#include "cpu/x86/raise.h"

/* A segment through which every legacy access of its kind is allowed and adds nothing. */
static inline bool seg_is_flat(const struct x86_seg *s, u16 type_mask, u16 type)
{
	return !s->base && s->limit == 0xffffffffu && (s->attr & (SA_P | SA_UNUSABLE)) == SA_P &&
	       (s->attr & type_mask) == type;
}

static bool segs_are_flat(const struct x86_cpu *cpu)
{
	/* Type bits: 8 code, 4 expand down, 2 writable (code: readable). */
	return seg_is_flat(&cpu->seg[SEG_CS], 0x2, 0x2) &&
	       seg_is_flat(&cpu->seg[SEG_DS], 0xe, 0x2) &&
	       seg_is_flat(&cpu->seg[SEG_ES], 0xe, 0x2) && seg_is_flat(&cpu->seg[SEG_SS], 0xe, 0x2);
}

static inline x86_mode_t mode_vector(const struct x86_cpu *cpu)
{
	x86_mode_t m = 0;

	if (cpu->cr0 & CR0_TS)
		m |= MODE_TS;
	if (cpu->cr0 & CR0_EM)
		m |= MODE_EM;
	if (cpu->cr0 & CR0_MP)
		m |= MODE_MP;
	if (cpu->cr0 & CR0_NE)
		m |= MODE_NE;
	if (cpu->cr4 & CR4_OSFXSR)
		m |= MODE_SSE;
	if (cpu->cr4 & CR4_OSXMMEXCPT)
		m |= MODE_XM;
	if (cpu->cr4 & CR4_OSXSAVE) {
		m |= MODE_XSAVE;
		if ((cpu->xcr0 & 0x6) == 0x6)
			m |= MODE_AVX;
		if ((cpu->xcr0 & 0xe6) == 0xe6)
			m |= MODE_AVX512;
	}
	return m;
}

static inline bool step_wanted(const struct x86_cpu *cpu)
{
	return cpu->shadow || x86_is_debugged(cpu);
}

static inline x86_mode_t mode_segments(const struct x86_cpu *cpu)
{
	u16 cs = cpu->seg[SEG_CS].attr;

	if (cpu->efer & EFER_LMA) {
		if (cs & SA_L)
			return MODE_LMA | MODE_64 | MODE_FLAT;
		return MODE_LMA | (cs & SA_DB ? MODE_32 : 0) |
		       (cpu->seg[SEG_SS].attr & SA_DB ? MODE_SS32 : 0) |
		       (segs_are_flat(cpu) ? MODE_FLAT : 0);
	}
	return (cs & SA_DB ? MODE_32 : 0) | (cpu->seg[SEG_SS].attr & SA_DB ? MODE_SS32 : 0) |
	       (segs_are_flat(cpu) ? MODE_FLAT : 0);
}

void x86_mode_update(struct x86_cpu *cpu)
{
	x86_mode_t m = mode_vector(cpu) | mode_segments(cpu);

	if (!(cpu->cr0 & CR0_PE)) {
		cpu->cpl = 0;
	} else if (cpu->f.vm) {
		cpu->cpl = 3;
		m |= MODE_PE | MODE_VM;
	} else {
		cpu->cpl = (cpu->seg[SEG_SS].attr & SA_DPL) >> SA_DPL_SHIFT;
		m |= MODE_PE;
	}
	if (cpu->cpl == 3 && cpu->f.ac && (cpu->cr0 & CR0_AM))
		m |= MODE_AC;
	if ((cpu->cpl == 3 && (cpu->cr4 & CR4_TSD)) || unlikely(cpu->tsc_ratio))
		m |= MODE_TSD;
	if (step_wanted(cpu))
		m |= MODE_STEP;
	if (cpu->event.in_smm)
		m |= MODE_SMM;
	cpu->mode = m | (x86_mode_t)cpu->cpl << MODE_CPL_SHIFT;
}

void x86_shadow_begin(struct x86_cpu *cpu, u8 kind)
{
	cpu->shadow = kind;
	cpu->mode |= MODE_STEP;
}

void x86_shadow_end(struct x86_cpu *cpu)
{
	if (!cpu->shadow)
		return;
	cpu->shadow = 0;
	if (!step_wanted(cpu))
		cpu->mode &= ~MODE_STEP;
	x86_window_opened(cpu);
}

u64 x86_rflags(const struct x86_cpu *cpu)
{
	const struct x86_vflags *f = &cpu->f;

	return 2 | (cpu->aflags >> 8 & (FL_ARITH & 0xff)) | (u32)(cpu->aflags & AF_OF) << 11 |
	       (u32)f->tf << 8 | (u32)f->intr << 9 | (u32)f->df << 10 | (u32)(f->iopl & 3) << 12 |
	       (u32)f->nt << 14 | (u32)f->rf << 16 | (u32)f->vm << 17 | (u32)f->ac << 18 |
	       (u32)f->vif << 19 | (u32)f->vip << 20 | (u32)f->id << 21;
}

void x86_rflags_set(struct x86_cpu *cpu, u64 rflags)
{
	struct x86_vflags *f = &cpu->f;
	u32 v = (u32)rflags;
	bool opened = !f->intr && (v & FL_IF);
	u8 tf = v >> 8 & 1, vm = v >> 17 & 1, ac = v >> 18 & 1;
	bool changed = tf != f->tf || vm != f->vm || ac != f->ac;

	/* Bit 1 of RFLAGS is always one: LAHF shows it as AH bit 1. */
	cpu->aflags = (u16)((v & (FL_ARITH & 0xff)) << 8 | 0x200 | (v >> 11 & 1));
	f->tf = tf;
	f->intr = v >> 9 & 1;
	f->df = v >> 10 & 1;
	f->iopl = v >> 12 & 3;
	f->nt = v >> 14 & 1;
	f->rf = v >> 16 & 1;
	f->vm = vm;
	f->ac = ac;
	f->vif = v >> 19 & 1;
	f->vip = v >> 20 & 1;
	f->id = v >> 21 & 1;
	if (changed)
		x86_mode_update(cpu);
	if (opened)
		x86_window_opened(cpu);
}

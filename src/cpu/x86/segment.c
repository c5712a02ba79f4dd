/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Instructions on segment registers and descriptor tables: MOV, PUSH, POP, LDS.., LGDT, LTR, LAR, VERR, SWAPGS, RDFSBASE. */
#include "cpu/x86/segment.h"
#include "cpu/x86/access.h"
#include "cpu/x86/event.h"
#include "cpu/x86/mode.h"
#include "cpu/x86/ops.h"

#define SHADOW_MOV_SS 2

static inline bool is_protected(const struct x86_cpu *cpu)
{
	return (cpu->cr0 & CR0_PE) && !cpu->f.vm;
}

/* CR4.UMIP: SGDT, SIDT, SLDT, STR (and SMSW) are the kernel's. */
static inline bool umip_denies(const struct x86_cpu *cpu)
{
	return (cpu->cr4 & CR4_UMIP) && cpu->cpl;
}

static inline unsigned modrm_reg(const struct x86_insn *insn)
{
	return insn->modrm >> 3 & 7;
}

/* --- MOV, PUSH, POP, LDS and kin --- */

enum x86_status x86_op_mov_to_sreg(struct x86_cpu *cpu, const struct x86_insn *insn)
{
	unsigned sreg = modrm_reg(insn);
	enum x86_status st;
	u64 sel;

	if (unlikely(sreg == SEG_CS || sreg > SEG_GS))
		return x86_raise_ud(cpu);
	st = x86_operand_read(cpu, insn, &sel, 2);
	if (st == X86_OK)
		st = x86_load_segment(cpu, sreg, (u16)sel);
	if (st == X86_OK && sreg == SEG_SS)
		x86_shadow_begin(cpu, SHADOW_MOV_SS);
	return st;
}

/* A selector or table register's selector: registers are written in full, memory gets 16 bits. */
static enum x86_status selector_store(struct x86_cpu *cpu, const struct x86_insn *insn, u16 sel)
{
	return x86_operand_write(cpu, insn, sel, insn->has_mem ? 2 : insn->opsize);
}

enum x86_status x86_op_mov_from_sreg(struct x86_cpu *cpu, const struct x86_insn *insn)
{
	unsigned sreg = modrm_reg(insn);

	if (unlikely(sreg > SEG_GS))
		return x86_raise_ud(cpu);
	return selector_store(cpu, insn, cpu->seg[sreg].sel);
}

/* 06 ES, 0E CS, 16 SS, 1E DS, 0F A0 FS, 0F A8 GS; the POPs are one more. */
static unsigned sreg_of_opcode(u8 opcode)
{
	return opcode >= 0xa8 ? SEG_GS : opcode >= 0xa0 ? SEG_FS : opcode >> 3 & 3;
}

static inline unsigned stack_datum(const struct x86_insn *insn)
{
	return insn->mode64 && insn->opsize == 4 ? 8 : insn->opsize;
}

enum x86_status x86_op_push_sreg(struct x86_cpu *cpu, const struct x86_insn *insn)
{
	u16 sel = cpu->seg[sreg_of_opcode(insn->opcode)].sel;
	unsigned size = stack_datum(insn), width;
	enum x86_status st;
	u64 sp;

	if (size != 4)
		return x86_push(cpu, sel, size);
	/* A doubleword's upper half is not written. */
	width = x86_stack_size(cpu);
	sp = x86_gpr(cpu, RSP) - 4;
	sp = width == 4 ? (u32)sp : (u16)sp;
	st = x86_write_seg(cpu, SEG_SS, sp, &sel, 2);
	if (st == X86_OK)
		x86_gpr_write(cpu, RSP, sp, width);
	return st;
}

enum x86_status x86_op_pop_sreg(struct x86_cpu *cpu, const struct x86_insn *insn)
{
	unsigned sreg = sreg_of_opcode(insn->opcode);
	unsigned width = x86_stack_size(cpu), size = stack_datum(insn);
	u64 sp = x86_gpr_sized(cpu, RSP, width);
	enum x86_status st;
	u64 datum = 0;

	/* AMD processors read all of it; Intel's no more than the selector. */
	st = x86_read_seg(cpu, SEG_SS, sp, &datum, cpu->intel ? 2 : size);
	if (st == X86_OK)
		st = x86_load_segment(cpu, sreg, (u16)datum);
	if (st)
		return st;
	x86_gpr_write(cpu, RSP, sp + size, width);
	if (sreg == SEG_SS)
		x86_shadow_begin(cpu, SHADOW_MOV_SS);
	return X86_OK;
}

enum x86_status x86_op_load_far(struct x86_cpu *cpu, const struct x86_insn *insn)
{
	unsigned size = insn->opsize, sreg, i;
	enum x86_status st;
	u64 offset = 0;
	u8 raw[10];

	switch (insn->opcode) {
	case 0xc4:
		sreg = SEG_ES;
		break;
	case 0xc5:
		sreg = SEG_DS;
		break;
	case 0xb2:
		sreg = SEG_SS;
		break;
	default:
		sreg = insn->opcode == 0xb4 ? SEG_FS : SEG_GS;
	}
	if (!insn->has_mem)
		return x86_raise_ud(cpu);
	if (size == 8 && !cpu->intel) /* AMD processors know no m16:64 */
		size = 4;
	st = x86_image_read(cpu, insn, raw, size + 2);
	if (st == X86_OK)
		st = x86_load_segment(cpu, sreg, (u16)(raw[size] | raw[size + 1] << 8));
	if (st)
		return st;
	for (i = 0; i < size; i++)
		offset |= (u64)raw[i] << 8 * i;
	x86_gpr_write(cpu, insn->reg & 15, offset, size);
	return X86_OK;
}

/* --- GDTR, IDTR --- */

static enum x86_status table_load(struct x86_cpu *cpu, const struct x86_insn *insn,
				  struct x86_dtable *table)
{
	bool wide = x86_is_64(cpu);
	enum x86_status st;
	u8 raw[10];
	u64 base = 0;

	if (cpu->cpl)
		return x86_raise_gp(cpu, 0);
	if (!insn->has_mem)
		return x86_raise_ud(cpu);
	st = x86_image_read(cpu, insn, raw, wide ? 10 : 6);
	if (st)
		return st;
	__builtin_memcpy(&base, raw + 2, 4);
	if (wide)
		__builtin_memcpy(&base, raw + 2, 8);
	else if (insn->opsize == 2)
		base &= 0xffffff;
	if (wide && !x86_is_canonical(cpu, base))
		return x86_raise_gp(cpu, 0);
	table->base = base;
	__builtin_memcpy(&table->limit, raw, 2);
	return X86_OK;
}

static enum x86_status table_store(struct x86_cpu *cpu, const struct x86_insn *insn,
				   const struct x86_dtable *table)
{
	u8 raw[10];

	if (umip_denies(cpu))
		return x86_raise_gp(cpu, 0);
	if (!insn->has_mem)
		return x86_raise_ud(cpu);
	__builtin_memcpy(raw, &table->limit, 2);
	__builtin_memcpy(raw + 2, &table->base, 8);
	return x86_image_write(cpu, insn, raw, x86_is_64(cpu) ? 10 : 6);
}

enum x86_status x86_op_lgdt(struct x86_cpu *cpu, const struct x86_insn *insn)
{
	return table_load(cpu, insn, &cpu->gdt);
}

enum x86_status x86_op_lidt(struct x86_cpu *cpu, const struct x86_insn *insn)
{
	return table_load(cpu, insn, &cpu->idt);
}

enum x86_status x86_op_sgdt(struct x86_cpu *cpu, const struct x86_insn *insn)
{
	return table_store(cpu, insn, &cpu->gdt);
}

enum x86_status x86_op_sidt(struct x86_cpu *cpu, const struct x86_insn *insn)
{
	return table_store(cpu, insn, &cpu->idt);
}

/* --- LDTR, TR --- */

/* Common checks of LLDT and LTR for the descriptor of a selector in the GDT; types: a set of bits. */
static enum x86_status system_desc(struct x86_cpu *cpu, u16 sel, u32 types, struct x86_desc *d)
{
	bool wide = cpu->efer & EFER_LMA;
	enum x86_status st;

	if (sel & 4)
		return x86_raise_gp(cpu, sel & 0xfffc);
	st = x86_desc_read(cpu, sel, wide, VEC_GP, d);
	if (st)
		return st;
	if ((d->hi & DESC_S) || !(types >> x86_desc_type(d) & 1))
		return x86_raise_gp(cpu, sel & 0xfffc);
	if (!(d->hi & DESC_P))
		return x86_raise_error(cpu, VEC_NP, sel & 0xfffc);
	if (wide) {
		struct x86_seg seg;

		x86_desc_unpack(d, sel, &seg);
		if (!x86_is_canonical(cpu, seg.base))
			return x86_raise_gp(cpu, sel & 0xfffc);
	}
	return X86_OK;
}

enum x86_status x86_op_lldt(struct x86_cpu *cpu, const struct x86_insn *insn)
{
	struct x86_desc d;
	enum x86_status st;
	u64 sel;

	if (!is_protected(cpu))
		return x86_raise_ud(cpu);
	if (cpu->cpl)
		return x86_raise_gp(cpu, 0);
	st = x86_operand_read(cpu, insn, &sel, 2);
	if (st)
		return st;
	if (x86_sel_is_null((u16)sel)) {
		x86_seg_set_null(&cpu->seg[SEG_LDTR], (u16)sel, 0);
		return X86_OK;
	}
	st = system_desc(cpu, (u16)sel, BIT(0x2), &d);
	if (st == X86_OK)
		x86_desc_unpack(&d, (u16)sel, &cpu->seg[SEG_LDTR]);
	return st;
}

enum x86_status x86_op_ltr(struct x86_cpu *cpu, const struct x86_insn *insn)
{
	struct x86_desc d;
	enum x86_status st;
	u64 sel;

	if (!is_protected(cpu))
		return x86_raise_ud(cpu);
	if (cpu->cpl)
		return x86_raise_gp(cpu, 0);
	st = x86_operand_read(cpu, insn, &sel, 2);
	if (st)
		return st;
	if (x86_sel_is_null((u16)sel))
		return x86_raise_gp(cpu, 0);
	/* Available TSS: 32- or 64-bit, outside IA-32e mode 16-bit too. */
	st = system_desc(cpu, (u16)sel, cpu->efer & EFER_LMA ? BIT(0x9) : BIT(0x9) | BIT(0x1), &d);
	if (st == X86_OK)
		st = x86_desc_mark(cpu, (u16)sel, &d, DESC_BUSY);
	if (st == X86_OK)
		x86_desc_unpack(&d, (u16)sel, &cpu->seg[SEG_TR]);
	return st;
}

static enum x86_status system_store(struct x86_cpu *cpu, const struct x86_insn *insn, unsigned sreg)
{
	if (!is_protected(cpu))
		return x86_raise_ud(cpu);
	if (umip_denies(cpu))
		return x86_raise_gp(cpu, 0);
	return selector_store(cpu, insn, cpu->seg[sreg].sel);
}

enum x86_status x86_op_sldt(struct x86_cpu *cpu, const struct x86_insn *insn)
{
	return system_store(cpu, insn, SEG_LDTR);
}

enum x86_status x86_op_str(struct x86_cpu *cpu, const struct x86_insn *insn)
{
	return system_store(cpu, insn, SEG_TR);
}

/* --- LAR, LSL, VERR, VERW, ARPL: they answer in ZF --- */

static inline void zf_set(struct x86_cpu *cpu, bool on)
{
	cpu->aflags = on ? cpu->aflags | AF_ZF : cpu->aflags & ~AF_ZF;
}

/* Read what a selector names without raising anything but page faults; *d is zero (type 0) when nothing. */
static enum x86_status desc_peek(struct x86_cpu *cpu, const struct x86_insn *insn, u16 *sel,
				 struct x86_desc *d)
{
	enum x86_status st;
	u32 raw[2] = { 0 };
	gva_t lin;
	u64 v;

	if (!is_protected(cpu))
		return x86_raise_ud(cpu);
	st = x86_operand_read(cpu, insn, &v, 2);
	if (st)
		return st;
	*sel = (u16)v;
	if (!x86_sel_is_null(*sel) && x86_desc_find(cpu, *sel, 8, &lin))
		st = x86_read(cpu, lin, raw, 8, ACC_SYSTEM);
	*d = (struct x86_desc){ .lo = raw[0], .hi = raw[1] };
	return st;
}

/* Privilege as LAR, LSL, VERR and VERW ask it: conforming code is for everybody. */
static bool desc_is_visible(const struct x86_cpu *cpu, u16 sel, const struct x86_desc *d)
{
	u32 conforming = DESC_S | DESC_CODE | DESC_C;
	unsigned dpl = x86_desc_dpl(d);

	if ((d->hi & conforming) == conforming)
		return true;
	return dpl >= cpu->cpl && dpl >= (sel & 3u);
}

static bool desc_type_in(const struct x86_cpu *cpu, const struct x86_desc *d, u32 legacy,
			 u32 long_mode)
{
	u32 types = cpu->efer & EFER_LMA ? long_mode : legacy;

	return (d->hi & DESC_S) || (types >> x86_desc_type(d) & 1);
}

enum x86_status x86_op_lar(struct x86_cpu *cpu, const struct x86_insn *insn)
{
	/* TSS, LDT, call gates; outside IA-32e mode the 16-bit ones and task gates too. */
	const u32 common = BIT(0x2) | BIT(0x9) | BIT(0xb) | BIT(0xc);
	const u32 old = BIT(0x1) | BIT(0x3) | BIT(0x4) | BIT(0x5);
	struct x86_desc d;
	enum x86_status st;
	bool ok;
	u16 sel;

	st = desc_peek(cpu, insn, &sel, &d);
	if (st)
		return st;
	ok = desc_type_in(cpu, &d, common | old, common) && desc_is_visible(cpu, sel, &d);
	zf_set(cpu, ok);
	if (ok)
		x86_gpr_write(cpu, insn->reg & 15, d.hi & (insn->opsize == 2 ? 0xff00 : 0xf0ff00),
			      insn->opsize);
	return X86_OK;
}

enum x86_status x86_op_lsl(struct x86_cpu *cpu, const struct x86_insn *insn)
{
	const u32 common = BIT(0x2) | BIT(0x9) | BIT(0xb);
	const u32 old = BIT(0x1) | BIT(0x3);
	struct x86_desc d;
	struct x86_seg seg;
	enum x86_status st;
	bool ok;
	u16 sel;

	st = desc_peek(cpu, insn, &sel, &d);
	if (st)
		return st;
	ok = desc_type_in(cpu, &d, common | old, common) && desc_is_visible(cpu, sel, &d);
	zf_set(cpu, ok);
	x86_desc_unpack(&d, sel, &seg);
	if (ok)
		x86_gpr_write(cpu, insn->reg & 15, seg.limit, insn->opsize);
	return X86_OK;
}

enum x86_status x86_op_verr(struct x86_cpu *cpu, const struct x86_insn *insn)
{
	struct x86_desc d;
	u16 sel;
	enum x86_status st = desc_peek(cpu, insn, &sel, &d);

	if (st == X86_OK)
		zf_set(cpu, (d.hi & DESC_S) && (d.hi & (DESC_CODE | DESC_W)) != DESC_CODE &&
				    desc_is_visible(cpu, sel, &d));
	return st;
}

enum x86_status x86_op_verw(struct x86_cpu *cpu, const struct x86_insn *insn)
{
	struct x86_desc d;
	u16 sel;
	enum x86_status st = desc_peek(cpu, insn, &sel, &d);

	if (st == X86_OK)
		zf_set(cpu, (d.hi & (DESC_S | DESC_CODE | DESC_W)) == (DESC_S | DESC_W) &&
				    desc_is_visible(cpu, sel, &d));
	return st;
}

enum x86_status x86_op_arpl(struct x86_cpu *cpu, const struct x86_insn *insn)
{
	u16 src = (u16)x86_gpr_sized(cpu, insn->reg & 15, 2);
	enum x86_status st;
	u64 dst;

	if (!is_protected(cpu))
		return x86_raise_ud(cpu);
	st = x86_operand_read(cpu, insn, &dst, 2);
	if (st)
		return st;
	if ((dst & 3) < (src & 3u)) {
		st = x86_operand_write(cpu, insn, (dst & ~3ull) | (src & 3), 2);
		if (st == X86_OK)
			zf_set(cpu, true);
		return st;
	}
	zf_set(cpu, false);
	return X86_OK;
}

/* --- FS and GS bases --- */

enum x86_status x86_op_swapgs(struct x86_cpu *cpu, const struct x86_insn *insn)
{
	u64 base = cpu->seg[SEG_GS].base;

	(void)insn;
	if (unlikely(!x86_is_64(cpu)))
		return x86_raise_ud(cpu);
	if (unlikely(cpu->cpl))
		return x86_raise_gp(cpu, 0);
	cpu->seg[SEG_GS].base = cpu->kernel_gs_base;
	cpu->kernel_gs_base = base;
	return X86_OK;
}

/* 66h changes nothing. */
static unsigned base_size(const struct x86_insn *insn)
{
	return insn->prefixes & INSN_REX_W ? 8 : 4;
}

static enum x86_status base_read(struct x86_cpu *cpu, const struct x86_insn *insn, unsigned sreg)
{
	if (!x86_is_64(cpu) || !(cpu->cr4 & CR4_FSGSBASE))
		return x86_raise_ud(cpu);
	x86_gpr_write(cpu, insn->rm & 15, cpu->seg[sreg].base, base_size(insn));
	return X86_OK;
}

static enum x86_status base_write(struct x86_cpu *cpu, const struct x86_insn *insn, unsigned sreg)
{
	u64 v = x86_gpr_sized(cpu, insn->rm & 15, base_size(insn));

	if (!x86_is_64(cpu) || !(cpu->cr4 & CR4_FSGSBASE))
		return x86_raise_ud(cpu);
	if (!x86_is_canonical(cpu, v))
		return x86_raise_gp(cpu, 0);
	cpu->seg[sreg].base = v;
	return X86_OK;
}

enum x86_status x86_op_rdfsbase(struct x86_cpu *cpu, const struct x86_insn *insn)
{
	return base_read(cpu, insn, SEG_FS);
}

enum x86_status x86_op_rdgsbase(struct x86_cpu *cpu, const struct x86_insn *insn)
{
	return base_read(cpu, insn, SEG_GS);
}

enum x86_status x86_op_wrfsbase(struct x86_cpu *cpu, const struct x86_insn *insn)
{
	return base_write(cpu, insn, SEG_FS);
}

enum x86_status x86_op_wrgsbase(struct x86_cpu *cpu, const struct x86_insn *insn)
{
	return base_write(cpu, insn, SEG_GS);
}

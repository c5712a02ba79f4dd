/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* From operand to linear address: effective address, segment checks, and the operand and stack helpers on top. */
#include "cpu/x86/align.h"
#include "cpu/x86/raise.h"
#include "cpu/x86/mode.h"

u64 x86_effective(const struct x86_cpu *cpu, const struct x86_insn *insn)
{
	u64 ea = (u64)insn->disp;

	if (insn->base == INSN_RIP)
		ea += cpu->rip + insn->len;
	else if (insn->base != INSN_NO_REG)
		ea += x86_gpr(cpu, insn->base & 15);
	if (insn->index != INSN_NO_REG)
		ea += x86_gpr(cpu, insn->index & 15) * insn->scale;
	return insn->adsize == 8 ? ea : insn->adsize == 4 ? (u32)ea : (u16)ea;
}

static enum x86_status raise_segment(struct x86_cpu *cpu, bool stack)
{
	return x86_raise_error(cpu, stack ? VEC_SS : VEC_GP, 0);
}

/* SDM "Type Checking": may the segment be used so? Real and v8086 mode do not ask. */
static inline bool type_allows(const struct x86_seg *s, unsigned access)
{
	/* What CS may be was checked when it was loaded; right after CR0.PE is set it is not even code. */
	if (access & ACC_FETCH)
		return true;
	if ((s->attr & (SA_P | SA_UNUSABLE)) != SA_P)
		return false;
	if (access & ACC_WRITE)
		return (s->attr & 0xa) == 0x2; /* data and writable */
	return (s->attr & 0xa) != 0x8;	       /* not execute-only */
}

enum x86_status x86_linear_legacy(struct x86_cpu *cpu, const struct x86_seg *s, bool stack, u64 ea,
				  unsigned size, unsigned access, gva_t *lin)
{
	u64 last = ea + (size ? size - 1 : 0);
	bool protected = (cpu->cr0 & CR0_PE) && !cpu->f.vm;

	if (protected && !type_allows(s, access))
		return raise_segment(cpu, stack);
	if (unlikely(protected && (s->attr & 0xc) == 0x4)) {
		u64 top = s->attr & SA_DB ? 0xffffffffu : 0xffffu;

		if (ea <= s->limit || last > top)
			return raise_segment(cpu, stack);
	} else if (s->limit != 0xffffffffu && last > s->limit) {
		/* With a limit of 4 GiB an operand may wrap around. */
		return raise_segment(cpu, stack);
	}
	*lin = (u32)(s->base + ea);
	return X86_OK;
}

enum x86_status x86_linear(struct x86_cpu *cpu, unsigned seg, u64 ea, unsigned size,
			   unsigned access, gva_t *lin)
{
	if (likely(cpu->mode & MODE_64)) {
		u64 a = seg >= SEG_FS ? cpu->seg[seg].base + ea : ea;

		if (unlikely(!x86_is_canonical(cpu, a) ||
			     !x86_is_canonical(cpu, a + (size ? size - 1 : 0))))
			return raise_segment(cpu, seg == SEG_SS);
		*lin = a;
		return X86_OK;
	}
	return x86_linear_legacy(cpu, &cpu->seg[seg], seg == SEG_SS, ea, size, access, lin);
}

enum x86_status x86_read_seg(struct x86_cpu *cpu, unsigned seg, u64 ea, void *buf, unsigned size)
{
	gva_t lin;
	enum x86_status st = x86_linear(cpu, seg, ea, size, ACC_READ, &lin);

	return st ? st : x86_read(cpu, lin, buf, size, ACC_READ);
}

enum x86_status x86_write_seg(struct x86_cpu *cpu, unsigned seg, u64 ea, const void *buf,
			      unsigned size)
{
	gva_t lin;
	enum x86_status st = x86_linear(cpu, seg, ea, size, ACC_WRITE, &lin);

	return st ? st : x86_write(cpu, lin, buf, size, ACC_WRITE);
}

static enum x86_status image_linear(struct x86_cpu *cpu, const struct x86_insn *insn, unsigned size,
				    unsigned access, gva_t *lin)
{
	enum x86_status st =
		x86_linear(cpu, insn->seg, x86_effective(cpu, insn), size, access, lin);

	return st ? st : x86_align_operand(cpu, insn, *lin);
}

enum x86_status x86_image_read(struct x86_cpu *cpu, const struct x86_insn *insn, void *buf,
			       unsigned size)
{
	gva_t lin;
	enum x86_status st = image_linear(cpu, insn, size, ACC_READ, &lin);

	return st ? st : x86_read(cpu, lin, buf, size, ACC_READ | ACC_UNALIGNED);
}

enum x86_status x86_image_write(struct x86_cpu *cpu, const struct x86_insn *insn, const void *buf,
				unsigned size)
{
	gva_t lin;
	enum x86_status st = image_linear(cpu, insn, size, ACC_WRITE, &lin);

	return st ? st : x86_write(cpu, lin, buf, size, ACC_WRITE | ACC_UNALIGNED);
}

static inline bool is_high_byte(const struct x86_insn *insn, unsigned r)
{
	return r >= 4 && r < 8 && !(insn->prefixes & INSN_REX);
}

u8 x86_gpr8(const struct x86_cpu *cpu, const struct x86_insn *insn, unsigned r)
{
	if (is_high_byte(insn, r))
		return (u8)(x86_gpr_sized(cpu, r - 4, 2) >> 8);
	return (u8)x86_gpr_sized(cpu, r & 15, 1);
}

void x86_gpr8_write(struct x86_cpu *cpu, const struct x86_insn *insn, unsigned r, u8 v)
{
	if (is_high_byte(insn, r))
		x86_gpr_write(cpu, r - 4, x86_gpr_sized(cpu, r - 4, 1) | (u64)v << 8, 2);
	else
		x86_gpr_write(cpu, r & 15, v, 1);
}

enum x86_status x86_operand_read(struct x86_cpu *cpu, const struct x86_insn *insn, u64 *v,
				 unsigned size)
{
	if (insn->has_mem) {
		*v = 0;
		return x86_read_seg(cpu, insn->seg, x86_effective(cpu, insn), v, size);
	}
	*v = size == 1 ? x86_gpr8(cpu, insn, insn->rm) : x86_gpr_sized(cpu, insn->rm & 15, size);
	return X86_OK;
}

enum x86_status x86_operand_write(struct x86_cpu *cpu, const struct x86_insn *insn, u64 v,
				  unsigned size)
{
	if (insn->has_mem)
		return x86_write_seg(cpu, insn->seg, x86_effective(cpu, insn), &v, size);
	if (size == 1)
		x86_gpr8_write(cpu, insn, insn->rm, (u8)v);
	else
		x86_gpr_write(cpu, insn->rm & 15, v, size);
	return X86_OK;
}

enum x86_status x86_push(struct x86_cpu *cpu, u64 v, unsigned size)
{
	unsigned width = x86_stack_size(cpu);
	u64 sp = x86_gpr(cpu, RSP) - size;
	enum x86_status st;

	if (width != 8)
		sp = width == 4 ? (u32)sp : (u16)sp;
	st = x86_write_seg(cpu, SEG_SS, sp, &v, size);
	if (st == X86_OK)
		x86_gpr_write(cpu, RSP, sp, width);
	return st;
}

enum x86_status x86_pop(struct x86_cpu *cpu, u64 *v, unsigned size)
{
	unsigned width = x86_stack_size(cpu);
	enum x86_status st;
	u64 got = 0;

	st = x86_read_seg(cpu, SEG_SS, x86_gpr_sized(cpu, RSP, width), &got, size);
	if (st)
		return st;
	*v = got;
	x86_gpr_write(cpu, RSP, x86_gpr(cpu, RSP) + size, width);
	return X86_OK;
}

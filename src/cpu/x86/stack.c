/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The stack: PUSH, POP, PUSHA, POPA, ENTER and LEAVE in all forms and modes. */
#include "cpu/x86/access.h"
#include "cpu/x86/event.h"
#include "cpu/x86/mode.h"
#include "cpu/x86/ops.h"

/*
 * The operand size of a stack instruction follows from mode and prefixes alone: in 64-bit mode it is
 * 8, or 2 with the operand-size prefix (REX.W wins), never 4.
 */
static unsigned stack_opsize(const struct x86_cpu *cpu, const struct x86_insn *insn)
{
	bool prefix = insn->prefixes & INSN_OPSIZE;

	if (x86_is_64(cpu))
		return prefix && !(insn->prefixes & INSN_REX_W) ? 2 : 8;
	return !!(cpu->mode & MODE_32) != prefix ? 4 : 2;
}

/* Cut to the size of the stack pointer. */
static inline u64 stack_cut(const struct x86_cpu *cpu, u64 sp)
{
	unsigned width = x86_stack_size(cpu);

	return width == 8 ? sp : width == 4 ? (u32)sp : (u16)sp;
}

enum x86_status x86_op_push(struct x86_cpu *cpu, const struct x86_insn *insn)
{
	unsigned size = stack_opsize(cpu, insn);
	enum x86_status st = X86_OK;
	u64 v = insn->imm;

	if ((insn->opcode & 0xf8) == 0x50)
		v = x86_gpr(cpu, insn->reg & 15);
	else if (insn->opcode == 0xff)
		st = x86_operand_read(cpu, insn, &v, size);
	return st == X86_OK ? x86_push(cpu, v, size) : st;
}

/* The address of a memory destination is computed with the stack pointer after the increment. */
enum x86_status x86_op_pop(struct x86_cpu *cpu, const struct x86_insn *insn)
{
	unsigned size = stack_opsize(cpu, insn);
	/* raw: put back as it was when the destination faults */
	u64 rsp = x86_gpr_raw(cpu, RSP), v;
	enum x86_status st = x86_pop(cpu, &v, size);

	if (st != X86_OK)
		return st;
	if ((insn->opcode & 0xf8) == 0x58) {
		x86_gpr_write(cpu, insn->reg & 15, v, size);
		return X86_OK;
	}
	st = x86_operand_write(cpu, insn, v, size);
	if (st != X86_OK)
		x86_gpr_raw_set(cpu, RSP, rsp); /* raw: as it was */
	return st;
}

/* Elements are addressed one by one, since each may wrap in a 16-bit stack; checked before the first write. */
enum x86_status x86_op_pusha(struct x86_cpu *cpu, const struct x86_insn *insn)
{
	unsigned size = stack_opsize(cpu, insn), i;
	enum x86_status st;
	gva_t lin[8];

	for (i = 0; i < 8; i++) {
		u64 sp = stack_cut(cpu, x86_gpr(cpu, RSP) - (i + 1) * size);

		st = x86_linear(cpu, SEG_SS, sp, size, ACC_WRITE, &lin[i]);
		if (st == X86_OK)
			st = x86_probe(cpu, lin[i], size, ACC_WRITE);
		if (st != X86_OK)
			return st;
	}
	for (i = 0; i < 8; i++) {
		u64 v = x86_gpr(cpu, i);

		st = x86_write(cpu, lin[i], &v, size, ACC_WRITE);
		if (st != X86_OK)
			return st;
	}
	x86_gpr_write(cpu, RSP, x86_gpr(cpu, RSP) - 8 * size, x86_stack_size(cpu));
	return X86_OK;
}

enum x86_status x86_op_popa(struct x86_cpu *cpu, const struct x86_insn *insn)
{
	unsigned size = stack_opsize(cpu, insn), i;
	enum x86_status st;
	u64 v[8] = { 0 };

	for (i = 0; i < 8; i++) {
		st = x86_read_seg(cpu, SEG_SS, stack_cut(cpu, x86_gpr(cpu, RSP) + i * size),
				  &v[7 - i], size);
		if (st != X86_OK)
			return st;
	}
	for (i = 0; i < 8; i++) {
		if (i != RSP)
			x86_gpr_write(cpu, i, v[i], size);
	}
	x86_gpr_write(cpu, RSP, x86_gpr(cpu, RSP) + 8 * size, x86_stack_size(cpu));
	return X86_OK;
}

/* Push at *@sp, which is not the register yet: ENTER changes registers when all has worked. */
static enum x86_status frame_push(struct x86_cpu *cpu, u64 *sp, u64 v, unsigned size)
{
	*sp = stack_cut(cpu, *sp - size);
	return x86_write_seg(cpu, SEG_SS, *sp, &v, size);
}

/* Copy the frame pointers of the outer levels, then push the new one. */
static enum x86_status frame_nest(struct x86_cpu *cpu, u64 *sp, u64 frame, unsigned level,
				  unsigned size)
{
	u64 bp = x86_gpr(cpu, RBP);

	for (unsigned i = 1; i < level; i++) {
		enum x86_status st;
		u64 v = 0;

		bp = stack_cut(cpu, bp - size);
		st = x86_read_seg(cpu, SEG_SS, bp, &v, size);
		if (st == X86_OK)
			st = frame_push(cpu, sp, v, size);
		if (st != X86_OK)
			return st;
	}
	return frame_push(cpu, sp, frame, size);
}

enum x86_status x86_op_enter(struct x86_cpu *cpu, const struct x86_insn *insn)
{
	unsigned size = stack_opsize(cpu, insn), level = insn->imm2 & 31;
	u64 sp = stack_cut(cpu, x86_gpr(cpu, RSP)), frame;
	enum x86_status st;
	gva_t lin;

	st = frame_push(cpu, &sp, x86_gpr(cpu, RBP), size);
	frame = sp;
	if (st == X86_OK && level)
		st = frame_nest(cpu, &sp, frame, level, size);
	if (st != X86_OK)
		return st;
	sp = stack_cut(cpu, sp - (u16)insn->imm);
	/* The manual: a write with the final stack pointer must be possible. */
	st = x86_linear(cpu, SEG_SS, sp, size, ACC_WRITE, &lin);
	if (st == X86_OK)
		st = x86_probe(cpu, lin, size, ACC_WRITE);
	if (st != X86_OK)
		return st;
	x86_gpr_write(cpu, RBP, frame, size);
	x86_gpr_write(cpu, RSP, sp, x86_stack_size(cpu));
	return X86_OK;
}

enum x86_status x86_op_leave(struct x86_cpu *cpu, const struct x86_insn *insn)
{
	unsigned size = stack_opsize(cpu, insn);
	u64 sp = stack_cut(cpu, x86_gpr(cpu, RBP)), v = 0;
	enum x86_status st = x86_read_seg(cpu, SEG_SS, sp, &v, size);

	if (st != X86_OK)
		return st;
	x86_gpr_write(cpu, RSP, sp + size, x86_stack_size(cpu));
	x86_gpr_write(cpu, RBP, v, size);
	return X86_OK;
}

/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Near CALL, JMP and RET in all forms and modes. */
#include "cpu/x86/access.h"
#include "cpu/x86/event.h"
#include "cpu/x86/mode.h"
#include "cpu/x86/ops.h"

/*
 * DIFFERS: in 64-bit mode a near branch has 64-bit operands whatever its prefixes are, as on Intel;
 * AMD processors honour the operand-size prefix.
 */
static unsigned branch_opsize(const struct x86_cpu *cpu, const struct x86_insn *insn)
{
	if (x86_is_64(cpu))
		return 8;
	return !!(cpu->mode & MODE_32) != !!(insn->prefixes & INSN_OPSIZE) ? 4 : 2;
}

/* Cut @target to the operand size and check that it may be executed from: else #GP(0). */
static enum x86_status branch_check(struct x86_cpu *cpu, u64 *target, unsigned size)
{
	if (size == 8)
		return x86_is_canonical(cpu, *target) ? X86_OK : x86_raise_gp(cpu, 0);
	*target = size == 4 ? (u32)*target : (u16)*target;
	return *target > cpu->seg[SEG_CS].limit ? x86_raise_gp(cpu, 0) : X86_OK;
}

/* Where the branch goes: relative for the immediate forms, the operand for FF. */
static enum x86_status branch_target(struct x86_cpu *cpu, const struct x86_insn *insn,
				     unsigned size, u64 *target)
{
	enum x86_status st = X86_OK;

	*target = cpu->next_rip + insn->imm;
	if (insn->opcode == 0xff)
		st = x86_operand_read(cpu, insn, target, size);
	return st == X86_OK ? branch_check(cpu, target, size) : st;
}

enum x86_status x86_op_jmp_near(struct x86_cpu *cpu, const struct x86_insn *insn)
{
	u64 target;
	enum x86_status st = branch_target(cpu, insn, branch_opsize(cpu, insn), &target);

	if (st == X86_OK)
		cpu->next_rip = target;
	return st;
}

enum x86_status x86_op_call_near(struct x86_cpu *cpu, const struct x86_insn *insn)
{
	unsigned size = branch_opsize(cpu, insn);
	u64 target;
	enum x86_status st = branch_target(cpu, insn, size, &target);

	if (st == X86_OK)
		st = x86_push(cpu, cpu->next_rip, size);
	if (st == X86_OK)
		cpu->next_rip = target;
	return st;
}

enum x86_status x86_op_ret_near(struct x86_cpu *cpu, const struct x86_insn *insn)
{
	unsigned size = branch_opsize(cpu, insn);
	/* raw: put back as it was when the target faults */
	u64 rsp = x86_gpr_raw(cpu, RSP), target;
	enum x86_status st = x86_pop(cpu, &target, size);

	if (st != X86_OK)
		return st;
	st = branch_check(cpu, &target, size);
	if (st != X86_OK) {
		x86_gpr_raw_set(cpu, RSP, rsp); /* raw: as it was */
		return st;
	}
	if (insn->opcode == 0xc2)
		x86_gpr_write(cpu, RSP, x86_gpr(cpu, RSP) + (u16)insn->imm, x86_stack_size(cpu));
	cpu->next_rip = target;
	return X86_OK;
}

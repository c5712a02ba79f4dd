/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Copying a memory operand into a buffer and back, active bytes only, run by run. */
#include "cpu/x86/bounce.h"

#include "base/bulk.h"
#include "cpu/x86/align.h"
#include "cpu/x86/mode.h"
#include "cpu/x86/raise.h"
#include "cpu/x86/vector.h"

enum direction { PROBE, READ, WRITE };

static enum x86_status run_move(struct x86_cpu *cpu, gva_t lin, u8 *buf, unsigned size,
				unsigned access, enum direction direction)
{
	if (!x86_is_64(cpu))
		lin = (u32)lin;
	access |= ACC_UNALIGNED; /* it was asked for as a whole */
	switch (direction) {
	case PROBE:
		return x86_probe(cpu, lin, size, access | ACC_WRITE);
	case READ:
		return x86_read(cpu, lin, buf, size, access & ~ACC_WRITE);
	default:
		return x86_write(cpu, lin, buf, size, access | ACC_WRITE);
	}
}

/* Each run of active bytes is one access. */
static enum x86_status runs_move(struct x86_cpu *cpu, unsigned seg, gva_t lin, u8 *buf, u64 mask,
				 unsigned access, enum direction direction)
{
	unsigned i = 0, first;

	while (i < 64 && mask >> i) {
		enum x86_status st;

		if (!(mask >> i & 1)) {
			i++;
			continue;
		}
		for (first = i; i < 64 && mask >> i & 1; i++)
			;
		if (x86_is_64(cpu) &&
		    !(x86_is_canonical(cpu, lin + first) && x86_is_canonical(cpu, lin + i - 1)))
			return x86_raise_error(cpu, seg == SEG_SS ? VEC_SS : VEC_GP, 0);
		st = run_move(cpu, lin + first, buf + first, i - first, access, direction);
		if (st != X86_OK)
			return st;
	}
	return X86_OK;
}

static enum x86_status operand_move(struct x86_cpu *cpu, const struct x86_insn *insn, gva_t lin,
				    u8 *buf, unsigned size, unsigned access,
				    enum direction direction)
{
	u64 mask;

	if (insn->mask_kind == INSN_MASK_NONE || size > 64)
		return run_move(cpu, lin, buf, size, access, direction);
	if (!cpu->full)
		return X86_FULL;
	x86_active_bytes(cpu, insn, &mask);
	if (size < 64)
		mask &= BIT_ULL(size) - 1;
	return runs_move(cpu, insn->seg, lin, buf, mask, access, direction);
}

enum x86_status x86_bounce_in(struct x86_cpu *cpu, const struct x86_insn *insn, gva_t lin,
			      unsigned size, unsigned access, void *buf)
{
	enum x86_status st = X86_OK;

	if (insn->access & INSN_WRITE)
		st = operand_move(cpu, insn, lin, NULL, size, access, PROBE);
	if (st != X86_OK || !(insn->access & INSN_READ))
		return st;
	if (insn->mask_kind != INSN_MASK_NONE)
		bulk_zero(buf, size);
	return operand_move(cpu, insn, lin, buf, size, access, READ);
}

enum x86_status x86_bounce_out(struct x86_cpu *cpu, const struct x86_insn *insn, gva_t lin,
			       unsigned size, unsigned access, const void *buf)
{
	if (!(insn->access & INSN_WRITE))
		return X86_OK;
	return operand_move(cpu, insn, lin, (u8 *)buf, size, access, WRITE);
}

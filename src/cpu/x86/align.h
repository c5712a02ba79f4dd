/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Alignment checks: which operands raise #AC at CPL 3 with CR0.AM and EFLAGS.AC, and before which other faults. */
#ifndef CPU_X86_ALIGN_H
#define CPU_X86_ALIGN_H

#include "cpu/x86/access.h"
#include "cpu/x86/mode.h"
#include "cpu/x86/raise.h"

/*
 * An operand that is not canonical or beyond its segment's limit is #GP or #SS first; #AC comes before every page fault.
 * Data of 2, 4 and 8 bytes that x86_read(), x86_write(), x86_probe() and x86_host() move are checked there, so stack,
 * strings and small operands need nothing of their own. System accesses and fetches are never checked. Whoever has
 * an operand with another rule asks x86_align_operand() and passes ACC_UNALIGNED.
 */

/* What the explicit memory operand of @insn must be aligned to, in bytes, by the table in align.c; 1: anything goes. */
unsigned x86_align_of(const struct x86_insn *insn);

/*
 * #AC(0) when @lin, the address of that operand, is not so aligned. An operand under a mask is asked for only when the
 * mask names an element: X86_FULL in leaf context, where masks cannot be read.
 */
enum x86_status x86_align_operand_slow(struct x86_cpu *cpu, const struct x86_insn *insn, gva_t lin);

static inline enum x86_status x86_align_operand(struct x86_cpu *cpu, const struct x86_insn *insn,
						gva_t lin)
{
	return likely(!(cpu->mode & MODE_AC)) ? X86_OK : x86_align_operand_slow(cpu, insn, lin);
}

/* The same for data of @size bytes each, the first at @lin. */
static inline enum x86_status x86_align_data(struct x86_cpu *cpu, gva_t lin, unsigned size,
					     unsigned access)
{
	if (likely(!(cpu->mode & MODE_AC)) || access & ACC_SYSTEM || !(lin & (size - 1)))
		return X86_OK;
	return x86_raise_error(cpu, VEC_AC, 0);
}

#endif

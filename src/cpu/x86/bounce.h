/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* A memory operand that cannot be used in place: copied in, worked on, copied back. */
#ifndef CPU_X86_BOUNCE_H
#define CPU_X86_BOUNCE_H

#include "cpu/x86/insn.h"

/*
 * For an explicit memory operand that crosses pages, is a device, or faults while a mask may suppress
 * the fault. @lin and @size: the whole operand; @access: ACC_WRITE when it is written or both, and
 * ACC_SYSTEM where it applies; insn->access tells which of reading and writing happen.
 *
 * in: when the instruction writes, what it writes is checked, so that x86_bounce_out() cannot fault;
 * when it reads, @buf receives the active bytes, 0 for the others. out: writes the active bytes back.
 * Masked operands need the full context (X86_FULL in leaf, as for devices). The mask must not change
 * between the two, so call x86_bounce_out() before the results are saved, or with the same registers.
 */
enum x86_status x86_bounce_in(struct x86_cpu *cpu, const struct x86_insn *insn, gva_t lin,
			      unsigned size, unsigned access, void *buf);
enum x86_status x86_bounce_out(struct x86_cpu *cpu, const struct x86_insn *insn, gva_t lin,
			       unsigned size, unsigned access, const void *buf);

#endif

/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Vector and opmask registers in the saved state, and which bytes a masked access touches. Full context only. */
#ifndef CPU_X86_VECTOR_H
#define CPU_X86_VECTOR_H

#include "cpu/x86/insn.h"

/*
 * Registers in cpu->xsave. A component whose XSTATE_BV bit is clear reads as 0 whatever its memory
 * holds; a write puts it into use. @reg 0-31, [offset, offset + size) inside one 16-byte lane.
 */
void x86_vector_read(const struct x86_cpu *cpu, unsigned reg, unsigned offset, void *buf,
		     unsigned size);
void x86_vector_write(struct x86_cpu *cpu, unsigned reg, unsigned offset, const void *buf,
		      unsigned size);
u64 x86_opmask_read(const struct x86_cpu *cpu, unsigned k);
void x86_opmask_write(struct x86_cpu *cpu, unsigned k, u64 v);

/*
 * Bit i of *@mask: byte i of the explicit memory operand is accessed (operands to 64 bytes; all ones
 * without a mask). .elem is the size of an element in memory.
 */
void x86_active_bytes(const struct x86_cpu *cpu, const struct x86_insn *insn, u64 mask[1]);

#endif

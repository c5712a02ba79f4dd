/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Loading segment registers from descriptors, with every check and its error code. */
#ifndef CPU_X86_SEGMENT_H
#define CPU_X86_SEGMENT_H

#include "cpu/x86/state.h"

struct x86_desc {
	u32 lo, hi;
	u32 base_hi; /* system descriptors in long mode */
};

/* Read the 8 (or 16, @wide) bytes of the descriptor of @sel from GDT or LDT; out of limit: @vector with the selector. */
enum x86_status x86_desc_read(struct x86_cpu *cpu, u16 sel, bool wide, unsigned vector,
			      struct x86_desc *d);
/* Unpack into a segment register's cached form. */
void x86_desc_unpack(const struct x86_desc *d, u16 sel, struct x86_seg *seg);
/* Load a data or stack segment register as MOV and POP do (real and v8086 mode included). */
enum x86_status x86_load_segment(struct x86_cpu *cpu, unsigned sreg, u16 sel);
/* Set by value as real and v8086 mode do. */
void x86_load_segment_real(struct x86_cpu *cpu, unsigned sreg, u16 sel);

#endif

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

/* --- inside cpu/x86 --- */

/* Linear address of the descriptor of @sel; false: outside its table (or no LDT). */
bool x86_desc_find(const struct x86_cpu *cpu, u16 sel, unsigned size, gva_t *lin);
/* Set the accessed bit (or @bits of the type) in memory, atomically, and in @d. */
enum x86_status x86_desc_mark(struct x86_cpu *cpu, u16 sel, struct x86_desc *d, u32 bits);
/* A null selector in a data segment register or, with @dpl the new CPL, SS. */
void x86_seg_set_null(struct x86_seg *seg, u16 sel, unsigned dpl);

/* Bits of a descriptor's high word. */
#define DESC_ACCESSED BIT(8)
#define DESC_BUSY     BIT(9)
#define DESC_W	      BIT(9)  /* data: writable; code: readable */
#define DESC_C	      BIT(10) /* code: conforming; data: expand down */
#define DESC_CODE     BIT(11)
#define DESC_S	      BIT(12)
#define DESC_P	      BIT(15)
#define DESC_L	      BIT(21)
#define DESC_DB	      BIT(22)

static inline unsigned x86_desc_dpl(const struct x86_desc *d)
{
	return d->hi >> 13 & 3;
}

static inline unsigned x86_desc_type(const struct x86_desc *d)
{
	return d->hi >> 8 & 0xf;
}

static inline bool x86_sel_is_null(u16 sel)
{
	return !(sel & ~3);
}

/* Fixed segments of SYSCALL, SYSENTER and their returns: base 0, limit 4 GiB. */
#define SEG_FLAT_CODE64(dpl) (0xb | SA_S | SA_P | SA_L | SA_G | (dpl) << SA_DPL_SHIFT)
#define SEG_FLAT_CODE32(dpl) (0xb | SA_S | SA_P | SA_DB | SA_G | (dpl) << SA_DPL_SHIFT)
#define SEG_FLAT_DATA(dpl)   (0x3 | SA_S | SA_P | SA_DB | SA_G | (dpl) << SA_DPL_SHIFT)

#endif

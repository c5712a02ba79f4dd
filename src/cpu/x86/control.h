/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Control registers: the checks and effects of a load, for MOV CR, ioctls and task switches alike. */
#ifndef CPU_X86_CONTROL_H
#define CPU_X86_CONTROL_H

#include "cpu/x86/state.h"

/* #GP(0) as the architecture asks, else load with all effects (flush, LMA, PDPTRs, mode). */
enum x86_status x86_set_cr0(struct x86_cpu *cpu, u64 v);
enum x86_status x86_set_cr3(struct x86_cpu *cpu, u64 v);
enum x86_status x86_set_cr4(struct x86_cpu *cpu, u64 v);
enum x86_status x86_set_efer(struct x86_cpu *cpu, u64 v);
enum x86_status x86_set_xcr0(struct x86_cpu *cpu, u64 v);
/* PAE: load PDPTRs from CR3; X86_FAULT (#GP) for reserved bits. */
enum x86_status x86_load_pdptrs(struct x86_cpu *cpu, u64 cr3);
void x86_flush_all(struct x86_cpu *cpu);
void x86_flush_nonglobal(struct x86_cpu *cpu);
void x86_flush_pcid(struct x86_cpu *cpu, u16 pcid); /* all but global pages of one PCID */
void x86_flush_page(struct x86_cpu *cpu, gva_t lin);

/* DR6 and DR7 with their fixed bits. */
#define DR6_FIXED    0xffff0ff0ull
#define DR6_WRITABLE 0x0000e00full
#define DR6_BD	     BIT(13)
#define DR7_FIXED    0x00000400ull
#define DR7_WRITABLE 0xffff23ffull
#define DR7_GD	     BIT(13)

/* Address is canonical for a processor with @virt_bits linear address bits. */
static inline bool x86_canonical(u64 address, unsigned virt_bits)
{
	unsigned shift = 64 - virt_bits;

	return (u64)((s64)(address << shift) >> shift) == address;
}

#endif

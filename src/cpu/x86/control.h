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
void x86_flush_page(struct x86_cpu *cpu, gva_t lin);

#endif

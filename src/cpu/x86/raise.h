/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Raising exceptions, and the note that the interrupt window may be open. */
#ifndef CPU_X86_RAISE_H
#define CPU_X86_RAISE_H

#include "cpu/x86/state.h"

/* Each fills cpu->exc and returns X86_FAULT: return x86_raise_gp(cpu, 0); */
enum x86_status x86_raise(struct x86_cpu *cpu, unsigned vector); /* no error code */
enum x86_status x86_raise_error(struct x86_cpu *cpu, unsigned vector, u32 error);
enum x86_status x86_raise_gp(struct x86_cpu *cpu, u32 error);
enum x86_status x86_raise_ud(struct x86_cpu *cpu);
enum x86_status x86_raise_pf(struct x86_cpu *cpu, u32 error, gva_t address);
enum x86_status x86_raise_db(struct x86_cpu *cpu, u64 dr6_bits);

/* To be called by whatever may open the interrupt window (sets IF, ends a shadow). */
static inline void x86_window_opened(struct x86_cpu *cpu)
{
	if (cpu->irq_waiting)
		cpu->kick = 1;
}

#endif

/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Debug registers in force: the guest's own, or those of a debugger in user space (KVM_SET_GUEST_DEBUG). */
#ifndef CPU_X86_DEBUG_H
#define CPU_X86_DEBUG_H

#include "cpu/x86/state.h"

#define DR7_ENABLES 0xffull /* L0-L3, G0-G3 */
#define DR6_BS	    BIT(14)

enum dr7_kind { DR7_EXECUTE, DR7_WRITE, DR7_IO, DR7_ACCESS };

static inline u64 x86_dr7(const struct x86_cpu *cpu)
{
	return unlikely(cpu->debug & X86_DEBUG_HW) ? cpu->debug_dr7 : cpu->dr7;
}

static inline u64 x86_dr(const struct x86_cpu *cpu, unsigned i)
{
	return unlikely(cpu->debug & X86_DEBUG_HW) ? cpu->debug_dr[i] : cpu->dr[i];
}

static inline bool dr7_enabled(u64 dr7, unsigned i)
{
	return dr7 >> (2 * i) & 3;
}

static inline enum dr7_kind dr7_kind(u64 dr7, unsigned i)
{
	return dr7 >> (16 + 4 * i) & 3;
}

/* Bytes that breakpoint @i watches. */
static inline unsigned dr7_len(u64 dr7, unsigned i)
{
	static const u8 len[4] = { 1, 2, 8, 4 };

	return len[dr7 >> (18 + 4 * i) & 3];
}

/* Whether every instruction has to be looked at: one at a time, each access by a C call. */
static inline bool x86_is_debugged(const struct x86_cpu *cpu)
{
	return cpu->f.tf || x86_dr7(cpu) & DR7_ENABLES || cpu->debug & X86_DEBUG_STEP;
}

/* A debugger takes each #DB for itself. */
static inline bool x86_debugger_has_db(const struct x86_cpu *cpu)
{
	return cpu->debug & (X86_DEBUG_STEP | X86_DEBUG_HW);
}

/* An exit to the debugger; @bits of DR6. */
static inline enum x86_status x86_debug_exit(struct x86_cpu *cpu, unsigned vector, u64 bits)
{
	cpu->exit = (struct x86_exit){ .reason = X86_EXIT_DEBUG, .port = vector, .error = bits };
	cpu->watch = 0;
	return X86_EXIT;
}

/* Note in cpu->watch which breakpoints the access hits: #DB comes when the instruction is complete. */
void x86_watch_note(struct x86_cpu *cpu, gva_t lin, unsigned size, bool is_write);
void x86_watch_note_io(struct x86_cpu *cpu, u16 port, unsigned size);

#endif

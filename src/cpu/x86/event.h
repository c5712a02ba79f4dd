/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Exceptions and interrupts: raising, delivery through IVT, IDT or gates, double and triple faults. */
#ifndef CPU_X86_EVENT_H
#define CPU_X86_EVENT_H

#include "cpu/x86/raise.h"

enum x86_event_kind {
	EVENT_EXCEPTION, /* of the processor; rip is the faulting (or, for traps, the next) instruction */
	EVENT_INTERRUPT, /* external, from a PIC or APIC */
	EVENT_NMI,
	EVENT_SOFT, /* INT n, INT3, INTO: DPL of the gate is checked; rip is the next instruction */
	EVENT_ICEBP,
};

/*
 * Deliver the exception in cpu->exc, which happened at cpu->rip. Handles contributory faults:
 * double fault, and triple fault as X86_EXIT with X86_EXIT_SHUTDOWN. Otherwise X86_OK with cpu->rip
 * at the handler, or X86_FULL / X86_EXIT for devices on the way.
 */
enum x86_status x86_deliver_exception(struct x86_cpu *cpu);

/* Deliver an interrupt, NMI at an instruction boundary (cpu->rip is the next instruction to run). As above. */
enum x86_status x86_deliver(struct x86_cpu *cpu, enum x86_event_kind kind, unsigned vector);

/*
 * When either returns X86_EXIT or X86_FULL the event is not delivered yet and stays in cpu->event (exception: with
 * cpu->exc; interrupt, nmi, soft: with .vector); call x86_deliver_pending() before the next instruction. It is also
 * what KVM_SET_VCPU_EVENTS with an injected event asks for. Nothing pending: X86_OK.
 */
enum x86_status x86_deliver_pending(struct x86_cpu *cpu);

/* Whether an external interrupt may be delivered now: IF, shadow. */
static inline bool x86_interruptible(const struct x86_cpu *cpu)
{
	return cpu->f.intr && !cpu->shadow;
}

/* Power-on or INIT state (SDM table "IA-32 and Intel 64 Processor States Following Power-up, Reset, or INIT"). */
void x86_reset(struct x86_cpu *cpu, bool init);

/* --- inside cpu/x86 --- */

struct x86_event {
	enum x86_event_kind kind;
	u8 vector;
	bool has_error;
	u32 error;
	u64 rip;    /* to be pushed */
	u64 rflags; /* to be pushed */
};

/* Enter the handler through IVT or IDT: cpu->next_rip is its address and all registers are set. Faults change nothing. */
enum x86_status x86_event_enter(struct x86_cpu *cpu, const struct x86_event *ev);
/* Through the real-mode vector table at linear @table (v8086 mode with VME: 0). */
enum x86_status x86_event_real(struct x86_cpu *cpu, const struct x86_event *ev, u64 table);

#endif

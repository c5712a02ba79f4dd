/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Exceptions and interrupts: raising them, and what happens when delivering one raises another. */
#include "base/probe.h"
#include "cpu/x86/event.h"
#include "cpu/x86/access.h"
#include "cpu/x86/mode.h"

#define DR6_FIXED_1	 0xffff0ff0u
#define DR6_TRAPS	 0xfu
#define DR7_GD		 BIT(13)
#define DEBUGCTL_LBR_BTF 0x3u

/* SDM table "Interrupt and Exception Classes". */
#define CONTRIBUTORY                                                                               \
	(BIT(VEC_DE) | BIT(VEC_TS) | BIT(VEC_NP) | BIT(VEC_SS) | BIT(VEC_GP) | BIT(VEC_CP))
/* Faults push RF = 1; traps and aborts, and #DB as either, push RF as it is. */
#define PUSHES_RF                                                                                  \
	(BIT(VEC_DE) | BIT(VEC_BR) | BIT(VEC_UD) | BIT(VEC_NM) | BIT(VEC_CSO) | BIT(VEC_TS) |      \
	 BIT(VEC_NP) | BIT(VEC_SS) | BIT(VEC_GP) | BIT(VEC_PF) | BIT(VEC_MF) | BIT(VEC_AC) |       \
	 BIT(VEC_XM) | BIT(VEC_CP))

static bool in_class(unsigned vector, u32 class)
{
	return vector < 32 && (BIT(vector) & class);
}

/* CR2 and DR6 change when the exception is recognised, whether or not its delivery succeeds. */
static void payload_take(struct x86_cpu *cpu)
{
	const struct x86_exception *e = &cpu->exc;

	if (e->vector == VEC_PF) {
		if (e->has_payload)
			cpu->cr2 = e->payload;
	} else if (e->vector == VEC_DB) {
		if (e->has_payload)
			cpu->dr6 = (cpu->dr6 & ~(u64)DR6_TRAPS) | DR6_FIXED_1 | e->payload;
		cpu->dr7 &= ~(u64)DR7_GD;
		cpu->debugctl &= ~(u64)DEBUGCTL_LBR_BTF;
	}
}

static void event_clear(struct x86_cpu *cpu)
{
	cpu->event.exception = false;
	cpu->event.interrupt = false;
	cpu->event.nmi = false;
	cpu->event.soft = false;
}

static enum x86_status shut_down(struct x86_cpu *cpu)
{
	event_clear(cpu);
	x86_replay_forget(cpu);
	cpu->exit = (struct x86_exit){ .reason = X86_EXIT_SHUTDOWN };
	return X86_EXIT;
}

/* cpu->exc arose while delivering an exception of vector @first. False: triple fault. */
static bool fault_combine(struct x86_cpu *cpu, unsigned first)
{
	u32 heavy = CONTRIBUTORY | BIT(VEC_PF);
	unsigned second = cpu->exc.vector;

	if (first == VEC_DF && in_class(second, heavy))
		return false;
	if ((in_class(first, CONTRIBUTORY) && in_class(second, CONTRIBUTORY)) ||
	    (first == VEC_PF && in_class(second, heavy))) {
		payload_take(cpu);
		x86_raise_error(cpu, VEC_DF, 0);
	}
	return true;
}

/* The event at hand is in the processor's hands now: end shadows, go to the handler. */
static enum x86_status delivered(struct x86_cpu *cpu)
{
	event_clear(cpu);
	x86_replay_forget(cpu);
	cpu->rip = cpu->next_rip;
	return X86_OK;
}

static enum x86_status exception_loop(struct x86_cpu *cpu)
{
	for (;;) {
		struct x86_event ev = {
			.kind = EVENT_EXCEPTION,
			.vector = cpu->exc.vector,
			.has_error = cpu->exc.has_error,
			.error = cpu->exc.error,
			.rip = cpu->rip,
			.rflags = x86_rflags(cpu),
		};
		enum x86_status st;

		PROBE(kvm_inj_exception, ev.vector, ev.has_error, ev.error, ev.rip);
		if (in_class(ev.vector, PUSHES_RF))
			ev.rflags |= FL_RF;
		payload_take(cpu);
		cpu->event.exception = true;
		cpu->event.vector = ev.vector;
		st = x86_event_enter(cpu, &ev);
		if (likely(st == X86_OK))
			return delivered(cpu);
		if (st != X86_FAULT)
			return st;
		x86_replay_forget(cpu);
		if (!fault_combine(cpu, ev.vector))
			return shut_down(cpu);
	}
}

enum x86_status x86_deliver_exception(struct x86_cpu *cpu)
{
	if (cpu->event.exception)
		x86_replay_restart(cpu); /* of a delivery that had to ask for a device */
	else
		x86_replay_forget(cpu);
	event_clear(cpu);
	return exception_loop(cpu);
}

static void event_remember(struct x86_cpu *cpu, enum x86_event_kind kind, unsigned vector)
{
	event_clear(cpu);
	if (kind == EVENT_NMI) {
		cpu->event.nmi = true;
		cpu->event.nmi_blocked = true;
	} else {
		cpu->event.interrupt = true;
		cpu->event.soft = kind == EVENT_SOFT;
	}
	cpu->event.vector = vector;
}

enum x86_status x86_deliver(struct x86_cpu *cpu, enum x86_event_kind kind, unsigned vector)
{
	struct x86_event ev = {
		.kind = kind,
		.vector = kind == EVENT_NMI ? VEC_NMI : vector,
		.rip = cpu->rip,
		.rflags = x86_rflags(cpu),
	};
	enum x86_status st;

	if (cpu->event.interrupt || cpu->event.nmi)
		x86_replay_restart(cpu);
	else
		x86_replay_forget(cpu);
	event_remember(cpu, kind, ev.vector);
	st = x86_event_enter(cpu, &ev);
	if (likely(st == X86_OK))
		return delivered(cpu);
	if (st != X86_FAULT)
		return st;
	/* The first event was benign: whatever its delivery raised is delivered by itself. */
	x86_replay_forget(cpu);
	event_clear(cpu);
	return exception_loop(cpu);
}

enum x86_status x86_deliver_pending(struct x86_cpu *cpu)
{
	if (cpu->event.exception)
		return x86_deliver_exception(cpu);
	if (cpu->event.nmi)
		return x86_deliver(cpu, EVENT_NMI, VEC_NMI);
	if (cpu->event.interrupt)
		return x86_deliver(cpu, cpu->event.soft ? EVENT_SOFT : EVENT_INTERRUPT,
				   cpu->event.vector);
	return X86_OK;
}

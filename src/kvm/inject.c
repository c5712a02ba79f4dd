/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Events at an instruction boundary: INIT, SIPI, NMI and interrupts, in the order of KVM. */
#include "base/probe.h"
#include "cpu/x86/event.h"
#include "cpu/x86/mode.h"
#include "cpu/x86/smm.h"
#include "kvm/kvm.h"

#define NMI_MAX 2 /* one being taken and one latched */

/* An instruction that asked a device is not complete: nothing may come between. */
static bool instruction_in_flight(const struct x86_cpu *cpu)
{
	return cpu->replay.n || cpu->replay.waiting;
}

static bool event_in_flight(const struct x86_cpu *cpu)
{
	return cpu->event.exception || cpu->event.nmi || cpu->event.interrupt;
}

static void take_init(struct vcpu *v)
{
	bool bsp = v->id == v->vm->bsp_id;

	vcpu_replay_drop(v);
	x86_reset(v->cpu, true);
	lapic_reset(v->lapic, true);
	v->pv.eoi_msr = 0;
	v->mp_state = bsp ? KVM_MP_STATE_RUNNABLE : KVM_MP_STATE_INIT_RECEIVED;
	vcpu_state_changed(v);
}

/* SDM "MP Initialization Protocol": start at vector << 12 in real mode. */
static void take_sipi(struct vcpu *v)
{
	struct x86_seg *cs = &v->cpu->seg[SEG_CS];

	cs->sel = v->sipi_vector << 8;
	cs->base = (u64)v->sipi_vector << 12;
	v->cpu->rip = 0;
	v->mp_state = KVM_MP_STATE_RUNNABLE;
	vcpu_state_changed(v);
}

void vcpu_accept_events(struct vcpu *v)
{
	struct x86_cpu *cpu = v->cpu;
	u32 nmis = likely(!__atomic_load_n(&v->nmi_queued, __ATOMIC_RELAXED))
			   ? 0
			   : __atomic_exchange_n(&v->nmi_queued, 0, __ATOMIC_ACQUIRE);
	u32 limit = cpu->event.nmi_blocked || cpu->event.nmi ? NMI_MAX - 1 : NMI_MAX;

	if (__atomic_load_n(&v->smi_queued, __ATOMIC_ACQUIRE) &&
	    __atomic_exchange_n(&v->smi_queued, false, __ATOMIC_ACQUIRE))
		cpu->event.smi_pending = true;
	if (v->lapic && lapic_has_event(v->lapic)) {
		u8 vector;

		/* SMM keeps an INIT waiting, and loses a SIPI. */
		if (!cpu->event.in_smm && lapic_take_init(v->lapic))
			take_init(v);
		if (lapic_take_sipi(v->lapic, &vector) && !cpu->event.in_smm) {
			v->sipi_vector = vector;
			v->sipi_due = true;
		}
		while (lapic_take_nmi(v->lapic))
			nmis++;
		if (lapic_take_smi(v->lapic))
			cpu->event.smi_pending = true;
	}
	if (nmis) {
		nmis += cpu->event.nmi_pending;
		cpu->event.nmi_pending = nmis > limit ? limit : nmis;
	}
	if (v->sipi_due && v->mp_state == KVM_MP_STATE_INIT_RECEIVED)
		take_sipi(v);
	v->sipi_due = false;
}

/* The interrupt controller has one, or Xen's vector of the VM is to be delivered. */
static bool interrupt_is_due(struct vcpu *v)
{
	return v->lapic && (lapic_pending(v->lapic) || vcpu_xen_upcall(v));
}

/* What wakes a halted vCPU: as kvm_arch_vcpu_runnable(). */
bool vcpu_has_wakeup(struct vcpu *v)
{
	struct x86_cpu *cpu = v->cpu;

	if (event_in_flight(cpu) || __atomic_load_n(&v->unhalted, __ATOMIC_ACQUIRE))
		return true;
	if (cpu->event.nmi_pending && !cpu->event.nmi_blocked)
		return true;
	if (unlikely(v->hv.active) && hv_timer_waits(v))
		return true;
	if (cpu->event.smi_pending && !cpu->event.in_smm)
		return true;
	if (unlikely(xen_has_event(v)))
		return true;
	return interrupt_is_due(v) && x86_interruptible(cpu);
}

bool vcpu_irq_window_open(const struct vcpu *v)
{
	return x86_interruptible(v->cpu) && !event_in_flight(v->cpu) &&
	       !instruction_in_flight(v->cpu);
}

/* An event that was cut off, or that user space set by KVM_INTERRUPT or KVM_SET_VCPU_EVENTS. */
static enum x86_status inject_again(struct vcpu *v)
{
	struct x86_cpu *cpu = v->cpu;

	/* User space may queue an interrupt with IF clear; the processor would refuse it. */
	if (cpu->event.interrupt && !cpu->event.soft && !cpu->event.exception && !cpu->event.nmi &&
	    !x86_interruptible(cpu)) {
		cpu->irq_waiting = true;
		return X86_OK;
	}
	if (cpu->event.interrupt && !cpu->event.exception)
		PROBE(kvm_inj_virq, v->id, cpu->event.vector, 1);
	return x86_deliver_pending(cpu);
}

/* Before NMIs. In SMM it waits for RSM, which asks to be looked at. */
static void inject_smi(struct x86_cpu *cpu)
{
	if (likely(!cpu->event.smi_pending) || cpu->event.in_smm)
		return;
	cpu->event.smi_pending = false;
	x86_smm_enter(cpu);
}

static enum x86_status inject_nmi(struct vcpu *v)
{
	struct x86_cpu *cpu = v->cpu;

	if (!cpu->event.nmi_pending)
		return X86_OK;
	if (cpu->event.nmi_blocked || cpu->shadow) {
		cpu->irq_waiting = true; /* IRET or the end of the shadow */
		return X86_OK;
	}
	cpu->event.nmi_pending--;
	v->stats.nmi_injections++;
	PROBE(kvm_inj_nmi, v->id);
	return x86_deliver(cpu, EVENT_NMI, VEC_NMI);
}

static enum x86_status inject_irq(struct vcpu *v)
{
	struct x86_cpu *cpu = v->cpu;
	enum x86_status st = X86_OK;
	int vector;

	if (!interrupt_is_due(v))
		return X86_OK;
	if (x86_interruptible(cpu)) {
		vector = vcpu_xen_upcall(v) ? v->vm->xen.vector : lapic_ack(v->lapic);
		if (vector >= 0) {
			v->stats.irq_injections++;
			PROBE(kvm_inj_virq, v->id, vector, 0);
			st = x86_deliver(cpu, EVENT_INTERRUPT, vector);
		}
	}
	if (interrupt_is_due(v))
		cpu->irq_waiting = true;
	return st;
}

bool vcpu_is_quiet(struct vcpu *v)
{
	struct x86_cpu *cpu = v->cpu;

	if (event_in_flight(cpu) || cpu->event.nmi_pending || cpu->event.smi_pending ||
	    pv_is_active(v) || interrupt_is_due(v))
		return false;
	cpu->irq_waiting = false;
	return true;
}

enum x86_status vcpu_inject(struct vcpu *v)
{
	struct x86_cpu *cpu = v->cpu;
	enum x86_status st = X86_OK;

	cpu->irq_waiting = false;
	if (event_in_flight(cpu)) {
		st = inject_again(v);
		if (st != X86_OK || event_in_flight(cpu))
			return st;
	} else if (unlikely(cpu->debug & X86_DEBUG_BLOCKIRQ)) {
		return X86_OK;
	} else if (unlikely(instruction_in_flight(cpu))) {
		/* Look again as soon as it is complete. */
		v->recheck =
			cpu->event.nmi_pending || cpu->event.smi_pending || interrupt_is_due(v);
		return X86_OK;
	}
	inject_smi(cpu);
	st = inject_nmi(v);
	if (st == X86_OK && v->lapic)
		st = inject_irq(v);
	return st;
}

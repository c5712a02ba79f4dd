/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* KVM_GET/SET_VCPU_EVENTS, KVM_INTERRUPT and KVM_NMI. */
#include <errno.h>

#include "cpu/x86/mode.h"
#include "cpu/x86/smm.h"
#include "kvm/kvm.h"

#define EXCEPTION_MAX 31
#define SHADOW_STI    1 /* of struct x86_cpu */
#define SHADOW_MOV_SS 2

static void exception_get(struct vcpu *v, struct kvm_vcpu_events *e)
{
	const struct x86_cpu *cpu = v->cpu;

	e->exception.injected = cpu->event.exception;
	e->exception.nr = cpu->event.exception ? cpu->exc.vector : 0;
	e->exception.has_error_code = cpu->event.exception && cpu->exc.has_error;
	e->exception.error_code = e->exception.has_error_code ? cpu->exc.error : 0;
	if (v->vm->exception_payload) {
		e->flags |= KVM_VCPUEVENT_VALID_PAYLOAD;
		e->exception_has_payload = cpu->event.exception && cpu->exc.has_payload;
		e->exception_payload = e->exception_has_payload ? cpu->exc.payload : 0;
	}
}

static void smi_get(struct vcpu *v, struct kvm_vcpu_events *e)
{
	e->smi.smm = v->cpu->event.in_smm;
	e->smi.pending = v->cpu->event.smi_pending;
	e->smi.smm_inside_nmi = v->cpu->event.smm_inside_nmi;
	e->smi.latched_init = v->lapic && lapic_init_waits(v->lapic);
}

static void smi_set(struct vcpu *v, const struct kvm_vcpu_events *e)
{
	struct x86_cpu *cpu = v->cpu;

	if (!!e->smi.smm != cpu->event.in_smm)
		x86_smm_changed(cpu, e->smi.smm);
	cpu->event.smi_pending = e->smi.pending;
	if (e->smi.smm)
		cpu->event.smm_inside_nmi = e->smi.smm_inside_nmi;
	if (v->lapic)
		lapic_init_latch(v->lapic, e->smi.latched_init);
	x86_mode_update(cpu);
}

void events_get(struct vcpu *v, struct kvm_vcpu_events *e)
{
	const struct x86_cpu *cpu = v->cpu;

	vcpu_accept_events(v);
	*e = (struct kvm_vcpu_events){ 0 };
	exception_get(v, e);
	e->interrupt.injected = cpu->event.interrupt && !cpu->event.soft;
	e->interrupt.nr = e->interrupt.injected ? cpu->event.vector : 0;
	e->interrupt.shadow = cpu->shadow == SHADOW_STI	     ? KVM_X86_SHADOW_INT_STI
			      : cpu->shadow == SHADOW_MOV_SS ? KVM_X86_SHADOW_INT_MOV_SS
							     : 0;
	e->nmi.injected = cpu->event.nmi;
	e->nmi.pending = cpu->event.nmi_pending;
	e->nmi.masked = cpu->event.nmi_blocked;
	smi_get(v, e);
	e->flags |= KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SHADOW |
		    KVM_VCPUEVENT_VALID_SMM;
	if (v->vm->triple_fault_event) {
		e->flags |= KVM_VCPUEVENT_VALID_TRIPLE_FAULT;
		e->triple_fault.pending = v->triple_fault;
	}
}

static bool events_are_valid(const struct vcpu *v, const struct kvm_vcpu_events *e)
{
	u32 known = KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SIPI_VECTOR |
		    KVM_VCPUEVENT_VALID_SHADOW | KVM_VCPUEVENT_VALID_SMM;

	if (v->vm->exception_payload)
		known |= KVM_VCPUEVENT_VALID_PAYLOAD;
	if (v->vm->triple_fault_event)
		known |= KVM_VCPUEVENT_VALID_TRIPLE_FAULT;
	if (e->flags & ~known)
		return false;
	if ((e->exception.injected ||
	     (e->flags & KVM_VCPUEVENT_VALID_PAYLOAD && e->exception.pending)) &&
	    (e->exception.nr > EXCEPTION_MAX || e->exception.nr == VEC_NMI))
		return false;
	/* INIT is not received in SMM. */
	return !(e->flags & KVM_VCPUEVENT_VALID_SMM) || !(e->smi.smm || e->smi.pending) ||
	       v->mp_state != KVM_MP_STATE_INIT_RECEIVED;
}

static void exception_set(struct vcpu *v, const struct kvm_vcpu_events *e)
{
	struct x86_cpu *cpu = v->cpu;
	bool payload = e->flags & KVM_VCPUEVENT_VALID_PAYLOAD;

	cpu->event.exception = e->exception.injected || (payload && e->exception.pending);
	if (!cpu->event.exception)
		return;
	cpu->exc = (struct x86_exception){
		.vector = e->exception.nr,
		.has_error = e->exception.has_error_code,
		.error = e->exception.error_code,
		.has_payload = payload && e->exception.pending && e->exception_has_payload,
		.payload = e->exception_payload,
	};
	cpu->event.vector = e->exception.nr;
}

int events_set(struct vcpu *v, const struct kvm_vcpu_events *e)
{
	struct x86_cpu *cpu = v->cpu;

	if (!events_are_valid(v, e))
		return -EINVAL;
	vcpu_accept_events(v);
	cpu->event.interrupt = e->interrupt.injected;
	cpu->event.soft = e->interrupt.injected && e->interrupt.soft;
	if (e->interrupt.injected)
		cpu->event.vector = e->interrupt.nr;
	cpu->event.nmi = e->nmi.injected;
	exception_set(v, e);
	if (e->flags & KVM_VCPUEVENT_VALID_SHADOW)
		cpu->shadow = e->interrupt.shadow & KVM_X86_SHADOW_INT_MOV_SS ? SHADOW_MOV_SS
			      : e->interrupt.shadow & KVM_X86_SHADOW_INT_STI  ? SHADOW_STI
									      : 0;
	if (e->flags & KVM_VCPUEVENT_VALID_NMI_PENDING)
		cpu->event.nmi_pending = e->nmi.pending > 2 ? 2 : e->nmi.pending;
	cpu->event.nmi_blocked = e->nmi.masked;
	if (e->flags & KVM_VCPUEVENT_VALID_SIPI_VECTOR && v->lapic)
		v->sipi_vector = e->sipi_vector;
	if (e->flags & KVM_VCPUEVENT_VALID_SMM)
		smi_set(v, e);
	if (e->flags & KVM_VCPUEVENT_VALID_TRIPLE_FAULT)
		v->triple_fault = e->triple_fault.pending;
	vcpu_state_changed(v);
	return 0;
}

long events_get_call(struct call *c)
{
	events_get(c->vcpu, c->data);
	return 0;
}

long events_set_call(struct call *c)
{
	return events_set(c->vcpu, c->data);
}

long events_interrupt(struct call *c)
{
	const struct kvm_interrupt *i = c->data;
	struct vcpu *v = c->vcpu;

	if (i->irq >= 256)
		return -EINVAL;
	if (v->lapic && !v->vm->split)
		return -ENXIO;
	if (v->lapic) /* what its PIC has */
		return lapic_extint(v->lapic, i->irq);
	v->cpu->event.interrupt = true;
	v->cpu->event.soft = false;
	v->cpu->event.vector = i->irq;
	return 0;
}

long events_smi(struct call *c)
{
	__atomic_store_n(&c->vcpu->smi_queued, true, __ATOMIC_RELEASE);
	vcpu_kick(c->vcpu);
	return 0;
}

long events_nmi(struct call *c)
{
	__atomic_add_fetch(&c->vcpu->nmi_queued, 1, __ATOMIC_RELEASE);
	vcpu_kick(c->vcpu);
	return 0;
}

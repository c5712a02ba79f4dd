/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* KVM_SET_GUEST_DEBUG: a debugger in user space steps a vCPU and has its breakpoints. */
#include <errno.h>

#include "cpu/x86/raise.h"
#include "kvm/kvm.h"

static long inject(struct vcpu *v, u32 control)
{
	if (v->cpu->event.exception || v->triple_fault)
		return -EBUSY;
	x86_raise(v->cpu, control & KVM_GUESTDBG_INJECT_DB ? VEC_DB : VEC_BP);
	vcpu_queue_exception(v);
	return 0;
}

/* As in the kernel, flags that it does not know are ignored. */
long guest_debug_set(struct call *c)
{
	static const struct {
		u32 kvm;
		u8 ours;
	} flags[] = {
		{ KVM_GUESTDBG_SINGLESTEP, X86_DEBUG_STEP },
		{ KVM_GUESTDBG_USE_HW_BP, X86_DEBUG_HW },
		{ KVM_GUESTDBG_USE_SW_BP, X86_DEBUG_SW },
		{ KVM_GUESTDBG_BLOCKIRQ, X86_DEBUG_BLOCKIRQ },
	};
	const struct kvm_guest_debug *d = c->data;
	struct x86_cpu *cpu = c->vcpu->cpu;
	long r;

	if (d->control & (KVM_GUESTDBG_INJECT_DB | KVM_GUESTDBG_INJECT_BP)) {
		r = inject(c->vcpu, d->control);
		if (r)
			return r;
	}
	cpu->debug = 0;
	for (unsigned i = 0; i < ARRAY_SIZE(flags); i++) {
		if (d->control & KVM_GUESTDBG_ENABLE && d->control & flags[i].kvm)
			cpu->debug |= flags[i].ours;
	}
	if (cpu->debug & X86_DEBUG_HW) {
		for (unsigned i = 0; i < ARRAY_SIZE(cpu->debug_dr); i++)
			cpu->debug_dr[i] = d->arch.debugreg[i];
		cpu->debug_dr7 = d->arch.debugreg[7];
	}
	cpu->watch = 0;
	vcpu_state_changed(c->vcpu);
	return 0;
}

/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* KVM_ENABLE_CAP of a VM, what concerns its processors, and of a vCPU. */
#include <errno.h>

#include "kvm/kvm.h"

#define MSR_EXIT_REASONS                                                                           \
	(KVM_MSR_EXIT_REASON_INVAL | KVM_MSR_EXIT_REASON_UNKNOWN | KVM_MSR_EXIT_REASON_FILTER)

void vcpu_choices(struct vcpu *v)
{
	const struct vm *vm = v->vm;
	struct x86_cpu *cpu = v->cpu;

	cpu->msr_exits = vm->msr_filter || vm->msr_exit_mask;
	cpu->no_platform_info = vm->no_platform_info;
	cpu->rsvd_exits = vm->exit_on_emulation_failure && cpu->phys_bits < vm->sys->host.phys_bits;
	cpu->mwait_no_fault = !(vm->quirks_off & KVM_X86_QUIRK_MWAIT_NEVER_UD_FAULTS);
	cpu->mwait_by_msr = vm->quirks_off & KVM_X86_QUIRK_MISC_ENABLE_NO_MWAIT;
	cpu->hypercall_fix = !(vm->quirks_off & KVM_X86_QUIRK_FIX_HYPERCALL_INSN);
}

static long set_user_space_msr(struct vm *vm, u64 mask)
{
	if (mask & ~(u64)MSR_EXIT_REASONS)
		return -EINVAL;
	__atomic_store_n(&vm->msr_exit_mask, (u32)mask, __ATOMIC_RELEASE);
	return 0;
}

static long set_platform_info(struct vm *vm, u64 on)
{
	vm->no_platform_info = !on;
	return 0;
}

static long set_emulation_failure(struct vm *vm, u64 on)
{
	if (on & ~1ull)
		return -EINVAL;
	vm->exit_on_emulation_failure = on;
	return 0;
}

static long set_triple_fault(struct vm *vm, u64 on)
{
	vm->triple_fault_event = on;
	return 0;
}

/* PAUSE and C-states never exit here; MWAIT is not there to be left alone. */
static long set_disable_exits(struct vm *vm, u64 what)
{
	if (what & ~(u64)KVM_X86_DISABLE_VALID_EXITS)
		return -EINVAL;
	vm->pause_in_guest |= !!(what & KVM_X86_DISABLE_EXITS_PAUSE);
	vm->hlt_in_guest |= !!(what & KVM_X86_DISABLE_EXITS_HLT);
	return 0;
}

static const struct {
	u32 cap;
	long (*set)(struct vm *vm, u64 arg);
} rows[] = {
	{ KVM_CAP_X86_USER_SPACE_MSR, set_user_space_msr },
	{ KVM_CAP_MSR_PLATFORM_INFO, set_platform_info },
	{ KVM_CAP_EXIT_ON_EMULATION_FAILURE, set_emulation_failure },
	{ KVM_CAP_X86_TRIPLE_FAULT_EVENT, set_triple_fault },
	{ KVM_CAP_X86_DISABLE_EXITS, set_disable_exits },
	{ KVM_CAP_SPLIT_IRQCHIP, irqchip_split },
};

long vm_enable_x86_cap(struct vm *vm, const struct kvm_enable_cap *e)
{
	long r = -EINVAL;

	for (unsigned i = 0; i < ARRAY_SIZE(rows); i++) {
		if (rows[i].cap != e->cap)
			continue;
		pthread_mutex_lock(&vm->lock);
		r = rows[i].set(vm, e->args[0]);
		for (unsigned k = 0; !r && k < vm->nvcpus; k++)
			vcpu_choices(vm->vcpu[k]);
		pthread_mutex_unlock(&vm->lock);
	}
	return r;
}

long vcpu_enable_x86_cap(struct vcpu *v, const struct kvm_enable_cap *e)
{
	switch (e->cap) {
	case KVM_CAP_ENFORCE_PV_FEATURE_CPUID:
		v->enforce_pv = e->args[0];
		return 0;
	case KVM_CAP_HYPERV_ENFORCE_CPUID:
		v->hv.enforce = e->args[0];
		return 0;
	case KVM_CAP_HYPERV_SYNIC2:
		if (e->args[0])
			return -EINVAL;
		/* fallthrough */
	case KVM_CAP_HYPERV_SYNIC:
		if (!v->vm->irqchip)
			return -EINVAL;
		return hv_synic_activate(v, e->cap == KVM_CAP_HYPERV_SYNIC2);
	default:
		return -EINVAL;
	}
}

/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* KVM_GET/SET/HAS_DEVICE_ATTR: XSAVE components that need permission, and the offset of a vCPU's TSC. */
#include <errno.h>

#include "kvm/kvm.h"
#include "kvm/usercopy.h"

static bool is_xcomp(const struct kvm_device_attr *a)
{
	return !a->group && a->attr == KVM_X86_XCOMP_GUEST_SUPP;
}

long attr_system_has(struct call *c)
{
	return is_xcomp(c->data) ? 0 : -ENXIO;
}

long attr_system_get(struct call *c)
{
	const struct kvm_device_attr *a = c->data;

	if (!is_xcomp(a))
		return -ENXIO;
	return user_write(a->addr, &c->sys->host.xcr0, sizeof(u64));
}

static bool is_tsc_offset(const struct kvm_device_attr *a)
{
	return a->group == KVM_VCPU_TSC_CTRL && a->attr == KVM_VCPU_TSC_OFFSET;
}

long attr_vcpu_has(struct call *c)
{
	return is_tsc_offset(c->data) ? 0 : -ENXIO;
}

long attr_vcpu_get(struct call *c)
{
	const struct kvm_device_attr *a = c->data;

	if (!is_tsc_offset(a))
		return -ENXIO;
	return user_write(a->addr, &c->vcpu->cpu->tsc_offset, sizeof(u64));
}

long attr_vcpu_set(struct call *c)
{
	const struct kvm_device_attr *a = c->data;
	u64 offset;

	if (!is_tsc_offset(a))
		return -ENXIO;
	if (user_read(&offset, a->addr, sizeof(offset)))
		return -EFAULT;
	c->vcpu->cpu->tsc_offset = offset;
	__atomic_store_n(&c->vcpu->clock_stale, true, __ATOMIC_RELEASE);
	if (c->vcpu->lapic) /* what its deadline is compared with has moved */
		lapic_deadline_set(c->vcpu->lapic, lapic_deadline_get(c->vcpu->lapic));
	return 0;
}

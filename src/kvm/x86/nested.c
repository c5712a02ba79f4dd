/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* KVM_GET/SET_NESTED_STATE: without nested guests the state is a header. */
#include <errno.h>
#include <string.h>

#include "kvm/kvm.h"
#include "kvm/usercopy.h"

long nested_get(struct call *c)
{
	struct kvm_nested_state s;
	u32 room;

	if (user_read(&room, c->arg + offsetof(struct kvm_nested_state, size), sizeof(room)))
		return -EFAULT;
	memset(&s, 0, sizeof(s));
	s.format = c->vcpu->cpu->intel ? KVM_STATE_NESTED_FORMAT_VMX : KVM_STATE_NESTED_FORMAT_SVM;
	if (s.format == KVM_STATE_NESTED_FORMAT_VMX)
		s.hdr.vmx.vmxon_pa = s.hdr.vmx.vmcs12_pa = ~0ull;
	s.size = sizeof(s);
	if (room < s.size) {
		if (user_write(c->arg + offsetof(struct kvm_nested_state, size), &s.size,
			       sizeof(s.size)))
			return -EFAULT;
		return -E2BIG;
	}
	return user_write(c->arg, &s, sizeof(s));
}

long nested_set(struct call *c)
{
	const u32 known = KVM_STATE_NESTED_RUN_PENDING | KVM_STATE_NESTED_GUEST_MODE |
			  KVM_STATE_NESTED_EVMCS | KVM_STATE_NESTED_GIF_SET;
	struct kvm_nested_state s;

	if (user_read(&s, c->arg, offsetof(struct kvm_nested_state, hdr)))
		return -EFAULT;
	if (s.size < sizeof(s) || s.flags & ~known)
		return -EINVAL;
	/* A run that is pending is one of a nested guest. */
	if (s.flags & KVM_STATE_NESTED_RUN_PENDING && !(s.flags & KVM_STATE_NESTED_GUEST_MODE))
		return -EINVAL;
	if (s.flags & (KVM_STATE_NESTED_GUEST_MODE | KVM_STATE_NESTED_EVMCS))
		return -EINVAL;
	if (s.format !=
	    (c->vcpu->cpu->intel ? KVM_STATE_NESTED_FORMAT_VMX : KVM_STATE_NESTED_FORMAT_SVM))
		return -EINVAL;
	return 0;
}

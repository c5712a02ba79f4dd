/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* KVM_GET/SET_LAPIC. */
#include <errno.h>

#include "kvm/kvm.h"
#include "kvm/usercopy.h"

/* The kernel looks at the LAPIC before it looks at the pointer. */
long lapic_get_state(struct call *c)
{
	struct kvm_lapic_state s;

	if (!c->vcpu->lapic)
		return -EINVAL;
	lapic_get(c->vcpu->lapic, &s);
	return user_write(c->arg, &s, sizeof(s));
}

long lapic_set_state(struct call *c)
{
	struct vcpu *v = c->vcpu;
	struct kvm_lapic_state s;
	int r;

	if (!v->lapic)
		return -EINVAL;
	if (user_read(&s, c->arg, sizeof(s)))
		return -EFAULT;
	r = lapic_set(v->lapic, &s);
	vcpu_kick(v);
	return r;
}

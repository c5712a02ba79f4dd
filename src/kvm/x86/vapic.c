/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* KVM_TPR_ACCESS_REPORTING and KVM_SET_VAPIC_ADDR: for guests whose accesses to the TPR are patched. */
#include <errno.h>

#include "kvm/kvm.h"

/*
 * DIFFERS: as on a host whose processor virtualizes the TPR, an access to it never gives KVM_EXIT_TPR_ACCESS (KVM_CAP_VAPIC is 0),
 * so no guest is ever patched to use the page at the VAPIC address; that page is checked and not synchronized.
 */
long vapic_reporting(struct call *c)
{
	const struct kvm_tpr_access_ctl *tac = c->data;

	return tac->flags ? -EINVAL : 0;
}

long vapic_address(struct call *c)
{
	const struct kvm_vapic_addr *va = c->data;
	struct vm *vm = c->vm;

	if (!c->vcpu->lapic)
		return -EINVAL;
	if (va->vapic_addr && !mem_slot_find(vm->mem, 0, va->vapic_addr >> PAGE_SHIFT, NULL))
		return -EINVAL;
	return 0;
}

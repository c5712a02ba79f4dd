/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* KVM_GET/SET_DEBUGREGS. */
#include <errno.h>

#include "cpu/x86/control.h"
#include "kvm/kvm.h"

long debugregs_get(struct call *c)
{
	const struct x86_cpu *cpu = c->vcpu->cpu;
	struct kvm_debugregs *d = c->data;

	for (unsigned i = 0; i < ARRAY_SIZE(cpu->dr); i++)
		d->db[i] = cpu->dr[i];
	d->dr6 = cpu->dr6;
	d->dr7 = cpu->dr7;
	return 0;
}

long debugregs_set(struct call *c)
{
	const struct kvm_debugregs *d = c->data;
	struct x86_cpu *cpu = c->vcpu->cpu;

	if (d->flags || d->dr6 >> 32 || d->dr7 >> 32)
		return -EINVAL;
	for (unsigned i = 0; i < ARRAY_SIZE(cpu->dr); i++)
		cpu->dr[i] = d->db[i];
	cpu->dr6 = (d->dr6 & DR6_WRITABLE) | DR6_FIXED;
	cpu->dr7 = (d->dr7 & DR7_WRITABLE) | DR7_FIXED;
	vcpu_state_changed(c->vcpu);
	return 0;
}

/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* KVM_CREATE_IRQCHIP and the requests on the interrupt controllers. */
#include <errno.h>
#include <stdlib.h>

#include "cpu/x86/msr.h"
#include "kvm/kvm.h"
#include "kvm/usercopy.h"

#define ROUTES_MAX 4096 /* KVM_MAX_IRQ_ROUTES */

static void chip_kick(void *owner, unsigned index)
{
	struct vm *vm = owner;

	/* A LAPIC is made before its vCPU is published. */
	if (index < vm_vcpus(vm))
		vcpu_kick(vm->vcpu[index]);
}

static u64 chip_tsc(void *owner, unsigned index)
{
	struct vm *vm = owner;

	return index < vm_vcpus(vm) ? x86_tsc_read(vm->vcpu[index]->cpu) : 0;
}

static u32 chip_tsc_khz(void *owner, unsigned index)
{
	struct vm *vm = owner;

	return index < vm_vcpus(vm) ? vm->vcpu[index]->cpu->tsc_khz : vm->tsc_khz;
}

static void chip_eoi(void *owner, unsigned gsi)
{
	irqfds_eoi(owner, gsi);
}

static const struct irq_ops chip_ops = {
	.kick = chip_kick,
	.eoi = chip_eoi,
	.tsc = chip_tsc,
	.tsc_khz = chip_tsc_khz,
};

long irqchip_make(struct call *c)
{
	struct vm *vm = c->vm;
	long r = 0;

	pthread_mutex_lock(&vm->lock);
	if (vm->irqchip) {
		r = -EEXIST;
	} else if (vm->nvcpus) {
		r = -EINVAL;
	} else {
		vm->irqchip = irqchip_create(&chip_ops, vm, vm->timers, true);
		if (vm->irqchip)
			irqchip_options(vm->irqchip, &vm->irq_options);
		else
			r = -ENOMEM;
	}
	pthread_mutex_unlock(&vm->lock);
	return r;
}

long irqchip_get_state(struct call *c)
{
	return c->vm->irqchip ? irqchip_get(c->vm->irqchip, c->data) : -ENXIO;
}

long irqchip_set_state(struct call *c)
{
	return c->vm->irqchip ? irqchip_set(c->vm->irqchip, c->data) : -ENXIO;
}

/* KVM_IRQ_LINE and, when the row copies out, KVM_IRQ_LINE_STATUS. */
long irqchip_line(struct call *c)
{
	struct kvm_irq_level *l = c->data;

	if (!c->vm->irqchip)
		return -ENXIO;
	l->status = irqchip_set_line(c->vm->irqchip, l->irq, l->level, IRQ_SOURCE_USER);
	return 0;
}

long irqchip_signal_msi(struct call *c)
{
	const struct kvm_msi *m = c->data;

	if (!c->vm->irqchip || m->flags & ~KVM_MSI_VALID_DEVID)
		return -EINVAL;
	return irqchip_msi(c->vm->irqchip, (u64)m->address_hi << 32 | m->address_lo, m->data);
}

long irqchip_routing(struct call *c)
{
	struct kvm_irq_routing_entry *e = NULL;
	struct kvm_irq_routing head;
	size_t bytes;
	long r = 0;

	if (user_read(&head, c->arg, sizeof(head)))
		return -EFAULT;
	if (!c->vm->irqchip || head.nr > ROUTES_MAX || head.flags)
		return -EINVAL;
	bytes = head.nr * sizeof(*e);
	if (bytes) {
		e = malloc(bytes);
		if (!e)
			return -ENOMEM;
		r = user_read(e, c->arg + sizeof(head), bytes);
	}
	if (!r)
		r = irqchip_set_routing(c->vm->irqchip, e, head.nr);
	free(e);
	return r;
}

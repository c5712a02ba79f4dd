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
	struct vm *vm = owner;
	struct i8254 *pit = __atomic_load_n(&vm->pit, __ATOMIC_ACQUIRE);

	if (!gsi && pit)
		i8254_acked(pit);
	irqfds_eoi(vm, gsi);
}

static void chip_unmask(void *owner, unsigned gsi)
{
	struct vm *vm = owner;
	struct i8254 *pit = __atomic_load_n(&vm->pit, __ATOMIC_ACQUIRE);

	if (!gsi && pit)
		i8254_unmasked(pit);
}

static int chip_event(void *owner, u32 vcpu_id, u32 channel, struct irq_upcall *up)
{
	return xen_event_set(owner, vcpu_id, channel, up);
}

static const struct irq_ops chip_ops = {
	.kick = chip_kick,
	.eoi = chip_eoi,
	.unmask = chip_unmask,
	.event = chip_event,
	.tsc = chip_tsc,
	.tsc_khz = chip_tsc_khz,
};

/* Under vm->lock. */
static long make(struct vm *vm, bool split)
{
	struct irqchip *chip = irqchip_create(&chip_ops, vm, vm->timers, !split);

	if (!chip)
		return -ENOMEM;
	irqchip_options(chip, &vm->irq_options);
	vm->split = split;
	__atomic_store_n(&vm->irqchip, chip, __ATOMIC_RELEASE);
	return 0;
}

long irqchip_make(struct call *c)
{
	struct vm *vm = c->vm;
	long r;

	pthread_mutex_lock(&vm->lock);
	r = vm->irqchip ? -EEXIST : vm->nvcpus ? -EINVAL : make(vm, false);
	pthread_mutex_unlock(&vm->lock);
	return r;
}

long irqchip_split(struct vm *vm, u64 pins)
{
	long r;

	if (pins > ROUTES_MAX)
		return -EINVAL;
	if (vm->irqchip || vm->nvcpus)
		return -EEXIST;
	r = make(vm, true);
	if (!r)
		irqchip_reserve(vm->irqchip, (unsigned)pins);
	return r;
}

long irqchip_get_state(struct call *c)
{
	return c->vm->irqchip && !c->vm->split ? irqchip_get(c->vm->irqchip, c->data) : -ENXIO;
}

long irqchip_set_state(struct call *c)
{
	return c->vm->irqchip && !c->vm->split ? irqchip_set(c->vm->irqchip, c->data) : -ENXIO;
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

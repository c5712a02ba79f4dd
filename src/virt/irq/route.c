/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The GSI routing table: to which pins of which chips, or to which MSI or event channel, a GSI goes. */
#include <errno.h>
#include <stdlib.h>

#include "virt/irq/chip.h"

#define ROUTE_GSI_MAX 4096

static int route_fill(const struct irqchip *chip, struct irq_route *r,
		      const struct kvm_irq_routing_entry *e)
{
	r->gsi = e->gsi;
	r->type = (u8)e->type;
	if (e->gsi >= ROUTE_GSI_MAX ||
	    e->flags & ~(e->type == KVM_IRQ_ROUTING_MSI ? KVM_MSI_VALID_DEVID : 0))
		return -EINVAL;
	switch (e->type) {
	case KVM_IRQ_ROUTING_IRQCHIP:
		if (!chip->pic_and_ioapic)
			return -EINVAL;
		if (e->u.irqchip.irqchip > KVM_IRQCHIP_IOAPIC)
			return -EINVAL;
		if (e->u.irqchip.pin >=
		    (e->u.irqchip.irqchip == KVM_IRQCHIP_IOAPIC ? IOAPIC_PINS : 8u))
			return -EINVAL;
		r->chip_id = (u8)e->u.irqchip.irqchip;
		r->pin = (u8)e->u.irqchip.pin;
		return 0;
	case KVM_IRQ_ROUTING_MSI:
		r->address = (u64)e->u.msi.address_hi << 32 | e->u.msi.address_lo;
		r->data = e->u.msi.data;
		return 0;
	case KVM_IRQ_ROUTING_XEN_EVTCHN:
		/* Neither the channel nor the vCPU needs to be there yet. */
		if (e->u.xen_evtchn.priority != KVM_IRQ_ROUTING_XEN_EVTCHN_PRIO_2LEVEL)
			return -EINVAL;
		r->address = e->u.xen_evtchn.vcpu;
		r->data = e->u.xen_evtchn.port;
		return 0;
	default:
		return -EINVAL;
	}
}

static int route_compare(const void *a, const void *b)
{
	const struct irq_route *x = a, *y = b;

	if (x->gsi != y->gsi)
		return x->gsi < y->gsi ? -1 : 1;
	return (int)x->chip_id - (int)y->chip_id;
}

/* A GSI goes to each chip once at most, and to an MSI or an event channel only alone. */
static bool routes_valid(const struct irq_route *r, unsigned n)
{
	for (unsigned i = 1; i < n; i++) {
		const struct irq_route *a = &r[i - 1], *b = &r[i];

		if (a->gsi != b->gsi)
			continue;
		if (a->type != KVM_IRQ_ROUTING_IRQCHIP || b->type != KVM_IRQ_ROUTING_IRQCHIP ||
		    a->chip_id == b->chip_id)
			return false;
	}
	return true;
}

/* Takes the chip lock only to exchange the tables. */
int route_set(struct irqchip *chip, const struct kvm_irq_routing_entry *entries, unsigned n)
{
	struct irq_route *table, *old;
	int err = 0;

	if (n > ROUTE_GSI_MAX)
		return -EINVAL;
	table = calloc(n ? n : 1, sizeof(*table));
	if (!table)
		return -ENOMEM;
	for (unsigned i = 0; i < n && !err; i++) {
		err = route_fill(chip, &table[i], &entries[i]);
		if (entries[i].type == KVM_IRQ_ROUTING_MSI && chip->options.ids32 &&
		    entries[i].u.msi.address_hi & 0xff)
			err = -EINVAL;
	}
	if (!err) {
		qsort(table, n, sizeof(*table), route_compare);
		err = routes_valid(table, n) ? 0 : -EINVAL;
	}
	if (err) {
		free(table);
		return err;
	}
	chip_lock(chip);
	old = chip->routes;
	chip->routes = table;
	chip->nroutes = n;
	chip_unlock(chip);
	free(old);
	return 0;
}

int route_set_default(struct irqchip *chip)
{
	struct kvm_irq_routing_entry e[IOAPIC_PINS + 16] = { 0 };
	unsigned n = 0;

	for (unsigned gsi = 0; gsi < IOAPIC_PINS; gsi++) {
		e[n].gsi = gsi;
		e[n].type = KVM_IRQ_ROUTING_IRQCHIP;
		e[n].u.irqchip.irqchip = KVM_IRQCHIP_IOAPIC;
		e[n++].u.irqchip.pin = gsi;
		if (gsi >= 16)
			continue;
		e[n].gsi = gsi;
		e[n].type = KVM_IRQ_ROUTING_IRQCHIP;
		e[n].u.irqchip.irqchip = gsi / 8 ? KVM_IRQCHIP_PIC_SLAVE : KVM_IRQCHIP_PIC_MASTER;
		e[n++].u.irqchip.pin = gsi % 8;
	}
	return route_set(chip, e, n);
}

static unsigned route_first(const struct irqchip *chip, unsigned gsi)
{
	unsigned lo = 0, hi = chip->nroutes;

	while (lo < hi) {
		unsigned mid = (lo + hi) / 2;

		if (chip->routes[mid].gsi < gsi)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

bool route_is_split_level(const struct lapic *l, u8 vector)
{
	const struct irqchip *chip = l->chip;

	for (unsigned i = 0; i < chip->nroutes && chip->routes[i].gsi < chip->reserved; i++) {
		const struct irq_route *r = &chip->routes[i];

		if (r->type == KVM_IRQ_ROUTING_MSI && r->data & BIT(15) && (u8)r->data == vector &&
		    irq_msi_reaches(l, r->address, r->data))
			return true;
	}
	return false;
}

static int route_event(struct irqchip *chip, const struct irq_route *r)
{
	struct irq_upcall up = { 0 };
	int n;

	if (!chip->ops.event)
		return -1;
	n = chip->ops.event(chip->owner, (u32)r->address, r->data, &up);
	irq_deliver_upcall(chip, &up);
	return n;
}

static int route_one(struct irqchip *chip, const struct irq_route *r, int level, unsigned source)
{
	if (r->type == KVM_IRQ_ROUTING_MSI)
		return level ? irq_deliver_msi(chip, r->address, r->data) : -1;
	if (r->type == KVM_IRQ_ROUTING_XEN_EVTCHN)
		return level ? route_event(chip, r) : -1;
	if (!chip->pic_and_ioapic)
		return -1;
	if (r->chip_id == KVM_IRQCHIP_IOAPIC)
		return ioapic_set_line(chip, r->pin, level, source);
	return i8259_set_line(chip, r->chip_id * 8u + r->pin, level, source);
}

/* Sum of what the chips report; masked only when it is so everywhere. */
int route_line(struct irqchip *chip, unsigned gsi, int level, unsigned source)
{
	int ret = -1;

	for (unsigned i = route_first(chip, gsi); i < chip->nroutes; i++) {
		int r;

		if (chip->routes[i].gsi != gsi)
			break;
		r = route_one(chip, &chip->routes[i], level, source);
		if (r >= 0)
			ret = r + (ret < 0 ? 0 : ret);
	}
	return ret;
}

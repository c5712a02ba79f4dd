/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Telling the KVM floor that a pin of PIC or IOAPIC has been acknowledged, or unmasked. */
#include "virt/irq/chip.h"

void chip_notify_eoi(struct irqchip *chip, unsigned chip_id, unsigned pin)
{
	if (!chip->ops.eoi)
		return;
	/* The table may be replaced while the lock is dropped: only the index survives. */
	for (unsigned i = 0; i < chip->nroutes; i++) {
		const struct irq_route *r = &chip->routes[i];
		u32 gsi = r->gsi;

		if (r->type != KVM_IRQ_ROUTING_IRQCHIP || r->chip_id != chip_id || r->pin != pin)
			continue;
		chip_unlock(chip);
		chip->ops.eoi(chip->owner, gsi);
		chip_lock(chip);
	}
}

void chip_notify_unmask(struct irqchip *chip, unsigned chip_id, unsigned pin)
{
	for (unsigned i = 0; chip->ops.unmask && i < chip->nroutes; i++) {
		const struct irq_route *r = &chip->routes[i];

		if (r->type == KVM_IRQ_ROUTING_IRQCHIP && r->chip_id == chip_id && r->pin == pin)
			chip->ops.unmask(chip->owner, r->gsi);
	}
}

/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The interrupt controllers as one thing: creation, the chip lock, ports, MMIO and images. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/probe.h"
#include "virt/irq/chip.h"

#define IOAPIC_LENGTH 0x100

struct irqchip *irqchip_create(const struct irq_ops *ops, void *owner, struct timers *ts,
			       bool pic_and_ioapic)
{
	struct irqchip *chip = calloc(1, sizeof(*chip));

	if (!chip)
		return NULL;
	chip->ops = *ops;
	chip->owner = owner;
	chip->timers = ts;
	chip->pic_and_ioapic = pic_and_ioapic;
	pthread_mutex_init(&chip->lock, NULL);
	i8259_init(&chip->pic);
	ioapic_init(&chip->ioapic);
	if (pic_and_ioapic && route_set_default(chip)) {
		irqchip_destroy(chip);
		return NULL;
	}
	return chip;
}

void irqchip_destroy(struct irqchip *chip)
{
	if (!chip)
		return;
	pthread_mutex_destroy(&chip->lock);
	free(chip->routes);
	free(chip);
}

void irqchip_reserve(struct irqchip *chip, unsigned pins)
{
	chip_lock(chip);
	chip->reserved = pins;
	chip_unlock(chip);
}

void irqchip_options(struct irqchip *chip, const struct irq_options *options)
{
	chip_lock(chip);
	chip->options = *options;
	chip_unlock(chip);
}

int irqchip_set_routing(struct irqchip *chip, const struct kvm_irq_routing_entry *entries,
			unsigned n)
{
	return route_set(chip, entries, n);
}

int irqchip_set_line(struct irqchip *chip, unsigned gsi, int level, unsigned source)
{
	int r;

	if (source > 31)
		return -1;
	PROBE(kvm_set_irq, gsi, level, source);
	chip_lock(chip);
	r = route_line(chip, gsi, level, source);
	chip_unlock(chip);
	return r;
}

int irqchip_raise(struct irqchip *chip, unsigned gsi, unsigned source, bool hold, bool try)
{
	int r;

	if (source > 31)
		return -1;
	if (!try)
		chip_lock(chip);
	else if (pthread_mutex_trylock(&chip->lock))
		return -EAGAIN;
	PROBE(kvm_set_irq, gsi, 1, source);
	r = route_line(chip, gsi, 1, source);
	if (!hold)
		route_line(chip, gsi, 0, source);
	chip_unlock(chip);
	return r;
}

void irqchip_upcall(struct irqchip *chip, const struct irq_upcall *up)
{
	chip_lock(chip);
	irq_deliver_upcall(chip, up);
	chip_unlock(chip);
}

int irqchip_msi(struct irqchip *chip, u64 address, u32 data)
{
	int r;

	PROBE(kvm_msi_set_irq, address, data);
	chip_lock(chip);
	r = irq_deliver_msi(chip, address, data);
	chip_unlock(chip);
	return r;
}

int irqchip_ipi(struct irqchip *chip, u32 id, u32 icr)
{
	int r;

	chip_lock(chip);
	r = irq_deliver_physical(chip, id, icr);
	chip_unlock(chip);
	return r;
}

void irqchip_pit_nmi(struct irqchip *chip)
{
	chip_lock(chip);
	for (unsigned i = 0; i < chip->nlapics; i++) {
		struct lapic *l = chip->lapics[i];

		if (l && (lapic_reg(l, APIC_LVT0) & APIC_LVT_MODE) >> 8 == IRQ_NMI)
			lapic_local(l, APIC_LVT0);
	}
	chip_unlock(chip);
}

int irqchip_io(struct irqchip *chip, u16 port, void *data, unsigned size, bool is_write)
{
	u8 value = 0, ignored = 0;
	int r;

	if (!chip->pic_and_ioapic)
		return 1;
	switch (port) {
	case 0x20:
	case 0x21:
	case 0xa0:
	case 0xa1:
	case 0x4d0:
	case 0x4d1:
		break;
	default:
		return 1;
	}
	if (size != 1) { /* only bytes reach the chip */
		if (!is_write)
			memset(data, 0, size);
		return 0;
	}
	chip_lock(chip);
	value = is_write ? *(u8 *)data : ignored;
	r = i8259_io(chip, port, &value, is_write);
	chip_unlock(chip);
	if (!is_write)
		*(u8 *)data = value;
	return r;
}

int irqchip_mmio(struct irqchip *chip, gpa_t gpa, void *data, unsigned size, bool is_write)
{
	u64 value = 0;
	u32 offset;

	if (!chip->pic_and_ioapic || size > 8)
		return 1;
	chip_lock(chip);
	if (gpa - chip->ioapic.base >= IOAPIC_LENGTH) {
		chip_unlock(chip);
		return 1;
	}
	offset = (u32)(gpa & 0xff);
	if (is_write) {
		memcpy(&value, data, size);
		ioapic_write(chip, offset, (u32)value);
	} else {
		value = ioapic_read(&chip->ioapic, offset);
		memcpy(data, &value, size);
	}
	chip_unlock(chip);
	return 0;
}

int irqchip_get(struct irqchip *chip, struct kvm_irqchip *state)
{
	int r = 0;

	chip_lock(chip);
	switch (state->chip_id) {
	case KVM_IRQCHIP_PIC_MASTER:
	case KVM_IRQCHIP_PIC_SLAVE:
		state->chip.pic = chip->pic.pic[state->chip_id];
		break;
	case KVM_IRQCHIP_IOAPIC:
		ioapic_get(&chip->ioapic, &state->chip.ioapic);
		break;
	default:
		r = -EINVAL;
		break;
	}
	chip_unlock(chip);
	return r;
}

int irqchip_set(struct irqchip *chip, const struct kvm_irqchip *state)
{
	int r = 0;

	chip_lock(chip);
	switch (state->chip_id) {
	case KVM_IRQCHIP_PIC_MASTER:
	case KVM_IRQCHIP_PIC_SLAVE:
		chip->pic.pic[state->chip_id] = state->chip.pic;
		break;
	case KVM_IRQCHIP_IOAPIC:
		ioapic_set(chip, &state->chip.ioapic);
		break;
	default:
		r = -EINVAL;
		break;
	}
	if (!r)
		i8259_update(chip);
	chip_unlock(chip);
	return r;
}

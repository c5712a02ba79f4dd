/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Messages on the APIC bus: who is addressed, lowest priority, MSI and IPI. */
#include <errno.h>

#include "virt/irq/chip.h"

static bool is_lowest(const struct irq_message *msg)
{
	return msg->mode == IRQ_LOWEST || msg->redirect;
}

static bool match_physical(const struct lapic *l, u32 dest)
{
	/* An ID above 0xff cannot be an xAPIC ID: a hotplugged vCPU is reached by it in xAPIC mode too. */
	if (lapic_is_x2apic(l) || dest > 0xff)
		return dest == l->id;
	return dest == lapic_reg(l, APIC_ID) >> 24;
}

static bool match_logical(const struct lapic *l, u32 dest)
{
	u32 ldr = lapic_reg(l, APIC_LDR);

	if (lapic_is_x2apic(l))
		return ldr >> 16 == dest >> 16 && ldr & dest & 0xffff;
	ldr >>= 24;
	switch (lapic_reg(l, APIC_DFR)) {
	case 0xffffffff: /* flat */
		return ldr & dest;
	case 0x0fffffff: /* cluster */
		return ldr >> 4 == dest >> 4 && ldr & dest & 0xf;
	default:
		return false;
	}
}

static bool match(const struct lapic *l, const struct lapic *source, const struct irq_message *msg)
{
	u32 dest = msg->dest;
	bool x2apic = lapic_is_x2apic(l);

	switch ((enum irq_shorthand)msg->shorthand) {
	case IRQ_DEST_SELF:
		return l == source;
	case IRQ_DEST_ALL:
		return true;
	case IRQ_DEST_OTHERS:
		return l != source;
	case IRQ_DEST_FIELD:
		break;
	}
	/* Without interrupt remapping a device cannot say 0xffffffff: its 0xff is taken for it. */
	if (!source && x2apic && dest == APIC_BROADCAST && !l->chip->options.no_broadcast)
		dest = X2APIC_BROADCAST;
	if (dest == (x2apic ? X2APIC_BROADCAST : APIC_BROADCAST))
		return true;
	return msg->logical ? match_logical(l, dest) : match_physical(l, dest);
}

/*
 * Lowest priority as KVM and recent chipsets choose it: by the vector, among those that are
 * addressed and enabled, so that one vector stays on one processor.
 */
/* DIFFERS: lowest priority with a logical destination: KVM counts IDs that nobody has, and loses what falls to them. */
static int deliver_lowest(struct irqchip *chip, const struct lapic *source,
			  const struct irq_message *msg)
{
	unsigned n = 0, nth;

	for (unsigned i = 0; i < chip->nlapics; i++) {
		struct lapic *l = chip->lapics[i];

		if (l && lapic_hw_enabled(l) && lapic_sw_enabled(l) && match(l, source, msg))
			n++;
	}
	if (!n)
		return -1;
	nth = msg->vector % n;
	for (unsigned i = 0; i < chip->nlapics; i++) {
		struct lapic *l = chip->lapics[i];

		if (l && lapic_hw_enabled(l) && lapic_sw_enabled(l) && match(l, source, msg) &&
		    nth-- == 0)
			return lapic_accept(l, msg);
	}
	return -1;
}

static bool is_broadcast(const struct irqchip *chip, const struct lapic *source, u32 dest)
{
	if (chip->options.no_broadcast)
		return dest == APIC_BROADCAST || dest == X2APIC_BROADCAST;
	return dest == (source && lapic_is_x2apic(source) ? X2APIC_BROADCAST : APIC_BROADCAST);
}

/* Number of APICs that accepted; 0 when dropped; -1 when a broadcast or shorthand found nobody. */
int irq_deliver(struct irqchip *chip, const struct lapic *source, const struct irq_message *msg)
{
	struct irq_message m = *msg;
	bool multi = m.shorthand || is_broadcast(chip, source, m.dest);
	int r = -1;

	if (m.shorthand == IRQ_DEST_FIELD && !m.logical && m.dest == APIC_BROADCAST &&
	    is_lowest(&m)) {
		m.mode = IRQ_FIXED;
		m.redirect = false;
	}
	if (is_lowest(&m)) {
		r = deliver_lowest(chip, source, &m);
	} else {
		for (unsigned i = 0; i < chip->nlapics; i++) {
			struct lapic *l = chip->lapics[i];

			if (l && lapic_hw_enabled(l) && match(l, source, &m))
				r = (r < 0 ? 0 : r) + lapic_accept(l, &m);
		}
	}
	return r < 0 && !multi ? 0 : r;
}

int irq_deliver_physical(struct irqchip *chip, u32 id, u32 icr)
{
	const struct irq_message msg = {
		.vector = (u8)icr,
		.mode = icr >> 8 & 7,
		.level_triggered = icr & APIC_ICR_LEVEL,
		.assert = icr & APIC_ICR_ASSERT,
	};
	int n = 0;

	for (unsigned i = 0; i < chip->nlapics; i++) {
		struct lapic *l = chip->lapics[i];

		if (l && lapic_hw_enabled(l) && match_physical(l, id))
			n += lapic_accept(l, &msg);
	}
	return n;
}

/* SDM "Message Address Register Format" and "Message Data Register Format". */
static struct irq_message msi_message(const struct irqchip *chip, u64 address, u32 data)
{
	struct irq_message msg = {
		.dest = (u32)(address >> 12) & 0xff,
		.logical = address & BIT(2),
		.redirect = address & BIT(3),
		.vector = (u8)data,
		.mode = data >> 8 & 7,
		.level_triggered = data & BIT(15),
		.assert = true,
	};

	if (chip->options.ids32)
		msg.dest |= (u32)(address >> 32) & 0xffffff00;
	return msg;
}

int irq_deliver_msi(struct irqchip *chip, u64 address, u32 data)
{
	struct irq_message msg = msi_message(chip, address, data);

	if (chip->options.ids32 && address >> 32 & 0xff)
		return -EINVAL;
	return irq_deliver(chip, NULL, &msg);
}

void irq_deliver_upcall(struct irqchip *chip, const struct irq_upcall *up)
{
	struct irq_message msg = { .vector = up->vector, .mode = IRQ_FIXED, .assert = true };
	struct lapic *l = up->vcpu_index < chip->nlapics ? chip->lapics[up->vcpu_index] : NULL;

	if (up->vector && l && lapic_hw_enabled(l))
		lapic_accept(l, &msg);
}

bool irq_msi_reaches(const struct lapic *l, u64 address, u32 data)
{
	struct irq_message msg = msi_message(l->chip, address, data);

	return match(l, NULL, &msg);
}

void irq_deliver_icr(struct lapic *source, u32 low, u32 high)
{
	struct irq_message msg = {
		.dest = lapic_is_x2apic(source) ? high : high >> 24,
		.logical = low & APIC_ICR_LOGICAL,
		.vector = (u8)low,
		.mode = low >> 8 & 7,
		.level_triggered = low & APIC_ICR_LEVEL,
		.assert = low & APIC_ICR_ASSERT,
		.shorthand = low >> 18 & 3,
	};

	irq_deliver(source->chip, source, &msg);
}

/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Interrupts and events at a local APIC: request, service, priority, and the hint that vCPUs read. */
#include "base/probe.h"
#include "virt/irq/chip.h"

/* A 256-bit bank (IRR, ISR, TMR) is eight registers 16 bytes apart. */
static unsigned bank_offset(unsigned bank, unsigned vector)
{
	return bank + (vector / 32) * 0x10;
}

bool lapic_has_vector(const struct lapic *l, unsigned bank, unsigned vector)
{
	return lapic_reg(l, bank_offset(bank, vector)) & BIT(vector % 32);
}

static void bank_put(struct lapic *l, unsigned bank, unsigned vector, bool value)
{
	unsigned offset = bank_offset(bank, vector);
	u32 old = lapic_reg(l, offset), bit = BIT(vector % 32);

	lapic_reg_set(l, offset, value ? old | bit : old & ~bit);
}

static int bank_highest(const struct lapic *l, unsigned bank)
{
	for (int i = 7; i >= 0; i--) {
		u32 word = lapic_reg(l, bank + (unsigned)i * 0x10);

		if (word)
			return i * 32 + 31 - __builtin_clz(word);
	}
	return -1;
}

/* SDM "Processor Priority Register". */
static u32 lapic_ppr(const struct lapic *l)
{
	u32 tpr = lapic_reg(l, APIC_TPR) & 0xff;
	int isr = bank_highest(l, APIC_ISR);
	u32 class = isr < 0 ? 0 : (u32)isr & 0xf0;

	return (tpr & 0xf0) >= class ? tpr : class;
}

int lapic_next(const struct lapic *l)
{
	int irr;

	if (!lapic_hw_enabled(l))
		return -1;
	irr = bank_highest(l, APIC_IRR);
	return irr < 0 || ((u32)irr & 0xf0) <= lapic_ppr(l) ? -1 : irr;
}

bool lapic_has_irr(const struct lapic *l)
{
	return bank_highest(l, APIC_IRR) >= 0;
}

bool lapic_has_extint(const struct lapic *l)
{
	return (l->chip->pic.output || l->extint >= 0) && lapic_takes_pic(l);
}

/* Whether exactly one interrupt is in service. */
static bool one_in_service(const struct lapic *l)
{
	unsigned n = 0;

	for (unsigned i = 0; i < 8; i++)
		n += (unsigned)__builtin_popcount(lapic_reg(l, APIC_ISR + i * 0x10));
	return n == 1;
}

/* As KVM: nothing else waits that would make the guest's order of EOIs matter, and no IOAPIC must hear of it. */
bool lapic_pv_eoi_offer(struct lapic *l)
{
	int vector;

	if (!one_in_service(l)) /* the vCPU's own doing: needs no lock */
		return false;
	chip_lock(l->chip);
	vector = !lapic_has_irr(l) ? bank_highest(l, APIC_ISR) : -1;
	l->pv_eoi = vector >= 0 &&
		    !(l->chip->pic_and_ioapic ? ioapic_has_vector(&l->chip->ioapic, (u8)vector)
					      : route_is_split_level(l, (u8)vector));
	vector = l->pv_eoi;
	chip_unlock(l->chip);
	return vector;
}

bool lapic_pv_eoi_offered(const struct lapic *l)
{
	return l->pv_eoi;
}

void lapic_pv_eoi_end(struct lapic *l, bool ended)
{
	chip_lock(l->chip);
	l->pv_eoi = false;
	if (ended)
		lapic_finish(l);
	else
		lapic_refresh(l);
	chip_unlock(l->chip);
}

u32 lapic_vapic_word(struct lapic *l)
{
	int irr, isr;
	u32 tpr;

	chip_lock(l->chip);
	irr = bank_highest(l, APIC_IRR);
	isr = bank_highest(l, APIC_ISR);
	tpr = lapic_reg(l, APIC_TPR) & 0xff;
	chip_unlock(l->chip);
	return tpr | (isr < 0 ? 0 : (u32)isr & 0xf0) << 8 | (irr < 0 ? 0 : (u32)irr) << 24;
}

bool lapic_takes_pic(const struct lapic *l)
{
	u32 lvt0 = lapic_reg(l, APIC_LVT0);

	if (!lapic_hw_enabled(l))
		return true;
	return !(lvt0 & APIC_LVT_MASKED) && (lvt0 & APIC_LVT_MODE) >> 8 == IRQ_EXTINT;
}

/*
 * Publish what waits, and kick when there is something new. A vCPU that halts or enters reads the
 * hint after it has cleared its kick flag, so a bit that was already set needs no second kick.
 */
void lapic_refresh(struct lapic *l)
{
	u8 old = l->hint, now = 0;

	lapic_reg_set(l, APIC_PPR, lapic_ppr(l));
	if (lapic_has_extint(l) || lapic_next(l) >= 0 || (l->pv_eoi && lapic_has_irr(l)))
		now |= HINT_IRQ;
	if (l->nmi)
		now |= HINT_NMI;
	if (l->smi)
		now |= HINT_SMI;
	if (l->init)
		now |= HINT_INIT;
	if (l->sipi)
		now |= HINT_SIPI;
	__atomic_store_n(&l->hint, now, __ATOMIC_SEQ_CST);
	if (now & ~old && l->chip->ops.kick)
		l->chip->ops.kick(l->chip->owner, l->index);
}

void lapics_refresh(struct irqchip *chip)
{
	for (unsigned i = 0; i < chip->nlapics; i++)
		if (chip->lapics[i])
			lapic_refresh(chip->lapics[i]);
}

static int accept_vector(struct lapic *l, const struct irq_message *msg)
{
	if (msg->level_triggered && !msg->assert)
		return 0;
	if (!lapic_hw_enabled(l) || !lapic_sw_enabled(l))
		return 0;
	bank_put(l, APIC_TMR, msg->vector, msg->level_triggered);
	bank_put(l, APIC_IRR, msg->vector, true);
	return 1;
}

static int accept_init(struct lapic *l, const struct irq_message *msg)
{
	if (msg->level_triggered && !msg->assert)
		return 0; /* INIT level de-assert: arbitration IDs only */
	l->init = true;
	l->sipi = false;
	return 1;
}

int lapic_accept(struct lapic *l, const struct irq_message *msg)
{
	int accepted = 1;

	PROBE(kvm_apic_accept_irq, l->id, msg->mode, msg->level_triggered, msg->vector);
	switch ((enum irq_mode)msg->mode) {
	case IRQ_FIXED:
	case IRQ_LOWEST:
		accepted = accept_vector(l, msg);
		break;
	case IRQ_SMI:
		l->smi = true;
		break;
	case IRQ_NMI:
		if (l->nmi < 2)
			l->nmi++;
		break;
	case IRQ_INIT:
		accepted = accept_init(l, msg);
		break;
	case IRQ_STARTUP:
		l->sipi_vector = msg->vector;
		l->sipi = true;
		break;
	case IRQ_REMRD:
	case IRQ_EXTINT: /* the PIC's line is looked at directly, see lapic_takes_pic() */
		return 0;
	}
	lapic_refresh(l);
	return accepted;
}

int lapic_local(struct lapic *l, unsigned lvt)
{
	u32 reg = lapic_reg(l, lvt);
	struct irq_message msg = {
		.vector = (u8)reg,
		.mode = (reg & APIC_LVT_MODE) >> 8,
		.level_triggered = reg & APIC_LVT_LEVEL,
		.assert = true,
	};

	if (!lapic_hw_enabled(l) || reg & APIC_LVT_MASKED)
		return 0;
	return lapic_accept(l, &msg);
}

int lapic_finish(struct lapic *l)
{
	int vector = bank_highest(l, APIC_ISR);

	if (vector >= 0)
		bank_put(l, APIC_ISR, (unsigned)vector, false);
	lapic_refresh(l);
	PROBE(kvm_eoi, l->id, vector);
	return vector;
}

void lapic_begin(struct lapic *l, int vector)
{
	bank_put(l, APIC_IRR, (unsigned)vector, false);
	bank_put(l, APIC_ISR, (unsigned)vector, true);
	lapic_refresh(l);
}

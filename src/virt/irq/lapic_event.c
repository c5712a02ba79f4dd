/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* What a vCPU takes from its local APIC: the next interrupt, NMI, SMI, INIT and SIPI. */
#include <errno.h>

#include "virt/irq/chip.h"

static u8 hint(struct lapic *l)
{
	return __atomic_load_n(&l->hint, __ATOMIC_SEQ_CST);
}

bool lapic_pending(struct lapic *l)
{
	return hint(l) & HINT_IRQ;
}

bool lapic_has_event(struct lapic *l)
{
	return hint(l) & (HINT_NMI | HINT_SMI | HINT_INIT | HINT_SIPI);
}

/* The PIC first, as KVM: an ExtINT is not subject to the APIC's priorities. */
int lapic_ack(struct lapic *l)
{
	int vector;

	if (!lapic_pending(l))
		return -1;
	chip_lock(l->chip);
	if (lapic_has_extint(l) && l->extint >= 0) {
		vector = l->extint;
		l->extint = -1;
		lapic_refresh(l);
	} else if (lapic_has_extint(l)) {
		vector = i8259_ack(l->chip);
		lapic_refresh(l);
	} else {
		vector = lapic_next(l);
		if (vector >= 0)
			lapic_begin(l, vector);
	}
	chip_unlock(l->chip);
	return vector;
}

int lapic_extint(struct lapic *l, u8 vector)
{
	int r = -EEXIST;

	chip_lock(l->chip);
	if (l->extint < 0) {
		l->extint = vector;
		lapic_refresh(l);
		r = 0;
	}
	chip_unlock(l->chip);
	return r;
}

bool lapic_takes_extint(struct lapic *l)
{
	bool takes;

	chip_lock(l->chip);
	takes = lapic_takes_pic(l);
	chip_unlock(l->chip);
	return takes;
}

bool lapic_eoi_due(const struct lapic *l)
{
	return l->eoi_due;
}

int lapic_take_eoi(struct lapic *l)
{
	if (likely(!l->eoi_due))
		return -1;
	for (int i = 7; i >= 0; i--) {
		u32 word = l->eoi_vectors[i];

		if (!word)
			continue;
		l->eoi_vectors[i] = word & (word - 1);
		return i * 32 + __builtin_ctz(word);
	}
	l->eoi_due = false;
	return -1;
}

static void raise(struct lapic *l, enum irq_mode mode)
{
	struct irq_message msg = { .mode = mode, .assert = true };

	chip_lock(l->chip);
	lapic_accept(l, &msg);
	chip_unlock(l->chip);
}

void lapic_nmi(struct lapic *l)
{
	raise(l, IRQ_NMI);
}

void lapic_smi(struct lapic *l)
{
	raise(l, IRQ_SMI);
}

bool lapic_take_nmi(struct lapic *l)
{
	bool taken;

	if (!(hint(l) & HINT_NMI))
		return false;
	chip_lock(l->chip);
	taken = l->nmi;
	if (taken)
		l->nmi--;
	lapic_refresh(l);
	chip_unlock(l->chip);
	return taken;
}

static bool take(struct lapic *l, u8 bit, bool *flag)
{
	bool taken;

	if (!(hint(l) & bit))
		return false;
	chip_lock(l->chip);
	taken = *flag;
	*flag = false;
	lapic_refresh(l);
	chip_unlock(l->chip);
	return taken;
}

bool lapic_take_smi(struct lapic *l)
{
	return take(l, HINT_SMI, &l->smi);
}

bool lapic_take_init(struct lapic *l)
{
	return take(l, HINT_INIT, &l->init);
}

bool lapic_init_waits(struct lapic *l)
{
	return hint(l) & HINT_INIT;
}

void lapic_init_latch(struct lapic *l, bool waits)
{
	chip_lock(l->chip);
	l->init = waits;
	lapic_refresh(l);
	chip_unlock(l->chip);
}

bool lapic_take_sipi(struct lapic *l, u8 *vector)
{
	bool taken;

	if (!(hint(l) & HINT_SIPI))
		return false;
	chip_lock(l->chip);
	taken = l->sipi;
	l->sipi = false;
	*vector = l->sipi_vector;
	lapic_refresh(l);
	chip_unlock(l->chip);
	return taken;
}

/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* 8254 interval timer with port 0x61 (speaker gate), as KVM_CREATE_PIT2 makes it. */
#ifndef VIRT_I8254_H
#define VIRT_I8254_H

#include <linux/kvm.h>

#include "virt/irq/irq.h"
#include "virt/timer.h"

/*
 * Threads: any. The PIT has a lock of its own; it calls the interrupt controllers (GSI 0, source
 * IRQ_SOURCE_PIT) from the timer thread without it. Destroy before the chip and the timers.
 */
struct i8254;

/* @speaker_dummy: port 0x61 is answered here (KVM_PIT_SPEAKER_DUMMY), else by somebody else. NULL: no memory or thread. */
struct i8254 *i8254_create(struct irqchip *chip, struct timers *ts, bool speaker_dummy);
void i8254_destroy(struct i8254 *pit);
int i8254_io(struct i8254 *pit, u16 port, void *data, unsigned size,
	     bool is_write); /* 0x40-0x43, 0x61: 0 handled, 1 not ours */
/* The guest acknowledged GSI 0 (any thread, no lock held), or unmasked it (the chip lock may be held). */
void i8254_acked(struct i8254 *pit);
void i8254_unmasked(struct i8254 *pit);
void i8254_reinject(struct i8254 *pit, bool on); /* KVM_REINJECT_CONTROL; on at creation */

void i8254_get(struct i8254 *pit, struct kvm_pit_state2 *state);
int i8254_set(struct i8254 *pit, const struct kvm_pit_state2 *state); /* 0; channel 0 starts anew */

#endif

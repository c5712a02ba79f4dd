/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* One-shot timers on CLOCK_MONOTONIC, served by one helper thread per VM. */
#ifndef VIRT_TIMER_H
#define VIRT_TIMER_H

#include "base/types.h"

struct timers; /* the thread, made on first use; all signals blocked in it */

struct timer {
	struct timers *owner;
	void (*fire)(struct timer *t); /* in the timer thread, without the heap lock */
	u64 deadline;		       /* ns, CLOCK_MONOTONIC; 0 idle */
	unsigned slot;		       /* index in the heap */
};

struct timers *timers_create(void);
void timers_destroy(struct timers *ts); /* waits for the thread */
void timer_init(struct timer *t, struct timers *ts, void (*fire)(struct timer *t));
void timer_arm(struct timer *t, u64 deadline_ns);
/* After return fire() is not running and will not run (unless called from fire() itself). */
void timer_cancel(struct timer *t);
u64 timer_now(void);

#endif

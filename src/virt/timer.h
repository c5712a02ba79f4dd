/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* One-shot timers on CLOCK_MONOTONIC, served by one helper thread per VM. */
#ifndef VIRT_TIMER_H
#define VIRT_TIMER_H

#include "base/types.h"

/*
 * Threads: every function may be called from any thread. The heap lock is a leaf: it is never held
 * while fire() runs, so fire() may take the lock of its device and arm timers.
 *
 * A device that arms and stops its timer under its own lock uses timer_arm() and timer_stop(), which
 * never wait, and checks in fire(), again under its lock, whether the event is still wanted.
 * timer_cancel() waits for fire(), so it must be called without any lock that fire() takes.
 */
struct timers; /* the heap and the thread; the thread is made by the first timer_init() */

struct timer {
	struct timers *owner;
	void (*fire)(struct timer *t); /* in the timer thread, without the heap lock */
	u64 deadline;		       /* ns, CLOCK_MONOTONIC; 0 idle */
	struct timer *child, *next;    /* pairing heap: first child, next sibling */
	struct timer *prev;	       /* previous sibling, or parent for a first child */
};

struct timers *timers_create(void);
void timers_destroy(struct timers *ts); /* waits for the thread; pending timers never fire */

/* Make @t idle. 0, or -errno when the helper thread cannot be started. */
int timer_init(struct timer *t, struct timers *ts, void (*fire)(struct timer *t));

/* (Re)start: fire() runs once, as soon as the clock has reached @deadline_ns (a past time: at once). */
void timer_arm(struct timer *t, u64 deadline_ns);

/* Stop without waiting: a fire() that has begun goes on. */
void timer_stop(struct timer *t);

/* After return fire() is not running and will not run (unless called from fire() itself). */
void timer_cancel(struct timer *t);

u64 timer_now(void); /* ns, CLOCK_MONOTONIC */

#endif

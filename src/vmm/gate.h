/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The gate that processors pass before they run guest code: closed, the machine stands. */
/*
 * Several may want it closed, each with a reason of its own, and it opens when no reason is left. Who closes it then makes the
 * processors come out (a kick), and waits until none is inside. A nap is a gate for one processor and a while.
 */
#ifndef VMM_GATE_H
#define VMM_GATE_H

#include <pthread.h>
#include <stdatomic.h>

#include "base/types.h"
#include "vmm/config.h"

enum gate_reason {
	GATE_USER = 1,	     /* stop */
	GATE_MOVE = 2,	     /* a migration or snapshot takes the last of it */
	GATE_INCOMING = 4,   /* the state is not there yet */
	GATE_UNRESOLVED = 8, /* nobody knows which side runs */
	GATE_DEBUG = 16,     /* a debugger looks at it */
};

struct gate {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	atomic_uint closed;		/* set of reasons */
	atomic_bool ended;		/* whoever waits is let through: the machine ends */
	unsigned inside;		/* processors that may run guest code */
	_Atomic u64 held;		/* a bit for each processor that stands alone */
	atomic_uint naps[VMM_MAX_CPUS]; /* microseconds to sleep, once */
};

void gate_init(struct gate *g);
void gate_destroy(struct gate *g);

/* A processor's thread. Enter waits while the gate is closed; pass is leave and enter, after its nap. */
void gate_enter(struct gate *g, unsigned index);
void gate_leave(struct gate *g);
void gate_pass(struct gate *g, unsigned index);
static inline bool gate_is_closed(struct gate *g, unsigned index)
{
	return atomic_load(&g->closed) || atomic_load(&g->held) >> index & 1 ||
	       atomic_load(&g->naps[index]);
}

/* Any thread. */
void gate_close(struct gate *g, enum gate_reason reason);
void gate_open(struct gate *g, enum gate_reason reason);
bool gate_wait_empty(struct gate *g, unsigned ms); /* false: some are still inside */

/* While it is closed: these processors stay outside when it opens. */
void gate_hold(struct gate *g, u64 held);
void gate_nap(struct gate *g, unsigned index, unsigned us);
void gate_end(struct gate *g, bool ended); /* the machine ends; false: a new one begins */

#endif

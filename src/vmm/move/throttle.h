/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Slowing the processors that write, so that a migration converges: they sleep a part of each slice of time. */
#ifndef VMM_MOVE_THROTTLE_H
#define VMM_MOVE_THROTTLE_H

#include <pthread.h>

#include "vmm/control.h"

struct throttle {
	struct control *control;
	pthread_t thread;
	bool has_thread;
	atomic_uint percent;
	atomic_bool stopped;
	int fds[VMM_MAX_CPUS];	  /* counters; -1: none */
	unsigned count;		  /* of them */
	u64 writes[VMM_MAX_CPUS]; /* as counted at the last round */
	atomic_bool is_writer[VMM_MAX_CPUS];
};

void throttle_init(struct throttle *t, struct control *control);
void throttle_stop(struct throttle *t); /* returns when nobody is slowed any more */

/* The machine stands, held: counting begins. */
void throttle_prepare(struct throttle *t, const struct control_machine *m);

/* After a round, held: who has written in it. Where the device does not count, everybody. */
void throttle_look(struct throttle *t, const struct control_machine *m);

/* More of it: 20 percent at first, 99 at last. */
int throttle_raise(struct throttle *t, struct why *why);

#endif

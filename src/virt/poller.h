/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Descriptors that somebody else writes, watched by one helper thread per VM. */
#ifndef VIRT_POLLER_H
#define VIRT_POLLER_H

#include "base/types.h"

/*
 * Threads: every function may be called from any thread but the helper's own. The poller's lock is
 * held while ready() runs, so that poller_remove() needs nothing else to be sure of it; ready()
 * may take the lock of its device, and nobody may call here who holds that lock.
 */
struct poller; /* the thread is made by the first poller_add() */

struct poll_watch {
	struct poller *owner; /* NULL: not watched */
	void (*ready)(struct poll_watch *w);
	int fd;
	u32 index;
};

struct poller *poller_create(void);
void poller_destroy(struct poller *p); /* waits for the thread; no watch may be left */

/*
 * Call ready() in the helper thread as long as @fd is readable: it must read. @fd stays open until
 * poller_remove(). 0 or -errno.
 */
int poller_add(struct poller *p, struct poll_watch *w, int fd, void (*ready)(struct poll_watch *w));

/* After return ready() is not running and will not run. */
void poller_remove(struct poll_watch *w);

#endif

/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The device thread: one poll loop over what all devices wait for on the host. */
/*
 * A source says before each round what it waits for, and looks after it at what came:
 *
 *	prepare()   loop_watch(loop, fd, POLLIN), loop_timeout(loop, ms)
 *	dispatch()  if (loop_came(loop, fd)) ...
 *
 * So a source whose guest has no buffers simply does not ask for input. The thread starts after the last source was added
 * and stops before the first goes.
 */
#ifndef VMM_LOOP_H
#define VMM_LOOP_H

#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>

#include "base/types.h"

#define LOOP_SOURCES 64u

struct loop;

struct loop_source {
	void (*prepare)(void *owner, struct loop *loop);
	void (*dispatch)(void *owner, struct loop *loop);
	void *owner;
};

struct loop {
	struct loop_source sources[LOOP_SOURCES];
	unsigned source_count;
	struct pollfd *fds; /* of this round */
	unsigned fd_count, fd_room;
	int timeout_ms;
	bool failed; /* no memory for this round's descriptors: it does not sleep long */
	int wake_fd;
	atomic_bool stopped;
	bool started;
	pthread_t thread;
};

int loop_init(struct loop *loop); /* 0 or -errno */
void loop_destroy(struct loop *loop);
int loop_add(struct loop *loop, struct loop_source source); /* 0 or -ENOSPC */
int loop_start(struct loop *loop);
void loop_stop(struct loop *loop); /* returns when the thread is gone */

/* From prepare(). Returns the place for loop_revents(), or -1. */
int loop_watch(struct loop *loop, int fd, short events);
void loop_timeout(struct loop *loop, int ms);

/* From dispatch(). */
short loop_revents(const struct loop *loop, int place);
short loop_came(const struct loop *loop, int fd);

#endif

/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Eventfds of the program: held by a duplicate, compared by what is behind them, signalled and drained. */
#ifndef KVM_EVENTFD_H
#define KVM_EVENTFD_H

#include "base/types.h"

struct eventfd {
	int fd;	    /* our duplicate; -1: none */
	int number; /* the program's */
	s64 id;	    /* the kernel's, -1 where it tells none */
	bool waits; /* a write waits while the counter is full */
};

/* Take hold of what is behind @number: 0, -EBADF, -EINVAL (no eventfd) or -EMFILE. */
int eventfd_hold(struct eventfd *e, int number);
void eventfd_drop(struct eventfd *e);

bool eventfd_is_same(const struct eventfd *a, const struct eventfd *b);

/* Add one. Never waits: a counter that is full says all that one more would say. */
void eventfd_signal(const struct eventfd *e);

/* Take the counter; returns whether it was not 0. Never waits. */
bool eventfd_drain(const struct eventfd *e);

#endif

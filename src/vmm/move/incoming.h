/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* A machine that comes from another process: its description first, then memory in rounds, state, and the commit exchange. */
#ifndef VMM_MOVE_INCOMING_H
#define VMM_MOVE_INCOMING_H

#include <pthread.h>

#include "vmm/move/describe.h"
#include "vmm/move/wire.h"

enum incoming_status {
	INCOMING_ACTIVE,
	INCOMING_RUNNING,    /* it runs here */
	INCOMING_FAILED,     /* it runs there, or nowhere else */
	INCOMING_UNRESOLVED, /* READY was sent, and nothing was heard */
};

struct incoming {
	struct wire wire;
	struct description description;
	struct control *control;
	void (*told)(void *owner, const char *event); /* optional */
	void *owner;
	pthread_mutex_t lock; /* status */
	enum incoming_status status;
	char error[400];
	u8 *state;
	size_t state_size;
	u64 rounds, pages;
	u64 digest_us; /* of --verify */
	pthread_t thread;
	bool has_thread;
};

/* Wait for the other side at @uri and take its description. 0 or -errno with one line; then incoming_free(). */
int incoming_open(struct incoming *in, const char *uri, struct why *why);

/* The other side is told why, if it is there. */
void incoming_refuse(struct incoming *in, const char *reason);
void incoming_free(struct incoming *in);

/*
 * The machine is there like it and attached, its gate closed (GATE_INCOMING): take the rest, on a thread of its own. It opens
 * the gate at the commit, or fails the machine.
 */
int incoming_start(struct incoming *in, struct control *control, struct why *why);
void incoming_join(struct incoming *in); /* the connection is cut, if it is not over */

/* Of one that is unresolved: 0, or -EINVAL with one line. */
int incoming_resolve(struct incoming *in, bool runs_here, struct why *why);
enum incoming_status incoming_status(struct incoming *in);
enum incoming_status incoming_why(struct incoming *in, char error[400]); /* and what was wrong */

#endif

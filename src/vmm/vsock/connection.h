/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* One stream between a port of the guest and a unix socket of the host: state, credit, and bytes that the host does not take yet. */
/*
 * Towards the guest nothing is kept: bytes stay in the host's socket until the guest has credit and a buffer. Towards the host
 * a connection holds what the socket does not take, at most VSOCK_ALLOC bytes, which is the credit that the guest has; a
 * guest that sends more is reset. What the guest is to be told is kept as bits, so that no guest makes a queue grow.
 */
#ifndef VMM_VSOCK_CONNECTION_H
#define VMM_VSOCK_CONNECTION_H

#include <sys/uio.h>

#include "base/types.h"
#include "vmm/vsock/host.h"

#define VSOCK_ALLOC (128u << 10) /* a power of two */

enum vsock_state {
	VSOCK_GREETING,	 /* the host's program has connected and is to say CONNECT */
	VSOCK_REQUESTED, /* the guest is asked */
	VSOCK_OPEN,
	VSOCK_DRAINING, /* the guest knows it no more; the rest goes to the host */
};

/* Packets that the guest is to get, in this order. */
enum vsock_due {
	VSOCK_DUE_REQUEST = BIT(0),
	VSOCK_DUE_RESPONSE = BIT(1),
	VSOCK_DUE_RESET = BIT(2), /* the last one */
	VSOCK_DUE_SHUTDOWN = BIT(3),
	VSOCK_DUE_CREDIT = BIT(4),
};

struct vsock_connection {
	int fd;
	struct vsock_greeting greeting;
	u32 guest_port, host_port;
	enum vsock_state state;
	u32 due;
	u32 guest_alloc, guest_forwarded, sent; /* the guest's credit for us; all counters wrap */
	u32 received, forwarded, told;		/* ours for the guest */
	u8 *held;				/* a ring of VSOCK_ALLOC bytes; NULL: none yet */
	u8 guest_shut;	 /* what the guest has ended: VIRTIO_VSOCK_SHUTDOWN_* */
	u8 host_shut;	 /* the same of the host; VSOCK_DUE_SHUTDOWN tells it */
	bool is_hung_up; /* both directions, seen */
	int place;	 /* in this round of the device thread; -1: not watched */
};

/* NULL: no memory. @fd is the connection's from then on. */
struct vsock_connection *vsock_connection_new(int fd, enum vsock_state state);
void vsock_connection_free(struct vsock_connection *c);

/* Bytes that the guest takes now. */
u32 vsock_credit(const struct vsock_connection *c);
/* Bytes that wait for the host. */
u32 vsock_held(const struct vsock_connection *c);

/* @n bytes of the guest's, scattered: to the host, or held. False: more than its credit, or no memory. */
bool vsock_take(struct vsock_connection *c, const struct iovec *iov, unsigned count, u32 n);
/* What is held, as far as the host takes it; then what follows from it. */
void vsock_flush(struct vsock_connection *c);
/* From the host into @iov, at most its size: bytes, 0 when there are none now. Its end is noted. */
u32 vsock_fetch(struct vsock_connection *c, const struct iovec *iov, unsigned count);

void vsock_guest_shut(struct vsock_connection *c, u32 flags);
void vsock_host_shut(struct vsock_connection *c, u32 flags);
/* Whether bytes may go to the guest, if there are some. */
bool vsock_may_fetch(const struct vsock_connection *c);
/* Nothing more will come of it. */
bool vsock_is_over(const struct vsock_connection *c);

#endif

/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Split virtqueues: taking descriptor chains and giving them back, with every index and address of the guest checked. */
/*
 * The guest writes to all of this while it is read. So each field is loaded once, checked, and not looked at again. What is
 * wrong in a way that a driver cannot mean ends the queue: virtqueue_pop() gives -EPROTO from then on, and the transport tells
 * the driver by DEVICE_NEEDS_RESET.
 */
#ifndef VMM_VIRTIO_QUEUE_H
#define VMM_VIRTIO_QUEUE_H

#include <sys/uio.h>

#include "vmm/ram.h"

#define QUEUE_SIZE_MAX 256u
#define CHAIN_MAX      256u /* descriptors of a chain, also of an indirect one */

struct virtqueue {
	const struct ram *ram;
	u16 size; /* a power of two, at most QUEUE_SIZE_MAX */
	u16 enabled;
	u16 vector;
	u16 event_idx; /* VIRTIO_F_EVENT_IDX was agreed on */
	u16 indirect;  /* VIRTIO_F_INDIRECT_DESC was agreed on */
	u16 broken;
	u16 last_avail; /* next entry of the available ring to be looked at */
	u16 used;	/* next entry of the used ring to be written */
	u16 signalled;	/* value of used at the last interrupt */
	u16 signalled_is_valid;
	gpa_t desc_at, avail_at, used_at;
};

/* A request: what the driver wrote comes first, then what the device may write. */
struct chain {
	u16 head;
	unsigned out, in; /* number of pieces of each kind; out first in iov */
	size_t out_bytes, in_bytes;
	struct iovec iov[CHAIN_MAX]; /* in host memory */
};

/* Its rings lie in RAM and are aligned as the specification wants; else false. */
bool virtqueue_is_sane(const struct virtqueue *q);

/* The next request: 1, 0 if there is none, -EPROTO if the guest broke the queue. */
int virtqueue_pop(struct virtqueue *q, struct chain *chain);

/* Take back the last pop: the request stays available. Only before any other call. */
void virtqueue_unpop(struct virtqueue *q);

/* Give @chain back, with @written bytes of its writable part filled. All of that part counts as written (ram_mark()). */
void virtqueue_push(struct virtqueue *q, const struct chain *chain, u32 written);

/* After pushes: whether the driver wants to be told. */
bool virtqueue_wants_interrupt(struct virtqueue *q);

/* Requests that the driver has ever made available, modulo 65536; 0 while the queue is off. */
u16 virtqueue_offered(const struct virtqueue *q);

/* Ask to be told of new requests, or not. True: some are there already, look again. */
bool virtqueue_notify_on(struct virtqueue *q);
void virtqueue_notify_off(struct virtqueue *q);

static inline const struct iovec *chain_in(const struct chain *c)
{
	return c->iov + c->out;
}

#endif

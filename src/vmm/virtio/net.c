/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* virtio network device, as the specification's chapter "Network Device" has it: one pair of queues, no offloads. */
/*
 * Frames for the guest that find no buffer wait in a short backlog, and while it is not empty the link gets no more from the
 * host. What comes even so is lost, as on a wire.
 */
#include "vmm/virtio/net.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <linux/virtio_ids.h>
#include <linux/virtio_net.h>

#include "vmm/virtio/iov.h"
#include "vmm/virtio/transport.h"

#define TO_GUEST   0u
#define FROM_GUEST 1u
#define BACKLOG	   128u

/* Without VIRTIO_NET_F_MRG_RXBUF num_buffers is 1, and there. */
#define HEADER sizeof(struct virtio_net_hdr_mrg_rxbuf)

struct frame {
	u16 size;
	u8 bytes[FRAME_MAX];
};

struct net {
	struct virtio_device virtio;
	struct virtio_net_config config;
	struct net_link *link;
	struct frame backlog[BACKLOG]; /* a ring */
	unsigned waiting, first;
};

static struct net *net_of(struct virtio_device *d)
{
	return container_of(d, struct net, virtio);
}

/* False: the guest has no buffer now. One that is too small is given back empty. */
static bool frame_give(struct net *n, const u8 *frame, size_t size)
{
	struct virtio_net_hdr_mrg_rxbuf head = { .num_buffers = 1 };
	struct chain c;
	u32 written = 0;

	if (!virtio_pop(&n->virtio, TO_GUEST, &c))
		return false;
	if (c.in_bytes >= HEADER + size) {
		written = (u32)iov_write(chain_in(&c), c.in, 0, &head, HEADER);
		written += (u32)iov_write(chain_in(&c), c.in, HEADER, frame, size);
	}
	virtqueue_push(&n->virtio.queues[TO_GUEST], &c, written);
	return true;
}

static void receive(void *owner, const u8 *frame, size_t size)
{
	struct net *n = owner;
	struct frame *f;

	if (!virtio_is_active(&n->virtio) || size > FRAME_MAX)
		return;
	if (!n->waiting && frame_give(n, frame, size))
		return;
	if (n->waiting == BACKLOG)
		return;
	f = &n->backlog[(n->first + n->waiting++) % BACKLOG];
	f->size = (u16)size;
	memcpy(f->bytes, frame, size);
}

static void backlog_give(struct net *n)
{
	while (n->waiting) {
		const struct frame *f = &n->backlog[n->first];

		if (!frame_give(n, f->bytes, f->size))
			break;
		n->first = (n->first + 1) % BACKLOG;
		n->waiting--;
	}
}

/* Frames that no Ethernet carries go nowhere. */
static void frames_send(struct net *n)
{
	struct virtqueue *q = &n->virtio.queues[FROM_GUEST];
	u8 frame[FRAME_MAX];
	struct chain c;

	while (virtio_pop(&n->virtio, FROM_GUEST, &c)) {
		const size_t size = c.out_bytes > HEADER ? c.out_bytes - HEADER : 0;

		if (size >= FRAME_MIN && size <= FRAME_MAX) {
			iov_read(c.iov, c.out, HEADER, frame, size);
			n->link->ops->send(n->link, frame, size);
		}
		virtqueue_push(q, &c, 0);
	}
	virtio_interrupt(&n->virtio, FROM_GUEST);
}

static void queue_ready(struct virtio_device *d, unsigned queue)
{
	struct net *n = net_of(d);

	if (queue == FROM_GUEST)
		frames_send(n);
	backlog_give(n);
	virtio_interrupt(d, TO_GUEST);
}

/* Whether frames can be taken now; otherwise the driver tells when it has given buffers. */
static bool has_room(struct net *n)
{
	struct virtqueue *q = &n->virtio.queues[TO_GUEST];

	while (virtio_is_active(&n->virtio) && virtqueue_notify_on(q)) {
		if (!n->waiting)
			return true;
		backlog_give(n);
		virtio_interrupt(&n->virtio, TO_GUEST);
	}
	return false;
}

static void net_prepare(void *owner, struct loop *loop)
{
	struct net *n = owner;

	pthread_mutex_lock(&n->virtio.lock);
	n->link->ops->prepare(n->link, loop, has_room(n));
	pthread_mutex_unlock(&n->virtio.lock);
}

static void net_dispatch(void *owner, struct loop *loop)
{
	struct net *n = owner;

	pthread_mutex_lock(&n->virtio.lock);
	n->link->ops->dispatch(n->link, loop);
	virtio_interrupt(&n->virtio, TO_GUEST);
	pthread_mutex_unlock(&n->virtio.lock);
}

static void net_reset(struct virtio_device *d)
{
	net_of(d)->waiting = 0;
}

static const struct virtio_ops net_ops = { .queue_ready = queue_ready, .reset = net_reset };

static const struct virtio_kind net_kind = {
	.name = "virtio-net",
	.id = VIRTIO_ID_NET,
	.class_code = 0x020000, /* network, Ethernet */
	.queues = 2,
	.features = BIT_ULL(VIRTIO_NET_F_MAC) | BIT_ULL(VIRTIO_NET_F_STATUS),
	.ops = &net_ops,
};

int net_create(struct net **out, struct net_link *link, const u8 mac[6], struct pci_bus *bus,
	       struct loop *loop, const struct ram *ram)
{
	struct net *n = calloc(1, sizeof(*n));
	int r = -ENOMEM;

	if (!n)
		return r;
	n->link = link;
	memcpy(n->config.mac, mac, sizeof(n->config.mac));
	n->config.status = VIRTIO_NET_S_LINK_UP;
	r = virtio_init(&n->virtio, &net_kind, bus, loop, ram, &n->config, sizeof(n->config), 0);
	if (r < 0)
		goto out;
	link->receive = receive;
	link->owner = n;
	r = loop_add(loop, (struct loop_source){ net_prepare, net_dispatch, n });
	if (r == 0) {
		*out = n;
		return 0;
	}
	link->receive = NULL;
	virtio_destroy(&n->virtio);
out:
	free(n);
	return r;
}

void net_destroy(struct net *n)
{
	n->link->ops->close(n->link);
	virtio_destroy(&n->virtio);
	free(n);
}

struct virtio_device *net_device(struct net *n)
{
	return &n->virtio;
}

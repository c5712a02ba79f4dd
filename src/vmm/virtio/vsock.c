/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* virtio socket device, as the specification's chapter "Socket Device" has it: streams only. */
/*
 * Packets of the guest are served as they come. What the guest is to get is looked for when it has given buffers: first the
 * resets that answer packets of no connection, then one packet of each connection in turn, so that none starves another.
 */
#include "vmm/virtio/vsock.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <linux/virtio_ids.h>
#include <linux/virtio_vsock.h>

#include "vmm/virtio/iov.h"
#include "vmm/virtio/transport.h"
#include "vmm/vsock/connection.h"
#include "vmm/vsock/host.h"

#define TO_GUEST	0u
#define FROM_GUEST	1u
#define HOST_CID	2u
#define CONNECTIONS_MAX 512u
#define RESETS_MAX	64u /* more are forgotten: the guest's connection times out */
#define PACKET_MAX	(64u << 10)
#define FIRST_PORT	(1u << 30) /* of connections that the host begins */

#define HEADER sizeof(struct virtio_vsock_hdr)

struct vsock {
	struct virtio_device virtio;
	struct virtio_vsock_config config;
	char path[VSOCK_PATH_MAX];
	int listen_fd;
	struct vsock_connection *list[CONNECTIONS_MAX];
	unsigned count, turn; /* who was last served */
	u32 next_port;
	struct virtio_vsock_hdr resets[RESETS_MAX];
	unsigned reset_count;
};

static struct vsock *vsock_of(struct virtio_device *d)
{
	return container_of(d, struct vsock, virtio);
}

/* Whoever moves the machine asks without the lock. */
static void movable_set(struct vsock *v)
{
	__atomic_store_n(&v->virtio.device.unmovable,
			 v->count ? "its connections end at programs of this host" : NULL,
			 __ATOMIC_RELEASE);
}

static struct vsock_connection *find(const struct vsock *v, u32 guest_port, u32 host_port)
{
	for (unsigned i = 0; i < v->count; i++) {
		struct vsock_connection *c = v->list[i];

		if (c->guest_port == guest_port && c->host_port == host_port &&
		    (c->state == VSOCK_REQUESTED || c->state == VSOCK_OPEN))
			return c;
	}
	return NULL;
}

/* Takes @fd. NULL: there are too many. */
static struct vsock_connection *connection_add(struct vsock *v, int fd, enum vsock_state state)
{
	struct vsock_connection *c =
		v->count < CONNECTIONS_MAX ? vsock_connection_new(fd, state) : NULL;

	if (!c) {
		close(fd);
		return NULL;
	}
	v->list[v->count++] = c;
	movable_set(v);
	return c;
}

static void connection_drop(struct vsock *v, unsigned i)
{
	vsock_connection_free(v->list[i]);
	v->list[i] = v->list[--v->count];
	movable_set(v);
}

static void drop_all(struct vsock *v)
{
	while (v->count)
		connection_drop(v, v->count - 1);
	v->reset_count = 0;
}

static void over_drop(struct vsock *v)
{
	for (unsigned i = v->count; i--;)
		if (vsock_is_over(v->list[i]))
			connection_drop(v, i);
}

/* The guest knows it no more. */
static void connection_forget(struct vsock_connection *c)
{
	c->state = VSOCK_DRAINING;
	c->due = 0;
	vsock_flush(c);
}

/* What came from the guest is for no connection. A reset is not answered. */
static void reset_owe(struct vsock *v, const struct virtio_vsock_hdr *h)
{
	if (h->op == VIRTIO_VSOCK_OP_RST || v->reset_count == RESETS_MAX)
		return;
	v->resets[v->reset_count++] = (struct virtio_vsock_hdr){
		.src_cid = h->dst_cid,
		.dst_cid = h->src_cid,
		.src_port = h->dst_port,
		.dst_port = h->src_port,
		.type = h->type,
		.op = VIRTIO_VSOCK_OP_RST,
	};
}

static void credit_note(struct vsock_connection *c, const struct virtio_vsock_hdr *h)
{
	c->guest_alloc = h->buf_alloc;
	c->guest_forwarded = h->fwd_cnt;
}

/* The guest connects. */
static void requested(struct vsock *v, const struct virtio_vsock_hdr *h)
{
	struct vsock_connection *c = NULL;
	const int fd = vsock_connect(v->path, h->dst_port);

	if (fd >= 0)
		c = connection_add(v, fd, VSOCK_OPEN);
	if (!c) {
		reset_owe(v, h);
		return;
	}
	c->guest_port = h->src_port;
	c->host_port = h->dst_port;
	c->due = VSOCK_DUE_RESPONSE;
	credit_note(c, h);
}

/* The guest has accepted: the program is told. The socket is new, so there is room. */
static void responded(struct vsock_connection *c)
{
	char text[24];
	const int n = snprintf(text, sizeof(text), "OK %u\n", c->host_port);

	c->state = VSOCK_OPEN;
	if (send(c->fd, text, (size_t)n, MSG_DONTWAIT | MSG_NOSIGNAL) != n)
		vsock_host_shut(c, VIRTIO_VSOCK_SHUTDOWN_RCV | VIRTIO_VSOCK_SHUTDOWN_SEND);
}

static bool bytes_take(struct vsock_connection *c, const struct virtio_vsock_hdr *h,
		       const struct chain *chain)
{
	struct iovec pieces[CHAIN_MAX];

	if (c->guest_shut & VIRTIO_VSOCK_SHUTDOWN_SEND || h->len > chain->out_bytes - HEADER)
		return false;
	return vsock_take(c, pieces, iov_cut(chain->iov, chain->out, HEADER, h->len, pieces),
			  h->len);
}

/* False: no packet of an open connection. */
static bool open_serve(struct vsock_connection *c, const struct virtio_vsock_hdr *h,
		       const struct chain *chain)
{
	switch (h->op) {
	case VIRTIO_VSOCK_OP_RW:
		return bytes_take(c, h, chain);
	case VIRTIO_VSOCK_OP_SHUTDOWN:
		vsock_guest_shut(c, h->flags);
		return true;
	case VIRTIO_VSOCK_OP_CREDIT_REQUEST:
		c->due |= VSOCK_DUE_CREDIT;
		return true;
	case VIRTIO_VSOCK_OP_CREDIT_UPDATE:
		return true;
	default:
		return false;
	}
}

static void connection_serve(struct vsock *v, struct vsock_connection *c,
			     const struct virtio_vsock_hdr *h, const struct chain *chain)
{
	credit_note(c, h);
	if (h->op == VIRTIO_VSOCK_OP_RST) {
		connection_forget(c);
	} else if (c->state == VSOCK_REQUESTED && h->op == VIRTIO_VSOCK_OP_RESPONSE) {
		responded(c);
	} else if (c->state != VSOCK_OPEN || !open_serve(c, h, chain)) {
		connection_forget(c);
		reset_owe(v, h);
	}
}

static void packet_serve(struct vsock *v, const struct chain *chain)
{
	struct virtio_vsock_hdr h;
	struct vsock_connection *c;

	if (iov_read(chain->iov, chain->out, 0, &h, HEADER) != HEADER ||
	    h.src_cid != v->config.guest_cid)
		return; /* whose it is, nobody can say */
	if (h.dst_cid != HOST_CID || h.type != VIRTIO_VSOCK_TYPE_STREAM) {
		reset_owe(v, &h);
		return;
	}
	c = find(v, h.src_port, h.dst_port);
	if (c)
		connection_serve(v, c, &h, chain);
	else if (h.op == VIRTIO_VSOCK_OP_REQUEST)
		requested(v, &h);
	else
		reset_owe(v, &h);
}

static void packets_take(struct vsock *v)
{
	struct chain chain;

	while (virtio_pop(&v->virtio, FROM_GUEST, &chain)) {
		packet_serve(v, &chain);
		virtqueue_push(&v->virtio.queues[FROM_GUEST], &chain, 0);
	}
	virtio_interrupt(&v->virtio, FROM_GUEST);
}

static const struct {
	u32 due;
	u16 op;
} dues[] = {
	{ VSOCK_DUE_REQUEST, VIRTIO_VSOCK_OP_REQUEST },
	{ VSOCK_DUE_RESPONSE, VIRTIO_VSOCK_OP_RESPONSE },
	{ VSOCK_DUE_RESET, VIRTIO_VSOCK_OP_RST },
	{ VSOCK_DUE_CREDIT, VIRTIO_VSOCK_OP_CREDIT_UPDATE },
	{ VSOCK_DUE_SHUTDOWN, VIRTIO_VSOCK_OP_SHUTDOWN },
};

/* Each packet tells what the host has taken. */
static struct virtio_vsock_hdr header_of(const struct vsock *v, struct vsock_connection *c, u16 op,
					 u32 n)
{
	c->told = c->forwarded;
	return (struct virtio_vsock_hdr){
		.src_cid = HOST_CID,
		.dst_cid = v->config.guest_cid,
		.src_port = c->host_port,
		.dst_port = c->guest_port,
		.len = n,
		.type = VIRTIO_VSOCK_TYPE_STREAM,
		.op = op,
		.flags = op == VIRTIO_VSOCK_OP_SHUTDOWN ? c->host_shut : 0,
		.buf_alloc = VSOCK_ALLOC,
		.fwd_cnt = c->forwarded,
	};
}

/* A buffer of the guest's without room for a header is given back empty. */
static void header_give(struct vsock *v, const struct chain *chain,
			const struct virtio_vsock_hdr *h)
{
	const bool fits = chain->in_bytes >= HEADER;

	if (fits)
		iov_write(chain_in(chain), chain->in, 0, h, HEADER);
	virtqueue_push(&v->virtio.queues[TO_GUEST], chain, fits ? (u32)HEADER + h->len : 0);
}

/* Bytes of the host; false: there were none, and the buffer is still the guest's. */
static bool bytes_give(struct vsock *v, struct vsock_connection *c, const struct chain *chain)
{
	const size_t room = chain->in_bytes > HEADER ? chain->in_bytes - HEADER : 0;
	u32 n = vsock_credit(c) < PACKET_MAX ? vsock_credit(c) : PACKET_MAX;
	struct iovec pieces[CHAIN_MAX];
	struct virtio_vsock_hdr h;

	if (!room || !vsock_may_fetch(c))
		return false;
	n = room < n ? (u32)room : n;
	n = vsock_fetch(c, pieces, iov_cut(chain_in(chain), chain->in, HEADER, n, pieces));
	if (!n)
		return false;
	h = header_of(v, c, VIRTIO_VSOCK_OP_RW, n);
	header_give(v, chain, &h);
	return true;
}

/* One packet of @c, if it has one. */
static bool connection_give(struct vsock *v, struct vsock_connection *c, const struct chain *chain)
{
	struct virtio_vsock_hdr h;

	/* The end comes behind the last byte. */
	if (!(c->due & ~(u32)VSOCK_DUE_SHUTDOWN) && bytes_give(v, c, chain))
		return true;
	for (unsigned i = 0; i < ARRAY_SIZE(dues); i++) {
		if (!(c->due & dues[i].due))
			continue;
		c->due &= ~dues[i].due;
		h = header_of(v, c, dues[i].op, 0);
		header_give(v, chain, &h);
		if (dues[i].op == VIRTIO_VSOCK_OP_RST)
			connection_forget(c);
		return true;
	}
	return false;
}

/* The next packet for the guest into @chain. False: there is none. */
static bool packet_give(struct vsock *v, const struct chain *chain)
{
	if (v->reset_count) {
		header_give(v, chain, &v->resets[0]);
		memmove(v->resets, v->resets + 1, --v->reset_count * sizeof(v->resets[0]));
		return true;
	}
	for (unsigned i = 0; i < v->count; i++) {
		v->turn = (v->turn + 1) % v->count;
		if (connection_give(v, v->list[v->turn], chain))
			return true;
	}
	return false;
}

static void packets_give(struct vsock *v)
{
	struct chain chain;

	while (virtio_pop(&v->virtio, TO_GUEST, &chain)) {
		if (packet_give(v, &chain))
			continue;
		virtqueue_unpop(&v->virtio.queues[TO_GUEST]);
		break;
	}
	over_drop(v);
	virtio_interrupt(&v->virtio, TO_GUEST);
}

static void queue_ready(struct virtio_device *d, unsigned queue)
{
	struct vsock *v = vsock_of(d);

	if (queue == FROM_GUEST)
		packets_take(v);
	packets_give(v);
}

/* Whether the guest has a buffer; otherwise it tells when it has given one. */
static bool has_room(struct vsock *v)
{
	return virtio_is_active(&v->virtio) && virtqueue_notify_on(&v->virtio.queues[TO_GUEST]);
}

static short events_wanted(const struct vsock_connection *c, bool room)
{
	const bool in = c->state == VSOCK_GREETING || (room && vsock_may_fetch(c));

	return (short)((in ? POLLIN : 0) | (vsock_held(c) ? POLLOUT : 0));
}

static void vsock_prepare(void *owner, struct loop *loop)
{
	struct vsock *v = owner;
	bool room;

	pthread_mutex_lock(&v->virtio.lock);
	room = has_room(v);
	if (virtio_is_active(&v->virtio) && v->count < CONNECTIONS_MAX)
		loop_watch(loop, v->listen_fd, POLLIN);
	for (unsigned i = 0; i < v->count; i++) {
		struct vsock_connection *c = v->list[i];
		const short events = events_wanted(c, room);

		/* Nothing is wanted: its end is, until it was seen. */
		c->place = -1;
		if (events || (c->state == VSOCK_OPEN && !c->is_hung_up &&
			       c->host_shut & VIRTIO_VSOCK_SHUTDOWN_SEND))
			c->place = loop_watch(loop, c->fd, events);
	}
	pthread_mutex_unlock(&v->virtio.lock);
}

/* A port of our own for a connection that the host begins. */
static u32 port_new(struct vsock *v, u32 guest_port)
{
	do
		v->next_port = v->next_port < 0xfffffffe ? v->next_port + 1 : FIRST_PORT;
	while (find(v, guest_port, v->next_port));
	return v->next_port;
}

/* False: it does not speak as it should. */
static bool greet(struct vsock *v, struct vsock_connection *c)
{
	u32 port;
	const int r = vsock_greeting_take(&c->greeting, c->fd, &port);

	if (r <= 0)
		return r == 0;
	c->guest_port = port;
	c->host_port = port_new(v, port);
	c->state = VSOCK_REQUESTED;
	c->due = VSOCK_DUE_REQUEST;
	return true;
}

/* False: it is to be dropped. */
static bool connection_look(struct vsock *v, struct vsock_connection *c, short came)
{
	if (c->state == VSOCK_GREETING)
		return !came || greet(v, c);
	if (came & POLLOUT || (came & (POLLHUP | POLLERR) && vsock_held(c)))
		vsock_flush(c);
	/* What it has sent before is still fetched. */
	if (came & (POLLHUP | POLLERR) && c->host_shut & VIRTIO_VSOCK_SHUTDOWN_SEND) {
		c->is_hung_up = true;
		vsock_host_shut(c, VIRTIO_VSOCK_SHUTDOWN_RCV);
	}
	return true;
}

static void vsock_dispatch(void *owner, struct loop *loop)
{
	struct vsock *v = owner;

	pthread_mutex_lock(&v->virtio.lock);
	for (unsigned i = v->count; i--;)
		if (!connection_look(v, v->list[i], loop_revents(loop, v->list[i]->place)))
			connection_drop(v, i);
	while (v->count < CONNECTIONS_MAX && loop_came(loop, v->listen_fd)) {
		const int fd = vsock_accept(v->listen_fd);

		if (fd < 0 || !connection_add(v, fd, VSOCK_GREETING))
			break;
	}
	if (virtio_is_active(&v->virtio))
		packets_give(v);
	pthread_mutex_unlock(&v->virtio.lock);
}

static void vsock_reset(struct virtio_device *d)
{
	drop_all(vsock_of(d));
}

static const struct virtio_ops vsock_ops = { .queue_ready = queue_ready, .reset = vsock_reset };

static const struct virtio_kind vsock_kind = {
	.name = "virtio-vsock",
	.id = VIRTIO_ID_VSOCK,
	.class_code = 0x028000, /* network, other */
	.queues = 3,		/* the third is for events: there are none */
	.ops = &vsock_ops,
};

int vsock_create(struct vsock **out, const struct vsock_config *config, struct pci_bus *bus,
		 struct loop *loop, const struct ram *ram, struct why *why)
{
	struct vsock *v = calloc(1, sizeof(*v));
	int r;

	if (!v)
		return why_set(why, ENOMEM, "no memory for --vsock");
	snprintf(v->path, sizeof(v->path), "%s", config->path);
	v->config.guest_cid = config->cid;
	v->next_port = FIRST_PORT;
	v->listen_fd = vsock_listen(v->path, why);
	r = v->listen_fd < 0 ? v->listen_fd : 0;
	if (r < 0)
		goto out;
	r = virtio_init(&v->virtio, &vsock_kind, bus, loop, ram, &v->config, sizeof(v->config), 0);
	if (r < 0) {
		why_set(why, -r, "cannot make the device virtio-vsock: %s", strerror(-r));
		goto out_listen;
	}
	r = loop_add(loop, (struct loop_source){ vsock_prepare, vsock_dispatch, v });
	if (r == 0) {
		*out = v;
		return 0;
	}
	why_set(why, -r, "too many devices");
	virtio_destroy(&v->virtio);
out_listen:
	vsock_unlisten(v->listen_fd, v->path);
out:
	free(v);
	return r;
}

void vsock_destroy(struct vsock *v)
{
	drop_all(v);
	vsock_unlisten(v->listen_fd, v->path);
	virtio_destroy(&v->virtio);
	free(v);
}

struct virtio_device *vsock_device(struct vsock *v)
{
	return &v->virtio;
}

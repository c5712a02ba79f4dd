/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* virtio console device with ports, as the specification's chapter "Console Device" has it. */
/*
 * Output that the host does not take yet stays in its queue, so that the guest's writer waits. Input is read only when the
 * guest has given buffers for it. At the end of the machine what the guest has written is written out first.
 */
#include "vmm/virtio/ports.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <linux/virtio_console.h>
#include <linux/virtio_ids.h>

#include "vmm/virtio/iov.h"
#include "vmm/virtio/transport.h"

#define CONTROL_TO_GUEST   2u
#define CONTROL_FROM_GUEST 3u
#define MESSAGES_MAX	   32u
#define DRAIN_MS	   2000
#define CHUNK		   4096u

struct message {
	struct virtio_console_control head;
	const char *name; /* follows, if not NULL */
};

struct port {
	struct port_end end;
	bool is_open; /* by a program of the guest: its driver throws away what comes before */
	bool is_input_over; /* end of file, and the guest knows */
	bool is_blocked;    /* the host takes no output now */
	bool is_broken;
	size_t sent; /* bytes of the first request that are written already */
};

struct ports {
	struct virtio_device virtio;
	struct virtio_console_config config;
	struct port ports[PORTS_MAX];
	unsigned count;
	struct ports_ops ops;
	struct message messages[MESSAGES_MAX]; /* that wait for a buffer */
	unsigned message_count;
};

/* Port 0 has queues 0 and 1, the control queues are 2 and 3, port n has 2n + 2 and 2n + 3. */
static unsigned to_guest(unsigned port)
{
	return port ? 2 * port + 2 : 0;
}

static unsigned from_guest(unsigned port)
{
	return to_guest(port) + 1;
}

static struct ports *ports_of(struct virtio_device *d)
{
	return container_of(d, struct ports, virtio);
}

static void messages_send(struct ports *p)
{
	unsigned sent = 0;
	struct chain c;

	while (sent < p->message_count && virtio_pop(&p->virtio, CONTROL_TO_GUEST, &c)) {
		const struct message *m = &p->messages[sent++];
		size_t n = iov_write(chain_in(&c), c.in, 0, &m->head, sizeof(m->head));

		if (m->name)
			n += iov_write(chain_in(&c), c.in, n, m->name, strlen(m->name));
		virtqueue_push(&p->virtio.queues[CONTROL_TO_GUEST], &c, (u32)n);
	}
	memmove(p->messages, p->messages + sent,
		(p->message_count - sent) * sizeof(p->messages[0]));
	p->message_count -= sent;
	if (sent)
		virtio_interrupt(&p->virtio, CONTROL_TO_GUEST);
}

/* A driver that asks and never takes answers loses some. */
static void tell(struct ports *p, u32 port, u16 event, u16 value, const char *name)
{
	if (p->message_count < MESSAGES_MAX)
		p->messages[p->message_count++] = (struct message){ { port, event, value }, name };
}

static void control_take(struct ports *p, const struct virtio_console_control *m)
{
	if (m->event == VIRTIO_CONSOLE_DEVICE_READY && m->value == 1) {
		for (unsigned i = 0; i < p->count; i++)
			tell(p, i, VIRTIO_CONSOLE_PORT_ADD, 1, NULL);
	} else if (m->event == VIRTIO_CONSOLE_PORT_READY && m->value == 1 && m->id < p->count) {
		tell(p, m->id, VIRTIO_CONSOLE_PORT_NAME, 1, p->ports[m->id].end.name);
		tell(p, m->id, VIRTIO_CONSOLE_PORT_OPEN, 1, NULL);
	} else if (m->event == VIRTIO_CONSOLE_PORT_OPEN && m->id < p->count) {
		p->ports[m->id].is_open = m->value;
	}
}

static void controls_take(struct ports *p)
{
	struct virtio_console_control m;
	struct chain c;

	while (virtio_pop(&p->virtio, CONTROL_FROM_GUEST, &c)) {
		if (iov_read(c.iov, c.out, 0, &m, sizeof(m)) == sizeof(m))
			control_take(p, &m);
		virtqueue_push(&p->virtio.queues[CONTROL_FROM_GUEST], &c, 0);
	}
	virtio_interrupt(&p->virtio, CONTROL_FROM_GUEST);
}

static void port_failed(struct ports *p, struct port *port, int err)
{
	port->is_broken = true;
	p->ops.failed(p->ops.owner, err);
}

/* Bytes that the host took, or -1: it takes none now. */
static ssize_t piece_write(struct ports *p, struct port *port, const struct iovec *piece)
{
	struct pollfd out = { port->end.out_fd, POLLOUT, 0 };
	ssize_t n;

	if (port->is_broken)
		return (ssize_t)piece->iov_len;
	if (port->end.out_fd < 0) {
		if (port->end.output)
			port->end.output(port->end.owner, piece->iov_base, piece->iov_len);
		return (ssize_t)piece->iov_len;
	}
	/* Writable means that a chunk fits into a pipe: the write does not block. */
	if (poll(&out, 1, 0) <= 0)
		return -1;
	n = write(port->end.out_fd, piece->iov_base,
		  piece->iov_len < CHUNK ? piece->iov_len : CHUNK);
	if (n >= 0)
		return n;
	if (errno == EAGAIN || errno == EINTR)
		return -1;
	port_failed(p, port, errno);
	return (ssize_t)piece->iov_len;
}

/* False: the host takes no more now, and the request stays in the queue. */
static bool request_write(struct ports *p, struct port *port, const struct chain *c)
{
	struct iovec rest[CHAIN_MAX];

	while (port->sent < c->out_bytes) {
		ssize_t n;

		iov_cut(c->iov, c->out, port->sent, c->out_bytes - port->sent, rest);
		n = piece_write(p, port, rest);
		if (n < 0)
			return false;
		port->sent += (size_t)n;
	}
	port->sent = 0;
	return true;
}

static void output_take(struct ports *p, unsigned i)
{
	struct port *port = &p->ports[i];
	const unsigned queue = from_guest(i);
	struct chain c;

	port->is_blocked = false;
	while (!port->is_blocked && virtio_pop(&p->virtio, queue, &c)) {
		if (request_write(p, port, &c)) {
			virtqueue_push(&p->virtio.queues[queue], &c, 0);
		} else {
			virtqueue_unpop(&p->virtio.queues[queue]);
			port->is_blocked = true;
		}
	}
	virtio_interrupt(&p->virtio, queue);
}

static void input_over(struct ports *p, unsigned i)
{
	p->ports[i].is_input_over = true;
	tell(p, i, VIRTIO_CONSOLE_PORT_OPEN, 0, NULL);
	messages_send(p);
}

static void input_give(struct ports *p, unsigned i)
{
	struct port *port = &p->ports[i];
	const unsigned queue = to_guest(i);
	struct chain c;
	ssize_t n;

	if (!virtio_pop(&p->virtio, queue, &c))
		return;
	n = readv(port->end.in_fd, chain_in(&c), (int)c.in);
	if (n <= 0)
		virtqueue_unpop(&p->virtio.queues[queue]);
	if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
		input_over(p, i);
	if (n <= 0)
		return;
	virtqueue_push(&p->virtio.queues[queue], &c, (u32)n);
	virtio_interrupt(&p->virtio, queue);
}

static void queue_ready(struct virtio_device *d, unsigned queue)
{
	struct ports *p = ports_of(d);

	if (queue == CONTROL_FROM_GUEST)
		controls_take(p);
	for (unsigned i = 0; i < p->count; i++)
		if (queue == from_guest(i))
			output_take(p, i);
	messages_send(p);
}

static bool has_room(struct ports *p, unsigned i)
{
	struct virtqueue *q = &p->virtio.queues[to_guest(i)];

	return virtio_is_active(&p->virtio) && virtqueue_notify_on(q);
}

static void ports_prepare(void *owner, struct loop *loop)
{
	struct ports *p = owner;

	pthread_mutex_lock(&p->virtio.lock);
	for (unsigned i = 0; i < p->count; i++) {
		const struct port *port = &p->ports[i];

		if (port->is_blocked)
			loop_watch(loop, port->end.out_fd, POLLOUT);
		if (port->end.in_fd >= 0 && port->is_open && !port->is_input_over && has_room(p, i))
			loop_watch(loop, port->end.in_fd, POLLIN);
	}
	pthread_mutex_unlock(&p->virtio.lock);
}

static void ports_dispatch(void *owner, struct loop *loop)
{
	struct ports *p = owner;

	pthread_mutex_lock(&p->virtio.lock);
	for (unsigned i = 0; i < p->count; i++) {
		struct port *port = &p->ports[i];

		if (port->is_blocked && loop_came(loop, port->end.out_fd))
			output_take(p, i);
		if (port->end.in_fd >= 0 && !port->is_input_over &&
		    loop_came(loop, port->end.in_fd))
			input_give(p, i);
	}
	pthread_mutex_unlock(&p->virtio.lock);
}

/* What programs of the guest have written is theirs no more: the host gets it, if it takes it in time. */
static void ports_reset(struct virtio_device *d)
{
	struct ports *p = ports_of(d);

	for (unsigned i = 0; i < p->count; i++) {
		struct port *port = &p->ports[i];
		struct pollfd out = { port->end.out_fd, POLLOUT, 0 };

		output_take(p, i);
		while (port->is_blocked && poll(&out, 1, DRAIN_MS) > 0)
			output_take(p, i);
		*port = (struct port){ .end = port->end, .is_broken = port->is_broken };
	}
	p->message_count = 0;
}

static const struct virtio_ops ports_operations = {
	.queue_ready = queue_ready,
	.reset = ports_reset,
};

static const struct virtio_kind ports_kind = {
	.name = "virtio-console",
	.id = VIRTIO_ID_CONSOLE,
	.class_code = 0x078000, /* communication, other */
	.queues = 2 * PORTS_MAX + 2,
	.features = BIT_ULL(VIRTIO_CONSOLE_F_MULTIPORT),
	.ops = &ports_operations,
	.unmovable = "the streams of a command are those of this process",
};

int ports_create(struct ports **out, const struct port_end *ends, unsigned count,
		 struct ports_ops ops, struct pci_bus *bus, struct loop *loop,
		 const struct ram *ram)
{
	struct ports *p = calloc(1, sizeof(*p));
	int r = -ENOMEM;

	if (!p)
		return r;
	for (unsigned i = 0; i < count; i++)
		p->ports[i].end = ends[i];
	p->ops = ops;
	p->config.max_nr_ports = PORTS_MAX;
	r = virtio_init(&p->virtio, &ports_kind, bus, loop, ram, &p->config, sizeof(p->config), 0);
	if (r < 0)
		goto out;
	p->count = count;
	r = loop_add(loop, (struct loop_source){ ports_prepare, ports_dispatch, p });
	if (r == 0) {
		*out = p;
		return 0;
	}
	virtio_destroy(&p->virtio);
out:
	free(p);
	return r;
}

void ports_destroy(struct ports *p)
{
	virtio_destroy(&p->virtio);
	free(p);
}

struct virtio_device *ports_device(struct ports *p)
{
	return &p->virtio;
}

/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* One stream between a port of the guest and a unix socket of the host. */
#define _GNU_SOURCE
#include "vmm/vsock/connection.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <linux/virtio_vsock.h>

#include "vmm/virtio/iov.h"

#define SHUT_BOTH_WAYS (VIRTIO_VSOCK_SHUTDOWN_RCV | VIRTIO_VSOCK_SHUTDOWN_SEND)
#define PIECES_MAX     256u

struct vsock_connection *vsock_connection_new(int fd, enum vsock_state state)
{
	struct vsock_connection *c = calloc(1, sizeof(*c));

	if (!c)
		return NULL;
	c->fd = fd;
	c->state = state;
	c->place = -1;
	return c;
}

void vsock_connection_free(struct vsock_connection *c)
{
	close(c->fd);
	free(c->held);
	free(c);
}

/* A guest may say anything: more in flight than it allows is no credit. */
u32 vsock_credit(const struct vsock_connection *c)
{
	const u32 flying = c->sent - c->guest_forwarded;

	return flying < c->guest_alloc ? c->guest_alloc - flying : 0;
}

u32 vsock_held(const struct vsock_connection *c)
{
	return c->received - c->forwarded;
}

/* The guest waits for credit when it sees little; each packet tells it, and this sends one. */
static void credit_check(struct vsock_connection *c)
{
	if (c->forwarded != c->told && c->received - c->told > VSOCK_ALLOC / 2)
		c->due |= VSOCK_DUE_CREDIT;
}

void vsock_host_shut(struct vsock_connection *c, u32 flags)
{
	if (!(flags & ~c->host_shut))
		return;
	c->host_shut |= (u8)flags;
	if (c->state == VSOCK_OPEN)
		c->due |= VSOCK_DUE_SHUTDOWN;
}

/* The host reads no more: what it has not read is lost. */
static void host_gone(struct vsock_connection *c)
{
	c->forwarded = c->received;
	vsock_host_shut(c, VIRTIO_VSOCK_SHUTDOWN_RCV);
}

/* Bytes that the host has taken, or -1: none for now or ever. */
static ssize_t host_send(struct vsock_connection *c, struct iovec *iov, unsigned count)
{
	const struct msghdr m = { .msg_iov = iov, .msg_iovlen = count };
	ssize_t n;

	do
		n = sendmsg(c->fd, &m, MSG_DONTWAIT | MSG_NOSIGNAL);
	while (n < 0 && errno == EINTR);
	if (n < 0 && errno != EAGAIN && errno != ENOBUFS)
		host_gone(c);
	return n;
}

static bool hold(struct vsock_connection *c, const struct iovec *iov, unsigned count, u32 from,
		 u32 n)
{
	if (!c->held)
		c->held = malloc(VSOCK_ALLOC);
	if (!c->held)
		return false;
	while (n) {
		const u32 at = (c->forwarded + vsock_held(c)) % VSOCK_ALLOC;
		const u32 part = n < VSOCK_ALLOC - at ? n : VSOCK_ALLOC - at;

		iov_read(iov, count, from, c->held + at, part);
		c->received += part;
		from += part;
		n -= part;
	}
	return true;
}

bool vsock_take(struct vsock_connection *c, const struct iovec *iov, unsigned count, u32 n)
{
	struct iovec pieces[PIECES_MAX];
	const u32 held = vsock_held(c);
	ssize_t done = 0;

	if (n > VSOCK_ALLOC - held)
		return false;
	if (c->host_shut & VIRTIO_VSOCK_SHUTDOWN_RCV) {
		c->received += n;
		c->forwarded += n;
		return true;
	}
	if (!held && n) {
		done = host_send(c, pieces, iov_cut(iov, count, 0, n, pieces));
		if (done > 0) {
			c->received += (u32)done;
			c->forwarded += (u32)done;
		}
		done = done < 0 ? 0 : done;
	}
	if (c->host_shut & VIRTIO_VSOCK_SHUTDOWN_RCV) {
		c->forwarded = c->received += n - (u32)done;
		return true;
	}
	if (n - (u32)done && !hold(c, iov, count, (u32)done, n - (u32)done))
		return false;
	credit_check(c);
	return true;
}

/* When all that came before is with the host. */
static void ends_follow(struct vsock_connection *c)
{
	if (vsock_held(c))
		return;
	if (c->guest_shut & VIRTIO_VSOCK_SHUTDOWN_SEND)
		shutdown(c->fd, SHUT_WR);
	if (c->guest_shut == SHUT_BOTH_WAYS && c->state == VSOCK_OPEN)
		c->due = VSOCK_DUE_RESET;
}

void vsock_flush(struct vsock_connection *c)
{
	while (vsock_held(c)) {
		const u32 at = c->forwarded % VSOCK_ALLOC, held = vsock_held(c);
		struct iovec part = { c->held + at,
				      held < VSOCK_ALLOC - at ? held : VSOCK_ALLOC - at };
		const ssize_t n = host_send(c, &part, 1);

		if (n <= 0)
			break;
		c->forwarded += (u32)n;
	}
	credit_check(c);
	ends_follow(c);
}

u32 vsock_fetch(struct vsock_connection *c, const struct iovec *iov, unsigned count)
{
	struct msghdr m = { .msg_iov = (struct iovec *)iov, .msg_iovlen = count };
	ssize_t n;

	do
		n = recvmsg(c->fd, &m, MSG_DONTWAIT);
	while (n < 0 && errno == EINTR);
	if (n > 0) {
		c->sent += (u32)n;
		return (u32)n;
	}
	if (n == 0)
		vsock_host_shut(c, VIRTIO_VSOCK_SHUTDOWN_SEND);
	else if (errno != EAGAIN)
		vsock_host_shut(c, SHUT_BOTH_WAYS);
	return 0;
}

void vsock_guest_shut(struct vsock_connection *c, u32 flags)
{
	c->guest_shut |= (u8)(flags & SHUT_BOTH_WAYS);
	if (c->guest_shut & VIRTIO_VSOCK_SHUTDOWN_RCV)
		shutdown(c->fd, SHUT_RD);
	ends_follow(c);
}

bool vsock_may_fetch(const struct vsock_connection *c)
{
	return c->state == VSOCK_OPEN && !(c->guest_shut & VIRTIO_VSOCK_SHUTDOWN_RCV) &&
	       !(c->host_shut & VIRTIO_VSOCK_SHUTDOWN_SEND) && vsock_credit(c);
}

bool vsock_is_over(const struct vsock_connection *c)
{
	return c->state == VSOCK_DRAINING && !vsock_held(c);
}

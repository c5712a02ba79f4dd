/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* A network of the process's own, 10.0.2.0/24 behind NAT: libslirp, without privileges. */
/*
 * The guest sees a router and DHCP server 10.0.2.2, which also stands for the host's loopback, and a name server 10.0.2.3.
 * It gets 10.0.2.15. libslirp has no threads: every call is the device thread's.
 */
#include "vmm/net/link.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <slirp/libslirp.h>

#include "vmm/late.h"

#define NETWORK	     0x0a000200u
#define NETMASK	     0xffffff00u
#define ROUTER	     0x0a000202u
#define NAME_SERVER  0x0a000203u
#define FIRST_GUEST  0x0a00020fu
#define TIMERS_MAX   8u
#define MILLISECOND  1000000
#define LONGEST_WAIT 60000

/* libslirp's own timers: router advertisements, and what else a version makes. */
struct timer {
	SlirpTimerCb fire;
	void *argument;
	s64 at_ms; /* negative: not set */
	bool is_used;
};

enum { INPUT, POLLFDS_FILL, POLLFDS_POLL, CLEANUP, ADD_HOSTFWD, NEW, FUNCTIONS };

static const char *const names[FUNCTIONS] = {
	[INPUT] = "slirp_input",
	[POLLFDS_FILL] = "slirp_pollfds_fill",
	[POLLFDS_POLL] = "slirp_pollfds_poll",
	[CLEANUP] = "slirp_cleanup",
	[ADD_HOSTFWD] = "slirp_add_hostfwd",
	[NEW] = "slirp_new",
};
static void *functions[FUNCTIONS];
static struct late libslirp = { .file = "libslirp.so.0",
				.package = "libslirp0",
				.names = names,
				.functions = functions,
				.count = FUNCTIONS,
				.lock = PTHREAD_MUTEX_INITIALIZER };
#define SLIRP(name, which) LATE(name, functions[which])

struct user_link {
	struct net_link link;
	Slirp *slirp;
	struct timer timers[TIMERS_MAX];
	struct loop *loop; /* of the prepare() or dispatch() that runs */
};

static struct user_link *user_of(struct net_link *l)
{
	return container_of(l, struct user_link, link);
}

static s64 now_ns(void *opaque)
{
	struct timespec t;

	(void)opaque;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (s64)t.tv_sec * 1000000000 + t.tv_nsec;
}

static ssize_t packet_send(const void *frame, size_t n, void *opaque)
{
	struct user_link *u = opaque;

	if (u->link.receive && n <= FRAME_MAX)
		u->link.receive(u->link.owner, frame, n);
	return (ssize_t)n;
}

/* What a guest does wrong is between it and its network. */
static void guest_error(const char *message, void *opaque)
{
	(void)message;
	(void)opaque;
}

static void *timer_new(SlirpTimerCb fire, void *argument, void *opaque)
{
	struct user_link *u = opaque;

	for (unsigned i = 0; i < TIMERS_MAX; i++) {
		struct timer *t = &u->timers[i];

		if (t->is_used)
			continue;
		*t = (struct timer){ fire, argument, -1, true };
		return t;
	}
	return NULL;
}

static void timer_free(void *timer, void *opaque)
{
	struct timer *t = timer;

	(void)opaque;
	if (t)
		t->is_used = false;
}

static void timer_set(void *timer, s64 at_ms, void *opaque)
{
	struct timer *t = timer;

	(void)opaque;
	if (t)
		t->at_ms = at_ms;
}

/* Nothing to do: descriptors are asked for in every round, and the round that runs is ours. */
static void fd_ignore(int fd, void *opaque)
{
	(void)fd;
	(void)opaque;
}

static void nothing(void *opaque)
{
	(void)opaque;
}

static const SlirpCb callbacks = {
	.send_packet = packet_send,
	.guest_error = guest_error,
	.clock_get_ns = now_ns,
	.timer_new = timer_new,
	.timer_free = timer_free,
	.timer_mod = timer_set,
	.register_poll_fd = fd_ignore,
	.unregister_poll_fd = fd_ignore,
	.notify = nothing,
};

static void user_send(struct net_link *l, const u8 *frame, size_t n)
{
	SLIRP(slirp_input, INPUT)(user_of(l)->slirp, frame, (int)n);
}

static const struct event_row {
	int slirp;
	short poll;
} events[] = {
	{ SLIRP_POLL_IN, POLLIN },   { SLIRP_POLL_OUT, POLLOUT }, { SLIRP_POLL_PRI, POLLPRI },
	{ SLIRP_POLL_ERR, POLLERR }, { SLIRP_POLL_HUP, POLLHUP },
};

static int poll_add(int fd, int wanted, void *opaque)
{
	struct user_link *u = opaque;
	short bits = 0;

	for (size_t i = 0; i < ARRAY_SIZE(events); i++)
		if (wanted & events[i].slirp)
			bits |= events[i].poll;
	return loop_watch(u->loop, fd, bits);
}

static int poll_result(int place, void *opaque)
{
	struct user_link *u = opaque;
	const short bits = loop_revents(u->loop, place);
	int came = 0;

	for (size_t i = 0; i < ARRAY_SIZE(events); i++)
		if (bits & events[i].poll)
			came |= events[i].slirp;
	return came;
}

static void timers_prepare(const struct user_link *u, struct loop *loop)
{
	const s64 now = now_ns(NULL) / MILLISECOND;

	for (unsigned i = 0; i < TIMERS_MAX; i++) {
		const struct timer *t = &u->timers[i];
		const s64 left = t->at_ms - now;

		if (t->is_used && t->at_ms >= 0)
			loop_timeout(loop, left < 0		 ? 0
					   : left > LONGEST_WAIT ? LONGEST_WAIT
								 : (int)left);
	}
}

static void timers_fire(struct user_link *u)
{
	const s64 now = now_ns(NULL) / MILLISECOND;

	for (unsigned i = 0; i < TIMERS_MAX; i++) {
		struct timer *t = &u->timers[i];

		if (!t->is_used || t->at_ms < 0 || t->at_ms > now)
			continue;
		t->at_ms = -1;
		t->fire(t->argument);
	}
}

/* Without room for frames its sockets are left alone, so that the host's senders wait. */
static void user_prepare(struct net_link *l, struct loop *loop, bool has_room)
{
	struct user_link *u = user_of(l);
	u32 timeout = LONGEST_WAIT;

	u->loop = NULL;
	timers_prepare(u, loop);
	if (!has_room)
		return;
	u->loop = loop;
	SLIRP(slirp_pollfds_fill, POLLFDS_FILL)(u->slirp, &timeout, poll_add, u);
	loop_timeout(loop, (int)timeout);
}

static void user_dispatch(struct net_link *l, struct loop *loop)
{
	struct user_link *u = user_of(l);

	timers_fire(u);
	if (u->loop == loop)
		SLIRP(slirp_pollfds_poll, POLLFDS_POLL)(u->slirp, 0, poll_result, u);
}

static void user_close(struct net_link *l)
{
	struct user_link *u = user_of(l);

	u->link.receive = NULL;
	SLIRP(slirp_cleanup, CLEANUP)(u->slirp);
	free(u);
}

static const struct net_link_ops user_ops = { user_send, user_prepare, user_dispatch, user_close };

static struct in_addr address(u32 a)
{
	return (struct in_addr){ htonl(a) };
}

static int forward_open(struct user_link *u, const struct net_forward *f, struct why *why)
{
	char text[INET_ADDRSTRLEN];
	const struct in_addr host = address(f->host_address);

	if (SLIRP(slirp_add_hostfwd, ADD_HOSTFWD)(
		    u->slirp, f->is_udp, host, f->host_port,
		    address(f->guest_address ? f->guest_address : FIRST_GUEST), f->guest_port) == 0)
		return 0;
	inet_ntop(AF_INET, &host, text, sizeof(text));
	return why_set(why, errno ? errno : EINVAL,
		       "cannot listen on %s port %u of the host for hostfwd: %s; give another port",
		       text, f->host_port, strerror(errno));
}

int user_link_open(struct net_link **out, const struct net_config *config, struct why *why)
{
	struct user_link *u = calloc(1, sizeof(*u));
	SlirpConfig slirp = {
		.version = 1,
		.restricted = config->is_restricted,
		.in_enabled = true,
		.vnetwork = address(NETWORK),
		.vnetmask = address(NETMASK),
		.vhost = address(ROUTER),
		.vhostname = "anykvm",
		.vdhcp_start = address(FIRST_GUEST),
		.vnameserver = address(NAME_SERVER),
		.in6_enabled = true,
		.vprefix_len = 64,
	};
	int r = u ? late_load(&libslirp, why) : why_set(why, ENOMEM, "no memory for the network");

	if (r < 0) {
		free(u);
		return r;
	}
	inet_pton(AF_INET6, "fec0::", &slirp.vprefix_addr6);
	inet_pton(AF_INET6, "fec0::2", &slirp.vhost6);
	inet_pton(AF_INET6, "fec0::3", &slirp.vnameserver6);
	u->link.ops = &user_ops;
	u->slirp = SLIRP(slirp_new, NEW)(&slirp, &callbacks, u);
	if (!u->slirp) {
		free(u);
		return why_set(why, ENOMEM, "libslirp cannot make a network");
	}
	for (unsigned i = 0; i < config->forward_count && r == 0; i++)
		r = forward_open(u, &config->forwards[i], why);
	if (r < 0)
		user_close(&u->link);
	else
		*out = &u->link;
	return r;
}

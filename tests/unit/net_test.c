/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* virtio-net: frames in both directions, waiting for buffers, frames and chains that no driver sends, state; options of --net. */
#include "virtio_fixture.h"

#include <errno.h>
#include <sys/socket.h>

#include "cmd/device_options.h"
#include "vmm/dev/state.h"
#include "vmm/virtio/net.h"

#define RX     0u
#define TX     1u
#define HEADER 12u

/* A link whose host is a pair of sockets: one datagram, one frame. */
struct wire {
	struct net_link link;
	int fd;
	unsigned rounds;
};

static struct wire wire;
static struct net *net;
static int host;
static u8 frame[FRAME_MAX + 8];

static void wire_send(struct net_link *l, const u8 *bytes, size_t n)
{
	assert_int_equal(write(container_of(l, struct wire, link)->fd, bytes, n), n);
}

static void wire_prepare(struct net_link *l, struct loop *lp, bool has_room)
{
	struct wire *w = container_of(l, struct wire, link);

	__atomic_add_fetch(&w->rounds, 1, __ATOMIC_RELAXED);
	if (has_room)
		loop_watch(lp, w->fd, POLLIN);
}

static void wire_dispatch(struct net_link *l, struct loop *lp)
{
	struct wire *w = container_of(l, struct wire, link);
	u8 bytes[FRAME_MAX];
	ssize_t n;

	while (loop_came(lp, w->fd) && (n = recv(w->fd, bytes, sizeof(bytes), MSG_DONTWAIT)) > 0)
		l->receive(l->owner, bytes, (size_t)n);
}

static void wire_close(struct net_link *l)
{
	close(container_of(l, struct wire, link)->fd);
}

static const struct net_link_ops wire_ops = { wire_send, wire_prepare, wire_dispatch, wire_close };

static int setup(void **state)
{
	static const u8 mac[6] = { 2, 0, 0, 0, 0, 1 };
	const struct timeval patience = { .tv_sec = 2 };
	int fds[2];

	(void)state;
	fixture_begin();
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds), 0);
	host = fds[1];
	setsockopt(host, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	wire = (struct wire){ .link = { .ops = &wire_ops }, .fd = fds[0] };
	assert_int_equal(net_create(&net, &wire.link, mac, &pci, &loop, &ram), 0);
	device = net_device(net);
	pci_assign(&pci);
	assert_int_equal(loop_start(&loop), 0);
	driver_start();
	for (unsigned i = 0; i < sizeof(frame); i++)
		frame[i] = (u8)(i * 7 + i / 256);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	loop_stop(&loop);
	net_destroy(net);
	close(host);
	fixture_end();
	return 0;
}

/* A frame of @n bytes with its header at @at; returns what the chain has. */
static u32 frame_put(u32 at, u32 n)
{
	memset(ram.host + at, 0, HEADER);
	memcpy(ram.host + at + HEADER, frame, n);
	return HEADER + n;
}

static void expect_frame(size_t n)
{
	u8 bytes[FRAME_MAX + 8];

	assert_int_equal(recv(host, bytes, sizeof(bytes), 0), n);
	assert_memory_equal(bytes, frame, n);
}

static void test_send(void **state)
{
	const struct piece pieces[] = {
		{ DATA_AT, 5, VRING_DESC_F_NEXT, 1 },
		{ DATA_AT + 5, 10, VRING_DESC_F_NEXT, 2 },
		{ DATA_AT + 15, HEADER + 100 - 15, 0, 0 },
	};

	(void)state;
	offer_one(TX, 0, DATA_AT, frame_put(DATA_AT, FRAME_MAX), false);
	expect_frame(FRAME_MAX);
	assert_true(used_reach(TX, 1));
	frame_put(DATA_AT, 100);
	for (u16 i = 0; i < 3; i++)
		desc_set(TX, i, &pieces[i]);
	offer(TX, 0);
	notify(TX);
	expect_frame(100);
	assert_true(used_reach(TX, 2));
	assert_int_equal(used_bytes(TX, 1), 0);
}

/* No Ethernet carries these: they are given back and go nowhere, and what comes after them does. */
static void test_odd_frames(void **state)
{
	static const u32 sizes[] = {
		0, 1, HEADER - 1, HEADER, HEADER + FRAME_MIN - 1, HEADER + FRAME_MAX + 1, 0x20000
	};
	u16 n = 0;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		offer_one(TX, 0, DATA_AT, sizes[i], false);
		assert_true(used_reach(TX, ++n));
	}
	offer_one(TX, 0, DATA_AT, 100, true); /* nothing to read */
	assert_true(used_reach(TX, ++n));
	offer_one(TX, 0, DATA_AT, frame_put(DATA_AT, FRAME_MIN), false);
	expect_frame(FRAME_MIN);
	assert_int_equal(status_get() & STATUS_NEEDS_RST, 0);
}

static void expect_received(unsigned entry, u32 at, u32 n)
{
	struct {
		u8 zeros[10];
		u16 buffers;
	} head;

	assert_int_equal(used_bytes(RX, entry), HEADER + n);
	memcpy(&head, ram.host + at, HEADER);
	assert_int_equal(head.buffers, 1);
	assert_memory_equal(ram.host + at + HEADER, frame, n);
}

static void test_receive(void **state)
{
	(void)state;
	offer_one(RX, 0, DATA_AT, 2048, true);
	assert_int_equal(write(host, frame, 1500), 1500);
	assert_true(used_reach(RX, 1));
	expect_received(0, DATA_AT, 1500);
	assert_true(interrupts > 0);
	/* Too small, or not to be written at all: the frame is lost, and the queue lives. */
	offer_one(RX, 1, DATA_AT, HEADER + 99, true);
	offer_one(RX, 2, DATA_AT, 2048, false);
	assert_int_equal(write(host, frame, 100), 100);
	assert_int_equal(write(host, frame, 100), 100);
	assert_true(used_reach(RX, 3));
	assert_int_equal(used_bytes(RX, 1), 0);
	assert_int_equal(used_bytes(RX, 2), 0);
	offer_one(RX, 3, DATA_AT, HEADER + 100, true);
	assert_int_equal(write(host, frame, 100), 100);
	assert_true(used_reach(RX, 4));
	expect_received(3, DATA_AT, 100);
}

/* Frames that are there before their buffers come in order, and none is lost while the link waits. */
static void test_backlog(void **state)
{
	(void)state;
	offer_one(RX, 0, DATA_AT, 2048, true);
	for (u32 n = 100; n < 110; n++)
		assert_int_equal(write(host, frame, n), n);
	assert_true(used_reach(RX, 1));
	expect_received(0, DATA_AT, 100);
	for (u16 i = 1; i < 10; i++) {
		usleep(500);
		offer_one(RX, i, DATA_AT + 2048u * i, 2048, true);
		assert_true(used_reach(RX, (u16)(i + 1)));
		expect_received(i, DATA_AT + 2048u * i, 100u + i);
	}
}

/* Buffers that wait for frames are no work: the device thread sleeps. */
static void test_no_spin(void **state)
{
	unsigned before;

	(void)state;
	for (u16 i = 0; i < 8; i++)
		offer_one(RX, i, DATA_AT + 2048u * i, 2048, true);
	usleep(20000);
	before = __atomic_load_n(&wire.rounds, __ATOMIC_RELAXED);
	usleep(100000);
	assert_true(__atomic_load_n(&wire.rounds, __ATOMIC_RELAXED) - before < 10);
}

static const struct bad {
	const char *what;
	struct piece pieces[3];
	u16 head;
} bads[] = {
	{ "a head outside of the ring", { { DATA_AT, 100, 0, 0 } }, RING_SIZE },
	{ "a loop of one", { { DATA_AT, 100, VRING_DESC_F_NEXT, 0 } }, 0 },
	{ "a loop of three",
	  { { DATA_AT, 10, VRING_DESC_F_NEXT, 1 },
	    { DATA_AT, 10, VRING_DESC_F_NEXT, 2 },
	    { DATA_AT, 10, VRING_DESC_F_NEXT, 0 } },
	  0 },
	{ "a loop of empty pieces", { { DATA_AT, 0, VRING_DESC_F_NEXT, 0 } }, 0 },
	{ "past the end of RAM", { { RAM_BYTES - 8, 9, 0, 0 } }, 0 },
	{ "far outside of RAM", { { 1ull << 40, 100, 0, 0 } }, 0 },
	{ "around the end of addresses", { { ~0ull - 10, 100, 0, 0 } }, 0 },
	{ "4 GiB less one", { { 0, 0xffffffff, 0, 0 } }, 0 },
	{ "a next outside of the ring", { { DATA_AT, 100, VRING_DESC_F_NEXT, RING_SIZE } }, 0 },
	{ "readable after writable",
	  { { DATA_AT, 100, VRING_DESC_F_NEXT | VRING_DESC_F_WRITE, 1 }, { DATA_AT, 100, 0, 0 } },
	  0 },
	{ "indirect, which was not agreed on", { { DATA_AT, 16, VRING_DESC_F_INDIRECT, 0 } }, 0 },
};

/* Each breaks the device until it is reset; then it works as before. */
static void test_hostile(void **state)
{
	(void)state;
	for (unsigned q = RX; q <= TX; q++) {
		for (size_t i = 0; i < ARRAY_SIZE(bads); i++) {
			for (u16 p = 0; p < 3; p++)
				desc_set(q, p, &bads[i].pieces[p]);
			offer(q, bads[i].head);
			notify(q);
			if (q == RX)
				assert_int_equal(write(host, frame, 60), 60);
			if (!breaks())
				fail_msg("queue %u: %s is taken", q, bads[i].what);
			driver_start();
		}
	}
	offer_one(TX, 0, DATA_AT, frame_put(DATA_AT, 64), false);
	expect_frame(64);
}

/* More available than the ring has is nonsense, too. */
static void test_index(void **state)
{
	(void)state;
	offered[TX] = RING_SIZE + 1;
	offer_one(TX, 0, DATA_AT, 100, false);
	assert_true(breaks());
}

static void test_state(void **state)
{
	static u8 image[65536];
	struct why why;
	size_t n;

	(void)state;
	offer_one(RX, 0, DATA_AT, 2048, true);
	offer_one(TX, 0, DATA_AT + 4096, frame_put(DATA_AT + 4096, 60), false);
	expect_frame(60);
	loop_stop(&loop);
	n = device_save(&device->device, image, sizeof(image));
	assert_true(n > 0);
	device->device.reset(device->device.self);
	assert_int_equal(status_get(), 0);
	assert_int_equal(device_restore(&device->device, 1, image, n, &why), 0);
	assert_int_equal(loop_start(&loop), 0);
	assert_int_equal(write(host, frame, 80), 80);
	assert_true(used_reach(RX, 1));
	expect_received(0, DATA_AT, 80);
	assert_int_equal(device_restore(&device->device, 1, image, n - 1, &why), -EINVAL);
}

static struct vmm_devices parsed;
static struct why why;

static int parse(const char *text)
{
	memset(&parsed, 0, sizeof(parsed));
	return parse_net(text, &parsed, &why);
}

static void test_options(void **state)
{
	const struct net_config *n = &parsed.nets[0];

	(void)state;
	assert_int_equal(parse("user"), 0);
	assert_int_equal(parsed.net_count, 1);
	assert_int_equal(n->kind, NET_USER);
	assert_int_equal(
		parse("user,hostfwd=2222-22,hostfwd=udp:0.0.0.0:53-10.0.2.20:5353,restrict,"
		      "hostfwd=tcp::80-:8080,mac=02:00:00:00:00:0a"),
		0);
	assert_int_equal(n->forward_count, 3);
	assert_int_equal(n->forwards[0].host_address, 0x7f000001);
	assert_int_equal(n->forwards[0].guest_address, 0);
	assert_int_equal(n->forwards[0].host_port, 2222);
	assert_int_equal(n->forwards[0].guest_port, 22);
	assert_true(n->forwards[1].is_udp);
	assert_int_equal(n->forwards[1].host_address, 0);
	assert_int_equal(n->forwards[1].guest_address, 0x0a000214);
	assert_int_equal(n->forwards[2].guest_port, 8080);
	assert_int_equal(n->mac[5], 10);
	assert_true(n->is_restricted);
	assert_int_equal(parse("tap,if=tap0"), 0);
	assert_string_equal(n->interface, "tap0");
	assert_int_equal(parse("tap,fd=7"), 0);
	assert_int_equal(n->fd, 7);
}

static void test_bad_options(void **state)
{
	static const char *const bad[] = {
		"",
		"none",
		"users",
		"tap",
		"tap,if=tap0,fd=3",
		"user,if=tap0",
		"tap,if=tap0,hostfwd=1-1",
		"tap,if=tap0,restrict",
		"tap,if=a-name-that-is-too-long",
		"tap,if=../x",
		"tap,fd=-1",
		"tap,fd=x",
		"tap,fd=99999999999",
		"user,restrict=1",
		"user,hostfwd",
		"user,hostfwd=",
		"user,hostfwd=80",
		"user,hostfwd=80-",
		"user,hostfwd=-80",
		"user,hostfwd=0-80",
		"user,hostfwd=80-0",
		"user,hostfwd=65536-80",
		"user,hostfwd=+80-80",
		"user,hostfwd=80-80-80",
		"user,hostfwd=sctp:80-80",
		"user,hostfwd=1.2.3:80-80",
		"user,hostfwd=1.2.3.4.5:80-80",
		"user,hostfwd=80-host:80",
		"user,mac=52:54:00:12:34",
		"user,mac=52:54:00:12:34:5g",
		"user,mac=53:54:00:12:34:56",
		"user,mac=00:00:00:00:00:00",
		"user,mac=52:54:00:12:34:56:78",
		"user,mac=52-54-00-12-34-56",
		"user,speed=fast",
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		why.text[0] = 0;
		if (parse(bad[i]) != -EINVAL || !why.text[0])
			fail_msg("'%s' is taken", bad[i]);
	}
	memset(&parsed, 0, sizeof(parsed));
	for (unsigned i = 0; i < VMM_MAX_NETS; i++)
		assert_int_equal(parse_net("user", &parsed, &why), 0);
	assert_int_equal(parse_net("user", &parsed, &why), -EINVAL);
	assert_int_not_equal(parsed.nets[0].mac[5], parsed.nets[1].mac[5]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_send, setup, teardown),
		cmocka_unit_test_setup_teardown(test_odd_frames, setup, teardown),
		cmocka_unit_test_setup_teardown(test_receive, setup, teardown),
		cmocka_unit_test_setup_teardown(test_backlog, setup, teardown),
		cmocka_unit_test_setup_teardown(test_no_spin, setup, teardown),
		cmocka_unit_test_setup_teardown(test_hostile, setup, teardown),
		cmocka_unit_test_setup_teardown(test_index, setup, teardown),
		cmocka_unit_test_setup_teardown(test_state, setup, teardown),
		cmocka_unit_test(test_options),
		cmocka_unit_test(test_bad_options),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

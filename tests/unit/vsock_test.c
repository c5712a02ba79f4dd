/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* virtio-vsock: packets that no driver sends, credit in both directions, ends, limits, state; options of --vsock. */
#include "virtio_fixture.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <linux/virtio_vsock.h>

#include "cmd/device_options.h"
#include "vmm/virtio/vsock.h"
#include "vmm/vsock/connection.h"

#define RX	  0u
#define TX	  1u
#define HEADER	  sizeof(struct virtio_vsock_hdr)
#define CID	  7u
#define PORT	  77u
#define GUEST	  5000u
#define RX_AT(i)  (0x80000u + 0x4000u * ((i) % RING_SIZE))
#define RX_BYTES  0x4000u
#define MAX_COUNT 512u

static struct vsock *vsock;
static char folder[] = "/tmp/anykvm-vsock-XXXXXX";
static struct vsock_config config = { .cid = CID };
static int listener;
static u16 sent, given, taken;

static struct sockaddr_un address(const char *suffix)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };

	snprintf(a.sun_path, sizeof(a.sun_path), "%.90s%s", config.path, suffix);
	return a;
}

static void start(void)
{
	driver_start();
	sent = given = taken = 0;
}

static int setup(void **state)
{
	struct sockaddr_un a;
	struct why why;

	(void)state;
	strcpy(folder, "/tmp/anykvm-vsock-XXXXXX");
	assert_non_null(mkdtemp(folder));
	snprintf(config.path, sizeof(config.path), "%s/s", folder);
	fixture_begin();
	assert_int_equal(vsock_create(&vsock, &config, &pci, &loop, &ram, &why), 0);
	a = address("_77");
	listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(listener, (struct sockaddr *)&a, sizeof(a)), 0);
	assert_int_equal(listen(listener, MAX_COUNT + 8), 0);
	device = vsock_device(vsock);
	pci_assign(&pci);
	assert_int_equal(loop_start(&loop), 0);
	start();
	return 0;
}

static int teardown(void **state)
{
	const struct sockaddr_un a = address("_77");

	(void)state;
	loop_stop(&loop);
	vsock_destroy(vsock);
	close(listener);
	unlink(a.sun_path);
	rmdir(folder);
	fixture_end();
	return 0;
}

static struct virtio_vsock_hdr header(u16 op, u32 n)
{
	return (struct virtio_vsock_hdr){ .src_cid = CID,
					  .dst_cid = 2,
					  .src_port = GUEST,
					  .dst_port = PORT,
					  .len = n,
					  .type = VIRTIO_VSOCK_TYPE_STREAM,
					  .op = op,
					  .buf_alloc = 1u << 20 };
}

/* @h and @n bytes behind it, and wait until it is taken. */
static void packet_send(const struct virtio_vsock_hdr *h, u32 n)
{
	memcpy(ram.host + DATA_AT, h, HEADER);
	for (u32 i = 0; i < n; i++)
		ram.host[DATA_AT + HEADER + i] = (u8)(i * 7 + 3);
	offer_one(TX, sent % RING_SIZE, DATA_AT, (u32)HEADER + n, false);
	assert_true(used_reach(TX, ++sent));
}

static void op_send(u16 op, u32 n)
{
	const struct virtio_vsock_hdr h = header(op, n);

	packet_send(&h, n);
}

static void buffer_give(void)
{
	offer_one(RX, given % RING_SIZE, RX_AT(given), RX_BYTES, true);
	given++;
}

/* The next packet for the guest, which has this operation. */
static struct virtio_vsock_hdr packet_want(u16 op)
{
	struct virtio_vsock_hdr h;

	if (given == taken)
		buffer_give();
	assert_true(used_reach(RX, (u16)(taken + 1)));
	memcpy(&h, ram.host + RX_AT(taken), HEADER);
	assert_int_equal(used_bytes(RX, taken % RING_SIZE), HEADER + h.len);
	assert_int_equal(h.op, op);
	assert_int_equal(h.dst_cid, CID);
	taken++;
	return h;
}

/* An open connection; the host's end. */
static int connection_open(void)
{
	struct virtio_vsock_hdr h;

	op_send(VIRTIO_VSOCK_OP_REQUEST, 0);
	h = packet_want(VIRTIO_VSOCK_OP_RESPONSE);
	assert_int_equal(h.buf_alloc, VSOCK_ALLOC);
	assert_int_equal(h.src_port, PORT);
	assert_int_equal(h.dst_port, GUEST);
	return accept(listener, NULL, NULL);
}

static bool at_end(int fd)
{
	struct pollfd p = { fd, POLLIN, 0 };
	u8 byte;

	return poll(&p, 1, 2000) == 1 && recv(fd, &byte, 1, 0) <= 0;
}

static const struct odd {
	const char *what;
	u64 src_cid, dst_cid;
	u16 type, op;
	u32 n;
	bool is_answered;
} odds[] = {
	{ "another source", CID + 1, 2, 1, VIRTIO_VSOCK_OP_REQUEST, 0, false },
	{ "the host as the source", 2, 2, 1, VIRTIO_VSOCK_OP_REQUEST, 0, false },
	{ "another guest", CID, 8, 1, VIRTIO_VSOCK_OP_REQUEST, 0, true },
	{ "a source of 64 bits", CID | 1ull << 32, 2, 1, VIRTIO_VSOCK_OP_REQUEST, 0, false },
	{ "a destination of 64 bits", CID, 2 | 1ull << 32, 1, VIRTIO_VSOCK_OP_REQUEST, 0, true },
	{ "another type", CID, 2, 2, VIRTIO_VSOCK_OP_REQUEST, 0, true },
	{ "no operation", CID, 2, 1, VIRTIO_VSOCK_OP_INVALID, 0, true },
	{ "an unknown operation", CID, 2, 1, 0xffff, 0, true },
	{ "bytes of no connection", CID, 2, 1, VIRTIO_VSOCK_OP_RW, 10, true },
	{ "more bytes than there are", CID, 2, 1, VIRTIO_VSOCK_OP_RW, 0xffffffff, true },
	{ "an answer to nothing", CID, 2, 1, VIRTIO_VSOCK_OP_RESPONSE, 0, true },
	{ "credit of no connection", CID, 2, 1, VIRTIO_VSOCK_OP_CREDIT_UPDATE, 0, true },
	{ "a reset of no connection", CID, 2, 1, VIRTIO_VSOCK_OP_RST, 0, false },
};

static void test_odd_packets(void **state)
{
	struct virtio_vsock_hdr h;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(odds); i++) {
		const struct odd *o = &odds[i];

		h = header(o->op, o->n);
		h.src_cid = o->src_cid;
		h.dst_cid = o->dst_cid;
		h.type = o->type;
		packet_send(&h, 0);
		if (o->is_answered) {
			h = packet_want(VIRTIO_VSOCK_OP_RST);
			assert_int_equal(h.src_port, PORT);
			assert_int_equal(h.src_cid, o->dst_cid);
		}
		/* What was not answered would come before this. */
		h = header(VIRTIO_VSOCK_OP_RW, 0);
		h.dst_port = 1000 + (u32)i;
		packet_send(&h, 0);
		h = packet_want(VIRTIO_VSOCK_OP_RST);
		if (h.src_port != 1000 + i)
			fail_msg("%s is answered", o->what);
	}
	for (u32 n = 0; n < HEADER; n += 7) {
		offer_one(TX, sent % RING_SIZE, DATA_AT, n, false);
		assert_true(used_reach(TX, ++sent));
	}
	offer_one(TX, sent % RING_SIZE, DATA_AT, 100, true);
	assert_true(used_reach(TX, ++sent));
	assert_int_equal(status_get() & STATUS_NEEDS_RST, 0);
	close(connection_open());
}

/* In an open connection these end it: the guest gets a reset, the host an end. */
static void test_odd_in_connection(void **state)
{
	static const struct {
		u16 op;
		u32 len;
	} bad[] = {
		{ VIRTIO_VSOCK_OP_REQUEST, 0 },	    { VIRTIO_VSOCK_OP_RESPONSE, 0 },
		{ VIRTIO_VSOCK_OP_INVALID, 0 },	    { 99, 0 },
		{ VIRTIO_VSOCK_OP_RW, 5 },	    { VIRTIO_VSOCK_OP_RW, 0xffffffff },
		{ VIRTIO_VSOCK_OP_RW, 0x80000000 },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		const struct virtio_vsock_hdr h = header(bad[i].op, bad[i].len);
		const int fd = connection_open();

		packet_send(&h, 0); /* without the bytes that it tells of */
		packet_want(VIRTIO_VSOCK_OP_RST);
		assert_true(at_end(fd));
		close(fd);
	}
}

static void test_streams(void **state)
{
	const int fd = connection_open();
	u8 bytes[2000];
	struct virtio_vsock_hdr h;

	(void)state;
	op_send(VIRTIO_VSOCK_OP_RW, 1500);
	assert_int_equal(recv(fd, bytes, sizeof(bytes), 0), 1500);
	for (unsigned i = 0; i < 1500; i++)
		assert_int_equal(bytes[i], (u8)(i * 7 + 3));
	assert_int_equal(write(fd, bytes, 1500), 1500);
	h = packet_want(VIRTIO_VSOCK_OP_RW);
	assert_int_equal(h.len, 1500);
	assert_int_equal(h.fwd_cnt, 1500);
	assert_memory_equal(ram.host + RX_AT(taken - 1u) + HEADER, bytes, 1500);
	op_send(VIRTIO_VSOCK_OP_CREDIT_REQUEST, 0);
	h = packet_want(VIRTIO_VSOCK_OP_CREDIT_UPDATE);
	assert_int_equal(h.fwd_cnt, 1500);
	/* Both ends: the host's is told, and after the guest's the connection is gone. */
	shutdown(fd, SHUT_WR);
	h = packet_want(VIRTIO_VSOCK_OP_SHUTDOWN);
	assert_int_equal(h.flags, VIRTIO_VSOCK_SHUTDOWN_SEND);
	h = header(VIRTIO_VSOCK_OP_SHUTDOWN, 0);
	h.flags = VIRTIO_VSOCK_SHUTDOWN_RCV | VIRTIO_VSOCK_SHUTDOWN_SEND;
	packet_send(&h, 0);
	packet_want(VIRTIO_VSOCK_OP_RST);
	assert_true(at_end(fd));
	close(fd);
}

/* The guest takes ten bytes, then nothing until it says so; a lie about what it has taken is no credit. */
static void test_credit_of_guest(void **state)
{
	struct virtio_vsock_hdr h = header(VIRTIO_VSOCK_OP_REQUEST, 0);
	u8 bytes[100] = { 0 };
	int fd;

	(void)state;
	h.buf_alloc = 10;
	packet_send(&h, 0);
	packet_want(VIRTIO_VSOCK_OP_RESPONSE);
	fd = accept(listener, NULL, NULL);
	assert_int_equal(write(fd, bytes, sizeof(bytes)), sizeof(bytes));
	h = packet_want(VIRTIO_VSOCK_OP_RW);
	assert_int_equal(h.len, 10);
	for (unsigned i = 0; i < 2; i++) {
		buffer_give();
		usleep(5000);
		assert_int_equal(used_count(RX), taken);
		h = header(VIRTIO_VSOCK_OP_CREDIT_UPDATE, 0);
		h.buf_alloc = 10;
		h.fwd_cnt = i ? 10 : 11;
		packet_send(&h, 0);
		if (i)
			break;
		usleep(5000);
		assert_int_equal(used_count(RX), taken);
	}
	h = packet_want(VIRTIO_VSOCK_OP_RW);
	assert_int_equal(h.len, 10);
	close(fd);
}

/* The host does not read: what the guest may have on the way is bounded, and more ends the connection. */
static void test_credit_of_host(void **state)
{
	const int fd = connection_open();
	static u8 bytes[65536];
	u32 total = 0, got = 0;
	u16 op = 0;
	ssize_t n;

	(void)state;
	for (unsigned i = 0; i < 200 && op != VIRTIO_VSOCK_OP_RST; i++) {
		op_send(VIRTIO_VSOCK_OP_RW, 60000);
		total += 60000;
		if (given == taken)
			buffer_give();
		usleep(2000);
		if (used_count(RX) == taken)
			continue;
		op = ((const struct virtio_vsock_hdr *)(void *)(ram.host + RX_AT(taken)))->op;
		assert_true(op == VIRTIO_VSOCK_OP_RST || op == VIRTIO_VSOCK_OP_CREDIT_UPDATE);
		taken++;
	}
	assert_int_equal(op, VIRTIO_VSOCK_OP_RST);
	assert_true(total < 2u << 20);
	while ((n = recv(fd, bytes, sizeof(bytes), 0)) > 0)
		got += (u32)n;
	assert_int_equal(got, total - 60000); /* all but the packet that was too much */
	close(fd);
}

static void test_host_begins(void **state)
{
	const struct sockaddr_un a = address("");
	const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct virtio_vsock_hdr h, answer;
	char text[64] = "";

	(void)state;
	assert_int_equal(connect(fd, (const struct sockaddr *)&a, sizeof(a)), 0);
	assert_int_equal(write(fd, "CONN", 4), 4);
	buffer_give();
	usleep(5000);
	assert_int_equal(used_count(RX), taken);
	assert_int_equal(write(fd, "ECT 9\nmore", 10), 10);
	h = packet_want(VIRTIO_VSOCK_OP_REQUEST);
	assert_int_equal(h.dst_port, 9);
	answer = header(VIRTIO_VSOCK_OP_RESPONSE, 0);
	answer.src_port = 9;
	answer.dst_port = h.src_port;
	packet_send(&answer, 0);
	h = packet_want(VIRTIO_VSOCK_OP_RW);
	assert_int_equal(h.len, 4);
	assert_memory_equal(ram.host + RX_AT(taken - 1u) + HEADER, "more", 4);
	assert_true(recv(fd, text, sizeof(text) - 1, 0) > 3);
	assert_memory_equal(text, "OK ", 3);
	close(fd);
	h = packet_want(VIRTIO_VSOCK_OP_SHUTDOWN);
	if (h.flags == VIRTIO_VSOCK_SHUTDOWN_SEND)
		h = packet_want(VIRTIO_VSOCK_OP_SHUTDOWN);
	assert_int_equal(h.flags, VIRTIO_VSOCK_SHUTDOWN_SEND | VIRTIO_VSOCK_SHUTDOWN_RCV);
}

/* One more than there may be is refused; a reset of the device ends all, and then it can be moved. */
static void test_many(void **state)
{
	struct virtio_vsock_hdr h = header(VIRTIO_VSOCK_OP_REQUEST, 0);
	int first;

	(void)state;
	assert_null(device->device.unmovable);
	for (u32 i = 0; i < MAX_COUNT; i++) {
		h.src_port = i;
		packet_send(&h, 0);
		packet_want(VIRTIO_VSOCK_OP_RESPONSE);
	}
	first = accept(listener, NULL, NULL);
	assert_non_null(device->device.unmovable);
	h.src_port = MAX_COUNT;
	packet_send(&h, 0);
	packet_want(VIRTIO_VSOCK_OP_RST);
	start();
	assert_true(at_end(first));
	assert_null(device->device.unmovable);
	close(first);
}

/* Nobody listens: refused. Resets that are owed are bounded, and the queue lives. */
static void test_refused(void **state)
{
	struct virtio_vsock_hdr h = header(VIRTIO_VSOCK_OP_REQUEST, 0);

	(void)state;
	h.dst_port = PORT + 1;
	for (unsigned i = 0; i < 1000; i++)
		packet_send(&h, 0);
	for (unsigned i = 0; i < 64; i++)
		packet_want(VIRTIO_VSOCK_OP_RST);
	close(connection_open());
}

/* A chain that no driver sends breaks the device while a connection is open; a reset mends it. */
static void test_broken(void **state)
{
	static const struct piece bad[] = {
		{ DATA_AT, 100, VRING_DESC_F_NEXT, 15 }, /* a loop */
		{ RAM_BYTES - 8, 9, 0, 0 },
		{ ~0ull - 10, 100, 0, 0 },
	};

	(void)state;
	for (unsigned q = RX; q <= TX; q++) {
		for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
			const int fd = connection_open();

			desc_set(q, 15, &bad[i]);
			offer(q, 15);
			notify(q);
			assert_int_equal(write(fd, "x", 1), 1);
			assert_true(breaks());
			start();
			assert_true(at_end(fd));
			close(fd);
		}
	}
}

static struct vmm_devices parsed;

#define TOO_LONG                                                                                   \
	"3,uds=/a/path/that/is/longer/than/the/name/of/a/socket/may/be/even/if/it/has/no/"         \
	"port/behind/its/end/and/more/and/more"

static void test_options(void **state)
{
	static const char *const bad[] = {
		"",	  "2",	   "x",	  "-3", "3x",	"4294967295", "18446744073709551619",
		"3,uds=", "3,uds", "3,x", "3,", "0x10", TOO_LONG,
	};
	struct why why;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		memset(&parsed, 0, sizeof(parsed));
		why.text[0] = 0;
		if (parse_vsock(bad[i], &parsed, &why) != -EINVAL || !why.text[0])
			fail_msg("'%s' is taken", bad[i]);
	}
	memset(&parsed, 0, sizeof(parsed));
	assert_int_equal(parse_vsock("3", &parsed, &why), 0);
	assert_int_equal(parsed.vsock.cid, 3);
	assert_string_equal(parsed.vsock.path, "vsock.sock");
	assert_int_equal(parse_vsock("4", &parsed, &why), -EINVAL);
	memset(&parsed, 0, sizeof(parsed));
	assert_int_equal(parse_vsock("4294967294,uds=/run/v", &parsed, &why), 0);
	assert_string_equal(parsed.vsock.path, "/run/v");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_odd_packets, setup, teardown),
		cmocka_unit_test_setup_teardown(test_odd_in_connection, setup, teardown),
		cmocka_unit_test_setup_teardown(test_streams, setup, teardown),
		cmocka_unit_test_setup_teardown(test_credit_of_guest, setup, teardown),
		cmocka_unit_test_setup_teardown(test_credit_of_host, setup, teardown),
		cmocka_unit_test_setup_teardown(test_host_begins, setup, teardown),
		cmocka_unit_test_setup_teardown(test_many, setup, teardown),
		cmocka_unit_test_setup_teardown(test_refused, setup, teardown),
		cmocka_unit_test_setup_teardown(test_broken, setup, teardown),
		cmocka_unit_test(test_options),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

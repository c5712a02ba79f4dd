/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Virtqueues: chains, notification thresholds, and every way in which a hostile guest can write them, also at random. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <linux/virtio_ring.h>

#include "vmm/virtio/iov.h"
#include "vmm/virtio/queue.h"

#define SIZE	8u
#define DESC	0x1000u
#define AVAIL	0x2000u
#define USED	0x3000u
#define DATA	0x4000u
#define RAM_LEN 0x10000u
#define ROUNDS	200000u

static struct ram ram;
static struct virtqueue q;
static struct chain chain;
static u64 dirty[2];

static int setup(void **state)
{
	(void)state;
	ram = (struct ram){ .size = RAM_LEN, .low = RAM_LEN };
	ram.host = calloc(1, RAM_LEN);
	q = (struct virtqueue){ .ram = &ram,
				.size = SIZE,
				.desc_at = DESC,
				.avail_at = AVAIL,
				.used_at = USED,
				.indirect = 1 };
	assert_true(virtqueue_is_sane(&q));
	q.enabled = 1;
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	free(ram.host);
	return 0;
}

static void put16(gpa_t at, u16 value)
{
	memcpy(ram.host + at, &value, 2);
}

static u16 get16(gpa_t at)
{
	u16 value;

	memcpy(&value, ram.host + at, 2);
	return value;
}

static void desc_put(gpa_t table, unsigned i, u64 addr, u32 len, u16 flags, u16 next)
{
	const struct vring_desc d = { addr, len, flags, next };

	memcpy(ram.host + table + 16 * i, &d, sizeof(d));
}

static void offer(u16 head)
{
	const u16 index = get16(AVAIL + 2);

	put16(AVAIL + 4 + 2 * (index % SIZE), head);
	put16(AVAIL + 2, (u16)(index + 1));
}

static void test_chain(void **state)
{
	u8 bytes[8];

	(void)state;
	assert_int_equal(virtqueue_pop(&q, &chain), 0);
	memcpy(ram.host + DATA, "abcdefgh", 8);
	desc_put(DESC, 3, DATA, 3, VRING_DESC_F_NEXT, 5);
	desc_put(DESC, 5, DATA + 3, 5, VRING_DESC_F_NEXT, 1);
	desc_put(DESC, 1, DATA + 0x100, 16, VRING_DESC_F_WRITE, 0);
	offer(3);
	assert_int_equal(virtqueue_pop(&q, &chain), 1);
	assert_int_equal(chain.head, 3);
	assert_int_equal(chain.out, 2);
	assert_int_equal(chain.in, 1);
	assert_int_equal(chain.out_bytes, 8);
	assert_int_equal(chain.in_bytes, 16);
	assert_int_equal(iov_read(chain.iov, chain.out, 1, bytes, 8), 7);
	assert_memory_equal(bytes, "bcdefgh", 7);
	assert_int_equal(iov_write(chain_in(&chain), chain.in, 14, "xyz", 3), 2);
	assert_memory_equal(ram.host + DATA + 0x10e, "xy\0", 3);
	virtqueue_unpop(&q);
	assert_int_equal(virtqueue_pop(&q, &chain), 1);
	ram.dirty = dirty;
	virtqueue_push(&q, &chain, 16);
	/* What the device may write, and the ring; not what it only reads. */
	assert_int_equal(ram_marks_take(&ram, 0), BIT(DATA >> 12) | BIT(USED >> 12));
	assert_int_equal(ram_marks_take(&ram, 0), 0);
	ram_mark(&ram, ram.host + 0x1fff, 2);
	assert_int_equal(ram_marks_take(&ram, 0), 6);
	assert_int_equal(get16(USED + 2), 1);
	assert_int_equal(get16(USED + 4), 3);
	assert_int_equal(get16(USED + 8), 16);
	assert_int_equal(virtqueue_pop(&q, &chain), 0);
}

static void test_indirect(void **state)
{
	(void)state;
	desc_put(DESC, 0, DATA, 32, VRING_DESC_F_INDIRECT, 0);
	desc_put(DATA, 0, DATA + 0x800, 4, VRING_DESC_F_NEXT, 1);
	desc_put(DATA, 1, DATA + 0x900, 5, VRING_DESC_F_WRITE, 0);
	offer(0);
	assert_int_equal(virtqueue_pop(&q, &chain), 1);
	assert_int_equal(chain.out_bytes, 4);
	assert_int_equal(chain.in_bytes, 5);
}

/* Each row is a table that no driver may write: the queue breaks, and stays so. */
static const struct bad {
	const char *what;
	struct {
		gpa_t table;
		unsigned i;
		u64 addr;
		u32 len;
		u16 flags, next;
	} rows[3];
	u16 head;
} bads[] = {
	{ "head outside", { { DESC, 0, DATA, 1, 0, 0 } }, SIZE },
	{ "loop of one", { { DESC, 0, DATA, 1, VRING_DESC_F_NEXT, 0 } }, 0 },
	{ "loop of two",
	  { { DESC, 0, DATA, 1, VRING_DESC_F_NEXT, 1 },
	    { DESC, 1, DATA, 1, VRING_DESC_F_NEXT, 0 } },
	  0 },
	{ "next outside", { { DESC, 0, DATA, 1, VRING_DESC_F_NEXT, SIZE } }, 0 },
	{ "next far outside", { { DESC, 0, DATA, 1, VRING_DESC_F_NEXT, 0xffff } }, 0 },
	{ "beyond RAM", { { DESC, 0, RAM_LEN - 1, 2, 0, 0 } }, 0 },
	{ "wraps around", { { DESC, 0, ~0ull, 2, 0, 0 } }, 0 },
	{ "huge", { { DESC, 0, 0, 0xffffffff, VRING_DESC_F_WRITE, 0 } }, 0 },
	{ "readable after writable",
	  { { DESC, 0, DATA, 1, VRING_DESC_F_NEXT | VRING_DESC_F_WRITE, 1 },
	    { DESC, 1, DATA, 1, 0, 0 } },
	  0 },
	{ "indirect with next",
	  { { DESC, 0, DATA, 16, VRING_DESC_F_INDIRECT | VRING_DESC_F_NEXT, 1 } },
	  0 },
	{ "indirect of no size", { { DESC, 0, DATA, 0, VRING_DESC_F_INDIRECT, 0 } }, 0 },
	{ "indirect of odd size", { { DESC, 0, DATA, 17, VRING_DESC_F_INDIRECT, 0 } }, 0 },
	{ "indirect too long",
	  { { DESC, 0, DATA, 16 * (CHAIN_MAX + 1), VRING_DESC_F_INDIRECT, 0 } },
	  0 },
	{ "indirect beyond RAM", { { DESC, 0, RAM_LEN, 16, VRING_DESC_F_INDIRECT, 0 } }, 0 },
	{ "indirect in indirect",
	  { { DESC, 0, DATA, 16, VRING_DESC_F_INDIRECT, 0 },
	    { DATA, 0, DATA, 16, VRING_DESC_F_INDIRECT, 0 } },
	  0 },
	{ "loop in indirect",
	  { { DESC, 0, DATA, 32, VRING_DESC_F_INDIRECT, 0 },
	    { DATA, 0, DATA, 1, VRING_DESC_F_NEXT, 1 },
	    { DATA, 1, DATA, 1, VRING_DESC_F_NEXT, 0 } },
	  0 },
	{ "next outside of indirect",
	  { { DESC, 0, DATA, 16, VRING_DESC_F_INDIRECT, 0 },
	    { DATA, 0, DATA, 1, VRING_DESC_F_NEXT, 1 } },
	  0 },
};

static void test_hostile(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bads); i++) {
		const struct bad *bad = &bads[i];

		memset(ram.host, 0, RAM_LEN);
		q.broken = q.last_avail = q.used = 0;
		for (size_t k = 0; k < ARRAY_SIZE(bad->rows); k++)
			if (bad->rows[k].table)
				desc_put(bad->rows[k].table, bad->rows[k].i, bad->rows[k].addr,
					 bad->rows[k].len, bad->rows[k].flags, bad->rows[k].next);
		offer(bad->head);
		if (virtqueue_pop(&q, &chain) != -EPROTO)
			fail_msg("not refused: %s", bad->what);
		assert_int_equal(virtqueue_pop(&q, &chain), -EPROTO);
		virtqueue_push(&q, &(struct chain){ .head = 0 }, 0);
		assert_int_equal(get16(USED + 2), 0);
	}
	/* More requests than the ring holds. */
	q.broken = q.last_avail = 0;
	put16(AVAIL + 2, SIZE + 1);
	assert_int_equal(virtqueue_pop(&q, &chain), -EPROTO);
	/* An indirect table that was not agreed on. */
	memset(ram.host, 0, RAM_LEN);
	q.broken = q.last_avail = q.indirect = 0;
	desc_put(DESC, 0, DATA, 16, VRING_DESC_F_INDIRECT, 0);
	offer(0);
	assert_int_equal(virtqueue_pop(&q, &chain), -EPROTO);
}

static void test_places(void **state)
{
	struct virtqueue x = q;

	(void)state;
	x.size = 0;
	assert_false(virtqueue_is_sane(&x));
	x.size = 6;
	assert_false(virtqueue_is_sane(&x));
	x.size = QUEUE_SIZE_MAX * 2;
	assert_false(virtqueue_is_sane(&x));
	x = q;
	x.desc_at = RAM_LEN - 16 * SIZE + 16;
	assert_false(virtqueue_is_sane(&x));
	x.desc_at = DESC + 8;
	assert_false(virtqueue_is_sane(&x));
	x = q;
	x.avail_at = RAM_LEN - 2;
	assert_false(virtqueue_is_sane(&x));
	x = q;
	x.used_at = ~0ull - 3;
	assert_false(virtqueue_is_sane(&x));
}

static void test_events(void **state)
{
	(void)state;
	desc_put(DESC, 0, DATA, 1, 0, 0);
	virtqueue_push(&q, &(struct chain){ .head = 0 }, 0);
	assert_true(virtqueue_wants_interrupt(&q));
	put16(AVAIL, VRING_AVAIL_F_NO_INTERRUPT);
	virtqueue_push(&q, &(struct chain){ .head = 0 }, 0);
	assert_false(virtqueue_wants_interrupt(&q));
	q.event_idx = 1;
	put16(AVAIL + 4 + 2 * SIZE, 3); /* used_event: tell when the fourth is used */
	virtqueue_push(&q, &(struct chain){ .head = 0 }, 0);
	assert_false(virtqueue_wants_interrupt(&q));
	virtqueue_push(&q, &(struct chain){ .head = 0 }, 0);
	assert_true(virtqueue_wants_interrupt(&q));
	assert_false(virtqueue_wants_interrupt(&q));
	/* Notification: what came between is noticed. */
	assert_false(virtqueue_notify_on(&q));
	assert_int_equal(get16(USED + 4 + 8 * SIZE), 0);
	offer(0);
	assert_true(virtqueue_notify_on(&q));
	assert_int_equal(virtqueue_pop(&q, &chain), 1);
	assert_false(virtqueue_notify_on(&q));
	assert_int_equal(get16(USED + 4 + 8 * SIZE), 1);
}

/* Whatever is in the rings: no piece outside RAM, sums that hold, and an end. */
static void test_random(void **state)
{
	const char *seed = getenv("ANYKVM_SEED");

	(void)state;
	srand(seed ? (unsigned)atoi(seed) : 1);
	for (unsigned round = 0; round < ROUNDS; round++) {
		size_t out = 0, in = 0;

		for (unsigned i = 0; i < SIZE; i++) {
			desc_put(DESC, i, (u64)(rand() % (RAM_LEN + 16)), (u32)rand() % 0x2000,
				 (u16)(rand() % 8), (u16)(rand() % (SIZE + 1)));
			desc_put(DATA, i, (u64)(rand() % (RAM_LEN + 16)), (u32)rand() % 0x2000,
				 (u16)(rand() % 8), (u16)(rand() % (SIZE + 1)));
		}
		if (rand() % 2)
			desc_put(DESC, 0, DATA, 16 * (1 + (u32)rand() % SIZE),
				 VRING_DESC_F_INDIRECT, 0);
		q.broken = q.last_avail = q.used = 0;
		put16(AVAIL + 2, 0);
		offer((u16)(rand() % 4 ? 0 : rand() % SIZE));
		if (virtqueue_pop(&q, &chain) != 1)
			continue;
		for (unsigned i = 0; i < chain.out + chain.in; i++) {
			const u8 *base = chain.iov[i].iov_base;

			assert_true(base >= ram.host &&
				    base + chain.iov[i].iov_len <= ram.host + RAM_LEN);
			*(i < chain.out ? &out : &in) += chain.iov[i].iov_len;
		}
		assert_int_equal(out, chain.out_bytes);
		assert_int_equal(in, chain.in_bytes);
		virtqueue_push(&q, &chain, (u32)in);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_chain, setup, teardown),
		cmocka_unit_test_setup_teardown(test_indirect, setup, teardown),
		cmocka_unit_test_setup_teardown(test_hostile, setup, teardown),
		cmocka_unit_test_setup_teardown(test_places, setup, teardown),
		cmocka_unit_test_setup_teardown(test_events, setup, teardown),
		cmocka_unit_test_setup_teardown(test_random, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

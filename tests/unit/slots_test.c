/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Slots: checks and errno, lookup with a hint, moves and deletes, many slots, readers against a writer. */
#include <errno.h>
#include <linux/kvm.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "mem/mem.h"

static u8 *const HVA = (u8 *)0x10000000000;

static unsigned flushes;

static void count_flush(void *owner)
{
	(void)owner;
	flushes++;
}

static const struct mem_ops ops = { .flush_all = count_flush };

static void test_errno(void **state)
{
	struct mem *m = mem_create(&ops, NULL);

	(void)state;
	flushes = 0;
	assert_int_equal(mem_slot_set(m, 0, 0, 0, 0x100, 16, HVA), 0);
	assert_int_equal(mem_slot_set(m, 0, 0, 0, 0x100, 16, HVA), 0);
	assert_int_equal(flushes, 0);
	assert_int_equal(mem_slot_set(m, 0, 1, 0, 0x10f, 1, HVA), -EEXIST);
	assert_int_equal(mem_slot_set(m, 0, 1, 0, 0xff, 2, HVA), -EEXIST);
	assert_int_equal(mem_slot_set(m, 0, 1, 0, 0xf0, 0x100, HVA), -EEXIST);
	assert_int_equal(mem_slot_set(m, 1, 1, 0, 0x10f, 1, HVA), 0); /* another space */
	assert_int_equal(mem_slot_set(m, 2, 1, 0, 0x10f, 1, HVA), -EINVAL);
	assert_int_equal(mem_slot_set(m, 0, 32767, 0, 0x200, 1, HVA), -EINVAL);
	assert_int_equal(mem_slot_set(m, 0, 3, 4, 0x200, 1, HVA), -EINVAL); /* unknown flag */
	assert_int_equal(mem_slot_set(m, 0, 3, 0, 0x200, 1, HVA + 1), -EINVAL);
	assert_int_equal(mem_slot_set(m, 0, 3, 0, 0x200, 1ull << 31, HVA), -EINVAL);
	assert_int_equal(mem_slot_set(m, 0, 3, 0, 0x200, 16, (u8 *)0x7fffffffe000), -EINVAL);
	assert_int_equal(mem_slot_set(m, 0, 3, 0, 1ull << 40, 1, HVA), -EINVAL);
	assert_int_equal(mem_slot_set(m, 0, 3, 0, (1ull << 52) - 1, 2, HVA), -EINVAL);
	assert_int_equal(mem_slot_set(m, 0, 3, 0, 0, 0, HVA), -EINVAL);	     /* nothing to delete */
	assert_int_equal(mem_slot_set(m, 0, 0, 0, 0x100, 17, HVA), -EINVAL); /* size */
	assert_int_equal(mem_slot_set(m, 0, 0, 0, 0x100, 16, HVA + PAGE_SIZE), -EINVAL);
	assert_int_equal(mem_slot_set(m, 0, 0, KVM_MEM_READONLY, 0x100, 16, HVA), -EINVAL);
	assert_int_equal(mem_slot_set(m, 0, 0, KVM_MEM_LOG_DIRTY_PAGES, 0x100, 16, HVA), 0);
	assert_int_equal(flushes, 0); /* translations stay */
	mem_destroy(m);
}

static void test_move_delete(void **state)
{
	struct mem *m = mem_create(&ops, NULL);
	struct slot *hint = NULL, *a;

	(void)state;
	assert_int_equal(mem_slot_set(m, 0, 5, 0, 0x100, 16, HVA), 0);
	assert_int_equal(mem_slot_set(m, 0, 6, 0, 0x200, 16, HVA), 0);
	a = mem_slot_find(m, 0, 0x10f, &hint);
	assert_non_null(a);
	assert_ptr_equal(a, hint);
	assert_true(page_grant_write(NULL, a, 0x101));
	assert_null(mem_slot_find(m, 0, 0x110, &hint));
	assert_null(mem_slot_find(m, 1, 0x10f, &hint)); /* the hint is of another space */
	assert_int_equal(mem_slot_set(m, 0, 5, 0, 0x1f8, 16, HVA), -EEXIST);
	assert_int_equal(mem_slot_set(m, 0, 5, 0, 0x108, 16, HVA), 0); /* overlaps only itself */
	assert_null(mem_slot_find(m, 0, 0x100, &hint));
	a = mem_slot_find(m, 0, 0x109, &hint);
	assert_int_equal(*slot_desc(a, 0x109), 0);
	assert_int_equal(a->hva, HVA);
	assert_ptr_equal(a, mem_slot_by_id(m, 0, 5));
	assert_int_equal(mem_slot_set(m, 0, 5, 0, 0, 0, NULL), 0);
	assert_null(mem_slot_find(m, 0, 0x109, &hint)); /* a stale hint is harmless */
	assert_null(mem_slot_by_id(m, 0, 5));
	assert_non_null(mem_slot_find(m, 0, 0x20f, NULL));
	mem_destroy(m);
}

#define MANY 32764u

/* All slots that the API has, in an order that is neither up nor down. */
static void test_many(void **state)
{
	struct mem *m = mem_create(&ops, NULL);
	struct slot *s;

	(void)state;
	for (u32 i = 0; i < MANY; i++) {
		u32 id = i * 12345u % MANY; /* coprime: a permutation */

		assert_int_equal(mem_slot_set(m, 0, id, 0, id * 4ull, 3, HVA + id * PAGE_SIZE), 0);
	}
	for (u32 id = 0; id < MANY; id++) {
		s = mem_slot_find(m, 0, id * 4ull + 2, NULL);
		assert_non_null(s);
		assert_int_equal(s->id, id);
		assert_int_equal(*slot_desc(s, id * 4ull + 2), 0);
		page_grant_write(NULL, s, id * 4ull + 2);
		assert_null(mem_slot_find(m, 0, id * 4ull + 3, NULL));
	}
	for (u32 i = 0; i < MANY; i++)
		assert_int_equal(mem_slot_set(m, 0, i * 77773u % MANY, 0, 0, 0, NULL), 0);
	assert_null(mem_slot_find(m, 0, 0, NULL));
	mem_destroy(m);
}

static volatile bool stop;

static void *reader(void *arg)
{
	struct mem *m = arg;
	struct slot *hint = NULL;
	u64 bad = 0;

	while (!stop) {
		struct slot *s = mem_slot_find(m, 0, 0x1008, NULL); /* always there */

		bad += !s || s->id != 500;
		s = mem_slot_find(m, 0, 0x1008, &hint);
		bad += !s || s->id != 500;
	}
	return (void *)bad;
}

static void test_readers(void **state)
{
	struct mem *m = mem_create(&ops, NULL);
	pthread_t thread;
	void *bad;

	(void)state;
	stop = false;
	assert_int_equal(mem_slot_set(m, 0, 500, 0, 0x1000, 16, HVA), 0);
	assert_int_equal(pthread_create(&thread, NULL, reader, m), 0);
	for (unsigned round = 0; round < 200; round++) {
		for (u32 i = 0; i < 40; i++)
			assert_int_equal(mem_slot_set(m, 0, i, 0, i * 16, 16, HVA), 0);
		for (u32 i = 0; i < 40; i++)
			assert_int_equal(mem_slot_set(m, 0, i, 0, 0, 0, NULL), 0);
	}
	stop = true;
	pthread_join(thread, &bad);
	assert_null(bad);
	mem_destroy(m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_errno),
		cmocka_unit_test(test_move_delete),
		cmocka_unit_test(test_many),
		cmocka_unit_test(test_readers),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The second stage: grants, code marks, reuse of the arena, terabytes of slots, copies. */
#include <errno.h>
#include <linux/kvm.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "mem/mem.h"

static u8 *const HVA = (u8 *)0x10000000000;

static void test_grant(void **state)
{
	struct mem *m = mem_create(NULL, NULL);
	struct slot *s;

	(void)state;
	assert_int_equal(mem_slot_set(m, 0, 0, 0, 0x100, 16, HVA), 0);
	s = mem_slot_find(m, 0, 0x100, NULL);
	page_note_read(s, 0x100);
	assert_int_equal(*slot_desc(s, 0x100), S2_R | S2_A);
	assert_true(page_grant_write(NULL, s, 0x100));
	assert_int_equal(*slot_desc(s, 0x100), S2_R | S2_W | S2_A | S2_D);
	assert_false(page_code_get(s, 0x100));
	assert_true(page_code_get(s, 0x100));
	assert_int_equal(page_code_holders(s, 0x100), 2);
	assert_true(page_has_code(s, 0x100));
	assert_false(page_has_code(s, 0x101));
	assert_false(page_grant_write(NULL, s, 0x100));
	page_code_put(s, 0x100);
	assert_false(page_grant_write(NULL, s, 0x100));
	page_code_put(s, 0x100);
	assert_true(page_grant_write(NULL, s, 0x100));
	mem_destroy(m);
}

static void test_readonly(void **state)
{
	struct mem *m = mem_create(NULL, NULL);
	struct slot *s;

	(void)state;
	assert_int_equal(mem_slot_set(m, 0, 0, KVM_MEM_READONLY, 0, 16, HVA), 0);
	s = mem_slot_find(m, 0, 0, NULL);
	assert_true(slot_is_readonly(s));
	assert_false(page_grant_write(NULL, s, 3));
	assert_int_equal(*slot_desc(s, 3), 0);
	mem_destroy(m);
}

static void test_reuse(void **state)
{
	struct mem *m = mem_create(NULL, NULL);
	struct slot *s;

	(void)state;
	for (unsigned round = 0; round < 50; round++) {
		u64 n[3] = { 3000 + round, 1, 517 };

		for (u32 i = 0; i < 3; i++)
			assert_int_equal(mem_slot_set(m, 0, i, 0, i * 0x1000, n[i], HVA), 0);
		for (u32 i = 0; i < 3; i++) {
			s = mem_slot_by_id(m, 0, i);
			for (u64 k = 0; k < n[i]; k++) {
				assert_int_equal(s->desc[k], 0);
				page_grant_write(NULL, s, s->base_gfn + k);
			}
		}
		for (u32 i = 0; i < 3; i++)
			assert_int_equal(mem_slot_set(m, 0, (i + round) % 3, 0, 0, 0, NULL), 0);
	}
	mem_destroy(m);
}

/* 8 TiB - 4 KiB, the largest slot, four times: costs address space only. */
static void test_terabytes(void **state)
{
	struct mem *m = mem_create(NULL, NULL);
	const u64 n = (1ull << 31) - 1;

	(void)state;
	for (u32 i = 0; i < 4; i++) {
		assert_int_equal(mem_slot_set(m, 0, i, 0, i * (n + 1), n, HVA), 0);
		assert_true(page_grant_write(NULL, mem_slot_by_id(m, 0, i), i * (n + 1) + n - 1));
	}
	mem_destroy(m);
}

static void test_copy(void **state)
{
	struct mem *m = mem_create(NULL, NULL);
	u8 *ram = aligned_alloc(PAGE_SIZE, 4 * PAGE_SIZE), buf[5000], back[5000];
	struct slot *s;

	(void)state;
	memset(ram, 0, 4 * PAGE_SIZE);
	assert_int_equal(mem_slot_set(m, 0, 0, 0, 0x10, 2, ram), 0);
	assert_int_equal(mem_slot_set(m, 0, 1, 0, 0x12, 1, ram + 3 * PAGE_SIZE), 0);
	assert_int_equal(mem_slot_set(m, 0, 2, KVM_MEM_READONLY, 0x13, 1, ram + 2 * PAGE_SIZE), 0);
	for (unsigned i = 0; i < sizeof(buf); i++)
		buf[i] = i * 7 + 1;
	assert_int_equal(mem_write(m, 0, 0x11f00, buf, 1000), 0); /* across slots */
	assert_int_equal(mem_read(m, 0, 0x11f00, back, 1000), 0);
	assert_memory_equal(buf, back, 1000);
	assert_memory_equal(ram + 3 * PAGE_SIZE, buf + 256, 744);
	s = mem_slot_find(m, 0, 0x11, NULL);
	assert_int_equal(*slot_desc(s, 0x10), 0);
	assert_true(*slot_desc(s, 0x11) & S2_D);
	assert_int_equal(mem_write(m, 0, 0x13000, buf, 1), -EFAULT);
	assert_int_equal(mem_read(m, 0, 0x13000, back, 4096), 0);
	assert_int_equal(mem_read(m, 0, 0x13000, back, 4097), -EFAULT);
	assert_int_equal(mem_read(m, 0, ~0ull, back, 2), -EFAULT);
	assert_int_equal(mem_read(m, 0, 0x9000, back, 0), 0);
	mem_destroy(m);
	free(ram);
}

#define ROUNDS 200000

static void *marker(void *arg)
{
	for (unsigned i = 0; i < ROUNDS; i++) {
		page_code_get(arg, 0);
		page_code_put(arg, 0);
	}
	return NULL;
}

/* No bit is lost between a writer and a translator. */
static void test_race(void **state)
{
	struct mem *m = mem_create(NULL, NULL);
	unsigned lost = 0;
	pthread_t thread;
	struct slot *s;

	(void)state;
	assert_int_equal(mem_slot_set(m, 0, 0, 0, 0, 1, HVA), 0);
	s = mem_slot_find(m, 0, 0, NULL);
	assert_int_equal(pthread_create(&thread, NULL, marker, s), 0);
	for (unsigned i = 0; i < ROUNDS; i++) {
		__atomic_fetch_and(s->desc, ~S2_D, __ATOMIC_SEQ_CST);
		page_grant_write(NULL, s, 0);
		lost += !(*slot_desc(s, 0) & S2_D);
	}
	pthread_join(thread, NULL);
	assert_int_equal(lost, 0);
	assert_false(page_has_code(s, 0));
	mem_destroy(m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_grant), cmocka_unit_test(test_readonly),
		cmocka_unit_test(test_reuse), cmocka_unit_test(test_terabytes),
		cmocka_unit_test(test_copy),  cmocka_unit_test(test_race),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Marks of pages that devices write, against the harvests of a migration: each kind of store, nothing lost. */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "vmm/ram.h"

#define PAGES	96u
#define DEVICES 2u
#define ROUNDS	150u /* in the end of each what was lost is seen; later stores would hide it */
#define STORES	500u /* of each device in each */

struct devices {
	struct ram ram;
	unsigned rounds;
	pthread_barrier_t start;
	atomic_uint busy;
};

struct device {
	struct devices *all;
	unsigned number;
	pthread_t thread;
};

/* As devices store: a field of a ring, a block that was read, and what the compiler makes of a copy past the caches. */
static void store(u8 *to, u64 value, unsigned kind)
{
	u64 block[64], left = sizeof(block);

	switch (kind) {
	case 0:
		__atomic_store_n((u64 *)(void *)to, value, __ATOMIC_RELAXED);
		break;
	case 1:
		for (unsigned i = 0; i < ARRAY_SIZE(block); i++)
			block[i] = value + i;
		memcpy(to, block, sizeof(block));
		break;
	case 2:
		__asm__ volatile("movnti %1, %0" : "=m"(*(u64 *)(void *)to) : "r"(value));
		break;
	default:
		__asm__ volatile("rep stosb" : "+D"(to), "+c"(left) : "a"(value) : "memory");
	}
}

static void *device_run(void *arg)
{
	struct device *d = arg;
	u32 x = d->number * 0x1234567 + 1;

	for (unsigned round = 0; round < d->all->rounds; round++) {
		pthread_barrier_wait(&d->all->start);
		for (unsigned i = 0; i < STORES; i++) {
			u8 *to;

			x = x * 0x19660d + 0x3c6ef35f;
			to = d->all->ram.host + (x >> 8) % PAGES * PAGE_SIZE + d->number * 1024;
			store(to, x, x >> 30);
			ram_mark(&d->all->ram, to, 512);
		}
		atomic_fetch_sub(&d->all->busy, 1);
	}
	return NULL;
}

static unsigned harvest(const struct ram *ram, u8 *copy)
{
	unsigned n = 0;

	for (unsigned first = 0; first < PAGES; first += 64)
		for (u64 bits = ram_marks_take(ram, first); bits; bits &= bits - 1, n++) {
			const size_t at = (first + (unsigned)__builtin_ctzll(bits)) * PAGE_SIZE;

			memcpy(copy + at, ram->host + at, PAGE_SIZE);
		}
	return n;
}

static void devices_against_harvests(void **state)
{
	static u8 copy[PAGES * PAGE_SIZE];
	static struct devices all;
	struct device d[DEVICES];
	unsigned long taken = 0;
	const char *rounds = getenv("ANYKVM_ROUNDS");
	struct why why;

	(void)state;
	all.rounds = rounds ? (unsigned)atoi(rounds) : ROUNDS;
	assert_int_equal(ram_create(&all.ram, RAM_MIN, &why), 0);
	pthread_barrier_init(&all.start, NULL, DEVICES + 1);
	for (unsigned i = 0; i < DEVICES; i++) {
		d[i] = (struct device){ .all = &all, .number = i };
		assert_int_equal(pthread_create(&d[i].thread, NULL, device_run, &d[i]), 0);
	}
	for (unsigned round = 0; round < all.rounds; round++) {
		all.busy = DEVICES;
		pthread_barrier_wait(&all.start);
		while (all.busy)
			taken += harvest(&all.ram, copy);
		taken += harvest(&all.ram, copy);
		assert_memory_equal(copy, all.ram.host, PAGES * PAGE_SIZE);
	}
	for (unsigned i = 0; i < DEVICES; i++)
		pthread_join(d[i].thread, NULL);
	assert_true(taken >= all.rounds * PAGES / 2);
	pthread_barrier_destroy(&all.start);
	ram_destroy(&all.ram);
}

/* A mark reaches every page that the store has touched, and no other; taking it leaves none. */
static void marks_are_of_pages(void **state)
{
	struct ram ram;
	struct why why;

	(void)state;
	assert_int_equal(ram_create(&ram, RAM_MIN, &why), 0);
	ram_mark(&ram, ram.host + 5 * PAGE_SIZE + 4095, 1);
	ram_mark(&ram, ram.host + 62 * PAGE_SIZE + 1, 2 * PAGE_SIZE);
	ram_mark(&ram, ram.host + 9 * PAGE_SIZE, 0);
	assert_int_equal(ram_marks_take(&ram, 0), BIT_ULL(5) | BIT_ULL(62) | BIT_ULL(63));
	assert_int_equal(ram_marks_take(&ram, 64), 1);
	assert_int_equal(ram_marks_take(&ram, 0), 0);
	assert_int_equal(ram_write(&ram, 0x3ffe, "1234", 4), 0);
	assert_int_equal(ram_marks_take(&ram, 0), BIT_ULL(3) | BIT_ULL(4));
	assert_int_equal(ram_write(&ram, RAM_MIN - 2, "1234", 4), -EFAULT);
	assert_int_equal(ram_marks_take(&ram, 192), 0);
	ram_destroy(&ram);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(marks_are_of_pages),
		cmocka_unit_test(devices_against_harvests),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* kvmclock: scale factors, both structures, versions, flags, consistency between vCPUs. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "virt/pvclock.h"

/* As a guest sees it. */
struct time_info {
	u32 version, pad0;
	u64 tsc, system;
	u32 mul;
	s8 shift;
	u8 flags, pad[2];
};

static struct mem *mem;
static u8 *ram;

static int setup(void **state)
{
	static const struct mem_ops ops;

	(void)state;
	mem = mem_create(&ops, NULL);
	ram = aligned_alloc(PAGE_SIZE, 4 * PAGE_SIZE);
	memset(ram, 0, 4 * PAGE_SIZE);
	return mem_slot_set(mem, 0, 0, 0, 0, 4, ram);
}

static int teardown(void **state)
{
	(void)state;
	mem_destroy(mem);
	free(ram);
	return 0;
}

static u64 guest_ns(const struct time_info *t, u64 tsc)
{
	u64 d = tsc - t->tsc;

	d = t->shift < 0 ? d >> -t->shift : d << t->shift;
	return t->system + (u64)((u128)d * t->mul >> 32);
}

static void scale(void **state)
{
	static const u32 khz[] = { 1,	    1000,    999999,  1000000, 1000001, 1999999, 2000000,
				   2000001, 2500000, 3000000, 4000001, 5200000, ~0u };

	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(khz); i++) {
		struct time_info t = { 0 };
		u64 second = (u64)khz[i] * 1000, ns;

		pvclock_scale(khz[i], &t.mul, &t.shift);
		assert_true(t.mul >= 1u << 31);
		ns = guest_ns(&t, second);
		assert_in_range(ns, 1000000000ull - 2, 1000000000ull);
		ns = guest_ns(&t, second * 3600);
		assert_in_range(ns, 3600000000000ull - 4000, 3600000000000ull);
	}
}

static void now_and_set(void **state)
{
	struct pvclock_vm vm = { 0 };
	u64 a, b;

	(void)state;
	pvclock_set(&vm, 0);
	a = pvclock_now(&vm);
	b = pvclock_now(&vm);
	assert_true(a <= b && b < 1000000000);
	pvclock_set(&vm, 5000000000000ull);
	a = pvclock_now(&vm);
	assert_in_range(a, 5000000000000ull, 5001000000000ull);
}

static void time_page(void **state)
{
	struct pvclock_vm vm = { 0 };
	struct pvclock_vcpu v = { .msr = 0x1000 | 1 }, w = { .msr = 0x2040 | 1 };
	struct time_info *t = (void *)(ram + 0x1000), *u = (void *)(ram + 0x2040);
	u64 ns;

	(void)state;
	pvclock_set(&vm, 1000);
	t->version = 7; /* junk left in memory */
	assert_int_equal(pvclock_write_time(&vm, &v, mem, 1000000, 2000000, false), 0);
	assert_int_equal(t->version, 10);
	assert_int_equal(t->flags, 1);
	ns = pvclock_now(&vm);
	assert_in_range(guest_ns(t, 1000000), 1000, ns);
	/* The line does not move, and another vCPU gets the same; unless the host took a millisecond in between. */
	do {
		u->version = 0;
		ns = pvclock_now(&vm);
		assert_int_equal(pvclock_write_time(&vm, &v, mem, 1000000, 2000000, false), 0);
		assert_int_equal(pvclock_write_time(&vm, &w, mem, 1000100, 2000000, false), 0);
	} while (pvclock_now(&vm) - ns > 500000);
	assert_int_equal(u->version, 2);
	assert_int_equal(u->tsc, t->tsc);
	assert_int_equal(u->system, t->system);
	assert_int_equal(u->mul, t->mul);
	/* GUEST_STOPPED stays until the guest clears it. */
	assert_int_equal(pvclock_write_time(&vm, &v, mem, 1000200, 2000000, true), 0);
	assert_int_equal(t->flags, 3);
	assert_int_equal(pvclock_write_time(&vm, &v, mem, 1000300, 2000000, false), 0);
	assert_int_equal(t->flags, 3);
	t->flags = 1;
	assert_int_equal(pvclock_write_time(&vm, &v, mem, 1000400, 2000000, false), 0);
	assert_int_equal(t->flags, 1);
	assert_int_equal(t->version & 1, 0);
	/* The clock set, the TSC set back or far ahead: a new line through now. */
	pvclock_set(&vm, 77000000000ull);
	assert_int_equal(pvclock_write_time(&vm, &v, mem, 1000500, 2000000, false), 0);
	assert_in_range(t->system, 77000000000ull, 77500000000ull);
	assert_int_equal(pvclock_write_time(&vm, &v, mem, 10, 2000000, false), 0);
	assert_int_equal(t->tsc, 10);
	assert_int_equal(pvclock_write_time(&vm, &v, mem, ~0ull, 2000000, false), 0);
	assert_int_equal(t->tsc, ~0ull);
	assert_in_range(guest_ns(t, t->tsc), 77000000000ull, 77500000000ull);
}

static void bad_time_page(void **state)
{
	struct pvclock_vm vm = { 0 };
	struct pvclock_vcpu v = { .msr = 0x1000 };

	(void)state;
	assert_int_equal(pvclock_write_time(&vm, &v, mem, 5, 1000, false), 0); /* off */
	for (unsigned i = 0; i < 32; i++)
		assert_int_equal(ram[0x1000 + i], 0);
	v.msr = 0x1001;
	assert_int_equal(pvclock_write_time(&vm, &v, mem, 5, 0, false), -EINVAL);
	v.msr = 0x4001;
	assert_int_equal(pvclock_write_time(&vm, &v, mem, 5, 1000, false), -EFAULT);
	v.msr = 0x3ff1; /* runs out of the slot */
	assert_int_equal(pvclock_write_time(&vm, &v, mem, 5, 1000, false), -EFAULT);
	v.msr = ~0ull;
	assert_int_equal(pvclock_write_time(&vm, &v, mem, 5, 1000, false), -EFAULT);
}

static void wall(void **state)
{
	struct pvclock_vm vm = { 0 };
	u32 *w = (void *)(ram + 0x100);
	struct timespec ts;

	(void)state;
	pvclock_set(&vm, 3600000000000ull);
	assert_int_equal(pvclock_write_wall(&vm, mem, 0x100), 0);
	clock_gettime(CLOCK_REALTIME, &ts);
	assert_int_equal(w[0], 2);
	assert_in_range(w[1] + 3600, (u64)ts.tv_sec - 2, (u64)ts.tv_sec + 1);
	assert_true(w[2] < 1000000000);
	assert_int_equal(pvclock_write_wall(&vm, mem, 0x100), 0);
	assert_int_equal(w[0], 4);
	assert_int_equal(pvclock_write_wall(&vm, mem, 0x5000), -EFAULT);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(scale), T(now_and_set), T(time_page), T(bad_time_page), T(wall),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

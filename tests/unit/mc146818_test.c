/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* CMOS clock: time in BCD, binary, 12 and 24 hours, setting it, memory sizes, index wrap. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "vmm/dev/bus.h"
#include "vmm/dev/mc146818.h"

static struct mc146818 rtc;
static struct bus *bus;
static s64 host_time;

static s64 now(void)
{
	return host_time;
}

static u8 get(u8 index)
{
	bus_write(bus, 0x70, 1, index);
	return (u8)bus_read(bus, 0x71, 1);
}

static void set(u8 index, u8 value)
{
	bus_write(bus, 0x70, 1, index);
	bus_write(bus, 0x71, 1, value);
}

static int setup(void **state)
{
	(void)state;
	bus = calloc(1, sizeof(*bus));
	host_time = 1709213589; /* Thu 2024-02-29 13:33:09 UTC */
	mc146818_init(&rtc, 3ull << 30, 5ull << 30, now);
	return bus_add(bus, &rtc.device);
}

static int teardown(void **state)
{
	(void)state;
	free(bus);
	return 0;
}

static void test_bcd(void **state)
{
	(void)state;
	assert_int_equal(get(0), 0x09);
	assert_int_equal(get(2), 0x33);
	assert_int_equal(get(4), 0x13);
	assert_int_equal(get(6), 5);
	assert_int_equal(get(7), 0x29);
	assert_int_equal(get(8), 0x02);
	assert_int_equal(get(9), 0x24);
	assert_int_equal(get(0x32), 0x20);
	assert_int_equal(get(0x0a) & 0x80, 0); /* no update in progress */
	assert_int_equal(get(0x0d), 0x80);
}

static void test_forms(void **state)
{
	(void)state;
	set(0x0b, 0x06); /* binary, 24 hours */
	assert_int_equal(get(4), 13);
	assert_int_equal(get(9), 24);
	set(0x0b, 0x04); /* binary, 12 hours */
	assert_int_equal(get(4), 0x81);
	set(0x0b, 0x00); /* BCD, 12 hours */
	host_time -= 13 * 3600;
	assert_int_equal(get(4), 0x12); /* midnight */
	host_time += 12 * 3600;
	assert_int_equal(get(4), 0x92); /* noon */
}

static void test_setting(void **state)
{
	(void)state;
	set(0x0b, 0x82); /* stopped */
	set(0, 0x58);
	set(2, 0x59);
	set(4, 0x23);
	set(7, 0x31);
	set(8, 0x12);
	set(9, 0x99);
	set(0x32, 0x19);
	host_time += 100;
	assert_int_equal(get(0), 0x58);
	set(0x0b, 0x02);
	host_time += 2;
	assert_int_equal(get(0), 0x00);
	assert_int_equal(get(9), 0x00);
	assert_int_equal(get(0x32), 0x20);
	assert_int_equal(get(7), 0x01);
}

static void test_memory(void **state)
{
	(void)state;
	assert_int_equal(get(0x15) | get(0x16) << 8, 640);
	assert_int_equal(get(0x17) | get(0x18) << 8, 0xffff);
	assert_int_equal(get(0x34) | get(0x35) << 8, (3072 - 16) * 16);
	assert_int_equal(get(0x5b) | get(0x5c) << 8 | get(0x5d) << 16, 5 * 1024 * 16);
}

static void test_index(void **state)
{
	(void)state;
	set(0x40, 0x77);
	assert_int_equal(get(0x40 | 0x80), 0x77); /* bit 7 masks NMI */
	assert_int_equal(bus_read(bus, 0x70, 1), 0xff);
	set(0x0d, 0);
	assert_int_equal(get(0x0d), 0x80); /* read-only */
}

/* Nonsense as a date must not break anything. */
static void test_random(void **state)
{
	(void)state;
	srand(1);
	for (unsigned i = 0; i < 200000; i++) {
		if (rand() & 1)
			set((u8)rand(), (u8)rand());
		else
			get((u8)rand());
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_bcd, setup, teardown),
		cmocka_unit_test_setup_teardown(test_forms, setup, teardown),
		cmocka_unit_test_setup_teardown(test_setting, setup, teardown),
		cmocka_unit_test_setup_teardown(test_memory, setup, teardown),
		cmocka_unit_test_setup_teardown(test_index, setup, teardown),
		cmocka_unit_test_setup_teardown(test_random, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

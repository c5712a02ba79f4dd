/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* 8254: counting in each mode, latches, port 0x61, the tick on GSI 0, images. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>
#include <time.h>

#include "virt/i8254.h"

static struct timers *ts;
static struct irqchip *chip;
static struct lapic *bsp;
static struct i8254 *pit;

static void sleep_ms(unsigned ms)
{
	struct timespec t = { 0, (long)ms * 1000000 };

	nanosleep(&t, NULL);
}

static void out(u16 port, u8 value)
{
	assert_int_equal(i8254_io(pit, port, &value, 1, true), 0);
}

static u8 in(u16 port)
{
	u8 value = 0xaa;

	assert_int_equal(i8254_io(pit, port, &value, 1, false), 0);
	return value;
}

static void on_eoi(void *owner, unsigned gsi)
{
	(void)owner;
	if (!gsi && pit)
		i8254_acked(pit);
}

static void on_unmask(void *owner, unsigned gsi)
{
	(void)owner;
	if (!gsi && pit)
		i8254_unmasked(pit);
}

static int setup(void **state)
{
	static const struct irq_ops ops = { .eoi = on_eoi, .unmask = on_unmask };

	(void)state;
	ts = timers_create();
	chip = irqchip_create(&ops, NULL, ts, true);
	bsp = lapic_create(chip, 0, 0, true);
	pit = i8254_create(chip, ts, true);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	i8254_destroy(pit);
	pit = NULL;
	lapic_destroy(bsp);
	irqchip_destroy(chip);
	timers_destroy(ts);
	return 0;
}

static int wait_tick(unsigned ms)
{
	u64 end = timer_now() + ms * 1000000ull;
	u8 eoi = 0x20;

	while (timer_now() < end) {
		int v;

		if (!lapic_pending(bsp))
			continue;
		v = lapic_ack(bsp);
		irqchip_io(chip, 0x20, &eoi, 1, true);
		return v;
	}
	return -1;
}

static void reset_values(void **state)
{
	struct kvm_pit_state2 s;

	(void)state;
	i8254_get(pit, &s);
	assert_int_equal(s.flags, 0);
	for (unsigned n = 0; n < 3; n++) {
		assert_int_equal(s.channels[n].count, 0x10000);
		assert_int_equal(s.channels[n].mode, 0xff);
		assert_int_equal(s.channels[n].gate, n != 2);
	}
	assert_int_equal(wait_tick(60), -1);
}

/* An image puts the load time in the past: what each mode shows after so many clocks. */
static void modes(void **state)
{
	static const struct {
		u8 mode;
		u32 count;
		unsigned clocks;
		u16 low, high; /* bounds of the count read */
		int out;       /* -1: depends on the moment */
	} rows[] = {
		{ 0, 0x10000, 0x1000, 0xe000, 0xf000, 0 },
		{ 0, 0x100, 0x200, 0xe000, 0xff00, 1 }, /* wraps and goes on */
		{ 1, 0x10000, 0x1000, 0xe000, 0xf000, 1 },
		{ 1, 0x100, 0x200, 0xe000, 0xff00, 0 },
		{ 2, 0x8000, 0x9000, 0x6000, 0x7000, 0 },
		{ 3, 0x8000, 0x1000, 0x5000, 0x6000, 1 },
		{ 3, 0x8000, 0x5000, 0x5000, 0x6000, 0 },
		{ 4, 0x10000, 0x1000, 0xe000, 0xf000, 0 },
		{ 5, 0x10000, 0x1000, 0xe000, 0xf000, 0 },
		{ 0xff, 0x10000, 0x1000, 0xe000, 0xf000, 0 },
	};

	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(rows); i++) {
		struct kvm_pit_state2 s;
		unsigned v;

		i8254_get(pit, &s);
		s.channels[2].mode = rows[i].mode;
		s.channels[2].count = rows[i].count;
		s.channels[2].rw_mode = s.channels[2].read_state = 3;
		s.channels[2].count_load_time =
			(s64)(timer_now() - rows[i].clocks * 1000000000ull / 1193182);
		i8254_set(pit, &s);
		assert_int_equal(in(0x61) >> 5 & 1, rows[i].out);
		v = in(0x42);
		v |= (unsigned)in(0x42) << 8;
		assert_in_range(v, rows[i].low, rows[i].high);
	}
}

static void latches(void **state)
{
	unsigned a, b;

	(void)state;
	out(0x43, 0x74); /* channel 1, word, mode 2 */
	out(0x41, 0);
	out(0x41, 0);
	sleep_ms(1);	 /* a fresh 0x10000 reads as 0 */
	out(0x43, 0x40); /* latch */
	a = in(0x41);
	a |= (unsigned)in(0x41) << 8;
	sleep_ms(2);
	out(0x43, 0xd4); /* read-back of the count */
	sleep_ms(2);
	out(0x43, 0x40); /* a second latch is ignored */
	b = in(0x41);
	b |= (unsigned)in(0x41) << 8;
	assert_true(b < a && a - b >= 2000);
	out(0x43, 0xc4); /* status and count */
	assert_int_equal(in(0x41) & 0x7f, 0x34);
	(void)in(0x41);
	(void)in(0x41);
	out(0x43, 0x54); /* LSB only, mode 2 */
	out(0x41, 100);
	out(0x43, 0xe4);
	assert_int_equal(in(0x41) & 0x7f, 0x14);
	assert_in_range(in(0x41), 1, 100);
	out(0x43, 0x6e); /* MSB only, mode 7 is 3 */
	out(0x41, 0x80);
	out(0x43, 0xe4);
	assert_int_equal(in(0x41) & 0x7f, 0x26);
	assert_in_range(in(0x41), 0x70, 0x80);
	out(0x43, 0xe0); /* read-back of no channel */
	assert_int_equal(in(0x43), 0);
}

/* As the guest kernel calibrates its TSC: mode 0 on channel 2, wait for OUT. */
static void speaker(void **state)
{
	u64 start;
	unsigned changes = 0;
	u8 last;

	(void)state;
	out(0x61, (in(0x61) & ~2) | 1);
	assert_int_equal(in(0x61) & 3, 1);
	out(0x43, 0xb0);
	out(0x42, 11932 & 0xff); /* 10 ms */
	out(0x42, 11932 >> 8);
	start = timer_now();
	while (!(in(0x61) & 0x20))
		;
	assert_in_range(timer_now() - start, 9500000, 60000000);
	last = in(0x61) & 0x10;
	for (start = timer_now(); timer_now() - start < 1000000;) {
		changes += (in(0x61) & 0x10) != last;
		last = in(0x61) & 0x10;
	}
	assert_true(changes > 5);
	out(0x61, 3);
	assert_int_equal(in(0x61) & 3, 3);
	out(0x61, 0);
	assert_int_equal(in(0x61) & 3, 0);
}

/* How many come without a pause: 40 when 200 ms are made up for, a few on a machine that is busy. */
static unsigned ticks_at_once(void)
{
	unsigned n = 0;

	while (n < 100 && !wait_tick(1))
		n++;
	return n;
}

/* How many come before half a second goes by without one. */
static unsigned ticks_until_silence(void)
{
	unsigned n = 0;

	while (n < 100 && !wait_tick(500))
		n++;
	return n;
}

static void ticks(void **state)
{
	u64 start;

	(void)state;
	i8254_reinject(pit, false);
	out(0x43, 0x34); /* channel 0, word, mode 2: 5 ms */
	start = timer_now();
	out(0x40, 5966 & 0xff);
	out(0x40, 5966 >> 8);
	for (unsigned i = 0; i < 5; i++)
		assert_int_equal(wait_tick(2000), 0);
	assert_true(timer_now() - start >= 25000000);
	sleep_ms(200); /* nothing piles up */
	assert_in_range(ticks_at_once(), 1, 10);
	out(0x43, 0x30);		      /* mode 0: once */
	assert_int_equal(wait_tick(2000), 0); /* the old count runs until a new one is written */
	out(0x40, 2386 & 0xff);
	out(0x40, 2386 >> 8);
	assert_in_range(ticks_until_silence(), 1, 2); /* a last old one, perhaps, and the new one */
	out(0x43, 0x3a);			      /* mode 5: no tick */
	out(0x40, 100);
	out(0x40, 0);
	assert_int_equal(wait_tick(5), -1);
	out(0x43, 0x14); /* one clock: limited */
	out(0x40, 1);
	sleep_ms(5);
	assert_int_equal(wait_tick(5), 0);
}

/* With reinjection, as KVM begins, the ticks that a guest slept over come one after the other. */
static void reinjection(void **state)
{
	u8 mask = 1;

	(void)state;
	out(0x43, 0x34);
	out(0x40, 5966 & 0xff);
	out(0x40, 5966 >> 8);
	sleep_ms(100);
	for (unsigned i = 0; i < 15; i++)
		assert_int_equal(wait_tick(1), 0);
	/* What was missed while it was masked is forgotten by unmasking it. */
	irqchip_io(chip, 0x21, &mask, 1, true);
	sleep_ms(200);
	mask = 0;
	irqchip_io(chip, 0x21, &mask, 1, true);
	assert_in_range(ticks_at_once(), 0, 10);
	/* Off: one, whatever was slept over. */
	i8254_reinject(pit, false);
	sleep_ms(200);
	assert_in_range(ticks_at_once(), 1, 10);
}

static void images(void **state)
{
	struct kvm_pit_state2 s;

	(void)state;
	i8254_get(pit, &s);
	s.channels[0].mode = 2;
	s.channels[0].count = 2386;
	s.flags = KVM_PIT_FLAGS_HPET_LEGACY;
	i8254_set(pit, &s);
	assert_int_equal(wait_tick(15), -1); /* the HPET has the tick */
	s.flags = 0;
	i8254_set(pit, &s);
	assert_int_equal(wait_tick(2000), 0);
	/* Garbage, a count of 0 among it, does no harm. */
	for (unsigned i = 0; i < 256; i++) {
		memset(&s, (int)i, sizeof(s));
		if (i & 1)
			s.channels[1].count = s.channels[2].count = 0;
		s.channels[1].mode = s.channels[2].mode = (u8)(i % 7);
		i8254_set(pit, &s);
		out(0x43, 0xc0 | (i & 0x3f));
		for (u16 port = 0x40; port < 0x44; port++)
			(void)in(port);
		(void)in(0x61);
		out((u16)(0x40 + i % 4), (u8)(i * 7));
	}
}

static void ports(void **state)
{
	struct i8254 *other = i8254_create(chip, ts, false);
	u32 v = ~0u;

	(void)state;
	assert_int_equal(i8254_io(pit, 0x44, &v, 1, false), 1);
	assert_int_equal(i8254_io(pit, 0x3f, &v, 1, true), 1);
	assert_int_equal(i8254_io(pit, 0x60, &v, 1, true), 1);
	assert_int_equal(i8254_io(pit, 0x40, &v, 4, false), 0);
	assert_int_equal(v >> 8, 0);
	assert_int_equal(i8254_io(other, 0x61, &v, 1, false), 1);
	i8254_destroy(other);
	i8254_destroy(NULL);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(reset_values), T(modes),	 T(latches), T(speaker),
		T(ticks),	 T(reinjection), T(images),  T(ports),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

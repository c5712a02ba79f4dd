/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Timers: order, stop, cancel against a running fire(), many timers, destruction. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>
#include <time.h>

#include "virt/timer.h"

#define MANY 200

struct probe {
	struct timer t;
	unsigned fired;
	u64 at;
	unsigned order;
	bool slow, again;
	unsigned running;
};

static unsigned order;

static void sleep_ms(unsigned ms)
{
	struct timespec t = { ms / 1000, (long)(ms % 1000) * 1000000 };

	nanosleep(&t, NULL);
}

static void on_fire(struct timer *t)
{
	struct probe *p = container_of(t, struct probe, t);

	__atomic_store_n(&p->running, 1, __ATOMIC_SEQ_CST);
	p->at = timer_now();
	p->order = ++order;
	if (p->slow)
		sleep_ms(30);
	if (p->again)
		timer_arm(t, timer_now() + 1000000);
	__atomic_fetch_add(&p->fired, 1, __ATOMIC_SEQ_CST);
	__atomic_store_n(&p->running, 0, __ATOMIC_SEQ_CST);
}

static unsigned fired(struct probe *p)
{
	return __atomic_load_n(&p->fired, __ATOMIC_SEQ_CST);
}

static void wait_fired(struct probe *p, unsigned n)
{
	for (unsigned i = 0; i < 5000 && fired(p) < n; i++)
		sleep_ms(1);
	assert_true(fired(p) >= n);
}

static void fires_in_order(void **state)
{
	static const unsigned ms[] = { 30, 10, 20, 40, 0 };
	struct timers *ts = timers_create();
	struct probe p[ARRAY_SIZE(ms)] = { 0 };
	u64 now = timer_now();

	(void)state;
	order = 0;
	for (unsigned i = 0; i < ARRAY_SIZE(ms); i++) {
		assert_int_equal(timer_init(&p[i].t, ts, on_fire), 0);
		timer_arm(&p[i].t, ms[i] ? now + ms[i] * 1000000ull : 0);
	}
	for (unsigned i = 0; i < ARRAY_SIZE(ms); i++) {
		wait_fired(&p[i], 1);
		assert_true(p[i].at >= now + ms[i] * 1000000ull);
		assert_int_equal(p[i].t.deadline, 0);
	}
	assert_true(p[4].order < p[1].order && p[1].order < p[2].order);
	assert_true(p[2].order < p[0].order && p[0].order < p[3].order);
	sleep_ms(5);
	for (unsigned i = 0; i < ARRAY_SIZE(ms); i++)
		assert_int_equal(fired(&p[i]), 1);
	timers_destroy(ts);
}

static void rearm_and_stop(void **state)
{
	struct timers *ts = timers_create();
	struct probe p = { 0 };
	u64 now = timer_now();

	(void)state;
	timer_init(&p.t, ts, on_fire);
	timer_arm(&p.t, now + 3600000000000ull);
	timer_arm(&p.t, now + 10000000); /* earlier than the thread sleeps for */
	wait_fired(&p, 1);
	timer_arm(&p.t, timer_now() + 20000000);
	timer_arm(&p.t, timer_now() + 3600000000000ull);
	sleep_ms(30);
	assert_int_equal(fired(&p), 1);
	timer_stop(&p.t);
	timer_stop(&p.t);
	timer_cancel(&p.t);
	assert_int_equal(p.t.deadline, 0);
	timers_destroy(ts);
}

static void cancel_waits(void **state)
{
	struct timers *ts = timers_create();
	struct probe p = { .slow = true, .again = true };
	int n;

	(void)state;
	timer_init(&p.t, ts, on_fire);
	timer_arm(&p.t, 1);
	while (!__atomic_load_n(&p.running, __ATOMIC_SEQ_CST))
		;
	timer_cancel(&p.t);
	assert_int_equal(p.running, 0);
	n = fired(&p);
	assert_true(n >= 1);
	sleep_ms(10);
	assert_int_equal(fired(&p), n); /* what fire() armed is gone too */
	timers_destroy(ts);
}

static void cancel_self_fire(struct timer *t)
{
	struct probe *p = container_of(t, struct probe, t);

	timer_arm(t, timer_now() + 1);
	timer_cancel(t); /* must not wait for itself */
	__atomic_fetch_add(&p->fired, 1, __ATOMIC_SEQ_CST);
}

static void cancel_from_fire(void **state)
{
	struct timers *ts = timers_create();
	struct probe p = { 0 };

	(void)state;
	timer_init(&p.t, ts, cancel_self_fire);
	timer_arm(&p.t, 1);
	wait_fired(&p, 1);
	sleep_ms(5);
	assert_int_equal(fired(&p), 1);
	timers_destroy(ts);
}

/* Random arms, stops and re-arms: every armed timer fires once, never early. */
static void many(void **state)
{
	struct timers *ts = timers_create();
	struct probe *p = calloc(MANY, sizeof(*p));
	u64 due[MANY];

	(void)state;
	srand(7);
	for (unsigned i = 0; i < MANY; i++)
		timer_init(&p[i].t, ts, on_fire);
	for (unsigned n = 0; n < 20000; n++) {
		unsigned i = (unsigned)rand() % MANY;

		if (rand() % 3)
			timer_arm(&p[i].t, timer_now() + 3600000000000ull + (u64)rand());
		else
			timer_stop(&p[i].t);
	}
	for (unsigned i = 0; i < MANY; i++) {
		due[i] = timer_now() + (u64)(rand() % 50) * 1000000;
		timer_arm(&p[i].t, due[i]);
	}
	for (unsigned i = 0; i < MANY; i++) {
		wait_fired(&p[i], 1);
		assert_true(p[i].at >= due[i]);
		assert_int_equal(fired(&p[i]), 1);
	}
	timers_destroy(ts);
	free(p);
}

static void destroy_armed(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 100; i++) {
		struct timers *ts = timers_create();
		struct probe p = { 0 };

		timer_init(&p.t, ts, on_fire);
		timer_arm(&p.t, timer_now() + 1000000000);
		timers_destroy(ts);
		assert_int_equal(p.fired, 0);
	}
	timers_destroy(timers_create()); /* no thread was ever made */
	timers_destroy(NULL);
}

/* Sleeping costs nothing. */
static void idle_cost(void **state)
{
	struct timers *ts = timers_create();
	struct probe p = { 0 };
	struct timespec a, b;
	u64 ns;

	(void)state;
	timer_init(&p.t, ts, on_fire);
	timer_arm(&p.t, timer_now() + 1000000000000ull);
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &a);
	sleep_ms(200);
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &b);
	ns = (u64)(b.tv_sec - a.tv_sec) * 1000000000ull + (u64)b.tv_nsec - (u64)a.tv_nsec;
	assert_true(ns < 4000000);
	timers_destroy(ts);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(fires_in_order), cmocka_unit_test(rearm_and_stop),
		cmocka_unit_test(cancel_waits),	  cmocka_unit_test(cancel_from_fire),
		cmocka_unit_test(many),		  cmocka_unit_test(destroy_armed),
		cmocka_unit_test(idle_cost),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

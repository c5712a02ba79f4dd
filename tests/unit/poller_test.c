/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The poller: wakes, keeps watches apart, and a removed watch is never called again. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "virt/poller.h"

#define MANY   40
#define ROUNDS 500

struct probe {
	struct poll_watch w;
	int fd;
	u32 calls, alive;
	u32 slow;
};

static void nap_us(unsigned us)
{
	struct timespec t = { 0, us * 1000l };

	nanosleep(&t, NULL);
}

static void on_ready(struct poll_watch *w)
{
	struct probe *p = container_of(w, struct probe, w);
	u64 n;

	assert_true(__atomic_load_n(&p->alive, __ATOMIC_SEQ_CST));
	assert_int_equal(read(p->fd, &n, sizeof(n)), sizeof(n));
	if (p->slow)
		nap_us(20000);
	assert_true(__atomic_load_n(&p->alive, __ATOMIC_SEQ_CST));
	__atomic_add_fetch(&p->calls, 1, __ATOMIC_SEQ_CST);
}

static void probe_add(struct poller *poller, struct probe *p)
{
	*p = (struct probe){ .fd = eventfd(0, 0), .alive = 1 };
	assert_int_equal(poller_add(poller, &p->w, p->fd, on_ready), 0);
}

static void probe_remove(struct probe *p)
{
	poller_remove(&p->w);
	__atomic_store_n(&p->alive, 0, __ATOMIC_SEQ_CST);
}

static void set(struct probe *p)
{
	u64 one = 1;

	assert_int_equal(write(p->fd, &one, sizeof(one)), sizeof(one));
}

static void wait_calls(struct probe *p, u32 n)
{
	for (unsigned i = 0; i < 5000 && __atomic_load_n(&p->calls, __ATOMIC_SEQ_CST) < n; i++)
		nap_us(1000);
	assert_int_equal(__atomic_load_n(&p->calls, __ATOMIC_SEQ_CST), n);
}

static void many_watches(void **state)
{
	struct poller *poller = poller_create();
	static struct probe p[MANY];

	(void)state;
	for (unsigned i = 0; i < MANY; i++)
		probe_add(poller, &p[i]);
	for (unsigned i = 0; i < MANY; i += 2)
		set(&p[i]);
	for (unsigned i = 0; i < MANY; i += 2)
		wait_calls(&p[i], 1);
	for (unsigned i = 0; i < MANY; i++) {
		assert_int_equal(p[i].calls, !(i & 1));
		probe_remove(&p[i]);
		close(p[i].fd);
	}
	poller_destroy(poller);
}

/* Removed while it is called, and between the event and the call. */
static void remove_waits(void **state)
{
	struct poller *poller = poller_create();
	struct probe p;

	(void)state;
	for (unsigned i = 0; i < ROUNDS; i++) {
		probe_add(poller, &p);
		p.slow = i == 0;
		set(&p);
		if (i == 0)
			nap_us(5000);
		probe_remove(&p);
		close(p.fd);
	}
	/* Nothing is left of the last one; a new one in its place is served. */
	probe_add(poller, &p);
	set(&p);
	wait_calls(&p, 1);
	probe_remove(&p);
	close(p.fd);
	poller_destroy(poller);
}

static void bad_descriptors(void **state)
{
	struct poller *poller = poller_create();
	struct poll_watch w;

	(void)state;
	assert_int_equal(poller_add(poller, &w, -1, on_ready), -EBADF);
	poller_remove(&w);
	poller_destroy(poller);
	poller_destroy(poller_create());
	poller_destroy(NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(many_watches),
		cmocka_unit_test(remove_waits),
		cmocka_unit_test(bad_descriptors),
	};

	return cmocka_run_group_tests_name("poller", tests, NULL, NULL);
}

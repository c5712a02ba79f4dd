// SPDX-License-Identifier: MIT OR Apache-2.0
/* Thread workloads: hand-overs through a futex, and atomic operations on shared words. */
#include <linux/futex.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "gbench.h"

static unsigned long count;

static _Atomic uint32_t turn __attribute__((aligned(64)));

static void futex(int op, uint32_t value)
{
	syscall(SYS_futex, &turn, op | FUTEX_PRIVATE_FLAG, value, NULL, NULL, 0);
}

/* Wait for the own turn, then give it to the other; the sum of what was seen comes back. */
static uint64_t take_turns(uint32_t me)
{
	uint64_t seen = 0;

	for (unsigned long n = 0; n < count; n++) {
		uint32_t t;

		while (((t = atomic_load(&turn)) & 1) != me)
			futex(FUTEX_WAIT, t);
		seen = mix(seen, t);
		atomic_store(&turn, t + 1);
		futex(FUTEX_WAKE, 1);
	}
	return seen;
}

static void *other_turns(void *result)
{
	*(uint64_t *)result = take_turns(1);
	return NULL;
}

static uint64_t futex_run(unsigned long reps)
{
	uint64_t mine, theirs = 0;
	pthread_t thread;

	count = reps / 2;
	if (pthread_create(&thread, NULL, other_turns, &theirs))
		bench_fail("pthread_create");
	mine = take_turns(0);
	pthread_join(thread, NULL);
	return mix(mine, theirs);
}

static _Atomic uint64_t shared_sum __attribute__((aligned(64)));
static _Atomic uint64_t shared_max __attribute__((aligned(64)));
static _Atomic uint32_t shared_lock __attribute__((aligned(64)));
static uint64_t locked_sum;

/* Fetch-and-add, compare-and-swap, and one in 16 times a lock that yields. */
static void atomics(uint64_t step)
{
	for (unsigned long n = 1; n <= count; n++) {
		uint64_t max = atomic_load(&shared_max);

		atomic_fetch_add(&shared_sum, n * step);
		while (max < n && !atomic_compare_exchange_weak(&shared_max, &max, n))
			;
		if (n & 15)
			continue;
		while (atomic_exchange(&shared_lock, 1))
			syscall(SYS_sched_yield);
		locked_sum += n ^ step;
		atomic_store(&shared_lock, 0);
	}
}

static void *other_atomics(void *arg)
{
	(void)arg;
	atomics(3);
	return NULL;
}

static uint64_t atomic_run(unsigned long reps)
{
	pthread_t thread;

	count = reps;
	if (pthread_create(&thread, NULL, other_atomics, NULL))
		bench_fail("pthread_create");
	atomics(5);
	pthread_join(thread, NULL);
	return mix(mix(shared_sum, shared_max), locked_sum);
}

const struct workload thread_works[] = {
	{ .name = "thr.futex", .run = futex_run, .reps = 80000, .flags = WORK_SMP },
	{ .name = "thr.atomic", .run = atomic_run, .reps = 10000000, .flags = WORK_SMP },
	{ 0 },
};

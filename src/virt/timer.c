/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Timers of a VM: an intrusive pairing heap and the one thread that sleeps until its minimum. */
#define _GNU_SOURCE
#include "virt/timer.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <time.h>

#include "base/thread.h"

/*
 * The heap is intrusive, so that arming a timer, which a guest does all the time, never allocates.
 * The thread is woken only when a new minimum is earlier than the time it sleeps for: a guest
 * that moves its deadline further away costs no wake-up.
 */
struct timers {
	pthread_mutex_t lock;
	pthread_cond_t wake; /* the minimum became earlier, or stop */
	pthread_cond_t done; /* running became NULL */
	struct timer *root;
	struct timer *running; /* its fire() is being called */
	u64 sleep_until;       /* 0: awake */
	bool started, stop;
	pthread_t thread;
};

u64 timer_now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (u64)ts.tv_sec * 1000000000ull + (u64)ts.tv_nsec;
}

/* Join two heaps; the root with the earlier deadline wins. */
static struct timer *heap_meld(struct timer *a, struct timer *b)
{
	struct timer *t;

	if (!a)
		return b;
	if (!b)
		return a;
	if (b->deadline < a->deadline) {
		t = a;
		a = b;
		b = t;
	}
	b->prev = a;
	b->next = a->child;
	if (b->next)
		b->next->prev = b;
	a->child = b;
	return a;
}

/* Join a list of siblings in pairs, then the pairs from the last to the first. */
static struct timer *heap_meld_siblings(struct timer *list)
{
	struct timer *pairs = NULL, *root = NULL;

	while (list) {
		struct timer *a = list, *b = a->next;

		list = b ? b->next : NULL;
		a->next = a->prev = NULL;
		if (b)
			b->next = b->prev = NULL;
		a = heap_meld(a, b);
		a->next = pairs;
		pairs = a;
	}
	while (pairs) {
		struct timer *a = pairs;

		pairs = a->next;
		a->next = NULL;
		root = heap_meld(root, a);
	}
	return root;
}

static void heap_remove(struct timers *ts, struct timer *t)
{
	struct timer *rest = heap_meld_siblings(t->child);

	t->child = NULL;
	if (t == ts->root) {
		ts->root = rest;
	} else {
		if (t->prev->child == t)
			t->prev->child = t->next;
		else
			t->prev->next = t->next;
		if (t->next)
			t->next->prev = t->prev;
		ts->root = heap_meld(ts->root, rest);
	}
	t->next = t->prev = NULL;
	t->deadline = 0;
}

static void heap_sleep(struct timers *ts)
{
	struct timespec until;

	if (!ts->root) {
		ts->sleep_until = ~0ull;
		pthread_cond_wait(&ts->wake, &ts->lock);
	} else {
		ts->sleep_until = ts->root->deadline;
		until.tv_sec = (time_t)(ts->sleep_until / 1000000000ull);
		until.tv_nsec = (long)(ts->sleep_until % 1000000000ull);
		pthread_cond_timedwait(&ts->wake, &ts->lock, &until);
	}
	ts->sleep_until = 0;
}

static void *timers_thread(void *arg)
{
	struct timers *ts = arg;

	prctl(PR_SET_TIMERSLACK, 1ul, 0ul, 0ul, 0ul); /* the default of 50 us is a guest's jitter */
	pthread_mutex_lock(&ts->lock);
	while (!ts->stop) {
		struct timer *t = ts->root;

		if (!t || t->deadline > timer_now()) {
			heap_sleep(ts);
			continue;
		}
		heap_remove(ts, t);
		ts->running = t;
		pthread_mutex_unlock(&ts->lock);
		t->fire(t);
		pthread_mutex_lock(&ts->lock);
		ts->running = NULL;
		pthread_cond_broadcast(&ts->done);
	}
	pthread_mutex_unlock(&ts->lock);
	return NULL;
}

struct timers *timers_create(void)
{
	struct timers *ts = calloc(1, sizeof(*ts));
	pthread_condattr_t attr;

	if (!ts)
		return NULL;
	pthread_mutex_init(&ts->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&ts->wake, &attr);
	pthread_cond_init(&ts->done, NULL);
	pthread_condattr_destroy(&attr);
	return ts;
}

void timers_destroy(struct timers *ts)
{
	if (!ts)
		return;
	if (ts->started) {
		pthread_mutex_lock(&ts->lock);
		ts->stop = true;
		pthread_cond_signal(&ts->wake);
		pthread_mutex_unlock(&ts->lock);
		pthread_join(ts->thread, NULL);
	}
	pthread_cond_destroy(&ts->done);
	pthread_cond_destroy(&ts->wake);
	pthread_mutex_destroy(&ts->lock);
	free(ts);
}

static int timers_start(struct timers *ts)
{
	int err;

	err = thread_start(&ts->thread, timers_thread, ts);
	if (err)
		return -err;
	pthread_setname_np(ts->thread, "anykvm-timer");
	ts->started = true;
	return 0;
}

int timer_init(struct timer *t, struct timers *ts, void (*fire)(struct timer *t))
{
	int err = 0;

	*t = (struct timer){ .owner = ts, .fire = fire };
	pthread_mutex_lock(&ts->lock);
	if (!ts->started)
		err = timers_start(ts);
	pthread_mutex_unlock(&ts->lock);
	return err;
}

void timer_arm(struct timer *t, u64 deadline_ns)
{
	struct timers *ts = t->owner;

	pthread_mutex_lock(&ts->lock);
	if (t->deadline)
		heap_remove(ts, t);
	t->deadline = deadline_ns ? deadline_ns : 1;
	ts->root = heap_meld(ts->root, t);
	if (ts->root == t && t->deadline < ts->sleep_until)
		pthread_cond_signal(&ts->wake);
	pthread_mutex_unlock(&ts->lock);
}

void timer_stop(struct timer *t)
{
	struct timers *ts = t->owner;

	pthread_mutex_lock(&ts->lock);
	if (t->deadline)
		heap_remove(ts, t);
	pthread_mutex_unlock(&ts->lock);
}

void timer_cancel(struct timer *t)
{
	struct timers *ts = t->owner;
	bool self;

	pthread_mutex_lock(&ts->lock);
	self = ts->started && pthread_equal(pthread_self(), ts->thread);
	/* fire() may have armed the timer again by the time it is done. */
	while (t->deadline || (ts->running == t && !self)) {
		if (t->deadline)
			heap_remove(ts, t);
		else
			pthread_cond_wait(&ts->done, &ts->lock);
	}
	pthread_mutex_unlock(&ts->lock);
}

/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Slowing the processors that write. */
#include "vmm/move/throttle.h"

#include <errno.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/thread.h"
#include "vmm/stats.h"

#define SLICE_US 10000u
#define RUN_US                                                                                     \
	1000u /* at least, of a slice: shorter runs would be lengthened by the way in and out */
#define FIRST	    20u
#define STEP	    15u
#define LAST	    99u
#define COUNTER	    "dirty_records"
#define FEW_DIVISOR 16u /* who wrote less than this part of what the busiest wrote is no writer */

void throttle_init(struct throttle *t, struct control *control)
{
	memset(t, 0, sizeof(*t));
	t->control = control;
}

/* The higher the percentage, the longer the slice. */
static unsigned slice_us(const struct throttle *t)
{
	const unsigned least = RUN_US * 100 / (100 - atomic_load(&t->percent));

	return least > SLICE_US ? least : SLICE_US;
}

static void slice(struct throttle *t, const struct control_machine *m)
{
	const unsigned us = slice_us(t) / 100 * atomic_load(&t->percent);

	for (unsigned i = 0; i < m->config->cpus; i++)
		if (atomic_load(&t->is_writer[i]))
			gate_nap(&t->control->gate, i, us);
	t->control->ops.kick(t->control->ops.owner);
}

static void *throttle_thread(void *argument)
{
	struct throttle *t = argument;

	while (!atomic_load(&t->stopped)) {
		const struct control_machine *m = control_hold(t->control);

		if (m) {
			if (control_is_running(t->control))
				slice(t, m);
			control_release(t->control);
		}
		nanosleep(&(struct timespec){ 0, slice_us(t) * 1000l }, NULL);
	}
	return NULL;
}

void throttle_stop(struct throttle *t)
{
	if (t->has_thread) {
		atomic_store(&t->stopped, true);
		pthread_join(t->thread, NULL);
		t->has_thread = false;
	}
	while (t->count)
		if (t->fds[--t->count] >= 0)
			close(t->fds[t->count]);
}

int throttle_raise(struct throttle *t, struct why *why)
{
	const unsigned was = atomic_load(&t->percent), next = was ? was + STEP : FIRST;
	int r;

	atomic_store(&t->percent, next < LAST ? next : LAST);
	if (t->has_thread)
		return 0;
	r = thread_start(&t->thread, throttle_thread, t);
	t->has_thread = r == 0;
	return r ? why_set(why, r, "cannot start a thread: %s", strerror(r)) : 0;
}

/* A processor that runs would make this wait. */
void throttle_prepare(struct throttle *t, const struct control_machine *m)
{
	for (; t->count < m->config->cpus; t->count++)
		t->fds[t->count] = kvmdev_ioctl(m->dev, m->cpus[t->count]->fd, KVM_GET_STATS_FD, 0);
}

void throttle_look(struct throttle *t, const struct control_machine *m)
{
	const struct timespec moment = { 0, 1000000 };
	u64 most = 0, now[VMM_MAX_CPUS], wrote[VMM_MAX_CPUS];
	bool is_counted = t->count == m->config->cpus;

	/* Counters are told when a processor comes out. */
	t->control->ops.kick(t->control->ops.owner);
	nanosleep(&moment, NULL);
	for (unsigned i = 0; i < m->config->cpus && is_counted; i++) {
		is_counted = t->fds[i] >= 0 && stats_read(t->fds[i], COUNTER, &now[i]);
		wrote[i] = is_counted ? now[i] - t->writes[i] : 0;
		most = wrote[i] > most ? wrote[i] : most;
	}
	for (unsigned i = 0; i < m->config->cpus; i++) {
		atomic_store(&t->is_writer[i], !is_counted || wrote[i] >= most / FEW_DIVISOR + 1);
		if (is_counted)
			t->writes[i] = now[i];
	}
}

/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Where the processors of a running machine spend their time. */
/*
 * Lock order: control, then the sampler's lock. The thread lives from the first question to the end of the VM, and sleeps when
 * nobody has asked for a while, so that a client that dies leaves nothing running.
 */
#include "vmm/sampler.h"

#include <errno.h>
#include <string.h>
#include <time.h>

#include "base/thread.h"

#define PERIOD_NS 1000000u
#define JITTER_NS 200000u

static u64 now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (u64)t.tv_sec * 1000000000u + (u64)t.tv_nsec;
}

/* Not in step with anything periodic in the guest. */
static void pause_a_little(u32 *seed)
{
	struct timespec t = { 0, 0 };

	*seed = *seed * 1664525u + 1013904223u;
	t.tv_nsec = PERIOD_NS - JITTER_NS / 2 + (*seed >> 8) % JITTER_NS;
	nanosleep(&t, NULL);
}

static void machine_watch(const struct control_machine *m, bool on)
{
	kvmdev_watch(m->dev, m->machine->fd, on);
}

/* Control is held. */
static void sample(struct sampler *s, const struct control_machine *m)
{
	if (s->machine != s->control->machines) {
		memset(s->count, 0, sizeof(s->count));
		s->samples = 0;
		s->machine = s->control->machines;
		machine_watch(m, true);
	}
	for (unsigned i = 0; i < m->config->cpus; i++) {
		const int where = kvmdev_where(m->dev, m->cpus[i]->fd);

		if (where >= 0 && where < (int)SAMPLER_PLACES)
			s->count[i][where]++;
	}
	s->samples++;
}

static void sample_once(struct sampler *s)
{
	const struct control_machine *m = control_hold(s->control);

	if (!m)
		return;
	pthread_mutex_lock(&s->lock);
	sample(s, m);
	pthread_mutex_unlock(&s->lock);
	control_release(s->control);
}

static void watch(struct sampler *s, bool on)
{
	const struct control_machine *m = control_hold(s->control);

	if (!m)
		return;
	machine_watch(m, on);
	control_release(s->control);
}

/* Whether to go on; waits while nobody asks. */
static bool is_asked(struct sampler *s)
{
	bool goes_on;

	pthread_mutex_lock(&s->lock);
	if (!s->stopped && now_ns() >= s->until) {
		pthread_mutex_unlock(&s->lock);
		watch(s, false);
		pthread_mutex_lock(&s->lock);
		while (!s->stopped && now_ns() >= s->until)
			pthread_cond_wait(&s->changed, &s->lock);
		pthread_mutex_unlock(&s->lock);
		watch(s, true);
		pthread_mutex_lock(&s->lock);
	}
	goes_on = !s->stopped;
	pthread_mutex_unlock(&s->lock);
	return goes_on;
}

static void *sampler_thread(void *argument)
{
	struct sampler *s = argument;
	u32 seed = (u32)now_ns();

	while (is_asked(s)) {
		sample_once(s);
		pause_a_little(&seed);
	}
	return NULL;
}

void sampler_init(struct sampler *s, struct control *control)
{
	memset(s, 0, sizeof(*s));
	s->control = control;
	pthread_mutex_init(&s->lock, NULL);
	pthread_cond_init(&s->changed, NULL);
}

void sampler_destroy(struct sampler *s)
{
	if (!s->control)
		return;
	pthread_mutex_lock(&s->lock);
	s->stopped = true;
	pthread_cond_signal(&s->changed);
	pthread_mutex_unlock(&s->lock);
	if (s->has_thread)
		pthread_join(s->thread, NULL);
	pthread_cond_destroy(&s->changed);
	pthread_mutex_destroy(&s->lock);
	memset(s, 0, sizeof(*s));
}

static int sampler_begin(struct sampler *s)
{
	int r;

	if (s->has_thread)
		return 0;
	r = thread_start(&s->thread, sampler_thread, s);
	s->has_thread = r == 0;
	return r;
}

static int go_on(struct sampler *s, unsigned ms, struct why *why)
{
	const u64 until = now_ns() + ms * 1000000ull;
	int r;

	if (!ms)
		return 0;
	pthread_mutex_lock(&s->lock);
	r = sampler_begin(s);
	if (r == 0 && until > s->until)
		s->until = until;
	pthread_cond_signal(&s->changed);
	pthread_mutex_unlock(&s->lock);
	return r ? why_set(why, r, "cannot start the sampler: %s", strerror(r)) : 0;
}

static void counter_add(void *object, const char *name, unsigned long value)
{
	json_object_set_new(object, name, json_integer((json_int_t)value));
}

static json_t *counters_new(const struct kvmdev *dev, int fd)
{
	json_t *object = json_object();

	kvmdev_counters(dev, fd, counter_add, object);
	return object;
}

static json_t *where_new(const struct sampler *s, unsigned cpu, bool is_known)
{
	json_t *object = json_object();

	for (int i = 0; is_known && i < (int)SAMPLER_PLACES && kvmdev_where_name(i); i++)
		if (s->count[cpu][i])
			counter_add(object, kvmdev_where_name(i), s->count[cpu][i]);
	return object;
}

/* Control is held. */
static json_t *report_new(struct sampler *s, const struct control_machine *m)
{
	json_t *cpus = json_array(), *report;
	bool is_known;

	pthread_mutex_lock(&s->lock);
	is_known = s->machine == s->control->machines;
	for (unsigned i = 0; i < m->config->cpus; i++)
		json_array_append_new(cpus,
				      json_pack("{s:o,s:o}", "where", where_new(s, i, is_known),
						"counters", counters_new(m->dev, m->cpus[i]->fd)));
	report = json_pack("{s:I,s:f,s:I,s:o,s:o}", "machine", (json_int_t)s->control->machines,
			   "seconds", (double)now_ns() / 1e9, "samples",
			   (json_int_t)(is_known ? s->samples : 0), "counters",
			   counters_new(m->dev, m->machine->fd), "cpus", cpus);
	pthread_mutex_unlock(&s->lock);
	return report;
}

int sampler_report(struct sampler *s, unsigned ms, json_t **out, struct why *why)
{
	const struct control_machine *m;
	int r = go_on(s, ms, why);

	if (r < 0)
		return r;
	m = control_hold(s->control);
	if (!m)
		return why_set(why, EBUSY,
			       "the machine is ending or starting again; ask once more");
	*out = report_new(s, m);
	control_release(s->control);
	return *out ? 0 : why_set(why, ENOMEM, "no memory for the counters");
}

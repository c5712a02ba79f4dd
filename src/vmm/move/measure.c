/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* How fast a machine writes to its memory, and where. */
#include "vmm/move/measure.h"

#include <string.h>
#include <time.h>

#include "vmm/move/pages.h"

#define SLICE_MS 20u /* a cancelled job ends after so long */

void measure_init(struct measure *m)
{
	memset(m, 0, sizeof(*m));
	pthread_mutex_init(&m->lock, NULL);
}

void measure_destroy(struct measure *m)
{
	pthread_mutex_destroy(&m->lock);
}

/* What was written since the last time, which is forgotten. */
static void round_fill(struct measure_round *r, struct pages *p)
{
	const u64 low = p->m->ram->low >> PAGE_SHIFT;

	for (u64 page = 0; (page = pages_take(p, page)) < p->count; page++) {
		r->pages[page >= low]++;
		r->heat[page * MEASURE_COLUMNS / p->count]++;
	}
}

/* 0, or -errno with one line. */
static int harvest(struct move_job *j, struct pages *p, struct measure_round *r, struct why *why)
{
	s64 n;

	if (!control_hold(j->control))
		return job_ended(why);
	n = pages_harvest(p, why);
	if (n >= 0)
		round_fill(r, p);
	control_release(j->control);
	return n < 0 ? (int)n : 0;
}

static int wait_for(struct move_job *j, u64 until_us, struct why *why)
{
	int r = 0;

	while (r == 0 && move_now_us() < until_us) {
		const u64 left = until_us - move_now_us();
		const u64 us = left < SLICE_MS * 1000 ? left : SLICE_MS * 1000;
		const struct timespec t = { 0, (long)us * 1000 };

		nanosleep(&t, NULL);
		r = job_is_cancelled(j, why);
	}
	return r;
}

static int rounds_run(struct move_job *j, struct measure *m, struct pages *p, struct why *why)
{
	struct measure_round ignored = { 0 };
	int r = harvest(j, p, &ignored, why); /* all pages */
	u64 since = move_now_us();

	while (r == 0 && m->done < m->wanted) {
		struct measure_round round = { 0 };

		r = wait_for(j, since + m->interval_ms * 1000ull, why);
		if (r == 0)
			r = harvest(j, p, &round, why);
		if (r < 0)
			break;
		round.seconds = (double)(move_now_us() - since) / 1e6;
		since = move_now_us();
		pthread_mutex_lock(&m->lock);
		m->round[m->done++] = round;
		pthread_mutex_unlock(&m->lock);
	}
	return r;
}

int measure_run(struct move_job *j, struct why *why)
{
	struct measure *m = j->options.measure;
	const struct control_machine *machine = control_hold(j->control);
	struct pages pages;
	int r;

	if (!machine)
		return job_ended(why);
	r = pages_start(&pages, machine, false, why);
	if (r == 0) {
		pthread_mutex_lock(&m->lock);
		m->slot_pages[0] = machine->ram->low >> PAGE_SHIFT;
		m->slot_pages[1] = machine->ram->high >> PAGE_SHIFT;
		pthread_mutex_unlock(&m->lock);
	}
	control_release(j->control);
	if (r < 0)
		return r;
	r = rounds_run(j, m, &pages, why);
	/* The machine may be gone: then its log is, too. */
	if (control_hold(j->control)) {
		pages_stop(&pages);
		control_release(j->control);
		return r;
	}
	pages.m = NULL;
	pages_stop(&pages);
	return r;
}

static json_t *round_new(const struct measure_round *r)
{
	json_t *heat = json_array();

	for (unsigned i = 0; i < MEASURE_COLUMNS; i++)
		json_array_append_new(heat, json_integer(r->heat[i]));
	return json_pack("{s:f,s:[I,I],s:o}", "seconds", r->seconds, "pages",
			 (json_int_t)r->pages[0], (json_int_t)r->pages[1], "heat", heat);
}

json_t *measure_report(struct measure *m)
{
	json_t *rounds = json_array(), *report;

	pthread_mutex_lock(&m->lock);
	for (unsigned i = 0; i < m->done; i++)
		json_array_append_new(rounds, round_new(&m->round[i]));
	report = json_pack("{s:i,s:[{s:I},{s:I}],s:o}", "wanted", (int)m->wanted, "slots", "pages",
			   (json_int_t)m->slot_pages[0], "pages", (json_int_t)m->slot_pages[1],
			   "rounds", rounds);
	pthread_mutex_unlock(&m->lock);
	return report;
}

/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* A snapshot of a machine that runs: its memory is written while it does, and what it wrote last is copied while it stands. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/move/job.h"
#include "vmm/move/pages.h"
#include "vmm/move/snapshot.h"

#define ROUNDS_MAX  12u
#define COPY_PAGES  2048u /* so few are copied in a moment */
#define HELD_PAGES  1024u /* between two looks whether the machine is still there */
#define SPARE_PAGES 4096u

struct take {
	struct move_job *job;
	struct pages pages;
	struct snapshot_writer writer;
	char *description;
	struct control_state state;
	struct snapshot_identity base;
	bool began_to_follow;
	u64 *copied; /* numbers of the last pages */
	u8 *copies;
	u64 copied_count, copy_room;
};

/* The machine may end between two calls. */
static const struct control_machine *hold(struct take *t, struct why *why)
{
	const struct control_machine *m =
		job_is_cancelled(t->job, why) < 0 ? NULL : control_hold(t->job->control);

	if (!m && !atomic_load(&t->job->cancelled))
		job_ended(why);
	return m;
}

/* The base is a whole snapshot, and the one since which this machine knows what it wrote. */
static int base_check(struct take *t, const struct follow *f, struct why *why)
{
	const char *path = t->job->options.base;
	struct snapshot base;
	int r;

	if (!f->written)
		return why_set(why, EINVAL,
			       "what this VM has written since '%.200s' is not known; take the "
			       "base with --follow",
			       path);
	r = snapshot_open(&base, path, why);
	if (r < 0)
		return r;
	t->base = snapshot_identity_of(&base);
	snapshot_close(&base);
	if (memcmp(t->base.identity, f->identity, sizeof(f->identity)) == 0 &&
	    t->base.crc == f->crc)
		return 0;
	return why_set(why, EINVAL,
		       "what this VM has written is known since '%.200s', not since '%.200s'",
		       f->path, path);
}

static int begin(struct take *t, struct why *why)
{
	const bool is_increment = t->job->options.base[0];
	const struct control_machine *m = hold(t, why);
	int r;

	if (!m)
		return -ECANCELED;
	r = control_movable(t->job->control, why);
	if (r == 0) {
		t->description = description_write(m, why);
		r = t->description ? 0 : -EIO;
	}
	if (r == 0)
		r = is_increment ? base_check(t, m->follow, why) : 0;
	if (r == 0)
		r = snapshot_begin(&t->writer, t->job->options.target, m->ram->size,
				   is_increment ? &t->base : NULL, t->job->options.base, why);
	if (r == 0)
		r = pages_start(&t->pages, m, is_increment, why);
	control_release(t->job->control);
	return r;
}

/* Write some of what is to be taken from *@page on. */
static int some_write(struct take *t, u64 *page, struct move_round *round, struct why *why)
{
	const u8 *data;
	int r = 0;

	if (!hold(t, why))
		return -ECANCELED;
	for (unsigned i = 0; i < HELD_PAGES && r == 0; i++) {
		*page = pages_take(&t->pages, *page);
		if (*page == t->pages.count)
			break;
		data = page_at(&t->pages, *page, why);
		r = data ? snapshot_page(&t->writer, *page, data, why) : -EIO;
		round->pages++;
		(*page)++;
	}
	control_release(t->job->control);
	return r;
}

static s64 harvest(struct take *t, struct why *why)
{
	s64 left;

	if (!hold(t, why))
		return -ECANCELED;
	left = pages_harvest(&t->pages, why);
	control_release(t->job->control);
	return left;
}

static s64 round_write(struct take *t, struct why *why)
{
	struct move_round round = { .pages = 0 };
	const u64 start = move_now_us(), bytes = t->writer.bytes;
	u64 page = 0;
	s64 left;
	int r = 0;

	while (page < t->pages.count && r == 0)
		r = some_write(t, &page, &round, why);
	left = r < 0 ? r : harvest(t, why);
	if (left < 0)
		return left;
	round.us = move_now_us() - start;
	round.bytes = t->writer.bytes - bytes;
	round.zero_pages = round.pages - round.bytes / PAGE_SIZE;
	round.left = (u64)left;
	job_round(t->job, &round);
	return left;
}

/* Room for more than was left: the machine writes on until it stands. */
static int room_make(struct take *t, u64 left, struct why *why)
{
	t->copy_room = left + SPARE_PAGES;
	t->copied = malloc(t->copy_room * sizeof(u64));
	t->copies = malloc(t->copy_room * PAGE_SIZE);
	if (!t->copied || !t->copies)
		return why_set(why, ENOMEM, "no memory for the last pages of the snapshot");
	/* Touched now: not while the machine stands. */
	memset(t->copies, 0, t->copy_room * PAGE_SIZE);
	return 0;
}

/* The machine stands. What does not fit into the copies is written at once. */
static int last_copy(struct take *t, struct why *why)
{
	const s64 left = pages_harvest(&t->pages, why);
	u64 page = 0;
	int r = left < 0 ? (int)left : 0;

	while (r == 0 && (page = pages_take(&t->pages, page)) < t->pages.count) {
		const u8 *data = page_at(&t->pages, page, why);

		if (!data) {
			r = -EIO;
		} else if (t->copied_count < t->copy_room) {
			memcpy(t->copies + t->copied_count * PAGE_SIZE, data, PAGE_SIZE);
			t->copied[t->copied_count++] = page;
		} else {
			r = snapshot_page(&t->writer, page, data, why);
		}
	}
	return r;
}

/* The machine stands: what it writes from here on is followed, if it was not before. */
static int follow_now(struct take *t, struct why *why)
{
	const struct control_machine *m = t->pages.m;

	if (!t->job->options.follow || m->follow->written)
		return 0;
	t->began_to_follow = follow_begin(m->follow, t->pages.count);
	return t->began_to_follow ? 0 : why_set(why, ENOMEM, "no memory for the pages to follow");
}

/*
 * The file is there: what was taken out of the log up to the moment when the machine stood is in it, and nothing was taken out
 * since. If it failed, what was followed before goes on to be.
 */
static void follow_settle(struct take *t, bool is_whole)
{
	const struct control_machine *m = control_hold(t->job->control);
	const struct move_options *o = &t->job->options;
	struct why why;

	if (!m)
		return;
	if (is_whole && m->follow->written && (o->follow || o->base[0])) {
		memset(m->follow->written, 0,
		       ((m->ram->size >> PAGE_SHIFT) + 63) / 64 * sizeof(u64));
		memcpy(m->follow->identity, t->writer.identity.identity, SNAPSHOT_IDENTITY);
		m->follow->crc = t->writer.identity.crc;
		snprintf(m->follow->path, sizeof(m->follow->path), "%s", o->target);
	} else if (!is_whole && t->began_to_follow) {
		follow_end(m->follow);
		machine_log_dirty(m->machine, false, &why);
	}
	control_release(t->job->control);
}

int snapshot_follow(const struct control_machine *m, const struct snapshot *s, struct why *why)
{
	const struct snapshot_identity id = snapshot_identity_of(s);
	int r = machine_log_dirty(m->machine, true, why);

	if (r < 0)
		return r;
	if (!follow_begin(m->follow, m->ram->size >> PAGE_SHIFT))
		return why_set(why, ENOMEM, "no memory for the pages to follow");
	memcpy(m->follow->identity, id.identity, SNAPSHOT_IDENTITY);
	m->follow->crc = id.crc;
	snprintf(m->follow->path, sizeof(m->follow->path), "%s", s->path);
	return 0;
}

static int still(struct take *t, struct why *why)
{
	struct move_info *info = &t->job->info;
	struct control *control = t->job->control;
	const u64 start = move_now_us();
	struct why again;
	u64 stopped, copied;
	int r;

	if (!hold(t, why))
		return -ECANCELED;
	r = control_stop(control, GATE_MOVE, why);
	if (r < 0) {
		control_release(control);
		return r;
	}
	stopped = move_now_us();
	r = last_copy(t, why);
	if (r == 0)
		r = follow_now(t, why);
	copied = move_now_us();
	if (r == 0)
		r = control_save(control, &t->state, why);
	info->stop_us = stopped - start;
	info->last_us = copied - stopped;
	info->state_us = move_now_us() - copied;
	if (control_go(control, GATE_MOVE, r < 0 ? &again : why) < 0)
		r = -EIO;
	info->downtime_us = move_now_us() - start;
	pages_stop(&t->pages);
	control_release(control);
	return r;
}

static int take_all(struct take *t, struct why *why)
{
	s64 left = COPY_PAGES + 1;
	int r = begin(t, why);

	for (unsigned i = 0; r == 0 && i < ROUNDS_MAX && left > COPY_PAGES; i++) {
		left = round_write(t, why);
		r = left < 0 ? (int)left : 0;
	}
	if (r == 0)
		r = room_make(t, (u64)left, why);
	if (r == 0)
		r = still(t, why);
	for (u64 i = 0; i < t->copied_count && r == 0; i++)
		r = snapshot_page(&t->writer, t->copied[i], t->copies + i * PAGE_SIZE, why);
	if (r == 0)
		r = job_is_cancelled(t->job, why);
	if (r == 0)
		r = snapshot_end(&t->writer, t->description, t->state.data, t->state.size, why);
	return r;
}

int snapshot_take(struct move_job *j, struct why *why)
{
	struct take *t = calloc(1, sizeof(*t));
	int r;

	if (!t)
		return why_set(why, ENOMEM, "no memory for a snapshot");
	t->job = j;
	r = take_all(t, why);
	follow_settle(t, r == 0);
	snapshot_abort(&t->writer);
	/* The machine may be gone: then its log is, too. */
	if (!control_hold(j->control))
		t->pages.m = NULL;
	else if (t->pages.m) {
		pages_stop(&t->pages);
		control_release(j->control);
	} else {
		control_release(j->control);
	}
	pages_stop(&t->pages);
	free(t->description);
	free(t->state.data);
	free(t->copied);
	free(t->copies);
	free(t);
	return r;
}

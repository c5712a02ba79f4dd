/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Sending a machine that runs: rounds of what it has written, until the rest fits into the downtime; then the commit exchange. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "vmm/move/describe.h"
#include "vmm/move/digest.h"
#include "vmm/move/job.h"
#include "vmm/move/pages.h"
#include "vmm/move/throttle.h"
#include "vmm/move/uri.h"
#include "vmm/move/wire.h"

#define HELD_PAGES                                                                                 \
	128u /* between two looks whether the machine is still there; others wait meanwhile */
#define ZERO_RANGES  2048u /* of one frame */
#define FEW_PAGES    64u   /* another round gains nothing */
#define FIXED_US     4000u /* of the downtime: stopping, state, commit */
#define FORCE_ROUNDS 200u

struct zero_range {
	u64 first, count;
};

struct send {
	struct move_job *job;
	struct pages pages;
	struct wire wire;
	struct throttle throttle;
	struct control_state state;
	u8 *batch; /* numbers and pages, as in a frame */
	unsigned batch_count;
	struct zero_range *zeros;
	unsigned zero_count;
	struct move_round round;    /* under way */
	u64 round_start, link_rate; /* bytes per second, of the last round */
	unsigned stuck;		    /* rounds in a row that did not help */
	bool is_last;		    /* no limit of the bandwidth */
	u8 digest[SHA256_BYTES];
};

static const struct control_machine *hold(struct send *s, struct why *why)
{
	const struct control_machine *m =
		job_is_cancelled(s->job, why) < 0 ? NULL : control_hold(s->job->control);

	if (!m && !atomic_load(&s->job->cancelled))
		job_ended(why);
	return m;
}

/* Sleep as long as the round is ahead of the bandwidth that it may use. */
static void bandwidth_keep(const struct send *s)
{
	const u64 limit = s->job->options.max_bandwidth;
	const u64 due = limit ? s->round.bytes * 1000000u / limit : 0;
	const u64 spent = move_now_us() - s->round_start;

	if (s->is_last || due <= spent)
		return;
	nanosleep(&(struct timespec){ (time_t)((due - spent) / 1000000u),
				      (long)((due - spent) % 1000000u) * 1000l },
		  NULL);
}

static int frame_send(struct send *s, enum frame_type type, const void *data, size_t n,
		      struct why *why)
{
	s->round.bytes += n;
	return wire_send(&s->wire, type, data, n, why);
}

static int batch_flush(struct send *s, struct why *why)
{
	const size_t n = s->batch_count;
	u8 *numbers = s->batch + (WIRE_PAGES - n) * 8;
	int r;

	if (!n)
		return 0;
	/* The numbers lie before the pages, without a gap. */
	memmove(numbers, s->batch, n * 8);
	s->batch_count = 0;
	r = frame_send(s, FRAME_PAGES, numbers, n * (8 + PAGE_SIZE), why);
	return r;
}

static int zeros_flush(struct send *s, struct why *why)
{
	const size_t n = s->zero_count * sizeof(*s->zeros);

	s->zero_count = 0;
	return n ? frame_send(s, FRAME_ZEROS, s->zeros, n, why) : 0;
}

static int zero_add(struct send *s, u64 page, struct why *why)
{
	struct zero_range *last = s->zeros + s->zero_count - 1;

	s->round.zero_pages++;
	if (s->zero_count && last->first + last->count == page) {
		last->count++;
		return 0;
	}
	s->zeros[s->zero_count++] = (struct zero_range){ page, 1 };
	return s->zero_count == ZERO_RANGES ? zeros_flush(s, why) : 0;
}

/* Copied first: the guest may write to it, and then it comes again, but the checksum is of what is sent. */
static int page_add(struct send *s, u64 page, struct why *why)
{
	const u8 *data = page_at(&s->pages, page, why);

	if (!data)
		return -EIO;
	s->round.pages++;
	if (page_is_zero(data))
		return zero_add(s, page, why);
	memcpy(s->batch + s->batch_count * 8, &page, 8);
	memcpy(s->batch + WIRE_PAGES * 8 + s->batch_count * PAGE_SIZE, data, PAGE_SIZE);
	return ++s->batch_count == WIRE_PAGES ? batch_flush(s, why) : 0;
}

/* Some of what is to be sent from *@page on; held. */
static int some_send(struct send *s, u64 *page, struct why *why)
{
	int r = 0;

	for (unsigned i = 0; i < HELD_PAGES && r == 0; i++) {
		*page = pages_take(&s->pages, *page);
		if (*page == s->pages.count)
			break;
		r = page_add(s, *page, why);
		(*page)++;
	}
	return r;
}

static void round_begin(struct send *s)
{
	memset(&s->round, 0, sizeof(s->round));
	s->round.throttle = atomic_load(&s->throttle.percent);
	s->round_start = move_now_us();
}

static int rest_flush(struct send *s, struct why *why)
{
	int r = batch_flush(s, why);

	return r < 0 ? r : zeros_flush(s, why);
}

/* All that is to be sent, and the answer that it has arrived; the pages that were written meanwhile. */
static s64 round_send(struct send *s, struct why *why)
{
	u64 page = 0;
	s64 left;
	int r = 0;

	round_begin(s);
	while (page < s->pages.count && r == 0) {
		if (!hold(s, why))
			return -ECANCELED;
		r = some_send(s, &page, why);
		control_release(s->job->control);
		bandwidth_keep(s);
	}
	if (r == 0)
		r = rest_flush(s, why);
	if (r == 0)
		r = wire_send(&s->wire, FRAME_ROUND, NULL, 0, why);
	if (r == 0)
		r = wire_expect(&s->wire, FRAME_ROUND_DONE, why);
	if (r < 0)
		return r;
	if (!hold(s, why))
		return -ECANCELED;
	left = pages_harvest(&s->pages, why);
	control_release(s->job->control);
	if (left < 0)
		return left;
	s->round.us = move_now_us() - s->round_start + 1;
	s->round.left = (u64)left;
	/* A round of next to nothing says nothing about the link. */
	if (s->round.bytes > 65536 || !s->link_rate)
		s->link_rate = s->round.bytes * 1000000u / s->round.us + 1;
	s->job->info.expected_downtime_us =
		FIXED_US + s->round.left * PAGE_SIZE * 1000000u / s->link_rate;
	job_round(s->job, &s->round);
	return left;
}

/* Two rounds in a row that left as much as they sent: those who write are slowed, more each time. */
static int convergence_look(struct send *s, struct why *why)
{
	const u64 sent = s->round.pages - s->round.zero_pages;
	const struct control_machine *m;
	int r = 0;

	s->stuck = s->round.left * 10 > sent * 7 ? s->stuck + 1 : 0;
	if (!s->stuck)
		return 0;
	m = hold(s, why);
	if (!m)
		return -ECANCELED;
	if (s->throttle.count < m->config->cpus) {
		r = control_stop(s->job->control, GATE_MOVE, why);
		if (r == 0) {
			throttle_prepare(&s->throttle, m);
			r = control_go(s->job->control, GATE_MOVE, why);
		}
	}
	if (r == 0)
		throttle_look(&s->throttle, m);
	control_release(s->job->control);
	if (r == 0 && s->stuck >= 2)
		r = throttle_raise(&s->throttle, why);
	return r;
}

/* 1: stop now. */
static int is_time(struct send *s, s64 left, unsigned rounds, struct why *why)
{
	const struct move_options *o = &s->job->options;

	if (s->job->info.expected_downtime_us <= o->downtime_us || left <= FEW_PAGES)
		return 1;
	if (!o->timeout_us || move_now_us() - s->job->started_us < o->timeout_us)
		return o->force && rounds >= FORCE_ROUNDS;
	if (o->force)
		return 1;
	return why_set(why, ETIME,
		       "it does not converge in time: %.1f MiB are left, and the downtime would be "
		       "%.0f ms; give more --downtime or --timeout, or --timeout-do force",
		       (double)left / 256, (double)s->job->info.expected_downtime_us / 1e3);
}

static int rounds_send(struct send *s, struct why *why)
{
	unsigned rounds = 0;
	int r = 0;

	while (r == 0) {
		const s64 left = round_send(s, why);

		if (left < 0)
			return (int)left;
		r = is_time(s, left, ++rounds, why);
		if (r == 0 && rounds > 1)
			r = convergence_look(s, why);
	}
	return r < 0 ? r : 0;
}

static int hello(struct send *s, struct why *why)
{
	const struct control_machine *m = hold(s, why);
	char *text = NULL;
	int r;

	if (!m)
		return -ECANCELED;
	r = control_movable(s->job->control, why);
	if (r == 0) {
		text = description_write(m, why);
		r = text ? 0 : -EIO;
	}
	control_release(s->job->control);
	if (r == 0)
		r = wire_send(&s->wire, FRAME_HELLO, text, strlen(text), why);
	free(text);
	if (r == 0)
		r = wire_expect(&s->wire, FRAME_WELCOME, why);
	if (r < 0)
		return r;
	m = hold(s, why);
	if (!m)
		return -ECANCELED;
	r = pages_start(&s->pages, m, false, why);
	control_release(s->job->control);
	return r;
}

/* The SHA-256 of both sides, one after the other: it belongs to no downtime. */
static u64 digests_us(const struct send *s, u64 here)
{
	u64 there = 0;

	if (s->wire.size == sizeof(there))
		memcpy(&there, s->wire.data, sizeof(there));
	return here + there;
}

/* The machine stands, held: the rest of memory and all state, until the other side has put it into its machine. */
static int last_send(struct send *s, struct why *why)
{
	struct move_info *info = &s->job->info;
	const u64 start = move_now_us();
	s64 left = pages_harvest(&s->pages, why);
	u64 page = 0, verified = 0, sent, answered;
	int r = left < 0 ? (int)left : 0;

	s->is_last = true;
	round_begin(s);
	while (page < s->pages.count && r == 0)
		r = some_send(s, &page, why);
	if (r == 0)
		r = rest_flush(s, why);
	sent = move_now_us();
	info->last_us = sent - start;
	if (r == 0)
		r = devices_settle(s->pages.m->devices, why);
	if (r == 0)
		r = control_save(s->job->control, &s->state, why);
	if (r == 0)
		r = wire_send(&s->wire, FRAME_STATE, s->state.data, s->state.size, why);
	if (r == 0 && s->job->options.verify) {
		verified = move_now_us();
		r = ram_digest(s->pages.m->ram, s->digest, why);
		verified = move_now_us() - verified;
	}
	if (r == 0)
		r = wire_send(&s->wire, FRAME_END, s->digest,
			      s->job->options.verify ? SHA256_BYTES : 0, why);
	if (r == 0)
		r = wire_expect(&s->wire, FRAME_READY, why);
	answered = move_now_us() - sent;
	if (r == 0 && s->job->options.verify)
		verified = digests_us(s, verified);
	info->state_us = answered > verified ? answered - verified : 0;
	s->round.us = move_now_us() - start;
	job_round(s->job, &s->round);
	return r;
}

/* Point of no return: nothing that is said or not said makes this side run again, but a person. */
static int commit(struct send *s, struct why *why)
{
	struct control *control = s->job->control;
	const u64 start = move_now_us();
	struct why cut;
	int r;

	if (job_commit(s->job, why) < 0)
		return -ECANCELED;
	gate_close(&control->gate, GATE_UNRESOLVED);
	devices_release_disks(s->pages.m->devices);
	r = wire_send(&s->wire, FRAME_COMMIT, NULL, 0, &cut);
	if (r == 0)
		r = wire_expect(&s->wire, FRAME_RUNNING, &cut);
	s->job->info.commit_us = move_now_us() - start;
	if (r == 0)
		return 0;
	why_set(why, EINPROGRESS,
		"%.100s in the commit exchange: the machine stands here, and may run there; if it "
		"does, 'anykvm migrate --resolve discard NAME', if it does not, '--resolve run'",
		cut.text);
	return -EINPROGRESS;
}

static int still(struct send *s, struct why *why)
{
	struct control *control = s->job->control;
	struct move_info *info = &s->job->info;
	struct why again;
	u64 start;
	int r;

	throttle_stop(&s->throttle);
	if (!hold(s, why))
		return -ECANCELED;
	devices_flush(s->pages.m->devices);
	start = move_now_us();
	r = control_stop(control, GATE_MOVE, why);
	info->stop_us = move_now_us() - start;
	if (r == 0) {
		r = last_send(s, why);
		if (r == 0)
			r = commit(s, why);
		info->downtime_us =
			info->stop_us + info->last_us + info->state_us + info->commit_us;
		if (r == 0)
			control->ops.end(control->ops.owner, VM_MOVED);
		else
			control_go(control, GATE_MOVE, &again);
		if (s->job->options.verify)
			digest_text(s->digest, info->sha256);
	}
	pages_stop(&s->pages);
	control_release(control);
	return r;
}

static int send_all(struct send *s, struct why *why)
{
	int fd = uri_connect(s->job->options.target, why);
	int r;

	if (fd < 0)
		return fd;
	wire_init(&s->wire, fd);
	job_socket(s->job, fd);
	throttle_init(&s->throttle, s->job->control);
	s->batch = malloc(WIRE_PAGES * (8 + PAGE_SIZE));
	s->zeros = malloc(ZERO_RANGES * sizeof(*s->zeros));
	r = s->batch && s->zeros ? hello(s, why)
				 : why_set(why, ENOMEM, "no memory for a migration");
	if (r == 0)
		r = rounds_send(s, why);
	if (r == 0)
		r = still(s, why);
	throttle_stop(&s->throttle);
	job_socket(s->job, -1);
	wire_close(&s->wire);
	return r;
}

int migration_send(struct move_job *j, struct why *why)
{
	struct send *s = calloc(1, sizeof(*s));
	int r;

	if (!s)
		return why_set(why, ENOMEM, "no memory for a migration");
	s->job = j;
	s->wire.fd = -1;
	r = send_all(s, why);
	if (r < 0 && r != -EINPROGRESS && job_is_cancelled(j, why) < 0)
		r = -ECANCELED;
	/* The machine may be gone: then its log is, too. */
	if (control_hold(j->control)) {
		pages_stop(&s->pages);
		control_release(j->control);
	}
	s->pages.m = NULL;
	pages_stop(&s->pages);
	free(s->state.data);
	free(s->batch);
	free(s->zeros);
	free(s);
	return r;
}

/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* A snapshot or a migration of this machine under way. */
#include "vmm/move/job.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#include "base/thread.h"

static const char *const status_names[] = {
	[MOVE_NONE] = "none",	  [MOVE_ACTIVE] = "active",	  [MOVE_COMPLETED] = "completed",
	[MOVE_FAILED] = "failed", [MOVE_CANCELLED] = "cancelled", [MOVE_UNRESOLVED] = "unresolved",
};

u64 move_now_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (u64)t.tv_sec * 1000000u + (u64)t.tv_nsec / 1000u;
}

void job_init(struct move_job *j, struct control *control,
	      void (*told)(void *owner, const char *event), void *owner)
{
	memset(j, 0, sizeof(*j));
	j->control = control;
	j->told = told;
	j->owner = owner;
	j->socket = -1;
	pthread_mutex_init(&j->lock, NULL);
	pthread_mutex_init(&j->api, NULL);
}

void job_destroy(struct move_job *j)
{
	job_join(j);
	pthread_mutex_destroy(&j->api);
	pthread_mutex_destroy(&j->lock);
}

int job_ended(struct why *why)
{
	return why_set(why, ECANCELED, "the machine ended or was reset");
}

int job_is_cancelled(struct move_job *j, struct why *why)
{
	return atomic_load(&j->cancelled) ? why_set(why, ECANCELED, "it was cancelled") : 0;
}

/* -EINPROGRESS: nobody knows which side runs. */
static void finish(struct move_job *j, int r, const struct why *why)
{
	pthread_mutex_lock(&j->lock);
	j->info.total_us = move_now_us() - j->started_us;
	j->info.status = r == 0		     ? MOVE_COMPLETED
			 : r == -EINPROGRESS ? MOVE_UNRESOLVED
			 : r == -ECANCELED   ? MOVE_CANCELLED
					     : MOVE_FAILED;
	if (r < 0)
		snprintf(j->info.error, sizeof(j->info.error), "%s", why->text);
	pthread_mutex_unlock(&j->lock);
	j->told(j->owner, "MIGRATION");
}

static void *job_thread(void *argument)
{
	struct move_job *j = argument;
	struct why why = { "" };
	const int r = j->run(j, &why);

	finish(j, r, &why);
	return NULL;
}

static int job_begin(struct move_job *j)
{
	int r;

	r = thread_start(&j->thread, job_thread, j);
	j->has_thread = r == 0;
	return r;
}

static void join_locked(struct move_job *j)
{
	if (!j->has_thread)
		return;
	if (job_status(j) == MOVE_ACTIVE)
		job_cancel(j);
	pthread_join(j->thread, NULL);
	j->has_thread = false;
}

static int start_locked(struct move_job *j, const char *kind,
			int (*run)(struct move_job *j, struct why *why),
			const struct move_options *options, struct why *why)
{
	const enum move_status status = job_status(j);
	int r;

	if (status == MOVE_ACTIVE)
		return why_set(why, EBUSY, "a %s is under way", j->info.kind);
	if (status == MOVE_UNRESOLVED)
		return why_set(why, EBUSY, "the last migration is not resolved");
	join_locked(j);
	j->options = *options;
	j->run = run;
	j->started_us = move_now_us();
	atomic_store(&j->cancelled, false);
	pthread_mutex_lock(&j->lock);
	memset(&j->info, 0, sizeof(j->info));
	j->info.status = MOVE_ACTIVE;
	snprintf(j->info.kind, sizeof(j->info.kind), "%s", kind);
	pthread_mutex_unlock(&j->lock);
	r = job_begin(j);
	if (r)
		j->info.status = MOVE_NONE;
	return r ? why_set(why, r, "cannot start a thread: %s", strerror(r)) : 0;
}

int job_start(struct move_job *j, const char *kind, int (*run)(struct move_job *j, struct why *why),
	      const struct move_options *options, struct why *why)
{
	int r;

	pthread_mutex_lock(&j->api);
	r = start_locked(j, kind, run, options, why);
	pthread_mutex_unlock(&j->api);
	return r;
}

void job_cancel(struct move_job *j)
{
	pthread_mutex_lock(&j->lock);
	atomic_store(&j->cancelled, true);
	if (j->socket >= 0)
		shutdown(j->socket, SHUT_RDWR);
	pthread_mutex_unlock(&j->lock);
}

void job_socket(struct move_job *j, int fd)
{
	pthread_mutex_lock(&j->lock);
	j->socket = fd;
	pthread_mutex_unlock(&j->lock);
}

int job_commit(struct move_job *j, struct why *why)
{
	int r;

	pthread_mutex_lock(&j->lock);
	r = job_is_cancelled(j, why);
	j->socket = -1;
	pthread_mutex_unlock(&j->lock);
	return r;
}

void job_join(struct move_job *j)
{
	pthread_mutex_lock(&j->api);
	join_locked(j);
	pthread_mutex_unlock(&j->api);
}

enum move_status job_status(struct move_job *j)
{
	enum move_status status;

	pthread_mutex_lock(&j->lock);
	status = j->info.status;
	pthread_mutex_unlock(&j->lock);
	return status;
}

void job_resolve(struct move_job *j, const char *text)
{
	pthread_mutex_lock(&j->lock);
	j->info.status = MOVE_FAILED;
	snprintf(j->info.error, sizeof(j->info.error), "%s", text);
	pthread_mutex_unlock(&j->lock);
	j->told(j->owner, "MIGRATION");
}

void job_round(struct move_job *j, const struct move_round *round)
{
	pthread_mutex_lock(&j->lock);
	j->info.round[j->info.rounds++ % MOVE_ROUNDS] = *round;
	j->info.pages += round->pages;
	j->info.zero_pages += round->zero_pages;
	j->info.bytes += round->bytes;
	pthread_mutex_unlock(&j->lock);
}

static json_t *number(u64 value)
{
	return json_integer((json_int_t)value);
}

static json_t *milliseconds(u64 us)
{
	return json_real((double)us / 1e3);
}

static json_t *rounds_report(const struct move_info *i)
{
	const unsigned first = i->rounds > MOVE_ROUNDS ? i->rounds - MOVE_ROUNDS : 0;
	json_t *list = json_array();

	for (unsigned n = first; n < i->rounds; n++) {
		const struct move_round *r = &i->round[n % MOVE_ROUNDS];
		const double seconds = r->us ? (double)r->us / 1e6 : 1e-6;
		const double page = (double)PAGE_SIZE;

		json_array_append_new(
			list, json_pack("{s:i,s:I,s:I,s:I,s:f,s:I,s:f,s:f,s:i}", "round",
					(int)n + 1, "pages", (json_int_t)r->pages, "zero-pages",
					(json_int_t)r->zero_pages, "bytes", (json_int_t)r->bytes,
					"ms", (double)r->us / 1e3, "left-bytes",
					(json_int_t)(r->left * PAGE_SIZE), "dirty-rate",
					(double)r->left * page / seconds, "link-rate",
					(double)r->bytes / seconds, "throttle", (int)r->throttle));
	}
	return list;
}

json_t *job_report(struct move_job *j)
{
	json_t *root = json_object();
	struct move_info i;

	pthread_mutex_lock(&j->lock);
	i = j->info;
	pthread_mutex_unlock(&j->lock);
	json_object_set_new(root, "status", json_string(status_names[i.status]));
	if (i.status == MOVE_NONE)
		return root;
	json_object_set_new(root, "kind", json_string(i.kind));
	if (i.error[0])
		json_object_set_new(root, "error-desc", json_string(i.error));
	json_object_set_new(root, "pages", number(i.pages));
	json_object_set_new(root, "zero-pages", number(i.zero_pages));
	json_object_set_new(root, "bytes", number(i.bytes));
	json_object_set_new(
		root, "total-ms",
		milliseconds(i.status == MOVE_ACTIVE ? move_now_us() - j->started_us : i.total_us));
	json_object_set_new(root, "expected-downtime-ms", milliseconds(i.expected_downtime_us));
	json_object_set_new(root, "downtime-ms", milliseconds(i.downtime_us));
	json_object_set_new(root, "downtime",
			    json_pack("{s:f,s:f,s:f,s:f}", "stop-ms", (double)i.stop_us / 1e3,
				      "last-pages-ms", (double)i.last_us / 1e3, "state-ms",
				      (double)i.state_us / 1e3, "commit-ms",
				      (double)i.commit_us / 1e3));
	json_object_set_new(root, "rounds", rounds_report(&i));
	if (i.sha256[0])
		json_object_set_new(root, "sha256", json_string(i.sha256));
	return root;
}

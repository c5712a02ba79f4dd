/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* A snapshot or a migration of this machine under way: one thread, at most one at a time, and what is told of it. */
#ifndef VMM_MOVE_JOB_H
#define VMM_MOVE_JOB_H

#include <jansson.h>
#include <pthread.h>
#include <stdatomic.h>

#include "vmm/control.h"

struct measure;

enum move_status {
	MOVE_NONE,
	MOVE_ACTIVE,
	MOVE_COMPLETED,
	MOVE_FAILED,
	MOVE_CANCELLED,
	MOVE_UNRESOLVED, /* cut in the commit exchange: the other side may run */
};

#define MOVE_ROUNDS 64u /* that are told one by one */

struct move_round {
	u64 pages, zero_pages, bytes, us;
	u64 left;     /* pages that were written meanwhile */
	u32 throttle; /* percent of the time that writing processors slept */
};

struct move_info {
	enum move_status status;
	char kind[12];			      /* "snapshot", "migration" */
	char error[400];		      /* of a failed one */
	unsigned rounds;		      /* done */
	struct move_round round[MOVE_ROUNDS]; /* the last of them, by number modulo */
	u64 pages, zero_pages, bytes;	      /* in all */
	u64 total_us, expected_downtime_us;
	u64 downtime_us; /* from the first processor that is asked to stop until one side runs; of it: */
	u64 stop_us, last_us, state_us, commit_us;
	char sha256[65]; /* of all memory, if asked for */
};

struct move_options {
	char target[4096]; /* a path, a URI */
	u64 max_bandwidth; /* bytes per second; 0: none */
	u64 downtime_us;
	u64 timeout_us;	 /* 0: none */
	char base[4096]; /* of a snapshot that is an increment; empty: it is whole */
	bool follow;	 /* of a snapshot: an increment to it will come */
	bool force;	 /* after the timeout: stop the machine; else cancel */
	bool verify;
	struct measure *measure; /* of measure_run() */
};

struct move_job {
	struct control *control;
	void (*told)(void *owner, const char *event); /* status changes; any thread */
	void *owner;
	pthread_mutex_t api;  /* starts and ends of the thread */
	pthread_mutex_t lock; /* info */
	struct move_info info;
	struct move_options options;
	int (*run)(struct move_job *j, struct why *why);
	pthread_t thread;
	bool has_thread;
	atomic_bool cancelled;
	int socket; /* to be shut down on cancel; -1: none; under lock */
	u64 started_us;
};

void job_init(struct move_job *j, struct control *control,
	      void (*told)(void *owner, const char *event), void *owner);
void job_destroy(struct move_job *j);

/* 0, or -EBUSY when one is under way, with one line. */
int job_start(struct move_job *j, const char *kind, int (*run)(struct move_job *j, struct why *why),
	      const struct move_options *options, struct why *why);

/* Ask it to end, unless it has committed. */
void job_cancel(struct move_job *j);
void job_join(struct move_job *j); /* cancel, and wait */

json_t *job_report(struct move_job *j);
enum move_status job_status(struct move_job *j);

/* For the thread. */
void job_socket(struct move_job *j, int fd); /* -1: it will be closed */
int job_commit(struct move_job *j,
	       struct why *why); /* not to be cancelled any more; -ECANCELED: it was */
void job_round(struct move_job *j, const struct move_round *round);
u64 move_now_us(void);
int job_ended(struct why *why); /* the machine is gone: -ECANCELED with one line */
int job_is_cancelled(struct move_job *j, struct why *why); /* 0 or -ECANCELED with one line */

/* Runs of a job. */
int snapshot_take(struct move_job *j, struct why *why);
int migration_send(struct move_job *j, struct why *why);

/* After MOVE_UNRESOLVED: what was decided. */
void job_resolve(struct move_job *j, const char *text);

#endif

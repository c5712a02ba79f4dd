/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* How fast a machine writes to its memory, and where: a dirty log that is taken in rounds, and nothing is moved. */
#ifndef VMM_MOVE_MEASURE_H
#define VMM_MOVE_MEASURE_H

#include "vmm/move/job.h"

#define MEASURE_ROUNDS	120u
#define MEASURE_COLUMNS 256u /* equal parts of memory */
#define MEASURE_SLOTS	2u   /* below and above the hole */

struct measure_round {
	double seconds;
	u64 pages[MEASURE_SLOTS];
	u32 heat[MEASURE_COLUMNS]; /* pages that were written */
};

struct measure {
	pthread_mutex_t lock;
	unsigned interval_ms, wanted, done;
	u64 slot_pages[MEASURE_SLOTS];
	struct measure_round round[MEASURE_ROUNDS];
};

void measure_init(struct measure *m);
void measure_destroy(struct measure *m);

/* A run of a job, with options.measure. The machine goes on meanwhile; no migration and no snapshot can. */
int measure_run(struct move_job *j, struct why *why);

/* { "wanted": n, "slots": [{"pages": n}], "rounds": [{"seconds": s, "pages": [n], "heat": [n...]}] } */
json_t *measure_report(struct measure *m);

#endif

/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* What is told at the end of a VM: how it ended, and counters. */
#ifndef VMM_REPORT_H
#define VMM_REPORT_H

#include "vmm/config.h"
#include "vmm/exits.h"

struct report {
	u64 started_ns;
	u64 counts[EXIT_REASONS]; /* of all machines up to now */
	u64 signals;
	u64 mmio_unclaimed;
	unsigned resets;
};

void report_start(struct report *r, u64 started_ns); /* CLOCK_MONOTONIC; 0: now */
void report_add(struct report *r, const struct exits *x);

double report_seconds(const struct report *r); /* since the start */

/* The last lines on stderr; returns the exit status of the process. */
int report_finish(const struct report *r, const struct vmm_config *config, const struct ending *e,
		  int signal);

/* "power-off", "reset", ... */
const char *report_end_name(enum vm_end end);
int report_status(const struct ending *e, int signal);

#endif

/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Where the processors of a running machine spend their time: looked at a thousand times a second, while somebody asks. */
#ifndef VMM_SAMPLER_H
#define VMM_SAMPLER_H

#include <jansson.h>
#include <pthread.h>

#include "vmm/control.h"

#define SAMPLER_PLACES 256 /* that anykvm_where() knows: at most */
#define SAMPLER_MAX_MS 3600000u

struct sampler {
	struct control *control;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	pthread_t thread;
	bool has_thread, stopped;
	u64 until;   /* ns: nobody asks for samples after that */
	u64 machine; /* that the samples are of, control.machines */
	u64 samples;
	u32 count[VMM_MAX_CPUS][SAMPLER_PLACES];
};

void sampler_init(struct sampler *s, struct control *control);
void sampler_destroy(struct sampler *s); /* also one of zeros */

/*
 * Counters and samples so far, as a new reference in @out; take samples for @ms more milliseconds (0: no new ones). Everything
 * counts from the start of the machine, or of the first sampling; who asks takes differences. 0, or -errno with one line.
 *
 * { "machine": serial, "seconds": s, "samples": n, "counters": {name: value}, "cpus": [{"where": {name: samples}, "counters": {...}}] }
 */
int sampler_report(struct sampler *s, unsigned ms, json_t **out, struct why *why);

#endif

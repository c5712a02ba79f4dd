/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* ANYKVM_OPTIONS: what may be chosen for the whole process. */
#ifndef KVM_OPTIONS_H
#define KVM_OPTIONS_H

#include "engine/engine.h"
#include "mem/dirty.h"

struct options {
	enum engine_form form;
	bool counters;	   /* count inline hits and chained exits: costs a few percent */
	bool beside;	   /* stores beside code without a walk */
	bool ahead;	   /* flags that are overwritten behind a block are not kept */
	bool cross;	   /* jumps out of the page are linked */
	bool loops;	   /* no check in the rounds of a loop that are sure */
	bool windows;	   /* one check for several accesses */
	bool halt_poll;	   /* a halted processor looks before it sleeps */
	bool perf_map;	   /* /tmp/perf-PID.map */
	unsigned audit;	   /* hits between two audits; 0: none */
	bool audit_strict; /* a stale translation ends the guest */
	bool exact;	   /* the fast form without its DIFFERS */
	char cpu_mask[16]; /* "" or "x86-64-v2" ... */
	u8 collector;	   /* enum dirty_collector */
};

void options_default(struct options *o);

/*
 * Add "engine=checked|fast,cpu-mask=x86-64-v2|x86-64-v3|x86-64-v4,counters=on|off,windows=on|off,loops=on|off,ahead=on|off,cross=on|off,beside=on|off,halt-poll=on|off,exact=on|off,audit=off|on|strict,dirty=wp|pml,perf-map=on|off" to @o; the keys are optional, later ones win.
 * 0 or -EINVAL with one line in @why (without newline).
 */
int options_parse(struct options *o, const char *text, char *why, size_t why_size);

#endif

/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Which pages of a running machine are still to be taken: all at first, then what was written since. */
/*
 * What vCPUs write is in the dirty log of the KVM device, what devices write in the marks of the RAM. Both are taken out
 * before a page is read: a store after that is found by the next harvest, and a store before it is in the page.
 */
#ifndef VMM_MOVE_PAGES_H
#define VMM_MOVE_PAGES_H

#include "vmm/control.h"

struct pages {
	const struct control_machine *m;
	u64 *todo; /* a bit per page of RAM, in the order of the host's memory */
	u64 *log;
	u64 count; /* of pages */
};

/*
 * Held. Logging is on from here on, and every page is to be taken; @followed: only those that were written since the snapshot that is
 * followed. 0 or -errno with one line.
 */
int pages_start(struct pages *p, const struct control_machine *m, bool followed, struct why *why);
void pages_stop(struct pages *p); /* also one of zeros */

/* Held. Adds what was written; the number of pages to be taken now, or -errno. */
s64 pages_harvest(struct pages *p, struct why *why);

/* The first page to be taken from @page on, which is taken out; p->count: none. */
u64 pages_take(struct pages *p, u64 page);

/* NULL with one line: it is lost. */
const u8 *page_at(const struct pages *p, u64 page, struct why *why);

bool page_is_zero(const u8 *page);

#endif

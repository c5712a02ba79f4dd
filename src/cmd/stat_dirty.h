/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* anykvm stat --dirty: how fast a VM writes to its memory, and a picture of where. */
#ifndef CMD_STAT_DIRTY_H
#define CMD_STAT_DIRTY_H

#include "base/types.h"
#include "vmm/monitor/client.h"

struct stat_dirty {
	unsigned interval_ms, rounds;
	bool json;
	const char *png; /* NULL: no picture */
};

/* An exit status. */
int stat_dirty(struct monitor_client *c, const char *name, const struct stat_dirty *o);

#endif

/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The monitor of a VM: commands in JSON over a unix socket, shaped as QEMU's QMP. */
/*
 * One object per line. A client gets a greeting with "QMP", then sends {"execute": NAME, "arguments": {...}, "id": any}
 * and gets {"return": ...} or {"error": {"class", "desc"}}, with its id. Events ({"event", "data", "timestamp"}) go to all.
 * qmp_capabilities is answered but not asked for. Whatever a client sends that is no such object is an error for that line; a
 * line without an end, or a client that does not read, loses its connection.
 */
#ifndef VMM_MONITOR_MONITOR_H
#define VMM_MONITOR_MONITOR_H

#include <jansson.h>

#include "base/types.h"
#include "vmm/why.h"

struct monitor;

/* Called by the monitor's thread. 0 and a new reference in @result (or NULL: an empty object), or -errno with one line. */
struct monitor_command {
	const char *name;
	int (*run)(void *owner, json_t *arguments, json_t **result, struct why *why);
};

struct monitor_table {
	const struct monitor_command *rows;
	unsigned count;
	void *owner;
};

/* 0, -EBUSY when a VM of that name runs, or another -errno with one line. */
int monitor_open(struct monitor **out, const char *name, struct monitor_table table,
		 struct why *why);
void monitor_close(struct monitor *m);

/* Any thread; takes the reference @data (may be NULL). */
void monitor_event(struct monitor *m, const char *name, json_t *data);

#endif

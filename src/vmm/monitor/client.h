/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The other end of a monitor: one command at a time. */
#ifndef VMM_MONITOR_CLIENT_H
#define VMM_MONITOR_CLIENT_H

#include <jansson.h>

#include "base/types.h"
#include "vmm/why.h"

struct monitor_client {
	int fd;
	char *buffer;
	size_t size, at; /* bytes in it, and of the lines that were taken */
	json_t *moved; /* data of the last event MIGRATION: a VM may end right after it; NULL: none */
};

/* To the VM of that name: 0 or -errno with one line. */
int monitor_client_open(struct monitor_client *c, const char *name, struct why *why);
void monitor_client_close(struct monitor_client *c);

/* Takes the reference @arguments (may be NULL). 0 and a new reference in @result, or -errno with one line; -EPIPE: the VM is gone. */
int monitor_client_call(struct monitor_client *c, const char *command, json_t *arguments,
			json_t **result, struct why *why);

#endif

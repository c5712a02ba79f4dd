/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* What happened in a VM between two of its reports (vmm/sampler.h), as text or JSON. */
#ifndef CMD_STAT_PRINT_H
#define CMD_STAT_PRINT_H

#include <jansson.h>
#include <stdio.h>

/* Of the same machine. */
struct stat_pair {
	const char *name; /* of the VM */
	json_t *before, *after;
};

void stat_print_text(const struct stat_pair *p, FILE *out);
void stat_print_json(const struct stat_pair *p, FILE *out); /* one line */

#endif

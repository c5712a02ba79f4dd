/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Calls of Debian's apt, for packages of the machine's architecture and of others. */
#ifndef CMD_APT_H
#define CMD_APT_H

#include <limits.h>

#include "vmm/why.h"

#define APT_OPTIONS 5
#define APT_ARGV    16

/* What a package NAME or NAME:ARCHITECTURE is asked for with. */
struct apt {
	char name[256];
	unsigned n; /* 0: the machine's own apt */
	char option[APT_OPTIONS][PATH_MAX + 64];
};

/*
 * For another architecture apt gets lists and a status of its own in @cache, so that the machine's are neither
 * needed nor changed; they are fetched the first time. 0 or -errno.
 */
int apt_prepare(struct apt *apt, const char *package, const char *cache, struct why *why);

/* @tool, the options, then @words (NULL at the end), as an argv for child_*(). */
void apt_argv(const struct apt *apt, const char *tool, const char *const words[],
	      const char *argv[APT_ARGV]);

#endif

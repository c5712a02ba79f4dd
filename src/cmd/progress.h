/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* A snapshot or migration of a running VM, followed to its end. */
#ifndef CMD_PROGRESS_H
#define CMD_PROGRESS_H

#include <jansson.h>

#include "base/types.h"

/*
 * Tell the VM @name to do @command, print its rounds on stderr as they come, cancel on Ctrl-C, and print the report at
 * its end on stdout. Takes the reference @arguments. Returns an exit status.
 */
int progress_run(const char *name, const char *command, json_t *arguments, bool json);

#endif

/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Running other programs and taking what they print. */
#ifndef CMD_CHILD_H
#define CMD_CHILD_H

#include <stdbool.h>
#include <stddef.h>

/* Where a child's standard input or output goes. */
#define CHILD_INHERIT (-1)
#define CHILD_NULL    (-2)

/* @argv[0] is looked up in PATH. Returns the pid, or -errno. The child runs in @directory (NULL: here). */
int child_start(const char *const argv[], const char *directory, int in, int out, int err);

/* Its exit status, 128+n for a signal. */
int child_wait(int pid);

/* Run it and keep the first @room - 1 bytes of what it prints, @errors: of stderr too. Its exit status, or -errno. */
int child_output(const char *const argv[], const char *directory, bool errors, char *out,
		 size_t room);

#endif

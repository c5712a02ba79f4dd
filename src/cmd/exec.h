/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Getting into another program: what anykvm exec does before it runs it. */
#ifndef CMD_EXEC_H
#define CMD_EXEC_H

#include "cmd/program.h"

/*
 * Find @command[0], see that the preload library gets into it, and set the environment that it is to have. STATUS_OK, or the
 * status to end with, after a line on stderr.
 */
int exec_prepare(struct program *program, char *const command[]);

/* The number of words up to the command: options end before the first word, so that its own are left alone. */
int exec_options_end(int argc, char **argv);

#endif

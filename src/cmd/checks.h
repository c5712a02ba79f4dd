/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The checks of anykvm doctor, one function each. */
#ifndef CMD_CHECKS_H
#define CMD_CHECKS_H

#include "base/types.h"

#define CHECKS_MAX 16

enum check_level { CHECK_INFO, CHECK_PASS, CHECK_WARN, CHECK_FAIL };

struct check {
	const char *name;
	enum check_level level;
	const char *code; /* for anykvm explain, or NULL */
	char text[300];
	char todo[300]; /* the command or the step that helps; "" */
};

/* Fill @checks, with @command's own when it is not NULL. Returns how many. */
unsigned checks_run(struct check checks[CHECKS_MAX], const char *command);

#endif

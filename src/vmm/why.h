/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* One line for a person: what happened, why, and what to do. */
#ifndef VMM_WHY_H
#define VMM_WHY_H

struct why {
	char text[400];
};

/* Fill @why and return -@err, so that a check is one statement. */
int why_set(struct why *why, int err, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

#endif

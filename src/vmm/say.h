/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The program's own lines on stderr, also while the terminal is raw. */
#ifndef VMM_SAY_H
#define VMM_SAY_H

#include <stdbool.h>

/* "anykvm: " or "anykvm[NAME]: ", the text, and the end of the line. */
void say(const char *format, ...) __attribute__((format(printf, 1, 2)));

void say_set_name(const char *name);
void say_set_raw(bool raw); /* lines end with CR LF */

#endif

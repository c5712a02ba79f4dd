/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The terminal on stdin: raw while a VM runs, restored on every way out. */
#ifndef VMM_TERMINAL_H
#define VMM_TERMINAL_H

#include <stdbool.h>

/* Remember the settings and make the terminal raw; nothing when stdin is none. Also after a stop. */
void terminal_raw(void);

/* As it was before terminal_raw(). May be called from a signal handler, any number of times. */
void terminal_restore(void);

/* Rows and columns of the terminal; false where there is none or it does not say. */
bool terminal_size(unsigned *rows, unsigned *columns);

#endif

/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The program's signal handlers behind one of ours, once it has a VM. */
#ifndef FRONT_PRELOAD_SIGNALS_H
#define FRONT_PRELOAD_SIGNALS_H

/* Before the first VM is made: stand before all handlers that there are. Later calls do nothing. */
void signals_take_over(void);

#endif

/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* A gdb stub: a debugger stops the machine, looks at it and goes on, by the remote serial protocol. */
#ifndef VMM_GDB_GDB_H
#define VMM_GDB_GDB_H

#include "vmm/control.h"

struct gdb;

/*
 * @where: tcp:PORT (of the loopback, 0: any), tcp:ADDRESS:PORT or unix:PATH. The machine waits for a debugger, which
 * starts it. 0, or -errno with one line.
 */
int gdb_open(struct gdb **out, const char *where, struct control *control, struct why *why);
void gdb_close(struct gdb *g, int status); /* NULL is allowed; @status is told to the debugger */

/* The board's thread: the machine is under control and has not run. */
void gdb_machine_begins(struct gdb *g);

/* A processor's thread, after KVM_EXIT_DEBUG. */
void gdb_stopped(struct gdb *g, unsigned cpu, const struct kvm_run *run);

#endif

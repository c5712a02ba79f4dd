/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The permission to use a port. */
#ifndef CPU_X86_IO_H
#define CPU_X86_IO_H

#include "cpu/x86/state.h"

/*
 * CPL against IOPL and the I/O permission bitmap of the TSS (SDM "I/O Permission Bit Map").
 * X86_OK, or X86_FAULT with #GP(0), or what reading the TSS gave.
 */
enum x86_status x86_io_allowed(struct x86_cpu *cpu, u16 port, unsigned size);

#endif

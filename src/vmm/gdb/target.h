/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* What a debugger sees of a machine that stands: registers, memory, breakpoints. The caller holds the control. */
#ifndef VMM_GDB_TARGET_H
#define VMM_GDB_TARGET_H

#include "vmm/control.h"

#define GDB_SOFT_MAX	   128u
#define GDB_HARD_MAX	   4u
#define GDB_REGISTER_BYTES 16u

/* Types of the protocol's Z packets. */
enum { GDB_SOFT, GDB_HARD, GDB_WRITE, GDB_READ, GDB_ACCESS, GDB_KINDS };

struct gdb_breakpoint {
	u64 at;
	u32 size; /* 0: none */
	u8 kind;
	u8 saved; /* soft: the byte that was there */
};

struct gdb_breakpoints {
	struct gdb_breakpoint soft[GDB_SOFT_MAX], hard[GDB_HARD_MAX];
};

/* All registers of one processor, fetched together. */
struct gdb_registers {
	struct kvm_regs regs;
	struct kvm_sregs sregs;
	struct kvm_fpu fpu;
};

int gdb_registers_get(const struct control_machine *m, unsigned cpu, struct gdb_registers *r);
int gdb_registers_set(const struct control_machine *m, unsigned cpu, const struct gdb_registers *r);

/* Number @i in the order of the description: bytes, 0 where there is none. */
unsigned gdb_register_read(const struct gdb_registers *r, unsigned i, u8 out[GDB_REGISTER_BYTES]);
unsigned gdb_register_write(struct gdb_registers *r, unsigned i, const u8 in[GDB_REGISTER_BYTES]);

/* The description in XML; static. */
const char *gdb_description(void);

/* Linear addresses as processor @cpu maps them. 0 or -EFAULT. */
int gdb_memory(const struct control_machine *m, unsigned cpu, u64 at, void *data, size_t n,
	       bool is_write);

/* 0, -EINVAL, -ENOSPC, -ENOENT or -EFAULT. */
int gdb_break_add(struct gdb_breakpoints *b, const struct control_machine *m, unsigned cpu, u8 kind,
		  u64 at, u64 size);
int gdb_break_remove(struct gdb_breakpoints *b, const struct control_machine *m, unsigned cpu,
		     u8 kind, u64 at);
void gdb_breaks_clear(struct gdb_breakpoints *b, const struct control_machine *m, unsigned cpu);
bool gdb_is_soft(const struct gdb_breakpoints *b, u64 at);

enum gdb_run { GDB_RUN, GDB_STEP, GDB_INJECT, GDB_FREE /* no debugger */ };

/* Before a processor goes on. */
int gdb_debug_set(const struct gdb_breakpoints *b, const struct control_machine *m, unsigned cpu,
		  enum gdb_run how);

#endif

/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* A device is a value: name, port windows with their operations, and reset. */
#ifndef VMM_DEV_DEVICE_H
#define VMM_DEV_DEVICE_H

#include "base/types.h"
#include "vmm/status.h"

enum { IO_1 = 1, IO_2 = 2, IO_4 = 4 }; /* access sizes, also as a set */

struct port_window {
	u16 base;
	u16 count;
	u8 sizes; /* set of IO_*: a larger access is split into single bytes, others read as ones */
	u32 (*read)(void *self, u16 offset, unsigned size);		 /* NULL: all ones */
	void (*write)(void *self, u16 offset, unsigned size, u32 value); /* NULL: ignored */
};

struct device {
	const char *name;
	const struct port_window *windows;
	unsigned window_count;
	void (*reset)(void *self);
	void *self;
	bool has_lock; /* its operations may be called from several threads at once */
};

/* What a board gives its devices. */
struct irq_line {
	void (*set)(void *owner, unsigned gsi, int level); /* any thread */
	void *owner;
	unsigned gsi;
};

struct end_request {
	void (*end)(void *owner, enum vm_end how); /* the VM ends after this access */
	void *owner;
};

#endif

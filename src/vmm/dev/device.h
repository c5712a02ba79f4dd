/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* A device is a value: name, port windows with their operations, reset, and what is saved of it. */
#ifndef VMM_DEV_DEVICE_H
#define VMM_DEV_DEVICE_H

#include "base/types.h"
#include "vmm/status.h"

enum { IO_1 = 1, IO_2 = 2, IO_4 = 4 }; /* access sizes, also as a set */
enum { IO_REACH = 0x80 };	       /* in the set: an access may reach into ports of others */

struct port_window {
	u16 base;
	u16 count;
	u8 sizes; /* set of IO_*: a larger access is split into single bytes, others read as ones */
	u32 (*read)(void *self, u16 offset, unsigned size);		 /* NULL: all ones */
	void (*write)(void *self, u16 offset, unsigned size, u32 value); /* NULL: ignored */
};

/* A part of a device that is saved and restored, by its name. */
struct device_field {
	const char *name;
	size_t offset;
	size_t size;
	u32 since; /* version of the device's fields that has it; in an older one it is as reset leaves it */
};

#define DEVICE_FIELD(type, member)                                                                 \
	{                                                                                          \
#member, offsetof(type, member), sizeof(((type *)0)->member), 0                    \
	}

/* A field that came later: raise the device's version, and give the new number here. */
#define DEVICE_FIELD_SINCE(type, member, version)                                                  \
	{                                                                                          \
#member, offsetof(type, member), sizeof(((type *)0)->member), version              \
	}

struct device {
	const char *name;
	const struct port_window *windows;
	unsigned window_count;
	void (*reset)(void *self);
	void *self;
	bool has_lock;	   /* its operations may be called from several threads at once */
	unsigned instance; /* among those of the same name: its slot, its number */
	u32 version;	   /* of the fields */
	const struct device_field *fields; /* in *self */
	unsigned field_count;
	void (*saving)(void *self);   /* optional: fields that follow from something else are set */
	void (*restored)(void *self); /* optional: what follows from the fields is made anew */
	const char *unmovable; /* why it cannot be saved, as the end of a sentence; NULL: it can */
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

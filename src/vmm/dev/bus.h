/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The port space: which device answers which port. */
#ifndef VMM_DEV_BUS_H
#define VMM_DEV_BUS_H

#include <pthread.h>

#include "vmm/dev/device.h"

#define BUS_WINDOWS 32

/* Any thread: one access at a time, but for devices that have a lock of their own. */
struct bus {
	pthread_mutex_t lock;
	u8 window_of[65536]; /* index + 1 of bus->windows, 0: nobody */
	struct {
		const struct device *device;
		const struct port_window *window;
	} windows[BUS_WINDOWS];
	unsigned window_count;
	u64 unclaimed; /* accesses that nobody answered; atomic */
};

void bus_init(struct bus *bus);
void bus_destroy(struct bus *bus);

/* 0, -ENOSPC, or -EBUSY where a window is taken. @device must outlive the bus. */
int bus_add(struct bus *bus, const struct device *device);

/* @size 1, 2 or 4. */
void bus_write(struct bus *bus, u16 port, unsigned size, u32 value);
u32 bus_read(struct bus *bus, u16 port, unsigned size);

#endif

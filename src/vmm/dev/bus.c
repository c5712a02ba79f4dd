/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The port space: which device answers which port. */
#include "vmm/dev/bus.h"

#include <errno.h>

void bus_init(struct bus *bus)
{
	*bus = (struct bus){ 0 };
	pthread_mutex_init(&bus->lock, NULL);
}

void bus_destroy(struct bus *bus)
{
	pthread_mutex_destroy(&bus->lock);
}

int bus_add(struct bus *bus, const struct device *device)
{
	for (unsigned i = 0; i < device->window_count; i++) {
		const struct port_window *w = &device->windows[i];

		if (bus->window_count == BUS_WINDOWS)
			return -ENOSPC;
		for (unsigned p = 0; p < w->count; p++)
			if (bus->window_of[(u16)(w->base + p)])
				return -EBUSY;
		bus->windows[bus->window_count].device = device;
		bus->windows[bus->window_count].window = w;
		bus->window_count++;
		for (unsigned p = 0; p < w->count; p++)
			bus->window_of[(u16)(w->base + p)] = (u8)bus->window_count;
	}
	return 0;
}

static u32 ones(unsigned size)
{
	return size == 4 ? ~0u : BIT(size * 8) - 1;
}

/* The window that takes the whole access as it is, or NULL. */
static const struct port_window *window_find(const struct bus *bus, u16 port, unsigned size,
					     const struct device **device)
{
	const unsigned i = bus->window_of[port];
	const struct port_window *w;

	if (!i)
		return NULL;
	w = bus->windows[i - 1].window;
	if (!(w->sizes & size) ||
	    (!(w->sizes & IO_REACH) && (unsigned)(port - w->base) + size > w->count))
		return NULL;
	*device = bus->windows[i - 1].device;
	return w;
}

static void lock(struct bus *bus, const struct device *d)
{
	if (!d->has_lock)
		pthread_mutex_lock(&bus->lock);
}

static void unlock(struct bus *bus, const struct device *d)
{
	if (!d->has_lock)
		pthread_mutex_unlock(&bus->lock);
}

void bus_write(struct bus *bus, u16 port, unsigned size, u32 value)
{
	const struct device *d;
	const struct port_window *w = window_find(bus, port, size, &d);

	if (w) {
		lock(bus, d);
		if (w->write)
			w->write(d->self, port - w->base, size, value);
		unlock(bus, d);
		return;
	}
	if (size == 1) {
		__atomic_add_fetch(&bus->unclaimed, 1, __ATOMIC_RELAXED);
		return;
	}
	for (unsigned i = 0; i < size; i++)
		bus_write(bus, (u16)(port + i), 1, value >> (8 * i) & 0xff);
}

u32 bus_read(struct bus *bus, u16 port, unsigned size)
{
	const struct device *d;
	const struct port_window *w = window_find(bus, port, size, &d);
	u32 value = 0;

	if (w) {
		lock(bus, d);
		value = w->read ? w->read(d->self, port - w->base, size) & ones(size) : ones(size);
		unlock(bus, d);
		return value;
	}
	if (size == 1) {
		__atomic_add_fetch(&bus->unclaimed, 1, __ATOMIC_RELAXED);
		return 0xff;
	}
	for (unsigned i = 0; i < size; i++)
		value |= bus_read(bus, (u16)(port + i), 1) << (8 * i);
	return value;
}

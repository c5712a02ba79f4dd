/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Guest writes that are served before user space sees them: the sorted list, its search and its replacement. */
#include "kvm/iobuses.h"

#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "kvm/iobus_private.h"
#include "kvm/kvm.h"

#define IODEV_MAX 1000 /* of the kernel's bus, ioeventfds not counted */

/*
 * As on the kernel's bus: entries are sorted by address, then by end; a write is offered to every entry that
 * contains it, from the lowest address on, until one takes it. A length of 0 contains writes of
 * any size at its very address.
 */
static u64 iodev_end(const struct iodev *dev)
{
	return dev->addr + dev->length;
}

static bool contains(const struct iodev *dev, u64 addr, unsigned size)
{
	if (!dev->length)
		return addr == dev->addr && !dev->is_zone;
	return addr >= dev->addr && addr + size >= addr && addr + size <= iodev_end(dev);
}

/* First entry whose address is above @addr. */
static u32 bus_above(const struct iobus *bus, u64 addr)
{
	u32 lo = 0, hi = bus->n;

	while (lo < hi) {
		u32 mid = (lo + hi) / 2;

		if (bus->entry[mid].dev->addr <= addr)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

static bool data_matches(const struct iodev *dev, const void *data, unsigned size)
{
	u64 value = 0;

	if (!dev->length)
		return true;
	if (size != dev->length)
		return false;
	memcpy(&value, data, size);
	return dev->any_data || value == dev->data;
}

static bool iodev_write(struct iobuses *b, const struct iodev *dev, bool pio, u64 addr,
			const void *data, unsigned size)
{
	if (dev->is_zone)
		return coalesced_write(b, pio, addr, data, size);
	if (addr != dev->addr || !data_matches(dev, data, size))
		return false;
	eventfd_signal(&dev->event);
	return true;
}

static bool bus_write(struct iobuses *b, const struct iobus *bus, bool pio, u64 addr,
		      const void *data, unsigned size)
{
	u32 last = bus_above(bus, addr), first = last;

	/* An entry before this one may reach further than those after it. */
	while (first && bus->entry[first - 1].end >= addr)
		first--;
	for (u32 i = first; i < last; i++)
		if (contains(bus->entry[i].dev, addr, size) &&
		    iodev_write(b, bus->entry[i].dev, pio, addr, data, size))
			return true;
	return false;
}

bool iobus_write(struct vcpu *v, enum iobus_kind kind, u64 addr, const void *data, unsigned size)
{
	struct iobuses *b = &v->vm->iobuses;
	const struct iobus *bus;
	bool done;

	if (likely(!__atomic_load_n(&b->bus[kind], __ATOMIC_RELAXED)))
		return false;
	__atomic_store_n(&v->on_bus, true, __ATOMIC_SEQ_CST);
	bus = __atomic_load_n(&b->bus[kind], __ATOMIC_SEQ_CST);
	done = bus && bus_write(b, bus, kind == IOBUS_PIO, addr, data, size);
	__atomic_store_n(&v->on_bus, false, __ATOMIC_RELEASE);
	return done;
}

/* Nobody reads the old list any more. A vCPU is on the bus for the time of one write to an eventfd. */
static void readers_wait(struct vm *vm)
{
	for (unsigned i = 0, n = vm_vcpus(vm); i < n; i++)
		while (__atomic_load_n(&vm->vcpu[i]->on_bus, __ATOMIC_SEQ_CST))
			sched_yield();
}

static void iobus_replace(struct vm *vm, enum iobus_kind kind, struct iobus *bus)
{
	struct iobus *old = vm->iobuses.bus[kind];

	__atomic_store_n(&vm->iobuses.bus[kind], bus, __ATOMIC_SEQ_CST);
	readers_wait(vm);
	free(old);
}

/* Chips of ours that KVM keeps on the same bus and counts. */
static unsigned builtin_count(const struct vm *vm, enum iobus_kind kind)
{
	unsigned chips = vm->irqchip && !vm->split;

	if (kind != IOBUS_PIO)
		return kind == IOBUS_MMIO ? chips : 0;
	return 3 * chips + (vm->pit ? 1 : 0);
}

static bool goes_before(const struct iodev *dev, const struct iodev *other)
{
	if (other->addr != dev->addr)
		return other->addr > dev->addr;
	return dev->length && iodev_end(other) > iodev_end(dev);
}

static void bus_append(struct iobus *bus, struct iodev *dev)
{
	u64 end = iodev_end(dev);

	if (bus->n && bus->entry[bus->n - 1].end > end)
		end = bus->entry[bus->n - 1].end;
	bus->entry[bus->n++] = (struct iobus_entry){ dev, end };
	bus->nzones += dev->is_zone;
}

int iobus_insert(struct vm *vm, enum iobus_kind kind, struct iodev *dev)
{
	const struct iobus *old = vm->iobuses.bus[kind];
	u32 n = old ? old->n : 0, i = 0;
	struct iobus *bus;

	/* The kernel looks at the count before it adds, whatever it adds. */
	if ((old ? old->nzones : 0) + builtin_count(vm, kind) >= IODEV_MAX)
		return -ENOSPC;
	bus = calloc(1, sizeof(*bus) + (n + 1) * sizeof(bus->entry[0]));
	if (!bus)
		return -ENOMEM;
	for (; i < n && !goes_before(dev, old->entry[i].dev); i++)
		bus_append(bus, old->entry[i].dev);
	bus_append(bus, dev);
	for (; i < n; i++)
		bus_append(bus, old->entry[i].dev);
	iobus_replace(vm, kind, bus);
	return 0;
}

int iobus_remove(struct vm *vm, enum iobus_kind kind, const struct iodev *dev)
{
	const struct iobus *old = vm->iobuses.bus[kind];
	struct iobus *bus = NULL;

	if (old->n > 1) {
		bus = calloc(1, sizeof(*bus) + (old->n - 1) * sizeof(bus->entry[0]));
		if (!bus)
			return -ENOMEM;
	}
	for (u32 i = 0; i < old->n; i++)
		if (old->entry[i].dev != dev)
			bus_append(bus, old->entry[i].dev);
	iobus_replace(vm, kind, bus);
	return 0;
}

void iodev_free(struct iodev *dev)
{
	eventfd_drop(&dev->event);
	free(dev);
}

int iobuses_init(struct iobuses *b)
{
	void *ring =
		mmap(NULL, PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (ring == MAP_FAILED)
		return -ENOMEM;
	b->ring = ring;
	pthread_mutex_init(&b->lock, NULL);
	pthread_mutex_init(&b->ring_lock, NULL);
	return 0;
}

/* No vCPU is left. */
void iobuses_destroy(struct iobuses *b)
{
	if (!b->ring)
		return;
	for (unsigned kind = 0; kind < IOBUS_KINDS; kind++) {
		struct iobus *bus = b->bus[kind];

		for (u32 i = 0; bus && i < bus->n; i++)
			iodev_free(bus->entry[i].dev);
		free(bus);
	}
	pthread_mutex_destroy(&b->ring_lock);
	pthread_mutex_destroy(&b->lock);
	munmap(b->ring, PAGE_SIZE);
}

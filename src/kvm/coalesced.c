/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Coalesced MMIO and PIO: writes that wait in a ring until user space has another reason to look. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "kvm/iobus_private.h"
#include "kvm/kvm.h"

#define RING_MAX ((u32)KVM_COALESCED_MMIO_MAX)

/*
 * The program writes .first, and may write anything anywhere: .last is checked before it is used. Full is what
 * kernels since 6.12 call full; older ones wrote over a whole ring when .last came round.
 */
bool coalesced_write(struct iobuses *b, bool pio, u64 addr, const void *data, unsigned size)
{
	struct kvm_coalesced_mmio_ring *ring = b->ring;
	struct kvm_coalesced_mmio *e;
	u32 first, last;
	bool room;

	pthread_mutex_lock(&b->ring_lock);
	last = __atomic_load_n(&ring->last, __ATOMIC_RELAXED);
	first = __atomic_load_n(&ring->first, __ATOMIC_ACQUIRE);
	/* One entry stays unused, else a full ring would look empty. */
	room = last < RING_MAX && (last + 1) % RING_MAX != first && size <= sizeof(e->data);
	if (room) {
		e = &ring->coalesced_mmio[last];
		e->phys_addr = addr;
		e->len = size;
		e->pio = pio;
		memcpy(e->data, data, size);
		__atomic_store_n(&ring->last, (last + 1) % RING_MAX, __ATOMIC_RELEASE);
	}
	pthread_mutex_unlock(&b->ring_lock);
	return room;
}

long coalesced_register(struct call *c)
{
	const struct kvm_coalesced_mmio_zone *z = c->data;
	struct iodev *dev;
	int r;

	if (z->pio > 1)
		return -EINVAL;
	dev = calloc(1, sizeof(*dev));
	if (!dev)
		return -ENOMEM;
	dev->addr = z->addr;
	dev->length = z->size;
	dev->is_zone = true;
	dev->event.fd = -1;
	pthread_mutex_lock(&c->vm->iobuses.lock);
	r = iobus_insert(c->vm, z->pio ? IOBUS_PIO : IOBUS_MMIO, dev);
	pthread_mutex_unlock(&c->vm->iobuses.lock);
	if (r)
		iodev_free(dev);
	return r;
}

/* A zone that contains what is to be removed. */
static struct iodev *zone_around(const struct iobus *bus, const struct kvm_coalesced_mmio_zone *z)
{
	for (u32 i = 0; bus && i < bus->n; i++) {
		struct iodev *dev = bus->entry[i].dev;

		if (dev->is_zone && z->addr + z->size >= z->addr && z->addr >= dev->addr &&
		    z->addr + z->size <= dev->addr + dev->length)
			return dev;
	}
	return NULL;
}

/* All zones that contain it go; none is no error. */
long coalesced_unregister(struct call *c)
{
	const struct kvm_coalesced_mmio_zone *z = c->data;
	enum iobus_kind kind = z->pio ? IOBUS_PIO : IOBUS_MMIO;
	struct iobuses *b = &c->vm->iobuses;
	struct iodev *dev;
	int r = 0;

	if (z->pio > 1)
		return -EINVAL;
	pthread_mutex_lock(&b->lock);
	while (!r && (dev = zone_around(b->bus[kind], z))) {
		r = iobus_remove(c->vm, kind, dev);
		if (!r)
			iodev_free(dev);
	}
	pthread_mutex_unlock(&b->lock);
	return r;
}

/*
 * One ring serves the VM, and every mapping of a vCPU's descriptor shows it: an mremap() of size 0 makes a second
 * mapping of shared pages, which needs no descriptor to be kept open.
 */
int iobus_map_ring(struct vm *vm, void *addr, size_t length, int prot, off_t offset)
{
	off_t at = KVM_COALESCED_MMIO_PAGE_OFFSET * PAGE_SIZE;
	u8 *page = (u8 *)addr + (at - offset);

	if (offset > at || offset + (off_t)length <= at)
		return 0;
	if (mremap(vm->iobuses.ring, 0, PAGE_SIZE, MREMAP_MAYMOVE | MREMAP_FIXED, page) ==
	    MAP_FAILED)
		return -errno;
	if (prot != (PROT_READ | PROT_WRITE) && mprotect(page, PAGE_SIZE, prot))
		return -errno;
	return 0;
}

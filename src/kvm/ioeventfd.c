/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* KVM_IOEVENTFD: a guest's write to an address signals an eventfd. */
#include <errno.h>
#include <stdlib.h>

#include "kvm/iobus_private.h"
#include "kvm/kvm.h"

static enum iobus_kind kind_of(u32 flags)
{
	if (flags & KVM_IOEVENTFD_FLAG_PIO)
		return IOBUS_PIO;
	return flags & KVM_IOEVENTFD_FLAG_VIRTIO_CCW_NOTIFY ? IOBUS_CCW : IOBUS_MMIO;
}

/* Both would answer the same write. */
static bool collides(const struct iodev *a, const struct iodev *b)
{
	if (b->is_zone || a->addr != b->addr)
		return false;
	if (!a->length || !b->length)
		return true;
	return a->length == b->length && (a->any_data || b->any_data || a->data == b->data);
}

static bool collides_with_any(const struct iobus *bus, const struct iodev *dev)
{
	for (u32 i = 0; bus && i < bus->n; i++)
		if (collides(dev, bus->entry[i].dev))
			return true;
	return false;
}

static int args_check(const struct kvm_ioeventfd *a)
{
	const u32 known = KVM_IOEVENTFD_VALID_FLAG_MASK;

	if (a->len > 8 || (a->len & (a->len - 1)))
		return -EINVAL;
	if (a->addr + a->len < a->addr || a->flags & ~known)
		return -EINVAL;
	return !a->len && a->flags & KVM_IOEVENTFD_FLAG_DATAMATCH ? -EINVAL : 0;
}

static long assign(struct vm *vm, const struct kvm_ioeventfd *a)
{
	enum iobus_kind kind = kind_of(a->flags);
	struct iodev *dev;
	int r = args_check(a);

	if (r)
		return r;
	dev = calloc(1, sizeof(*dev));
	if (!dev)
		return -ENOMEM;
	dev->addr = a->addr;
	dev->length = a->len;
	dev->any_data = !(a->flags & KVM_IOEVENTFD_FLAG_DATAMATCH);
	dev->data = a->datamatch;
	r = eventfd_hold(&dev->event, a->fd);
	if (!r) {
		pthread_mutex_lock(&vm->iobuses.lock);
		r = collides_with_any(vm->iobuses.bus[kind], dev) ? -EEXIST
								  : iobus_insert(vm, kind, dev);
		pthread_mutex_unlock(&vm->iobuses.lock);
	}
	if (r)
		iodev_free(dev);
	return r;
}

static bool is_meant(const struct iodev *dev, const struct kvm_ioeventfd *a,
		     const struct eventfd *event)
{
	bool any_data = !(a->flags & KVM_IOEVENTFD_FLAG_DATAMATCH);

	return !dev->is_zone && dev->addr == a->addr && dev->length == a->len &&
	       dev->any_data == any_data && (any_data || dev->data == a->datamatch) &&
	       eventfd_is_same(&dev->event, event);
}

static struct iodev *find(const struct iobus *bus, const struct kvm_ioeventfd *a,
			  const struct eventfd *event)
{
	for (u32 i = 0; bus && i < bus->n; i++)
		if (is_meant(bus->entry[i].dev, a, event))
			return bus->entry[i].dev;
	return NULL;
}

/* The arguments are not checked, as in the kernel: what does not fit is not found. */
static long deassign(struct vm *vm, const struct kvm_ioeventfd *a)
{
	enum iobus_kind kind = kind_of(a->flags);
	struct eventfd event;
	struct iodev *dev;
	int r = eventfd_hold(&event, a->fd);

	if (r)
		return r;
	pthread_mutex_lock(&vm->iobuses.lock);
	dev = find(vm->iobuses.bus[kind], a, &event);
	r = dev ? iobus_remove(vm, kind, dev) : -ENOENT;
	pthread_mutex_unlock(&vm->iobuses.lock);
	if (!r)
		iodev_free(dev);
	eventfd_drop(&event);
	return r;
}

long ioeventfd_call(struct call *c)
{
	const struct kvm_ioeventfd *a = c->data;

	return a->flags & KVM_IOEVENTFD_FLAG_DEASSIGN ? deassign(c->vm, a) : assign(c->vm, a);
}

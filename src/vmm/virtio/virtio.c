/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* A virtio device's life: features, status, queues, reset, interrupts. */
#include "vmm/virtio/virtio.h"

#include <errno.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <linux/virtio_config.h>
#include <linux/virtio_pci.h>
#include <linux/virtio_ring.h>

#include "vmm/pci/msix.h"

#define ISR_QUEUE 1 /* beside VIRTIO_PCI_ISR_CONFIG */

#define TRANSPORT_FEATURES                                                                         \
	(BIT_ULL(VIRTIO_F_VERSION_1) | BIT_ULL(VIRTIO_RING_F_EVENT_IDX) |                          \
	 BIT_ULL(VIRTIO_RING_F_INDIRECT_DESC))

static void interrupt(struct virtio_device *d, unsigned vector, unsigned isr)
{
	if (msix_is_enabled(&d->pci)) {
		msix_signal(&d->pci, vector);
		return;
	}
	atomic_fetch_or(&d->isr, isr);
	pci_intx_set(&d->pci, true);
}

void virtio_interrupt(struct virtio_device *d, unsigned queue)
{
	struct virtqueue *q = &d->queues[queue];

	if (virtqueue_wants_interrupt(q))
		interrupt(d, q->vector, ISR_QUEUE);
}

void virtio_config_changed(struct virtio_device *d)
{
	d->config_generation++;
	if (d->status & VIRTIO_CONFIG_S_DRIVER_OK)
		interrupt(d, d->config_vector, VIRTIO_PCI_ISR_CONFIG);
}

void virtio_broken(struct virtio_device *d)
{
	if (d->status & VIRTIO_CONFIG_S_NEEDS_RESET)
		return;
	d->status |= VIRTIO_CONFIG_S_NEEDS_RESET;
	virtio_config_changed(d);
}

bool virtio_pop(struct virtio_device *d, unsigned queue, struct chain *chain)
{
	const int r = virtio_is_active(d) ? virtqueue_pop(&d->queues[queue], chain) : 0;

	if (r < 0)
		virtio_broken(d);
	return r > 0;
}

void virtio_kick(struct virtio_device *d, u32 what)
{
	const u64 one = 1;

	/* Who sets the first bit wakes; the device thread takes all bits after it has read the eventfd. */
	if (atomic_fetch_or(&d->kicked, what) == 0 && write(d->kick_fd, &one, sizeof(one)) < 0)
		return;
}

/* Everything that the driver has set, as at power-on. Nothing of the device runs, or the device thread does it. */
static void state_clear(struct virtio_device *d)
{
	if (d->kind->ops->reset)
		d->kind->ops->reset(d);
	d->agreed = 0;
	d->device_feature_select = d->driver_feature_select = 0;
	d->config_vector = MSIX_NO_VECTOR;
	d->queue_select = 0;
	for (unsigned i = 0; i <= VIRTIO_QUEUES_MAX; i++)
		d->queues[i] = (struct virtqueue){
			.ram = d->ram,
			.size = i < d->kind->queues ? QUEUE_SIZE_MAX : 0,
			.vector = MSIX_NO_VECTOR,
		};
	atomic_store(&d->isr, 0);
	d->status = 0;
}

static void virtio_reset(void *self)
{
	struct virtio_device *d = self;

	pthread_mutex_lock(&d->lock);
	state_clear(d);
	atomic_store(&d->kicked, 0);
	pthread_mutex_unlock(&d->lock);
}

/* A device may leave requests in a queue, to fill them later: only what came meanwhile is a reason to look again. */
static void queues_serve(struct virtio_device *d, u32 kicked)
{
	struct virtqueue *q;
	u16 offered;

	for (unsigned i = 0; i < d->kind->queues && virtio_is_active(d); i++) {
		q = &d->queues[i];
		if (!(kicked & BIT(i)) || !q->enabled)
			continue;
		virtqueue_notify_off(q);
		offered = virtqueue_offered(q);
		d->kind->ops->queue_ready(d, i);
		virtqueue_notify_on(q);
		if (virtqueue_offered(q) != offered && !q->broken)
			virtio_kick(d, BIT(i));
	}
}

static void loop_prepare(void *owner, struct loop *loop)
{
	struct virtio_device *d = owner;

	loop_watch(loop, d->kick_fd, POLLIN);
}

static void loop_dispatch(void *owner, struct loop *loop)
{
	struct virtio_device *d = owner;
	u64 count;
	u32 kicked;

	if (!loop_came(loop, d->kick_fd) || read(d->kick_fd, &count, sizeof(count)) < 0)
		return;
	kicked = atomic_exchange(&d->kicked, 0);
	pthread_mutex_lock(&d->lock);
	if (kicked & VIRTIO_KICK_RESET) {
		state_clear(d);
		pci_intx_set(&d->pci, false);
	} else {
		queues_serve(d, kicked);
	}
	pthread_mutex_unlock(&d->lock);
}

void virtio_quiesce(struct virtio_device *d)
{
	pthread_mutex_lock(&d->lock);
	if (atomic_fetch_and(&d->kicked, ~VIRTIO_KICK_RESET) & VIRTIO_KICK_RESET) {
		state_clear(d);
		pci_intx_set(&d->pci, false);
	}
	if (d->kind->ops->quiesce)
		d->kind->ops->quiesce(d);
	pthread_mutex_unlock(&d->lock);
}

void virtio_status_write(struct virtio_device *d, u8 status)
{
	const u8 was = d->status;

	if (!status) {
		/* Without DRIVER_OK there was never a request, and a driver need not wait. */
		if (was & VIRTIO_CONFIG_S_DRIVER_OK)
			virtio_kick(d, VIRTIO_KICK_RESET);
		else
			state_clear(d);
		return;
	}
	/* Features that were not offered were never taken over: what the driver sees is that this bit stays. */
	if (status & VIRTIO_CONFIG_S_FEATURES_OK && !(was & VIRTIO_CONFIG_S_FEATURES_OK) &&
	    (d->agreed & ~d->offered || !virtio_has(d, VIRTIO_F_VERSION_1)))
		status &= (u8)~VIRTIO_CONFIG_S_FEATURES_OK;
	d->status = (u8)(status | (was & VIRTIO_CONFIG_S_NEEDS_RESET));
	if (!(status & VIRTIO_CONFIG_S_DRIVER_OK) || was & VIRTIO_CONFIG_S_DRIVER_OK)
		return;
	if (d->kind->ops->activated)
		d->kind->ops->activated(d);
	virtio_kick(d, BIT(d->kind->queues) - 1);
}

void virtio_queue_enable(struct virtio_device *d)
{
	struct virtqueue *q = &d->queues[d->queue_select];

	q->event_idx = virtio_has(d, VIRTIO_RING_F_EVENT_IDX);
	q->indirect = virtio_has(d, VIRTIO_RING_F_INDIRECT_DESC);
	if (virtqueue_is_sane(q))
		q->enabled = 1;
	else
		virtio_broken(d);
}

/* Positions came from outside: a queue that is enabled must be one that the guest could have enabled. */
static void virtio_restored(void *self)
{
	struct virtio_device *d = self;

	for (unsigned i = 0; i < VIRTIO_QUEUES_MAX; i++) {
		struct virtqueue *q = &d->queues[i];

		q->signalled_is_valid = 0;
		if (i >= d->kind->queues || !virtqueue_is_sane(q))
			q->enabled = 0;
	}
	if (d->queue_select > d->kind->queues)
		d->queue_select = 0;
	d->agreed &= d->offered;
	pci_intx_set(&d->pci, atomic_load(&d->isr) && !msix_is_enabled(&d->pci));
	virtio_kick(d, BIT(d->kind->queues) - 1);
}

#define QUEUE_FIELDS(i)                                                                            \
	DEVICE_FIELD(struct virtio_device, queues[i].size),                                        \
		DEVICE_FIELD(struct virtio_device, queues[i].enabled),                             \
		DEVICE_FIELD(struct virtio_device, queues[i].vector),                              \
		DEVICE_FIELD(struct virtio_device, queues[i].event_idx),                           \
		DEVICE_FIELD(struct virtio_device, queues[i].indirect),                            \
		DEVICE_FIELD(struct virtio_device, queues[i].broken),                              \
		DEVICE_FIELD(struct virtio_device, queues[i].last_avail),                          \
		DEVICE_FIELD(struct virtio_device, queues[i].used),                                \
		DEVICE_FIELD(struct virtio_device, queues[i].desc_at),                             \
		DEVICE_FIELD(struct virtio_device, queues[i].avail_at),                            \
		DEVICE_FIELD(struct virtio_device, queues[i].used_at)

/* The last interrupt's position is not saved: the first one after a restore is sent in any case. */
static const struct device_field virtio_fields[] = {
	DEVICE_FIELD(struct virtio_device, pci.config),
	DEVICE_FIELD(struct virtio_device, pci.msix.table),
	DEVICE_FIELD(struct virtio_device, pci.msix.pending),
	DEVICE_FIELD(struct virtio_device, agreed),
	DEVICE_FIELD(struct virtio_device, device_feature_select),
	DEVICE_FIELD(struct virtio_device, driver_feature_select),
	DEVICE_FIELD(struct virtio_device, config_vector),
	DEVICE_FIELD(struct virtio_device, queue_select),
	DEVICE_FIELD(struct virtio_device, status),
	DEVICE_FIELD(struct virtio_device, config_generation),
	QUEUE_FIELDS(0),
	QUEUE_FIELDS(1),
	QUEUE_FIELDS(2),
	QUEUE_FIELDS(3),
	QUEUE_FIELDS(4),
	QUEUE_FIELDS(5),
	QUEUE_FIELDS(6),
	QUEUE_FIELDS(7),
	QUEUE_FIELDS(8),
	QUEUE_FIELDS(9),
	DEVICE_FIELD(struct virtio_device, isr),
};

int virtio_core_init(struct virtio_device *d, const struct virtio_kind *kind, struct loop *loop,
		     const struct ram *ram, void *config, u32 config_size, u32 writable)
{
	int r;

	d->device = (struct device){
		.name = kind->name,
		.version = 1,
		.unmovable = kind->unmovable,
		.reset = virtio_reset,
		.self = d,
		.has_lock = true,
		.fields = virtio_fields,
		.field_count = ARRAY_SIZE(virtio_fields),
		.restored = virtio_restored,
	};
	d->kind = kind;
	d->ram = ram;
	d->loop = loop;
	d->config = config;
	d->config_size = config_size;
	d->config_writable = writable;
	d->offered = TRANSPORT_FEATURES | kind->features;
	d->kick_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (d->kick_fd < 0)
		return -errno;
	pthread_mutex_init(&d->lock, NULL);
	virtio_reset(d);
	r = loop_add(loop, (struct loop_source){ loop_prepare, loop_dispatch, d });
	if (r < 0)
		virtio_destroy(d);
	return r;
}

void virtio_destroy(struct virtio_device *d)
{
	close(d->kick_fd);
	pthread_mutex_destroy(&d->lock);
}

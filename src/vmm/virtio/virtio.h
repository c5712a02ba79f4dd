/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* A virtio device on PCI: the transport, and what a kind of device adds. */
/*
 * Threads: vCPUs come through the BAR and take the device's lock; the device thread takes it while it works on queues. A
 * notification takes none: it sets a bit and writes an eventfd. A reset that the guest asks for is done by the device
 * thread, so that requests in flight are finished before memory is the guest's again; the status reads as before until then.
 */
#ifndef VMM_VIRTIO_VIRTIO_H
#define VMM_VIRTIO_VIRTIO_H

#include <stdatomic.h>

#include "vmm/dev/device.h"
#include "vmm/loop.h"
#include "vmm/pci/pci.h"
#include "vmm/virtio/queue.h"

#define VIRTIO_QUEUES_MAX 10u

struct virtio_device;

/* All are called with the lock held; all but config_written() by the device thread, or while nothing runs. */
struct virtio_ops {
	void (*queue_ready)(struct virtio_device *d, unsigned queue); /* requests may be there */
	void (*activated)(struct virtio_device *d);		      /* optional: DRIVER_OK */
	void (*reset)(struct virtio_device *d); /* optional: finish or forget all requests */
	void (*quiesce)(struct virtio_device
				*d); /* optional: finish what is in flight; the thread stands */
	void (*config_written)(struct virtio_device *d); /* optional: the driver wrote it */
};

struct virtio_kind {
	const char *name;
	u16 id; /* of the specification's table "Device Types" */
	u32 class_code;
	unsigned queues;
	u64 features; /* beside those of the transport */
	const struct virtio_ops *ops;
	const char *unmovable; /* as of struct device */
};

struct virtio_device {
	struct device device; /* reset, and the fields that are saved */
	struct pci_function pci;
	const struct virtio_kind *kind;
	const struct ram *ram;
	struct loop *loop;
	void *config; /* the device's own, little endian */
	u32 config_size, config_writable;

	pthread_mutex_t lock;
	u64 offered, agreed;
	u32 device_feature_select, driver_feature_select;
	u16 config_vector, queue_select;
	u8 status, config_generation;
	struct virtqueue
		queues[VIRTIO_QUEUES_MAX + 1]; /* past the last: one that is always empty */

	atomic_uint isr;
	atomic_uint kicked; /* a bit per queue, and KICK_RESET */
	int kick_fd;
};

#define VIRTIO_KICK_RESET BIT(31)

/* All but the registers. @config: @config_size bytes that stay; the first @writable of them the driver may write. 0 or -errno. */
int virtio_core_init(struct virtio_device *d, const struct virtio_kind *kind, struct loop *loop,
		     const struct ram *ram, void *config, u32 config_size, u32 writable);
void virtio_destroy(struct virtio_device *d);

/* Any thread, no lock: the device thread looks at these queues, or resets. */
void virtio_kick(struct virtio_device *d, u32 what);

/* From a vCPU, with the lock. */
void virtio_status_write(struct virtio_device *d, u8 status);
void virtio_queue_enable(struct virtio_device *d);

/* While the device thread stands: what is in flight is finished, and a reset that waits is done. */
void virtio_quiesce(struct virtio_device *d);

/* With the lock held, from the device thread. */
void virtio_interrupt(struct virtio_device *d, unsigned queue); /* if the driver wants it */
void virtio_config_changed(struct virtio_device *d);
void virtio_broken(struct virtio_device *d); /* the driver has to reset it */

static inline bool virtio_is_active(const struct virtio_device *d)
{
	return d->status & 4 && !(d->status & 0x40); /* DRIVER_OK, not DEVICE_NEEDS_RESET */
}

static inline bool virtio_has(const struct virtio_device *d, unsigned feature)
{
	return d->agreed >> feature & 1;
}

/* The next request of a queue; false: none, or the queue is broken and the driver has been told. */
bool virtio_pop(struct virtio_device *d, unsigned queue, struct chain *chain);

#endif

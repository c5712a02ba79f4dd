/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* virtio console device with named ports: streams of bytes between programs of the guest and descriptors of the host. */
#ifndef VMM_VIRTIO_PORTS_H
#define VMM_VIRTIO_PORTS_H

#include "vmm/virtio/virtio.h"

#define PORTS_MAX 4u

struct ports;

/* One direction each; the other one is closed. */
struct port_end {
	const char *name; /* /sys/class/virtio-ports/.../name in the guest */
	int in_fd;	  /* the guest reads from it; -1: not this way */
	int out_fd;	  /* the guest writes to it; -1: to output(), if there is one */
	void (*output)(void *owner, const u8 *data, size_t n); /* the device thread */
	void *owner;
};

/* Told once, from the device thread, when a descriptor cannot be written. */
struct ports_ops {
	void (*failed)(void *owner, int err);
	void *owner;
};

int ports_create(struct ports **out, const struct port_end *ends, unsigned count,
		 struct ports_ops ops, struct pci_bus *bus, struct loop *loop,
		 const struct ram *ram);
void ports_destroy(struct ports *p);
struct virtio_device *ports_device(struct ports *p);

#endif

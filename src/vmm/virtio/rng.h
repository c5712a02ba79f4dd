/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* virtio entropy device: random bytes of the host. */
#ifndef VMM_VIRTIO_RNG_H
#define VMM_VIRTIO_RNG_H

#include "vmm/virtio/virtio.h"

/* 0 and the device, or -errno; it goes with virtio_destroy() and free(). */
int rng_create(struct virtio_device **out, struct pci_bus *bus, struct loop *loop,
	       const struct ram *ram);

#endif

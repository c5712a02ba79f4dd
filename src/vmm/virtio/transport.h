/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* A virtio device on the PCI bus. */
#ifndef VMM_VIRTIO_TRANSPORT_H
#define VMM_VIRTIO_TRANSPORT_H

#include "vmm/virtio/virtio.h"

/* @config: @config_size bytes that stay; the first @writable of them the driver may write. 0 or -errno. */
int virtio_init(struct virtio_device *d, const struct virtio_kind *kind, struct pci_bus *bus,
		struct loop *loop, const struct ram *ram, void *config, u32 config_size,
		u32 writable);

#endif

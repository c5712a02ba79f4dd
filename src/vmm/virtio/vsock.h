/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* virtio socket device: streams between ports of the guest and unix sockets of the host. */
#ifndef VMM_VIRTIO_VSOCK_H
#define VMM_VIRTIO_VSOCK_H

#include "vmm/config.h"
#include "vmm/virtio/virtio.h"
#include "vmm/why.h"

struct vsock;

/* 0, or -errno with one line. */
int vsock_create(struct vsock **out, const struct vsock_config *config, struct pci_bus *bus,
		 struct loop *loop, const struct ram *ram, struct why *why);
void vsock_destroy(struct vsock *v);
struct virtio_device *vsock_device(struct vsock *v);

#endif

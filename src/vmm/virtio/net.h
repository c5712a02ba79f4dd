/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* virtio network device over a link. */
#ifndef VMM_VIRTIO_NET_H
#define VMM_VIRTIO_NET_H

#include "vmm/net/link.h"
#include "vmm/pci/pci.h"
#include "vmm/virtio/virtio.h"

struct net;

/* It takes over @link when it succeeds. 0 or -errno. */
int net_create(struct net **out, struct net_link *link, const u8 mac[6], struct pci_bus *bus,
	       struct loop *loop, const struct ram *ram);
void net_destroy(struct net *net);
struct virtio_device *net_device(struct net *net);

#endif

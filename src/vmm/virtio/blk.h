/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* virtio block device over a disk image. */
#ifndef VMM_VIRTIO_BLK_H
#define VMM_VIRTIO_BLK_H

#include "vmm/disk/disk.h"
#include "vmm/virtio/virtio.h"

struct blk;

/* Takes over @disk when it succeeds. @serial: at most 20 characters are told. 0 or -errno. */
int blk_create(struct blk **out, struct disk *disk, const char *serial, struct pci_bus *bus,
	       struct loop *loop, const struct ram *ram);
void blk_destroy(struct blk *blk);
struct virtio_device *blk_device(struct blk *blk);
struct disk *blk_disk(struct blk *blk);

#endif

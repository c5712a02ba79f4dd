/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* virtio file system device over a folder of the host. */
#ifndef VMM_VIRTIO_FS_H
#define VMM_VIRTIO_FS_H

#include "vmm/virtio/virtio.h"

struct fs;

/* @tag: at most 36 bytes. 0, or -errno with one line. */
int fs_create(struct fs **out, const char *path, const char *tag, bool read_only,
	      struct pci_bus *bus, struct loop *loop, const struct ram *ram, struct why *why);
void fs_destroy(struct fs *fs);
struct virtio_device *fs_device(struct fs *fs);

#endif

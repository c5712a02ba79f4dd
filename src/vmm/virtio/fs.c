/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* virtio file system device, as the specification's chapter "File System Device" has it: FUSE requests in virtqueues. */
#include "vmm/virtio/fs.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <linux/virtio_fs.h>
#include <linux/virtio_ids.h>

#include "vmm/fs/share.h"
#include "vmm/virtio/transport.h"

struct fs {
	struct virtio_device virtio;
	struct virtio_fs_config config;
	struct share share;
};

/* Queue 0 is for what must not wait behind requests: forgets. All are served in their order here. */
static void queue_ready(struct virtio_device *d, unsigned queue)
{
	struct fs *fs = container_of(d, struct fs, virtio);
	struct chain c;

	while (virtio_pop(d, queue, &c)) {
		const s64 n = share_serve(&fs->share, c.iov, c.out, chain_in(&c), c.in);

		if (n < 0) {
			virtio_broken(d);
			break;
		}
		virtqueue_push(&d->queues[queue], &c, (u32)n);
	}
	virtio_interrupt(d, queue);
}

static void fs_reset(struct virtio_device *d)
{
	share_reset(&container_of(d, struct fs, virtio)->share);
}

static const struct virtio_ops fs_ops = { .queue_ready = queue_ready, .reset = fs_reset };

static const struct virtio_kind fs_kind = {
	.name = "virtio-fs",
	.id = VIRTIO_ID_FS,
	.class_code = 0x018000, /* mass storage, other */
	.queues = 2,
	.ops = &fs_ops,
	.unmovable = "what the guest has open in a shared folder is known to this process only",
};

int fs_create(struct fs **out, const char *path, const char *tag, bool read_only,
	      struct pci_bus *bus, struct loop *loop, const struct ram *ram, struct why *why)
{
	struct fs *fs = calloc(1, sizeof(*fs));
	int r;

	if (!fs)
		return why_set(why, ENOMEM, "no memory to share '%s'", path);
	r = share_open(&fs->share, path, read_only, why);
	if (r < 0)
		goto out;
	memcpy(fs->config.tag, tag, strnlen(tag, sizeof(fs->config.tag)));
	fs->config.num_request_queues = 1;
	r = virtio_init(&fs->virtio, &fs_kind, bus, loop, ram, &fs->config, sizeof(fs->config), 0);
	if (r == 0) {
		*out = fs;
		return 0;
	}
	why_set(why, -r, "cannot make the device virtio-fs: %s", strerror(-r));
	share_close(&fs->share);
out:
	free(fs);
	return r;
}

void fs_destroy(struct fs *fs)
{
	virtio_destroy(&fs->virtio);
	share_close(&fs->share);
	free(fs);
}

struct virtio_device *fs_device(struct fs *fs)
{
	return &fs->virtio;
}

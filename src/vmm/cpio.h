/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Archives in the "newc" form of cpio, which kernels unpack as initramfs. */
#ifndef VMM_CPIO_H
#define VMM_CPIO_H

#include <sys/types.h>

#include "base/types.h"

struct cpio {
	u8 *data; /* malloc'ed */
	size_t size;
	size_t room;
	u32 inode;
	bool failed; /* no memory: what is there is useless */
};

/* @path without leading slash; @mode with the file type. */
void cpio_add(struct cpio *c, const char *path, u32 mode, const void *data, size_t n);
void cpio_add_directory(struct cpio *c, const char *path);
void cpio_add_link(struct cpio *c, const char *path, const char *target);
void cpio_add_device(struct cpio *c, const char *path, u32 mode, unsigned major, unsigned minor);

/* The trailer, and padding to 512 bytes. 0 or -ENOMEM. */
int cpio_finish(struct cpio *c);
void cpio_free(struct cpio *c);

#endif

/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* qcow2 images are recognized, and refused. */
#include <errno.h>

#include "vmm/disk/disk.h"

int qcow2_open(struct disk **out, int fd, const char *path, bool read_only, struct why *why)
{
	(void)out;
	(void)fd;
	(void)read_only;
	return why_set(why, ENOTSUP,
		       "'%s' is a qcow2 image, which cannot be used yet; make a raw one with "
		       "'qemu-img convert -O raw'",
		       path);
}

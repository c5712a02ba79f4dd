/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Archives in the "newc" form of cpio, as Documentation/driver-api/early-userspace/buffer-format.rst has it. */
#include "vmm/cpio.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define HEADER_SIZE 110
#define TRAILER	    "TRAILER!!!"

struct entry {
	const char *path;
	u32 mode;
	unsigned major, minor;
	const void *data;
	size_t size;
};

static void append(struct cpio *c, const void *data, size_t n)
{
	if (c->failed)
		return;
	if (n > c->room - c->size) {
		size_t room = ALIGN_UP(c->size + n + (c->room / 2), 4096);
		u8 *grown = realloc(c->data, room);

		if (!grown) {
			c->failed = true;
			return;
		}
		c->data = grown;
		c->room = room;
	}
	memcpy(c->data + c->size, data, n);
	c->size += n;
}

static void pad(struct cpio *c, size_t align)
{
	static const u8 zeros[512];

	append(c, zeros, ALIGN_UP(c->size, align) - c->size);
}

static void entry_add(struct cpio *c, const struct entry *e)
{
	const size_t name = strlen(e->path) + 1;
	char header[HEADER_SIZE + 1];

	c->inode++;
	snprintf(header, sizeof(header),
		 "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x", c->inode, e->mode, 0,
		 0, S_ISDIR(e->mode) ? 2 : 1, 0, (unsigned)e->size, 0, 0, e->major, e->minor,
		 (unsigned)name, 0);
	append(c, header, HEADER_SIZE);
	append(c, e->path, name);
	pad(c, 4);
	if (e->size)
		append(c, e->data, e->size);
	pad(c, 4);
}

void cpio_add(struct cpio *c, const char *path, u32 mode, const void *data, size_t n)
{
	entry_add(c, &(struct entry){ .path = path, .mode = mode, .data = data, .size = n });
}

void cpio_add_directory(struct cpio *c, const char *path)
{
	entry_add(c, &(struct entry){ .path = path, .mode = S_IFDIR | 0755 });
}

void cpio_add_link(struct cpio *c, const char *path, const char *target)
{
	cpio_add(c, path, S_IFLNK | 0777, target, strlen(target));
}

void cpio_add_device(struct cpio *c, const char *path, u32 mode, unsigned major, unsigned minor)
{
	entry_add(c, &(struct entry){ .path = path, .mode = mode, .major = major, .minor = minor });
}

int cpio_finish(struct cpio *c)
{
	cpio_add(c, TRAILER, 0, NULL, 0);
	pad(c, 512);
	return c->failed ? -ENOMEM : 0;
}

void cpio_free(struct cpio *c)
{
	free(c->data);
	memset(c, 0, sizeof(*c));
}

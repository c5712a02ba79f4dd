/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* A whole file in memory. */
#ifndef VMM_BLOB_H
#define VMM_BLOB_H

#include "base/types.h"
#include "vmm/why.h"

struct blob {
	u8 *data;
	size_t size;
};

/* @what names the file's purpose in messages ("kernel"). 0 or -errno. */
int blob_read(struct blob *blob, const char *path, const char *what, size_t limit, struct why *why);
void blob_free(struct blob *blob);

/*
 * Memory for free(), or NULL. What is written once takes one fault for each of the host's large pages, not hundreds;
 * realloc() may lose that.
 */
u8 *blob_room(size_t size);

#endif

/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* bzImage files: the setup header, and the compressed kernel inside. */
#ifndef VMM_BOOT_BZIMAGE_H
#define VMM_BOOT_BZIMAGE_H

#include <asm/bootparam.h>

#include "base/types.h"
#include "vmm/why.h"

struct bzimage {
	struct setup_header header; /* what the file has of it, the rest zero */
	const u8 *payload;
	size_t payload_size;
};

bool bzimage_is(const u8 *data, size_t size);

/* @image points into @data. 0 or -EINVAL: too old, truncated. */
int bzimage_parse(struct bzimage *image, const u8 *data, size_t size, struct why *why);

/* The release as uname -r gives it; false: the file does not say. */
bool bzimage_release(const u8 *data, size_t size, char *out, size_t room);

#endif

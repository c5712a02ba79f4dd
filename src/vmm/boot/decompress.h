/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The payload of a bzImage: format found by its magic, unpacked by the format's own library. */
#ifndef VMM_BOOT_DECOMPRESS_H
#define VMM_BOOT_DECOMPRESS_H

#include "base/types.h"
#include "vmm/why.h"

struct packed {
	const u8 *data;
	size_t size;
	size_t unpacked;	     /* bytes that come out */
	const struct format *format; /* NULL: an ELF file as it is, nothing to unpack */
};

/*
 * @data: @size bytes, of which the last four are the unpacked size, as the kernel's build appends it; @packed points
 * into it. 0, or -EINVAL: a format that is not known, a size that cannot be.
 */
int packed_open(struct packed *packed, const u8 *data, size_t size, struct why *why);

/* The first @n bytes, at most packed->unpacked. 0, or -EINVAL: damaged. */
int packed_head(const struct packed *packed, u8 *out, size_t n, struct why *why);

/*
 * All packed->unpacked bytes. 0, or -EINVAL: damaged, or another number of bytes. No byte beyond is ever written; what
 * is inside may be anything after an error.
 */
int packed_unpack(const struct packed *packed, u8 *out, struct why *why);

#endif

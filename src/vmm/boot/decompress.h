/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The payload of a bzImage: format found by its magic, unpacked by the format's own library. */
#ifndef VMM_BOOT_DECOMPRESS_H
#define VMM_BOOT_DECOMPRESS_H

#include "base/types.h"
#include "vmm/why.h"

/*
 * @in: @size bytes, of which the last four are the unpacked size, as the kernel's build appends it.
 * *out: malloc'ed. Uncompressed ELF is copied. 0, -EINVAL or -ENOMEM.
 */
int decompress(const u8 *in, size_t size, u8 **out, size_t *out_size, struct why *why);

#endif

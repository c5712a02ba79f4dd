/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* CRC-32C (Castagnoli), as iSCSI and ext4 have it: it finds what a wire or a disk has changed, not what an enemy has. */
#ifndef VMM_CRC32C_H
#define VMM_CRC32C_H

#include "base/types.h"

/* Goes on from @crc, 0 at first: crc32c(crc32c(0, a), b) is that of a and b together. */
u32 crc32c(u32 crc, const void *data, size_t n);

#endif

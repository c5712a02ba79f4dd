/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The header of a snapshot file. */
#ifndef VMM_MOVE_SNAPSHOT_FORMAT_H
#define VMM_MOVE_SNAPSHOT_FORMAT_H

#include "base/types.h"

#define SNAPSHOT_MAGIC	"anykvm snapshot\n"
#define SNAPSHOT_FORMAT 1u

/* Numbers as x86-64 has them, no padding. */
struct snapshot_part {
	u64 at, size;
	u32 crc, zero;
};

struct snapshot_header {
	char magic[16];
	u32 format;
	u32 crc; /* of the whole page, with zeros here */
	u64 memory;
	struct snapshot_part sums, description, state;
};

_Static_assert(sizeof(struct snapshot_header) == 32 + 3 * 24, "no padding");

#endif

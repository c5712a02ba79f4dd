/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The header of a snapshot file. */
#ifndef VMM_MOVE_SNAPSHOT_FORMAT_H
#define VMM_MOVE_SNAPSHOT_FORMAT_H

#include "base/types.h"

#define SNAPSHOT_MAGIC	  "anykvm snapshot\n"
#define SNAPSHOT_FORMAT	  2u
#define SNAPSHOT_IDENTITY 16u

/* Numbers as x86-64 has them, no padding. */
struct snapshot_part {
	u64 at, size;
	u32 crc, zero;
};

enum snapshot_part_name {
	PART_SUMS, /* CRC-32C of each page of memory; its own checksums are the roots, and crc is 0 */
	PART_ROOTS, /* CRC-32C of each 4 KiB of the sums, so that a page can be checked without reading all of them */
	PART_HELD, /* of an increment: a bit for each page that is in this file; the others are in the base */
	PART_BASE, /* of an increment: where the base was */
	PART_DESCRIPTION,
	PART_STATE,
	PARTS,
};

struct snapshot_header {
	char magic[16];
	u32 format;
	u32 crc; /* of the whole page, with zeros here; by the other checksums it stands for all of the file */
	u64 memory;
	u8 identity[SNAPSHOT_IDENTITY]; /* by chance */
	u8 base[SNAPSHOT_IDENTITY];	/* of an increment, else zeros */
	u32 base_crc, zero;
	struct snapshot_part parts[PARTS];
};

_Static_assert(sizeof(struct snapshot_header) == 72 + PARTS * 24, "no padding");

#endif

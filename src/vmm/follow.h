/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Which pages a machine has written since a snapshot of it: what an increment to that snapshot is made of. */
#ifndef VMM_FOLLOW_H
#define VMM_FOLLOW_H

#include <stdlib.h>

#include "base/types.h"

/*
 * The dirty log stays on meanwhile, and whoever takes bits out of it adds them here (vmm/move/pages.c). All of it is used while the
 * machine is held.
 */
struct follow {
	u64 *written;	 /* a bit per page of RAM; NULL: nobody follows */
	u8 identity[16]; /* of the snapshot */
	u32 crc;	 /* of its header */
	char path[4096]; /* where it was written to; for a person */
};

/* -ENOMEM as false. */
static inline bool follow_begin(struct follow *f, u64 pages)
{
	f->written = calloc((pages + 63) / 64, sizeof(u64));
	return f->written;
}

static inline void follow_end(struct follow *f)
{
	free(f->written);
	f->written = NULL;
}

#endif

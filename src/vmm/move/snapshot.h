/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Snapshot files: a machine's description, its state, and its memory, whole or what changed since another snapshot. */
/*
 *	0                  header: magic, format, identity, sizes and places of the parts, checksums; the rest of the page is zeros
 *	SNAPSHOT_RAM_AT    memory, page by page; pages of zeros are holes, and those that an increment leaves to its base
 *	after it           the parts of snapshot_format.h
 *
 * Everything has a checksum, and the parts fill the file exactly: a byte more or less, or a bit that changed, is found. The checksum
 * of the header stands for the whole file. An increment names its base by identity and by that checksum. A file is
 * written under another name, brought to the disk, and renamed: a snapshot is there whole or not at all.
 */
#ifndef VMM_MOVE_SNAPSHOT_H
#define VMM_MOVE_SNAPSHOT_H

#include "vmm/control.h"
#include "vmm/move/describe.h"
#include "vmm/move/snapshot_format.h"

#define SNAPSHOT_RAM_AT	   (2ull << 20)
#define SNAPSHOT_RUN	   64u /* pages of one write */
#define SNAPSHOT_STATE_MAX (64u << 20)
#define SNAPSHOT_CHAIN_MAX 64u	 /* files */
#define SNAPSHOT_SUMS	   1024u /* sums that one root is of: 4 KiB */
#define SNAPSHOT_PATH_MAX  4096u

/* What an increment is to. */
struct snapshot_identity {
	u8 identity[SNAPSHOT_IDENTITY];
	u32 crc; /* of the header */
};

struct snapshot_writer {
	int fd;
	const char *path;
	char temporary[4200];
	u64 memory;
	u32 *sums;
	u64 *held; /* a bit per page that was written; kept always, in the file of an increment only */
	u8 *run; /* pages that are written together */
	u64 run_first;
	unsigned run_count;
	u64 bytes;			      /* of memory, written up to now */
	u8 *has_data;			      /* a byte per page: it is no hole */
	const struct snapshot_identity *base; /* NULL: it is whole */
	const char *base_path;
	struct snapshot_identity identity; /* after the end: of this one */
};

/* @base, @base_path: of an increment, or NULL; they stay, and @path. 0 or -errno with one line. */
int snapshot_begin(struct snapshot_writer *w, const char *path, u64 memory,
		   const struct snapshot_identity *base, const char *base_path, struct why *why);
void snapshot_abort(struct snapshot_writer *w); /* also after the end, and one of zeros */

/* A page in any order and as often as it changes; @data is copied at once. */
int snapshot_page(struct snapshot_writer *w, u64 page, const u8 *data, struct why *why);
int snapshot_end(struct snapshot_writer *w, const char *description, const void *state, size_t n,
		 struct why *why);

struct snapshot {
	int fd;
	const char *path;
	struct snapshot_header header;
	struct description description;
	u8 *state;
	size_t state_size;
	u32 *roots, *sums;
	u64 *has_sums; /* a bit per root: these sums were read and are right */
	u64 *held;     /* NULL: every page is in this file */
	struct snapshot *base;
	char *base_path; /* as it was found */
};

/* All but the memory is read and checked, of the bases too. 0, or -errno with the place and the reason. */
int snapshot_open(struct snapshot *s, const char *path, struct why *why);
void snapshot_close(struct snapshot *s); /* also one of zeros */

/*
 * What follows is one thread's. The run of pages from @first on, at most @max, that are in one file and are all data or all a hole;
 * returns how many, and the file.
 */
u64 snapshot_run(struct snapshot *s, u64 first, u64 max, struct snapshot **file, bool *is_hole);

/* Such a run is read to @to and checked, or only checked if it is a hole. 0 or -errno with the place and the reason. */
int snapshot_read(struct snapshot *file, u64 first, u64 n, bool is_hole, u8 *to, struct why *why);

/*
 * Held: the machine has the memory of @s, and neither its state nor has it run. What it writes from here on is followed, so that an
 * increment to @s can be taken. 0 or -errno with one line.
 */
int snapshot_follow(const struct control_machine *m, const struct snapshot *s, struct why *why);

/* Read and check all memory, which is zeros. */
int snapshot_load(struct snapshot *s, const struct ram *ram, struct why *why);

/* For what reads the parts: @n bytes at @at; and the refusal. */
int snapshot_bytes(const struct snapshot *s, void *out, size_t n, u64 at, struct why *why);
int snapshot_refuse(const struct snapshot *s, struct why *why, const char *what, u64 at);

static inline struct snapshot_identity snapshot_identity_of(const struct snapshot *s)
{
	struct snapshot_identity id = { .crc = s->header.crc };

	for (unsigned i = 0; i < SNAPSHOT_IDENTITY; i++)
		id.identity[i] = s->header.identity[i];
	return id;
}

#endif

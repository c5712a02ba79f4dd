/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Snapshot files: a machine's description, its state, and its memory at the places where it can be mapped. */
/*
 *	0                  header: magic, format, sizes and places of the parts, checksums; the rest of the page is zeros
 *	SNAPSHOT_RAM_AT    memory, page by page; pages of zeros are holes
 *	after it           a CRC-32C per page, the description (JSON), the state (vmm/dev/state.h)
 *
 * Everything has a checksum, and the parts fill the file exactly: a byte more or less, or a bit that changed, is found. The file is
 * written under another name, brought to the disk, and renamed: a snapshot is there whole or not at all.
 */
#ifndef VMM_MOVE_SNAPSHOT_H
#define VMM_MOVE_SNAPSHOT_H

#include <pthread.h>
#include <stdatomic.h>

#include "vmm/move/describe.h"

#define SNAPSHOT_RAM_AT	   (2ull << 20) /* large pages of the file are large pages of the guest */
#define SNAPSHOT_RUN	   64u		/* pages of one write */
#define SNAPSHOT_STATE_MAX (64u << 20)

struct snapshot_writer {
	int fd;
	const char *path;
	char temporary[4200];
	u64 memory;
	u32 *sums;
	u8 *run; /* pages that are written together */
	u64 run_first;
	unsigned run_count;
	u64 bytes;    /* of memory, written up to now */
	u8 *has_data; /* a byte per page: it is no hole */
};

/* 0 or -errno with one line; @path stays. */
int snapshot_begin(struct snapshot_writer *w, const char *path, u64 memory, struct why *why);
void snapshot_abort(struct snapshot_writer *w); /* also after the end, and one of zeros */

/* A page in any order and as often as it changes; @data is copied at once. */
int snapshot_page(struct snapshot_writer *w, u64 page, const u8 *data, struct why *why);
int snapshot_end(struct snapshot_writer *w, const char *description, const void *state, size_t n,
		 struct why *why);

struct snapshot {
	int fd;
	const char *path;
	struct description description;
	u8 *state;
	size_t state_size;
	u32 *sums;

	/* Of a lazy one: what the mapped file is checked by while the guest runs. */
	pthread_t thread;
	bool has_thread;
	atomic_bool cancelled;
	void (*damaged)(void *owner, const char *text);
	void *owner;
};

/* All but the memory is read and checked. 0, or -errno with the place and the reason. */
int snapshot_open(struct snapshot *s, const char *path, struct why *why);
void snapshot_close(struct snapshot *s); /* also one of zeros */

/* Read and check all memory. */
int snapshot_load(const struct snapshot *s, const struct ram *ram, struct why *why);

/* Map it: pages are read when they are used. They are checked by a thread meanwhile, and damaged() is called when one is wrong. */
int snapshot_map(struct snapshot *s, const struct ram *ram,
		 void (*damaged)(void *owner, const char *text), void *owner, struct why *why);

#endif

/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* What the files of this folder share: struct mem and the arena of descriptors. */
#ifndef MEM_PRIVATE_H
#define MEM_PRIVATE_H

#include <pthread.h>

#include "mem/dirty.h"

/* KVM_USER_MEM_SLOTS and the three that the kernel keeps for itself (TSS, identity map, APIC). */
#define SLOT_IDS 32767

/* A free piece of the arena, in descriptors. */
struct arena_piece {
	u64 *start;
	u64 n;
};

struct arena_chunk {
	u64 *start;
	u64 n;
};

struct arena {
	struct arena_piece *piece; /* sorted by address, never adjacent */
	struct arena_chunk *chunk;
	size_t npieces, cap_pieces, nchunks, cap_chunks;
	size_t nused; /* ranges handed out */
};

/* Zeroed descriptors for @npages pages, or NULL. */
u64 *arena_alloc(struct arena *a, u64 npages);
void arena_free(struct arena *a, u64 *desc, u64 npages);
void arena_destroy(struct arena *a);

/*
 * Both arrays live in one lazily touched mapping. Slot structures are type-stable: they are reused
 * for slots of the same number only and are unmapped with the VM, so that a stale hint may be
 * looked at: a slot that is gone has npages 0. There are two per number because a move needs both.
 */
struct slot_space {
	struct slot **list;	/* sorted by base_gfn, n entries; guarded by mem->seq */
	struct slot (*pool)[2]; /* by slot number */
	struct slot **by_id;	/* the live one of the two, or NULL; under mem->lock */
	u32 n;
};

struct mem {
	u32 seq;     /* odd while a list is being changed; readers try again */
	u32 copiers; /* copies of copy.c under way: a slot that is gone is given back when none is */
	struct slot_space space[MEM_SPACES];
	struct arena arena;
	u64 total_pages;
	u64 serial;	   /* of the newest slot */
	u64 pages[LEVELS]; /* mappings of the second stage, atomic */
	u8 collector;	   /* enum dirty_collector */
	bool initially_set;
	bool ring;		    /* vCPUs have rings */
	bool ring_waiting;	    /* bitmaps hold what is meant for a ring */
	u64 nlogged;		    /* slots with a log; 0 again when the VM is destroyed */
	struct mem_writer *writers; /* vCPUs */
	struct dirty_stats stats;
	pthread_mutex_t lock;
	const struct mem_ops *ops;
	void *owner;
	void *map;
	size_t map_size;
};

#endif

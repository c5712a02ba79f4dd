/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The levels of the second stage: a mapping is as large as its slot allows, and 4 KiB where writes are logged. */
#ifndef MEM_LEVELS_H
#define MEM_LEVELS_H

#include "mem/mem.h"

/*
 * Over the 4 KiB descriptors of a slot lie two more arrays, one entry per 2 MiB and per 1 GiB. A block entry says
 * where the truth about its 512 pages is:
 *
 *	0		nothing is mapped
 *	R | PS		a large mapping: A, D and W are those of all its pages; the 4 KiB descriptors mean nothing but
 *			for the code marks. With BLOCK_UP it is part of a mapping of 1 GiB, whose entry is in giga[]
 *	R		the 4 KiB descriptors; n * BLOCK_ONE of them are present. With BLOCK_STALE their W and D are
 *			from before the logging: whoever writes first clears them. So is every block of a slot that is not logged
 *
 * Changes of level need slot->level_lock, which is held for a loop over 512 entries at most. A, D, W and the count
 * change without it. All of it is compare-and-swap, so that no bit is lost; readers take no lock.
 * A level changes in place: nothing is allocated, nothing can fail, no tag has to go.
 */
#define BLOCK_SHIFT 9  /* pages per block, as a power of two */
#define GIGA_SHIFT  18 /* pages per GiB */
#define BLOCK_ONE   BIT_ULL(12)
#define BLOCK_COUNT (0x3ffull << 12)
#define BLOCK_STALE BIT_ULL(60)
#define BLOCK_UP    BIT_ULL(61)
#define S2_WRITTEN  (S2_R | S2_W | S2_A | S2_D)

static inline u64 slot_blocks(gfn_t base, u64 npages)
{
	return ((base + npages - 1) >> BLOCK_SHIFT) - (base >> BLOCK_SHIFT) + 1;
}

static inline u64 slot_gigas(gfn_t base, u64 npages)
{
	return ((base + npages - 1) >> GIGA_SHIFT) - (base >> GIGA_SHIFT) + 1;
}

static inline u64 *slot_block(const struct slot *s, gfn_t gfn)
{
	return &s->block[(gfn >> BLOCK_SHIFT) - (s->base_gfn >> BLOCK_SHIFT)];
}

static inline u64 *slot_giga(const struct slot *s, gfn_t gfn)
{
	return &s->giga[(gfn >> GIGA_SHIFT) - (s->base_gfn >> GIGA_SHIFT)];
}

static inline bool slot_is_logged(const struct slot *s)
{
	return __atomic_load_n(&s->logged, __ATOMIC_ACQUIRE);
}

/* Whether the 4 KiB descriptors say which page was written since the logging began. */
static inline bool block_is_split(u64 block)
{
	return (block & (S2_R | S2_PS | BLOCK_STALE)) == S2_R;
}

/* Set and clear bits of a descriptor; returns what it was. Plain load when nothing changes. */
static inline u64 desc_update(u64 *desc, u64 set, u64 clear)
{
	u64 old = __atomic_load_n(desc, __ATOMIC_RELAXED), new;

	do {
		new = (old & ~clear) | set;
		if (new == old)
			break;
	} while (!__atomic_compare_exchange_n(desc, &old, new, true, __ATOMIC_SEQ_CST,
					      __ATOMIC_RELAXED));
	return old;
}

/* Set @bits in whatever maps @gfn; maps it first, as large as allowed, when nothing does. */
void stage2_touch(struct slot *s, gfn_t gfn, u64 bits);

/* Set @bits in the 4 KiB descriptor of a block that is split. */
void stage2_touch_4k(struct slot *s, gfn_t gfn, u64 bits);

/*
 * Make block_is_split() true for the block of @gfn, with W and D clear in all its pages. False: the slot is not
 * logged any more, and nothing was changed.
 */
bool stage2_split(struct slot *s, gfn_t gfn);

/* Logging begins: no W or D of a split block holds any more. Logging has ended: the largest level again. */
void stage2_make_stale(struct slot *s);
void stage2_restore(struct slot *s);

/* The slot goes: take its pages off the statistics. */
void stage2_uncount(struct slot *s);

#endif

/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Mapping, splitting and restoring large pages of the second stage. Leaf code. */
#include "mem/levels.h"

static void lock(struct slot *s)
{
	while (__atomic_exchange_n(&s->level_lock, 1, __ATOMIC_ACQUIRE))
		__builtin_ia32_pause();
}

static void unlock(struct slot *s)
{
	__atomic_store_n(&s->level_lock, 0, __ATOMIC_RELEASE);
}

static void count(struct slot *s, enum stage2_level level, s64 n)
{
	__atomic_add_fetch(&s->pages[level], n, __ATOMIC_RELAXED);
}

static u64 block_count(u64 block)
{
	return (block & BLOCK_COUNT) / BLOCK_ONE;
}

/* Whether the 2^@shift pages around @gfn are all in the slot and lie alike in the VMM's memory. */
static bool level_fits(const struct slot *s, gfn_t gfn, unsigned shift)
{
	gfn_t first = gfn >> shift << shift, n = 1ull << shift;
	u64 bytes = n << PAGE_SHIFT;

	return first >= s->base_gfn && first - s->base_gfn + n <= s->npages &&
	       !(((hva_t)s->hva - (s->base_gfn << PAGE_SHIFT)) & (bytes - 1));
}

/*
 * What an unmapped block becomes. Under the lock. Not logged, it is stale from the start: logging may begin between this
 * and the marks that its pages get, after stage2_make_stale() has been here.
 */
static u64 block_wanted(struct slot *s, gfn_t gfn)
{
	u64 *giga = slot_giga(s, gfn);

	if (slot_is_logged(s))
		return S2_R;
	if (!level_fits(s, gfn, BLOCK_SHIFT))
		return S2_R | BLOCK_STALE;
	if (level_fits(s, gfn, GIGA_SHIFT) && (!*giga || *giga & S2_PS)) {
		if (!*giga)
			count(s, LEVEL_1G, 1);
		desc_update(giga, S2_R | S2_PS, 0);
		return S2_R | S2_PS | BLOCK_UP;
	}
	count(s, LEVEL_2M, 1);
	return S2_R | S2_PS;
}

static __attribute__((noinline)) void block_map(struct slot *s, gfn_t gfn)
{
	u64 *block = slot_block(s, gfn);

	lock(s);
	if (!__atomic_load_n(block, __ATOMIC_RELAXED))
		desc_update(block, block_wanted(s, gfn), 0);
	unlock(s);
}

/* One more page is present, if the block is still one of 4 KiB pages. */
static void block_count_page(struct slot *s, u64 *block)
{
	u64 b = __atomic_load_n(block, __ATOMIC_RELAXED);

	do {
		if (!(b & S2_R) || b & S2_PS)
			return;
	} while (!__atomic_compare_exchange_n(block, &b, b + BLOCK_ONE, true, __ATOMIC_SEQ_CST,
					      __ATOMIC_RELAXED));
	count(s, LEVEL_4K, 1);
}

void stage2_touch_4k(struct slot *s, gfn_t gfn, u64 bits)
{
	if (unlikely(!(desc_update(slot_desc(s, gfn), bits, 0) & S2_R)))
		block_count_page(s, slot_block(s, gfn));
}

void stage2_touch(struct slot *s, gfn_t gfn, u64 bits)
{
	u64 *block = slot_block(s, gfn), b = __atomic_load_n(block, __ATOMIC_ACQUIRE);

	for (;;) {
		if (likely(b & S2_PS)) {
			if (likely((b & bits) == bits) ||
			    __atomic_compare_exchange_n(block, &b, b | bits, false,
							__ATOMIC_SEQ_CST, __ATOMIC_ACQUIRE))
				return;
			continue;
		}
		if (b & S2_R) {
			stage2_touch_4k(s, gfn, bits);
			return;
		}
		block_map(s, gfn);
		b = __atomic_load_n(block, __ATOMIC_ACQUIRE);
	}
}

struct range {
	gfn_t first, end;
};

/* Pages of the slot in the 2^@shift pages around @gfn. */
static struct range level_range(const struct slot *s, gfn_t gfn, unsigned shift)
{
	gfn_t end = s->base_gfn + s->npages;
	struct range r = { gfn >> shift << shift, ((gfn >> shift) + 1) << shift };

	r.first = r.first < s->base_gfn ? s->base_gfn : r.first;
	r.end = r.end > end ? end : r.end;
	return r;
}

/* The GiB around @gfn becomes blocks of 2 MiB. Under the lock. */
static void giga_split(struct slot *s, gfn_t gfn)
{
	u64 *giga = slot_giga(s, gfn), n = 0;
	struct range r = level_range(s, gfn, GIGA_SHIFT);

	for (gfn_t at = r.first; at < r.end; at += BIT(BLOCK_SHIFT))
		n += !!(desc_update(slot_block(s, at), 0, BLOCK_UP) & BLOCK_UP);
	desc_update(giga, S2_R, S2_PS);
	count(s, LEVEL_1G, -1);
	count(s, LEVEL_2M, n);
}

/*
 * The descriptors are cleared before the block is published as split, so that who sees it split finds nothing old.
 * Pages of a stale block stay present; those of a large one are mapped when they are touched.
 */
bool stage2_split(struct slot *s, gfn_t gfn)
{
	u64 *block = slot_block(s, gfn), b, clear;
	struct range r = level_range(s, gfn, BLOCK_SHIFT);
	bool logged;

	lock(s);
	logged = slot_is_logged(s);
	b = __atomic_load_n(block, __ATOMIC_RELAXED);
	if (!logged || block_is_split(b))
		goto out;
	if (b & BLOCK_UP)
		giga_split(s, gfn);
	clear = b & S2_PS ? S2_R | S2_A | S2_W | S2_D : S2_W | S2_D;
	for (gfn = r.first; b && gfn < r.end; gfn++)
		desc_update(slot_desc(s, gfn), 0, clear);
	if (b & S2_PS)
		count(s, LEVEL_2M, -1);
	desc_update(block, S2_R, S2_PS | S2_A | S2_W | S2_D | BLOCK_STALE | BLOCK_UP);
out:
	unlock(s);
	return logged;
}

void stage2_make_stale(struct slot *s)
{
	u64 n = slot_blocks(s->base_gfn, s->npages);

	lock(s);
	for (u64 i = 0; i < n; i++)
		if ((s->block[i] & (S2_R | S2_PS)) == S2_R)
			desc_update(&s->block[i], BLOCK_STALE, 0);
	unlock(s);
}

/* A split block becomes what it may be at most: @up 1 GiB, else 2 MiB. Under the lock. Returns whether it is mapped. */
static bool block_restore(struct slot *s, u64 *block, bool up)
{
	u64 b = __atomic_load_n(block, __ATOMIC_RELAXED), new;

	if (!b)
		return false;
	new = S2_R | S2_PS | (up ? BLOCK_UP : 0);
	do {
		new |= b &(S2_A | S2_D | S2_W);
		if (!(b & S2_PS) && block_count(b))
			new |= S2_A;
	} while (!__atomic_compare_exchange_n(block, &b, new, false, __ATOMIC_SEQ_CST,
					      __ATOMIC_RELAXED));
	if (!(b & S2_PS))
		count(s, LEVEL_4K, -(s64)block_count(b));
	if (b & S2_PS && !(b & BLOCK_UP) && up)
		count(s, LEVEL_2M, -1);
	if (!(b & S2_PS) && !up)
		count(s, LEVEL_2M, 1);
	return true;
}

static void giga_restore(struct slot *s, gfn_t first, bool up)
{
	struct range r = level_range(s, first, GIGA_SHIFT);
	bool mapped = false;
	gfn_t at = r.first;

	while (at < r.end) {
		u64 *block = slot_block(s, at);

		if (level_fits(s, at, BLOCK_SHIFT))
			mapped |= block_restore(s, block, up);
		else if (__atomic_load_n(block, __ATOMIC_RELAXED))
			desc_update(block, BLOCK_STALE, 0);
		at = ((at >> BLOCK_SHIFT) + 1) << BLOCK_SHIFT;
	}
	if (up && mapped) {
		desc_update(slot_giga(s, first), S2_R | S2_PS, 0);
		count(s, LEVEL_1G, 1);
	}
}

void stage2_restore(struct slot *s)
{
	gfn_t end = s->base_gfn + s->npages, at = s->base_gfn;

	while (at < end) {
		bool up = level_fits(s, at, GIGA_SHIFT);

		lock(s);
		/* Stays as it is when nothing of it was split. */
		if (!(*slot_giga(s, at) & S2_PS))
			giga_restore(s, at, up);
		unlock(s);
		at = ((at >> GIGA_SHIFT) + 1) << GIGA_SHIFT;
	}
}

void stage2_uncount(struct slot *s)
{
	u64 nblocks = slot_blocks(s->base_gfn, s->npages);
	u64 ngigas = slot_gigas(s->base_gfn, s->npages);

	for (u64 i = 0; i < nblocks; i++) {
		u64 b = s->block[i];

		if (b & S2_PS && !(b & BLOCK_UP))
			count(s, LEVEL_2M, -1);
		else if (!(b & S2_PS))
			count(s, LEVEL_4K, -(s64)block_count(b));
	}
	for (u64 i = 0; i < ngigas; i++)
		if (s->giga[i] & S2_PS)
			count(s, LEVEL_1G, -1);
}

/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Creating, moving, changing and deleting slots, with the checks and errno of Linux. */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/kvm.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "mem/levels.h"
#include "mem/private.h"

#define SLOT_MAX_PAGES ((1ull << 31) - 1)	   /* KVM_MEM_MAX_NR_PAGES */
#define GFN_LIMIT      (1ull << (52 - PAGE_SHIFT)) /* widest MAXPHYADDR */
#define HVA_LIMIT      ((1ull << 47) - PAGE_SIZE)  /* TASK_SIZE_MAX */

static size_t space_size(void)
{
	return SLOT_IDS * (2 * sizeof(struct slot *) + 2 * sizeof(struct slot));
}

struct mem *mem_create(const struct mem_ops *ops, void *owner)
{
	struct mem *m = calloc(1, sizeof(*m));
	u8 *p;

	if (!m)
		return NULL;
	m->map_size = MEM_SPACES * space_size();
	p = mmap(NULL, m->map_size, PROT_READ | PROT_WRITE,
		 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (p == MAP_FAILED) {
		free(m);
		return NULL;
	}
	m->map = p;
	for (unsigned i = 0; i < MEM_SPACES; i++, p += space_size()) {
		struct slot_space *sp = &m->space[i];

		sp->list = (struct slot **)p;
		sp->by_id = sp->list + SLOT_IDS;
		sp->pool = (struct slot(*)[2])(sp->by_id + SLOT_IDS);
	}
	pthread_mutex_init(&m->lock, NULL);
	m->ops = ops;
	m->owner = owner;
	return m;
}

void mem_destroy(struct mem *m)
{
	if (!m)
		return;
	for (unsigned i = 0; i < MEM_SPACES; i++)
		for (u32 k = 0; k < m->space[i].n; k++)
			if (m->space[i].list[k]->logged)
				dirty_log_stop(m->space[i].list[k]);
	if (m->nlogged)
		fprintf(stderr, "anykvm: %lu memory slots too many counted as logged\n",
			m->nlogged);
	arena_destroy(&m->arena);
	pthread_mutex_destroy(&m->lock);
	munmap(m->map, m->map_size);
	free(m);
}

static void flush(struct mem *m)
{
	if (m->ops && m->ops->flush_all)
		m->ops->flush_all(m->owner);
}

static void drop_writes(struct mem *m)
{
	if (m->ops && m->ops->drop_writes)
		m->ops->drop_writes(m->owner, false);
}

/* Devices that found the slot before it went. None waits for anything but host memory. */
static void copiers_wait(const struct mem *m)
{
	while (__atomic_load_n(&m->copiers, __ATOMIC_SEQ_CST))
		sched_yield();
}

/* Index of the first slot at or above @gfn. */
static u32 list_position(const struct slot_space *sp, gfn_t gfn)
{
	u32 low = 0, high = sp->n;

	while (low < high) {
		u32 mid = low + (high - low) / 2;

		if (sp->list[mid]->base_gfn < gfn)
			low = mid + 1;
		else
			high = mid;
	}
	return low;
}

static void list_remove(struct slot_space *sp, const struct slot *s)
{
	u32 i = list_position(sp, s->base_gfn), n = sp->n - 1;

	__atomic_store_n(&sp->n, n, __ATOMIC_RELAXED);
	for (; i < n; i++)
		__atomic_store_n(&sp->list[i], sp->list[i + 1], __ATOMIC_RELAXED);
}

static void list_insert(struct slot_space *sp, struct slot *s)
{
	u32 i = list_position(sp, s->base_gfn);

	for (u32 k = sp->n; k > i; k--)
		__atomic_store_n(&sp->list[k], sp->list[k - 1], __ATOMIC_RELAXED);
	__atomic_store_n(&sp->list[i], s, __ATOMIC_RELAXED);
	__atomic_store_n(&sp->n, sp->n + 1, __ATOMIC_RELEASE);
}

/* Replace @old by @new (either may be NULL) for all readers at once. */
static void list_publish(struct mem *m, struct slot_space *sp, struct slot *old, struct slot *new)
{
	__atomic_store_n(&m->seq, m->seq + 1, __ATOMIC_RELAXED);
	__atomic_thread_fence(__ATOMIC_RELEASE);
	if (old)
		list_remove(sp, old);
	if (new)
		list_insert(sp, new);
	__atomic_store_n(&m->seq, m->seq + 1, __ATOMIC_RELEASE);
}

/* Whether a slot other than @self lies in [gfn, gfn + npages). */
static bool range_taken(const struct slot_space *sp, const struct slot *self, gfn_t gfn, u64 npages)
{
	u32 i = list_position(sp, gfn);

	if (i && sp->list[i - 1] != self && slot_has(sp->list[i - 1], gfn))
		return true;
	for (; i < sp->n && sp->list[i]->base_gfn < gfn + npages; i++) {
		if (sp->list[i] != self)
			return true;
	}
	/* @self before @gfn may hide the slot before it, but that one ends where @self begins. */
	return false;
}

/* Descriptors of all levels, in one range of the arena. */
static u64 desc_count(gfn_t base, u64 npages)
{
	return npages + slot_blocks(base, npages) + slot_gigas(base, npages);
}

/*
 * Whoever was waited for in flush() was the last vCPU to use @s. Its log has the last entries then; it may go on in
 * another slot.
 */
static void slot_retire(struct mem *m, struct slot *s, bool log_moved)
{
	u64 npages = s->npages;

	copiers_wait(m);
	dirty_drain_all(m);
	if (log_moved)
		s->logged = false;
	else if (s->logged)
		dirty_log_stop(s);
	if (log_moved)
		s->log = (struct dirty_log){ 0 };
	dirty_log_destroy(s);
	stage2_uncount(s);
	__atomic_store_n(&s->npages, 0, __ATOMIC_RELEASE);
	arena_free(&m->arena, s->desc, desc_count(s->base_gfn, npages));
	m->total_pages -= npages;
}

static int slot_delete(struct mem *m, struct slot_space *sp, struct slot *old)
{
	if (!old)
		return -EINVAL;
	list_publish(m, sp, old, NULL);
	sp->by_id[(u16)old->id] = NULL;
	flush(m);
	slot_retire(m, old, false);
	return 0;
}

/* The log of a slot that is made or moved, before anybody knows of it: npages is 0 still. */
static int log_place(struct slot *new, struct slot *old, u64 npages)
{
	int r;

	if (!(new->flags &KVM_MEM_LOG_DIRTY_PAGES))
		return 0;
	if (old && old->logged) {
		dirty_log_move(new, old);
		return 0;
	}
	r = dirty_log_create(new, npages);
	if (!r)
		dirty_log_start(new);
	return r;
}

/* Create @want, or move @old there: a move starts with fresh descriptors, as nothing is mapped. */
static int slot_place(struct mem *m, struct slot_space *sp, struct slot *old,
		      const struct slot *want)
{
	struct slot *pair = sp->pool[(u16)want->id], *new = &pair[old == &pair[0]];
	u64 *desc;

	if (want->base_gfn + want->npages > GFN_LIMIT)
		return -EINVAL;
	desc = arena_alloc(&m->arena, desc_count(want->base_gfn, want->npages));
	if (!desc)
		return -ENOMEM;
	/* Not *new = ...: npages is 0, and stays it until all else is there. */
	new->id = want->id;
	new->flags = want->flags;
	new->base_gfn = want->base_gfn;
	new->hva = want->hva;
	new->desc = desc;
	new->block = desc + want->npages;
	new->giga = new->block + slot_blocks(want->base_gfn, want->npages);
	new->serial = ++m->serial;
	new->mem = m;
	new->pages = m->pages;
	new->late = &m->ring_waiting;
	new->mark = m->collector == DIRTY_PML ? S2_D : S2_W;
	if (log_place(new, old, want->npages)) {
		arena_free(&m->arena, desc, desc_count(want->base_gfn, want->npages));
		return -ENOMEM;
	}
	__atomic_store_n(&new->npages, want->npages, __ATOMIC_RELEASE);
	m->total_pages += want->npages;
	list_publish(m, sp, old, new);
	sp->by_id[(u16)want->id] = new;
	if (old) {
		flush(m);
		slot_retire(m, old, new->log.bits &&new->log.bits == old->log.bits);
	}
	return 0;
}

/* Logging on or off: translations stay; tags that were granted unlogged go, and the levels follow. */
static int slot_flags(struct mem *m, struct slot *s, u32 flags)
{
	bool on = flags & KVM_MEM_LOG_DIRTY_PAGES, change = on != s->logged;

	if (on && change && dirty_log_create(s, s->npages))
		return -ENOMEM;
	__atomic_store_n(&s->flags, flags, __ATOMIC_RELEASE);
	if (!change)
		return 0;
	if (on) {
		stage2_make_stale(s);
		dirty_log_start(s);
		drop_writes(m);
	} else {
		dirty_log_stop(s);
		stage2_restore(s);
	}
	return 0;
}

static int slot_change(struct mem *m, struct slot_space *sp, struct slot *old,
		       const struct slot *want)
{
	if (old) {
		if (want->hva != old->hva || want->npages != old->npages ||
		    (want->flags ^ old->flags) & KVM_MEM_READONLY)
			return -EINVAL;
		if (want->base_gfn == old->base_gfn)
			return slot_flags(m, old, want->flags);
	}
	if (range_taken(sp, old, want->base_gfn, want->npages))
		return -EEXIST;
	return slot_place(m, sp, old, want);
}

/* The general checks of __kvm_set_memory_region(). */
static bool slot_is_valid(unsigned space, const struct slot *want)
{
	u64 size = want->npages << PAGE_SHIFT;
	hva_t hva = (hva_t)want->hva;

	return !(want->flags & ~(KVM_MEM_LOG_DIRTY_PAGES | KVM_MEM_READONLY)) &&
	       space < MEM_SPACES && (u16)want->id < SLOT_IDS && want->npages <= SLOT_MAX_PAGES &&
	       !(hva & ~PAGE_MASK) && hva <= HVA_LIMIT && size <= HVA_LIMIT - hva &&
	       want->base_gfn < 1ull << (64 - PAGE_SHIFT) &&
	       (want->base_gfn << PAGE_SHIFT) + size >= size;
}

int mem_slot_set(struct mem *m, unsigned space, u32 id, u32 flags, gfn_t gfn, u64 npages, u8 *hva)
{
	struct slot want = { .id = (u16)id | space << 16,
			     .flags = flags,
			     .base_gfn = gfn,
			     .npages = npages,
			     .hva = hva };
	struct slot_space *sp;
	struct slot *old;
	int r;

	if (!slot_is_valid(space, &want))
		return -EINVAL;
	pthread_mutex_lock(&m->lock);
	sp = &m->space[space];
	old = sp->by_id[(u16)id];
	r = npages ? slot_change(m, sp, old, &want) : slot_delete(m, sp, old);
	pthread_mutex_unlock(&m->lock);
	return r;
}

struct slot *mem_slot_by_id(const struct mem *m, unsigned space, u32 id)
{
	return space < MEM_SPACES && (u16)id < SLOT_IDS ? m->space[space].by_id[(u16)id] : NULL;
}

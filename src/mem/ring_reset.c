/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Dirty rings of a VM: setting them up, taking back what was harvested, and what was written on nobody's behalf. */
#include <limits.h>

#include "mem/levels.h"
#include "mem/private.h"

void mem_ring_enable(struct mem *m)
{
	m->ring = true;
}

void mem_ring_attach(struct mem_writer *w, struct kvm_dirty_gfn *entries, u32 size)
{
	w->ring = (struct dirty_ring){ .entry = entries, .size = size };
}

/* The page may be written unseen until now. Slot and offset are the program's: both ends are checked. */
static void page_unmark(struct mem *m, u32 id, u64 offset)
{
	struct slot *s = mem_slot_by_id(m, id >> 16, (u16)id);

	if (!s || !s->logged || offset >= s->npages)
		return;
	if (block_is_split(__atomic_load_n(slot_block(s, s->base_gfn + offset), __ATOMIC_SEQ_CST)))
		desc_update(&s->desc[offset], 0, s->mark);
}

long mem_ring_reset(struct mem *m)
{
	long n = 0;
	u64 offset;
	u32 slot;

	pthread_mutex_lock(&m->lock);
	for (struct mem_writer *w = m->writers; w; w = w->next)
		while (w->ring.entry && n < INT_MAX && ring_take(&w->ring, &slot, &offset)) {
			page_unmark(m, slot, offset);
			n++;
		}
	m->stats.harvests++;
	m->stats.pages += n;
	if (!n)
		m->stats.empty++;
	else if (m->ops && m->ops->drop_writes)
		m->ops->drop_writes(m->owner, true);
	pthread_mutex_unlock(&m->lock);
	return n;
}

/* The entry first: a page is recorded twice for a moment rather than not at all. Returns whether there is room for more. */
static bool word_refill(struct mem_writer *w, struct slot *s, u64 word)
{
	u64 *at = &s->log.bits[word], left = __atomic_load_n(at, __ATOMIC_SEQ_CST);
	u32 number;

	for (; left; left &= left - 1) {
		u64 bit = left & -left;

		if (ring_is_soft_full(&w->ring) ||
		    !ring_push(&w->ring, s->id, word * 64 + __builtin_ctzll(bit), &number))
			return false;
		__atomic_fetch_and(at, ~bit, __ATOMIC_SEQ_CST);
		w->mem->stats.ring_late++;
	}
	return true;
}

static bool slot_refill(struct mem_writer *w, struct slot *s)
{
	struct dirty_log *l = &s->log;

	for (u64 k = 0; k < l->nsummary; k++) {
		u64 left = __atomic_exchange_n(&l->summary[k], 0, __ATOMIC_SEQ_CST);

		for (u64 set = left; set; set &= set - 1)
			if (!word_refill(w, s, k * 64 + __builtin_ctzll(set))) {
				__atomic_fetch_or(&l->summary[k], set, __ATOMIC_SEQ_CST);
				return false;
			}
	}
	return true;
}

/* The owner of the ring is the caller, so that entries have one producer. */
void mem_ring_refill(struct mem_writer *w)
{
	struct mem *m = w->mem;
	bool room = true;

	if (likely(!w->ring.entry || !__atomic_load_n(&m->ring_waiting, __ATOMIC_ACQUIRE)))
		return;
	pthread_mutex_lock(&m->lock);
	__atomic_store_n(&m->ring_waiting, false, __ATOMIC_SEQ_CST);
	for (unsigned i = 0; i < MEM_SPACES; i++)
		for (u32 k = 0; k < m->space[i].n && room; k++)
			if (m->space[i].list[k]->logged)
				room = slot_refill(w, m->space[i].list[k]);
	if (!room)
		__atomic_store_n(&m->ring_waiting, true, __ATOMIC_SEQ_CST);
	pthread_mutex_unlock(&m->lock);
}

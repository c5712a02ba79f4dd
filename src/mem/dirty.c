/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Recording writes: bitmap with summary, page modification log. Leaf code; the protocol is in dirty.h. */
#include "mem/dirty.h"

#include "mem/levels.h"

static void bit_set(u64 *word, u64 bit)
{
	if (!(__atomic_load_n(word, __ATOMIC_ACQUIRE) & bit))
		__atomic_fetch_or(word, bit, __ATOMIC_SEQ_CST);
}

/*
 * First the bit, then the summary, which a harvester clears in the reverse order; and whoever finds the bit set looks
 * at the summary too: so when this returns, a harvester that begins later finds the page.
 */
void dirty_bit_set(struct slot *s, gfn_t gfn)
{
	u64 i = gfn - s->base_gfn, word = i / 64;

	bit_set(&s->log.bits[word], BIT_ULL(i % 64));
	bit_set(&s->log.summary[word / 64], BIT_ULL(word % 64));
	if (unlikely(!__atomic_load_n(s->late, __ATOMIC_RELAXED)))
		__atomic_store_n(s->late, true, __ATOMIC_SEQ_CST);
}

static bool bit_stands(const struct slot *s, gfn_t gfn)
{
	u64 i = gfn - s->base_gfn;

	return __atomic_load_n(&s->log.bits[i / 64], __ATOMIC_SEQ_CST) & BIT_ULL(i % 64);
}

u32 pml_drain(struct pml *p)
{
	u32 head, tail, n;

	while (__atomic_exchange_n(&p->lock, 1, __ATOMIC_ACQUIRE))
		__builtin_ia32_pause();
	tail = p->tail;
	head = __atomic_load_n(&p->head, __ATOMIC_ACQUIRE);
	n = head - tail;
	for (; tail != head; tail++) {
		struct pml_entry *e = &p->entry[tail % PML_SIZE];

		if (slot_is_logged(e->slot))
			dirty_bit_set(e->slot, e->gfn);
	}
	__atomic_store_n(&p->tail, tail, __ATOMIC_RELEASE);
	__atomic_store_n(&p->lock, 0, __ATOMIC_RELEASE);
	return n;
}

/* Returns the number of the entry. */
static u32 pml_push(struct mem_writer *w, struct slot *s, gfn_t gfn)
{
	struct pml *p = w->pml;
	u32 head = p->head;

	if (unlikely(head - __atomic_load_n(&p->tail, __ATOMIC_ACQUIRE) == PML_SIZE)) {
		w->pml_full++;
		pml_drain(p);
	}
	p->entry[head % PML_SIZE] = (struct pml_entry){ s, gfn };
	__atomic_store_n(&p->head, head + 1, __ATOMIC_RELEASE);
	w->pml_entries++;
	return head;
}

static bool pml_stands(const struct pml *p, u32 number)
{
	return (s32)(__atomic_load_n(&p->tail, __ATOMIC_SEQ_CST) - number) <= 0;
}

static void open_note(struct mem_writer *w, struct slot *s, gfn_t gfn)
{
	if (w->nopen < DIRTY_OPEN) {
		w->open[w->nopen].slot = s;
		w->open[w->nopen].gfn = gfn;
	}
	w->nopen++;
	/* Before the mark is looked at, also for a signal handler of this thread: dirty_renew(). */
	__atomic_signal_fence(__ATOMIC_SEQ_CST);
}

/* G0: before the mark is looked at, or a harvester might clear it and find nobody to ask. */
static void granted_note(struct mem_writer *w)
{
	if (unlikely(!w->granted))
		(void)__atomic_exchange_n(&w->granted, true, __ATOMIC_SEQ_CST);
}

/* G4 is missing in a build that the tests must find out: meson's option "broken". */
#ifdef ANYKVM_BROKEN_RECORD
#define RECORD_LOOKS_AGAIN false
#else
#define RECORD_LOOKS_AGAIN true
#endif

/* G2 to G4 for whoever has no log of its own, or with write protection. */
static void record_bit(struct slot *s, gfn_t gfn)
{
	do {
		dirty_bit_set(s, gfn);
		stage2_touch_4k(s, gfn, S2_WRITTEN);
	} while (RECORD_LOOKS_AGAIN && unlikely(!bit_stands(s, gfn)));
}

static void record_pml(struct mem_writer *w, struct slot *s, gfn_t gfn)
{
	u32 number;

	do {
		number = pml_push(w, s, gfn);
		stage2_touch_4k(s, gfn, S2_WRITTEN);
	} while (unlikely(!pml_stands(w->pml, number)));
}

/* A ring that is full, which the reserve makes unlikely, leaves it to the bitmap. */
static void record_ring(struct mem_writer *w, struct slot *s, gfn_t gfn)
{
	u32 number;

	do {
		if (!ring_push(&w->ring, s->id, gfn - s->base_gfn, &number)) {
			record_bit(s, gfn);
			return;
		}
		stage2_touch_4k(s, gfn, S2_WRITTEN);
	} while (unlikely(!ring_stands(&w->ring, number)));
}

void dirty_record(struct mem_writer *w, struct slot *s, gfn_t gfn, bool again)
{
	if (w) {
		granted_note(w);
		open_note(w, s, gfn);
	}
	while (unlikely(!block_is_split(__atomic_load_n(slot_block(s, gfn), __ATOMIC_ACQUIRE)))) {
		if (stage2_split(s, gfn))
			continue;
		/* Logging has ended; and may have begun again, as in page_grant_write(). */
		stage2_touch(s, gfn, S2_WRITTEN);
		if (!slot_is_logged(s))
			return;
		again = true;
	}
	if (!again && __atomic_load_n(slot_desc(s, gfn), __ATOMIC_RELAXED) & s->mark)
		return;
	if (w)
		w->records++;
	if (w && w->ring.entry)
		record_ring(w, s, gfn);
	else if (w && w->pml_on)
		record_pml(w, s, gfn);
	else
		record_bit(s, gfn);
}

/* The mark need not be set again: whoever finds it clear records once more. */
bool dirty_renew(struct mem_writer *w)
{
	if (w->nopen > DIRTY_OPEN)
		return false;
	for (u32 i = 0; i < w->nopen; i++)
		if (slot_is_logged(w->open[i].slot))
			dirty_bit_set(w->open[i].slot, w->open[i].gfn);
	return true;
}

void mem_writer_exit(struct mem_writer *w)
{
	if (unlikely(w->pml_on) &&
	    w->pml->head != __atomic_load_n(&w->pml->tail, __ATOMIC_RELAXED) && pml_drain(w->pml))
		w->pml_exit++;
}

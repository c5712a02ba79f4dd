/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Logs of slots and of vCPUs: creation, start, stop, move, counters. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "mem/levels.h"
#include "mem/private.h"

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif
#define POPULATE_MIN (64u << 10)

static u64 log_words(const struct dirty_log *l)
{
	return 2 * l->nwords + 2 * l->nsummary;
}

int dirty_log_create(struct slot *s, u64 npages)
{
	struct dirty_log *l = &s->log;
	u64 *p;

	if (l->bits)
		return 0;
	l->npages = npages;
	l->nwords = (npages + 63) / 64;
	l->nsummary = (l->nwords + 63) / 64;
	p = arena_alloc(&s->mem->arena, log_words(l));
	if (!p)
		return -ENOMEM;
	l->taken = p + l->nwords;
	l->summary = l->taken + l->nwords;
	l->taken_summary = l->summary + l->nsummary;
	l->bits = p;
	return 0;
}

void dirty_log_destroy(struct slot *s)
{
	if (s->log.bits)
		arena_free(&s->mem->arena, s->log.bits, log_words(&s->log));
	memset(&s->log, 0, sizeof(s->log));
}

/* In one piece: a fault per page would cost more than writing it. */
static void populate(void *start, u64 bytes)
{
	u64 first = ALIGN_DOWN((u64)start, PAGE_SIZE);

	if (bytes >= POPULATE_MIN)
		madvise((void *)first, (u64)start + bytes - first, MADV_POPULATE_WRITE);
}

/* Bits from before: nobody wants them. What late writers set while this runs belongs to the new log. */
static void bits_clear(struct dirty_log *l)
{
	for (u64 k = 0; k < l->nsummary; k++)
		for (u64 left = __atomic_exchange_n(&l->summary[k], 0, __ATOMIC_SEQ_CST); left;
		     left &= left - 1)
			__atomic_store_n(&l->bits[k * 64 + __builtin_ctzll(left)], 0,
					 __ATOMIC_SEQ_CST);
}

static void bits_set(struct dirty_log *l)
{
	populate(l->bits, l->nwords * sizeof(u64));
	memset(l->bits, 0xff, l->nwords * sizeof(u64));
	if (l->npages % 64)
		l->bits[l->nwords - 1] = BIT_ULL(l->npages % 64) - 1;
	memset(l->summary, 0xff, l->nsummary * sizeof(u64));
	if (l->nwords % 64)
		l->summary[l->nsummary - 1] = BIT_ULL(l->nwords % 64) - 1;
}

/* The first slot that is logged turns the logs of vCPUs on, the last one off. */
static void count_change(struct mem *m, s64 n)
{
	bool on = (m->nlogged += n) && m->collector == DIRTY_PML;

	for (struct mem_writer *w = m->writers; w; w = w->next)
		__atomic_store_n(&w->pml_on, on && w->pml, __ATOMIC_RELEASE);
}

/* Of a slot that is known already: before it stage2_make_stale(), after it the wait for vCPUs to drop their tags. */
void dirty_log_start(struct slot *s)
{
	dirty_drain_all(s->mem);
	if (s->mem->initially_set && !s->mem->ring)
		bits_set(&s->log);
	else
		bits_clear(&s->log);
	count_change(s->mem, 1);
	__atomic_store_n(&s->logged, true, __ATOMIC_SEQ_CST);
}

/* Late writers find memory there until the slot goes; what they record is not looked at. */
void dirty_log_stop(struct slot *s)
{
	__atomic_store_n(&s->logged, false, __ATOMIC_SEQ_CST);
	count_change(s->mem, -1);
}

/* Both are found by writers until all have let go of @from; each keeps to its own base. */
void dirty_log_move(struct slot *to, struct slot *from)
{
	to->log = from->log;
	__atomic_store_n(&to->logged, true, __ATOMIC_RELEASE);
}

struct mem_writer *mem_writer_create(struct mem *m)
{
	struct mem_writer *w = calloc(1, sizeof(*w));

	if (!w)
		return NULL;
	w->mem = m;
	if (m->collector == DIRTY_PML) {
		w->pml = calloc(1, sizeof(*w->pml));
		if (!w->pml) {
			free(w);
			return NULL;
		}
	}
	pthread_mutex_lock(&m->lock);
	w->next = m->writers;
	w->pml_on = w->pml && m->nlogged;
	m->writers = w;
	pthread_mutex_unlock(&m->lock);
	return w;
}

static void stats_add(struct dirty_stats *s, const struct mem_writer *w)
{
	s->records += __atomic_load_n(&w->records, __ATOMIC_RELAXED);
	s->pml_entries += __atomic_load_n(&w->pml_entries, __ATOMIC_RELAXED);
	s->pml_full += __atomic_load_n(&w->pml_full, __ATOMIC_RELAXED);
	s->pml_exit += __atomic_load_n(&w->pml_exit, __ATOMIC_RELAXED);
}

void mem_writer_destroy(struct mem_writer *w)
{
	struct mem_writer **p;
	struct mem *m;

	if (!w)
		return;
	m = w->mem;
	pthread_mutex_lock(&m->lock);
	if (w->pml)
		pml_drain(w->pml);
	stats_add(&m->stats, w);
	for (p = &m->writers; *p && *p != w; p = &(*p)->next)
		;
	if (*p)
		*p = w->next;
	pthread_mutex_unlock(&m->lock);
	free(w->pml);
	free(w);
}

void mem_dirty_collector(struct mem *m, enum dirty_collector c)
{
	m->collector = c;
}

void mem_dirty_initially_set(struct mem *m, bool on)
{
	__atomic_store_n(&m->initially_set, on, __ATOMIC_RELAXED);
}

void mem_dirty_stats(struct mem *m, struct dirty_stats *out)
{
	pthread_mutex_lock(&m->lock);
	*out = m->stats;
	for (const struct mem_writer *w = m->writers; w; w = w->next)
		stats_add(out, w);
	out->logged_slots = m->nlogged;
	pthread_mutex_unlock(&m->lock);
}

void mem_level_stats(const struct mem *m, u64 pages[LEVELS])
{
	for (unsigned i = 0; i < LEVELS; i++)
		pages[i] = __atomic_load_n(&m->pages[i], __ATOMIC_RELAXED);
}

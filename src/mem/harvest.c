/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Harvesting dirty logs: take bits, ask vCPUs to drop their tags, copy out. The protocol is in dirty.h. */
#define _GNU_SOURCE
#include <errno.h>

#include "mem/levels.h"
#include "mem/private.h"

#define CHUNK_WORDS 512u /* of a bitmap: what is copied at once */

static const u64 zeros[16 * CHUNK_WORDS];

/* Take the mark from the pages of one word. A block that is not split has none that counts. */
static void unmark(struct slot *s, u64 word, u64 bits)
{
	gfn_t first = s->base_gfn + word * 64;
	u64 *block = NULL;
	bool split = false;

	for (; bits; bits &= bits - 1) {
		gfn_t gfn = first + __builtin_ctzll(bits);
		u64 *b = slot_block(s, gfn);

		if (b != block) {
			block = b;
			split = block_is_split(__atomic_load_n(b, __ATOMIC_SEQ_CST));
		}
		if (split)
			desc_update(slot_desc(s, gfn), 0, s->mark);
	}
}

/* H3 and H4. */
static void drop_tags(struct mem *m)
{
	if (m->ops && m->ops->drop_writes)
		m->ops->drop_writes(m->owner, true);
}

/* H1 for one word of the summary. Returns pages. */
static u64 take_group(struct slot *s, u64 k)
{
	struct dirty_log *l = &s->log;
	u64 left, n = 0;

	if (!__atomic_load_n(&l->summary[k], __ATOMIC_RELAXED))
		return 0;
	left = __atomic_exchange_n(&l->summary[k], 0, __ATOMIC_SEQ_CST);
	l->taken_summary[k] = left;
	for (; left; left &= left - 1) {
		u64 word = k * 64 + __builtin_ctzll(left);
		u64 bits = __atomic_exchange_n(&l->bits[word], 0, __ATOMIC_SEQ_CST);

		l->taken[word] = bits;
		unmark(s, word, bits);
		n += __builtin_popcountll(bits);
	}
	return n;
}

static u64 take_all(struct slot *s)
{
	u64 n = 0;

	for (u64 k = 0; k < s->log.nsummary; k++)
		n += take_group(s, k);
	return n;
}

/* Whether the program has the bits: else they go back. Either way nothing is taken any more. */
static void taken_end(struct slot *s, bool back)
{
	struct dirty_log *l = &s->log;

	for (u64 k = 0; k < l->nsummary; k++) {
		u64 left = l->taken_summary[k];

		if (!left)
			continue;
		l->taken_summary[k] = 0;
		for (u64 set = left; set; set &= set - 1) {
			u64 word = k * 64 + __builtin_ctzll(set);

			if (back)
				__atomic_fetch_or(&l->bits[word], l->taken[word], __ATOMIC_SEQ_CST);
			l->taken[word] = 0;
		}
		if (back)
			__atomic_fetch_or(&l->summary[k], left, __ATOMIC_SEQ_CST);
	}
}

static bool group_is_empty(const u64 *summary, u64 word, u64 n)
{
	for (u64 k = word / 64; k <= (word + n - 1) / 64; k++)
		if (__atomic_load_n(&summary[k], __ATOMIC_RELAXED))
			return false;
	return true;
}

/* Words that are empty for sure from @word on, at most as many as there are zeros to copy. */
static u64 empty_run(const struct dirty_log *l, const u64 *summary, u64 word)
{
	u64 n = 0;

	while (word + n < l->nwords && n < ARRAY_SIZE(zeros)) {
		u64 more = l->nwords - word - n;

		more = more < CHUNK_WORDS ? more : CHUNK_WORDS;
		if (!group_is_empty(summary, word + n, more))
			break;
		n += more;
	}
	return n;
}

static int copy_out(const struct dirty_log *l, const u64 *bits, const u64 *summary,
		    const struct dirty_copy *copy)
{
	u64 chunk[CHUNK_WORDS];
	int r = 0;

	for (u64 word = 0, n; word < l->nwords && !r; word += n) {
		const u64 *from = zeros;

		n = empty_run(l, summary, word);
		if (!n) {
			n = l->nwords - word < CHUNK_WORDS ? l->nwords - word : CHUNK_WORDS;
			for (u64 i = 0; i < n; i++)
				chunk[i] = __atomic_load_n(&bits[word + i], __ATOMIC_RELAXED);
			from = chunk;
		}
		r = copy->out(copy->arg, word * sizeof(u64), from, n * sizeof(u64));
	}
	return r;
}

static int get_and_clear(struct mem *m, struct slot *s, const struct dirty_copy *copy)
{
	u64 n = take_all(s);
	int r;

	m->stats.pages += n;
	if (n)
		drop_tags(m);
	else
		m->stats.empty++;
	r = copy_out(&s->log, s->log.taken, s->log.taken_summary, copy);
	taken_end(s, r);
	return r;
}

int mem_dirty_get(struct mem *m, unsigned space, u32 id, bool keep, const struct dirty_copy *copy)
{
	struct slot *s;
	int r = -ENOENT;

	pthread_mutex_lock(&m->lock);
	s = mem_slot_by_id(m, space, id);
	if (s && s->logged) {
		m->stats.harvests++;
		dirty_drain_all(m);
		if (keep) {
			m->stats.empty++;
			r = copy_out(&s->log, s->log.bits, s->log.summary, copy);
		} else {
			r = get_and_clear(m, s, copy);
		}
	}
	pthread_mutex_unlock(&m->lock);
	return r;
}

/* A summary bit whose word has become empty only costs time; it goes when nobody sets the word meanwhile. */
static void summary_trim(struct dirty_log *l, u64 word)
{
	u64 *summary = &l->summary[word / 64], bit = BIT_ULL(word % 64);

	if (__atomic_load_n(&l->bits[word], __ATOMIC_SEQ_CST))
		return;
	__atomic_fetch_and(summary, ~bit, __ATOMIC_SEQ_CST);
	if (__atomic_load_n(&l->bits[word], __ATOMIC_SEQ_CST))
		__atomic_fetch_or(summary, bit, __ATOMIC_SEQ_CST);
}

/* The program's bitmap is in taken[], from word @first on. Only bits that were set are worth an effort. */
static u64 clear_words(struct slot *s, u64 first, u64 nwords)
{
	struct dirty_log *l = &s->log;
	u64 n = 0;

	for (u64 word = first; word < first + nwords; word++) {
		u64 mask = l->taken[word], got;

		if (!mask)
			continue;
		l->taken[word] = 0;
		if (!(__atomic_load_n(&l->bits[word], __ATOMIC_RELAXED) & mask))
			continue;
		got = __atomic_fetch_and(&l->bits[word], ~mask, __ATOMIC_SEQ_CST) & mask;
		unmark(s, word, got);
		summary_trim(l, word);
		n += __builtin_popcountll(got);
	}
	return n;
}

static int clear(struct mem *m, struct slot *s, u64 first, u64 npages,
		 const struct dirty_copy *copy)
{
	u64 word = first / 64, nwords = (npages + 63) / 64, n;

	if (first > s->npages || npages > s->npages - first ||
	    (npages < s->npages - first && npages & 63))
		return -EINVAL;
	dirty_drain_all(m);
	if (copy->in(copy->arg, &s->log.taken[word], nwords * sizeof(u64))) {
		for (u64 i = 0; i < nwords; i++)
			s->log.taken[word + i] = 0;
		return -EFAULT;
	}
	m->stats.harvests++;
	n = clear_words(s, word, nwords);
	m->stats.pages += n;
	if (n)
		drop_tags(m);
	else
		m->stats.empty++;
	return 0;
}

int mem_dirty_clear(struct mem *m, unsigned space, u32 id, u64 first, u64 npages,
		    const struct dirty_copy *copy)
{
	struct slot *s;
	int r;

	if (first & 63)
		return -EINVAL;
	pthread_mutex_lock(&m->lock);
	s = mem_slot_by_id(m, space, id);
	r = s && s->logged ? clear(m, s, first, npages, copy) : -ENOENT;
	pthread_mutex_unlock(&m->lock);
	return r;
}

void dirty_drain_all(struct mem *m)
{
	for (struct mem_writer *w = m->writers; w; w = w->next)
		if (w->pml)
			m->stats.pml_harvest += pml_drain(w->pml);
}

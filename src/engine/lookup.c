/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Looking up, linking and killing blocks: leaf code, runs under translated code. */
#include "base/bulk.h"
#include "engine/cache.h"

struct block *cache_find(const struct cache *c, gpa_t gpa, u32 mode, enum block_form form)
{
	unsigned h = cache_hash(gpa, mode);

	for (struct block *b = c->hash[h]; b; b = b->hash_next)
		if (b->gpa == gpa && b->mode == mode && b->form == form && !b->dead)
			return b;
	return NULL;
}

struct code_page *cache_page_find(const struct cache *c, gpa_t page)
{
	for (struct code_page *p = c->pages[(page >> PAGE_SHIFT) & (CACHE_PAGE_HASH - 1)]; p; p = p->hash_next)
		if (p->gpa == page)
			return p;
	return NULL;
}

struct block *cache_block_at(const struct cache *c, u64 pc)
{
	u64 off = pc - (u64)c->code_w - c->delta;
	u32 lo = 0, hi = c->nblocks;

	while (lo < hi) {
		u32 mid = (lo + hi) / 2;

		if (c->by_code[mid]->code + c->by_code[mid]->code_len <= off)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo < c->nblocks && c->by_code[lo]->code <= off ? c->by_code[lo] : NULL;
}

static void site_write(struct cache *c, u32 site, u32 target)
{
	/* Aligned, so that a processor that runs it sees the old or the new displacement. */
	__atomic_store_n((s32 *)(c->code_w + site), (s32)(target - (site + 4)), __ATOMIC_RELAXED);
}

void cache_link(struct cache *c, struct exit_link *l, struct block *to)
{
	if (l->from->dead || to->dead)
		return;
	site_write(c, l->site, to->chain);
	l->next = to->incoming;
	to->incoming = l;
}

static void block_kill(struct cache *c, struct block *b)
{
	unsigned h = cache_hash(b->gpa, b->mode);
	struct block **p = &c->hash[h];

	while (*p && *p != b)
		p = &(*p)->hash_next;
	if (*p)
		*p = b->hash_next;
	for (struct exit_link *l = b->incoming; l; l = l->next)
		site_write(c, l->site, l->stub);
	b->incoming = NULL;
	b->dead = true;
	c->killed++;
}

/* The part of @b that lies in @page, as offsets. */
static void block_span(const struct block *b, gpa_t page, unsigned *lo, unsigned *hi)
{
	unsigned off = b->gpa & (PAGE_SIZE - 1);

	if ((b->gpa & PAGE_MASK) == page) {
		*lo = off;
		*hi = b->straddles ? PAGE_SIZE : off + b->len;
	} else {
		*lo = 0;
		*hi = off + b->len - PAGE_SIZE;
	}
}

unsigned cache_written(struct cache *c, struct slot *s, gpa_t gpa, unsigned len)
{
	gpa_t page = gpa & PAGE_MASK;
	unsigned off = gpa & (PAGE_SIZE - 1), lo, hi, n = 0;
	struct code_page *p = cache_page_find(c, page);
	struct page_node **link;

	if (!p)
		return 0;
	for (link = &p->blocks; *link;) {
		struct block *b = (*link)->block;

		block_span(b, page, &lo, &hi);
		if (!b->dead && lo < off + len && off < hi) {
			block_kill(c, b);
			n++;
		}
		if (b->dead)
			*link = (*link)->next;
		else
			link = &(*link)->next;
	}
	if (!p->blocks && p->serial == s->serial) {
		page_code_put(s, cache_gpa(gpa) >> PAGE_SHIFT);
		p->serial = 0;
	}
	return n;
}

unsigned cache_verify_page(struct cache *c, gpa_t page, const u8 *host)
{
	struct code_page *p = cache_page_find(c, page);
	unsigned lo, hi, n = 0;

	if (!p)
		return 0;
	c->verified++;
	if (bulk_equal(p->snapshot, host, PAGE_SIZE))
		return 0;
	for (struct page_node *node = p->blocks; node; node = node->next) {
		if (node->block->dead)
			continue;
		block_span(node->block, page, &lo, &hi);
		if (!bulk_equal(p->snapshot + lo, host + lo, hi - lo)) {
			block_kill(c, node->block);
			n++;
		}
	}
	bulk_copy(p->snapshot, host, PAGE_SIZE);
	c->verify_killed += n;
	return n;
}

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

struct block *cache_find_dead(const struct cache *c, gpa_t gpa, u32 mode, enum block_form form)
{
	for (struct block *b = c->hash[cache_hash(gpa, mode)]; b; b = b->hash_next)
		if (b->gpa == gpa && b->mode == mode && b->form == form && b->dead)
			return b;
	return NULL;
}

struct code_page *cache_page_find(const struct cache *c, gpa_t page)
{
	for (struct code_page *p = c->pages[(page >> PAGE_SHIFT) & (CACHE_PAGE_HASH - 1)]; p;
	     p = p->hash_next)
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

/* Nobody runs it meanwhile: the cache is this vCPU's own. */
static void site_write(struct cache *c, u32 site, u32 target)
{
	s32 d = (s32)(target - (site + 4));

	__builtin_memcpy(c->code_w + site, &d, 4);
}

static void jump_write(struct cache *c, u32 at, u32 target)
{
	c->code_w[at] = 0xe9;
	site_write(c, at + 1, target);
}

/* A jump back polls, and the poll that clobbers the flags is for targets that do not need them. */
static void poll_link(struct cache *c, const struct exit_link *l, const struct block *to)
{
	if (to->needs_flags) {
		site_write(c, l->keep_site, to->chain);
		jump_write(c, l->poll, l->keep);
	} else {
		site_write(c, l->site, to->chain);
		__builtin_memcpy(c->code_w + l->poll, POLL_BYTES, 5);
	}
}

static void unlink_exit(struct cache *c, const struct exit_link *l)
{
	if (l->poll)
		jump_write(c, l->poll, l->stub);
	else
		site_write(c, l->site, l->stub);
}

void cache_link(struct cache *c, struct exit_link *l, struct block *to)
{
	if (l->from->dead || to->dead || l->prev)
		return;
	if (l->poll)
		poll_link(c, l, to);
	else
		site_write(c, l->site, l->kind & LINK_SAVED ? to->code : to->chain);
	l->next = to->incoming;
	l->prev = &to->incoming;
	if (l->next)
		l->next->prev = &l->next;
	to->incoming = l;
}

static void exit_forget(struct exit_link *l)
{
	if (!l->prev)
		return;
	*l->prev = l->next;
	if (l->next)
		l->next->prev = l->prev;
	l->prev = NULL;
}

static void cross_keep(struct cache *c, struct exit_link *l)
{
	if (c->ncross == CACHE_CROSS)
		cache_cross_undo(c);
	c->cross[c->ncross++] = l;
}

void cache_link_cross(struct cache *c, struct exit_link *l, struct block *to, u64 lo, u64 hi)
{
	cross_keep(c, l);
	c->cross_lo = lo < c->cross_lo ? lo : c->cross_lo;
	c->cross_hi = hi > c->cross_hi ? hi : c->cross_hi;
	cache_link(c, l, to);
}

void cache_link_around(struct cache *c, struct exit_link *l)
{
	if (l->from->dead || l->prev)
		return;
	cross_keep(c, l);
	site_write(c, l->site, l->keep);
	l->kind |= LINK_AROUND;
}

void cache_cross_undo(struct cache *c)
{
	for (u32 i = 0; i < c->ncross; i++) {
		struct exit_link *l = c->cross[i];

		if (!l->prev && !(l->kind & LINK_AROUND))
			continue; /* its block was killed, and may have been made again */
		unlink_exit(c, l);
		exit_forget(l);
		l->kind &= ~LINK_AROUND;
	}
	c->ncross = 0;
	c->cross_lo = ~0ull;
	c->cross_hi = 0;
}

/* A call, and the block behind it for the stub: each block has a jump and its stub, which are longer. None runs its entry meanwhile. */
static void entry_bury(struct cache *c, struct block *b)
{
	u8 *p = c->code_w + b->code;
	s32 d = (s32)(c->dead_stub - ((u64)p + c->delta + 5));

	p[0] = 0xe8;
	__builtin_memcpy(p + 1, &d, 4);
	__builtin_memcpy(p + 5, &b, 8);
}

static void node_leave(struct page_node *n)
{
	struct code_page *p = n->page;

	*n->prev = n->next;
	if (n->next)
		n->next->prev = n->prev;
	if (!p->chunk[n->chunk])
		p->map &= ~BIT_ULL(n->chunk);
}

static void block_kill(struct cache *c, struct block *b)
{
	for (unsigned k = 0; k < ARRAY_SIZE(b->exit); k++)
		exit_forget(&b->exit[k]);
	while (b->incoming) {
		unlink_exit(c, b->incoming);
		exit_forget(b->incoming);
	}
	b->dead = true;
	entry_bury(c, b);
	b->node[0].page->live--;
	if (b->straddles)
		b->node[b->nnodes - 1].page->live--;
	for (unsigned k = 0; k < b->nnodes; k++)
		node_leave(&b->node[k]);
	c->killed++;
}

void cache_abandon(struct cache *c, struct block *b)
{
	struct block **p = &c->hash[cache_hash(b->gpa, b->mode)];

	while (*p && *p != b)
		p = &(*p)->hash_next;
	if (*p)
		*p = b->hash_next;
	entry_bury(c, b);
}

void cache_kill(struct cache *c, struct block *b)
{
	/* Twice would take it from its pages' counts twice, and stale blocks of a page without live ones are not looked for. */
	if (!b->dead)
		block_kill(c, b);
}

/* The part of @b that lies in @page, as offsets. */
static void block_span(const struct block *b, gpa_t page, unsigned *lo, unsigned *hi)
{
	unsigned off = b->gpa & (PAGE_SIZE - 1);

	if (!b->straddles) {
		*lo = b->from;
		*hi = b->to;
	} else if ((b->gpa & PAGE_MASK) == page) {
		*lo = off;
		*hi = PAGE_SIZE;
	} else {
		*lo = 0;
		*hi = off + b->len - PAGE_SIZE;
	}
}

/* Kill what one chunk lists and touches [off, off + len). */
static unsigned chunk_written(struct cache *c, struct code_page *p, unsigned k, unsigned off,
			      unsigned len)
{
	struct page_node *next;
	unsigned lo, hi, n = 0;

	for (struct page_node *at = p->chunk[k]; at; at = next) {
		next = at->next; /* of another block: it has one node on a list */
		block_span(at->block, p->gpa, &lo, &hi);
		if (lo < off + len && off < hi) {
			block_kill(c, at->block);
			n++;
		}
	}
	return n;
}

unsigned cache_written(struct cache *c, struct slot *s, gpa_t gpa, unsigned len)
{
	unsigned off = gpa & (PAGE_SIZE - 1), n = 0;
	struct code_page *p = cache_page_find(c, gpa & PAGE_MASK);

	if (!p || !len)
		return 0;
	for (unsigned k = off >> CHUNK_SHIFT; k <= (off + len - 1) >> CHUNK_SHIFT; k++)
		if (p->map & BIT_ULL(k))
			n += chunk_written(c, p, k, off, len);
	if (!p->live && p->serial == s->serial && ++p->idle_writes > IDLE_WRITES) {
		page_code_put(s, cache_gpa(gpa) >> PAGE_SHIFT);
		p->serial = 0;
	}
	return n;
}

unsigned cache_kill_range(struct cache *c, struct code_page *p, unsigned off, unsigned len)
{
	unsigned n = 0;

	for (unsigned k = off >> CHUNK_SHIFT; k <= (off + len - 1) >> CHUNK_SHIFT; k++)
		n += chunk_written(c, p, k, off, len);
	return n;
}

/* Kill the blocks whose bytes differ from @now's. */
static unsigned kill_stale(struct cache *c, struct code_page *p, const u8 *now)
{
	unsigned lo, hi, n = 0;

	for (unsigned k = 0; k < CHUNKS; k++) {
		struct page_node *next;

		for (struct page_node *at = p->chunk[k]; at; at = next) {
			next = at->next;
			block_span(at->block, p->gpa, &lo, &hi);
			if (!bulk_equal(p->snapshot + lo, now + lo, hi - lo)) {
				block_kill(c, at->block);
				n++;
			}
		}
	}
	return n;
}

unsigned cache_verify_page(struct cache *c, gpa_t page, const u8 *host)
{
	struct code_page *p = cache_page_find(c, page);
	unsigned n;

	if (!p)
		return 0;
	c->verified++;
	if (bulk_equal(p->snapshot, host, PAGE_SIZE))
		return 0;
	/* Read once: what becomes the snapshot must be what blocks were compared with. */
	bulk_copy(c->scratch, host, PAGE_SIZE);
	n = kill_stale(c, p, c->scratch);
	bulk_copy(p->snapshot, c->scratch, PAGE_SIZE);
	c->verify_killed += n;
	return n;
}

void cache_verify_all(struct cache *c, const struct mem *mem)
{
	for (unsigned i = 0; i < CACHE_PAGE_HASH; i++)
		for (struct code_page *p = c->pages[i]; p; p = p->hash_next) {
			gfn_t gfn = cache_gpa(p->gpa) >> PAGE_SHIFT;
			struct slot *s =
				p->live ? mem_slot_find(mem, p->gpa >> 60, gfn, NULL) : NULL;

			if (s && s->serial == p->serial)
				cache_verify_page(c, p->gpa, slot_hva(s, gfn << PAGE_SHIFT));
		}
}

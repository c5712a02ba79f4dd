/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Making a block findable, by its key and by the pages it was made from: leaf code. */
#include "base/bulk.h"
#include "engine/cache.h"

static void node_join(struct page_node *n, struct block *b, struct code_page *p, unsigned chunk)
{
	*n = (struct page_node){ b, p, chunk, p->chunk[chunk], &p->chunk[chunk] };
	if (n->next)
		n->next->prev = &n->next;
	p->chunk[chunk] = n;
	p->map |= BIT_ULL(chunk);
}

static unsigned chunks_of(unsigned off, unsigned len)
{
	return ((off + len - 1) >> CHUNK_SHIFT) - (off >> CHUNK_SHIFT) + 1;
}

unsigned cache_nodes(const struct block *b)
{
	/* One at the end of the first page, one of the second. */
	return b->straddles ? 2 : chunks_of(b->from, b->to - b->from);
}

/* Blocks are short, and string instructions slow to start. */
static bool bytes_equal(const u8 *a, const u8 *b, unsigned n)
{
	while (n && *a == *b) {
		a++;
		b++;
		n--;
	}
	return !n;
}

/* Bytes that changed unseen since the snapshot: older blocks made from them go. */
static void bytes_seen(struct cache *c, struct code_page *p, const u8 *bytes, unsigned off,
		       unsigned len)
{
	if (bytes_equal(p->snapshot + off, bytes, len))
		return;
	cache_kill_range(c, p, off, len);
	bulk_copy(p->snapshot + off, bytes, len);
}

void cache_seen(struct cache *c, gpa_t at, const u8 *bytes, unsigned len)
{
	struct code_page *p = cache_page_find(c, at & PAGE_MASK);

	if (p)
		bytes_seen(c, p, bytes, at & (PAGE_SIZE - 1), len);
}

/* Put @b on the lists of a page and its @bytes into the snapshot. */
static bool page_add(struct cache *c, struct block *b, gpa_t page, const u8 *bytes, unsigned off,
		     unsigned len)
{
	struct code_page *p = cache_page_find(c, page);
	unsigned from = b->straddles ? off : b->from, to = b->straddles ? off + len : b->to,
		 first = from >> CHUNK_SHIFT, last = (to - 1) >> CHUNK_SHIFT;

	if (!p)
		return false;
	bytes_seen(c, p, bytes, off, len);
	for (unsigned k = first; k <= last; k++)
		node_join(&b->node[b->nnodes++], b, p, k);
	p->live++;
	p->idle_writes = 0;
	p->quiet = 0;
	c->ranges_stale |= p->ranged;
	p->ranged = false;
	return true;
}

static bool block_find_place(struct cache *c, struct block *b)
{
	unsigned h = cache_hash(b->gpa, b->mode);

	if (c->nblocks == c->max_blocks)
		return false;
	b->hash_next = c->hash[h];
	c->hash[h] = b;
	c->by_code[c->nblocks++] = b;
	return true;
}

bool cache_insert(struct cache *c, struct block *b, const u8 *bytes)
{
	unsigned off = b->gpa & (PAGE_SIZE - 1);

	b->nnodes = 0;
	if (!page_add(c, b, b->gpa & PAGE_MASK, bytes, off,
		      b->straddles ? PAGE_SIZE - off : b->len))
		return false;
	if (b->straddles &&
	    !page_add(c, b, b->second, bytes + PAGE_SIZE - off, 0, off + b->len - PAGE_SIZE))
		return false;
	if (!b->dead && !block_find_place(c, b))
		return false;
	b->dead = false;
	c->translated++;
	c->insns += b->ninsns;
	c->bytes += b->code_len;
	return true;
}

/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The code cache's memory: creation, allocation, insertion, and forgetting all. */
#define _GNU_SOURCE
#include "engine/cache.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define CODE_SIZE  (96ul << 20)
#define META_SIZE  (192ul << 20)
#define MAX_BLOCKS (1u << 20)

static void *reserve(size_t n)
{
	void *p = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
		       -1, 0);

	return p == MAP_FAILED ? NULL : p;
}

/* Two mappings of one memfd, so that no page is writable and executable at one address. */
static int map_code(struct cache *c)
{
	int fd = memfd_create("anykvm-code", MFD_CLOEXEC);
	void *w, *x;

	if (fd < 0)
		return -errno;
	if (ftruncate(fd, CODE_SIZE)) {
		close(fd);
		return -ENOMEM;
	}
	w = mmap(NULL, CODE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	x = mmap(NULL, CODE_SIZE, PROT_READ | PROT_EXEC, MAP_SHARED, fd, 0);
	close(fd);
	if (w == MAP_FAILED || x == MAP_FAILED) {
		if (w != MAP_FAILED)
			munmap(w, CODE_SIZE);
		if (x != MAP_FAILED)
			munmap(x, CODE_SIZE);
		return -EACCES;
	}
	madvise(w, CODE_SIZE, MADV_DONTFORK);
	madvise(x, CODE_SIZE, MADV_DONTFORK);
	c->code_w = w;
	c->delta = (u8 *)x - (u8 *)w;
	c->code_size = CODE_SIZE;
	return 0;
}

int cache_create(struct cache *c)
{
	int err = map_code(c);

	if (err)
		return err;
	c->meta = reserve(META_SIZE);
	c->by_code = reserve(MAX_BLOCKS * sizeof(*c->by_code));
	c->hash = reserve(CACHE_HASH * sizeof(*c->hash));
	c->pages = reserve(CACHE_PAGE_HASH * sizeof(*c->pages));
	if (!c->meta || !c->by_code || !c->hash || !c->pages) {
		cache_destroy(c);
		return -ENOMEM;
	}
	c->meta_size = META_SIZE;
	c->max_blocks = MAX_BLOCKS;
	return 0;
}

void cache_destroy(struct cache *c)
{
	if (c->code_w) {
		munmap(c->code_w, c->code_size);
		munmap(c->code_w + c->delta, c->code_size);
	}
	if (c->meta)
		munmap(c->meta, META_SIZE);
	if (c->by_code)
		munmap(c->by_code, MAX_BLOCKS * sizeof(*c->by_code));
	if (c->hash)
		munmap(c->hash, CACHE_HASH * sizeof(*c->hash));
	if (c->pages)
		munmap(c->pages, CACHE_PAGE_HASH * sizeof(*c->pages));
	memset(c, 0, sizeof(*c));
}

static void page_forget(const struct mem *mem, const struct code_page *p)
{
	gfn_t gfn = cache_gpa(p->gpa) >> PAGE_SHIFT;
	struct slot *s = mem_slot_find(mem, p->gpa >> 60, gfn, NULL);

	if (s && s->serial == p->serial)
		page_code_put(s, gfn);
}

void cache_reset(struct cache *c, const struct mem *mem)
{
	for (unsigned i = 0; i < CACHE_PAGE_HASH; i++)
		for (struct code_page *p = c->pages[i]; p; p = p->hash_next)
			page_forget(mem, p);
	memset(c->hash, 0, CACHE_HASH * sizeof(*c->hash));
	memset(c->pages, 0, CACHE_PAGE_HASH * sizeof(*c->pages));
	c->code_used = c->stubs_end;
	c->meta_used = 0;
	c->nblocks = 0;
	c->generation++;
	c->resets++;
}

void *cache_alloc(struct cache *c, size_t n)
{
	void *p = c->meta + c->meta_used;

	n = ALIGN_UP(n, (size_t)16);
	if (n > c->meta_size - c->meta_used)
		return NULL;
	c->meta_used += n;
	memset(p, 0, n);
	return p;
}

static unsigned page_hash(gpa_t page)
{
	return (page >> PAGE_SHIFT) & (CACHE_PAGE_HASH - 1);
}

struct code_page *cache_page_get(struct cache *c, gpa_t page, const u8 *host)
{
	struct code_page *p = cache_page_find(c, page);

	if (p)
		return p;
	p = cache_alloc(c, sizeof(*p));
	if (!p)
		return NULL;
	p->snapshot = cache_alloc(c, PAGE_SIZE);
	if (!p->snapshot)
		return NULL;
	memcpy(p->snapshot, host, PAGE_SIZE);
	p->gpa = page;
	p->hash_next = c->pages[page_hash(page)];
	c->pages[page_hash(page)] = p;
	return p;
}

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
	unsigned off = b->gpa & (PAGE_SIZE - 1);

	return b->straddles
		       ? 2
		       : chunks_of(
				 off,
				 b->len); /* one at the end of the first page, one of the second */
}

/* Put @b on the lists of a page and its @bytes into the snapshot. */
static bool page_add(struct cache *c, struct block *b, gpa_t page, const u8 *bytes, const u8 *host,
		     unsigned off, unsigned len)
{
	struct code_page *p = cache_page_get(c, page, host);
	unsigned first = off >> CHUNK_SHIFT, last = (off + len - 1) >> CHUNK_SHIFT;

	if (!p)
		return false;
	/* Bytes that changed unseen since the snapshot: older blocks made from them go. */
	if (memcmp(p->snapshot + off, bytes, len)) {
		cache_kill_range(c, p, off, len);
		memcpy(p->snapshot + off, bytes, len);
	}
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

bool cache_insert(struct cache *c, struct block *b, const u8 *bytes, const u8 *host,
		  const u8 *host2)
{
	unsigned off = b->gpa & (PAGE_SIZE - 1);

	b->nnodes = 0;
	if (!page_add(c, b, b->gpa & PAGE_MASK, bytes, host, off,
		      b->straddles ? PAGE_SIZE - off : b->len))
		return false;
	if (b->straddles &&
	    !page_add(c, b, b->second, bytes + PAGE_SIZE - off, host2, 0, off + b->len - PAGE_SIZE))
		return false;
	if (!b->dead && !block_find_place(c, b))
		return false;
	b->dead = false;
	c->translated++;
	c->insns += b->ninsns;
	c->bytes += b->code_len;
	return true;
}

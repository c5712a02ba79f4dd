/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The code cache's memory: creation, allocation, insertion, and forgetting all. */
#define _GNU_SOURCE
#include "engine/cache.h"

#include <errno.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>

#define CODE_SIZE  (96ul << 20)
#define META_SIZE  (192ul << 20)
#define MAX_BLOCKS (1u << 20)

static void *reserve(size_t n)
{
	void *p = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
		       -1, 0);

	return p == MAP_FAILED ? NULL : p;
}

#define HUGE (2ul << 20)

/* Address space whose large pages are those of what will be mapped there. */
static void *space_aligned(size_t n)
{
	u8 *p = mmap(NULL, n + HUGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0),
	   *at = (u8 *)ALIGN_UP((uintptr_t)p, (uintptr_t)HUGE);

	if (p == MAP_FAILED)
		return NULL;
	if (at != p)
		munmap(p, at - p);
	munmap(at + n, p + HUGE - at);
	return at;
}

/* The same memory at two places of @n bytes, the second executable. */
static bool map_twice(void *w, void *x, size_t n)
{
	if (mmap(w, n, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED, -1, 0) ==
		    MAP_FAILED ||
	    mremap(w, 0, n, MREMAP_MAYMOVE | MREMAP_FIXED, x) == MAP_FAILED ||
	    mprotect(x, n, PROT_READ | PROT_EXEC))
		return false;
	/* Large pages are a wish, for few faults and few entries in the host's TLB. */
	madvise(w, n, MADV_HUGEPAGE);
	madvise(x, n, MADV_HUGEPAGE);
	madvise(w, n, MADV_DONTFORK);
	madvise(x, n, MADV_DONTFORK);
	return true;
}

/*
 * Two mappings, so that no page is writable and executable at one address. Of anonymous memory: for no other does perf look
 * for names in /tmp/perf-PID.map.
 */
static int map_code(struct cache *c)
{
	void *w = space_aligned(CODE_SIZE), *x = space_aligned(CODE_SIZE);

	if (!w || !x || !map_twice(w, x, CODE_SIZE)) {
		if (w)
			munmap(w, CODE_SIZE);
		if (x)
			munmap(x, CODE_SIZE);
		return w && x ? -EACCES : -ENOMEM;
	}
	c->code_w = w;
	c->delta = (u8 *)x - (u8 *)w;
	c->code_size = CODE_SIZE;
	return 0;
}

#define HASH_BYTES (CACHE_HASH * sizeof(struct block *))
#define TABLES	   (HASH_BYTES + CACHE_PAGE_HASH * sizeof(struct code_page *))

int cache_create(struct cache *c)
{
	int err = map_code(c);
	u8 *tables;

	if (err)
		return err;
	tables = reserve(TABLES + META_SIZE);
	c->by_code = reserve(MAX_BLOCKS * sizeof(*c->by_code));
	if (!tables || !c->by_code) {
		if (tables)
			munmap(tables, TABLES + META_SIZE);
		cache_destroy(c);
		return -ENOMEM;
	}
	/* Used at random, and touched for the first time while a guest waits for its translation. */
	madvise(tables, TABLES + META_SIZE, MADV_HUGEPAGE);
	c->hash = (struct block **)tables;
	c->pages = (struct code_page **)(tables + HASH_BYTES);
	c->meta = tables + TABLES;
	c->meta_size = META_SIZE;
	cache_cross_undo(c);
	c->max_blocks = MAX_BLOCKS;
	return 0;
}

void cache_destroy(struct cache *c)
{
	if (c->code_w) {
		munmap(c->code_w, c->code_size);
		munmap(c->code_w + c->delta, c->code_size);
	}
	if (c->hash)
		munmap(c->hash, TABLES + META_SIZE);
	if (c->by_code)
		munmap(c->by_code, MAX_BLOCKS * sizeof(*c->by_code));
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
	c->ncross = 0;
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
	p->linear = CODE_LINEAR_NONE;
	p->hash_next = c->pages[page_hash(page)];
	c->pages[page_hash(page)] = p;
	return p;
}

/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The arena of second-stage descriptors: reserved address space that costs what is touched. */
#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "mem/private.h"

/*
 * A VM may have 32,767 slots, from one page to terabytes. One mapping per slot would run into
 * vm.max_map_count, so slots share chunks of 64 MiB (32 GiB of guest memory each; larger for a
 * larger slot), cut in units of one cache line. What is free is zero: arena_free() sees to it.
 */
#define CHUNK_DESCS (8u << 20)
#define UNIT_DESCS  8u

static bool array_reserve(void **array, size_t *cap, size_t want, size_t size)
{
	size_t n = *cap ? *cap : 16;
	void *p;

	if (want <= *cap)
		return true;
	while (n < want)
		n *= 2;
	p = reallocarray(*array, n, size);
	if (!p)
		return false;
	*array = p;
	*cap = n;
	return true;
}

/* Index of the first free piece above @start. */
static size_t piece_above(const struct arena *a, const u64 *start)
{
	size_t low = 0, high = a->npieces;

	while (low < high) {
		size_t mid = low + (high - low) / 2;

		if (a->piece[mid].start < start)
			low = mid + 1;
		else
			high = mid;
	}
	return low;
}

static void piece_remove(struct arena *a, size_t i)
{
	a->npieces--;
	memmove(&a->piece[i], &a->piece[i + 1], (a->npieces - i) * sizeof(*a->piece));
}

/* Give [start, start + n) back, merged with its neighbours. Never fails: see arena_alloc(). */
static void piece_insert(struct arena *a, u64 *start, u64 n)
{
	size_t i = piece_above(a, start);
	struct arena_piece *p = &a->piece[i];

	if (i && p[-1].start + p[-1].n == start) {
		p[-1].n += n;
		if (i < a->npieces && p[-1].start + p[-1].n == p->start) {
			p[-1].n += p->n;
			piece_remove(a, i);
		}
	} else if (i < a->npieces && start + n == p->start) {
		p->start = start;
		p->n += n;
	} else {
		memmove(p + 1, p, (a->npieces - i) * sizeof(*p));
		p->start = start;
		p->n = n;
		a->npieces++;
	}
}

static u64 *descs_map(u64 n)
{
	void *p = mmap(NULL, n * sizeof(u64), PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return p == MAP_FAILED ? NULL : p;
}

static bool chunk_add(struct arena *a, u64 n)
{
	u64 size = ALIGN_UP(n > CHUNK_DESCS ? n : CHUNK_DESCS, PAGE_SIZE / sizeof(u64));
	u64 *start;

	if (!array_reserve((void **)&a->chunk, &a->cap_chunks, a->nchunks + 1, sizeof(*a->chunk)))
		return false;
	start = descs_map(size);
	if (!start) { /* address space is limited: take what is asked for */
		size = ALIGN_UP(n, PAGE_SIZE / sizeof(u64));
		start = descs_map(size);
	}
	if (!start)
		return false;
	a->chunk[a->nchunks++] = (struct arena_chunk){ start, size };
	piece_insert(a, start, size);
	return true;
}

static u64 *piece_take(struct arena *a, u64 n)
{
	for (size_t i = 0; i < a->npieces; i++) {
		struct arena_piece *p = &a->piece[i];
		u64 *start = p->start;

		if (p->n < n)
			continue;
		p->start += n;
		p->n -= n;
		if (!p->n)
			piece_remove(a, i);
		a->nused++;
		return start;
	}
	return NULL;
}

u64 *arena_alloc(struct arena *a, u64 npages)
{
	u64 n = ALIGN_UP(npages, UNIT_DESCS), *desc;

	/* Room for the most pieces that there can be: each ends at a used range or a chunk's end. */
	if (!array_reserve((void **)&a->piece, &a->cap_pieces, a->nused + a->nchunks + 2,
			   sizeof(*a->piece)))
		return NULL;
	desc = piece_take(a, n);
	if (!desc && chunk_add(a, n))
		desc = piece_take(a, n);
	return desc;
}

/* Whole pages go back to the host; the rest is cleared by hand. */
static void descs_clear(u64 *desc, u64 n)
{
	u8 *start = (u8 *)desc, *end = (u8 *)(desc + n);
	u8 *first = (u8 *)ALIGN_UP((hva_t)start, PAGE_SIZE);
	u8 *last = (u8 *)ALIGN_DOWN((hva_t)end, PAGE_SIZE);

	if (first >= last || madvise(first, last - first, MADV_DONTNEED)) {
		memset(start, 0, end - start);
		return;
	}
	memset(start, 0, first - start);
	memset(last, 0, end - last);
}

void arena_free(struct arena *a, u64 *desc, u64 npages)
{
	u64 n = ALIGN_UP(npages, UNIT_DESCS);

	descs_clear(desc, n);
	piece_insert(a, desc, n);
	a->nused--;
}

void arena_destroy(struct arena *a)
{
	for (size_t i = 0; i < a->nchunks; i++)
		munmap(a->chunk[i].start, a->chunk[i].n * sizeof(u64));
	free(a->chunk);
	free(a->piece);
}

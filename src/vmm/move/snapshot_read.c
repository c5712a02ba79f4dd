/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The pages of a snapshot: each is checked when it is read. */
#define _GNU_SOURCE /* SEEK_DATA */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "vmm/crc32c.h"
#include "vmm/move/snapshot.h"

#define READ_PAGES 256u /* at once */

/* The sums that one root is of are read and checked. */
static int sums_need(struct snapshot *s, u64 root, struct why *why)
{
	const struct snapshot_part *part = &s->header.parts[PART_SUMS];
	const u64 at = root * SNAPSHOT_SUMS * sizeof(u32);
	u32 *sums = s->sums + root * SNAPSHOT_SUMS;
	size_t n = SNAPSHOT_SUMS * sizeof(u32);
	int r;

	if (s->has_sums[root / 64] >> root % 64 & 1)
		return 0;
	if (n > part->size - at)
		n = part->size - at;
	r = snapshot_bytes(s, sums, n, part->at + at, why);
	if (r == 0 && crc32c(0, sums, n) != s->roots[root])
		r = snapshot_refuse(s, why, "the checksums are damaged", part->at + at);
	if (r == 0)
		s->has_sums[root / 64] |= BIT_ULL(root % 64);
	return r;
}

/* Pages [first, first + n) of data, or of a hole (NULL). */
static int pages_check(struct snapshot *s, u64 first, u64 n, const u8 *data, struct why *why)
{
	static const u8 zeros[PAGE_SIZE];
	const u32 zero = data ? 0 : crc32c(0, zeros, sizeof(zeros));
	int r = 0;

	for (u64 page = first; page < first + n && r == 0; page++, data += data ? PAGE_SIZE : 0) {
		r = sums_need(s, page / SNAPSHOT_SUMS, why);
		if (r == 0 && s->sums[page] != (data ? crc32c(0, data, PAGE_SIZE) : zero))
			r = snapshot_refuse(s, why, "a page of memory is damaged (checksum)",
					    SNAPSHOT_RAM_AT + (page << PAGE_SHIFT));
	}
	return r;
}

static bool is_held(const struct snapshot *s, u64 page)
{
	return !s->held || s->held[page / 64] >> page % 64 & 1;
}

/* How many pages from @first on are held or are not, as the first one. */
static u64 held_run(const struct snapshot *s, u64 first, u64 max)
{
	const u64 same = is_held(s, first) ? ~0ull : 0;
	u64 n = 1;

	if (!s->held)
		return max;
	while (n < max && is_held(s, first + n) == (same != 0))
		n += (first + n) % 64 == 0 && s->held[(first + n) / 64] == same ? 64 : 1;
	return n < max ? n : max;
}

u64 snapshot_run(struct snapshot *s, u64 first, u64 max, struct snapshot **file, bool *is_hole)
{
	const u64 at = SNAPSHOT_RAM_AT + (first << PAGE_SHIFT);
	off_t end;

	while (!is_held(s, first)) {
		max = held_run(s, first, max);
		s = s->base;
	}
	max = held_run(s, first, max);
	*file = s;
	/* A file system that knows no holes has data only. */
	end = lseek(s->fd, (off_t)at, SEEK_DATA);
	*is_hole = end < 0 ? errno == ENXIO : (u64)end >= at + PAGE_SIZE;
	if (!*is_hole)
		end = lseek(s->fd, (off_t)at, SEEK_HOLE);
	if (end < 0 || (u64)end >= at + (max << PAGE_SHIFT))
		return max;
	/* What is not a whole page of a hole is data. */
	end += *is_hole ? 0 : PAGE_SIZE - 1;
	return (u64)end <= at ? 1 : ((u64)end - at) >> PAGE_SHIFT;
}

int snapshot_read(struct snapshot *file, u64 first, u64 n, bool is_hole, u8 *to, struct why *why)
{
	int r = is_hole ? 0
			: snapshot_bytes(file, to, n << PAGE_SHIFT,
					 SNAPSHOT_RAM_AT + (first << PAGE_SHIFT), why);

	return r < 0 ? r : pages_check(file, first, n, is_hole ? NULL : to, why);
}

int snapshot_load(struct snapshot *s, const struct ram *ram, struct why *why)
{
	const u64 count = ram->size >> PAGE_SHIFT;
	int r = 0;

	for (u64 page = 0; page < count && r == 0;) {
		struct snapshot *file;
		bool is_hole;
		u64 n = snapshot_run(s, page, count - page, &file, &is_hole);

		if (!is_hole && n > READ_PAGES)
			n = READ_PAGES;
		r = snapshot_read(file, page, n, is_hole, ram->host + (page << PAGE_SHIFT), why);
		page += n;
	}
	return r;
}

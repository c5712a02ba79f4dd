/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Writing a snapshot file. */
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "vmm/crc32c.h"
#include "vmm/move/pages.h"
#include "vmm/move/snapshot.h"

static int failed(const struct snapshot_writer *w, const char *what, struct why *why)
{
	return why_set(why, errno, "cannot %s the snapshot '%s': %s", what, w->path,
		       strerror(errno));
}

static int write_at(const struct snapshot_writer *w, const void *data, size_t n, u64 at,
		    struct why *why)
{
	const u8 *p = data;

	while (n) {
		const ssize_t done = pwrite(w->fd, p, n, (off_t)at);

		if (done < 0 && errno == EINTR)
			continue;
		if (done == 0)
			errno = ENOSPC;
		if (done <= 0)
			return failed(w, "write", why);
		p += done;
		at += (u64)done;
		n -= (size_t)done;
	}
	return 0;
}

static int memory_get(struct snapshot_writer *w, struct why *why)
{
	static const u8 zeros[PAGE_SIZE];
	const u64 pages = w->memory >> PAGE_SHIFT;
	const u32 zero = crc32c(0, zeros, sizeof(zeros));

	w->sums = malloc(pages * sizeof(u32));
	w->has_data = calloc(1, pages);
	w->held = calloc((pages + 63) / 64, sizeof(u64));
	w->run = malloc(SNAPSHOT_RUN * PAGE_SIZE);
	if (!w->sums || !w->has_data || !w->held || !w->run)
		return why_set(why, ENOMEM, "no memory for the checksums of the snapshot");
	for (u64 i = 0; i < pages; i++)
		w->sums[i] = zero;
	return 0;
}

int snapshot_begin(struct snapshot_writer *w, const char *path, u64 memory,
		   const struct snapshot_identity *base, const char *base_path, struct why *why)
{
	int r;

	*w = (struct snapshot_writer){
		.fd = -1, .path = path, .memory = memory, .base = base, .base_path = base_path
	};
	if (getrandom(w->identity.identity, SNAPSHOT_IDENTITY, 0) != SNAPSHOT_IDENTITY)
		return why_set(why, EIO, "the host has no random numbers");
	r = snprintf(w->temporary, sizeof(w->temporary), "%s.%d.tmp", path, (int)getpid());
	if (r < 0 || (size_t)r >= sizeof(w->temporary))
		return why_set(why, ENAMETOOLONG, "the path of the snapshot is too long");
	w->fd = open(w->temporary, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (w->fd < 0) {
		w->temporary[0] = 0;
		return failed(w, "make", why);
	}
	r = ftruncate(w->fd, (off_t)(SNAPSHOT_RAM_AT + memory)) < 0 ? failed(w, "size", why)
								    : memory_get(w, why);
	if (r < 0)
		snapshot_abort(w);
	return r;
}

void snapshot_abort(struct snapshot_writer *w)
{
	if (w->temporary[0]) {
		close(w->fd);
		unlink(w->temporary);
	}
	free(w->sums);
	free(w->has_data);
	free(w->held);
	free(w->run);
	memset(w, 0, sizeof(*w));
}

static int run_flush(struct snapshot_writer *w, struct why *why)
{
	const size_t n = w->run_count * PAGE_SIZE;

	w->run_count = 0;
	w->bytes += n;
	return n ? write_at(w, w->run, n, SNAPSHOT_RAM_AT + (w->run_first << PAGE_SHIFT), why) : 0;
}

/* The checksum is of the copy that is written: a page that the guest changes meanwhile comes again, but never torn. */
int snapshot_page(struct snapshot_writer *w, u64 page, const u8 *data, struct why *why)
{
	u8 *copy;
	int r = 0;

	w->held[page / 64] |= BIT_ULL(page % 64);
	if (page_is_zero(data) && !w->has_data[page])
		return 0;
	if (w->run_count == SNAPSHOT_RUN || page != w->run_first + w->run_count)
		r = run_flush(w, why);
	if (!w->run_count)
		w->run_first = page;
	copy = w->run + w->run_count++ * PAGE_SIZE;
	memcpy(copy, data, PAGE_SIZE);
	w->sums[page] = crc32c(0, copy, PAGE_SIZE);
	w->has_data[page] = 1;
	return r;
}

/* What a part is made of. */
struct content {
	const void *data;
	size_t size;
};

static int parts_write(const struct snapshot_writer *w, struct snapshot_header *h,
		       const struct content content[PARTS], struct why *why)
{
	u64 end = SNAPSHOT_RAM_AT + w->memory;
	int r = 0;

	for (unsigned i = 0; i < PARTS && r == 0; i++) {
		const struct content *c = &content[i];

		h->parts[i] = (struct snapshot_part){
			.at = end,
			.size = c->size,
			.crc = i == PART_SUMS ? 0 : crc32c(0, c->data, c->size),
		};
		r = write_at(w, c->data, c->size, end, why);
		end += c->size;
	}
	return r;
}

static int header_write(struct snapshot_writer *w, struct snapshot_header *h, struct why *why)
{
	u8 page[PAGE_SIZE] = { 0 };

	memcpy(h->magic, SNAPSHOT_MAGIC, sizeof(h->magic));
	memcpy(h->identity, w->identity.identity, sizeof(h->identity));
	if (w->base) {
		memcpy(h->base, w->base->identity, sizeof(h->base));
		h->base_crc = w->base->crc;
	}
	memcpy(page, h, sizeof(*h));
	h->crc = crc32c(0, page, sizeof(page));
	w->identity.crc = h->crc;
	memcpy(page, h, sizeof(*h));
	return write_at(w, page, sizeof(page), 0, why);
}

/* A checksum of each 4 KiB of the checksums. */
static u32 *roots_make(const struct snapshot_writer *w, size_t *n)
{
	const u64 pages = w->memory >> PAGE_SHIFT;
	u32 *roots;

	*n = (pages + SNAPSHOT_SUMS - 1) / SNAPSHOT_SUMS;
	roots = malloc(*n * sizeof(u32));
	for (u64 i = 0; i < *n && roots; i++) {
		const u64 first = i * SNAPSHOT_SUMS, left = pages - first;

		roots[i] = crc32c(0, w->sums + first,
				  (left < SNAPSHOT_SUMS ? left : SNAPSHOT_SUMS) * sizeof(u32));
	}
	return roots;
}

/* The folder too: else the name may be lost with the power. */
static int rename_durably(struct snapshot_writer *w, struct why *why)
{
	char copy[sizeof(w->temporary)];
	int folder;

	if (fsync(w->fd) < 0)
		return failed(w, "bring to the disk", why);
	if (rename(w->temporary, w->path) < 0)
		return failed(w, "rename", why);
	close(w->fd);
	snprintf(copy, sizeof(copy), "%s", w->path);
	w->temporary[0] = 0;
	folder = open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (folder >= 0) {
		fsync(folder);
		close(folder);
	}
	return 0;
}

int snapshot_end(struct snapshot_writer *w, const char *description, const void *state, size_t n,
		 struct why *why)
{
	struct snapshot_header h = { .format = SNAPSHOT_FORMAT, .memory = w->memory };
	const u64 pages = w->memory >> PAGE_SHIFT;
	size_t root_count;
	u32 *roots = roots_make(w, &root_count);
	const struct content content[PARTS] = {
		[PART_SUMS] = { w->sums, pages * sizeof(u32) },
		[PART_ROOTS] = { roots, root_count * sizeof(u32) },
		[PART_HELD] = { w->held, w->base ? (pages + 63) / 64 * sizeof(u64) : 0 },
		[PART_BASE] = { w->base_path, w->base ? strlen(w->base_path) : 0 },
		[PART_DESCRIPTION] = { description, strlen(description) },
		[PART_STATE] = { state, n },
	};
	int r = roots ? run_flush(w, why) : why_set(why, ENOMEM, "no memory for the snapshot");

	if (r == 0)
		r = parts_write(w, &h, content, why);
	if (r == 0)
		r = header_write(w, &h, why);
	free(roots);
	return r < 0 ? r : rename_durably(w, why);
}

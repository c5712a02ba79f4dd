/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Writing a snapshot file. */
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "vmm/crc32c.h"
#include "vmm/move/pages.h"
#include "vmm/move/snapshot.h"
#include "vmm/move/snapshot_format.h"

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
	w->run = malloc(SNAPSHOT_RUN * PAGE_SIZE);
	if (!w->sums || !w->has_data || !w->run)
		return why_set(why, ENOMEM, "no memory for the checksums of the snapshot");
	for (u64 i = 0; i < pages; i++)
		w->sums[i] = zero;
	return 0;
}

int snapshot_begin(struct snapshot_writer *w, const char *path, u64 memory, struct why *why)
{
	int r;

	*w = (struct snapshot_writer){ .fd = -1, .path = path, .memory = memory };
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

static struct snapshot_part part_after(u64 *end, const void *data, size_t n)
{
	const struct snapshot_part part = { .at = *end, .size = n, .crc = crc32c(0, data, n) };

	*end += n;
	return part;
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
	u8 page[PAGE_SIZE] = { 0 };
	struct snapshot_header h = { .format = SNAPSHOT_FORMAT, .memory = w->memory };
	const size_t sums = (w->memory >> PAGE_SHIFT) * sizeof(u32), text = strlen(description);
	u64 end = SNAPSHOT_RAM_AT + w->memory;
	int r = run_flush(w, why);

	memcpy(h.magic, SNAPSHOT_MAGIC, sizeof(h.magic));
	h.sums = part_after(&end, w->sums, sums);
	h.description = part_after(&end, description, text);
	h.state = part_after(&end, state, n);
	memcpy(page, &h, sizeof(h));
	h.crc = crc32c(0, page, sizeof(page));
	memcpy(page, &h, sizeof(h));
	if (r == 0)
		r = write_at(w, w->sums, sums, h.sums.at, why);
	if (r == 0)
		r = write_at(w, description, text, h.description.at, why);
	if (r == 0)
		r = write_at(w, state, n, h.state.at, why);
	if (r == 0)
		r = write_at(w, page, sizeof(page), 0, why);
	return r < 0 ? r : rename_durably(w, why);
}

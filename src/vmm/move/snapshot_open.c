/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Opening a snapshot file and those that it is an increment to: whoever wrote them is a stranger. */
#define _GNU_SOURCE /* SEEK_DATA */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vmm/crc32c.h"
#include "vmm/move/snapshot.h"

int snapshot_refuse(const struct snapshot *s, struct why *why, const char *what, u64 at)
{
	return why_set(why, EINVAL, "the snapshot '%.120s' is refused at byte %llu: %s", s->path,
		       (unsigned long long)at, what);
}

int snapshot_bytes(const struct snapshot *s, void *out, size_t n, u64 at, struct why *why)
{
	u8 *p = out;

	while (n) {
		const ssize_t done = pread(s->fd, p, n, (off_t)at);

		if (done < 0 && errno == EINTR)
			continue;
		if (done < 0)
			return why_set(why, errno, "cannot read the snapshot '%s': %s", s->path,
				       strerror(errno));
		if (done == 0)
			return snapshot_refuse(s, why, "it ends here", at);
		p += done;
		at += (u64)done;
		n -= (size_t)done;
	}
	return 0;
}

static int header_read(struct snapshot *s, struct why *why)
{
	struct snapshot_header *h = &s->header;
	u8 page[PAGE_SIZE];
	u32 crc;
	int r = snapshot_bytes(s, page, sizeof(page), 0, why);

	if (r < 0)
		return r;
	memcpy(h, page, sizeof(*h));
	if (memcmp(h->magic, SNAPSHOT_MAGIC, sizeof(h->magic)) != 0)
		return snapshot_refuse(s, why, "this is no snapshot of anykvm", 0);
	memset(page + offsetof(struct snapshot_header, crc), 0, sizeof(u32));
	crc = crc32c(0, page, sizeof(page));
	if (crc != h->crc)
		return snapshot_refuse(s, why, "the header is damaged (checksum)", 0);
	if (h->format != SNAPSHOT_FORMAT)
		return snapshot_refuse(s, why, "its format is not that of this program", 16);
	return 0;
}

static bool is_increment(const struct snapshot *s)
{
	return s->header.parts[PART_HELD].size;
}

/* How large a part may be, and must be. */
static bool size_is_right(const struct snapshot *s, unsigned part, u64 size)
{
	const u64 pages = s->header.memory >> PAGE_SHIFT;

	switch (part) {
	case PART_SUMS:
		return size == pages * sizeof(u32);
	case PART_ROOTS:
		return size == (pages + SNAPSHOT_SUMS - 1) / SNAPSHOT_SUMS * sizeof(u32);
	case PART_HELD:
		return !size || size == (pages + 63) / 64 * sizeof(u64);
	case PART_BASE:
		return is_increment(s) ? size > 0 && size < SNAPSHOT_PATH_MAX : !size;
	case PART_DESCRIPTION:
		return size <= DESCRIPTION_MAX;
	default:
		return size <= SNAPSHOT_STATE_MAX;
	}
}

/* The parts follow each other and fill the file. */
static int places_check(const struct snapshot *s, struct why *why)
{
	const struct snapshot_header *h = &s->header;
	struct stat st;
	u64 end;

	if (ram_check_size(h->memory, why) < 0)
		return snapshot_refuse(s, why, "the size of memory in it is no size", 24);
	if (fstat(s->fd, &st) < 0 || !S_ISREG(st.st_mode))
		return snapshot_refuse(s, why, "it is no file", 0);
	if (h->memory > (u64)st.st_size)
		return snapshot_refuse(s, why, "it is cut off", (u64)st.st_size);
	end = SNAPSHOT_RAM_AT + h->memory;
	for (unsigned i = 0; i < PARTS; i++) {
		if (h->parts[i].at != end || !size_is_right(s, i, h->parts[i].size))
			return snapshot_refuse(s, why, "a part is not where it belongs",
					       offsetof(struct snapshot_header, parts) +
						       i * sizeof(*h->parts));
		end += h->parts[i].size;
	}
	if ((u64)st.st_size != end)
		return snapshot_refuse(s, why,
				       (u64)st.st_size < end ? "it is cut off"
							     : "it goes on after its end",
				       (u64)st.st_size < end ? (u64)st.st_size : end);
	return 0;
}

/* Between the header and memory there is nothing, and on most file systems not even blocks. */
static int gap_check(const struct snapshot *s, struct why *why)
{
	const off_t data = lseek(s->fd, PAGE_SIZE, SEEK_DATA);
	u64 at = data < 0 ? errno == ENXIO ? SNAPSHOT_RAM_AT : PAGE_SIZE : (u64)data;
	u8 gap[PAGE_SIZE];

	while (at < SNAPSHOT_RAM_AT) {
		const size_t n =
			SNAPSHOT_RAM_AT - at < sizeof(gap) ? SNAPSHOT_RAM_AT - at : sizeof(gap);
		int r = snapshot_bytes(s, gap, n, at, why);

		for (size_t i = 0; i < n && r == 0; i++)
			if (gap[i])
				r = snapshot_refuse(
					s, why, "there is something where nothing belongs", at + i);
		if (r < 0)
			return r;
		at += n;
	}
	return 0;
}

/* A part with a NUL after it, or NULL with one line. */
static void *part_read(const struct snapshot *s, unsigned part, const char *damaged,
		       struct why *why)
{
	const struct snapshot_part *p = &s->header.parts[part];
	u8 *data = malloc(p->size + 1);
	int r;

	if (!data) {
		why_set(why, ENOMEM, "no memory for the snapshot");
		return NULL;
	}
	r = snapshot_bytes(s, data, p->size, p->at, why);
	if (r == 0 && crc32c(0, data, p->size) != p->crc)
		r = snapshot_refuse(s, why, damaged, p->at);
	if (r == 0) {
		data[p->size] = 0;
		return data;
	}
	free(data);
	return NULL;
}

/* Room for the sums, which are read when they are wanted; until then it is not touched. */
static int sums_begin(struct snapshot *s, struct why *why)
{
	const u64 roots = s->header.parts[PART_ROOTS].size / sizeof(u32);

	s->roots = part_read(s, PART_ROOTS, "the checksums of the checksums are damaged", why);
	if (!s->roots)
		return -EINVAL;
	s->sums = calloc(roots * SNAPSHOT_SUMS, sizeof(u32));
	s->has_sums = calloc(roots / 64 + 1, sizeof(u64));
	return s->sums && s->has_sums ? 0 : why_set(why, ENOMEM, "no memory for the snapshot");
}

static int description_get(struct snapshot *s, struct why *why)
{
	char *text = part_read(s, PART_DESCRIPTION, "the description is damaged (checksum)", why);
	int r = text ? description_read(&s->description, text,
					s->header.parts[PART_DESCRIPTION].size, why)
		     : -EINVAL;

	free(text);
	if (r == 0 && s->description.memory != s->header.memory)
		r = snapshot_refuse(s, why, "the description is of another machine",
				    s->header.parts[PART_DESCRIPTION].at);
	return r;
}

/* Of one file. What only the machine itself needs is not looked at in a base: its checksum is in the header's. */
static int parts_read(struct snapshot *s, bool is_base, struct why *why)
{
	int r = sums_begin(s, why);

	if (r == 0 && is_increment(s)) {
		s->held = part_read(s, PART_HELD, "the table of its pages is damaged (checksum)",
				    why);
		r = s->held ? 0 : -EINVAL;
	}
	if (r < 0 || is_base)
		return r;
	s->state = part_read(s, PART_STATE, "the state is damaged (checksum)", why);
	s->state_size = s->header.parts[PART_STATE].size;
	return s->state ? description_get(s, why) : -EINVAL;
}

static int file_open(struct snapshot *s, const char *path, bool is_base, struct why *why)
{
	int r;

	*s = (struct snapshot){ .path = path };
	s->fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (s->fd < 0)
		return why_set(why, errno, "cannot open the snapshot '%s': %s; check the path",
			       path, strerror(errno));
	r = header_read(s, why);
	if (r == 0)
		r = places_check(s, why);
	if (r == 0)
		r = gap_check(s, why);
	return r < 0 ? r : parts_read(s, is_base, why);
}

/* In the folder of the increment, or where it was when that was made. */
static char *base_find(const struct snapshot *s, const char *was)
{
	const char *name = strrchr(was, '/'), *slash = strrchr(s->path, '/');
	const int folder = slash ? (int)(slash - s->path) + 1 : 0;
	char *beside = NULL;

	if (asprintf(&beside, "%.*s%s", folder, s->path, name ? name + 1 : was) < 0)
		return NULL;
	if (access(beside, F_OK) == 0)
		return beside;
	free(beside);
	return strdup(was);
}

static int base_open(struct snapshot *s, struct why *why)
{
	const struct snapshot_header *h = &s->header;
	char *was = part_read(s, PART_BASE, "the path of its base is damaged (checksum)", why);
	int r;

	if (!was)
		return -EINVAL;
	s->base_path = base_find(s, was);
	free(was);
	s->base = calloc(1, sizeof(*s->base));
	if (!s->base_path || !s->base)
		return why_set(why, ENOMEM, "no memory for the snapshot");
	r = file_open(s->base, s->base_path, true, why);
	if (r < 0)
		return r;
	if (memcmp(s->base->header.identity, h->base, sizeof(h->base)) != 0 ||
	    s->base->header.crc != h->base_crc || s->base->header.memory != h->memory)
		return why_set(why, EINVAL,
			       "the snapshot '%.120s' is an increment to another one than "
			       "'%.120s'; put its base there",
			       s->path, s->base_path);
	return 0;
}

int snapshot_open(struct snapshot *s, const char *path, struct why *why)
{
	struct snapshot *last = s;
	unsigned files = 1;
	int r = file_open(s, path, false, why);

	while (r == 0 && is_increment(last)) {
		if (files++ == SNAPSHOT_CHAIN_MAX)
			r = snapshot_refuse(s, why, "too many bases, one upon the other", 0);
		else
			r = base_open(last, why);
		last = last->base;
	}
	if (r < 0)
		snapshot_close(s);
	return r;
}

static void file_close(struct snapshot *s)
{
	if (s->path && s->fd >= 0)
		close(s->fd);
	description_free(&s->description);
	free(s->state);
	free(s->roots);
	free(s->sums);
	free(s->has_sums);
	free(s->held);
	free(s->base_path);
}

void snapshot_close(struct snapshot *s)
{
	struct snapshot *base = s->base;

	while (base) {
		struct snapshot *next = base->base;

		file_close(base);
		free(base);
		base = next;
	}
	file_close(s);
	memset(s, 0, sizeof(*s));
}

/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Reading a snapshot file: whoever wrote it is a stranger. */
#define _GNU_SOURCE /* SEEK_DATA */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vmm/crc32c.h"
#include "vmm/move/snapshot.h"
#include "vmm/move/snapshot_format.h"

#define CHECK_BYTES (1u << 20) /* read at once */

static int refuse(const struct snapshot *s, struct why *why, const char *what, u64 at)
{
	return why_set(why, EINVAL, "the snapshot '%.120s' is refused at byte %llu: %s", s->path,
		       (unsigned long long)at, what);
}

static int read_at(const struct snapshot *s, void *out, size_t n, u64 at, struct why *why)
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
			return refuse(s, why, "it ends here", at);
		p += done;
		at += (u64)done;
		n -= (size_t)done;
	}
	return 0;
}

static int header_read(const struct snapshot *s, struct snapshot_header *h, struct why *why)
{
	u8 page[PAGE_SIZE];
	u32 crc;
	int r = read_at(s, page, sizeof(page), 0, why);

	if (r < 0)
		return r;
	memcpy(h, page, sizeof(*h));
	if (memcmp(h->magic, SNAPSHOT_MAGIC, sizeof(h->magic)) != 0)
		return refuse(s, why, "this is no snapshot of anykvm", 0);
	memset(page + offsetof(struct snapshot_header, crc), 0, sizeof(u32));
	crc = crc32c(0, page, sizeof(page));
	if (crc != h->crc)
		return refuse(s, why, "the header is damaged (checksum)", 0);
	if (h->format != SNAPSHOT_FORMAT)
		return refuse(s, why, "its format is newer than this program", 16);
	return 0;
}

/* The parts follow each other and fill the file. */
static int places_check(const struct snapshot *s, const struct snapshot_header *h, struct why *why)
{
	struct stat st;
	u64 end;
	int r = ram_check_size(h->memory, why);

	if (r < 0)
		return refuse(s, why, "the size of memory in it is no size", 24);
	if (fstat(s->fd, &st) < 0 || !S_ISREG(st.st_mode))
		return refuse(s, why, "it is no file", 0);
	if (h->memory > (u64)st.st_size)
		return refuse(s, why, "it is cut off", (u64)st.st_size);
	end = SNAPSHOT_RAM_AT + h->memory;
	if (h->sums.at != end || h->sums.size != (h->memory >> PAGE_SHIFT) * sizeof(u32))
		return refuse(s, why, "the checksums are not where they belong", 32);
	end += h->sums.size;
	if (h->description.at != end || h->description.size > DESCRIPTION_MAX)
		return refuse(s, why, "the description is not where it belongs", 56);
	end += h->description.size;
	if (h->state.at != end || h->state.size > SNAPSHOT_STATE_MAX)
		return refuse(s, why, "the state is not where it belongs", 80);
	end += h->state.size;
	if ((u64)st.st_size != end)
		return refuse(s, why,
			      (u64)st.st_size < end ? "it is cut off" : "it goes on after its end",
			      (u64)st.st_size < end ? (u64)st.st_size : end);
	return 0;
}

static int part_read(const struct snapshot *s, const struct snapshot_part *part, const char *what,
		     void **out, struct why *why)
{
	void *data = malloc(part->size + 1);
	int r;

	if (!data)
		return why_set(why, ENOMEM, "no memory for the snapshot");
	r = read_at(s, data, part->size, part->at, why);
	if (r == 0 && crc32c(0, data, part->size) != part->crc)
		r = refuse(s, why, what, part->at);
	if (r < 0)
		free(data);
	else
		*out = data;
	return r;
}

/* Between the header and memory there is nothing. */
static int gap_check(const struct snapshot *s, struct why *why)
{
	const size_t n = SNAPSHOT_RAM_AT - PAGE_SIZE;
	u8 *gap = malloc(n);
	int r = gap ? read_at(s, gap, n, PAGE_SIZE, why)
		    : why_set(why, ENOMEM, "no memory for the snapshot");

	for (size_t i = 0; i < n && r == 0; i++)
		if (gap[i])
			r = refuse(s, why, "there is something where nothing belongs",
				   PAGE_SIZE + i);
	free(gap);
	return r;
}

static int parts_read(struct snapshot *s, const struct snapshot_header *h, struct why *why)
{
	void *text = NULL, *sums = NULL, *state = NULL;
	int r = part_read(s, &h->sums, "the checksums are damaged", &sums, why);

	s->sums = sums;
	if (r == 0)
		r = part_read(s, &h->state, "the state is damaged (checksum)", &state, why);
	s->state = state;
	s->state_size = h->state.size;
	if (r == 0)
		r = part_read(s, &h->description, "the description is damaged (checksum)", &text,
			      why);
	if (r == 0)
		r = description_read(&s->description, text, h->description.size, why);
	free(text);
	if (r == 0 && s->description.memory != h->memory)
		r = refuse(s, why, "the description is of another machine", h->description.at);
	return r;
}

int snapshot_open(struct snapshot *s, const char *path, struct why *why)
{
	struct snapshot_header h;
	int r;

	*s = (struct snapshot){ .path = path };
	s->fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (s->fd < 0)
		return why_set(why, errno, "cannot open the snapshot '%s': %s; check the path",
			       path, strerror(errno));
	r = header_read(s, &h, why);
	if (r == 0)
		r = places_check(s, &h, why);
	if (r == 0)
		r = gap_check(s, why);
	if (r == 0)
		r = parts_read(s, &h, why);
	if (r < 0)
		snapshot_close(s);
	return r;
}

void snapshot_close(struct snapshot *s)
{
	if (s->has_thread) {
		atomic_store(&s->cancelled, true);
		pthread_join(s->thread, NULL);
	}
	if (s->path && s->fd >= 0)
		close(s->fd);
	description_free(&s->description);
	free(s->state);
	free(s->sums);
	memset(s, 0, sizeof(*s));
}

/* Pages [first, first + n) of data, or of a hole (NULL). */
static int pages_check(const struct snapshot *s, u64 first, u64 n, const u8 *data, struct why *why)
{
	static const u8 zeros[PAGE_SIZE];
	const u32 zero = crc32c(0, zeros, sizeof(zeros));

	for (u64 i = 0; i < n; i++)
		if (s->sums[first + i] !=
		    (data ? crc32c(0, data + i * PAGE_SIZE, PAGE_SIZE) : zero))
			return refuse(s, why, "a page of memory is damaged (checksum)",
				      SNAPSHOT_RAM_AT + ((first + i) << PAGE_SHIFT));
	return 0;
}

/* The next bytes of data in memory's [at, end): -1 when all is a hole. A file system that knows no holes has data only. */
static s64 data_next(const struct snapshot *s, u64 at, u64 end, u64 *data_end)
{
	off_t from = lseek(s->fd, (off_t)(SNAPSHOT_RAM_AT + at), SEEK_DATA);
	off_t to;

	if (from < 0 && errno == ENXIO)
		return -1;
	if (from < 0)
		from = (off_t)(SNAPSHOT_RAM_AT + at);
	if ((u64)from >= SNAPSHOT_RAM_AT + end)
		return -1;
	to = lseek(s->fd, from, SEEK_HOLE);
	*data_end = to < 0 || (u64)to > SNAPSHOT_RAM_AT + end ? end : (u64)to - SNAPSHOT_RAM_AT;
	*data_end = ALIGN_UP(*data_end, PAGE_SIZE);
	return (s64)ALIGN_DOWN((u64)from - SNAPSHOT_RAM_AT, PAGE_SIZE);
}

/* All of memory in order: read into @to (or a buffer), and checked. */
static int memory_walk(const struct snapshot *s, u8 *to, u8 *buffer, struct why *why)
{
	const u64 memory = s->description.memory;
	u64 at = 0, data_end = 0;
	int r = 0;

	while (at < memory && r == 0 && !atomic_load(&s->cancelled)) {
		const s64 next = at < data_end ? (s64)at : data_next(s, at, memory, &data_end);
		const u64 from = next < 0 ? memory : (u64)next;
		u64 n;

		if (from > at) {
			r = pages_check(s, at >> PAGE_SHIFT, (from - at) >> PAGE_SHIFT, NULL, why);
			at = from;
			continue;
		}
		n = data_end - at < CHECK_BYTES ? data_end - at : CHECK_BYTES;
		r = read_at(s, to ? to + at : buffer, n, SNAPSHOT_RAM_AT + at, why);
		if (r == 0)
			r = pages_check(s, at >> PAGE_SHIFT, n >> PAGE_SHIFT, to ? to + at : buffer,
					why);
		at += n;
	}
	return r;
}

int snapshot_load(const struct snapshot *s, const struct ram *ram, struct why *why)
{
	return memory_walk(s, ram->host, NULL, why);
}

static void *check_thread(void *argument)
{
	struct snapshot *s = argument;
	u8 *buffer = malloc(CHECK_BYTES);
	struct why why;

	if (!buffer)
		s->damaged(s->owner, "no memory to check the snapshot");
	else if (memory_walk(s, NULL, buffer, &why) < 0)
		s->damaged(s->owner, why.text);
	free(buffer);
	return NULL;
}

int snapshot_map(struct snapshot *s, const struct ram *ram,
		 void (*damaged)(void *owner, const char *text), void *owner, struct why *why)
{
	sigset_t all, old;
	int r;

	if (mmap(ram->host, ram->size, PROT_READ | PROT_WRITE,
		 MAP_PRIVATE | MAP_FIXED | MAP_NORESERVE, s->fd, SNAPSHOT_RAM_AT) == MAP_FAILED)
		return why_set(why, errno, "cannot map the snapshot '%s': %s; drop --lazy", s->path,
			       strerror(errno));
	madvise(ram->host, ram->size, MADV_DONTDUMP);
	s->damaged = damaged;
	s->owner = owner;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	r = pthread_create(&s->thread, NULL, check_thread, s);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	s->has_thread = r == 0;
	return r ? why_set(why, r, "cannot start a thread: %s", strerror(r)) : 0;
}

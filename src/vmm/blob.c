/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* A whole file in memory: read, not mapped, so that a file that shrinks is an error and no SIGBUS. */
#include "vmm/blob.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define HUGE (2ul << 20)

u8 *blob_room(size_t size)
{
	const size_t n = ALIGN_UP(size, HUGE);
	u8 *p = aligned_alloc(HUGE, n);

	if (p)
		madvise(p, n, MADV_HUGEPAGE); /* a wish */
	return p;
}

static int blob_fill(struct blob *blob, int fd, size_t limit)
{
	size_t room = 1 << 20;
	struct stat st;

	if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_size > 0)
		room = (size_t)st.st_size + 1;
	if (room > limit + 1)
		return -EFBIG;
	for (;;) {
		u8 *data = blob->data ? realloc(blob->data, room) : blob_room(room);
		ssize_t n;

		if (!data)
			return -ENOMEM;
		blob->data = data;
		n = read(fd, data + blob->size, room - blob->size);
		if (n < 0 && errno != EINTR)
			return -errno;
		if (n == 0)
			return 0;
		blob->size += n > 0 ? (size_t)n : 0;
		if (blob->size > limit)
			return -EFBIG;
		if (blob->size == room)
			room *= 2;
	}
}

int blob_read(struct blob *blob, const char *path, const char *what, size_t limit, struct why *why)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	int r;

	memset(blob, 0, sizeof(*blob));
	if (fd < 0)
		return why_set(why, errno, "cannot open the %s '%s': %s; check the path", what,
			       path, strerror(errno));
	r = blob_fill(blob, fd, limit);
	close(fd);
	if (r < 0) {
		blob_free(blob);
		return why_set(why, -r,
			       "cannot read the %s '%s': %s; give a readable file of less "
			       "than %zu MiB",
			       what, path, strerror(-r), limit >> 20);
	}
	if (blob->size == 0) {
		blob_free(blob);
		return why_set(why, EINVAL, "the %s '%s' is empty; check the path", what, path);
	}
	return 0;
}

void blob_free(struct blob *blob)
{
	free(blob->data);
	memset(blob, 0, sizeof(*blob));
}

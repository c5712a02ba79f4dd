/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Bytes scattered over pieces of guest memory. */
#include "vmm/virtio/iov.h"

#include <string.h>

size_t iov_bytes(const struct iovec *iov, unsigned count)
{
	size_t n = 0;

	for (unsigned i = 0; i < count; i++)
		n += iov[i].iov_len;
	return n;
}

/* Where a walk over pieces is: the piece, the bytes of it to pass over, and the bytes that are still wanted. */
struct walk {
	const struct iovec *iov, *end;
	size_t offset, left;
};

/* The next run of bytes that lie together; false: there is none. */
static bool walk_next(struct walk *w, struct iovec *run)
{
	size_t n;

	while (w->iov < w->end && w->offset >= w->iov->iov_len)
		w->offset -= w->iov++->iov_len;
	if (w->iov == w->end || !w->left)
		return false;
	n = w->iov->iov_len - w->offset;
	if (n > w->left)
		n = w->left;
	*run = (struct iovec){ (u8 *)w->iov->iov_base + w->offset, n };
	w->offset += n;
	w->left -= n;
	return true;
}

unsigned iov_cut(const struct iovec *iov, unsigned count, size_t offset, size_t n,
		 struct iovec *out)
{
	struct walk w = { iov, iov + count, offset, n };
	unsigned pieces = 0;

	while (walk_next(&w, &out[pieces]))
		pieces++;
	return pieces;
}

void iov_zero(const struct iovec *iov, unsigned count, size_t offset, size_t n)
{
	struct walk w = { iov, iov + count, offset, n };
	struct iovec run;

	while (walk_next(&w, &run))
		memset(run.iov_base, 0, run.iov_len);
}

static size_t copy(const struct iovec *iov, unsigned count, size_t offset, u8 *to, const u8 *from,
		   size_t n)
{
	struct walk w = { iov, iov + count, offset, n };
	struct iovec run;
	size_t done = 0;

	for (; walk_next(&w, &run); done += run.iov_len) {
		if (to)
			memcpy(to + done, run.iov_base, run.iov_len);
		else
			memcpy(run.iov_base, from + done, run.iov_len);
	}
	return done;
}

size_t iov_read(const struct iovec *iov, unsigned count, size_t offset, void *to, size_t n)
{
	return copy(iov, count, offset, to, NULL, n);
}

size_t iov_write(const struct iovec *iov, unsigned count, size_t offset, const void *from, size_t n)
{
	return copy(iov, count, offset, NULL, from, n);
}

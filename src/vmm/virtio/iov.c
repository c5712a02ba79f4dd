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

unsigned iov_cut(const struct iovec *iov, unsigned count, size_t offset, size_t n,
		 struct iovec *out)
{
	unsigned pieces = 0;

	for (unsigned i = 0; i < count && n; i++) {
		size_t take;

		if (offset >= iov[i].iov_len) {
			offset -= iov[i].iov_len;
			continue;
		}
		take = iov[i].iov_len - offset;
		if (take > n)
			take = n;
		out[pieces++] = (struct iovec){ (u8 *)iov[i].iov_base + offset, take };
		n -= take;
		offset = 0;
	}
	return pieces;
}

void iov_zero(const struct iovec *iov, unsigned count, size_t offset, size_t n)
{
	for (unsigned i = 0; i < count && n; i++) {
		size_t take;

		if (offset >= iov[i].iov_len) {
			offset -= iov[i].iov_len;
			continue;
		}
		take = iov[i].iov_len - offset;
		if (take > n)
			take = n;
		memset((u8 *)iov[i].iov_base + offset, 0, take);
		n -= take;
		offset = 0;
	}
}

static size_t copy(const struct iovec *iov, unsigned count, size_t offset, u8 *to, const u8 *from,
		   size_t n)
{
	size_t done = 0;

	for (unsigned i = 0; i < count && done < n; i++) {
		size_t take;

		if (offset >= iov[i].iov_len) {
			offset -= iov[i].iov_len;
			continue;
		}
		take = iov[i].iov_len - offset;
		if (take > n - done)
			take = n - done;
		if (to)
			memcpy(to + done, (u8 *)iov[i].iov_base + offset, take);
		else
			memcpy((u8 *)iov[i].iov_base + offset, from + done, take);
		done += take;
		offset = 0;
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

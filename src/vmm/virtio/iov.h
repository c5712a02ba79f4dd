/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Bytes scattered over pieces of guest memory. */
#ifndef VMM_VIRTIO_IOV_H
#define VMM_VIRTIO_IOV_H

#include <sys/uio.h>

#include "base/types.h"

size_t iov_bytes(const struct iovec *iov, unsigned count);

/* Copy from or to @offset of the scattered bytes; returns how many there were, at most @n. */
size_t iov_read(const struct iovec *iov, unsigned count, size_t offset, void *to, size_t n);
size_t iov_write(const struct iovec *iov, unsigned count, size_t offset, const void *from,
		 size_t n);

void iov_zero(const struct iovec *iov, unsigned count, size_t offset, size_t n);

/* The pieces that make [offset, offset + n): @out has room for @count. Returns their number. */
unsigned iov_cut(const struct iovec *iov, unsigned count, size_t offset, size_t n,
		 struct iovec *out);

#endif

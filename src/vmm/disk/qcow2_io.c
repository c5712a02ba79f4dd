/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Reading, writing, zeroing and discarding on a qcow2 disk, cluster by cluster. */
#include <errno.h>
#include <string.h>

#include "vmm/disk/qcow2.h"
#include "vmm/virtio/iov.h"

#define CLUSTER_MAX (2u << 20)
#define ZERO_CHUNK  65536u

/* Bytes of [offset, offset + n) that lie in the cluster of @offset. */
static size_t in_cluster(const struct qcow2 *q, u64 offset, u64 n)
{
	const u64 rest = q->cluster - offset % q->cluster;

	return (size_t)(n < rest ? n : rest);
}

/* How far from @offset the file goes on as the disk does; @entry is that of @offset. At most @n bytes. */
static int plain_run(struct qcow2 *q, u64 offset, u64 n, u64 entry, u64 flags, size_t *run)
{
	const u64 start = entry & QCOW2_OFFSET;
	u64 at = ALIGN_DOWN(offset, q->cluster);
	int r = 0;

	*run = in_cluster(q, offset, n);
	for (u64 k = 1; r == 0 && *run < n; k++) {
		u64 next;

		at += q->cluster;
		/* The next table may be one that is not ours to write to. */
		if ((at >> q->cluster_bits) % (q->cluster / 8) == 0)
			break;
		r = qcow2_entry(q, at, &next);
		if (r < 0 || qcow2_kind(q, next) != QCOW2_PLAIN || (next & flags) != flags ||
		    (next & QCOW2_OFFSET) != start + k * q->cluster)
			break;
		*run += in_cluster(q, at, n - *run);
	}
	return r;
}

static int piece_read(struct qcow2 *q, const struct iovec *iov, unsigned count, u64 offset,
		      size_t rest, size_t done, size_t *n)
{
	struct iovec part[QCOW2_IOV_MAX];
	const u64 within = offset % q->cluster;
	u64 entry;
	int r = qcow2_entry(q, offset, &entry);

	*n = in_cluster(q, offset, rest);
	if (r < 0)
		return r;
	switch (qcow2_kind(q, entry)) {
	case QCOW2_PLAIN:
		r = plain_run(q, offset, rest, entry, 0, n);
		return r < 0 ? r
			     : qcow2_preadv(q, part, iov_cut(iov, count, done, *n, part),
					    (entry & QCOW2_OFFSET) + within);
	case QCOW2_PACKED:
		r = qcow2_unpack(q, entry);
		if (r == 0)
			iov_write(iov, count, done, q->unpacked + within, *n);
		return r;
	default:
		iov_zero(iov, count, done, *n);
		return 0;
	}
}

static int qcow2_read(struct disk *disk, const struct iovec *iov, unsigned count, u64 offset)
{
	struct qcow2 *q = qcow2_of(disk);
	const size_t total = iov_bytes(iov, count);
	size_t n;
	int r = 0;

	if (count > QCOW2_IOV_MAX)
		return -EINVAL;
	for (size_t done = 0; done < total && r == 0; done += n)
		r = piece_read(q, iov, count, offset + done, total - done, done, &n);
	return r;
}

static int part_write(struct qcow2 *q, const struct iovec *iov, unsigned count, size_t done,
		      size_t n, u64 at)
{
	struct iovec part[QCOW2_IOV_MAX];
	int r = disk_file_write(q->disk.fd, part, iov_cut(iov, count, done, n, part), at);

	if (r == 0 && at + n > q->bytes)
		q->bytes = at + n;
	return r;
}

/* What the cluster holds now, in q->copy. */
static int contents_copy(struct qcow2 *q, u64 entry)
{
	int r = 0;

	switch (qcow2_kind(q, entry)) {
	case QCOW2_PLAIN:
		return qcow2_pread(q, q->copy, q->cluster, entry & QCOW2_OFFSET);
	case QCOW2_PACKED:
		r = qcow2_unpack(q, entry);
		if (r == 0)
			memcpy(q->copy, q->unpacked, q->cluster);
		return r;
	default:
		memset(q->copy, 0, q->cluster);
		return 0;
	}
}

/* The cluster gets a place of its own, with the new bytes in it, and the entry names it when all of it is there. */
static int piece_replace(struct qcow2 *q, struct qcow2_table *table, u64 entry,
			 const struct iovec *iov, unsigned count, size_t done, u64 offset, size_t n)
{
	const bool stays =
		!(entry & QCOW2_COMPRESSED) && entry & QCOW2_COPIED && entry & QCOW2_OFFSET;
	const bool is_copy = n < q->cluster && (stays || qcow2_kind(q, entry) != QCOW2_NOTHING);
	const u64 within = offset % q->cluster;
	u64 at = entry & QCOW2_OFFSET;
	int r = stays ? 0 : qcow2_alloc(q, &at);

	if (r == 0 && is_copy)
		r = contents_copy(q, entry);
	if (r < 0)
		return r;
	if (is_copy) {
		iov_read(iov, count, done, q->copy + within, n);
		r = qcow2_pwrite(q, q->copy, q->cluster, at);
		if (r == 0 && at + q->cluster > q->bytes)
			q->bytes = at + q->cluster;
	} else {
		r = part_write(q, iov, count, done, n, at + within);
	}
	if (r == 0 && is_copy)
		r = disk_file_flush(q->disk.fd);
	if (r == 0)
		r = qcow2_entry_set(q, table, offset, at | QCOW2_COPIED);
	return r == 0 && !stays ? qcow2_free_entry(q, entry) : r;
}

static int piece_write(struct qcow2 *q, const struct iovec *iov, unsigned count, u64 offset,
		       size_t rest, size_t done, size_t *n)
{
	struct qcow2_table *table;
	u64 entry;
	int r = qcow2_entry_own(q, offset, &table, &entry);

	*n = in_cluster(q, offset, rest);
	if (r < 0)
		return r;
	if (qcow2_kind(q, entry) != QCOW2_PLAIN || !(entry & QCOW2_COPIED))
		return piece_replace(q, table, entry, iov, count, done, offset, *n);
	r = plain_run(q, offset, rest, entry, QCOW2_COPIED, n);
	return r < 0 ? r
		     : part_write(q, iov, count, done, *n,
				  (entry & QCOW2_OFFSET) + offset % q->cluster);
}

static int qcow2_write(struct disk *disk, const struct iovec *iov, unsigned count, u64 offset)
{
	struct qcow2 *q = qcow2_of(disk);
	const size_t total = iov_bytes(iov, count);
	size_t n;
	int r = 0;

	if (count > QCOW2_IOV_MAX)
		return -EINVAL;
	for (size_t done = 0; done < total && r == 0; done += n)
		r = piece_write(q, iov, count, offset + done, total - done, done, &n);
	return r;
}

/* Zeros in a part of a cluster are written, unless they are there. */
static int part_zero(struct qcow2 *q, u64 offset, size_t n, u64 entry)
{
	static u8 zeros[ZERO_CHUNK]; /* only read */
	struct iovec iov[CLUSTER_MAX / ZERO_CHUNK];
	unsigned count = 0;

	if (qcow2_kind(q, entry) == QCOW2_NOTHING)
		return 0;
	for (size_t part; n; n -= part) {
		part = n < ZERO_CHUNK ? n : ZERO_CHUNK;
		iov[count++] = (struct iovec){ zeros, part };
	}
	return qcow2_write(&q->disk, iov, count, offset);
}

/* A whole cluster is zeros by its entry; its place is kept where it shall be. */
static int cluster_zero(struct qcow2 *q, u64 offset, u64 entry, bool may_unmap)
{
	const bool keeps = !may_unmap && q->version == 3 && !(entry & QCOW2_COMPRESSED) &&
			   entry & QCOW2_COPIED;
	struct qcow2_table *table;
	int r;

	if (!entry || (may_unmap && entry == QCOW2_ZERO))
		return 0;
	r = qcow2_entry_own(q, offset, &table, &entry);
	if (r == 0)
		r = qcow2_entry_set(q, table, offset, keeps ? entry | QCOW2_ZERO : 0);
	return r == 0 && !keeps ? qcow2_free_entry(q, entry) : r;
}

static int qcow2_zero(struct disk *disk, u64 offset, u64 n, bool may_unmap)
{
	struct qcow2 *q = qcow2_of(disk);
	size_t part;
	int r = 0;

	for (; n && r == 0; offset += part, n -= part) {
		u64 entry;

		part = in_cluster(q, offset, n);
		r = qcow2_entry(q, offset, &entry);
		if (r < 0)
			break;
		/* The last cluster of the disk may be cut off: its rest is nobody's. */
		if (part == q->cluster ||
		    (offset % q->cluster == 0 && offset + part == q->disk.size))
			r = cluster_zero(q, offset, entry, may_unmap);
		else
			r = part_zero(q, offset, part, entry);
	}
	return r;
}

/* Only whole clusters: the rest of the wish stays one. */
static int qcow2_discard(struct disk *disk, u64 offset, u64 n)
{
	const struct qcow2 *q = qcow2_of(disk);
	const u64 first = ALIGN_UP(offset, q->cluster);
	const u64 end = offset + n == disk->size ? offset + n : ALIGN_DOWN(offset + n, q->cluster);

	return first < end ? qcow2_zero(disk, first, end - first, true) : 0;
}

static int flush(struct disk *disk)
{
	return disk->is_read_only ? 0 : qcow2_flush(qcow2_of(disk));
}

const struct disk_ops qcow2_ops = {
	.read = qcow2_read,
	.write = qcow2_write,
	.flush = flush,
	.settle = qcow2_settle,
	.load = qcow2_load,
	.zero = qcow2_zero,
	.discard = qcow2_discard,
	.close = qcow2_close,
};

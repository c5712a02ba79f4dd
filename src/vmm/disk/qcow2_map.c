/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* From a place of a qcow2 disk to a place of its file: L1, L2 tables, compressed clusters. */
#include <endian.h>
#include <errno.h>
#include <string.h>

#include <zlib.h>
#include <zstd.h>

#include "vmm/disk/qcow2.h"

#define RESERVED_BITS 0x3f000000000001feull /* of an entry that is not compressed */
#define DEFLATE_BITS  12

static u64 l1_index(const struct qcow2 *q, u64 offset)
{
	return offset >> (2 * q->cluster_bits - 3);
}

static u64 l2_index(const struct qcow2 *q, u64 offset)
{
	return (offset >> q->cluster_bits) & (q->cluster / 8 - 1);
}

enum qcow2_kind qcow2_kind(const struct qcow2 *q, u64 entry)
{
	if (entry & QCOW2_COMPRESSED)
		return QCOW2_PACKED;
	return entry & QCOW2_OFFSET && !(q->version == 3 && entry & QCOW2_ZERO) ? QCOW2_PLAIN
										: QCOW2_NOTHING;
}

void qcow2_packed_place(const struct qcow2 *q, u64 entry, u64 *at, size_t *n)
{
	const unsigned bits = 62 - (q->cluster_bits - 8);
	const u64 sectors = ((entry & (QCOW2_COMPRESSED - 1)) >> bits) + 1;

	*at = entry & (BIT_ULL(bits) - 1);
	*n = (size_t)(sectors * DISK_SECTOR - *at % DISK_SECTOR);
}

static bool is_sound(const struct qcow2 *q, u64 entry)
{
	u64 at;
	size_t n;

	if (entry & QCOW2_COMPRESSED) {
		qcow2_packed_place(q, entry, &at, &n);
		return !(entry & QCOW2_COPIED) && at >= q->cluster && at < q->end * q->cluster &&
		       n <= 2 * q->cluster;
	}
	if (entry & RESERVED_BITS || (q->version == 2 && entry & QCOW2_ZERO))
		return false;
	return !(entry & QCOW2_OFFSET) || qcow2_is_place(q, entry & QCOW2_OFFSET);
}

/* The L2 table at @at of the file, from memory or in place of the one that was used longest ago. */
static int table_load(struct qcow2 *q, u64 at, struct qcow2_table **out)
{
	struct qcow2_table *oldest = &q->tables[0];
	int r;

	for (unsigned i = 0; i < q->table_count; i++) {
		struct qcow2_table *t = &q->tables[i];

		if (t->at == at) {
			t->used = ++q->clock;
			*out = t;
			return 0;
		}
		if (t->used < oldest->used)
			oldest = t;
	}
	oldest->at = 0;
	r = qcow2_pread(q, oldest->entries, q->cluster, at);
	if (r < 0)
		return r;
	oldest->at = at;
	oldest->used = ++q->clock;
	*out = oldest;
	return 0;
}

static int l1_load(struct qcow2 *q, u64 offset, u64 *at)
{
	const u64 index = l1_index(q, offset);

	*at = q->l1[index] & QCOW2_OFFSET;
	if (*at && !qcow2_is_place(q, *at))
		return qcow2_damaged(q, "an L1 entry", q->l1_at + 8 * index);
	return 0;
}

static int entry_load(struct qcow2 *q, const struct qcow2_table *t, u64 offset, u64 *entry)
{
	*entry = be64toh(t->entries[l2_index(q, offset)]);
	return is_sound(q, *entry)
		       ? 0
		       : qcow2_damaged(q, "an L2 entry", t->at + 8 * l2_index(q, offset));
}

int qcow2_entry(struct qcow2 *q, u64 offset, u64 *entry)
{
	struct qcow2_table *t;
	u64 at;
	int r = l1_load(q, offset, &at);

	*entry = 0;
	if (r < 0 || !at)
		return r;
	r = table_load(q, at, &t);
	return r < 0 ? r : entry_load(q, t, offset, entry);
}

/* A table that is not there or belongs to a snapshot, too, gets a new place. */
static int table_own(struct qcow2 *q, u64 offset, u64 old, struct qcow2_table **out)
{
	const u64 index = l1_index(q, offset);
	u64 at, entry;
	int r = qcow2_alloc(q, &at);

	if (r == 0 && old) {
		r = table_load(q, old, out);
		if (r == 0)
			r = qcow2_pwrite(q, (*out)->entries, q->cluster, at);
		if (r == 0)
			r = disk_file_flush(q->disk.fd);
	}
	if (r < 0)
		return r;
	entry = htobe64(at | QCOW2_COPIED);
	r = qcow2_pwrite(q, &entry, sizeof(entry), q->l1_at + 8 * index);
	if (r < 0)
		return r;
	q->l1[index] = at | QCOW2_COPIED;
	if (old)
		r = qcow2_free(q, old / q->cluster);
	return r < 0 ? r : table_load(q, at, out);
}

int qcow2_entry_own(struct qcow2 *q, u64 offset, struct qcow2_table **table, u64 *entry)
{
	u64 at;
	int r = l1_load(q, offset, &at);

	if (r < 0)
		return r;
	if (at && q->l1[l1_index(q, offset)] & QCOW2_COPIED)
		r = table_load(q, at, table);
	else
		r = table_own(q, offset, at, table);
	return r < 0 ? r : entry_load(q, *table, offset, entry);
}

int qcow2_entry_set(struct qcow2 *q, struct qcow2_table *table, u64 offset, u64 entry)
{
	const u64 index = l2_index(q, offset), big = htobe64(entry);
	int r = qcow2_pwrite(q, &big, sizeof(big), table->at + 8 * index);

	if (r == 0)
		table->entries[index] = big;
	else
		table->at = 0; /* nobody knows what is in the file */
	return r;
}

static bool inflate_cluster(struct qcow2 *q, size_t n)
{
	z_stream z = { .next_in = q->packed,
		       .avail_in = (uInt)n,
		       .next_out = q->unpacked,
		       .avail_out = (uInt)q->cluster };
	int r;

	if (inflateInit2(&z, -DEFLATE_BITS) != Z_OK)
		return false;
	r = inflate(&z, Z_FINISH);
	inflateEnd(&z);
	/* The input is whole sectors: what follows the stream is of no interest. */
	return z.avail_out == 0 && (r == Z_STREAM_END || r == Z_BUF_ERROR || r == Z_OK);
}

static bool zstd_cluster(struct qcow2 *q, size_t n)
{
	ZSTD_DStream *z = ZSTD_createDStream();
	ZSTD_inBuffer in = { q->packed, n, 0 };
	ZSTD_outBuffer out = { q->unpacked, q->cluster, 0 };
	size_t r = 1;

	while (z && out.pos < out.size && in.pos < in.size && r && !ZSTD_isError(r))
		r = ZSTD_decompressStream(z, &out, &in);
	ZSTD_freeDStream(z);
	return z && !ZSTD_isError(r) && out.pos == out.size;
}

int qcow2_unpack(struct qcow2 *q, u64 entry)
{
	u64 at;
	size_t n;
	int r;

	if (q->unpacked_entry == entry)
		return 0;
	q->unpacked_entry = 0;
	qcow2_packed_place(q, entry, &at, &n);
	r = qcow2_pread(q, q->packed, n, at);
	if (r < 0)
		return r;
	if (!(q->compression == QCOW2_ZSTD ? zstd_cluster(q, n) : inflate_cluster(q, n)))
		return qcow2_damaged(q, "a compressed cluster", at);
	q->unpacked_entry = entry;
	return 0;
}

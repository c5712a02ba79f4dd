/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Reference counts of a qcow2 image: taking clusters and giving them back. */
#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "vmm/disk/qcow2.h"

#define AT_COUNTS_PLACE 48 /* header: offset of the table of blocks, then its clusters */
#define POOL_MAX	(1u << 20)

static u64 per_block(const struct qcow2 *q)
{
	return q->cluster * 8 >> q->count_order;
}

/* One count in a block, of 1 to 64 bits; those below a byte begin at the lowest bit. */
static u64 count_get(const struct qcow2 *q, const void *block, u64 i)
{
	const u8 *p = block;

	switch (q->count_order) {
	case 3:
		return p[i];
	case 4:
		return be16toh(((const u16 *)block)[i]);
	case 5:
		return be32toh(((const u32 *)block)[i]);
	case 6:
		return be64toh(((const u64 *)block)[i]);
	default:
		return p[i << q->count_order >> 3] >> (i << q->count_order & 7) &
		       (BIT(BIT(q->count_order)) - 1);
	}
}

static void count_set(const struct qcow2 *q, void *block, u64 i, u64 value)
{
	const unsigned shift = i << q->count_order & 7;
	const u32 mask = BIT(BIT(q->count_order & 3)) - 1;
	u8 *p = block;

	switch (q->count_order) {
	case 3:
		p[i] = (u8)value;
		break;
	case 4:
		((u16 *)block)[i] = htobe16((u16)value);
		break;
	case 5:
		((u32 *)block)[i] = htobe32((u32)value);
		break;
	case 6:
		((u64 *)block)[i] = htobe64(value);
		break;
	default:
		p += i << q->count_order >> 3;
		*p = (u8)((*p & ~(mask << shift)) | value << shift);
	}
}

/* The block that counts @cluster into q->block; *at is 0 where there is none, and every count is 0. */
static int block_load(struct qcow2 *q, u64 cluster, u64 *at)
{
	const u64 index = cluster / per_block(q);
	int r;

	*at = index < q->block_count ? q->blocks[index] : 0;
	if (!*at || *at == q->block.at)
		return 0;
	if (*at % 512 || !qcow2_is_place(q, *at))
		return qcow2_damaged(q, "a block of reference counts", q->blocks_at + 8 * index);
	q->block.at = 0;
	r = qcow2_pread(q, q->block.entries, q->cluster, *at);
	if (r == 0)
		q->block.at = *at;
	return r;
}

/* The bytes of the block that hold [i, i + n), to the file. */
static int block_store(struct qcow2 *q, u64 i, u64 n)
{
	const u64 first = i << q->count_order >> 3;
	const u64 last = (((i + n) << q->count_order) - 1) >> 3;
	int r = qcow2_pwrite(q, (u8 *)q->block.entries + first, (size_t)(last - first + 1),
			     q->block.at + first);

	if (r < 0)
		q->block.at = 0;
	return r;
}

/* @n clusters in one block, which is there: each count changes by @by, which must be possible. */
static int counts_add(struct qcow2 *q, u64 cluster, u64 n, int by)
{
	const u64 max = q->count_order == 6 ? ~0ull : BIT_ULL(BIT(q->count_order)) - 1;
	const u64 i = cluster % per_block(q);
	u64 at;
	int r = block_load(q, cluster, &at);

	if (r < 0)
		return r;
	for (u64 k = 0; k < n; k++) {
		const u64 count = at ? count_get(q, q->block.entries, i + k) : 0;

		if (!at || (by < 0 ? count == 0 : count == max))
			return qcow2_damaged(q, "the reference count of a cluster",
					     (cluster + k) * q->cluster);
	}
	for (u64 k = 0; k < n; k++)
		count_set(q, q->block.entries, i + k,
			  count_get(q, q->block.entries, i + k) + (u64)(s64)by);
	return block_store(q, i, n);
}

static int count_load(struct qcow2 *q, u64 cluster, u64 *count)
{
	u64 at;
	int r = block_load(q, cluster, &at);

	*count = r == 0 && at ? count_get(q, q->block.entries, cluster % per_block(q)) : 0;
	return r;
}

/* The file reaches to @clusters, with zeros. */
static int file_grow(struct qcow2 *q, u64 clusters)
{
	const u64 bytes = clusters * q->cluster;

	if (bytes > q->bytes) {
		if (ftruncate(q->disk.fd, (off_t)bytes) < 0)
			return -errno;
		q->bytes = bytes;
	}
	if (clusters > q->end)
		q->end = clusters;
	return 0;
}

/* A block for @cluster, which it counts itself, is written and only then named. */
static int block_make(struct qcow2 *q, u64 cluster)
{
	const u64 index = cluster / per_block(q), at = cluster * q->cluster;
	const u64 entry = htobe64(at);
	int r = file_grow(q, cluster + 1);

	if (r < 0)
		return r;
	q->block.at = 0;
	memset(q->block.entries, 0, q->cluster);
	count_set(q, q->block.entries, cluster % per_block(q), 1);
	r = qcow2_pwrite(q, q->block.entries, q->cluster, at);
	if (r == 0)
		r = disk_file_flush(q->disk.fd);
	if (r == 0)
		r = qcow2_pwrite(q, &entry, sizeof(entry), q->blocks_at + 8 * index);
	if (r < 0)
		return r;
	q->blocks[index] = at;
	q->block.at = at;
	return 0;
}

struct grown {
	u64 first;    /* cluster where the new table begins; its new blocks follow it */
	u64 table, n; /* clusters of the table, and blocks */
	u64 *blocks;  /* the table, host order */
};

/* New blocks, each in host memory once: those that count the table and themselves. */
static int grown_write(struct qcow2 *q, struct grown *g)
{
	const u64 entries = g->table * q->cluster / 8, used = g->table + g->n;
	const u64 first_block = g->first / per_block(q);
	int r = 0;

	for (u64 b = 0; b < g->n && r == 0; b++) {
		const u64 base = (first_block + b) * per_block(q);

		memset(q->copy, 0, q->cluster);
		for (u64 c = g->first; c < g->first + used; c++)
			if (c >= base && c < base + per_block(q))
				count_set(q, q->copy, c - base, 1);
		g->blocks[first_block + b] = (g->first + g->table + b) * q->cluster;
		r = qcow2_pwrite(q, q->copy, q->cluster, g->blocks[first_block + b]);
	}
	for (u64 i = 0; i < entries && r == 0; i += q->cluster / 8) {
		u64 *big = (u64 *)(void *)q->copy;

		for (u64 k = 0; k < q->cluster / 8; k++)
			big[k] = htobe64(g->blocks[i + k]);
		r = qcow2_pwrite(q, big, q->cluster, g->first * q->cluster + 8 * i);
	}
	return r == 0 ? disk_file_flush(q->disk.fd) : r;
}

/* The table of blocks is full: a larger one behind all that is counted, with blocks that count it; the header names it at last. */
static int table_grow(struct qcow2 *q)
{
	const u64 per = per_block(q), old_at = q->blocks_at, old = q->block_count * 8 / q->cluster;
	struct grown g = { .first = q->end, .table = 2 * old, .n = 1 };
	struct {
		u64 at;
		u32 clusters;
	} __attribute__((packed)) place;
	int r;

	for (;;) {
		if (g.first / per + g.n > g.table * q->cluster / 8)
			g.table *= 2;
		else if (g.first % per + g.table + g.n > g.n * per)
			g.n++;
		else
			break;
	}
	if (g.table * q->cluster > QCOW2_COUNTS_MAX)
		return -ENOSPC;
	g.blocks = calloc(g.table, q->cluster);
	if (!g.blocks)
		return -ENOMEM;
	memcpy(g.blocks, q->blocks, (size_t)q->block_count * 8);
	r = file_grow(q, g.first + g.table + g.n);
	if (r == 0)
		r = grown_write(q, &g);
	place.at = htobe64(g.first * q->cluster);
	place.clusters = htobe32((u32)g.table);
	if (r == 0)
		r = qcow2_pwrite(q, &place, sizeof(place), AT_COUNTS_PLACE);
	if (r < 0) {
		free(g.blocks);
		return r;
	}
	free(q->blocks);
	q->blocks = g.blocks;
	q->block_count = g.table * q->cluster / 8;
	q->blocks_at = g.first * q->cluster;
	for (u64 i = 0; i < old && r == 0; i++)
		r = qcow2_free(q, old_at / q->cluster + i);
	return r;
}

/* One step to a run of clusters at the end of the file: counted, there, and on the disk before any is used. */
static int run_step(struct qcow2 *q)
{
	const u64 per = per_block(q), base = ALIGN_DOWN(q->end, per);
	u64 at, i = q->end - base, n = 0;
	int r;

	if (q->end / per >= q->block_count)
		return table_grow(q);
	r = block_load(q, q->end, &at);
	if (r < 0)
		return r;
	if (!at)
		return block_make(q, q->end);
	/* Counts past the end of the file are leaks of somebody else: they are left alone. */
	while (i < per && count_get(q, q->block.entries, i))
		i++;
	if (i == per)
		return file_grow(q, base + per);
	while (n < QCOW2_RUN_MAX && i + n < per && !count_get(q, q->block.entries, i + n))
		n++;
	r = counts_add(q, base + i, n, 1);
	if (r == 0)
		r = file_grow(q, base + i + n);
	if (r == 0)
		r = disk_file_flush(q->disk.fd);
	if (r == 0) {
		q->run_first = base + i;
		q->run_left = n;
	}
	return r;
}

int qcow2_alloc(struct qcow2 *q, u64 *at)
{
	int r = 0;

	if (q->pool_count) {
		*at = q->pool[--q->pool_count] * q->cluster;
		return 0;
	}
	while (!q->run_left && r == 0)
		r = run_step(q);
	if (r < 0)
		return r;
	*at = q->run_first++ * q->cluster;
	q->run_left--;
	return 0;
}

static bool pool_add(struct qcow2 *q, u64 cluster)
{
	const size_t room = q->pool_room ? 2 * q->pool_room : 256;
	u64 *grown;

	if (q->pool_count == POOL_MAX)
		return false;
	if (q->pool_count == q->pool_room) {
		grown = realloc(q->pool, room * sizeof(*grown));
		if (!grown)
			return false;
		q->pool = grown;
		q->pool_room = room;
	}
	q->pool[q->pool_count++] = cluster;
	return true;
}

/* Nothing in the file names it any more: its last reference goes to the pool, the space to the host. */
static int free_now(struct qcow2 *q, u64 cluster)
{
	u64 count;
	int r = count_load(q, cluster, &count);

	if (r < 0)
		return r;
	if (count != 1)
		return counts_add(q, cluster, 1, -1);
	r = disk_file_zero(q->disk.fd, cluster * q->cluster, q->cluster, true);
	if (r < 0)
		return r;
	return pool_add(q, cluster) ? 0 : counts_add(q, cluster, 1, -1);
}

int qcow2_flush(struct qcow2 *q)
{
	int r = disk_file_flush(q->disk.fd);

	if (r < 0 || !q->free_count)
		return r;
	for (unsigned i = 0; i < q->free_count && r == 0; i++)
		r = free_now(q, q->frees[i]);
	/* What could not be freed is lost until a repair, and nothing worse. */
	q->free_count = 0;
	return r < 0 ? r : disk_file_flush(q->disk.fd);
}

int qcow2_free(struct qcow2 *q, u64 cluster)
{
	int r = q->free_count == QCOW2_FREES_MAX ? qcow2_flush(q) : 0;

	if (r < 0)
		return r;
	q->frees[q->free_count++] = cluster;
	for (unsigned i = 0; i < q->table_count; i++)
		if (q->tables[i].at == cluster * q->cluster)
			q->tables[i].at = 0;
	return 0;
}

/* Compressed clusters share clusters of the file, and each is counted in all that it touches. */
int qcow2_free_entry(struct qcow2 *q, u64 entry)
{
	u64 at = entry & QCOW2_OFFSET;
	size_t n = 1;
	int r = 0;

	if (entry & QCOW2_COMPRESSED)
		qcow2_packed_place(q, entry, &at, &n);
	else if (!at)
		return 0;
	if (entry == q->unpacked_entry)
		q->unpacked_entry = 0;
	for (u64 c = at / q->cluster; c <= (at + n - 1) / q->cluster && r == 0; c++)
		r = qcow2_free(q, c);
	return r;
}

int qcow2_counts_open(struct qcow2 *q, u64 table_at, u32 table_clusters)
{
	int r;

	q->blocks_at = table_at;
	q->block_count = table_clusters * q->cluster / 8;
	free(q->blocks);
	q->blocks = malloc(table_clusters * q->cluster);
	r = q->blocks ? qcow2_pread(q, q->blocks, table_clusters * q->cluster, table_at) : -ENOMEM;
	for (u64 i = 0; r == 0 && i < q->block_count; i++)
		q->blocks[i] = be64toh(q->blocks[i]) & ~511ull;
	return r;
}

/* The end of the file may be given back: what is behind it was counted ahead. */
static int run_settle(struct qcow2 *q)
{
	int r = q->run_left ? counts_add(q, q->run_first, q->run_left, -1) : 0;

	if (r < 0 || !q->run_left)
		return r;
	if (q->run_first + q->run_left == q->end) {
		if (ftruncate(q->disk.fd, (off_t)(q->run_first * q->cluster)) == 0)
			q->bytes = q->run_first * q->cluster;
		q->end = (q->bytes + q->cluster - 1) / q->cluster;
	}
	q->run_left = 0;
	return 0;
}

int qcow2_counts_settle(struct qcow2 *q)
{
	int r = qcow2_flush(q);

	if (r == 0)
		r = run_settle(q);
	while (q->pool_count && r == 0) {
		r = counts_add(q, q->pool[q->pool_count - 1], 1, -1);
		q->pool_count -= r == 0;
	}
	return r == 0 ? disk_file_flush(q->disk.fd) : r;
}

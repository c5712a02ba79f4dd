/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Opening a qcow2 image: every field of the header is checked before anything else is looked at. */
#include "vmm/disk/qcow2.h"

#include <endian.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vmm/say.h"
#include "vmm/virtio/iov.h"

#define V2_BYTES       72u
#define V3_BYTES       104u
#define L1_BYTES_MAX   (32u << 20)
#define TABLES_BYTES   (2u << 20) /* of L2 tables kept */
#define DIRTY	       BIT_ULL(0) /* incompatible features */
#define CORRUPT	       BIT_ULL(1)
#define COMPRESSION    BIT_ULL(3)
#define AT_AUTOCLEAR   88
#define IMAGE_SIZE_MAX (1ull << 62)

struct header {
	u32 magic, version;
	u64 backing_at;
	u32 backing_size, cluster_bits;
	u64 size;
	u32 crypt, l1_size;
	u64 l1_at, counts_at;
	u32 counts_clusters, snapshots;
	u64 snapshots_at;
	u64 incompatible, compatible, autoclear;
	u32 count_order, length;
	u8 compression, padding[7];
};

_Static_assert(sizeof(struct header) == 112, "the header as the specification has it");

int qcow2_damaged(struct qcow2 *q, const char *what, u64 at)
{
	if (!q->is_damaged)
		say("the disk image '%s' is damaged (%s at 0x%llx); look at it with 'qemu-img "
		    "check'",
		    q->disk.path, what, (unsigned long long)at);
	q->is_damaged = true;
	return -EIO;
}

int qcow2_preadv(struct qcow2 *q, const struct iovec *iov, unsigned count, u64 at)
{
	const size_t total = iov_bytes(iov, count);
	const size_t there = at >= q->bytes	     ? 0
			     : total < q->bytes - at ? total
						     : (size_t)(q->bytes - at);
	struct iovec part[QCOW2_IOV_MAX];
	int r;

	if (there == total)
		return disk_file_read(q->disk.fd, iov, count, at);
	r = disk_file_read(q->disk.fd, part, iov_cut(iov, count, 0, there, part), at);
	iov_zero(iov, count, there, total - there);
	return r;
}

int qcow2_pread(struct qcow2 *q, void *to, size_t n, u64 at)
{
	const struct iovec iov = { to, n };

	return qcow2_preadv(q, &iov, 1, at);
}

int qcow2_pwrite(struct qcow2 *q, const void *from, size_t n, u64 at)
{
	const struct iovec iov = { (void *)from, n };

	return disk_file_write(q->disk.fd, &iov, 1, at);
}

static bool overlaps(u64 at, u64 n, u64 start, u64 size)
{
	return at < start + size && start < at + n;
}

bool qcow2_is_place(const struct qcow2 *q, u64 at)
{
	return at % q->cluster == 0 && at >= q->cluster && at / q->cluster < q->end &&
	       !overlaps(at, q->cluster, q->l1_at, (u64)q->l1_size * 8) &&
	       !overlaps(at, q->cluster, q->blocks_at, q->block_count * 8);
}

static void header_to_host(struct header *h)
{
	u64 *const wide[] = { &h->backing_at,	&h->size,	  &h->l1_at,	  &h->counts_at,
			      &h->snapshots_at, &h->incompatible, &h->compatible, &h->autoclear };
	u32 *const narrow[] = { &h->magic,	 &h->version, &h->backing_size,	   &h->cluster_bits,
				&h->crypt,	 &h->l1_size, &h->counts_clusters, &h->snapshots,
				&h->count_order, &h->length };

	for (size_t i = 0; i < ARRAY_SIZE(wide); i++)
		*wide[i] = be64toh(*wide[i]);
	for (size_t i = 0; i < ARRAY_SIZE(narrow); i++)
		*narrow[i] = be32toh(*narrow[i]);
}

/* Version 2 ends before the features, and version 3 may end before the compression. */
static int header_read(int fd, struct header *h)
{
	const ssize_t n = pread(fd, h, sizeof(*h), 0);

	if (n < (ssize_t)V2_BYTES)
		return -EINVAL;
	memset((u8 *)h + n, 0, sizeof(*h) - (size_t)n);
	header_to_host(h);
	if (h->version == 3 && n < (ssize_t)V3_BYTES)
		return -EINVAL;
	if (h->version == 2) {
		memset((u8 *)h + V2_BYTES, 0, sizeof(*h) - V2_BYTES);
		h->count_order = 4;
		h->length = V2_BYTES;
	}
	if (h->length <= V3_BYTES)
		h->compression = QCOW2_ZLIB;
	return 0;
}

/* What it is, but not here; NULL: nothing of that kind. */
static const char *unsupported(const struct header *h)
{
	if (h->version != 2 && h->version != 3)
		return "is of a version of qcow2 that is unknown here";
	if (h->crypt)
		return "is encrypted";
	if (h->backing_at || h->backing_size)
		return "has a backing file";
	if (h->incompatible & ~(DIRTY | CORRUPT | COMPRESSION))
		return "needs a feature (an external data file or subclusters) that is unknown "
		       "here";
	if (h->compression > QCOW2_ZSTD)
		return "is compressed in an unknown way";
	return NULL;
}

/* A field that cannot be; NULL: all can. @file: bytes. */
static const char *nonsense(const struct header *h, u64 file)
{
	const u64 cluster = 1ull << (h->cluster_bits & 63);
	const u64 l1_bytes = (u64)h->l1_size * 8;
	u64 reach;

	if (h->cluster_bits < 9 || h->cluster_bits > 21)
		return "the size of clusters";
	if (h->count_order > 6)
		return "the width of reference counts";
	if (h->version == 3 && (h->length < V3_BYTES || h->length > cluster || h->length % 8))
		return "the length of the header";
	if ((h->compression != QCOW2_ZLIB) != ((h->incompatible & COMPRESSION) != 0))
		return "the way of compression";
	reach = cluster * (cluster / 8);
	if (!h->size || h->size % DISK_SECTOR || h->size > IMAGE_SIZE_MAX)
		return "the size of the disk";
	if (l1_bytes > L1_BYTES_MAX || h->l1_size < (h->size + reach - 1) / reach)
		return "the size of the L1 table";
	if (h->l1_at % cluster || !h->l1_at || h->l1_at > file || l1_bytes > file - h->l1_at)
		return "the place of the L1 table";
	if (!h->counts_clusters || h->counts_clusters > QCOW2_COUNTS_MAX / cluster + 1)
		return "the size of the reference counts";
	if (h->counts_at % cluster || !h->counts_at || h->counts_at > file ||
	    h->counts_clusters * cluster > file - h->counts_at)
		return "the place of the reference counts";
	return NULL;
}

static int header_check(const struct header *h, u64 file, const char *path, bool read_only,
			struct why *why)
{
	const char *what = unsupported(h);

	if (what)
		return why_set(
			why, ENOTSUP,
			"the qcow2 image '%s' %s; make a plain one with 'qemu-img convert -O "
			"qcow2'",
			path, what);
	what = nonsense(h, file);
	if (what)
		return why_set(why, EINVAL,
			       "the header of the qcow2 image '%s' is damaged: %s cannot be; "
			       "look at it with 'qemu-img check'",
			       path, what);
	if (h->incompatible & (DIRTY | CORRUPT) && !read_only)
		return why_set(why, EINVAL,
			       "the qcow2 image '%s' was not closed well; repair it with 'qemu-img "
			       "check -r all', or add ,ro",
			       path);
	return 0;
}

static int tables_make(struct qcow2 *q)
{
	const u64 wanted = TABLES_BYTES / q->cluster;

	q->table_count = wanted < 4		     ? 4
			 : wanted > QCOW2_TABLES_MAX ? QCOW2_TABLES_MAX
						     : (u32)wanted;
	for (unsigned i = 0; i < q->table_count; i++) {
		q->tables[i].entries = malloc(q->cluster);
		if (!q->tables[i].entries)
			return -ENOMEM;
	}
	return 0;
}

/* What is known of the file, from its header; of its tables nothing. */
static void place_set(struct qcow2 *q, const struct header *h, u64 file)
{
	q->l1_at = h->l1_at;
	q->bytes = file;
	q->end = (file + q->cluster - 1) / q->cluster;
	for (unsigned i = 0; i < q->table_count; i++)
		q->tables[i].at = 0;
	q->block.at = 0;
	q->unpacked_entry = 0;
	q->run_left = 0;
	q->free_count = 0;
	q->pool_count = 0;
}

static int tables_read(struct qcow2 *q, const struct header *h)
{
	int r = qcow2_pread(q, q->l1, (size_t)q->l1_size * 8, q->l1_at);

	for (u32 i = 0; i < q->l1_size && r == 0; i++)
		q->l1[i] = be64toh(q->l1[i]);
	if (r == 0)
		r = qcow2_counts_open(q, h->counts_at, h->counts_clusters);
	return r;
}

static int tables_load(struct qcow2 *q, const struct header *h, struct why *why)
{
	int r = tables_read(q, h);

	return r == 0 ? 0
		      : why_set(why, -r, "cannot read the tables of the disk image '%s': %s",
				q->disk.path, strerror(-r));
}

static void qcow2_drop(struct qcow2 *q)
{
	for (unsigned i = 0; i < QCOW2_TABLES_MAX; i++)
		free(q->tables[i].entries);
	free(q->block.entries);
	free(q->blocks);
	free(q->l1);
	free(q->pool);
	free(q->packed);
	free(q->unpacked);
	free(q->copy);
	free(q);
}

static struct qcow2 *qcow2_new(const struct header *h, int fd, u64 file, const char *path,
			       bool read_only)
{
	struct qcow2 *q = calloc(1, sizeof(*q));

	if (!q)
		return NULL;
	q->disk = (struct disk){
		.ops = &qcow2_ops, .size = h->size, .is_read_only = read_only, .fd = fd
	};
	snprintf(q->disk.path, sizeof(q->disk.path), "%s", path);
	q->version = h->version;
	q->cluster_bits = h->cluster_bits;
	q->cluster = 1ull << h->cluster_bits;
	q->count_order = h->count_order;
	q->compression = h->compression;
	q->l1_size = h->l1_size;
	place_set(q, h, file);
	q->l1 = malloc((size_t)q->l1_size * 8);
	q->packed = malloc(2 * q->cluster);
	q->unpacked = malloc(q->cluster);
	q->copy = malloc(q->cluster);
	q->block.entries = malloc(q->cluster);
	if (q->l1 && q->packed && q->unpacked && q->copy && q->block.entries && tables_make(q) == 0)
		return q;
	qcow2_drop(q);
	return NULL;
}

int qcow2_settle(struct disk *disk)
{
	return qcow2_counts_settle(qcow2_of(disk));
}

void qcow2_close(struct disk *disk)
{
	struct qcow2 *q = qcow2_of(disk);

	if (!disk->is_read_only && !disk->is_away)
		qcow2_counts_settle(q);
	close(disk->fd);
	qcow2_drop(q);
}

/* The header of an image, checked, and the size of its file. */
static int header_take(struct header *h, u64 *file, int fd, const char *path, bool read_only,
		       struct why *why)
{
	if (header_read(fd, h) < 0)
		return why_set(why, EINVAL,
			       "the header of the qcow2 image '%s' is cut off; look at it with "
			       "'qemu-img check'",
			       path);
	*file = (u64)lseek(fd, 0, SEEK_END);
	return header_check(h, *file, path, read_only, why);
}

/* Who writes and does not know a feature takes its mark away. */
static int autoclear(struct qcow2 *q, const struct header *h, struct why *why)
{
	const u64 nothing = 0;
	int r = h->autoclear && !q->disk.is_read_only
			? qcow2_pwrite(q, &nothing, sizeof(nothing), AT_AUTOCLEAR)
			: 0;

	return r == 0 ? 0
		      : why_set(why, -r, "cannot write the header of the disk image '%s': %s",
				q->disk.path, strerror(-r));
}

static bool is_same_disk(const struct qcow2 *q, const struct header *h)
{
	return h->size == q->disk.size && h->version == q->version &&
	       h->cluster_bits == q->cluster_bits && h->count_order == q->count_order &&
	       h->compression == q->compression && h->l1_size == q->l1_size;
}

int qcow2_load(struct disk *disk, struct why *why)
{
	struct qcow2 *q = qcow2_of(disk);
	struct header h;
	u64 file;
	int r = header_take(&h, &file, disk->fd, q->disk.path, disk->is_read_only, why);

	if (r < 0)
		return r;
	if (!is_same_disk(q, &h))
		return why_set(why, EINVAL, "the qcow2 image '%s' is another one than before",
			       q->disk.path);
	place_set(q, &h, file);
	r = tables_load(q, &h, why);
	return r == 0 && !disk->is_away ? autoclear(q, &h, why) : r;
}

int qcow2_open(struct disk **out, int fd, const char *path, bool read_only, bool is_away,
	       struct why *why)
{
	struct header h;
	struct qcow2 *q;
	struct stat st;
	u64 file;
	int r;

	if (fstat(fd, &st) < 0 || (!read_only && !S_ISREG(st.st_mode)))
		return why_set(why, EINVAL,
			       "the qcow2 image '%s' is no file, and cannot grow; add ,ro", path);
	r = header_take(&h, &file, fd, path, read_only, why);
	if (r < 0)
		return r;
	q = qcow2_new(&h, fd, file, path, read_only);
	if (!q)
		return why_set(why, ENOMEM, "no memory for the disk '%s'", path);
	if (!is_away) {
		r = tables_load(q, &h, why);
		if (r == 0)
			r = autoclear(q, &h, why);
	}
	if (r < 0) {
		qcow2_drop(q);
		return r;
	}
	*out = &q->disk;
	return 0;
}

/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* A qcow2 image: its header, its two levels of tables, its reference counts, and the order in which they change. */
/*
 * A disk of clusters: the L1 table names L2 tables, an L2 table names clusters of the file. Every cluster of the file has a
 * reference count; what is referenced once has COPIED in its entry, and only that is written in place.
 *
 * Whenever the process or the machine dies, the image must be sound: clusters may be lost until a repair, never used twice
 * or named without a count. So
 *
 *	counts come first	clusters are counted in runs at the end of the file, and that is on the disk before one is named
 *	names come last		copied contents are on the disk before the entry that names their new place
 *	frees wait		a cluster that is no longer named is freed after the next flush; until close it stays
 *				counted and is used again, so that using it costs no flush
 *
 * All entries go to the file at once: a process that is killed loses nothing.
 */
#ifndef VMM_DISK_QCOW2_H
#define VMM_DISK_QCOW2_H

#include "vmm/disk/disk.h"

#define QCOW2_COPIED	 BIT_ULL(63)
#define QCOW2_COMPRESSED BIT_ULL(62)
#define QCOW2_ZERO	 BIT_ULL(0)
#define QCOW2_OFFSET	 0x00fffffffffffe00ull

#define QCOW2_TABLES_MAX 64u
#define QCOW2_RUN_MAX	 64u   /* clusters counted ahead */
#define QCOW2_FREES_MAX	 4096u /* clusters that wait for a flush */

#define QCOW2_COUNTS_MAX (8u << 20) /* bytes of the table of blocks */
#define QCOW2_IOV_MAX	 512u	    /* pieces of one request */

enum { QCOW2_ZLIB, QCOW2_ZSTD };

/* What a place of the disk is. */
enum qcow2_kind { QCOW2_NOTHING, QCOW2_PLAIN, QCOW2_PACKED };

struct qcow2_table {
	u64 at; /* in the file; 0: empty */
	u64 used;
	u64 *entries; /* big endian */
};

struct qcow2 {
	struct disk disk;
	unsigned version, cluster_bits, count_order;
	u64 cluster; /* bytes */
	u8 compression;
	bool is_damaged; /* it was said */

	u64 *l1; /* host order */
	u32 l1_size;
	u64 l1_at;
	struct qcow2_table tables[QCOW2_TABLES_MAX]; /* L2 tables, as they are in the file */
	unsigned table_count;
	u64 clock;

	u64 *blocks; /* offsets of the blocks of counts, host order */
	u64 block_count, blocks_at;
	struct qcow2_table block;

	u64 bytes; /* of the file */
	u64 end;   /* the same in clusters, the last one may be cut off */
	u64 run_first, run_left;
	u64 frees[QCOW2_FREES_MAX]; /* clusters, after the next flush */
	unsigned free_count;
	u64 *pool; /* counted, unnamed, and all zero */
	size_t pool_count, pool_room;

	u8 *packed, *unpacked, *copy; /* a cluster each; two for the first */
	u64 unpacked_entry;	      /* that unpacked holds; 0: none */
};

static inline struct qcow2 *qcow2_of(struct disk *d)
{
	return container_of(d, struct qcow2, disk);
}

/* -EIO, and one line the first time. */
int qcow2_damaged(struct qcow2 *q, const char *what, u64 at);

/* A cluster of the file that an entry may name: aligned, inside, and none of the fixed tables. */
bool qcow2_is_place(const struct qcow2 *q, u64 at);

/* Past the end of the file there are zeros. */
int qcow2_preadv(struct qcow2 *q, const struct iovec *iov, unsigned count, u64 at);
int qcow2_pread(struct qcow2 *q, void *to, size_t n, u64 at);
int qcow2_pwrite(struct qcow2 *q, const void *from, size_t n, u64 at);

/* The entry of @offset of the disk, checked; 0 where there is none. */
int qcow2_entry(struct qcow2 *q, u64 offset, u64 *entry);

/* The same in a table that may be written, made if need be; it stays until the next call. */
int qcow2_entry_own(struct qcow2 *q, u64 offset, struct qcow2_table **table, u64 *entry);
int qcow2_entry_set(struct qcow2 *q, struct qcow2_table *table, u64 offset, u64 entry);

enum qcow2_kind qcow2_kind(const struct qcow2 *q, u64 entry);

/* The whole cluster of a compressed entry, in q->unpacked. */
int qcow2_unpack(struct qcow2 *q, u64 entry);

/* Where the bytes of a compressed entry are. */
void qcow2_packed_place(const struct qcow2 *q, u64 entry, u64 *at, size_t *n);

/* A cluster that is counted once, full of zeros: its offset in the file. */
int qcow2_alloc(struct qcow2 *q, u64 *at);

/* What @entry names is named once less, after the next flush. */
int qcow2_free_entry(struct qcow2 *q, u64 entry);
int qcow2_free(struct qcow2 *q, u64 cluster);

int qcow2_flush(struct qcow2 *q);
int qcow2_counts_open(struct qcow2 *q, u64 table_at, u32 table_clusters);
int qcow2_counts_settle(struct qcow2 *q); /* what was counted ahead is given back: 0 or -errno */

extern const struct disk_ops qcow2_ops;
int qcow2_settle(struct disk *disk);
int qcow2_load(struct disk *disk, struct why *why);
void qcow2_close(struct disk *disk);

#endif

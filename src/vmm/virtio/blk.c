/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* virtio block device, as the specification's chapter "Block Device" has it. */
/*
 * Reads, writes and flushes of an image whose offsets are the disk's go through io_uring, straight to and from guest
 * memory, so that the device thread does not wait. Everything else, and all of it where the host has no io_uring, is done in place.
 * What the ring does only in part is done again in place: that finds the error.
 */
#include "vmm/virtio/blk.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <liburing.h>
#include <linux/virtio_blk.h>
#include <linux/virtio_ids.h>

#include "vmm/virtio/iov.h"
#include "vmm/virtio/transport.h"

#define QUEUE	     0
#define SEGMENTS_MAX (CHAIN_MAX - 2)
#define ZERO_SECTORS 0x400000u /* of one discard or write-zeroes request: 2 GiB */
#define RANGES_MAX   16u
#define RETRY_MS     5

struct request {
	struct chain chain;
	struct iovec iov[CHAIN_MAX]; /* the data */
	unsigned count;
	u32 type;
	u64 offset;
	bool is_busy;
};

struct blk {
	struct virtio_device virtio;
	struct virtio_blk_config config;
	struct disk *disk;
	char serial[VIRTIO_BLK_ID_BYTES];
	struct request *requests; /* by head: a head is in flight once */
	unsigned in_flight;
	struct io_uring ring;
	bool has_ring;
	int ring_fd; /* eventfd: something has completed */
};

static struct blk *blk_of(struct virtio_device *d)
{
	return container_of(d, struct blk, virtio);
}

/* The status byte is the last one that the device may write. */
static void request_finish(struct blk *b, struct request *r, int result, u32 written)
{
	const u8 status = result == 0		  ? VIRTIO_BLK_S_OK
			  : result == -EOPNOTSUPP ? VIRTIO_BLK_S_UNSUPP
						  : VIRTIO_BLK_S_IOERR;

	iov_write(chain_in(&r->chain), r->chain.in, r->chain.in_bytes - 1, &status, 1);
	virtqueue_push(&b->virtio.queues[QUEUE], &r->chain, result == 0 ? written + 1 : 1);
	r->is_busy = false;
}

static u32 data_written(const struct request *r)
{
	return r->type == VIRTIO_BLK_T_IN ? (u32)iov_bytes(r->iov, r->count) : 0;
}

static int transfer(struct blk *b, struct request *r)
{
	if (r->type == VIRTIO_BLK_T_IN)
		return b->disk->ops->read(b->disk, r->iov, r->count, r->offset);
	if (r->type == VIRTIO_BLK_T_OUT)
		return b->disk->ops->write(b->disk, r->iov, r->count, r->offset);
	return b->disk->ops->flush(b->disk);
}

/* False: the ring has no room or there is none. */
static bool ring_submit(struct blk *b, struct request *r)
{
	struct io_uring_sqe *sqe = b->has_ring ? io_uring_get_sqe(&b->ring) : NULL;

	if (!sqe)
		return false;
	if (r->type == VIRTIO_BLK_T_IN)
		io_uring_prep_readv(sqe, b->disk->fd, r->iov, r->count, r->offset);
	else if (r->type == VIRTIO_BLK_T_OUT)
		io_uring_prep_writev(sqe, b->disk->fd, r->iov, r->count, r->offset);
	else
		io_uring_prep_fsync(sqe, b->disk->fd, IORING_FSYNC_DATASYNC);
	io_uring_sqe_set_data(sqe, r);
	b->in_flight++;
	return true;
}

static void request_run(struct blk *b, struct request *r)
{
	if (ring_submit(b, r))
		return;
	request_finish(b, r, transfer(b, r), data_written(r));
}

static void ring_reap(struct blk *b)
{
	struct io_uring_cqe *cqe;

	while (b->in_flight && io_uring_peek_cqe(&b->ring, &cqe) == 0) {
		struct request *r = io_uring_cqe_get_data(cqe);
		const s64 wanted =
			r->type == VIRTIO_BLK_T_FLUSH ? 0 : (s64)iov_bytes(r->iov, r->count);
		const s64 result = cqe->res;

		io_uring_cqe_seen(&b->ring, cqe);
		b->in_flight--;
		request_finish(b, r, result == wanted ? 0 : transfer(b, r), data_written(r));
	}
}

/* A submission may end early, at a request that fails: the rest is submitted again. */
static void ring_push(struct blk *b)
{
	while (b->has_ring && io_uring_sq_ready(&b->ring))
		if (io_uring_submit(&b->ring) <= 0)
			break; /* no room now: ring_prepare() sees to it */
}

/* Wait until the host has let go of the guest's memory. */
static void ring_drain(struct blk *b)
{
	struct io_uring_cqe *cqe;

	while (b->in_flight) {
		int r = io_uring_submit(&b->ring); /* what it would not take before */

		if (r >= 0)
			r = io_uring_wait_cqe(&b->ring, &cqe);
		if (r < 0 && r != -EINTR && r != -EAGAIN && r != -EBUSY)
			break;
		ring_reap(b);
	}
}

/* Of the rest after the header: pieces that the device reads for a write, or fills for a read. */
static int transfer_start(struct blk *b, struct request *r, u64 sector)
{
	const struct chain *c = &r->chain;
	const bool is_read = r->type == VIRTIO_BLK_T_IN;
	const size_t n =
		is_read ? c->in_bytes - 1 : c->out_bytes - sizeof(struct virtio_blk_outhdr);
	const u64 sectors = b->disk->size / DISK_SECTOR;

	if (n % DISK_SECTOR || sector > sectors || n / DISK_SECTOR > sectors - sector)
		return -EIO;
	if (!is_read && b->disk->is_read_only)
		return -EIO;
	r->offset = sector * DISK_SECTOR;
	r->count = is_read ? iov_cut(chain_in(c), c->in, 0, n, r->iov)
			   : iov_cut(c->iov, c->out, sizeof(struct virtio_blk_outhdr), n, r->iov);
	if (!n)
		return 0;
	request_run(b, r);
	return 1;
}

static int range_apply(struct blk *b, u32 type, const struct virtio_blk_discard_write_zeroes *range)
{
	const u64 sectors = b->disk->size / DISK_SECTOR;
	const u64 offset = range->sector * DISK_SECTOR, n = (u64)range->num_sectors * DISK_SECTOR;
	const u32 unmap = VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP;

	if (range->flags & ~unmap || (type == VIRTIO_BLK_T_DISCARD && range->flags))
		return -EOPNOTSUPP;
	if (b->disk->is_read_only || range->num_sectors > ZERO_SECTORS || range->sector > sectors ||
	    range->num_sectors > sectors - range->sector)
		return -EIO;
	if (type == VIRTIO_BLK_T_DISCARD)
		return b->disk->ops->discard(b->disk, offset, n);
	return b->disk->ops->zero(b->disk, offset, n, range->flags & unmap);
}

static int ranges_apply(struct blk *b, const struct request *r)
{
	const size_t head = sizeof(struct virtio_blk_outhdr);
	const struct chain *c = &r->chain;
	struct virtio_blk_discard_write_zeroes range;
	const size_t count = (c->out_bytes - head) / sizeof(range);
	int result = 0;

	if ((c->out_bytes - head) % sizeof(range) || count > RANGES_MAX)
		return -EIO;
	for (size_t i = 0; i < count && result == 0; i++) {
		iov_read(c->iov, c->out, head + i * sizeof(range), &range, sizeof(range));
		result = range_apply(b, r->type, &range);
	}
	return result;
}

/* What happens at once: 0 or -errno, and what was written in @written; 1: it is under way. */
static int request_start(struct blk *b, struct request *r, u64 sector, u32 *written)
{
	switch (r->type) {
	case VIRTIO_BLK_T_IN:
	case VIRTIO_BLK_T_OUT:
		return transfer_start(b, r, sector);
	case VIRTIO_BLK_T_FLUSH:
		r->count = 0;
		request_run(b, r);
		return 1;
	case VIRTIO_BLK_T_GET_ID:
		if (r->chain.in_bytes - 1 < sizeof(b->serial))
			return -EIO;
		*written = (u32)iov_write(chain_in(&r->chain), r->chain.in, 0, b->serial,
					  sizeof(b->serial));
		return 0;
	case VIRTIO_BLK_T_DISCARD:
	case VIRTIO_BLK_T_WRITE_ZEROES:
		return ranges_apply(b, r);
	default:
		return -EOPNOTSUPP;
	}
}

/* False: no driver writes such a chain. */
static bool request_take(struct blk *b, struct request *r)
{
	struct virtio_blk_outhdr head;
	u32 written = 0;
	int result;

	if (r->chain.out_bytes < sizeof(head) || !r->chain.in_bytes)
		return false;
	iov_read(r->chain.iov, r->chain.out, 0, &head, sizeof(head));
	r->type = head.type;
	r->is_busy = true;
	result = request_start(b, r, head.sector, &written);
	if (result <= 0)
		request_finish(b, r, result, written);
	return true;
}

static void queue_ready(struct virtio_device *d, unsigned queue)
{
	struct blk *b = blk_of(d);
	struct chain c;

	while (virtio_pop(d, queue, &c)) {
		struct request *r = &b->requests[c.head];

		if (r->is_busy) {
			virtio_broken(d);
			break;
		}
		r->chain = c;
		if (!request_take(b, r)) {
			virtio_broken(d);
			break;
		}
	}
	ring_push(b);
	virtio_interrupt(d, queue);
}

static void blk_reset(struct virtio_device *d)
{
	ring_drain(blk_of(d));
}

static void blk_quiesce(struct virtio_device *d)
{
	ring_drain(blk_of(d));
	virtio_interrupt(d, QUEUE);
}

static void ring_prepare(void *owner, struct loop *loop)
{
	struct blk *b = owner;

	loop_watch(loop, b->ring_fd, POLLIN);
	if (io_uring_sq_ready(&b->ring))
		loop_timeout(loop, RETRY_MS);
}

static void ring_dispatch(void *owner, struct loop *loop)
{
	struct blk *b = owner;
	u64 count;

	if (!loop_came(loop, b->ring_fd) && !io_uring_sq_ready(&b->ring))
		return;
	if (loop_came(loop, b->ring_fd) && read(b->ring_fd, &count, sizeof(count)) < 0)
		return;
	pthread_mutex_lock(&b->virtio.lock);
	ring_push(b);
	ring_reap(b);
	virtio_interrupt(&b->virtio, QUEUE);
	pthread_mutex_unlock(&b->virtio.lock);
}

static const struct virtio_ops blk_ops = { .queue_ready = queue_ready,
					   .reset = blk_reset,
					   .quiesce = blk_quiesce };

static const struct virtio_kind blk_kind = {
	.name = "virtio-blk",
	.id = VIRTIO_ID_BLOCK,
	.class_code = 0x018000, /* mass storage, other */
	.queues = 1,
	.features = BIT_ULL(VIRTIO_BLK_F_SEG_MAX) | BIT_ULL(VIRTIO_BLK_F_FLUSH) |
		    BIT_ULL(VIRTIO_BLK_F_DISCARD) | BIT_ULL(VIRTIO_BLK_F_WRITE_ZEROES),
	.ops = &blk_ops,
};

/* No io_uring, as in many containers, is no error. */
static void ring_open(struct blk *b)
{
	if (!b->disk->is_flat || io_uring_queue_init(QUEUE_SIZE_MAX, &b->ring, 0) < 0)
		return;
	b->ring_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	b->has_ring = b->ring_fd >= 0 && io_uring_register_eventfd(&b->ring, b->ring_fd) == 0;
	if (b->has_ring)
		return;
	if (b->ring_fd >= 0)
		close(b->ring_fd);
	io_uring_queue_exit(&b->ring);
}

static void ring_close(struct blk *b)
{
	if (!b->has_ring)
		return;
	io_uring_queue_exit(&b->ring);
	close(b->ring_fd);
}

int blk_create(struct blk **out, struct disk *disk, const char *serial, struct pci_bus *bus,
	       struct loop *loop, const struct ram *ram)
{
	struct blk *b = calloc(1, sizeof(*b));
	int r = -ENOMEM;

	if (b)
		b->requests = calloc(QUEUE_SIZE_MAX, sizeof(*b->requests));
	if (!b || !b->requests)
		goto out;
	b->disk = disk;
	memcpy(b->serial, serial, strnlen(serial, sizeof(b->serial)));
	b->config = (struct virtio_blk_config){
		.capacity = disk->size / DISK_SECTOR,
		.seg_max = SEGMENTS_MAX,
		.max_discard_sectors = ZERO_SECTORS,
		.max_discard_seg = RANGES_MAX,
		.discard_sector_alignment = 8,
		.max_write_zeroes_sectors = ZERO_SECTORS,
		.max_write_zeroes_seg = RANGES_MAX,
		.write_zeroes_may_unmap = 1,
	};
	ring_open(b);
	r = virtio_init(&b->virtio, &blk_kind, bus, loop, ram, &b->config, sizeof(b->config), 0);
	if (r < 0)
		goto out_ring;
	if (disk->is_read_only)
		b->virtio.offered |= BIT_ULL(VIRTIO_BLK_F_RO);
	if (b->has_ring)
		r = loop_add(loop, (struct loop_source){ ring_prepare, ring_dispatch, b });
	if (r == 0) {
		*out = b;
		return 0;
	}
	virtio_destroy(&b->virtio);
out_ring:
	ring_close(b);
out:
	if (b)
		free(b->requests);
	free(b);
	return r;
}

void blk_destroy(struct blk *b)
{
	ring_drain(b);
	ring_close(b);
	virtio_destroy(&b->virtio);
	disk_close(b->disk);
	free(b->requests);
	free(b);
}

struct virtio_device *blk_device(struct blk *b)
{
	return &b->virtio;
}

struct disk *blk_disk(struct blk *b)
{
	return b->disk;
}

/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Split virtqueues, as the Virtual I/O Device specification's chapter "Split Virtqueues" lays them out. */
#include "vmm/virtio/queue.h"

#include <errno.h>
#include <string.h>

#include <linux/virtio_ring.h>

#define AVAIL_FLAGS    0
#define AVAIL_IDX      2
#define AVAIL_RING     4
#define USED_FLAGS     0
#define USED_IDX       2
#define USED_RING      4
#define AVAIL_BYTES(q) (6u + 2u * (q)->size)
#define USED_BYTES(q)  (6u + 8u * (q)->size)
#define USED_EVENT(q)  (AVAIL_RING + 2u * (q)->size) /* in the available ring */
#define AVAIL_EVENT(q) (USED_RING + 8u * (q)->size)  /* in the used ring */

bool virtqueue_is_sane(const struct virtqueue *q)
{
	if (!q->size || q->size > QUEUE_SIZE_MAX || q->size & (q->size - 1))
		return false;
	if (q->desc_at % 16 || q->avail_at % 2 || q->used_at % 4)
		return false;
	return ram_at(q->ram, q->desc_at, 16u * q->size) &&
	       ram_at(q->ram, q->avail_at, AVAIL_BYTES(q)) &&
	       ram_at(q->ram, q->used_at, USED_BYTES(q));
}

/* The rings were checked when the queue was enabled, and RAM does not go while devices run. */
static u8 *ring(const struct virtqueue *q, gpa_t at, u64 offset)
{
	return (u8 *)ram_at(q->ram, at, 1) + offset;
}

static u16 load16(const u8 *p)
{
	return __atomic_load_n((const u16 *)(const void *)p, __ATOMIC_ACQUIRE);
}

static void store16(u8 *p, u16 value)
{
	__atomic_store_n((u16 *)(void *)p, value, __ATOMIC_RELEASE);
}

static void used16_store(const struct virtqueue *q, u64 offset, u16 value)
{
	u8 *p = ring(q, q->used_at, offset);

	store16(p, value);
	ram_mark(q->ram, p, sizeof(value));
}

static int broken(struct virtqueue *q)
{
	q->broken = 1;
	return -EPROTO;
}

/*
 * A descriptor read once: the guest may change it at any time, so the copy is made opaque to the compiler. An indirect table
 * may begin at any byte.
 */
static struct vring_desc desc_load(const u8 *table, unsigned i)
{
	struct vring_desc d;

	memcpy(&d, table + 16u * i, sizeof(d));
	__asm__ volatile("" : "+m"(d));
	return d;
}

/* One piece; false: the chain is wrong. Writable pieces come last. */
static bool piece_add(struct virtqueue *q, struct chain *c, const struct vring_desc *d)
{
	const bool is_in = d->flags & VRING_DESC_F_WRITE;
	void *host;

	if (c->out + c->in == CHAIN_MAX || (!is_in && c->in))
		return false;
	if (!d->len)
		return true;
	host = ram_at(q->ram, d->addr, d->len);
	if (!host)
		return false;
	c->iov[c->out + c->in] = (struct iovec){ host, d->len };
	if (is_in) {
		c->in++;
		c->in_bytes += d->len;
	} else {
		c->out++;
		c->out_bytes += d->len;
	}
	return true;
}

/* The chain that begins at @i of a table of @count; each entry is used at most once, so a circle ends. */
static bool table_walk(struct virtqueue *q, struct chain *c, const u8 *table, unsigned count,
		       unsigned i, struct vring_desc *indirect)
{
	for (unsigned steps = 0; steps < count; steps++) {
		const struct vring_desc d = desc_load(table, i);

		if (d.flags & VRING_DESC_F_INDIRECT) {
			/* It ends the chain of the main table, and is the only one of this one. */
			if (!indirect || d.flags & VRING_DESC_F_NEXT)
				return false;
			*indirect = d;
			return true;
		}
		if (!piece_add(q, c, &d))
			return false;
		if (!(d.flags & VRING_DESC_F_NEXT))
			return true;
		if (d.next >= count)
			return false;
		i = d.next;
	}
	return false;
}

static int chain_read(struct virtqueue *q, struct chain *c)
{
	struct vring_desc indirect = { .len = 0 };
	const u8 *table;

	if (!table_walk(q, c, ring(q, q->desc_at, 0), q->size, c->head,
			q->indirect ? &indirect : NULL))
		return broken(q);
	if (!(indirect.flags & VRING_DESC_F_INDIRECT))
		return 1;
	table = ram_at(q->ram, indirect.addr, indirect.len);
	if (!table || !indirect.len || indirect.len % 16 || indirect.len / 16 > CHAIN_MAX)
		return broken(q);
	return table_walk(q, c, table, indirect.len / 16, 0, NULL) ? 1 : broken(q);
}

int virtqueue_pop(struct virtqueue *q, struct chain *c)
{
	u16 waiting;

	if (q->broken)
		return -EPROTO;
	if (!q->enabled)
		return 0;
	waiting = (u16)(load16(ring(q, q->avail_at, AVAIL_IDX)) - q->last_avail);
	if (!waiting)
		return 0;
	if (waiting > q->size)
		return broken(q);
	c->head = load16(ring(q, q->avail_at, AVAIL_RING + 2u * (q->last_avail % q->size)));
	c->out = c->in = 0;
	c->out_bytes = c->in_bytes = 0;
	if (c->head >= q->size)
		return broken(q);
	q->last_avail++;
	return chain_read(q, c);
}

void virtqueue_unpop(struct virtqueue *q)
{
	q->last_avail--;
}

void virtqueue_push(struct virtqueue *q, const struct chain *c, u32 written)
{
	const struct vring_used_elem element = { c->head, written };
	u8 *place;

	for (unsigned i = 0; i < c->in; i++)
		ram_mark(q->ram, chain_in(c)[i].iov_base, chain_in(c)[i].iov_len);
	if (!q->enabled || q->broken)
		return;
	place = ring(q, q->used_at, USED_RING + 8u * (q->used % q->size));
	memcpy(place, &element, sizeof(element));
	ram_mark(q->ram, place, sizeof(element));
	q->used++;
	used16_store(q, USED_IDX, q->used);
}

bool virtqueue_wants_interrupt(struct virtqueue *q)
{
	const u16 old = q->signalled, new = q->used;
	const bool was_valid = q->signalled_is_valid;

	if (!q->enabled || q->broken || (was_valid && old == new))
		return false;
	/* The used index is seen before the driver's wish is read: no interrupt is lost between them. */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	q->signalled = new;
	q->signalled_is_valid = 1;
	if (!q->event_idx)
		return !(load16(ring(q, q->avail_at, AVAIL_FLAGS)) & VRING_AVAIL_F_NO_INTERRUPT);
	return !was_valid ||
	       vring_need_event(load16(ring(q, q->avail_at, USED_EVENT(q))), new, old);
}

u16 virtqueue_offered(const struct virtqueue *q)
{
	return q->enabled && !q->broken ? load16(ring(q, q->avail_at, AVAIL_IDX)) : 0;
}

bool virtqueue_notify_on(struct virtqueue *q)
{
	if (!q->enabled || q->broken)
		return false;
	if (q->event_idx)
		used16_store(q, AVAIL_EVENT(q), q->last_avail);
	else
		used16_store(q, USED_FLAGS, 0);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	return load16(ring(q, q->avail_at, AVAIL_IDX)) != q->last_avail;
}

void virtqueue_notify_off(struct virtqueue *q)
{
	/* With event idx an event far behind says the same, and nothing has to be written. */
	if (q->enabled && !q->broken && !q->event_idx)
		used16_store(q, USED_FLAGS, VRING_USED_F_NO_NOTIFY);
}

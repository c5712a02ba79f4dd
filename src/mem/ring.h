/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The dirty ring of a vCPU, shared with the program, which tells by a flag which entries it has read. */
#ifndef MEM_RING_H
#define MEM_RING_H

#include "base/types.h"

struct kvm_dirty_gfn;

/* Entries kept free for what one instruction may still write when the ring is soft-full: KVM's reserve. */
#define RING_RESERVED 64u

/*
 * The vCPU publishes entries [reset, head); the program marks them harvested in order; KVM_RESET_DIRTY_RINGS takes
 * those back. Everything in the entries may have been changed by the program: nothing of it is believed.
 */
struct dirty_ring {
	struct kvm_dirty_gfn *entry;
	u32 size;  /* entries, a power of two */
	u32 head;  /* by the vCPU */
	u32 reset; /* under mem->lock; read by the vCPU */
};

/* Publish an entry: its number goes to *number. False: the ring is full. Leaf, own thread. */
bool ring_push(struct dirty_ring *r, u32 slot, u64 offset, u32 *number);

/* Whether the entry has not been taken back since. */
static inline bool ring_stands(const struct dirty_ring *r, u32 number)
{
	return (s32)(__atomic_load_n(&r->reset, __ATOMIC_SEQ_CST) - number) <= 0;
}

static inline bool ring_is_soft_full(const struct dirty_ring *r)
{
	return r->head - __atomic_load_n(&r->reset, __ATOMIC_ACQUIRE) >= r->size - RING_RESERVED;
}

/* Take back the next entry that the program has harvested. False: there is none. Under mem->lock. */
bool ring_take(struct dirty_ring *r, u32 *slot, u64 *offset);

#endif

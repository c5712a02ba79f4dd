/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Publishing and taking back entries of a dirty ring. Leaf code. */
#include "mem/ring.h"

#include <linux/kvm.h>

bool ring_push(struct dirty_ring *r, u32 slot, u64 offset, u32 *number)
{
	u32 head = r->head;
	struct kvm_dirty_gfn *e = &r->entry[head & (r->size - 1)];

	if (unlikely(head - __atomic_load_n(&r->reset, __ATOMIC_ACQUIRE) >= r->size))
		return false;
	e->slot = slot;
	e->offset = offset;
	/*
	 * The flag last: an entry that the program has seen must be taken by the reset that follows. Were it not, nobody
	 * would be asked, and the page be copied before the store that the entry is for.
	 */
	__atomic_store_n(&r->head, head + 1, __ATOMIC_RELEASE);
	__atomic_store_n(&e->flags, KVM_DIRTY_GFN_F_DIRTY, __ATOMIC_RELEASE);
	*number = head;
	return true;
}

/* What the program says is read once. An entry that was never published is not taken, whatever its flags say. */
bool ring_take(struct dirty_ring *r, u32 *slot, u64 *offset)
{
	u32 reset = r->reset;
	struct kvm_dirty_gfn *e = &r->entry[reset & (r->size - 1)];

	if (reset == __atomic_load_n(&r->head, __ATOMIC_ACQUIRE) ||
	    !(__atomic_load_n(&e->flags, __ATOMIC_ACQUIRE) & KVM_DIRTY_GFN_F_RESET))
		return false;
	*slot = __atomic_load_n(&e->slot, __ATOMIC_RELAXED);
	*offset = __atomic_load_n(&e->offset, __ATOMIC_RELAXED);
	__atomic_store_n(&e->flags, 0, __ATOMIC_RELEASE);
	/* Before the mark of the page is looked at: see G4 in dirty.h. */
	__atomic_store_n(&r->reset, reset + 1, __ATOMIC_SEQ_CST);
	return true;
}

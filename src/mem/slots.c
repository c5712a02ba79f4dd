/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Finding the slot of a guest frame: leaf code, without a lock. */
#include <linux/kvm.h>

#include "mem/private.h"

/*
 * npages is read first: it is the last field that slots_set.c writes when a slot comes into being,
 * and it is 0 when the slot is gone.
 */
static inline bool slot_covers(const struct slot *s, unsigned space, gfn_t gfn)
{
	u64 npages = __atomic_load_n(&s->npages, __ATOMIC_ACQUIRE);

	return gfn - s->base_gfn < npages && s->id >> 16 == space;
}

/* Entries are read one by one while a writer may move them: whatever is found is checked by @seq. */
static struct slot *list_search(const struct slot_space *sp, gfn_t gfn)
{
	struct slot **list = sp->list;
	u32 low = 0, high = __atomic_load_n(&sp->n, __ATOMIC_ACQUIRE);
	struct slot *found = NULL;

	while (low < high) {
		u32 mid = low + (high - low) / 2;
		struct slot *s = __atomic_load_n(&list[mid], __ATOMIC_RELAXED);

		if (s->base_gfn <= gfn) {
			found = s;
			low = mid + 1;
		} else {
			high = mid;
		}
	}
	return found && slot_has(found, gfn) ? found : NULL;
}

struct slot *mem_slot_find(const struct mem *m, unsigned space, gfn_t gfn, struct slot **hint)
{
	struct slot *s = hint ? *hint : NULL;
	u32 seq;

	if (likely(s && slot_covers(s, space, gfn)))
		return s;
	if (unlikely(space >= MEM_SPACES))
		return NULL;
	do {
		while ((seq = __atomic_load_n(&m->seq, __ATOMIC_ACQUIRE)) & 1)
			__builtin_ia32_pause();
		s = list_search(&m->space[space], gfn);
		__atomic_thread_fence(__ATOMIC_ACQUIRE);
	} while (unlikely(__atomic_load_n(&m->seq, __ATOMIC_RELAXED) != seq));
	if (s && hint)
		*hint = s;
	return s;
}

/* A slot that comes or goes meanwhile may be missed or seen: both are what a moment earlier or later would say. */
static bool space_has_hva(const struct slot_space *sp, const u8 *hva, gpa_t *gpa)
{
	u32 n = __atomic_load_n(&sp->n, __ATOMIC_ACQUIRE);

	for (u32 i = 0; i < n; i++) {
		const struct slot *s = __atomic_load_n(&sp->list[i], __ATOMIC_RELAXED);

		if (!s || (u64)(hva - s->hva) >= s->npages << PAGE_SHIFT)
			continue;
		*gpa = (s->base_gfn << PAGE_SHIFT) + (gpa_t)(hva - s->hva);
		return true;
	}
	return false;
}

bool mem_has_hva(const struct mem *m, const void *hva, gpa_t *gpa)
{
	for (unsigned i = 0; i < MEM_SPACES; i++)
		if (space_has_hva(&m->space[i], hva, gpa))
			return true;
	return false;
}

bool slot_is_readonly(const struct slot *s)
{
	return s->flags & KVM_MEM_READONLY;
}

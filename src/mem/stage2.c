/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The second stage of a slot: descriptors change by compare-and-swap only, so no bit is lost. Leaf code. */
#include "mem/dirty.h"
#include "mem/levels.h"

/*
 * While the slot is not logged, W and D are set without a record. A vCPU that has set them must look once more: if
 * logging began meanwhile, what it has set says "recorded", which it is not until this vCPU records it. When both
 * looks say no, the tag that follows goes with the request that enabling waits for.
 */
bool page_grant_write(struct mem_writer *w, struct slot *s, gfn_t gfn)
{
	bool logged;

	if (slot_is_readonly(s))
		return false;
	logged = slot_is_logged(s);
	if (likely(!logged))
		stage2_touch(s, gfn, S2_WRITTEN);
	if (unlikely(slot_is_logged(s)))
		dirty_record(w, s, gfn, !logged);
	return !page_has_code(s, gfn);
}

void page_note_read(struct slot *s, gfn_t gfn)
{
	stage2_touch(s, gfn, S2_R | S2_A);
}

bool page_code_get(struct slot *s, gfn_t gfn)
{
	u64 *desc = slot_desc(s, gfn), old = __atomic_load_n(desc, __ATOMIC_RELAXED);

	stage2_touch(s, gfn, S2_R | S2_A);
	while (!__atomic_compare_exchange_n(desc, &old, (old | S2_X) + S2_CODE_ONE, true,
					    __ATOMIC_SEQ_CST, __ATOMIC_RELAXED))
		;
	return old & S2_CODE;
}

void page_code_put(struct slot *s, gfn_t gfn)
{
	__atomic_fetch_sub(slot_desc(s, gfn), S2_CODE_ONE, __ATOMIC_SEQ_CST);
}

unsigned page_code_holders(const struct slot *s, gfn_t gfn)
{
	return (__atomic_load_n(slot_desc(s, gfn), __ATOMIC_SEQ_CST) & S2_CODE) / S2_CODE_ONE;
}

bool page_has_code(const struct slot *s, gfn_t gfn)
{
	return __atomic_load_n(slot_desc(s, gfn), __ATOMIC_RELAXED) & S2_CODE;
}

/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The second stage of a slot: descriptors change by compare-and-swap only, so no bit is lost. */
#include "mem/mem.h"

/* Set and clear bits of a descriptor; returns what it was. Plain load when nothing changes. */
static inline u64 desc_update(u64 *desc, u64 set, u64 clear)
{
	u64 old = __atomic_load_n(desc, __ATOMIC_RELAXED), new;

	do {
		new = (old & ~clear) | set;
		if (new == old)
			break;
	} while (!__atomic_compare_exchange_n(desc, &old, new, true, __ATOMIC_SEQ_CST,
					      __ATOMIC_RELAXED));
	return old;
}

bool page_grant_write(struct slot *s, gfn_t gfn)
{
	if (slot_is_readonly(s))
		return false;
	return !(desc_update(slot_desc(s, gfn), S2_R | S2_W | S2_A | S2_D, 0) & S2_CODE);
}

void page_note_read(struct slot *s, gfn_t gfn)
{
	desc_update(slot_desc(s, gfn), S2_R | S2_A, 0);
}

/* The first holder takes W away: EPT's own bits then say what a write tag may not do. */
bool page_code_get(struct slot *s, gfn_t gfn)
{
	u64 *desc = slot_desc(s, gfn), old = __atomic_load_n(desc, __ATOMIC_RELAXED), new;

	do {
		new = ((old | S2_R | S2_X | S2_A) & ~S2_W) + S2_CODE_ONE;
	} while (!__atomic_compare_exchange_n(desc, &old, new, true, __ATOMIC_SEQ_CST,
					      __ATOMIC_RELAXED));
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

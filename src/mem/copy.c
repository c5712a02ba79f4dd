/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Guest-physical memory for devices and ioctls: copies that may span pages and slots. */
#include <errno.h>

#include "base/bulk.h"
#include "mem/mem.h"

/* The run of bytes from @gpa on that one slot holds, at most @len; 0 when there is none. */
static size_t run_find(const struct mem *m, unsigned space, gpa_t gpa, size_t len,
		       struct slot **hint)
{
	struct slot *s = mem_slot_find(m, space, gpa >> PAGE_SHIFT, hint);
	u64 rest;

	if (!s)
		return 0;
	*hint = s;
	rest = ((s->base_gfn + s->npages) << PAGE_SHIFT) - gpa;
	return len < rest ? len : rest;
}

int mem_read(const struct mem *m, unsigned space, gpa_t gpa, void *buf, size_t len)
{
	struct slot *s = NULL;
	u8 *to = buf;

	if (gpa + len < gpa)
		return -EFAULT;
	while (len) {
		size_t n = run_find(m, space, gpa, len, &s);

		if (!n)
			return -EFAULT;
		bulk_copy(to, slot_hva(s, gpa), n);
		to += n;
		gpa += n;
		len -= n;
	}
	return 0;
}

/* Store first, then set the dirty bit: a harvest in between must find the page again. */
static void run_write(struct slot *s, gpa_t gpa, const u8 *from, size_t n)
{
	gfn_t gfn = gpa >> PAGE_SHIFT, last = (gpa + n - 1) >> PAGE_SHIFT;

	bulk_copy(slot_hva(s, gpa), from, n);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	for (; gfn <= last; gfn++)
		page_grant_write(s, gfn);
}

int mem_write(struct mem *m, unsigned space, gpa_t gpa, const void *buf, size_t len)
{
	const u8 *from = buf;
	struct slot *s = NULL;

	if (gpa + len < gpa)
		return -EFAULT;
	while (len) {
		size_t n = run_find(m, space, gpa, len, &s);

		if (!n || slot_is_readonly(s))
			return -EFAULT;
		run_write(s, gpa, from, n);
		from += n;
		gpa += n;
		len -= n;
	}
	return 0;
}

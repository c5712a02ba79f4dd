/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Guest-physical memory for devices and ioctls: copies that may span pages and slots. */
#include <errno.h>

#include "base/attempt.h"
#include "mem/private.h"

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

/* Whoever takes a slot away publishes that first, and then waits until it has seen no copier. */
static void copier_enter(const struct mem *m)
{
	__atomic_add_fetch((u32 *)&m->copiers, 1, __ATOMIC_SEQ_CST);
}

static void copier_leave(const struct mem *m)
{
	__atomic_sub_fetch((u32 *)&m->copiers, 1, __ATOMIC_SEQ_CST);
}

bool mem_is_writable(const struct mem *m, unsigned space, gpa_t gpa, size_t len)
{
	struct slot *s = NULL;
	size_t n = 1;

	copier_enter(m);
	for (; len && n; gpa += n, len -= n) {
		n = run_find(m, space, gpa, len, &s);
		if (n && slot_is_readonly(s))
			n = 0;
	}
	copier_leave(m);
	return n;
}

static int copy_from(const struct mem *m, unsigned space, gpa_t gpa, u8 *to, size_t len)
{
	struct slot *s = NULL;

	while (len) {
		size_t n = run_find(m, space, gpa, len, &s);

		if (!n || attempt_copy(to, slot_hva(s, gpa), n))
			return -EFAULT;
		to += n;
		gpa += n;
		len -= n;
	}
	return 0;
}

int mem_read(const struct mem *m, unsigned space, gpa_t gpa, void *buf, size_t len)
{
	int r;

	if (gpa + len < gpa)
		return -EFAULT;
	copier_enter(m);
	r = copy_from(m, space, gpa, buf, len);
	copier_leave(m);
	return r;
}

/* Store first, then record: a harvest in between must find the page again. */
static int run_write(struct mem_writer *w, struct slot *s, gpa_t gpa, const u8 *from, size_t n)
{
	size_t left = attempt_copy(slot_hva(s, gpa), from, n);
	gpa_t end = gpa + n - left;

	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	for (gfn_t gfn = gpa >> PAGE_SHIFT; gfn << PAGE_SHIFT < end; gfn++)
		page_grant_write(w, s, gfn);
	return left ? -EFAULT : 0;
}

static int copy_to(struct mem *m, struct mem_writer *w, unsigned space, gpa_t gpa, const u8 *from,
		   size_t len)
{
	struct slot *s = NULL;

	while (len) {
		size_t n = run_find(m, space, gpa, len, &s);

		if (!n || slot_is_readonly(s) || run_write(w, s, gpa, from, n))
			return -EFAULT;
		from += n;
		gpa += n;
		len -= n;
	}
	return 0;
}

int mem_write_as(struct mem *m, struct mem_writer *w, unsigned space, gpa_t gpa, const void *buf,
		 size_t len)
{
	int r;

	if (gpa + len < gpa)
		return -EFAULT;
	copier_enter(m);
	r = copy_to(m, w, space, gpa, buf, len);
	copier_leave(m);
	return r;
}

int mem_write(struct mem *m, unsigned space, gpa_t gpa, const void *buf, size_t len)
{
	return mem_write_as(m, NULL, space, gpa, buf, len);
}

int mem_xchg8(struct mem *m, struct mem_writer *w, unsigned space, gpa_t gpa, u8 value, u8 *old)
{
	struct slot *s;
	int r = -EFAULT;

	copier_enter(m);
	s = mem_slot_find(m, space, gpa >> PAGE_SHIFT, NULL);
	if (s && !slot_is_readonly(s) && attempt_exchange8(slot_hva(s, gpa), value, old)) {
		page_grant_write(w, s, gpa >> PAGE_SHIFT);
		r = 0;
	}
	copier_leave(m);
	return r;
}

int mem_or8(struct mem *m, unsigned space, gpa_t gpa, u8 bits, u8 *old)
{
	struct slot *s;
	int r = -EFAULT;

	copier_enter(m);
	s = mem_slot_find(m, space, gpa >> PAGE_SHIFT, NULL);
	if (s && !slot_is_readonly(s) && attempt_or8(slot_hva(s, gpa), bits, old))
		r = 0;
	copier_leave(m);
	return r;
}

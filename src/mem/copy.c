/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Guest-physical memory for devices and ioctls: copies that may span pages and slots. */
#include <errno.h>

#include "base/bulk.h"
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
static __thread u32 *copying __attribute__((tls_model("initial-exec")));

/* Returns what copier_leave() restores: a signal handler may copy in the middle of a copy. */
static u32 *copier_enter(const struct mem *m)
{
	u32 *outer = copying;

	copying = (u32 *)&m->copiers;
	__atomic_add_fetch(copying, 1, __ATOMIC_SEQ_CST);
	return outer;
}

static void copier_leave(u32 *outer)
{
	__atomic_sub_fetch(copying, 1, __ATOMIC_SEQ_CST);
	copying = outer;
}

void mem_copy_abandoned(void)
{
	if (copying)
		copier_leave(NULL);
}

static int copy_from(const struct mem *m, unsigned space, gpa_t gpa, u8 *to, size_t len)
{
	struct slot *s = NULL;

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

int mem_read(const struct mem *m, unsigned space, gpa_t gpa, void *buf, size_t len)
{
	u32 *outer;
	int r;

	if (gpa + len < gpa)
		return -EFAULT;
	outer = copier_enter(m);
	r = copy_from(m, space, gpa, buf, len);
	copier_leave(outer);
	return r;
}

/* Store first, then record: a harvest in between must find the page again. */
static void run_write(struct mem_writer *w, struct slot *s, gpa_t gpa, const u8 *from, size_t n)
{
	gfn_t gfn = gpa >> PAGE_SHIFT, last = (gpa + n - 1) >> PAGE_SHIFT;

	bulk_copy(slot_hva(s, gpa), from, n);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	for (; gfn <= last; gfn++)
		page_grant_write(w, s, gfn);
}

static int copy_to(struct mem *m, struct mem_writer *w, unsigned space, gpa_t gpa, const u8 *from,
		   size_t len)
{
	struct slot *s = NULL;

	while (len) {
		size_t n = run_find(m, space, gpa, len, &s);

		if (!n || slot_is_readonly(s))
			return -EFAULT;
		run_write(w, s, gpa, from, n);
		from += n;
		gpa += n;
		len -= n;
	}
	return 0;
}

int mem_write_as(struct mem *m, struct mem_writer *w, unsigned space, gpa_t gpa, const void *buf,
		 size_t len)
{
	u32 *outer;
	int r;

	if (gpa + len < gpa)
		return -EFAULT;
	outer = copier_enter(m);
	r = copy_to(m, w, space, gpa, buf, len);
	copier_leave(outer);
	return r;
}

int mem_write(struct mem *m, unsigned space, gpa_t gpa, const void *buf, size_t len)
{
	return mem_write_as(m, NULL, space, gpa, buf, len);
}

int mem_xchg8(struct mem *m, struct mem_writer *w, unsigned space, gpa_t gpa, u8 value, u8 *old)
{
	u32 *outer = copier_enter(m);
	struct slot *s;
	int r = -EFAULT;

	s = mem_slot_find(m, space, gpa >> PAGE_SHIFT, NULL);
	if (s && !slot_is_readonly(s)) {
		*old = __atomic_exchange_n(slot_hva(s, gpa), value, __ATOMIC_SEQ_CST);
		page_grant_write(w, s, gpa >> PAGE_SHIFT);
		r = 0;
	}
	copier_leave(outer);
	return r;
}

int mem_or8(struct mem *m, unsigned space, gpa_t gpa, u8 bits, u8 *old)
{
	u32 *outer = copier_enter(m);
	struct slot *s = mem_slot_find(m, space, gpa >> PAGE_SHIFT, NULL);
	int r = -EFAULT;

	if (s && !slot_is_readonly(s)) {
		*old = __atomic_fetch_or(slot_hva(s, gpa), bits, __ATOMIC_SEQ_CST);
		r = 0;
	}
	copier_leave(outer);
	return r;
}

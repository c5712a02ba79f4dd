/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Dirty logs and dirty rings: their ioctls and capabilities. */
#define _GNU_SOURCE
#include <errno.h>
#include <sys/mman.h>

#include "kvm/kvm.h"
#include "kvm/usercopy.h"
#include "mem/dirty.h"

static int copy_out(void *arg, u64 at, const void *bytes, size_t len)
{
	return user_write(*(hva_t *)arg + at, bytes, len);
}

static int copy_in(void *arg, void *bytes, size_t len)
{
	return user_read(bytes, *(hva_t *)arg, len);
}

/* In the kernel's order. */
long dirty_set_ring(struct vm *vm, u64 bytes)
{
	u32 size = bytes;
	long r = 0;

	if (!size || size & (size - 1))
		return -EINVAL;
	if (size < RING_RESERVED * sizeof(struct kvm_dirty_gfn) || size < PAGE_SIZE)
		return -EINVAL;
	if (size > VM_RING_MAX)
		return -E2BIG;
	if (vm->ring_bytes)
		return -EINVAL;
	pthread_mutex_lock(&vm->lock);
	if (vm->nvcpus) {
		r = -EINVAL;
	} else {
		vm->ring_bytes = size;
		mem_ring_enable(vm->mem);
	}
	pthread_mutex_unlock(&vm->lock);
	return r;
}

/* A mapping that begins or ends in the ring must be shared, and not executable. */
bool dirty_ring_map_is_valid(const struct vm *vm, size_t length, int prot, int flags, off_t offset)
{
	u64 first = (u64)offset >> PAGE_SHIFT, last = first + ((length - 1) >> PAGE_SHIFT);
	u64 n = vm->ring_bytes >> PAGE_SHIFT;

	if (first - KVM_DIRTY_LOG_PAGE_OFFSET >= n && last - KVM_DIRTY_LOG_PAGE_OFFSET >= n)
		return true;
	return !(prot & PROT_EXEC) &&
	       ((flags & MAP_TYPE) == MAP_SHARED || (flags & MAP_TYPE) == MAP_SHARED_VALIDATE);
}

long dirty_reset_rings(struct call *c)
{
	return c->vm->ring_bytes ? mem_ring_reset(c->vm->mem) : -EINVAL;
}

static bool slot_number_is_valid(u32 slot)
{
	return slot >> 16 < MEM_SPACES && (u16)slot < VM_MEM_SLOTS;
}

/* DIFFERS: where the bitmap cannot be written (EFAULT) the dirty pages stay in the log; the kernel has forgotten them by then. */
long dirty_get(struct call *c)
{
	const struct kvm_dirty_log *l = c->data;
	hva_t to = (hva_t)l->dirty_bitmap;
	struct dirty_copy copy = { copy_out, copy_in, &to };

	if (c->vm->ring_bytes)
		return -ENXIO;
	if (!slot_number_is_valid(l->slot))
		return -EINVAL;
	return mem_dirty_get(c->vm->mem, l->slot >> 16, (u16)l->slot,
			     c->vm->manual_protect & KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE, &copy);
}

long dirty_clear(struct call *c)
{
	const struct kvm_clear_dirty_log *l = c->data;
	hva_t from = (hva_t)l->dirty_bitmap;
	struct dirty_copy copy = { copy_out, copy_in, &from };

	if (c->vm->ring_bytes)
		return -ENXIO;
	if (!slot_number_is_valid(l->slot))
		return -EINVAL;
	return mem_dirty_clear(c->vm->mem, l->slot >> 16, (u16)l->slot, l->first_page, l->num_pages,
			       &copy);
}

long dirty_set_manual(struct vm *vm, u64 options)
{
	u64 allowed = options & KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE ? VM_MANUAL_PROTECT : 0;

	if (options & ~allowed)
		return -EINVAL;
	vm->manual_protect = options;
	mem_dirty_initially_set(vm->mem, options & KVM_DIRTY_LOG_INITIALLY_SET);
	return 0;
}

#define AT(field) offsetof(struct dirty_stats, field)
static const struct {
	const char *name;
	size_t at; /* a u64 */
} stats_rows[] = {
	{ "dirty_harvests", AT(harvests) },   { "dirty_harvests_empty", AT(empty) },
	{ "dirty_pages", AT(pages) },	      { "dirty_records", AT(records) },
	{ "pml_entries", AT(pml_entries) },   { "pml_full_drains", AT(pml_full) },
	{ "pml_exit_drains", AT(pml_exit) },  { "pml_harvest_entries", AT(pml_harvest) },
	{ "slots_logged", AT(logged_slots) }, { "ring_late", AT(ring_late) },
};

void dirty_counters(struct vm *vm, counter_fn fn, void *arg)
{
	static const char *const names[LEVELS] = { "pages_4k", "pages_2m", "pages_1g" };
	u64 pages[LEVELS];
	struct dirty_stats s;

	mem_dirty_stats(vm->mem, &s);
	for (unsigned i = 0; i < ARRAY_SIZE(stats_rows); i++)
		fn(arg, stats_rows[i].name, *(u64 *)((u8 *)&s + stats_rows[i].at));
	mem_level_stats(vm->mem, pages);
	for (unsigned i = 0; i < LEVELS; i++)
		fn(arg, names[i], pages[i]);
}

/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Dirty logs as a program asks for them: bitmap, manual protect, ring; and counters of the library. */
#define _GNU_SOURCE
#include "log.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "anykvm/anykvm.h"

long log_get(struct vm *vm, unsigned slot, uint64_t *bits)
{
	struct kvm_dirty_log d = { .slot = slot, .dirty_bitmap = bits };

	return vm_ioctl(vm, vm->fd, KVM_GET_DIRTY_LOG, (unsigned long)&d);
}

long log_clear(struct vm *vm, unsigned slot, uint32_t n, uint64_t *bits)
{
	struct kvm_clear_dirty_log d = { .slot = slot, .num_pages = n, .dirty_bitmap = bits };

	return vm_ioctl(vm, vm->fd, KVM_CLEAR_DIRTY_LOG, (unsigned long)&d);
}

void log_manual(struct vm *vm, uint64_t options)
{
	struct kvm_enable_cap c = { .cap = KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2, .args = { options } };

	if (vm_ioctl(vm, vm->fd, KVM_ENABLE_CAP, (unsigned long)&c))
		check_fatal("KVM_ENABLE_CAP", "manual protect");
}

struct kvm_dirty_gfn *ring_map(struct vm *c)
{
	void *p = c->ops->mmap(NULL, VM_RING_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, c->vcpu,
			       KVM_DIRTY_LOG_PAGE_OFFSET * 4096l);

	if (p == MAP_FAILED)
		check_fatal("mmap of the ring", "%s", strerror(errno));
	return p;
}

unsigned ring_fetch(struct kvm_dirty_gfn *ring, uint32_t *fetched, unsigned slot, uint64_t *got,
		    uint64_t pages)
{
	unsigned n = 0;

	for (;; (*fetched)++, n++) {
		struct kvm_dirty_gfn *e = &ring[*fetched % RING_ENTRIES];

		if (!(__atomic_load_n(&e->flags, __ATOMIC_ACQUIRE) & KVM_DIRTY_GFN_F_DIRTY))
			return n;
		if (e->slot == slot && e->offset < pages)
			got[e->offset / 64] |= 1ull << e->offset % 64;
		__atomic_store_n(&e->flags, KVM_DIRTY_GFN_F_RESET, __ATOMIC_RELEASE);
	}
}

double log_counter(const struct vm *vm, const char *name)
{
	char text[65536] = "", key[64], *at;
	FILE *f = fmemopen(text, sizeof(text) - 1, "w");

	if (!f)
		check_fatal("fmemopen", "%s", strerror(errno));
	anykvm_print_counters(vm->fd, f);
	fclose(f);
	snprintf(key, sizeof(key), "\n%s ", name);
	at = strstr(text, key);
	return at ? strtod(at + strlen(key), NULL) : -1;
}

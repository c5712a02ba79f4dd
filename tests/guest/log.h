/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Dirty logs as a program asks for them: bitmap, manual protect, ring; and counters of the library. */
#ifndef TESTS_GUEST_LOG_H
#define TESTS_GUEST_LOG_H

#include "vm.h"

#define RING_ENTRIES (VM_RING_BYTES / sizeof(struct kvm_dirty_gfn))

/* 0 or -errno. */
long log_get(struct vm *vm, unsigned slot, uint64_t *bits);
long log_clear(struct vm *vm, unsigned slot, uint32_t n, uint64_t *bits);

/* KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2; ends the test when that fails. */
void log_manual(struct vm *vm, uint64_t options);

/* The ring of the vCPU @c; to be unmapped, VM_RING_BYTES. */
struct kvm_dirty_gfn *ring_map(struct vm *c);
/* Harvest one ring in order: pages of @slot below @pages into @got. Returns entries of any slot. */
unsigned ring_fetch(struct kvm_dirty_gfn *ring, uint32_t *fetched, unsigned slot, uint64_t *got,
		    uint64_t pages);

/* A counter of the library's VM by name, or -1. */
double log_counter(const struct vm *vm, const char *name);

#endif

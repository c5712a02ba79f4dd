/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Dirty logging: every row of the table of errors, what is logged, manual protection. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "abi.h"

#define PAGES 200u
#define GPA   0x100000ull

struct logged {
	struct abi *a;
	int vm;
	uint8_t *hva;
	uint64_t bits[(PAGES + 63) / 64 + 1];
};

static long slot_set(struct logged *l, uint32_t flags, uint64_t gpa, uint64_t pages, uint8_t *hva)
{
	struct kvm_userspace_memory_region r = { .slot = 1,
						 .flags = flags,
						 .guest_phys_addr = gpa,
						 .memory_size = pages << 12,
						 .userspace_addr = (uintptr_t)hva };

	return IOCTL(l->a, l->vm, KVM_SET_USER_MEMORY_REGION, &r);
}

static long get_at(struct logged *l, uint32_t slot, void *bits)
{
	struct kvm_dirty_log d = { .slot = slot, .dirty_bitmap = bits };

	return IOCTL(l->a, l->vm, KVM_GET_DIRTY_LOG, &d);
}

static long get(struct logged *l)
{
	return get_at(l, 1, l->bits);
}

static long clear_at(struct logged *l, uint32_t slot, uint64_t first, uint32_t n, void *bits)
{
	struct kvm_clear_dirty_log d = {
		.slot = slot, .first_page = first, .num_pages = n, .dirty_bitmap = bits
	};

	return IOCTL(l->a, l->vm, KVM_CLEAR_DIRTY_LOG, &d);
}

static long cap(struct logged *l, uint32_t number, uint64_t arg)
{
	struct kvm_enable_cap c = { .cap = number, .args = { arg } };

	return IOCTL(l->a, l->vm, KVM_ENABLE_CAP, &c);
}

static long count(const struct logged *l)
{
	long n = 0;

	for (unsigned i = 0; i < sizeof(l->bits) / sizeof(l->bits[0]); i++)
		n += __builtin_popcountll(l->bits[i]);
	return n;
}

static void get_cases(struct logged *l)
{
	struct abi *a = l->a;

	abi_case(a, "GET, no slot", -ENOENT, get(l));
	abi_case(a, "CLEAR, no slot", -ENOENT, clear_at(l, 1, 0, 64, l->bits));
	abi_case(a, "create", 0, slot_set(l, 0, GPA, PAGES, l->hva));
	abi_case(a, "GET, not logged", -ENOENT, get(l));
	abi_case(a, "GET, address space out of range", -EINVAL, get_at(l, 0x70001, l->bits));
	abi_case(a, "GET, slot out of range", -EINVAL, get_at(l, 0x7fff, l->bits));
	abi_case(a, "CLEAR, address space out of range", -EINVAL,
		 clear_at(l, 0x70001, 0, 64, l->bits));
	abi_case(a, "log on", 0, slot_set(l, KVM_MEM_LOG_DIRTY_PAGES, GPA, PAGES, l->hva));
	abi_case(a, "the same again", 0, slot_set(l, KVM_MEM_LOG_DIRTY_PAGES, GPA, PAGES, l->hva));
	abi_case(a, "read-only on a live slot", -EINVAL,
		 slot_set(l, KVM_MEM_LOG_DIRTY_PAGES | KVM_MEM_READONLY, GPA, PAGES, l->hva));
	abi_case(a, "another size", -EINVAL,
		 slot_set(l, KVM_MEM_LOG_DIRTY_PAGES, GPA, PAGES - 1, l->hva));
	memset(l->bits, 0xff, sizeof(l->bits));
	abi_case(a, "GET", 0, get(l));
	abi_case(a, "whole words are written, and no more", 64, count(l));
	abi_case(a, "GET, bad pointer", -EFAULT, get_at(l, 1, abi_bad_pointer()));
	l->hva[4096] = 1;
	memset(l->bits, 0, sizeof(l->bits));
	get(l);
	abi_case(a, "stores of the program are not logged", 0, count(l));
}

static void clear_cases(struct logged *l)
{
	struct abi *a = l->a;

	memset(l->bits, 0xff, sizeof(l->bits));
	abi_case(a, "CLEAR, first page not of 64", -EINVAL, clear_at(l, 1, 1, 64, l->bits));
	abi_case(a, "CLEAR, number not of 64", -EINVAL, clear_at(l, 1, 0, 63, l->bits));
	abi_case(a, "CLEAR, to the end", 0, clear_at(l, 1, 192, PAGES - 192, l->bits));
	abi_case(a, "CLEAR, past the end", -EINVAL, clear_at(l, 1, 192, PAGES - 191, l->bits));
	abi_case(a, "CLEAR, first page past the end", -EINVAL, clear_at(l, 1, 256, 0, l->bits));
	abi_case(a, "CLEAR, nothing", 0, clear_at(l, 1, 128, 0, l->bits));
	abi_case(a, "CLEAR without the capability", 0, clear_at(l, 1, 0, 64, l->bits));
	abi_case(a, "CLEAR, bad pointer", -EFAULT, clear_at(l, 1, 0, 64, abi_bad_pointer()));
	abi_case(a, "log off", 0, slot_set(l, 0, GPA, PAGES, l->hva));
	abi_case(a, "GET after it", -ENOENT, get(l));
}

static void manual_cases(struct logged *l)
{
	struct abi *a = l->a;

	abi_case(a, "manual protect: the capability", 3,
		 IOCTL(a, a->sys, KVM_CHECK_EXTENSION, KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2));
	abi_case(a, "bit 1 alone", -EINVAL, cap(l, KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2, 2));
	abi_case(a, "bit 2", -EINVAL, cap(l, KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2, 4));
	abi_case(a, "both bits", 0, cap(l, KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2, 3));
	abi_case(a, "and none", 0, cap(l, KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2, 0));
	abi_case(a, "and both", 0, cap(l, KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2, 3));
	abi_case(a, "log on", 0, slot_set(l, KVM_MEM_LOG_DIRTY_PAGES, GPA, PAGES, l->hva));
	memset(l->bits, 0, sizeof(l->bits));
	get(l);
	abi_case(a, "initially all pages", PAGES, count(l));
	get(l);
	abi_case(a, "GET keeps them", PAGES, count(l));
	memset(l->bits, 0xff, sizeof(l->bits));
	clear_at(l, 1, 64, 64, l->bits);
	get(l);
	abi_case(a, "CLEAR takes 64", PAGES - 64, count(l) - 64);
	abi_case(a, "delete", 0, slot_set(l, 0, GPA, 0, l->hva));
	abi_case(a, "delete again", -EINVAL, slot_set(l, 0, GPA, 0, l->hva));
}

/* Real mode: four stores, to pages 1 to 3 of the slot at 0x100000, by way of FS = ffff. */
static const uint8_t stores[] = { 0xb8, 0xff, 0xff, 0x8e, 0xe0,		/* mov fs, 0xffff */
				  0x64, 0xa3, 0x10, 0x10,		/* mov [fs:0x1010], ax */
				  0x64, 0xa3, 0x0f, 0x30,		/* across a page: 2, 3 */
				  0x64, 0xff, 0x06, 0x20, 0x10, 0xf4 }; /* inc word; hlt */

static void written_cases(struct logged *l, int vcpu)
{
	struct abi *a = l->a;

	abi_code(a, l->vm, vcpu, stores, sizeof(stores));
	slot_set(l, KVM_MEM_LOG_DIRTY_PAGES, GPA, PAGES, l->hva);
	abi_case(a, "KVM_RUN", 0, IOCTL(a, vcpu, KVM_RUN, 0));
	memset(l->bits, 0, sizeof(l->bits));
	get(l);
	abi_case(a, "pages written", 0xe, l->bits[0]);
	get(l);
	abi_case(a, "once", 0, count(l));
	slot_set(l, 0, GPA, 0, l->hva);
}

static void ring_size_cases(struct logged *l)
{
	static const struct {
		uint64_t size;
		long expected;
	} rows[] = {
		{ 0, -EINVAL },	   { 3000, -EINVAL }, { 512, -EINVAL },
		{ 1024, -EINVAL }, { 2048, -EINVAL }, { 2097152, -E2BIG },
	};
	struct abi *a = l->a;
	char name[40];

	for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		snprintf(name, sizeof(name), "ring of %lu bytes", rows[i].size);
		abi_case(a, name, rows[i].expected, cap(l, KVM_CAP_DIRTY_LOG_RING, rows[i].size));
	}
	abi_case(a, "reset without rings", -EINVAL, IOCTL(a, l->vm, KVM_RESET_DIRTY_RINGS, 0));
}

static long ring_map_try(struct logged *l, int vcpu, int prot, int flags)
{
	void *p =
		l->a->ops->mmap(NULL, 16384, prot, flags, vcpu, KVM_DIRTY_LOG_PAGE_OFFSET * 4096l);

	if (p == MAP_FAILED)
		return -errno;
	munmap(p, 16384);
	return 0;
}

static void ring_cases(struct abi *a)
{
	struct logged l = { .a = a, .vm = abi_vm(a, NULL) };
	int vcpu;

	abi_case(a, "ring: the capability", 1048576,
		 IOCTL(a, a->sys, KVM_CHECK_EXTENSION, KVM_CAP_DIRTY_LOG_RING));
	abi_case(a, "ring: acquire and release", 1048576,
		 IOCTL(a, a->sys, KVM_CHECK_EXTENSION, KVM_CAP_DIRTY_LOG_RING_ACQ_REL));
	ring_size_cases(&l);
	abi_case(a, "ring of 16384 bytes", 0, cap(&l, KVM_CAP_DIRTY_LOG_RING_ACQ_REL, 16384));
	abi_case(a, "a second time", -EINVAL, cap(&l, KVM_CAP_DIRTY_LOG_RING, 16384));
	abi_case(a, "reset, nothing harvested", 0, IOCTL(a, l.vm, KVM_RESET_DIRTY_RINGS, 0));
	abi_case(a, "GET with rings", -ENXIO, get(&l));
	abi_case(a, "CLEAR with rings", -ENXIO, clear_at(&l, 1, 0, 64, l.bits));
	vcpu = (int)IOCTL(a, l.vm, KVM_CREATE_VCPU, 0);
	abi_case(a, "mmap, shared", 0, ring_map_try(&l, vcpu, PROT_READ | PROT_WRITE, MAP_SHARED));
	abi_case(a, "mmap, private", -EINVAL,
		 ring_map_try(&l, vcpu, PROT_READ | PROT_WRITE, MAP_PRIVATE));
	/* Newer kernels say EPERM. */
	abi_case(a, "mmap, executable", -EINVAL,
		 ring_map_try(&l, vcpu, PROT_READ | PROT_EXEC, MAP_SHARED));
	abi_close(a, vcpu);
	abi_close(a, l.vm);
	l.vm = abi_vm(a, &vcpu);
	abi_case(a, "ring after a vCPU", -EINVAL, cap(&l, KVM_CAP_DIRTY_LOG_RING, 16384));
	abi_close(a, vcpu);
	abi_close(a, l.vm);
}

void abi_dirty_cases(struct abi *a)
{
	struct logged l = { .a = a };
	int vcpu;

	l.vm = abi_vm(a, &vcpu);
	l.hva = mmap(NULL, PAGES << 12, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	get_cases(&l);
	clear_cases(&l);
	slot_set(&l, 0, GPA, 0, l.hva);
	written_cases(&l, vcpu);
	manual_cases(&l);
	ring_cases(a);
	abi_close(a, vcpu);
	abi_close(a, l.vm);
	munmap(l.hva, PAGES << 12);
}

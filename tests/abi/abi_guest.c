/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* What the cases share: a guest of a few bytes of code, and requests that many of them make. */
#define _GNU_SOURCE
#include <sys/mman.h>
#include <unistd.h>

#include "abi.h"

void abi_start(struct abi *a, struct abi_guest *g, bool irqchip, const void *code, size_t len)
{
	*g = (struct abi_guest){ .vm = abi_vm(a, NULL) };
	if (irqchip)
		IOCTL(a, g->vm, KVM_CREATE_IRQCHIP, 0);
	g->vcpu = (int)IOCTL(a, g->vm, KVM_CREATE_VCPU, 0);
	g->run = abi_run_page(a, g->vcpu);
	g->page = abi_code(a, g->vm, g->vcpu, code, len);
}

void abi_stop(struct abi *a, struct abi_guest *g)
{
	munmap(g->run, (size_t)IOCTL(a, a->sys, KVM_GET_VCPU_MMAP_SIZE, 0));
	abi_close(a, g->vcpu);
	abi_close(a, g->vm);
	munmap(g->page, 4096);
	if (!g->more)
		return;
	munmap(g->more, g->more_pages * 4096ul);
	close(g->more_fd);
}

void abi_more(struct abi *a, struct abi_guest *g, uint64_t gpa, unsigned pages)
{
	struct kvm_userspace_memory_region r = { .slot = 5,
						 .guest_phys_addr = gpa,
						 .memory_size = pages * 4096ull };

	g->more_fd = memfd_create("more", MFD_CLOEXEC);
	abi_must(g->more_fd >= 0 && !ftruncate(g->more_fd, pages * 4096l), "memory");
	g->more = mmap(NULL, pages * 4096ul, PROT_READ | PROT_WRITE, MAP_SHARED, g->more_fd, 0);
	abi_must(g->more != MAP_FAILED, "memory");
	g->more_pages = pages;
	r.userspace_addr = (uintptr_t)g->more;
	abi_must(!IOCTL(a, g->vm, KVM_SET_USER_MEMORY_REGION, &r), "KVM_SET_USER_MEMORY_REGION");
}

long abi_run(struct abi *a, struct abi_guest *g)
{
	return IOCTL(a, g->vcpu, KVM_RUN, 0);
}

struct kvm_regs abi_regs(struct abi *a, struct abi_guest *g)
{
	struct kvm_regs r;

	IOCTL(a, g->vcpu, KVM_GET_REGS, &r);
	return r;
}

long abi_enable(struct abi *a, int fd, unsigned cap, uint64_t arg)
{
	struct kvm_enable_cap e = { .cap = cap, .args = { arg } };

	return IOCTL(a, fd, KVM_ENABLE_CAP, &e);
}

struct one_msr {
	struct kvm_msrs head;
	struct kvm_msr_entry e;
};

long abi_msr_set(struct abi *a, int vcpu, uint32_t index, uint64_t value)
{
	struct one_msr m = { .head.nmsrs = 1, .e = { .index = index, .data = value } };

	return IOCTL(a, vcpu, KVM_SET_MSRS, &m);
}

uint64_t abi_msr_get(struct abi *a, int vcpu, uint32_t index)
{
	struct one_msr m = { .head.nmsrs = 1, .e.index = index };

	return IOCTL(a, vcpu, KVM_GET_MSRS, &m) == 1 ? m.e.data : ~0ull;
}

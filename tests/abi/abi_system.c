/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Cases of the system and the VM descriptor, and of memory regions. */
#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#include "abi.h"

#define UNKNOWN_REQUEST _IO(KVMIO, 0x33)

static void msr_list_cases(struct abi *a, const char *what, unsigned long request)
{
	struct {
		struct kvm_msr_list head;
		__u32 index[1024];
	} l = { .head.nmsrs = 0 };
	char name[64];
	long r;

	r = IOCTL(a, a->sys, request, &l);
	snprintf(name, sizeof(name), "%s without room", what);
	abi_case(a, name, -E2BIG, r);
	snprintf(name, sizeof(name), "%s tells the count", what);
	abi_case(a, name, 1, l.head.nmsrs > 0);
	l.head.nmsrs = 1024;
	snprintf(name, sizeof(name), "%s with room", what);
	abi_case(a, name, 0, IOCTL(a, a->sys, request, &l));
	snprintf(name, sizeof(name), "%s, bad pointer", what);
	abi_case(a, name, -EFAULT, IOCTL(a, a->sys, request, abi_bad_pointer()));
}

static void cpuid_cases(struct abi *a)
{
	struct {
		struct kvm_cpuid2 head;
		struct kvm_cpuid_entry2 entry[256];
	} *t = calloc(1, sizeof(*t));
	bool hypervisor = false;

	abi_case(a, "GET_SUPPORTED_CPUID nent 0", -E2BIG,
		 IOCTL(a, a->sys, KVM_GET_SUPPORTED_CPUID, t));
	t->head.nent = 1;
	abi_case(a, "GET_SUPPORTED_CPUID nent 1", -E2BIG,
		 IOCTL(a, a->sys, KVM_GET_SUPPORTED_CPUID, t));
	abi_case(a, "GET_SUPPORTED_CPUID keeps nent on E2BIG", 1, t->head.nent);
	t->head.nent = 256;
	abi_case(a, "GET_SUPPORTED_CPUID", 0, IOCTL(a, a->sys, KVM_GET_SUPPORTED_CPUID, t));
	for (unsigned i = 0; i < t->head.nent && i < 256; i++)
		hypervisor |= t->entry[i].function == 0x40000000 && t->entry[i].ebx == 0x4b4d564b;
	abi_case(a, "GET_SUPPORTED_CPUID has the KVM signature", 1, hypervisor);
	t->head.nent = 0;
	abi_case(a, "GET_EMULATED_CPUID nent 0", -E2BIG,
		 IOCTL(a, a->sys, KVM_GET_EMULATED_CPUID, t));
	t->head.nent = 256;
	abi_case(a, "GET_EMULATED_CPUID", 0, IOCTL(a, a->sys, KVM_GET_EMULATED_CPUID, t));
	abi_case(a, "GET_EMULATED_CPUID has entries", 1, t->head.nent > 0 && t->head.nent < 256);
	abi_case(a, "GET_SUPPORTED_CPUID, bad pointer", -EFAULT,
		 IOCTL(a, a->sys, KVM_GET_SUPPORTED_CPUID, abi_bad_pointer()));
	free(t);
}

static void cap_cases(struct abi *a)
{
	static const struct {
		const char *name;
		int cap;
		long expected;
	} caps[] = {
		{ "cap IRQCHIP", KVM_CAP_IRQCHIP, 1 },
		{ "cap USER_MEMORY", KVM_CAP_USER_MEMORY, 1 },
		{ "cap NR_MEMSLOTS", KVM_CAP_NR_MEMSLOTS, 32764 },
		{ "cap MAX_VCPUS", KVM_CAP_MAX_VCPUS, 1024 },
		{ "cap MAX_VCPU_ID", KVM_CAP_MAX_VCPU_ID, 4096 },
		{ "cap ADJUST_CLOCK", KVM_CAP_ADJUST_CLOCK, 14 },
		{ "cap IMMEDIATE_EXIT", KVM_CAP_IMMEDIATE_EXIT, 1 },
		{ "cap XSAVE2", KVM_CAP_XSAVE2, 4096 },
		{ "cap SYNC_REGS", KVM_CAP_SYNC_REGS, 7 },
		{ "cap TSC_DEADLINE_TIMER", KVM_CAP_TSC_DEADLINE_TIMER, 1 },
		{ "cap MCE", KVM_CAP_MCE, 32 },
		{ "cap that is not there", 10000, 0 },
		{ "cap of another architecture", KVM_CAP_S390_PSW, 0 },
	};

	for (unsigned i = 0; i < sizeof(caps) / sizeof(caps[0]); i++)
		abi_case(a, caps[i].name, caps[i].expected,
			 IOCTL(a, a->sys, KVM_CHECK_EXTENSION, caps[i].cap));
}

static void feature_msr_cases(struct abi *a)
{
	struct {
		struct kvm_msrs head;
		struct kvm_msr_entry e[2];
	} m = { .head.nmsrs = 2, .e = { { .index = 0x8b }, { .index = 0xdeadbeef } } };

	abi_case(a, "GET_MSRS stops at an unknown one", 1, IOCTL(a, a->sys, KVM_GET_MSRS, &m));
	m.head.nmsrs = 256;
	abi_case(a, "GET_MSRS too many", -E2BIG, IOCTL(a, a->sys, KVM_GET_MSRS, &m));
	abi_case(a, "GET_MSRS, bad pointer", -EFAULT,
		 IOCTL(a, a->sys, KVM_GET_MSRS, abi_bad_pointer()));
}

void abi_system_cases(struct abi *a)
{
	abi_case(a, "GET_API_VERSION", 12, IOCTL(a, a->sys, KVM_GET_API_VERSION, 0));
	abi_case(a, "GET_API_VERSION with argument", -EINVAL,
		 IOCTL(a, a->sys, KVM_GET_API_VERSION, 1));
	abi_case(a, "GET_VCPU_MMAP_SIZE", 12288, IOCTL(a, a->sys, KVM_GET_VCPU_MMAP_SIZE, 0));
	abi_case(a, "GET_VCPU_MMAP_SIZE with argument", -EINVAL,
		 IOCTL(a, a->sys, KVM_GET_VCPU_MMAP_SIZE, 1));
	abi_case(a, "CREATE_VM of another type", -EINVAL, IOCTL(a, a->sys, KVM_CREATE_VM, 99));
	abi_case(a, "unknown request", -EINVAL, IOCTL(a, a->sys, UNKNOWN_REQUEST, 0));
	abi_case(a, "request of a VM", -EINVAL, IOCTL(a, a->sys, KVM_CREATE_VCPU, 0));
	abi_case(a, "request of a vCPU", -EINVAL, IOCTL(a, a->sys, KVM_RUN, 0));
	abi_case(a, "request of a terminal", -EINVAL, IOCTL(a, a->sys, TCGETS, 0));
	cap_cases(a);
	msr_list_cases(a, "GET_MSR_INDEX_LIST", KVM_GET_MSR_INDEX_LIST);
	msr_list_cases(a, "GET_MSR_FEATURE_INDEX_LIST", KVM_GET_MSR_FEATURE_INDEX_LIST);
	feature_msr_cases(a);
	cpuid_cases(a);
}

static void vm_enable_cap_cases(struct abi *a, int vm)
{
	struct kvm_enable_cap e = { .cap = KVM_CAP_EXCEPTION_PAYLOAD, .args = { 1 } };

	abi_case(a, "ENABLE_CAP EXCEPTION_PAYLOAD", 0, IOCTL(a, vm, KVM_ENABLE_CAP, &e));
	e.flags = 1;
	abi_case(a, "ENABLE_CAP with flags", -EINVAL, IOCTL(a, vm, KVM_ENABLE_CAP, &e));
	e = (struct kvm_enable_cap){ .cap = KVM_CAP_USER_MEMORY };
	abi_case(a, "ENABLE_CAP of what cannot be enabled", -EINVAL,
		 IOCTL(a, vm, KVM_ENABLE_CAP, &e));
	e = (struct kvm_enable_cap){ .cap = KVM_CAP_MAX_VCPU_ID, .args = { 5000 } };
	abi_case(a, "ENABLE_CAP MAX_VCPU_ID too large", -EINVAL, IOCTL(a, vm, KVM_ENABLE_CAP, &e));
	e.args[0] = 8;
	abi_case(a, "ENABLE_CAP MAX_VCPU_ID", 0, IOCTL(a, vm, KVM_ENABLE_CAP, &e));
	e.args[0] = 9;
	abi_case(a, "ENABLE_CAP MAX_VCPU_ID twice", -EINVAL, IOCTL(a, vm, KVM_ENABLE_CAP, &e));
	abi_case(a, "CREATE_VCPU above MAX_VCPU_ID", -EINVAL, IOCTL(a, vm, KVM_CREATE_VCPU, 8));
	abi_case(a, "ENABLE_CAP, bad pointer", -EFAULT,
		 IOCTL(a, vm, KVM_ENABLE_CAP, abi_bad_pointer()));
}

static void clock_cases(struct abi *a, int vm)
{
	struct kvm_clock_data c = { 0 };

	abi_case(a, "GET_CLOCK", 0, IOCTL(a, vm, KVM_GET_CLOCK, &c));
	c.flags = 1;
	abi_case(a, "SET_CLOCK with unknown flags", -EINVAL, IOCTL(a, vm, KVM_SET_CLOCK, &c));
	c.flags = 0;
	c.clock = 5000000000ull;
	abi_case(a, "SET_CLOCK", 0, IOCTL(a, vm, KVM_SET_CLOCK, &c));
	IOCTL(a, vm, KVM_GET_CLOCK, &c);
	abi_case(a, "GET_CLOCK gives what was set", 1,
		 c.clock >= 5000000000ull && c.clock < 9000000000ull);
	abi_case(a, "GET_CLOCK, bad pointer", -EFAULT,
		 IOCTL(a, vm, KVM_GET_CLOCK, abi_bad_pointer()));
}

void abi_vm_cases(struct abi *a)
{
	int vm = abi_vm(a, NULL), vcpu;
	__u64 address = 0xfeffc000;

	abi_case(a, "unknown request", -ENOTTY, IOCTL(a, vm, UNKNOWN_REQUEST, 0));
	abi_case(a, "request of the system", -ENOTTY, IOCTL(a, vm, KVM_CREATE_VM, 0));
	abi_case(a, "request of a vCPU", -ENOTTY, IOCTL(a, vm, KVM_RUN, 0));
	abi_case(a, "CHECK_EXTENSION", 1, IOCTL(a, vm, KVM_CHECK_EXTENSION, KVM_CAP_USER_MEMORY));
	abi_case(a, "SET_TSS_ADDR", 0, IOCTL(a, vm, KVM_SET_TSS_ADDR, 0xfffbd000u));
	abi_case(a, "SET_TSS_ADDR too high", -EINVAL, IOCTL(a, vm, KVM_SET_TSS_ADDR, 0xfffff000u));
	abi_case(a, "SET_IDENTITY_MAP_ADDR", 0, IOCTL(a, vm, KVM_SET_IDENTITY_MAP_ADDR, &address));
	abi_case(a, "SET_IDENTITY_MAP_ADDR, bad pointer", -EFAULT,
		 IOCTL(a, vm, KVM_SET_IDENTITY_MAP_ADDR, abi_bad_pointer()));
	abi_case(a, "SET_NR_MMU_PAGES too few", -EINVAL, IOCTL(a, vm, KVM_SET_NR_MMU_PAGES, 10));
	abi_case(a, "SET_NR_MMU_PAGES", 0, IOCTL(a, vm, KVM_SET_NR_MMU_PAGES, 1000));
	abi_case(a, "SET_BOOT_CPU_ID", 0, IOCTL(a, vm, KVM_SET_BOOT_CPU_ID, 0));
	abi_case(a, "GET_TSC_KHZ", ABI_OK, IOCTL(a, vm, KVM_GET_TSC_KHZ, 0));
	clock_cases(a, vm);
	abi_case(a, "CREATE_VCPU id 4096", -EINVAL, IOCTL(a, vm, KVM_CREATE_VCPU, 4096));
	vm_enable_cap_cases(a, vm);
	vcpu = IOCTL(a, vm, KVM_CREATE_VCPU, 1);
	abi_case(a, "CREATE_VCPU id 1", ABI_OK, vcpu);
	abi_case(a, "CREATE_VCPU twice", -EEXIST, IOCTL(a, vm, KVM_CREATE_VCPU, 1));
	abi_case(a, "SET_BOOT_CPU_ID late", -EBUSY, IOCTL(a, vm, KVM_SET_BOOT_CPU_ID, 1));
	abi_case(a, "SET_IDENTITY_MAP_ADDR late", -EINVAL,
		 IOCTL(a, vm, KVM_SET_IDENTITY_MAP_ADDR, &address));
	abi_case(a, "CREATE_IRQCHIP late", -EINVAL, IOCTL(a, vm, KVM_CREATE_IRQCHIP, 0));
	abi_close(a, vcpu);
	abi_case(a, "CREATE_VCPU after its descriptor was closed", -EEXIST,
		 IOCTL(a, vm, KVM_CREATE_VCPU, 1));
	abi_close(a, vm);
}

static long set_region(struct abi *a, int vm, __u32 slot, __u32 flags, __u64 gpa, __u64 size,
		       void *at)
{
	struct kvm_userspace_memory_region m = { slot, flags, gpa, size, (uintptr_t)at };

	return IOCTL(a, vm, KVM_SET_USER_MEMORY_REGION, &m);
}

void abi_memory_cases(struct abi *a)
{
	uint8_t *p =
		mmap(NULL, 0x10000, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	int vm = abi_vm(a, NULL);

	abi_case(a, "create", 0, set_region(a, vm, 0, 0, 0, 0x4000, p));
	abi_case(a, "create again, the same", 0, set_region(a, vm, 0, 0, 0, 0x4000, p));
	abi_case(a, "overlap", -EEXIST, set_region(a, vm, 1, 0, 0x3000, 0x2000, p + 0x4000));
	abi_case(a, "other size", -EINVAL, set_region(a, vm, 0, 0, 0, 0x2000, p));
	abi_case(a, "other host address", -EINVAL, set_region(a, vm, 0, 0, 0, 0x4000, p + 0x1000));
	abi_case(a, "becomes read-only", -EINVAL,
		 set_region(a, vm, 0, KVM_MEM_READONLY, 0, 0x4000, p));
	abi_case(a, "move", 0, set_region(a, vm, 0, 0, 0x100000, 0x4000, p));
	abi_case(a, "read-only slot", 0,
		 set_region(a, vm, 1, KVM_MEM_READONLY, 0, 0x2000, p + 0x4000));
	abi_case(a, "unknown flag", -EINVAL, set_region(a, vm, 2, 1u << 30, 0x200000, 0x1000, p));
	abi_case(a, "odd size", -EINVAL, set_region(a, vm, 2, 0, 0x200000, 0x1001, p));
	abi_case(a, "odd guest address", -EINVAL, set_region(a, vm, 2, 0, 0x200001, 0x1000, p));
	abi_case(a, "odd host address", -EINVAL, set_region(a, vm, 2, 0, 0x200000, 0x1000, p + 1));
	abi_case(a, "kernel address", -EINVAL,
		 set_region(a, vm, 2, 0, 0x200000, 0x1000, (void *)0xffff800000000000ull));
	abi_case(a, "guest address wraps", -EINVAL,
		 set_region(a, vm, 2, 0, 0xfffffffffffff000ull, 0x2000, p));
	abi_case(a, "slot number too large", -EINVAL,
		 set_region(a, vm, 32764, 0, 0x200000, 0x1000, p));
	abi_case(a, "last slot number", 0, set_region(a, vm, 32763, 0, 0x200000, 0x1000, p));
	abi_case(a, "third address space", -EINVAL,
		 set_region(a, vm, 2 << 16, 0, 0x200000, 0x1000, p));
	abi_case(a, "delete", 0, set_region(a, vm, 0, 0, 0, 0, p));
	abi_case(a, "delete twice", -EINVAL, set_region(a, vm, 0, 0, 0, 0, p));
	abi_case(a, "bad pointer", -EFAULT,
		 IOCTL(a, vm, KVM_SET_USER_MEMORY_REGION, abi_bad_pointer()));
	abi_close(a, vm);
	munmap(p, 0x10000);
}

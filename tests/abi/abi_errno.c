/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Answers that depend on what was made before: chips, clocks, CPUID, and counts beyond the limit. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#include "abi.h"

#define MSR_SYSTEM_TIME_NEW 0x4b564d01

static void system_errnos(struct abi *a)
{
	struct kvm_device_attr attr = { .group = 77 };
	__u64 mce = 0;

	abi_case(a, "X86_GET_MCE_CAP_SUPPORTED", 0,
		 IOCTL(a, a->sys, KVM_X86_GET_MCE_CAP_SUPPORTED, &mce));
	abi_case(a, "MCG_CTL_P is supported", 1, mce >> 8 & 1);
	abi_case(a, "HAS_DEVICE_ATTR of an unknown group", -ENXIO,
		 IOCTL(a, a->sys, KVM_HAS_DEVICE_ATTR, &attr));
}

static void chip_errnos(struct abi *a)
{
	struct kvm_irq_level line = { .irq = 1 };
	struct kvm_pit_state pit;
	int vm = abi_vm(a, NULL);

	memset(&pit, 0, sizeof(pit));
	abi_case(a, "IRQ_LINE_STATUS without chips", -ENXIO,
		 IOCTL(a, vm, KVM_IRQ_LINE_STATUS, &line));
	abi_case(a, "SET_PIT without a PIT", -ENXIO, IOCTL(a, vm, KVM_SET_PIT, &pit));
	abi_case(a, "CREATE_PIT without chips", -ENOENT, IOCTL(a, vm, KVM_CREATE_PIT, 0));
	abi_case(a, "CREATE_IRQCHIP", 0, IOCTL(a, vm, KVM_CREATE_IRQCHIP, 0));
	abi_case(a, "CREATE_PIT", 0, IOCTL(a, vm, KVM_CREATE_PIT, 0));
	abi_case(a, "CREATE_PIT again", -EEXIST, IOCTL(a, vm, KVM_CREATE_PIT, 0));
	abi_case(a, "SET_PIT", 0, IOCTL(a, vm, KVM_SET_PIT, &pit));
	abi_close(a, vm);
}

static void clock_errnos(struct abi *a)
{
	struct {
		struct kvm_msrs head;
		struct kvm_msr_entry entry;
	} m = { .head.nmsrs = 1, .entry = { .index = MSR_SYSTEM_TIME_NEW, .data = 0x101 } };
	int vm = abi_vm(a, NULL), vcpu;
	long khz = IOCTL(a, vm, KVM_GET_TSC_KHZ, 0);

	abi_case(a, "SET_TSC_KHZ of a VM", 0, IOCTL(a, vm, KVM_SET_TSC_KHZ, khz));
	abi_case(a, "SET_TSC_KHZ of a VM, too fast", -EINVAL,
		 IOCTL(a, vm, KVM_SET_TSC_KHZ, 0xffffffff));
	vcpu = (int)IOCTL(a, vm, KVM_CREATE_VCPU, 0);
	abi_code(a, vm, vcpu, "\xf4", 1);
	abi_case(a, "KVMCLOCK_CTRL without a clock", -EINVAL, IOCTL(a, vcpu, KVM_KVMCLOCK_CTRL, 0));
	abi_case(a, "SET_MSRS of the clock", 1, IOCTL(a, vcpu, KVM_SET_MSRS, &m));
	abi_case(a, "KVMCLOCK_CTRL", 0, IOCTL(a, vcpu, KVM_KVMCLOCK_CTRL, 0));
	abi_case(a, "SMI", 0, IOCTL(a, vcpu, KVM_SMI, 0));
	m.head.nmsrs = 100000;
	abi_case(a, "SET_MSRS of too many", -E2BIG, IOCTL(a, vcpu, KVM_SET_MSRS, &m));
	abi_close(a, vcpu);
	abi_close(a, vm);
}

static void cpuid_errnos(struct abi *a)
{
	struct {
		struct kvm_cpuid2 head;
		struct kvm_cpuid_entry2 entry[2];
	} t;
	struct {
		struct kvm_cpuid head;
		struct kvm_cpuid_entry entry[2];
	} old;
	int vcpu, vm = abi_vm(a, &vcpu);

	memset(&t, 0, sizeof(t));
	memset(&old, 0, sizeof(old));
	t.head.nent = old.head.nent = 2;
	t.entry[1].function = old.entry[1].function = 0x80000008;
	t.entry[1].eax = old.entry[1].eax = 0x2828; /* 40 bits of linear addresses */
	abi_case(a, "SET_CPUID2 with 40 bits of linear addresses", -EINVAL,
		 IOCTL(a, vcpu, KVM_SET_CPUID2, &t));
	abi_case(a, "SET_CPUID with 40 bits of linear addresses", -EINVAL,
		 IOCTL(a, vcpu, KVM_SET_CPUID, &old));
	old.entry[1].eax = 0x3028;
	abi_case(a, "SET_CPUID", 0, IOCTL(a, vcpu, KVM_SET_CPUID, &old));
	old.head.nent = 100000;
	abi_case(a, "SET_CPUID of too many", -E2BIG, IOCTL(a, vcpu, KVM_SET_CPUID, &old));
	abi_close(a, vcpu);
	abi_close(a, vm);
}

void abi_errno_cases(struct abi *a)
{
	system_errnos(a);
	chip_errnos(a);
	clock_errnos(a);
	cpuid_errnos(a);
}

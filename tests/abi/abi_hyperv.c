/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Cases of Hyper-V's and Xen's interfaces: CPUID, registers, timers, hypercalls that leave the guest. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include "abi.h"

#define HV_GUEST_OS_ID	  0x40000000u
#define HV_HYPERCALL	  0x40000001u
#define HV_VP_INDEX	  0x40000002u
#define HV_TIME_REF	  0x40000020u
#define HV_SCONTROL	  0x40000080u
#define HV_STIMER0_CONFIG 0x400000b0u
#define HV_STIMER0_COUNT  0x400000b1u

static void cpuid_cases(struct abi *a)
{
	struct {
		struct kvm_cpuid2 head;
		struct kvm_cpuid_entry2 e[32];
	} t = { .head.nent = 1 };
	int vcpu, vm = abi_vm(a, &vcpu);

	abi_case(a, "GET_SUPPORTED_HV_CPUID without room", -E2BIG,
		 IOCTL(a, a->sys, KVM_GET_SUPPORTED_HV_CPUID, &t));
	abi_case(a, "GET_SUPPORTED_HV_CPUID, bad pointer", -EFAULT,
		 IOCTL(a, a->sys, KVM_GET_SUPPORTED_HV_CPUID, abi_bad_pointer()));
	t.head.nent = 32;
	abi_case(a, "GET_SUPPORTED_HV_CPUID", 0, IOCTL(a, a->sys, KVM_GET_SUPPORTED_HV_CPUID, &t));
	abi_case(a, "its interface is Hv#1", 0x31237648, t.e[1].eax);
	abi_case(a, "GET_SUPPORTED_HV_CPUID of a vCPU", 0,
		 IOCTL(a, vcpu, KVM_GET_SUPPORTED_HV_CPUID, &t));
	abi_case(a, "GET_SUPPORTED_HV_CPUID of a VM", -ENOTTY,
		 IOCTL(a, vm, KVM_GET_SUPPORTED_HV_CPUID, &t));
	abi_case(a, "ENABLE_CAP HYPERV_SYNIC2 without irqchip", -EINVAL,
		 abi_enable(a, vcpu, KVM_CAP_HYPERV_SYNIC2, 0));
	abi_case(a, "ENABLE_CAP HYPERV_ENFORCE_CPUID", 0,
		 abi_enable(a, vcpu, KVM_CAP_HYPERV_ENFORCE_CPUID, 1));
	abi_close(a, vcpu);
	abi_close(a, vm);
}

static void register_cases(struct abi *a)
{
	struct abi_guest g;

	ABI_START(a, &g, true, 0xf4);
	abi_case(a, "VP index of the first vCPU", 0, (long)abi_msr_get(a, g.vcpu, HV_VP_INDEX));
	abi_case(a, "VP index out of range", 0, abi_msr_set(a, g.vcpu, HV_VP_INDEX, 1 << 20));
	abi_case(a, "VP index is set", 1, abi_msr_set(a, g.vcpu, HV_VP_INDEX, 5));
	abi_case(a, "VP index is kept", 5, (long)abi_msr_get(a, g.vcpu, HV_VP_INDEX));
	abi_case(a, "hypercall page without an identity is ignored", 1,
		 abi_msr_set(a, g.vcpu, HV_HYPERCALL, 1));
	abi_case(a, "and reads 0", 0, (long)abi_msr_get(a, g.vcpu, HV_HYPERCALL));
	abi_msr_set(a, g.vcpu, HV_GUEST_OS_ID, 1);
	abi_case(a, "hypercall page outside memory", 0,
		 abi_msr_set(a, g.vcpu, HV_HYPERCALL, 0x40000001));
	abi_case(a, "hypercall page", 1, abi_msr_set(a, g.vcpu, HV_HYPERCALL, 1));
	abi_case(a, "it holds a call and a return", 0xc3, g.page[3]);
	abi_case(a, "SCONTROL before it is active", 0, abi_msr_set(a, g.vcpu, HV_SCONTROL, 1));
	abi_case(a, "ENABLE_CAP HYPERV_SYNIC2 with an argument", -EINVAL,
		 abi_enable(a, g.vcpu, KVM_CAP_HYPERV_SYNIC2, 1));
	abi_case(a, "ENABLE_CAP HYPERV_SYNIC2", 0, abi_enable(a, g.vcpu, KVM_CAP_HYPERV_SYNIC2, 0));
	abi_case(a, "SCONTROL once it is active", 1, abi_msr_set(a, g.vcpu, HV_SCONTROL, 1));
	abi_stop(a, &g);
}

/* sti; again: hlt; jmp again - until the timer's interrupt, whose handler is out %al, $0x10. */
static void timer_cases(struct abi *a)
{
	static const uint8_t code[] = { 0xfb, 0xf4, 0xeb, 0xfd };
	struct kvm_lapic_state lapic;
	struct abi_guest g;
	__u64 now;

	abi_start(a, &g, true, code, sizeof(code));
	g.page[4 * 0x80] = 0x10; /* vector 0x80: 0:0x210 */
	g.page[4 * 0x80 + 1] = 2;
	memcpy(g.page + 0x210, (const uint8_t[]){ 0xe6, 0x10, 0xf4 }, 3);
	IOCTL(a, g.vcpu, KVM_GET_LAPIC, &lapic);
	lapic.regs[0xf1] |= 1; /* APIC on */
	IOCTL(a, g.vcpu, KVM_SET_LAPIC, &lapic);
	abi_case(a, "a timer before the controller is active", 0,
		 abi_msr_set(a, g.vcpu, HV_STIMER0_COUNT, 1));
	abi_enable(a, g.vcpu, KVM_CAP_HYPERV_SYNIC2, 0);
	now = abi_msr_get(a, g.vcpu, HV_TIME_REF);
	abi_msr_set(a, g.vcpu, HV_STIMER0_COUNT, now + 200000); /* 20 ms */
	/* Enabled, direct, vector 0x80. */
	abi_case(a, "a timer is armed", 1,
		 abi_msr_set(a, g.vcpu, HV_STIMER0_CONFIG, 1 | 0x80 << 4 | 1 << 12));
	IOCTL(a, g.vcpu, KVM_RUN, 0);
	abi_case(a, "its interrupt wakes the guest", KVM_EXIT_IO, g.run->exit_reason);
	abi_case(a, "not before its time", 1, abi_msr_get(a, g.vcpu, HV_TIME_REF) >= now + 200000);
	abi_case(a, "a one-shot timer is off then", 0,
		 (long)abi_msr_get(a, g.vcpu, HV_STIMER0_CONFIG) & 1);
	abi_stop(a, &g);
}

static void port_cases(struct abi *a)
{
	int vcpu, vm = abi_vm(a, &vcpu), fd = eventfd(0, 0);
	struct kvm_hyperv_eventfd e = { .conn_id = 3, .fd = fd };

	abi_case(a, "HYPERV_EVENTFD", 0, IOCTL(a, vm, KVM_HYPERV_EVENTFD, &e));
	abi_case(a, "HYPERV_EVENTFD twice", -EEXIST, IOCTL(a, vm, KVM_HYPERV_EVENTFD, &e));
	e.flags = KVM_HYPERV_EVENTFD_DEASSIGN;
	abi_case(a, "HYPERV_EVENTFD away", 0, IOCTL(a, vm, KVM_HYPERV_EVENTFD, &e));
	abi_case(a, "HYPERV_EVENTFD away twice", -ENOENT, IOCTL(a, vm, KVM_HYPERV_EVENTFD, &e));
	e.flags = 2;
	abi_case(a, "HYPERV_EVENTFD unknown flag", -EINVAL, IOCTL(a, vm, KVM_HYPERV_EVENTFD, &e));
	e = (struct kvm_hyperv_eventfd){ .conn_id = 1u << 24, .fd = fd };
	abi_case(a, "HYPERV_EVENTFD connection too large", -EINVAL,
		 IOCTL(a, vm, KVM_HYPERV_EVENTFD, &e));
	e = (struct kvm_hyperv_eventfd){ .conn_id = 4, .fd = -1 };
	abi_case(a, "HYPERV_EVENTFD no descriptor", -EBADF, IOCTL(a, vm, KVM_HYPERV_EVENTFD, &e));
	abi_case(a, "HYPERV_EVENTFD, bad pointer", -EFAULT,
		 IOCTL(a, vm, KVM_HYPERV_EVENTFD, abi_bad_pointer()));
	abi_case(a, "HYPERV_EVENTFD on a vCPU", -EINVAL, IOCTL(a, vcpu, KVM_HYPERV_EVENTFD, &e));
	close(fd);
	abi_close(a, vcpu);
	abi_close(a, vm);
}

/* The two vendors' hypercalls: one of them is rewritten when it runs. */
static void xen_cases(struct abi *a)
{
	static const uint8_t code[] = { 0x0f, 0x01, 0xc1, 0x0f, 0x01, 0xd9, 0xf4 };
	struct kvm_xen_hvm_config x = { .flags = 0x8000 };
	struct kvm_regs r;
	struct abi_guest g;

	abi_start(a, &g, true, code, sizeof(code));
	abi_case(a, "XEN_HVM_CONFIG unknown flag", -EINVAL, IOCTL(a, g.vm, KVM_XEN_HVM_CONFIG, &x));
	x = (struct kvm_xen_hvm_config){ .flags = KVM_XEN_HVM_CONFIG_INTERCEPT_HCALL,
					 .blob_size_64 = 1 };
	abi_case(a, "XEN_HVM_CONFIG exits and a page", -EINVAL,
		 IOCTL(a, g.vm, KVM_XEN_HVM_CONFIG, &x));
	abi_case(a, "XEN_HVM_CONFIG, bad pointer", -EFAULT,
		 IOCTL(a, g.vm, KVM_XEN_HVM_CONFIG, abi_bad_pointer()));
	abi_case(a, "XEN_HVM_CONFIG on a vCPU", -EINVAL, IOCTL(a, g.vcpu, KVM_XEN_HVM_CONFIG, &x));
	x = (struct kvm_xen_hvm_config){ .flags = KVM_XEN_HVM_CONFIG_INTERCEPT_HCALL };
	abi_case(a, "XEN_HVM_CONFIG", 0, IOCTL(a, g.vm, KVM_XEN_HVM_CONFIG, &x));
	IOCTL(a, g.vcpu, KVM_GET_REGS, &r);
	r.rax = 17;
	r.rbx = 5;
	IOCTL(a, g.vcpu, KVM_SET_REGS, &r);
	IOCTL(a, g.vcpu, KVM_RUN, 0);
	abi_case(a, "a hypercall exits", KVM_EXIT_XEN, g.run->exit_reason);
	abi_case(a, "its number", 17, (long)g.run->xen.u.hcall.input);
	abi_case(a, "its first parameter", 5, (long)g.run->xen.u.hcall.params[0]);
	g.run->xen.u.hcall.result = 99;
	IOCTL(a, g.vcpu, KVM_RUN, 0);
	abi_case(a, "the next has the result", 99, (long)g.run->xen.u.hcall.input);
	abi_case(a, "both are the native one by now", 1, g.page[0x102] == g.page[0x105]);
	abi_stop(a, &g);
}

void abi_hyperv_cases(struct abi *a)
{
	cpuid_cases(a);
	register_cases(a);
	timer_cases(a);
	port_cases(a);
	xen_cases(a);
}

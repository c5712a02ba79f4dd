/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Cases of the split interrupt controllers, task priority reporting, exits that are turned off, and MSRs of the hypervisor. */
#include <asm/kvm_para.h>
#include <errno.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#include "abi.h"

#define MSR_STEAL_TIME	 0x4b564d03u
#define MSR_PV_EOI	 0x4b564d04u
#define MSR_POLL_CONTROL 0x4b564d05u

static long route(struct abi *a, int vm, unsigned type, unsigned flags)
{
	struct {
		struct kvm_irq_routing head;
		struct kvm_irq_routing_entry e;
	} r = { .head.nr = 1, .e = { .gsi = 3, .type = type, .flags = flags } };

	r.e.u.msi.address_lo = type == KVM_IRQ_ROUTING_MSI ? 0xfee00000 : KVM_IRQCHIP_IOAPIC;
	return IOCTL(a, vm, KVM_SET_GSI_ROUTING, &r);
}

static void split_vcpu_cases(struct abi *a, int vcpu)
{
	struct kvm_interrupt irq = { .irq = 0x30 };

	abi_case(a, "split: INTERRUPT", 0, IOCTL(a, vcpu, KVM_INTERRUPT, &irq));
	abi_case(a, "split: INTERRUPT while one waits", -EEXIST,
		 IOCTL(a, vcpu, KVM_INTERRUPT, &irq));
	irq.irq = 256;
	abi_case(a, "split: INTERRUPT 256", -EINVAL, IOCTL(a, vcpu, KVM_INTERRUPT, &irq));
}

static void split_cases(struct abi *a)
{
	struct kvm_irqfd resample = { .flags = KVM_IRQFD_FLAG_RESAMPLE };
	struct kvm_irq_level line = { .irq = 3, .level = 1 };
	struct kvm_irqchip chip = { .chip_id = KVM_IRQCHIP_IOAPIC };
	struct kvm_pit_config pit = { 0 };
	int vm = abi_vm(a, NULL), vcpu;

	abi_case(a, "CAP_SPLIT_IRQCHIP", 1,
		 IOCTL(a, vm, KVM_CHECK_EXTENSION, KVM_CAP_SPLIT_IRQCHIP));
	abi_case(a, "split: too many pins", -EINVAL,
		 abi_enable(a, vm, KVM_CAP_SPLIT_IRQCHIP, 4097));
	abi_case(a, "split", 0, abi_enable(a, vm, KVM_CAP_SPLIT_IRQCHIP, 24));
	abi_case(a, "split twice", -EEXIST, abi_enable(a, vm, KVM_CAP_SPLIT_IRQCHIP, 24));
	abi_case(a, "split: CREATE_IRQCHIP", -EEXIST, IOCTL(a, vm, KVM_CREATE_IRQCHIP, 0));
	abi_case(a, "split: GET_IRQCHIP", -ENXIO, IOCTL(a, vm, KVM_GET_IRQCHIP, &chip));
	abi_case(a, "split: SET_IRQCHIP", -ENXIO, IOCTL(a, vm, KVM_SET_IRQCHIP, &chip));
	abi_case(a, "split: CREATE_PIT2", -ENOENT, IOCTL(a, vm, KVM_CREATE_PIT2, &pit));
	abi_case(a, "split: IRQ_LINE", 0, IOCTL(a, vm, KVM_IRQ_LINE, &line));
	abi_case(a, "split: IRQFD with resampling", -EINVAL, IOCTL(a, vm, KVM_IRQFD, &resample));
	abi_case(a, "split: a route to a pin", -EINVAL, route(a, vm, KVM_IRQ_ROUTING_IRQCHIP, 0));
	abi_case(a, "split: a route to an MSI", 0, route(a, vm, KVM_IRQ_ROUTING_MSI, 0));
	abi_case(a, "split: a route with a device", 0,
		 route(a, vm, KVM_IRQ_ROUTING_MSI, KVM_MSI_VALID_DEVID));
	abi_case(a, "split: a route with an unknown flag", -EINVAL,
		 route(a, vm, KVM_IRQ_ROUTING_MSI, 2));
	vcpu = IOCTL(a, vm, KVM_CREATE_VCPU, 0);
	split_vcpu_cases(a, vcpu);
	abi_close(a, vcpu);
	abi_close(a, vm);
	vm = abi_vm(a, &vcpu);
	abi_case(a, "split with a vCPU", -EEXIST, abi_enable(a, vm, KVM_CAP_SPLIT_IRQCHIP, 24));
	abi_close(a, vcpu);
	abi_close(a, vm);
}

static void priority_cases(struct abi *a)
{
	struct kvm_tpr_access_ctl tac = { .enabled = 1, .flags = 1 };
	struct kvm_vapic_addr va = { .vapic_addr = 0x1000 };
	int vm = abi_vm(a, NULL), vcpu;
	void *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	struct kvm_userspace_memory_region m = { .memory_size = 4096,
						 .userspace_addr = (uintptr_t)page };

	vcpu = IOCTL(a, vm, KVM_CREATE_VCPU, 0);
	abi_case(a, "SET_VAPIC_ADDR without APIC", -EINVAL,
		 IOCTL(a, vcpu, KVM_SET_VAPIC_ADDR, abi_bad_pointer()));
	abi_close(a, vcpu);
	abi_close(a, vm);
	vm = abi_vm(a, NULL);
	IOCTL(a, vm, KVM_CREATE_IRQCHIP, 0);
	IOCTL(a, vm, KVM_SET_USER_MEMORY_REGION, &m);
	vcpu = IOCTL(a, vm, KVM_CREATE_VCPU, 0);
	abi_case(a, "SET_VAPIC_ADDR, bad pointer", -EFAULT,
		 IOCTL(a, vcpu, KVM_SET_VAPIC_ADDR, abi_bad_pointer()));
	abi_case(a, "SET_VAPIC_ADDR without memory", -EINVAL,
		 IOCTL(a, vcpu, KVM_SET_VAPIC_ADDR, &va));
	va.vapic_addr = 0x100;
	abi_case(a, "SET_VAPIC_ADDR", 0, IOCTL(a, vcpu, KVM_SET_VAPIC_ADDR, &va));
	va.vapic_addr = 0;
	abi_case(a, "SET_VAPIC_ADDR of none", 0, IOCTL(a, vcpu, KVM_SET_VAPIC_ADDR, &va));
	abi_case(a, "TPR_ACCESS_REPORTING, bad pointer", -EFAULT,
		 IOCTL(a, vcpu, KVM_TPR_ACCESS_REPORTING, abi_bad_pointer()));
	abi_case(a, "TPR_ACCESS_REPORTING with flags", -EINVAL,
		 IOCTL(a, vcpu, KVM_TPR_ACCESS_REPORTING, &tac));
	tac.flags = 0;
	abi_case(a, "TPR_ACCESS_REPORTING", 0, IOCTL(a, vcpu, KVM_TPR_ACCESS_REPORTING, &tac));
	abi_case(a, "TPR_ACCESS_REPORTING on a VM", -ENOTTY,
		 IOCTL(a, vm, KVM_TPR_ACCESS_REPORTING, &tac));
	abi_close(a, vcpu);
	abi_close(a, vm);
	munmap(page, 4096);
}

static void vm_choice_cases(struct abi *a)
{
	struct kvm_reinject_control r = { .pit_reinject = 0 };
	struct kvm_pit_config pit = { 0 };
	int vm = abi_vm(a, NULL);

	abi_case(a, "X86_DISABLE_EXITS, unknown", -EINVAL,
		 abi_enable(a, vm, KVM_CAP_X86_DISABLE_EXITS, 0x100));
	abi_case(a, "X86_DISABLE_EXITS", 0,
		 abi_enable(a, vm, KVM_CAP_X86_DISABLE_EXITS, KVM_X86_DISABLE_EXITS_HLT));
	abi_case(a, "X2APIC_API, unknown", -EINVAL, abi_enable(a, vm, KVM_CAP_X2APIC_API, 4));
	abi_case(a, "X2APIC_API", 0, abi_enable(a, vm, KVM_CAP_X2APIC_API, 3));
	abi_case(a, "REINJECT_CONTROL, bad pointer", -EFAULT,
		 IOCTL(a, vm, KVM_REINJECT_CONTROL, abi_bad_pointer()));
	abi_case(a, "REINJECT_CONTROL without PIT", -ENXIO, IOCTL(a, vm, KVM_REINJECT_CONTROL, &r));
	IOCTL(a, vm, KVM_CREATE_IRQCHIP, 0);
	IOCTL(a, vm, KVM_CREATE_PIT2, &pit);
	abi_case(a, "REINJECT_CONTROL", 0, IOCTL(a, vm, KVM_REINJECT_CONTROL, &r));
	abi_close(a, vm);
}

static void pv_msr_cases(struct abi *a)
{
	int vm = abi_vm(a, NULL), vcpu;
	uint8_t hlt = 0xf4, *page;

	IOCTL(a, vm, KVM_CREATE_IRQCHIP, 0);
	vcpu = IOCTL(a, vm, KVM_CREATE_VCPU, 0);
	page = abi_code(a, vm, vcpu, &hlt, 1);
	abi_case(a, "STEAL_TIME, reserved bits", 0,
		 abi_msr_set(a, vcpu, MSR_STEAL_TIME, 0x400 | 2));
	abi_case(a, "STEAL_TIME", 1, abi_msr_set(a, vcpu, MSR_STEAL_TIME, 0x400 | 1));
	abi_case(a, "STEAL_TIME is kept", 0x401, abi_msr_get(a, vcpu, MSR_STEAL_TIME));
	abi_case(a, "STEAL_TIME without memory", 1,
		 abi_msr_set(a, vcpu, MSR_STEAL_TIME, 0x40000001));
	abi_case(a, "STEAL_TIME off", 1, abi_msr_set(a, vcpu, MSR_STEAL_TIME, 0));
	abi_case(a, "PV_EOI, not aligned", 0, abi_msr_set(a, vcpu, MSR_PV_EOI, 0x402 | 1));
	abi_case(a, "PV_EOI without memory", 0, abi_msr_set(a, vcpu, MSR_PV_EOI, 0x40000001));
	abi_case(a, "PV_EOI", 1, abi_msr_set(a, vcpu, MSR_PV_EOI, 0x405));
	abi_case(a, "PV_EOI is kept", 0x405, abi_msr_get(a, vcpu, MSR_PV_EOI));
	abi_case(a, "POLL_CONTROL at first", 1, abi_msr_get(a, vcpu, MSR_POLL_CONTROL));
	abi_case(a, "POLL_CONTROL, reserved bits", 0, abi_msr_set(a, vcpu, MSR_POLL_CONTROL, 2));
	abi_case(a, "POLL_CONTROL", 1, abi_msr_set(a, vcpu, MSR_POLL_CONTROL, 0));
	abi_case(a, "POLL_CONTROL is kept", 0, abi_msr_get(a, vcpu, MSR_POLL_CONTROL));
	abi_close(a, vcpu);
	abi_close(a, vm);
	munmap(page, 4096);
}

/* KVM's leaves stand where its name is, behind Hyper-V's; what they do not offer is not there for a guest that must see it. */
static void pv_leaf_cases(struct abi *a)
{
	static struct {
		struct kvm_cpuid2 head;
		struct kvm_cpuid_entry2 e[4];
	} c = { { .nent = 4 },
		{ { .function = 0x40000000,
		    .eax = 0x40000001,
		    .ebx = 0x7263694d,
		    .ecx = 0x666f736f,
		    .edx = 0x76482074 },
		  { .function = 0x40000001, .eax = 0x31237648 },
		  { .function = 0x40000100,
		    .eax = 0x40000101,
		    .ebx = 0x4b4d564b,
		    .ecx = 0x564b4d56,
		    .edx = 0x4d },
		  { .function = 0x40000101, .eax = 1 << KVM_FEATURE_STEAL_TIME } } };
	int vm = abi_vm(a, NULL), vcpu;

	IOCTL(a, vm, KVM_CREATE_IRQCHIP, 0);
	vcpu = IOCTL(a, vm, KVM_CREATE_VCPU, 0);
	abi_case(a, "KVM's leaves behind Hyper-V's", 0, IOCTL(a, vcpu, KVM_SET_CPUID2, &c));
	abi_case(a, "ENFORCE_PV_FEATURE_CPUID", 0,
		 abi_enable(a, vcpu, KVM_CAP_ENFORCE_PV_FEATURE_CPUID, 1));
	abi_case(a, "STEAL_TIME, which they offer", 1, abi_msr_set(a, vcpu, MSR_STEAL_TIME, 0));
	abi_case(a, "POLL_CONTROL, which they do not", 0,
		 abi_msr_set(a, vcpu, MSR_POLL_CONTROL, 1));
	abi_close(a, vcpu);
	abi_close(a, vm);
}

void abi_split_cases(struct abi *a)
{
	split_cases(a);
	priority_cases(a);
	vm_choice_cases(a);
	pv_msr_cases(a);
	pv_leaf_cases(a);
}

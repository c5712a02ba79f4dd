/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* KVM_GET_SUPPORTED_HV_CPUID: the leaves by which a guest takes the hypervisor for Hyper-V. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "cpu/x86/cpuid.h"
#include "kvm/kvm.h"
#include "kvm/usercopy.h"

#define HV_SIGNATURE 0x31237648 /* "Hv#1" */
#define LEAF_FIRST   0x40000000
#define LEAF_LAST    0x40000082

/* Leaf 0x40000003. */
#define FEATURES_EAX                                                                               \
	0x2aff /* all registers of hyperv.def that EAX offers, but for statistics and idle */
#define FEATURES_EBX	    (BIT(4) | BIT(5) | BIT(11)) /* messages, events, debugging */
#define FEATURES_EDX	    (BIT(1) | BIT(4) | BIT(8) | BIT(10) | BIT(11))
#define FEATURES_EDX_DIRECT BIT(19) /* timers that need no message */
/* Leaf 0x40000004: TLB flushes, APIC registers, relaxed timing, no automatic EOI, larger processor sets. */
#define ADVICE_EAX	  (BIT(2) | BIT(3) | BIT(5) | BIT(9) | BIT(11))
#define ADVICE_EAX_IPI	  BIT(10)
#define ADVICE_EAX_NO_SMT BIT(18) /* no other VM's code on a sibling thread */
#define ADVICE_EBX_SPIN	  0xfff

/* As the kernel's cpu_smt_possible(): false when it is off for good. */
static bool smt_is_possible(void)
{
	char text[16] = { 0 };
	int fd = open("/sys/devices/system/cpu/smt/control", O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return true;
	if (read(fd, text, sizeof(text) - 1) < 0)
		text[0] = 0;
	close(fd);
	return strncmp(text, "forceoff", 8) && strncmp(text, "notsupported", 12);
}

static unsigned leaves(const struct vcpu *v, struct kvm_cpuid_entry2 *e)
{
	bool lapic = !v || v->lapic;
	static const char vendor[] = "Linux KVM Hv";
	u32 name[3];

	memcpy(name, vendor, sizeof(name));
	const struct kvm_cpuid_entry2 all[] = {
		{ .function = LEAF_FIRST,
		  .eax = LEAF_LAST,
		  .ebx = name[0],
		  .ecx = name[1],
		  .edx = name[2] },
		{ .function = 0x40000001, .eax = HV_SIGNATURE },
		{ .function = 0x40000002, .eax = 0x3839, .ebx = 0xa0000 }, /* as KVM's: of 2016 */
		{ .function = 0x40000003,
		  .eax = FEATURES_EAX,
		  .ebx = FEATURES_EBX,
		  .edx = FEATURES_EDX | (lapic ? FEATURES_EDX_DIRECT : 0) },
		{ .function = 0x40000004,
		  .eax = ADVICE_EAX | (lapic ? ADVICE_EAX_IPI : 0) |
			 (smt_is_possible() ? 0 : ADVICE_EAX_NO_SMT),
		  .ebx = ADVICE_EBX_SPIN },
		{ .function = 0x40000005, .eax = VM_MAX_VCPUS, .ebx = 64 },
		{ .function = 0x40000080, .ebx = name[0], .ecx = name[1], .edx = name[2] },
		{ .function = 0x40000081, .eax = 0x31235356 }, /* "VS#1" */
		{ .function = 0x40000082, .eax = BIT(1) },
		{ .function = 0x4000000a, .eax = BIT(19), .ebx = BIT(0) },
	};

	if (e)
		memcpy(e, all, sizeof(all));
	return ARRAY_SIZE(all);
}

long hv_cpuid_supported(struct call *c)
{
	struct kvm_cpuid_entry2 e[16];
	struct kvm_cpuid2 head;
	unsigned n;

	if (user_read(&head, c->arg, sizeof(head)))
		return -EFAULT;
	n = leaves(c->vcpu, NULL);
	if (head.nent < n)
		return -E2BIG;
	head.nent = leaves(c->vcpu, e);
	if (user_write(c->arg + sizeof(head), e, n * sizeof(e[0])))
		return -EFAULT;
	return user_write(c->arg, &head, sizeof(head));
}

u32 hv_cpuid(const struct vcpu *v, u32 function, unsigned reg)
{
	const struct x86_cpuid_entry *e = x86_cpuid_find(v->cpu, function, 0);

	if (!e || e->function != function)
		return 0;
	return reg == 0 ? e->eax : reg == 1 ? e->ebx : reg == 2 ? e->ecx : e->edx;
}

bool hv_is_shown(const struct vcpu *v)
{
	return hv_cpuid(v, 0x40000001, 0) == HV_SIGNATURE;
}

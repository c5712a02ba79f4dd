/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Cases of the vCPU descriptor: registers, MSRs, CPUID, events; and of interrupt controllers. */
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#include "abi.h"

#define UNKNOWN_REQUEST _IO(KVMIO, 0x33)
#define MSR_STAR	0xc0000081u
#define MSR_NONE	0xdeadbeefu

static void pointer_cases(struct abi *a, int vcpu)
{
	static const struct {
		const char *name;
		unsigned long request;
	} rows[] = {
		{ "GET_REGS, bad pointer", KVM_GET_REGS },
		{ "SET_REGS, bad pointer", KVM_SET_REGS },
		{ "GET_SREGS, bad pointer", KVM_GET_SREGS },
		{ "SET_SREGS, bad pointer", KVM_SET_SREGS },
		{ "GET_SREGS2, bad pointer", KVM_GET_SREGS2 },
		{ "SET_SREGS2, bad pointer", KVM_SET_SREGS2 },
		{ "GET_FPU, bad pointer", KVM_GET_FPU },
		{ "SET_FPU, bad pointer", KVM_SET_FPU },
		{ "GET_XSAVE, bad pointer", KVM_GET_XSAVE },
		{ "SET_XSAVE, bad pointer", KVM_SET_XSAVE },
		{ "GET_XCRS, bad pointer", KVM_GET_XCRS },
		{ "SET_XCRS, bad pointer", KVM_SET_XCRS },
		{ "GET_MSRS, bad pointer", KVM_GET_MSRS },
		{ "SET_MSRS, bad pointer", KVM_SET_MSRS },
		{ "GET_CPUID2, bad pointer", KVM_GET_CPUID2 },
		{ "SET_CPUID2, bad pointer", KVM_SET_CPUID2 },
		{ "GET_MP_STATE, bad pointer", KVM_GET_MP_STATE },
		{ "SET_MP_STATE, bad pointer", KVM_SET_MP_STATE },
		{ "GET_VCPU_EVENTS, bad pointer", KVM_GET_VCPU_EVENTS },
		{ "SET_VCPU_EVENTS, bad pointer", KVM_SET_VCPU_EVENTS },
		{ "GET_DEBUGREGS, bad pointer", KVM_GET_DEBUGREGS },
		{ "SET_DEBUGREGS, bad pointer", KVM_SET_DEBUGREGS },
		{ "INTERRUPT, bad pointer", KVM_INTERRUPT },
		{ "SET_SIGNAL_MASK, bad pointer", KVM_SET_SIGNAL_MASK },
		{ "TRANSLATE, bad pointer", KVM_TRANSLATE },
	};

	for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		abi_case(a, rows[i].name, -EFAULT,
			 IOCTL(a, vcpu, rows[i].request, abi_bad_pointer()));
	abi_case(a, "GET_LAPIC without one looks at no pointer", -EINVAL,
		 IOCTL(a, vcpu, KVM_GET_LAPIC, abi_bad_pointer()));
	abi_case(a, "SET_LAPIC without one looks at no pointer", -EINVAL,
		 IOCTL(a, vcpu, KVM_SET_LAPIC, abi_bad_pointer()));
}

static void signal_mask_cases(struct abi *a, int vcpu)
{
	struct {
		struct kvm_signal_mask head;
		__u64 set;
	} m = { .head.len = 4 };

	abi_case(a, "SET_SIGNAL_MASK odd length", -EINVAL, IOCTL(a, vcpu, KVM_SET_SIGNAL_MASK, &m));
	m.head.len = 8;
	abi_case(a, "SET_SIGNAL_MASK", 0, IOCTL(a, vcpu, KVM_SET_SIGNAL_MASK, &m));
	abi_case(a, "SET_SIGNAL_MASK none", 0, IOCTL(a, vcpu, KVM_SET_SIGNAL_MASK, 0));
}

static void mp_state_cases(struct abi *a, int vcpu)
{
	struct kvm_mp_state m = { .mp_state = KVM_MP_STATE_HALTED };

	abi_case(a, "SET_MP_STATE HALTED without irqchip", -EINVAL,
		 IOCTL(a, vcpu, KVM_SET_MP_STATE, &m));
	m.mp_state = 77;
	abi_case(a, "SET_MP_STATE unknown", -EINVAL, IOCTL(a, vcpu, KVM_SET_MP_STATE, &m));
	m.mp_state = KVM_MP_STATE_RUNNABLE;
	abi_case(a, "SET_MP_STATE RUNNABLE", 0, IOCTL(a, vcpu, KVM_SET_MP_STATE, &m));
	abi_case(a, "GET_MP_STATE", 0, IOCTL(a, vcpu, KVM_GET_MP_STATE, &m));
	abi_case(a, "GET_MP_STATE gives RUNNABLE", KVM_MP_STATE_RUNNABLE, m.mp_state);
}

static void cpuid_cases(struct abi *a, int vcpu)
{
	struct {
		struct kvm_cpuid2 head;
		struct kvm_cpuid_entry2 e[257];
	} *t = calloc(1, sizeof(*t));

	abi_case(a, "GET_CPUID2 before any was set", 0, IOCTL(a, vcpu, KVM_GET_CPUID2, t));
	abi_case(a, "GET_CPUID2 gives none", 0, t->head.nent);
	t->head.nent = 257;
	abi_case(a, "SET_CPUID2 too many", -E2BIG, IOCTL(a, vcpu, KVM_SET_CPUID2, t));
	t->head.nent = 256;
	IOCTL(a, a->sys, KVM_GET_SUPPORTED_CPUID, t);
	abi_case(a, "SET_CPUID2", 0, IOCTL(a, vcpu, KVM_SET_CPUID2, t));
	t->head.nent = 1;
	abi_case(a, "GET_CPUID2 without room", -E2BIG, IOCTL(a, vcpu, KVM_GET_CPUID2, t));
	t->head.nent = 256;
	abi_case(a, "GET_CPUID2", 0, IOCTL(a, vcpu, KVM_GET_CPUID2, t));
	free(t);
}

static void msr_cases(struct abi *a, int vcpu)
{
	struct {
		struct kvm_msrs head;
		struct kvm_msr_entry e[4];
	} m = { .head.nmsrs = 3,
		.e = { { .index = MSR_STAR, .data = 0x1122334455667788ull },
		       { .index = MSR_NONE },
		       { .index = MSR_STAR } } };

	abi_case(a, "SET_MSRS stops at an unknown one", 1, IOCTL(a, vcpu, KVM_SET_MSRS, &m));
	m.e[0].data = 0;
	abi_case(a, "GET_MSRS stops at an unknown one", 1, IOCTL(a, vcpu, KVM_GET_MSRS, &m));
	abi_case(a, "GET_MSRS gives what was set", 1, m.e[0].data == 0x1122334455667788ull);
	m.head.nmsrs = 256;
	abi_case(a, "GET_MSRS too many", -E2BIG, IOCTL(a, vcpu, KVM_GET_MSRS, &m));
	m.head.nmsrs = 0;
	abi_case(a, "SET_MSRS none", 0, IOCTL(a, vcpu, KVM_SET_MSRS, &m));
}

/* Whoever migrates saves every MSR of the list and writes it back. */
static void msr_list_cases(struct abi *a, int vcpu)
{
	struct {
		struct kvm_msr_list head;
		__u32 index[1024];
	} l = { .head.nmsrs = 1024 };
	struct {
		struct kvm_msrs head;
		struct kvm_msr_entry e;
	} m = { .head.nmsrs = 1 };
	long unread = 0, unwritten = 0;

	IOCTL(a, a->sys, KVM_GET_MSR_INDEX_LIST, &l);
	for (unsigned i = 0; i < l.head.nmsrs; i++) {
		m.e.index = l.index[i];
		if (IOCTL(a, vcpu, KVM_GET_MSRS, &m) != 1) {
			unread++;
			printf("# %s: cannot read MSR 0x%x\n", a->ops->name, m.e.index);
		} else if (IOCTL(a, vcpu, KVM_SET_MSRS, &m) != 1) {
			unwritten++;
			printf("# %s: cannot write MSR 0x%x back\n", a->ops->name, m.e.index);
		}
	}
	abi_case(a, "listed MSRs that cannot be read", 0, unread);
	abi_case(a, "listed MSRs that cannot be written back", 0, unwritten);
}

void abi_vcpu_cases(struct abi *a)
{
	int vcpu, vm = abi_vm(a, &vcpu);
	struct kvm_interrupt irq = { .irq = 300 };
	struct kvm_enable_cap e = { .cap = KVM_CAP_USER_MEMORY };
	__u64 mce = 0;

	abi_case(a, "unknown request", -EINVAL, IOCTL(a, vcpu, UNKNOWN_REQUEST, 0));
	abi_case(a, "request of the system", -EINVAL, IOCTL(a, vcpu, KVM_CREATE_VM, 0));
	abi_case(a, "request of a VM", -EINVAL, IOCTL(a, vcpu, KVM_CREATE_VCPU, 5));
	abi_case(a, "RUN with argument", -EINVAL, IOCTL(a, vcpu, KVM_RUN, 1));
	pointer_cases(a, vcpu);
	signal_mask_cases(a, vcpu);
	mp_state_cases(a, vcpu);
	abi_case(a, "INTERRUPT 300", -EINVAL, IOCTL(a, vcpu, KVM_INTERRUPT, &irq));
	abi_case(a, "NMI", 0, IOCTL(a, vcpu, KVM_NMI, 0));
	abi_case(a, "KVMCLOCK_CTRL without clock", -EINVAL, IOCTL(a, vcpu, KVM_KVMCLOCK_CTRL, 0));
	abi_case(a, "GET_TSC_KHZ", ABI_OK, IOCTL(a, vcpu, KVM_GET_TSC_KHZ, 0));
	abi_case(a, "SET_TSC_KHZ 0", 0, IOCTL(a, vcpu, KVM_SET_TSC_KHZ, 0));
	abi_case(a, "SET_TSC_KHZ too high", -EINVAL, IOCTL(a, vcpu, KVM_SET_TSC_KHZ, 0x80000000));
	abi_case(a, "SET_TSC_KHZ", 0, IOCTL(a, vcpu, KVM_SET_TSC_KHZ, 1000000));
	abi_case(a, "GET_TSC_KHZ gives it", 1000000, IOCTL(a, vcpu, KVM_GET_TSC_KHZ, 0));
	IOCTL(a, vcpu, KVM_SET_TSC_KHZ, 0);
	abi_case(a, "ENABLE_CAP unknown", -EINVAL, IOCTL(a, vcpu, KVM_ENABLE_CAP, &e));
	abi_case(a, "X86_SETUP_MCE no bank", -EINVAL, IOCTL(a, vcpu, KVM_X86_SETUP_MCE, &mce));
	mce = 10 | 1 << 8;
	abi_case(a, "X86_SETUP_MCE", 0, IOCTL(a, vcpu, KVM_X86_SETUP_MCE, &mce));
	cpuid_cases(a, vcpu);
	msr_cases(a, vcpu);
	msr_list_cases(a, vcpu);
	abi_close(a, vcpu);
	abi_close(a, vm);
}

static void regs_cases(struct abi *a, int vcpu)
{
	struct kvm_regs r = { .rax = 1, .r15 = 0xfedcba9876543210ull, .rip = 0x1234, .rflags = 0 };
	struct kvm_regs back;

	abi_case(a, "SET_REGS", 0, IOCTL(a, vcpu, KVM_SET_REGS, &r));
	abi_case(a, "GET_REGS", 0, IOCTL(a, vcpu, KVM_GET_REGS, &back));
	abi_case(a, "rflags has its fixed bit", 2, back.rflags);
	back.rflags = 0;
	abi_case(a, "registers are as set", 0, memcmp(&r, &back, sizeof(r)));
}

static long sregs_try(struct abi *a, int vcpu, const struct kvm_sregs *base, __u64 cr0, __u64 cr4,
		      __u64 efer, bool cs_l)
{
	struct kvm_sregs s = *base;

	s.cr0 = cr0;
	s.cr4 = cr4;
	s.efer = efer;
	s.cs.l = cs_l;
	return IOCTL(a, vcpu, KVM_SET_SREGS, &s);
}

static void sregs_cases(struct abi *a, int vcpu)
{
	const __u64 pe = 1, pg = 1ull << 31, nw = 1ull << 29, pae = 1 << 5;
	struct kvm_sregs s, back;

	abi_case(a, "GET_SREGS", 0, IOCTL(a, vcpu, KVM_GET_SREGS, &s));
	abi_case(a, "reset CS selector", 0xf000, s.cs.selector);
	abi_case(a, "reset CS base", 0xffff0000l, (long)s.cs.base);
	abi_case(a, "reset CR0", 0x60000010l, (long)s.cr0);
	abi_case(a, "reset apic_base", 0xfee00900l, (long)s.apic_base);
	abi_case(a, "reset idt limit", 0xffff, s.idt.limit);
	abi_case(a, "reset tr type", 11, s.tr.type);
	abi_case(a, "reset ldt type", 2, s.ldt.type);
	abi_case(a, "SET_SREGS", 0, IOCTL(a, vcpu, KVM_SET_SREGS, &s));
	IOCTL(a, vcpu, KVM_GET_SREGS, &back);
	abi_case(a, "sregs are as set", 0, memcmp(&s, &back, sizeof(s)));
	abi_case(a, "PG without PE", -EINVAL, sregs_try(a, vcpu, &s, pg, 0, 0, false));
	abi_case(a, "NW without CD", -EINVAL, sregs_try(a, vcpu, &s, nw, 0, 0, false));
	abi_case(a, "CR0 above 32 bits", -EINVAL, sregs_try(a, vcpu, &s, 1ull << 32, 0, 0, false));
	abi_case(a, "LMA without LME", -EINVAL, sregs_try(a, vcpu, &s, pe, 0, 0x400, false));
	abi_case(a, "CS.L outside long mode", -EINVAL, sregs_try(a, vcpu, &s, pe, 0, 0, true));
	abi_case(a, "long mode without PAE", -EINVAL,
		 sregs_try(a, vcpu, &s, pe | pg, 0, 0x500, true));
	abi_case(a, "LME and PG without LMA", -EINVAL,
		 sregs_try(a, vcpu, &s, pe | pg, pae, 0x100, false));
	abi_case(a, "CR4 reserved bit", -EINVAL, sregs_try(a, vcpu, &s, pe, 1ull << 40, 0, false));
	abi_case(a, "long mode", 0, sregs_try(a, vcpu, &s, pe | pg, pae, 0x500, true));
	back = s;
	back.apic_base = 0xfee00900ull | 1ull << 60;
	abi_case(a, "apic_base reserved bit", -EINVAL, IOCTL(a, vcpu, KVM_SET_SREGS, &back));
	IOCTL(a, vcpu, KVM_SET_SREGS, &s);
}

static void sregs2_cases(struct abi *a, int vcpu)
{
	struct kvm_sregs2 s;

	abi_case(a, "GET_SREGS2", 0, IOCTL(a, vcpu, KVM_GET_SREGS2, &s));
	abi_case(a, "SREGS2 flags without PAE", 0, (long)s.flags);
	s.flags = 2;
	abi_case(a, "SET_SREGS2 unknown flag", -EINVAL, IOCTL(a, vcpu, KVM_SET_SREGS2, &s));
	s.flags = 1;
	abi_case(a, "SET_SREGS2 PDPTRs without PAE", -EINVAL, IOCTL(a, vcpu, KVM_SET_SREGS2, &s));
	s.flags = 0;
	abi_case(a, "SET_SREGS2", 0, IOCTL(a, vcpu, KVM_SET_SREGS2, &s));
}

static void fpu_cases(struct abi *a, int vcpu)
{
	struct kvm_fpu f, back;
	struct kvm_xsave x;
	struct kvm_xcrs c = { 0 };

	abi_case(a, "GET_FPU", 0, IOCTL(a, vcpu, KVM_GET_FPU, &f));
	abi_case(a, "reset FCW", 0x37f, f.fcw);
	abi_case(a, "reset MXCSR", 0x1f80, f.mxcsr);
	f.xmm[3][5] = 0x5a;
	f.fcw = 0x27f;
	abi_case(a, "SET_FPU", 0, IOCTL(a, vcpu, KVM_SET_FPU, &f));
	IOCTL(a, vcpu, KVM_GET_FPU, &back);
	abi_case(a, "FPU is as set", 0,
		 memcmp(f.xmm, back.xmm, sizeof(f.xmm)) || back.fcw != 0x27f);
	abi_case(a, "GET_XSAVE", 0, IOCTL(a, vcpu, KVM_GET_XSAVE, &x));
	abi_case(a, "XSAVE shows the FPU", 0x27f, x.region[0] & 0xffff);
	abi_case(a, "SET_XSAVE", 0, IOCTL(a, vcpu, KVM_SET_XSAVE, &x));
	abi_case(a, "GET_XSAVE2", 0, IOCTL(a, vcpu, KVM_GET_XSAVE2, &x));
	x.region[128 + 1] = 0x40000000; /* XSTATE_BV bit 62 */
	abi_case(a, "SET_XSAVE unknown component", -EINVAL, IOCTL(a, vcpu, KVM_SET_XSAVE, &x));
	abi_case(a, "GET_XCRS", 0, IOCTL(a, vcpu, KVM_GET_XCRS, &c));
	abi_case(a, "reset XCR0", 1, (long)c.xcrs[0].value);
	c.nr_xcrs = 17;
	abi_case(a, "SET_XCRS too many", -EINVAL, IOCTL(a, vcpu, KVM_SET_XCRS, &c));
	c.nr_xcrs = 1;
	c.xcrs[0].value = 0;
	abi_case(a, "XCR0 without x87", -EINVAL, IOCTL(a, vcpu, KVM_SET_XCRS, &c));
	c.xcrs[0].value = 1;
	abi_case(a, "SET_XCRS", 0, IOCTL(a, vcpu, KVM_SET_XCRS, &c));
}

static void event_cases(struct abi *a, int vcpu)
{
	struct kvm_vcpu_events e;
	struct kvm_debugregs d;

	abi_case(a, "GET_VCPU_EVENTS", 0, IOCTL(a, vcpu, KVM_GET_VCPU_EVENTS, &e));
	abi_case(a, "events flags", 13, e.flags);
	e.flags = 1u << 30;
	abi_case(a, "SET_VCPU_EVENTS unknown flag", -EINVAL,
		 IOCTL(a, vcpu, KVM_SET_VCPU_EVENTS, &e));
	e.flags = KVM_VCPUEVENT_VALID_PAYLOAD;
	abi_case(a, "SET_VCPU_EVENTS payload that was not enabled", -EINVAL,
		 IOCTL(a, vcpu, KVM_SET_VCPU_EVENTS, &e));
	memset(&e, 0, sizeof(e));
	e.exception.injected = 1;
	e.exception.nr = 32;
	abi_case(a, "SET_VCPU_EVENTS exception 32", -EINVAL,
		 IOCTL(a, vcpu, KVM_SET_VCPU_EVENTS, &e));
	e.exception.nr = 2;
	abi_case(a, "SET_VCPU_EVENTS exception 2", -EINVAL,
		 IOCTL(a, vcpu, KVM_SET_VCPU_EVENTS, &e));
	e.exception.nr = 13;
	e.exception.has_error_code = 1;
	e.exception.error_code = 0x18;
	abi_case(a, "SET_VCPU_EVENTS", 0, IOCTL(a, vcpu, KVM_SET_VCPU_EVENTS, &e));
	memset(&e, 0, sizeof(e));
	IOCTL(a, vcpu, KVM_GET_VCPU_EVENTS, &e);
	abi_case(a, "exception is as set", 1,
		 e.exception.injected && e.exception.nr == 13 && e.exception.error_code == 0x18);
	memset(&e, 0, sizeof(e));
	IOCTL(a, vcpu, KVM_SET_VCPU_EVENTS, &e);
	abi_case(a, "GET_DEBUGREGS", 0, IOCTL(a, vcpu, KVM_GET_DEBUGREGS, &d));
	abi_case(a, "reset DR6", 0xffff0ff0l, (long)d.dr6);
	abi_case(a, "reset DR7", 0x400, (long)d.dr7);
	d.dr7 = 1ull << 32;
	abi_case(a, "SET_DEBUGREGS DR7 too wide", -EINVAL, IOCTL(a, vcpu, KVM_SET_DEBUGREGS, &d));
	d.dr7 = 0x400;
	d.db[0] = 0x1234;
	abi_case(a, "SET_DEBUGREGS", 0, IOCTL(a, vcpu, KVM_SET_DEBUGREGS, &d));
	d.flags = 1;
	abi_case(a, "SET_DEBUGREGS flags", -EINVAL, IOCTL(a, vcpu, KVM_SET_DEBUGREGS, &d));
}

void abi_state_cases(struct abi *a)
{
	int vcpu, vm = abi_vm(a, &vcpu);
	struct kvm_translation t = { .linear_address = 0x1234 };

	regs_cases(a, vcpu);
	sregs_cases(a, vcpu);
	sregs2_cases(a, vcpu);
	fpu_cases(a, vcpu);
	event_cases(a, vcpu);
	abi_case(a, "TRANSLATE", 0, IOCTL(a, vcpu, KVM_TRANSLATE, &t));
	abi_case(a, "TRANSLATE without paging", 0x1234, (long)t.physical_address);
	abi_close(a, vcpu);
	abi_close(a, vm);
}

static void pit_cases(struct abi *a, int vm)
{
	struct kvm_pit_config config = { .flags = KVM_PIT_SPEAKER_DUMMY };
	struct kvm_pit_state2 s2;
	struct kvm_pit_state s;

	abi_case(a, "GET_PIT2 without one", -ENXIO, IOCTL(a, vm, KVM_GET_PIT2, &s2));
	abi_case(a, "SET_PIT2 without one", -ENXIO, IOCTL(a, vm, KVM_SET_PIT2, &s2));
	abi_case(a, "GET_PIT without one", -ENXIO, IOCTL(a, vm, KVM_GET_PIT, &s));
	abi_case(a, "CREATE_PIT2, bad pointer", -EFAULT,
		 IOCTL(a, vm, KVM_CREATE_PIT2, abi_bad_pointer()));
	abi_case(a, "CREATE_PIT2", 0, IOCTL(a, vm, KVM_CREATE_PIT2, &config));
	abi_case(a, "CREATE_PIT2 twice", -EEXIST, IOCTL(a, vm, KVM_CREATE_PIT2, &config));
	abi_case(a, "GET_PIT2", 0, IOCTL(a, vm, KVM_GET_PIT2, &s2));
	abi_case(a, "SET_PIT2", 0, IOCTL(a, vm, KVM_SET_PIT2, &s2));
	abi_case(a, "GET_PIT", 0, IOCTL(a, vm, KVM_GET_PIT, &s));
	abi_case(a, "SET_PIT", 0, IOCTL(a, vm, KVM_SET_PIT, &s));
}

static void irqchip_state_cases(struct abi *a, int vm)
{
	struct kvm_irqchip c = { .chip_id = 7 };
	struct kvm_irq_level line = { .irq = 4, .level = 1 };
	struct kvm_msi msi = { .address_lo = 0xfee00000, .data = 0x30 };
	struct {
		struct kvm_irq_routing head;
		struct kvm_irq_routing_entry e[1];
	} r = { .head = { .nr = 1, .flags = 1 } };

	abi_case(a, "GET_IRQCHIP unknown", -EINVAL, IOCTL(a, vm, KVM_GET_IRQCHIP, &c));
	abi_case(a, "SET_IRQCHIP unknown", -EINVAL, IOCTL(a, vm, KVM_SET_IRQCHIP, &c));
	for (unsigned id = 0; id < 3; id++) {
		c.chip_id = id;
		abi_case(a, "GET_IRQCHIP", 0, IOCTL(a, vm, KVM_GET_IRQCHIP, &c));
		abi_case(a, "SET_IRQCHIP", 0, IOCTL(a, vm, KVM_SET_IRQCHIP, &c));
	}
	abi_case(a, "IRQ_LINE", 0, IOCTL(a, vm, KVM_IRQ_LINE, &line));
	abi_case(a, "IRQ_LINE_STATUS", 0, IOCTL(a, vm, KVM_IRQ_LINE_STATUS, &line));
	line.irq = 500;
	abi_case(a, "IRQ_LINE_STATUS not routed", 0, IOCTL(a, vm, KVM_IRQ_LINE_STATUS, &line));
	abi_case(a, "IRQ_LINE_STATUS not routed: status", -1, (__s32)line.status);
	abi_case(a, "SIGNAL_MSI to a disabled LAPIC", ABI_OK, IOCTL(a, vm, KVM_SIGNAL_MSI, &msi));
	msi.flags = 8;
	abi_case(a, "SIGNAL_MSI unknown flag", -EINVAL, IOCTL(a, vm, KVM_SIGNAL_MSI, &msi));
	abi_case(a, "SET_GSI_ROUTING flags", -EINVAL, IOCTL(a, vm, KVM_SET_GSI_ROUTING, &r));
	r.head.flags = 0;
	r.e[0].type = 99;
	abi_case(a, "SET_GSI_ROUTING unknown type", -EINVAL, IOCTL(a, vm, KVM_SET_GSI_ROUTING, &r));
	r.head.nr = 5000;
	abi_case(a, "SET_GSI_ROUTING too many", -EINVAL, IOCTL(a, vm, KVM_SET_GSI_ROUTING, &r));
}

void abi_chip_cases(struct abi *a)
{
	struct kvm_pit_config config = { 0 };
	struct kvm_irqchip c = { .chip_id = 0 };
	struct kvm_irq_level line = { .irq = 4, .level = 1 };
	struct kvm_interrupt irq = { .irq = 0x20 };
	struct kvm_mp_state mp;
	struct kvm_lapic_state l;
	int vm = abi_vm(a, NULL), bsp, ap;

	abi_case(a, "GET_IRQCHIP without one", -ENXIO, IOCTL(a, vm, KVM_GET_IRQCHIP, &c));
	abi_case(a, "IRQ_LINE without one", -ENXIO, IOCTL(a, vm, KVM_IRQ_LINE, &line));
	abi_case(a, "CREATE_PIT2 without irqchip", -ENOENT, IOCTL(a, vm, KVM_CREATE_PIT2, &config));
	abi_case(a, "CREATE_IRQCHIP", 0, IOCTL(a, vm, KVM_CREATE_IRQCHIP, 0));
	abi_case(a, "CREATE_IRQCHIP twice", -EEXIST, IOCTL(a, vm, KVM_CREATE_IRQCHIP, 0));
	pit_cases(a, vm);
	bsp = IOCTL(a, vm, KVM_CREATE_VCPU, 0);
	ap = IOCTL(a, vm, KVM_CREATE_VCPU, 1);
	irqchip_state_cases(a, vm);
	abi_case(a, "INTERRUPT with irqchip", -ENXIO, IOCTL(a, bsp, KVM_INTERRUPT, &irq));
	IOCTL(a, bsp, KVM_GET_MP_STATE, &mp);
	abi_case(a, "boot processor is RUNNABLE", KVM_MP_STATE_RUNNABLE, mp.mp_state);
	IOCTL(a, ap, KVM_GET_MP_STATE, &mp);
	abi_case(a, "other processor is UNINITIALIZED", KVM_MP_STATE_UNINITIALIZED, mp.mp_state);
	abi_case(a, "GET_LAPIC", 0, IOCTL(a, ap, KVM_GET_LAPIC, &l));
	abi_case(a, "LAPIC id", 1, (unsigned char)l.regs[0x23]);
	abi_case(a, "SET_LAPIC", 0, IOCTL(a, ap, KVM_SET_LAPIC, &l));
	abi_case(a, "GET_LAPIC, bad pointer", -EFAULT,
		 IOCTL(a, ap, KVM_GET_LAPIC, abi_bad_pointer()));
	abi_close(a, ap);
	abi_close(a, bsp);
	abi_close(a, vm);
}

/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Cases of guest memory that is gone: protected, or of a file that was cut. What an ioctl writes there is refused or left out. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include "abi.h"

#define KEPT	 0x10000ull
#define GONE	 0x11000ull /* the page behind it, which goes */
#define PENDING	 0x800
#define NO_PAGE	 (~0ull)
#define PRIORITY KVM_IRQ_ROUTING_XEN_EVTCHN_PRIO_2LEVEL

#define MSR_WALL_CLOCK	0x4b564d00u
#define MSR_SYSTEM_TIME 0x4b564d01u
#define MSR_STEAL_TIME	0x4b564d03u
#define MSR_PV_EOI	0x4b564d04u
#define XEN_MSR		0x40000200u
#define HV_GUEST_OS_ID	0x40000000u
#define HV_HYPERCALL	0x40000001u
#define HV_TIME_REF	0x40000020u
#define HV_TSC_PAGE	0x40000021u
#define HV_ASSIST_PAGE	0x40000073u

enum way { PROTECTED, CUT, WAYS };

struct gone {
	struct abi *a;
	struct abi_guest g;
	enum way way;
};

static void leave(struct gone *x)
{
	abi_must(x->way == CUT ? !ftruncate(x->g.more_fd, 4096)
			       : !mprotect(x->g.more + 4096, 4096, PROT_NONE),
		 "memory goes");
}

static void back(struct gone *x)
{
	abi_must(x->way == CUT ? !ftruncate(x->g.more_fd, 8192)
			       : !mprotect(x->g.more + 4096, 4096, PROT_READ | PROT_WRITE),
		 "memory comes back");
}

static void say(struct gone *x, const char *name, long expected, long got)
{
	char text[100];

	snprintf(text, sizeof(text), "%s, memory %s", name, x->way == CUT ? "cut" : "protected");
	abi_case(x->a, text, expected, got);
}

/* The guest's out; jmp: it lives. */
static void say_runs(struct gone *x, const char *name)
{
	x->g.run->exit_reason = 0;
	abi_run(x->a, &x->g);
	say(x, name, KVM_EXIT_IO, x->g.run->exit_reason);
}

static long msr(struct gone *x, uint32_t index, uint64_t value)
{
	return abi_msr_set(x->a, x->g.vcpu, index, value);
}

static long xen(struct gone *x, unsigned type, uint64_t value)
{
	return abi_xen_vcpu_set(x->a, x->g.vcpu, type, value);
}

static void xen_attribute_cases(struct gone *x)
{
	struct kvm_xen_hvm_config c = { .msr = XEN_MSR, .blob_size_32 = 1, .blob_size_64 = 1 };
	uint8_t blob[4096] = { 0xc3 };

	c.blob_addr_32 = c.blob_addr_64 = (uintptr_t)blob;
	leave(x);
	say(x, "shared info", -EFAULT,
	    abi_xen_set(x->a, x->g.vm, KVM_XEN_ATTR_TYPE_SHARED_INFO, GONE >> 12));
	say(x, "vcpu info", -EFAULT, xen(x, KVM_XEN_VCPU_ATTR_TYPE_VCPU_INFO, GONE));
	say(x, "vcpu time", -EFAULT, xen(x, KVM_XEN_VCPU_ATTR_TYPE_VCPU_TIME_INFO, GONE));
	say(x, "runstate", -EFAULT, xen(x, KVM_XEN_VCPU_ATTR_TYPE_RUNSTATE_ADDR, GONE));
	say(x, "Xen's hypercall page of a blob", 0, IOCTL(x->a, x->g.vm, KVM_XEN_HVM_CONFIG, &c));
	say(x, "the blob is refused", 0, msr(x, XEN_MSR, GONE));
	c = (struct kvm_xen_hvm_config){ .flags = KVM_XEN_HVM_CONFIG_INTERCEPT_HCALL,
					 .msr = XEN_MSR };
	IOCTL(x->a, x->g.vm, KVM_XEN_HVM_CONFIG, &c);
	say(x, "Xen's hypercall page is refused", 0, msr(x, XEN_MSR, GONE));
	back(x);
	say(x, "and is not, with memory", 1, msr(x, XEN_MSR, GONE));
}

/* Pages that were there when they were told. */
static void xen_event_cases(struct gone *x)
{
	uint8_t *kept = x->g.more, *gone = x->g.more + 4096;

	abi_xen_set(x->a, x->g.vm, KVM_XEN_ATTR_TYPE_SHARED_INFO, GONE >> 12);
	xen(x, KVM_XEN_VCPU_ATTR_TYPE_VCPU_INFO, KEPT);
	leave(x);
	say(x, "EVTCHN_SEND", -EFAULT, abi_xen_send(x->a, x->g.vm, 70, 0, PRIORITY));
	back(x);
	memset(gone, 0, 4096);
	say(x, "EVTCHN_SEND afterwards", 0, abi_xen_send(x->a, x->g.vm, 70, 0, PRIORITY));
	say(x, "its bit", 1 << 6, gone[PENDING + 8]);

	abi_xen_set(x->a, x->g.vm, KVM_XEN_ATTR_TYPE_SHARED_INFO, KEPT >> 12);
	xen(x, KVM_XEN_VCPU_ATTR_TYPE_VCPU_INFO, GONE);
	memset(kept + PENDING, 0, 0x100);
	memset(gone, 0, 64);
	leave(x);
	say(x, "EVTCHN_SEND without vcpu info", 0, abi_xen_send(x->a, x->g.vm, 70, 0, PRIORITY));
	say_runs(x, "with an event that cannot be told");
	back(x);
	say_runs(x, "with one that can");
	say(x, "the event is told late", 1, gone[0]);
	say(x, "its word too", 1 << 2, gone[4]);
}

static void xen_runstate_cases(struct gone *x)
{
	uint64_t *state = (uint64_t *)(x->g.more + 4096 + 0x400);

	xen(x, KVM_XEN_VCPU_ATTR_TYPE_RUNSTATE_ADDR, GONE + 0x400);
	xen(x, KVM_XEN_VCPU_ATTR_TYPE_VCPU_TIME_INFO, GONE + 0x500);
	leave(x);
	say_runs(x, "with Xen's times");
	back(x);
	*state = ~0ull;
	say_runs(x, "with Xen's times again");
	say(x, "runstate is written", 0, *(uint32_t *)state);
	xen(x, KVM_XEN_VCPU_ATTR_TYPE_RUNSTATE_ADDR, NO_PAGE);
	xen(x, KVM_XEN_VCPU_ATTR_TYPE_VCPU_TIME_INFO, NO_PAGE);
}

/* By a thread of the library's own, or of the kernel's. */
static void irqfd_cases(struct gone *x)
{
	struct {
		struct kvm_irq_routing head;
		struct kvm_irq_routing_entry e;
	} r = { .head.nr = 1, .e = { .gsi = 30, .type = KVM_IRQ_ROUTING_XEN_EVTCHN } };
	struct kvm_irqfd f = { .fd = eventfd(0, EFD_NONBLOCK), .gsi = 30 };
	uint64_t one = 1, left = 1;

	abi_xen_set(x->a, x->g.vm, KVM_XEN_ATTR_TYPE_SHARED_INFO, GONE >> 12);
	r.e.u.xen_evtchn = (struct kvm_irq_routing_xen_evtchn){ 40, 0, PRIORITY };
	IOCTL(x->a, x->g.vm, KVM_SET_GSI_ROUTING, &r);
	say(x, "IRQFD", 0, IOCTL(x->a, x->g.vm, KVM_IRQFD, &f));
	leave(x);
	say(x, "its signal", 8, write(f.fd, &one, sizeof(one)));
	for (unsigned i = 0; i < 10000 && read(f.fd, &left, sizeof(left)) > 0; i++) {
		/* Who is to take it was not there yet. */
		(void)!write(f.fd, &one, sizeof(one));
		usleep(500);
	}
	f.flags = KVM_IRQFD_FLAG_DEASSIGN;
	say(x, "IRQFD away", 0, IOCTL(x->a, x->g.vm, KVM_IRQFD, &f));
	back(x);
	abi_xen_set(x->a, x->g.vm, KVM_XEN_ATTR_TYPE_SHARED_INFO, NO_PAGE);
	xen(x, KVM_XEN_VCPU_ATTR_TYPE_VCPU_INFO, NO_PAGE);
	close(f.fd);
}

static void hyperv_cases(struct gone *x)
{
	struct kvm_clock_data clock;
	uint32_t *sequence = (uint32_t *)(x->g.more + 4096);

	memset(sequence, 0, 4096);
	msr(x, HV_GUEST_OS_ID, 1);
	leave(x);
	say(x, "hypercall page is refused", 0, msr(x, HV_HYPERCALL, GONE | 1));
	say(x, "assist page is refused", 0, msr(x, HV_ASSIST_PAGE, GONE | 1));
	say(x, "reference page", 1, msr(x, HV_TSC_PAGE, GONE | 1));
	say(x, "the clock goes on", 1, abi_msr_get(x->a, x->g.vcpu, HV_TIME_REF) < 1ull << 40);
	back(x);
	say(x, "reference page with memory", 1, msr(x, HV_TSC_PAGE, GONE | 1));
	say_runs(x, "with a reference page");
	say(x, "it is in use", 1, *sequence != 0);
	IOCTL(x->a, x->g.vm, KVM_GET_CLOCK, &clock);
	clock.flags = 0;
	leave(x);
	say(x, "SET_CLOCK", 0, IOCTL(x->a, x->g.vm, KVM_SET_CLOCK, &clock));
	say_runs(x, "after SET_CLOCK");
	back(x);
	msr(x, HV_TSC_PAGE, 0);
}

static void pv_cases(struct gone *x)
{
	struct kvm_vapic_addr vapic = { .vapic_addr = GONE + 0x200 };
	uint32_t *time = (uint32_t *)(x->g.more + 4096), *steal = time + 16;

	memset(time, 0, 4096);
	leave(x);
	say(x, "wall clock", 1, msr(x, MSR_WALL_CLOCK, GONE + 0x100));
	say(x, "system time", 1, msr(x, MSR_SYSTEM_TIME, GONE | 1));
	say(x, "steal time", 1, msr(x, MSR_STEAL_TIME, (GONE + 64) | 1));
	say(x, "PV EOI", 1, msr(x, MSR_PV_EOI, (GONE + 0x300) | 1));
	say(x, "SET_VAPIC_ADDR", 0, IOCTL(x->a, x->g.vcpu, KVM_SET_VAPIC_ADDR, &vapic));
	say_runs(x, "with all of them");
	say(x, "KVMCLOCK_CTRL", 0, IOCTL(x->a, x->g.vcpu, KVM_KVMCLOCK_CTRL, 0));
	say_runs(x, "after KVMCLOCK_CTRL");
	back(x);
	msr(x, MSR_SYSTEM_TIME, GONE | 1);
	msr(x, MSR_STEAL_TIME, (GONE + 64) | 1);
	say_runs(x, "with memory again");
	say(x, "time is written", 1, time[0] && !(time[0] & 1));
	say(x, "steal time is written", 1, steal[2] && !(steal[2] & 1));
	msr(x, MSR_STEAL_TIME, 0);
	msr(x, MSR_SYSTEM_TIME, 0);
	msr(x, MSR_PV_EOI, 0);
	vapic.vapic_addr = 0;
	IOCTL(x->a, x->g.vcpu, KVM_SET_VAPIC_ADDR, &vapic);
	vapic.vapic_addr = 0x40000000;
	say(x, "SET_VAPIC_ADDR without a slot", -EINVAL,
	    IOCTL(x->a, x->g.vcpu, KVM_SET_VAPIC_ADDR, &vapic));
	say(x, "PV EOI without a slot", 0, msr(x, MSR_PV_EOI, 0x40000001));
}

/* The code itself: KVM_RUN fails, and says of which page (KVM_CAP_MEMORY_FAULT_INFO, KVM_EXIT_MEMORY_FAULT). */
static void run_cases(struct gone *x)
{
	const uint64_t *fault = (const uint64_t *)&x->g.run->hw;
	struct kvm_regs r = { .rip = 0, .rflags = 2 };
	struct kvm_sregs s, before;

	say(x, "CHECK_EXTENSION MEMORY_FAULT_INFO", 1,
	    IOCTL(x->a, x->g.vm, KVM_CHECK_EXTENSION, 232));
	IOCTL(x->a, x->g.vcpu, KVM_GET_SREGS, &before);
	s = before;
	s.cs.base = GONE;
	s.cs.selector = GONE >> 4;
	memcpy(x->g.more + 4096, x->g.page + 0x100, 4);
	IOCTL(x->a, x->g.vcpu, KVM_SET_SREGS, &s);
	IOCTL(x->a, x->g.vcpu, KVM_SET_REGS, &r);
	leave(x);
	say(x, "RUN of code that is gone", -EFAULT, abi_run(x->a, &x->g));
	say(x, "its exit", 39, x->g.run->exit_reason);
	say(x, "its page", GONE, (long)fault[1]);
	say(x, "and size", 4096, (long)fault[2]);
	back(x);
	memcpy(x->g.more + 4096, x->g.page + 0x100, 4);
	say_runs(x, "with the code again");
	IOCTL(x->a, x->g.vcpu, KVM_SET_SREGS, &before);
	r.rip = 0x100;
	IOCTL(x->a, x->g.vcpu, KVM_SET_REGS, &r);
}

/* Page tables, and the four entries that PAE loads from memory. */
static void paging_cases(struct gone *x)
{
	struct kvm_translation t = { .linear_address = 0x1000 };
	struct kvm_sregs s, before;

	IOCTL(x->a, x->g.vcpu, KVM_GET_SREGS, &before);
	s = before;
	s.cr3 = GONE;
	s.cr4 = 0x20; /* PAE */
	s.cr0 |= 0x80000001u;
	leave(x);
	say(x, "SET_SREGS of PAE", 0, IOCTL(x->a, x->g.vcpu, KVM_SET_SREGS, &s));
	s.cr4 = 0;
	say(x, "SET_SREGS", 0, IOCTL(x->a, x->g.vcpu, KVM_SET_SREGS, &s));
	t.valid = 1;
	say(x, "TRANSLATE", 0, IOCTL(x->a, x->g.vcpu, KVM_TRANSLATE, &t));
	say(x, "it is not mapped", 0, t.valid);
	back(x);
	memset(x->g.more + 4096, 0, 4096);
	*(uint32_t *)(x->g.more + 4096) = 0x83; /* 4 MiB at 0 */
	s.cr4 = 0x10;
	IOCTL(x->a, x->g.vcpu, KVM_SET_SREGS, &s);
	IOCTL(x->a, x->g.vcpu, KVM_TRANSLATE, &t);
	say(x, "it is, with memory", 1, t.valid);
	IOCTL(x->a, x->g.vcpu, KVM_SET_SREGS, &before);
}

void abi_gone_cases(struct abi *a)
{
	for (unsigned way = 0; way < WAYS; way++) {
		struct gone x = { .a = a, .way = way };

		ABI_START(a, &x.g, true, 0xe6, 0x10, 0xeb, 0xfc); /* 1: out; jmp 1b */
		abi_more(a, &x.g, KEPT, 2);
		run_cases(&x);
		paging_cases(&x);
		pv_cases(&x);
		xen_attribute_cases(&x);
		xen_event_cases(&x);
		xen_runstate_cases(&x);
		irqfd_cases(&x);
		hyperv_cases(&x);
		abi_stop(a, &x.g);
	}
}

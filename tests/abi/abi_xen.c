/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Cases of Xen's interface: configuration, attributes, event channels, timers, and hypercalls of a guest in real mode. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include "abi.h"

#define SHARED	   0x10000ull /* shared info, and a page behind it for the vCPU's */
#define INFO	   (SHARED + 0x1000)
#define TIME	   (SHARED + 0x1100)
#define RUNSTATE   (SHARED + 0x1200)
#define PENDING_32 0x800
#define MASK_32	   0x880
#define PENDING_64 0x800
#define MASK_64	   0xa00
#define NO_PAGE	   (~0ull)
#define PRIORITY   KVM_IRQ_ROUTING_XEN_EVTCHN_PRIO_2LEVEL
#define IDLE	   0xf4 /* hlt */

long abi_xen_set(struct abi *a, int vm, unsigned type, uint64_t value)
{
	struct kvm_xen_hvm_attr x = { .type = type, .u.shared_info.gfn = value };

	return IOCTL(a, vm, KVM_XEN_HVM_SET_ATTR, &x);
}

static long vm_get(struct abi *a, int vm, unsigned type)
{
	struct kvm_xen_hvm_attr x = { .type = type };
	long r = IOCTL(a, vm, KVM_XEN_HVM_GET_ATTR, &x);

	return r ? r : (long)x.u.shared_info.gfn;
}

long abi_xen_vcpu_set(struct abi *a, int vcpu, unsigned type, uint64_t value)
{
	struct kvm_xen_vcpu_attr x = { .type = type, .u.gpa = value };

	return IOCTL(a, vcpu, KVM_XEN_VCPU_SET_ATTR, &x);
}

static long vcpu_get(struct abi *a, int vcpu, unsigned type)
{
	struct kvm_xen_vcpu_attr x = { .type = type };
	long r = IOCTL(a, vcpu, KVM_XEN_VCPU_GET_ATTR, &x);

	return r ? r : (long)x.u.gpa;
}

long abi_xen_send(struct abi *a, int vm, uint32_t port, uint32_t vcpu, uint32_t priority)
{
	struct kvm_irq_routing_xen_evtchn e = { port, vcpu, priority };

	return IOCTL(a, vm, KVM_XEN_HVM_EVTCHN_SEND, &e);
}

static void descriptor_cases(struct abi *a, struct abi_guest *g)
{
	static const struct {
		const char *name;
		unsigned long request;
		int of_vcpu;
	} calls[] = {
		{ "XEN_HVM_SET_ATTR", KVM_XEN_HVM_SET_ATTR, 0 },
		{ "XEN_HVM_GET_ATTR", KVM_XEN_HVM_GET_ATTR, 0 },
		{ "XEN_HVM_EVTCHN_SEND", KVM_XEN_HVM_EVTCHN_SEND, 0 },
		{ "XEN_VCPU_SET_ATTR", KVM_XEN_VCPU_SET_ATTR, 1 },
		{ "XEN_VCPU_GET_ATTR", KVM_XEN_VCPU_GET_ATTR, 1 },
	};
	struct kvm_xen_hvm_attr x = { .type = 99 };
	char name[80];

	for (unsigned i = 0; i < sizeof(calls) / sizeof(calls[0]); i++) {
		int right = calls[i].of_vcpu ? g->vcpu : g->vm;
		int wrong = calls[i].of_vcpu ? g->vm : g->vcpu;

		snprintf(name, sizeof(name), "%s, bad pointer", calls[i].name);
		abi_case(a, name, -EFAULT, IOCTL(a, right, calls[i].request, abi_bad_pointer()));
		snprintf(name, sizeof(name), "%s on the other kind", calls[i].name);
		abi_case(a, name, calls[i].of_vcpu ? -ENOTTY : -EINVAL,
			 IOCTL(a, wrong, calls[i].request, &x));
		snprintf(name, sizeof(name), "%s on the system", calls[i].name);
		abi_case(a, name, -EINVAL, IOCTL(a, a->sys, calls[i].request, &x));
	}
}

static void vm_cases(struct abi *a, struct abi_guest *g)
{
	abi_case(a, "XEN_HVM_SET_ATTR unknown type", -ENOENT, abi_xen_set(a, g->vm, 99, 0));
	abi_case(a, "XEN_HVM_GET_ATTR unknown type", -ENOENT, vm_get(a, g->vm, 99));
	abi_case(a, "XEN_HVM_GET_ATTR of ports", -ENOENT,
		 vm_get(a, g->vm, KVM_XEN_ATTR_TYPE_EVTCHN));
	abi_case(a, "no shared info", -1, vm_get(a, g->vm, KVM_XEN_ATTR_TYPE_SHARED_INFO));
	abi_case(a, "shared info without memory", -EFAULT,
		 abi_xen_set(a, g->vm, KVM_XEN_ATTR_TYPE_SHARED_INFO, 0x40000));
	abi_case(a, "shared info", 0,
		 abi_xen_set(a, g->vm, KVM_XEN_ATTR_TYPE_SHARED_INFO, SHARED >> 12));
	abi_case(a, "it is kept", SHARED >> 12, vm_get(a, g->vm, KVM_XEN_ATTR_TYPE_SHARED_INFO));
	abi_case(a, "and has the wall clock", 1, *(uint32_t *)(g->more + 0x904) > 1000000);
	abi_case(a, "upcall vector of an exception", -EINVAL,
		 abi_xen_set(a, g->vm, KVM_XEN_ATTR_TYPE_UPCALL_VECTOR, 0xf));
	abi_case(a, "upcall vector", 0,
		 abi_xen_set(a, g->vm, KVM_XEN_ATTR_TYPE_UPCALL_VECTOR, 0x80));
	abi_case(a, "it is kept", 0x80, vm_get(a, g->vm, KVM_XEN_ATTR_TYPE_UPCALL_VECTOR));
	abi_case(a, "version", 0, abi_xen_set(a, g->vm, KVM_XEN_ATTR_TYPE_XEN_VERSION, 0x40011));
	abi_case(a, "it is kept", 0x40011, vm_get(a, g->vm, KVM_XEN_ATTR_TYPE_XEN_VERSION));
	abi_case(a, "long mode", 0, abi_xen_set(a, g->vm, KVM_XEN_ATTR_TYPE_LONG_MODE, 2));
	abi_case(a, "it is a bool", 1, vm_get(a, g->vm, KVM_XEN_ATTR_TYPE_LONG_MODE));
	abi_xen_set(a, g->vm, KVM_XEN_ATTR_TYPE_LONG_MODE, 0);
}

static void vcpu_cases(struct abi *a, struct abi_guest *g)
{
	static const unsigned pages[] = { KVM_XEN_VCPU_ATTR_TYPE_VCPU_INFO,
					  KVM_XEN_VCPU_ATTR_TYPE_VCPU_TIME_INFO,
					  KVM_XEN_VCPU_ATTR_TYPE_RUNSTATE_ADDR };

	abi_case(a, "XEN_VCPU_SET_ATTR unknown type", -ENOENT, abi_xen_vcpu_set(a, g->vcpu, 99, 0));
	abi_case(a, "XEN_VCPU_GET_ATTR unknown type", -ENOENT, vcpu_get(a, g->vcpu, 99));
	for (unsigned i = 0; i < 3; i++) {
		abi_case(a, "no page yet", i == 2 ? -ENOENT : -1, vcpu_get(a, g->vcpu, pages[i]));
		abi_case(a, "page over an edge", -EINVAL,
			 abi_xen_vcpu_set(a, g->vcpu, pages[i], SHARED + 0xff0));
		abi_case(a, "page without memory", -EFAULT,
			 abi_xen_vcpu_set(a, g->vcpu, pages[i], 0x40000000));
		abi_case(a, "page", 0, abi_xen_vcpu_set(a, g->vcpu, pages[i], INFO + 0x100 * i));
		abi_case(a, "it is kept", (long)INFO + 0x100 * i, vcpu_get(a, g->vcpu, pages[i]));
		abi_case(a, "no page again", 0, abi_xen_vcpu_set(a, g->vcpu, pages[i], NO_PAGE));
	}
	abi_case(a, "vCPU's number too large", -EINVAL,
		 abi_xen_vcpu_set(a, g->vcpu, KVM_XEN_VCPU_ATTR_TYPE_VCPU_ID, 5000));
	abi_case(a, "vCPU's number", 0,
		 abi_xen_vcpu_set(a, g->vcpu, KVM_XEN_VCPU_ATTR_TYPE_VCPU_ID, 7));
	abi_case(a, "it is kept", 7, vcpu_get(a, g->vcpu, KVM_XEN_VCPU_ATTR_TYPE_VCPU_ID));
	abi_case(a, "vCPU's vector of an exception", -EINVAL,
		 abi_xen_vcpu_set(a, g->vcpu, KVM_XEN_VCPU_ATTR_TYPE_UPCALL_VECTOR, 3));
	abi_case(a, "vCPU's vector", 0,
		 abi_xen_vcpu_set(a, g->vcpu, KVM_XEN_VCPU_ATTR_TYPE_UPCALL_VECTOR, 0x90));
	abi_case(a, "it is kept", 0x90, vcpu_get(a, g->vcpu, KVM_XEN_VCPU_ATTR_TYPE_UPCALL_VECTOR));
	abi_xen_vcpu_set(a, g->vcpu, KVM_XEN_VCPU_ATTR_TYPE_UPCALL_VECTOR, 0);
}

static void runstate_cases(struct abi *a, struct abi_guest *g)
{
	struct kvm_xen_vcpu_attr x = { .type = KVM_XEN_VCPU_ATTR_TYPE_RUNSTATE_DATA };
	const unsigned adjust = KVM_XEN_VCPU_ATTR_TYPE_RUNSTATE_ADJUST;

	abi_case(a, "RUNSTATE_CURRENT unknown", -EINVAL,
		 abi_xen_vcpu_set(a, g->vcpu, KVM_XEN_VCPU_ATTR_TYPE_RUNSTATE_CURRENT, 4));
	abi_case(a, "RUNSTATE_CURRENT blocked", 0,
		 abi_xen_vcpu_set(a, g->vcpu, KVM_XEN_VCPU_ATTR_TYPE_RUNSTATE_CURRENT, 2));
	abi_case(a, "it is kept", 2, vcpu_get(a, g->vcpu, KVM_XEN_VCPU_ATTR_TYPE_RUNSTATE_CURRENT));
	x.u.runstate.state_entry_time = 30;
	x.u.runstate.time_running = 10;
	x.u.runstate.time_blocked = 21;
	abi_case(a, "RUNSTATE_DATA does not add up", -EINVAL,
		 IOCTL(a, g->vcpu, KVM_XEN_VCPU_SET_ATTR, &x));
	x.u.runstate.time_blocked = 20;
	abi_case(a, "RUNSTATE_DATA", 0, IOCTL(a, g->vcpu, KVM_XEN_VCPU_SET_ATTR, &x));
	x.type = adjust;
	abi_case(a, "RUNSTATE_ADJUST is not read", -EINVAL, vcpu_get(a, g->vcpu, adjust));
	x.u.runstate.state = 4;
	abi_case(a, "RUNSTATE_ADJUST unknown state", -EINVAL,
		 IOCTL(a, g->vcpu, KVM_XEN_VCPU_SET_ATTR, &x));
	x.u.runstate.state = NO_PAGE;
	abi_case(a, "RUNSTATE_ADJUST", 0, IOCTL(a, g->vcpu, KVM_XEN_VCPU_SET_ATTR, &x));
	x = (struct kvm_xen_vcpu_attr){ .type = KVM_XEN_VCPU_ATTR_TYPE_RUNSTATE_DATA };
	IOCTL(a, g->vcpu, KVM_XEN_VCPU_GET_ATTR, &x);
	abi_case(a, "its time is twice the first", 60, (long)x.u.runstate.state_entry_time);
	abi_case(a, "and so is its share", 40, (long)x.u.runstate.time_blocked);
	x.u.runstate.state_entry_time = x.u.runstate.time_offline = 1ull << 62;
	x.u.runstate.time_blocked = x.u.runstate.time_running = 0;
	abi_case(a, "RUNSTATE_DATA in the future", -EINVAL,
		 IOCTL(a, g->vcpu, KVM_XEN_VCPU_SET_ATTR, &x));
}

static long port(struct abi *a, int vm, __u32 number, __u32 type, __u32 flags, __u32 channel,
		 __u32 second)
{
	struct kvm_xen_hvm_attr x = { .type = KVM_XEN_ATTR_TYPE_EVTCHN };

	x.u.evtchn.send_port = number;
	x.u.evtchn.type = type;
	x.u.evtchn.flags = flags;
	x.u.evtchn.deliver.port.port = channel;
	x.u.evtchn.deliver.port.vcpu = second; /* or the eventfd */
	x.u.evtchn.deliver.port.priority = PRIORITY;
	return IOCTL(a, vm, KVM_XEN_HVM_SET_ATTR, &x);
}

static void port_cases(struct abi *a, struct abi_guest *g)
{
	const __u32 ipi = 5, domains = 2, away = KVM_XEN_EVTCHN_DEASSIGN;
	int fd = eventfd(0, 0);

	abi_case(a, "port 0", -EINVAL, port(a, g->vm, 0, domains, 0, 3, 0));
	abi_case(a, "port past the last of 32 bits", -EINVAL,
		 port(a, g->vm, 1024, domains, 0, 3, 0));
	abi_case(a, "port of an unknown type", -EINVAL, port(a, g->vm, 20, 1, 0, 3, 0));
	abi_case(a, "IPI to another channel", -EINVAL, port(a, g->vm, 20, ipi, 0, 3, 0));
	abi_case(a, "IPI", 0, port(a, g->vm, 20, ipi, 0, 20, 0));
	abi_case(a, "port twice", -EEXIST, port(a, g->vm, 20, domains, 0, 3, 0));
	abi_case(a, "port to no eventfd", -EBADF, port(a, g->vm, 21, domains, 0, 0, -1u));
	abi_case(a, "port to an eventfd", 0, port(a, g->vm, 21, domains, 0, 0, fd));
	abi_case(a, "an eventfd is not moved", -EINVAL,
		 port(a, g->vm, 21, domains, KVM_XEN_EVTCHN_UPDATE, 0, 1));
	abi_case(a, "an IPI is moved", 0, port(a, g->vm, 20, ipi, KVM_XEN_EVTCHN_UPDATE, 20, 1));
	abi_case(a, "nothing is moved", -ENOENT,
		 port(a, g->vm, 22, ipi, KVM_XEN_EVTCHN_UPDATE, 22, 1));
	abi_case(a, "unknown flag", -EINVAL, port(a, g->vm, 22, ipi, 8, 22, 1));
	abi_case(a, "away", 0, port(a, g->vm, 20, 0, away, 0, 0));
	abi_case(a, "away twice", -ENOENT, port(a, g->vm, 20, 0, away, 0, 0));
	abi_case(a, "reset", 0, port(a, g->vm, 0, 0, KVM_XEN_EVTCHN_RESET, 0, 0));
	abi_case(a, "away after it", -ENOENT, port(a, g->vm, 21, 0, away, 0, 0));
	close(fd);
}

static void delivery_cases(struct abi *a, struct abi_guest *g)
{
	uint8_t *info = g->more + 0x1000;
	uint64_t *sel = (uint64_t *)(info + 8);

	abi_case(a, "EVTCHN_SEND without vcpu info", -EINVAL,
		 abi_xen_send(a, g->vm, 70, 0, PRIORITY));
	abi_xen_vcpu_set(a, g->vcpu, KVM_XEN_VCPU_ATTR_TYPE_VCPU_INFO, INFO);
	abi_case(a, "EVTCHN_SEND channel 0", -EINVAL, abi_xen_send(a, g->vm, 0, 0, PRIORITY));
	abi_case(a, "EVTCHN_SEND of another priority", -EINVAL, abi_xen_send(a, g->vm, 70, 0, 0));
	abi_case(a, "EVTCHN_SEND channel too large", -EINVAL,
		 abi_xen_send(a, g->vm, 1024, 0, PRIORITY));
	abi_case(a, "EVTCHN_SEND to nobody", -EINVAL, abi_xen_send(a, g->vm, 70, 9, PRIORITY));
	abi_case(a, "EVTCHN_SEND", 0, abi_xen_send(a, g->vm, 70, 0, PRIORITY));
	abi_case(a, "it is pending", 1 << 6, g->more[PENDING_32 + 8]);
	abi_case(a, "its word of 32 bits is selected", 1 << 2, info[4]);
	abi_case(a, "and an upcall is due", 1, info[0]);
	memset(g->more + PENDING_32, 0, 0x100);
	memset(info, 0, 16);
	g->more[MASK_32 + 8] = 1 << 6;
	abi_case(a, "EVTCHN_SEND masked", 0, abi_xen_send(a, g->vm, 70, 0, PRIORITY));
	abi_case(a, "it is pending too", 1 << 6, g->more[PENDING_32 + 8]);
	abi_case(a, "but no upcall is due", 0, info[0]);
	abi_xen_set(a, g->vm, KVM_XEN_ATTR_TYPE_LONG_MODE, 1);
	memset(g->more + PENDING_64, 0, 0x400);
	abi_case(a, "EVTCHN_SEND of 64 bits", 0, abi_xen_send(a, g->vm, 4095, 0, PRIORITY));
	abi_case(a, "it is pending", 1 << 7, g->more[PENDING_64 + 511]);
	abi_case(a, "its word is selected", 1, *sel == 1ull << 63);
	abi_case(a, "EVTCHN_SEND 4096", -EINVAL, abi_xen_send(a, g->vm, 4096, 0, PRIORITY));
	abi_xen_set(a, g->vm, KVM_XEN_ATTR_TYPE_LONG_MODE, 0);
	memset(g->more + PENDING_64, 0, 0x400);
	memset(info, 0, 16);
}

/* The handler of vector 0x80 is out %al, $0x10. */
static void handler_make(struct abi_guest *g, unsigned vector)
{
	g->page[4 * vector] = 0x10;
	g->page[4 * vector + 1] = 2;
	memcpy(g->page + 0x210, (const uint8_t[]){ 0xe6, 0x10, 0xf4 }, 3);
}

static void apic_on(struct abi *a, int vcpu)
{
	struct kvm_lapic_state lapic;

	IOCTL(a, vcpu, KVM_GET_LAPIC, &lapic);
	lapic.regs[0xf1] |= 1;
	IOCTL(a, vcpu, KVM_SET_LAPIC, &lapic);
}

static void route(struct abi *a, int vm)
{
	struct {
		struct kvm_irq_routing head;
		struct kvm_irq_routing_entry e;
	} r = { .head.nr = 1, .e = { .gsi = 30, .type = KVM_IRQ_ROUTING_XEN_EVTCHN } };

	r.e.u.xen_evtchn = (struct kvm_irq_routing_xen_evtchn){ 40, 0, 0 };
	abi_case(a, "route to a channel of another priority", -EINVAL,
		 IOCTL(a, vm, KVM_SET_GSI_ROUTING, &r));
	r.e.u.xen_evtchn.priority = PRIORITY;
	abi_case(a, "route to a channel", 0, IOCTL(a, vm, KVM_SET_GSI_ROUTING, &r));
}

static void interrupt_cases(struct abi *a, struct abi_guest *g)
{
	struct kvm_irq_level line = { .irq = 30, .level = 1 };
	uint8_t *info = g->more + 0x1000;

	handler_make(g, 0x80);
	handler_make(g, 0x90);
	apic_on(a, g->vcpu);
	route(a, g->vm);
	abi_case(a, "the line is raised", 0, IOCTL(a, g->vm, KVM_IRQ_LINE_STATUS, &line));
	abi_case(a, "one vCPU was told", 1, line.status);
	IOCTL(a, g->vcpu, KVM_RUN, 0);
	abi_case(a, "the VM's vector wakes the guest", KVM_EXIT_IO, g->run->exit_reason);
	abi_case(a, "and stays due until the guest clears it", 1, info[0]);
	line = (struct kvm_irq_level){ .irq = 30, .level = 1 };
	IOCTL(a, g->vm, KVM_IRQ_LINE_STATUS, &line);
	abi_case(a, "again: pending already", 0, line.status);
	memset(g->more + PENDING_32, 0, 0x100);
	memset(info, 0, 16);
	abi_xen_set(a, g->vm, KVM_XEN_ATTR_TYPE_UPCALL_VECTOR, 0);
	abi_xen_vcpu_set(a, g->vcpu, KVM_XEN_VCPU_ATTR_TYPE_UPCALL_VECTOR, 0x90);
}

/* Hypercalls of real mode: number in EAX, parameters in EBX and ECX. */
static long hypercall(struct abi *a, struct abi_guest *g, __u64 number, __u64 first, __u64 second)
{
	struct kvm_regs r;

	IOCTL(a, g->vcpu, KVM_GET_REGS, &r);
	r.rip = 0x180;
	r.rax = number;
	r.rbx = first;
	r.rcx = second;
	r.rflags = 2;
	IOCTL(a, g->vcpu, KVM_SET_REGS, &r);
	IOCTL(a, g->vcpu, KVM_RUN, 0);
	if (g->run->exit_reason == KVM_EXIT_XEN) {
		IOCTL(a, g->vcpu, KVM_RUN, 0); /* completes it */
		return -1000;
	}
	IOCTL(a, g->vcpu, KVM_GET_REGS, &r);
	return (int32_t)r.rax;
}

/* sti; hlt; loop; and the timer's channel as the vCPU's own vector, in its APIC. */
static void timer_cases(struct abi *a, struct abi_guest *g)
{
	struct kvm_xen_vcpu_attr t = { .type = KVM_XEN_VCPU_ATTR_TYPE_TIMER };
	struct kvm_clock_data now;
	struct kvm_regs r;

	t.u.timer.port = 13;
	abi_case(a, "TIMER of another priority", -EINVAL,
		 IOCTL(a, g->vcpu, KVM_XEN_VCPU_SET_ATTR, &t));
	IOCTL(a, g->vm, KVM_GET_CLOCK, &now);
	t.u.timer.priority = PRIORITY;
	t.u.timer.expires_ns = now.clock + 20000000;
	abi_case(a, "TIMER", 0, IOCTL(a, g->vcpu, KVM_XEN_VCPU_SET_ATTR, &t));
	IOCTL(a, g->vcpu, KVM_XEN_VCPU_GET_ATTR, &t);
	abi_case(a, "it is armed", 1, t.u.timer.expires_ns == now.clock + 20000000);
	IOCTL(a, g->vcpu, KVM_GET_REGS, &r);
	r.rip = 0x100;
	r.rflags = 0x202;
	IOCTL(a, g->vcpu, KVM_SET_REGS, &r);
	IOCTL(a, g->vcpu, KVM_RUN, 0);
	abi_case(a, "the vCPU's vector wakes the guest", KVM_EXIT_IO, g->run->exit_reason);
	abi_case(a, "its channel is pending", 1 << 5, g->more[PENDING_32 + 1]);
	IOCTL(a, g->vm, KVM_GET_CLOCK, &now);
	IOCTL(a, g->vcpu, KVM_XEN_VCPU_GET_ATTR, &t);
	abi_case(a, "a timer that has fired is off", 0, (long)t.u.timer.expires_ns);
	abi_case(a, "stop of another's timer", -EINVAL, hypercall(a, g, 24, 9, 3));
	abi_case(a, "stop of its timer", 0, hypercall(a, g, 24, 9, 7));
}

static void hypercall_cases(struct abi *a, struct abi_guest *g)
{
	static const uint8_t code[] = { 0x0f, 0x01, 0xd9, 0xe7, 0x10 }; /* vmmcall; out */
	struct kvm_xen_hvm_config x = { .flags = KVM_XEN_HVM_CONFIG_INTERCEPT_HCALL |
						 KVM_XEN_HVM_CONFIG_EVTCHN_SEND,
					.msr = 0x40000000 };
	uint64_t count = 0;
	int fd = eventfd(0, EFD_NONBLOCK);

	abi_case(a, "XEN_HVM_CONFIG", 0, IOCTL(a, g->vm, KVM_XEN_HVM_CONFIG, &x));
	memcpy(g->page + 0x180, code, sizeof(code));
	abi_case(a, "version is answered", 0x40011, hypercall(a, g, 17, 0, 0));
	abi_case(a, "another question is not", -1000, hypercall(a, g, 17, 1, 0));
	port(a, g->vm, 21, 2, 0, 0, fd);
	g->page[0x300] = 21;
	abi_case(a, "an event of the guest's", 0, hypercall(a, g, 32, 4, 0x300));
	abi_case(a, "signals the eventfd", 8, read(fd, &count, sizeof(count)));
	g->page[0x300] = 99;
	abi_case(a, "an event that nobody has", -1000, hypercall(a, g, 32, 4, 0x300));
	abi_case(a, "an event from nowhere", -EFAULT, hypercall(a, g, 32, 4, 0x40000));
	abi_case(a, "yield", 0, hypercall(a, g, 29, 0, 0));
	abi_case(a, "block", -1000, hypercall(a, g, 29, 1, 0));
	abi_case(a, "stop of a timer that is not there", -1000, hypercall(a, g, 24, 9, 7));
	port(a, g->vm, 0, 0, KVM_XEN_EVTCHN_RESET, 0, 0);
	close(fd);
}

void abi_xen_cases(struct abi *a)
{
	/* sti; again: hlt; jmp again. */
	static const uint8_t code[] = { 0xfb, IDLE, 0xeb, 0xfd };
	struct abi_guest g;

	abi_start(a, &g, true, code, sizeof(code));
	abi_more(a, &g, SHARED, 2);
	descriptor_cases(a, &g);
	vm_cases(a, &g);
	vcpu_cases(a, &g);
	runstate_cases(a, &g);
	port_cases(a, &g);
	delivery_cases(a, &g);
	interrupt_cases(a, &g);
	hypercall_cases(a, &g);
	timer_cases(a, &g);
	abi_stop(a, &g);
}

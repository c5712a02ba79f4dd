/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Xen's event channels: delivery into the guest's pages, and what the guest itself may send. */
#include <errno.h>
#include <stdlib.h>

#include "kvm/eventfd.h"
#include "kvm/kvm.h"
#include "kvm/usercopy.h"

/* Offsets of Xen's public interface; the bit arrays are alike in both layouts but for their length. */
#define SHARED_PENDING	   0x800
#define SHARED_MASK	   0xa00 /* of 64 bits */
#define SHARED_MASK_COMPAT 0x880
#define INFO_UPCALL	   0
#define INFO_SEL	   8
#define INFO_SEL_COMPAT	   4
#define CHANNELS	   4096
#define CHANNELS_COMPAT	   1024
#define STATUS_INTERDOMAIN 2 /* EVTCHNSTAT_* */
#define STATUS_IPI	   5
#define PRIORITY	   KVM_IRQ_ROUTING_XEN_EVTCHN_PRIO_2LEVEL

/* What a channel that the guest sends on leads to: a channel of a vCPU, or with 0 an eventfd. Under xen.lock. */
struct xen_port {
	u32 type, channel, vcpu_id;
	struct eventfd event;
};

static bool is_long(const struct vm *vm)
{
	return __atomic_load_n(&vm->xen.long_mode, __ATOMIC_ACQUIRE);
}

static u64 page_get(const u64 *page)
{
	return __atomic_load_n(page, __ATOMIC_ACQUIRE);
}

u32 xen_channels(const struct vm *vm)
{
	return is_long(vm) ? CHANNELS : CHANNELS_COMPAT;
}

static int bit_set(struct vm *vm, gpa_t array, u32 bit, bool *was)
{
	u8 mask = 1u << (bit % 8), old = 0;
	int r = mem_or8(vm->mem, 0, array + bit / 8, mask, &old);

	*was = old & mask;
	return r;
}

static bool bit_get(const struct vm *vm, gpa_t array, u32 bit)
{
	u8 byte = 0;

	return !mem_read(vm->mem, 0, array + bit / 8, &byte, 1) && byte >> (bit % 8) & 1;
}

bool xen_channel_is_pending(const struct vm *vm, u32 channel)
{
	u64 shared = page_get(&vm->xen.shared);

	return shared == XEN_NO_PAGE || bit_get(vm, shared + SHARED_PENDING, channel);
}

/* The word of the channel's bit, in vcpu info. Returns whether the vCPU is to be told; without memory there it tries again. */
static bool sel_set(struct vcpu *v, u32 word)
{
	u64 info = page_get(&v->xen.info);
	gpa_t sel = info + (is_long(v->vm) ? INFO_SEL : INFO_SEL_COMPAT);
	bool was = false, ignored;

	if (bit_set(v->vm, sel, word, &was)) {
		__atomic_fetch_or(&v->xen.sel_due, 1ull << word, __ATOMIC_SEQ_CST);
		return true;
	}
	if (!was)
		(void)bit_set(v->vm, info + INFO_UPCALL, 0, &ignored);
	return !was;
}

void xen_sel_deliver(struct vcpu *v)
{
	u64 due = __atomic_exchange_n(&v->xen.sel_due, 0, __ATOMIC_SEQ_CST);
	struct irq_upcall up = { v->index, v->xen.vector };

	if (page_get(&v->xen.info) == XEN_NO_PAGE)
		return;
	for (u32 word = 0; word < 64; word++)
		if (due >> word & 1)
			(void)sel_set(v, word);
	if (up.vector && v->lapic)
		irqchip_upcall(v->vm->irqchip, &up);
}

/* A masked channel wakes who polls it. */
static void poller_wake(struct vcpu *v, u32 channel)
{
	s64 polled = __atomic_load_n(&v->xen.poll_port, __ATOMIC_ACQUIRE);

	if ((polled == channel || polled == -1) &&
	    __atomic_exchange_n(&v->xen.polling, false, __ATOMIC_SEQ_CST))
		vcpu_kick(v);
}

int xen_event_set(struct vm *vm, u32 vcpu_id, u32 channel, struct irq_upcall *up)
{
	u64 shared = page_get(&vm->xen.shared);
	struct vcpu *v = vm_vcpu_by_apic_id(vm, vcpu_id);
	bool lm = is_long(vm), was;

	up->vector = 0;
	user_prepare();
	if (!v || page_get(&v->xen.info) == XEN_NO_PAGE || channel >= xen_channels(vm) ||
	    shared == XEN_NO_PAGE)
		return -EINVAL;
	if (bit_set(vm, shared + SHARED_PENDING, channel, &was))
		return -EFAULT;
	if (was)
		return 0;
	if (bit_get(vm, shared + (lm ? SHARED_MASK : SHARED_MASK_COMPAT), channel)) {
		poller_wake(v, channel);
		return -ENOTCONN;
	}
	if (!sel_set(v, channel / (lm ? 64 : 32)))
		return 1;
	if (__atomic_load_n(&v->xen.sel_due, __ATOMIC_ACQUIRE))
		xen_attend(v);
	else if (v->xen.vector && v->lapic)
		*up = (struct irq_upcall){ v->index, v->xen.vector };
	else
		vcpu_kick(v);
	return 1;
}

int xen_event_send(struct vm *vm, u32 vcpu_id, u32 channel)
{
	struct irq_upcall up;
	int r = xen_event_set(vm, vcpu_id, channel, &up);

	if (up.vector)
		irqchip_upcall(vm->irqchip, &up);
	return r;
}

/*
 * DIFFERS: a vCPU's own vector is not sent again when the guest enables its APIC with an upcall pending; Linux has its APIC on
 * before it registers the vector.
 */
bool xen_upcall_waits(const struct vcpu *v)
{
	u64 info = page_get(&v->xen.info);
	u8 byte = 0;

	return v->vm->xen.vector && v->lapic && info != XEN_NO_PAGE &&
	       !mem_read(v->vm->mem, 0, info + INFO_UPCALL, &byte, 1) && byte;
}

long xen_evtchn_send(struct call *c)
{
	const struct kvm_irq_routing_xen_evtchn *e = c->data;
	int r;

	if (!e->port || e->port >= xen_channels(c->vm) || e->priority != PRIORITY)
		return -EINVAL;
	r = xen_event_send(c->vm, e->vcpu, e->port);
	return r > 0 || r == -ENOTCONN ? 0 : r;
}

/* What follows: under xen.lock. */

static long port_assign(struct vm *vm, const struct kvm_xen_hvm_attr *a)
{
	u32 number = a->u.evtchn.send_port, channel = a->u.evtchn.deliver.port.port;
	struct xen_port *p;
	long r = 0;

	if (a->u.evtchn.type == STATUS_IPI
		    ? channel != number
		    : a->u.evtchn.type != STATUS_INTERDOMAIN || channel >= xen_channels(vm))
		return -EINVAL;
	p = calloc(1, sizeof(*p));
	if (!p)
		return -ENOMEM;
	*p = (struct xen_port){
		a->u.evtchn.type, channel, a->u.evtchn.deliver.port.vcpu, { .fd = -1 }
	};
	if (!channel)
		r = eventfd_hold(&p->event, a->u.evtchn.deliver.eventfd.fd);
	else if (a->u.evtchn.deliver.port.priority != PRIORITY)
		r = -EINVAL;
	if (!r && !vm->xen.port)
		vm->xen.port = calloc(CHANNELS, sizeof(*vm->xen.port));
	if (!r)
		r = !vm->xen.port ? -ENOMEM : vm->xen.port[number] ? -EEXIST : 0;
	if (!r) {
		vm->xen.port[number] = p;
		return 0;
	}
	eventfd_drop(&p->event);
	free(p);
	return r;
}

static struct xen_port *port_find(const struct vm *vm, u32 number)
{
	return vm->xen.port && number < CHANNELS ? vm->xen.port[number] : NULL;
}

static void port_free(struct vm *vm, u32 number)
{
	eventfd_drop(&vm->xen.port[number]->event);
	free(vm->xen.port[number]);
	vm->xen.port[number] = NULL;
}

/* Only the vCPU may change, and only of what is no eventfd. */
static long port_update(struct vm *vm, const struct kvm_xen_hvm_attr *a)
{
	struct xen_port *p = port_find(vm, a->u.evtchn.send_port);

	if (!p)
		return -ENOENT;
	if (p->type != a->u.evtchn.type || !p->channel ||
	    p->channel != a->u.evtchn.deliver.port.port ||
	    a->u.evtchn.deliver.port.priority != PRIORITY)
		return -EINVAL;
	p->vcpu_id = a->u.evtchn.deliver.port.vcpu;
	return 0;
}

static void ports_reset(struct vm *vm)
{
	for (u32 i = 0; vm->xen.port && i < CHANNELS; i++)
		if (vm->xen.port[i])
			port_free(vm, i);
}

static long port_attr(struct vm *vm, const struct kvm_xen_hvm_attr *a)
{
	u32 number = a->u.evtchn.send_port, flags = a->u.evtchn.flags;

	if (flags == KVM_XEN_EVTCHN_RESET) {
		ports_reset(vm);
		return 0;
	}
	if (!number || number >= xen_channels(vm))
		return -EINVAL;
	if (flags == KVM_XEN_EVTCHN_UPDATE)
		return port_update(vm, a);
	if (!flags)
		return port_assign(vm, a);
	if (flags != KVM_XEN_EVTCHN_DEASSIGN)
		return -EINVAL;
	if (!port_find(vm, number))
		return -ENOENT;
	port_free(vm, number);
	return 0;
}

long xen_port_attr(struct vm *vm, const struct kvm_xen_hvm_attr *a)
{
	long r;

	pthread_mutex_lock(&vm->xen.lock);
	r = port_attr(vm, a);
	pthread_mutex_unlock(&vm->xen.lock);
	return r;
}

bool xen_port_send(struct vcpu *v, u32 number)
{
	struct vm *vm = v->vm;
	struct xen_port *p;
	int r = 0;

	pthread_mutex_lock(&vm->xen.lock);
	p = port_find(vm, number);
	if (p && p->channel)
		r = xen_event_send(vm, p->vcpu_id, p->channel);
	else if (p)
		eventfd_signal(&p->event);
	pthread_mutex_unlock(&vm->xen.lock);
	return p && (r >= 0 || r == -ENOTCONN);
}

void xen_ports_destroy(struct vm *vm)
{
	ports_reset(vm);
	free(vm->xen.port);
}

/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Hyper-V's synthetic interrupt controller and its timers, one set per vCPU. */
#include <errno.h>
#include <string.h>

#include "kvm/kvm.h"

#define MSR_SCONTROL 0x40000080u
#define MSR_SVERSION 0x40000081u
#define MSR_SIEFP    0x40000082u
#define MSR_SIMP     0x40000083u
#define MSR_EOM	     0x40000084u
#define MSR_SINT0    0x40000090u
#define MSR_STIMER0  0x400000b0u

#define PAGE_FIELD     (~0xfffull)
#define CONTROL_ENABLE 1
#define SYNIC_VERSION  1
#define SINT_VECTOR    0xffull
#define SINT_MASKED    BIT_ULL(16)
#define VECTOR_FIRST   16
#define LEAF_FEATURES  0x40000003u
#define FEATURE_DIRECT BIT(19)
#define MSI_ADDRESS    0xfee00000ull
#define MSI_ID_SHIFT   12

/* Configuration of a timer. */
#define TIMER_ENABLE	BIT_ULL(0)
#define TIMER_PERIODIC	BIT_ULL(1)
#define TIMER_AUTO	BIT_ULL(3)
#define TIMER_VECTOR(c) ((c) >> 4 & 0xff)
#define TIMER_DIRECT	BIT_ULL(12)
#define TIMER_SINT(c)	((c) >> 16 & 0xf)

#define MESSAGE_SIZE	256
#define MESSAGE_EXPIRED 0x80000010u
#define MESSAGE_PENDING 1

/* What lies in a slot of the message page. */
struct hv_message {
	u32 type;
	u8 payload_size, flags;
	u16 reserved;
	u64 sender;
	u32 timer, reserved2;
	u64 expired, delivered;
};

/* DIFFERS: automatic EOI of a SINT is not made: its use is deprecated by the CPUID that is offered. */
static int vector_raise(struct vcpu *v, unsigned vector)
{
	if (!v->vm->irqchip || v->id > 0xfe)
		return -EINVAL;
	return irqchip_msi(v->vm->irqchip, MSI_ADDRESS | (u64)v->id << MSI_ID_SHIFT, vector) > 0
		       ? 0
		       : -EFAULT;
}

static int sint_raise(struct vcpu *v, unsigned sint)
{
	u64 s = v->hv.sint[sint];

	return s & SINT_MASKED ? -ENOENT : vector_raise(v, s & SINT_VECTOR);
}

/* 0; -EAGAIN: the slot is taken, and the guest will say when it is free. */
static int message_send(struct vcpu *v, unsigned sint, const struct hv_message *m, bool retry)
{
	gpa_t at = (v->hv.msg_page & PAGE_FIELD) + sint * MESSAGE_SIZE;
	struct mem *mem = v->vm->mem;
	u8 flags = MESSAGE_PENDING;
	u32 type;

	if (!(v->hv.msg_page & HV_ENABLE))
		return -ENOENT;
	if (mem_read(mem, 0, at, &type, sizeof(type)))
		return -EFAULT;
	if (type && !retry)
		return 0;
	if (type)
		return mem_write(mem, 0, at + offsetof(struct hv_message, flags), &flags, 1)
			       ? -EFAULT
			       : -EAGAIN;
	if (mem_write(mem, 0, at, m, sizeof(*m)))
		return -EFAULT;
	return sint_raise(v, sint);
}

static void pending_mark(struct hv_stimer *t)
{
	__atomic_store_n(&t->pending, true, __ATOMIC_RELEASE);
	vcpu_kick(t->vcpu);
}

static void timer_fired(struct timer *t)
{
	pending_mark(container_of(t, struct hv_stimer, timer));
}

static void timer_clean(struct hv_stimer *t)
{
	timer_stop(&t->timer);
	__atomic_store_n(&t->pending, false, __ATOMIC_RELEASE);
	t->undelivered = false;
	t->expires = 0;
}

static void timer_begin(struct hv_stimer *t)
{
	u64 now = hv_time(t->vcpu);

	if (!(t->config & TIMER_PERIODIC)) {
		t->expires = t->count;
		if (now >= t->count) {
			pending_mark(t);
			return;
		}
	} else if (!t->expires) {
		t->expires = now + t->count;
	} else if (now >= t->expires) {
		t->expires = now + t->count - (now - t->expires) % t->count;
	}
	timer_arm(&t->timer, timer_now() + (t->expires - now) * 100);
}

static void timer_expire(struct hv_stimer *t, unsigned index)
{
	struct vcpu *v = t->vcpu;
	int r;

	if (t->config & TIMER_DIRECT) {
		r = vector_raise(v, TIMER_VECTOR(t->config));
	} else {
		struct hv_message m = { .type = MESSAGE_EXPIRED,
					.payload_size = 24,
					.timer = index,
					.expired = t->expires,
					.delivered = hv_time(v) };

		/* Ticks of a periodic timer do not pile up. */
		r = message_send(v, TIMER_SINT(t->config), &m, !(t->config & TIMER_PERIODIC));
	}
	t->undelivered = r != 0;
	if (!r && !(t->config & TIMER_PERIODIC))
		t->config &= ~TIMER_ENABLE;
}

bool hv_timer_waits(const struct vcpu *v)
{
	for (unsigned i = 0; i < HV_STIMERS; i++) {
		if (__atomic_load_n(&v->hv.stimer[i].pending, __ATOMIC_ACQUIRE))
			return true;
	}
	return false;
}

void hv_timers_run(struct vcpu *v)
{
	for (unsigned i = 0; i < HV_STIMERS; i++) {
		struct hv_stimer *t = &v->hv.stimer[i];

		if (!__atomic_exchange_n(&t->pending, false, __ATOMIC_ACQ_REL) ||
		    !(t->config & TIMER_ENABLE))
			continue;
		if (t->expires && hv_time(v) >= t->expires)
			timer_expire(t, i);
		if (!(t->config & TIMER_ENABLE) || !t->count)
			timer_clean(t);
		else if (!t->undelivered)
			timer_begin(t);
	}
}

/* The guest has emptied message slots. */
static void messages_ended(struct vcpu *v)
{
	for (unsigned i = 0; i < HV_STIMERS; i++) {
		if (v->hv.stimer[i].undelivered)
			pending_mark(&v->hv.stimer[i]);
	}
}

static int config_set(struct vcpu *v, struct hv_stimer *t, u64 value, bool host)
{
	u64 old = t->config;

	if (!host && v->hv.enforce && value & TIMER_DIRECT &&
	    !(hv_cpuid(v, LEAF_FEATURES, 3) & FEATURE_DIRECT))
		return 1;
	timer_clean(t);
	if (old & TIMER_ENABLE && !(value & TIMER_DIRECT) && !TIMER_SINT(value))
		value &= ~TIMER_ENABLE;
	t->config = value;
	if (value & TIMER_ENABLE)
		pending_mark(t);
	return 0;
}

static int count_set(struct hv_stimer *t, u64 value, bool host)
{
	timer_clean(t);
	t->count = value;
	if (!host && !value)
		t->config &= ~TIMER_ENABLE;
	else if (!host && t->config & TIMER_AUTO)
		t->config |= TIMER_ENABLE;
	if (t->config & TIMER_ENABLE)
		pending_mark(t);
	return 0;
}

static int timer_write(struct vcpu *v, u32 index, u64 value, bool host)
{
	struct hv_stimer *t = &v->hv.stimer[(index - MSR_STIMER0) / 2];

	if (!v->hv.active)
		return !host || value;
	return (index - MSR_STIMER0) % 2 ? count_set(t, value, host)
					 : config_set(v, t, value, host);
}

/* User space that emulates VMBus follows the registers. */
static void tell(struct vcpu *v, u32 index)
{
	v->hv.exit = (struct kvm_hyperv_exit){ .type = KVM_EXIT_HYPERV_SYNIC };
	v->hv.exit.u.synic.msr = index;
	v->hv.exit.u.synic.control = v->hv.control;
	v->hv.exit.u.synic.evt_page = v->hv.evt_page;
	v->hv.exit.u.synic.msg_page = v->hv.msg_page;
	v->hv.wants |= HV_WANT_EXIT;
	v->cpu->kick = 1;
}

static int page_set(struct vcpu *v, u64 *field, u32 index, u64 value, bool host)
{
	static const u8 zeros[PAGE_SIZE];

	if (value & HV_ENABLE && !host && !v->hv.keep_pages &&
	    mem_write(v->vm->mem, 0, value & PAGE_FIELD, zeros, PAGE_SIZE))
		return 1;
	*field = value;
	if (!host)
		tell(v, index);
	return 0;
}

static int sint_set(struct vcpu *v, unsigned sint, u64 value, bool host)
{
	if ((value & SINT_VECTOR) < VECTOR_FIRST && !host && !(value & SINT_MASKED))
		return 1;
	v->hv.sint[sint] = value;
	return 0;
}

int hv_synic_write(struct vcpu *v, u32 index, u64 value, bool host)
{
	if (index >= MSR_STIMER0)
		return timer_write(v, index, value, host);
	if (!v->hv.active)
		return !host || value;
	switch (index) {
	case MSR_SCONTROL:
		v->hv.control = value;
		if (!host)
			tell(v, index);
		return 0;
	case MSR_SVERSION:
		if (host)
			v->hv.version = value;
		return !host;
	case MSR_SIEFP:
		return page_set(v, &v->hv.evt_page, index, value, host);
	case MSR_SIMP:
		return page_set(v, &v->hv.msg_page, index, value, host);
	case MSR_EOM:
		messages_ended(v);
		return 0;
	default:
		return sint_set(v, index - MSR_SINT0, value, host);
	}
}

int hv_synic_read(struct vcpu *v, u32 index, u64 *value, bool host)
{
	const struct hv_vcpu *hv = &v->hv;

	*value = 0;
	if (index >= MSR_STIMER0) {
		const struct hv_stimer *t = &hv->stimer[(index - MSR_STIMER0) / 2];

		*value = (index - MSR_STIMER0) % 2 ? t->count : t->config;
		return 0;
	}
	if (!hv->active && !host)
		return 1;
	switch (index) {
	case MSR_SCONTROL:
		*value = hv->control;
		return 0;
	case MSR_SVERSION:
		*value = hv->version;
		return 0;
	case MSR_SIEFP:
		*value = hv->evt_page;
		return 0;
	case MSR_SIMP:
		*value = hv->msg_page;
		return 0;
	case MSR_EOM:
		return 0;
	default:
		*value = hv->sint[index - MSR_SINT0];
		return 0;
	}
}

int hv_synic_activate(struct vcpu *v, bool keep_pages)
{
	struct hv_vcpu *hv = &v->hv;

	for (unsigned i = 0; !hv->timers && i < HV_STIMERS; i++) {
		int r = timer_init(&hv->stimer[i].timer, v->vm->timers, timer_fired);

		if (r)
			return r;
		hv->stimer[i].vcpu = v;
	}
	if (!hv->timers) {
		for (unsigned i = 0; i < HV_SINTS; i++)
			hv->sint[i] = SINT_MASKED;
		hv->version = SYNIC_VERSION;
	}
	hv->timers = true;
	hv->active = true;
	hv->keep_pages = keep_pages;
	hv->control = CONTROL_ENABLE;
	return 0;
}

void hv_synic_destroy(struct vcpu *v)
{
	for (unsigned i = 0; v->hv.timers && i < HV_STIMERS; i++)
		timer_cancel(&v->hv.stimer[i].timer);
}

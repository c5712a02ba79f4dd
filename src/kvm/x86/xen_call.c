/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Xen's hypercalls: the few that are answered here, and the exit that asks user space for the others. */
#include <errno.h>
#include <sched.h>

#include "cpu/x86/access.h"
#include "cpu/x86/mode.h"
#include "kvm/kvm.h"

#define FOR_HYPERV BIT_ULL(31) /* of the number: see hypercall_set() in hyperv_msr.c */

/* Numbers of Xen's public interface. */
enum call_number {
	XEN_VERSION = 17,
	SET_TIMER = 15,
	VCPU_OP = 24,
	SCHED_OP = 29,
	EVENT_OP = 32,
};
#define EVENT_SEND	 4
#define SCHED_YIELD	 0
#define SCHED_POLL	 3
#define VCPU_START_TIMER 8
#define VCPU_STOP_TIMER	 9
#define TIMER_IN_FUTURE	 BIT(0)

#define POLL_CHANNELS_MAX 128
#define TIMEOUT_LATE                                                                               \
	(1ull << 50) /* further than what jiffies can say: an overflow of the guest's */
#define TIMEOUT_INSTEAD 100000000ull

struct xen_call {
	u64 number, param[6];
	bool wide;
};

struct sched_poll {
	u64 channels;
	u32 count, pad;
	u64 timeout;
};

struct single_shot {
	u64 expires;
	u32 flags, pad;
};
#define SINGLE_SHOT_32 12 /* bytes: no padding at the end */

/* Memory of the guest by its own page tables, as its kernel sees it. 0 or -EFAULT. */
static int guest_read(struct vcpu *v, u64 at, void *buf, unsigned size)
{
	struct x86_xlate x;

	for (u8 *p = buf; size; at += x.span, p += x.span, size -= x.span) {
		if (!x86_walk_debug(v->cpu, at, &x))
			return -EFAULT;
		x.span = PAGE_SIZE - (at & ~PAGE_MASK);
		if (x.span > size)
			x.span = size;
		if (mem_read(v->vm->mem, v->cpu->space, x.gpa, p, x.span))
			return -EFAULT;
	}
	return 0;
}

static bool version(struct vcpu *v, const struct xen_call *c, u64 *result)
{
	if (c->param[0] || !v->vm->xen.version)
		return false;
	*result = v->vm->xen.version;
	return true;
}

static bool event_op(struct vcpu *v, const struct xen_call *c, u64 *result)
{
	u32 channel;

	if ((u32)c->param[0] != EVENT_SEND)
		return false;
	*result = -(u64)EFAULT;
	if (guest_read(v, c->param[1], &channel, sizeof(channel)))
		return true;
	*result = 0;
	return xen_port_send(v, channel);
}

/* 0: none of them is pending; 1: one is; else -errno for the guest. */
static int channels_look(struct vcpu *v, const struct sched_poll *p, u32 *first)
{
	int found = 0;

	for (u32 i = 0; i < p->count; i++) {
		u32 channel;

		if (guest_read(v, p->channels + i * sizeof(channel), &channel, sizeof(channel)))
			return -EFAULT;
		if (channel >= xen_channels(v->vm))
			return -EINVAL;
		*first = i ? *first : channel;
		found |= xen_channel_is_pending(v->vm, channel);
	}
	return found;
}

/*
 * The answer is given at once, and the vCPU then waits before its next instruction: see xen_serve(). The timeout is taken
 * for a length of time, as KVM takes it.
 */
static void poll(struct vcpu *v, u64 at, u64 *result)
{
	struct sched_poll p;
	u32 first = 0;
	int r;

	*result = -(u64)EFAULT;
	if (guest_read(v, at, &p, sizeof(p)))
		return;
	*result = -(u64)EINVAL;
	if (p.count > POLL_CHANNELS_MAX)
		return;
	r = channels_look(v, &p, &first);
	*result = r < 0 ? (u64)(s64)r : 0;
	if (r)
		return;
	/* An event that comes between the two looks finds that it is waited for. */
	__atomic_store_n(&v->xen.poll_port, p.count == 1 ? (s64)first : -1, __ATOMIC_SEQ_CST);
	__atomic_store_n(&v->xen.polling, true, __ATOMIC_SEQ_CST);
	if (channels_look(v, &p, &first)) {
		__atomic_store_n(&v->xen.polling, false, __ATOMIC_SEQ_CST);
		return;
	}
	v->xen.waits = true;
	v->xen.poll_until = p.timeout ? timer_now() + p.timeout : 0;
	xen_attend(v);
}

static bool sched_op(struct vcpu *v, const struct xen_call *c, u64 *result)
{
	u32 op = (u32)c->param[0];

	if (op != SCHED_POLL && op != SCHED_YIELD)
		return false;
	if (op == SCHED_POLL && c->wide && v->lapic &&
	    v->vm->xen.config.flags & KVM_XEN_HVM_CONFIG_EVTCHN_SEND) {
		poll(v, c->param[1], result);
		return true;
	}
	sched_yield();
	*result = 0;
	return true;
}

static bool vcpu_op(struct vcpu *v, const struct xen_call *c, u64 *result)
{
	u32 op = (u32)c->param[0];
	struct single_shot s;

	if (!v->xen.timer_port || (op != VCPU_START_TIMER && op != VCPU_STOP_TIMER))
		return false;
	*result = 0;
	if (v->xen.id != (u32)c->param[1]) {
		*result = -(u64)EINVAL;
	} else if (op == VCPU_STOP_TIMER) {
		xen_timer_stop(v);
	} else if (guest_read(v, c->param[2], &s, c->wide ? sizeof(s) : SINGLE_SHOT_32)) {
		*result = -(u64)EFAULT;
	} else if (s.flags & TIMER_IN_FUTURE && (s64)(s.expires - xen_now(v->vm)) < 0) {
		*result = -(u64)ETIME;
	} else {
		xen_timer_start(v, s.expires);
	}
	return true;
}

static bool set_timer(struct vcpu *v, const struct xen_call *c, u64 *result)
{
	u64 expires = c->param[0] | (c->wide ? 0 : c->param[1] << 32), now;

	if (!v->xen.timer_port)
		return false;
	*result = 0;
	if (!expires) {
		xen_timer_stop(v);
		return true;
	}
	now = xen_now(v->vm);
	if ((s64)expires < 0 || (s64)(expires - now) >= (s64)TIMEOUT_LATE)
		expires = now + TIMEOUT_INSTEAD;
	xen_timer_start(v, expires);
	return true;
}

/* Whether it is answered here. */
static bool answer(struct vcpu *v, const struct xen_call *c, u64 *result)
{
	switch (c->number) {
	case XEN_VERSION:
		return version(v, c, result);
	case SET_TIMER:
		return set_timer(v, c, result);
	case VCPU_OP:
		return vcpu_op(v, c, result);
	case SCHED_OP:
		return sched_op(v, c, result);
	case EVENT_OP:
		return event_op(v, c, result);
	default:
		return false;
	}
}

static void exit_fill(struct vcpu *v, const struct xen_call *c)
{
	struct kvm_xen_exit *e = &v->run->xen;

	e->type = KVM_EXIT_XEN_HCALL;
	e->u.hcall.longmode = c->wide;
	e->u.hcall.cpl = v->cpu->cpl;
	e->u.hcall.input = c->number;
	e->u.hcall.result = 0;
	for (unsigned i = 0; i < ARRAY_SIZE(c->param); i++)
		e->u.hcall.params[i] = c->param[i];
}

bool vcpu_xen_takes(const struct vcpu *v, u64 nr)
{
	return vm_xen_takes_calls(v->vm) && !(nr & FOR_HYPERV && hv_takes_calls(v));
}

enum x86_status vcpu_xen_hypercall(struct vcpu *v, u64 *result)
{
	static const u8 wide[] = { RDI, RSI, RDX, R10, R8, R9 };
	static const u8 narrow[] = { RBX, RCX, RDX, RSI, RDI, RBP };
	struct x86_cpu *cpu = v->cpu;
	struct xen_call c = { .number = x86_gpr(cpu, RAX), .wide = x86_is_64(cpu) };

	for (unsigned i = 0; i < ARRAY_SIZE(c.param); i++)
		c.param[i] = x86_gpr(cpu, (c.wide ? wide : narrow)[i]);
	/* The few calls that a guest's user space may make are user space's to answer. */
	if (!cpu->cpl && answer(v, &c, result))
		return X86_OK;
	exit_fill(v, &c);
	cpu->exit = (struct x86_exit){ .reason = X86_EXIT_HYPERCALL, .port = KVM_EXIT_XEN };
	return X86_EXIT;
}

/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Xen's timer of a vCPU, its account of how the vCPU spent its time, and what is to be done before entry. */
#include <errno.h>
#include <string.h>
#include <x86intrin.h>

#include "kvm/kvm.h"

#define UPDATE		 BIT_ULL(63) /* of state_entry_time: being written */
#define REFRESH_EVERY_US 100

/* As the guest has it: the same but for the alignment of the first u64. */
struct runstate_times {
	u64 since, time[XEN_RUNSTATES];
};
#define TIMES_AT	8
#define TIMES_AT_COMPAT 4

u64 xen_now(struct vm *vm)
{
	u64 now;

	pthread_mutex_lock(&vm->clock_lock);
	now = pvclock_now(&vm->clock);
	pthread_mutex_unlock(&vm->clock_lock);
	return now;
}

/* Waiting for a CPU is not running: the host's scheduler says how much of it that was. */
void xen_runstate_set(struct vcpu *v, u32 state)
{
	struct xen_vcpu *x = &v->xen;
	u64 now = xen_now(v->vm), delta = now - x->state_since, delay = pv_run_delay(v), stolen;

	if (!x->state_since)
		x->state = XEN_OFFLINE;
	if (x->state == XEN_RUNNING) {
		/* Another thread, another count. */
		stolen = delay > x->last_delay ? delay - x->last_delay : 0;
		if (stolen > delta)
			stolen = delta;
		delta -= stolen;
		x->state_time[XEN_RUNNABLE] += stolen;
	}
	x->last_delay = delay;
	x->state_time[x->state] += delta;
	x->state = state;
	x->state_since = now;
}

static void runstate_write(struct vcpu *v)
{
	gpa_t at = v->xen.runstate + (v->vm->xen.long_mode ? TIMES_AT : TIMES_AT_COMPAT);
	struct runstate_times t = { .since = v->xen.state_since | UPDATE };
	struct mem *mem = v->vm->mem;

	memcpy(t.time, v->xen.state_time, sizeof(t.time));
	if (mem_write(mem, 0, at, &t.since, sizeof(t.since)) ||
	    mem_write(mem, 0, v->xen.runstate, &v->xen.state, sizeof(v->xen.state)))
		return;
	(void)mem_write(mem, 0, at + sizeof(t.since), t.time, sizeof(t.time));
	t.since &= ~UPDATE;
	(void)mem_write(mem, 0, at, &t.since, sizeof(t.since));
}

void xen_runstate_enter(struct vcpu *v)
{
	xen_runstate_set(v, XEN_RUNNING);
	v->xen.last_tsc = __rdtsc();
	if (v->xen.runstate != XEN_NO_PAGE)
		runstate_write(v);
}

void xen_runstate_refresh(struct vcpu *v)
{
	if (__rdtsc() - v->xen.last_tsc > (u64)v->vm->host_tsc_khz * REFRESH_EVERY_US / 1000)
		xen_runstate_enter(v);
}

void xen_attend(struct vcpu *v)
{
	__atomic_store_n(&v->xen.attention, true, __ATOMIC_SEQ_CST);
	vcpu_kick(v);
}

static void timer_due(struct vcpu *v)
{
	__atomic_store_n(&v->xen.timer_due, true, __ATOMIC_SEQ_CST);
	xen_attend(v);
}

static void timer_fired(struct timer *t)
{
	timer_due(container_of(t, struct vcpu, xen.timer));
}

static void poll_ended(struct timer *t)
{
	struct vcpu *v = container_of(t, struct vcpu, xen.poll_timer);

	__atomic_store_n(&v->xen.polling, false, __ATOMIC_SEQ_CST);
	vcpu_kick(v);
}

/* Both, when the first of them is wanted. */
static bool timers_make(struct vcpu *v)
{
	if (!v->xen.timers)
		v->xen.timers = !timer_init(&v->xen.timer, v->vm->timers, timer_fired) &&
				!timer_init(&v->xen.poll_timer, v->vm->timers, poll_ended);
	return v->xen.timers;
}

void xen_timer_stop(struct vcpu *v)
{
	if (v->xen.timers)
		timer_stop(&v->xen.timer);
	__atomic_store_n(&v->xen.timer_due, false, __ATOMIC_SEQ_CST);
	v->xen.timer_expires = 0;
}

static void timer_begin(struct vcpu *v)
{
	s64 delta = (s64)(v->xen.timer_expires - xen_now(v->vm));

	if (delta <= 0 || !timers_make(v))
		timer_due(v);
	else
		timer_arm(&v->xen.timer, timer_now() + (u64)delta);
}

void xen_timer_start(struct vcpu *v, u64 expires)
{
	xen_timer_stop(v);
	v->xen.timer_expires = expires;
	timer_begin(v);
}

static bool timer_counts(const struct vcpu *v)
{
	return v->xen.timer_port && vm_xen_takes_calls(v->vm) &&
	       __atomic_load_n(&v->xen.timer_due, __ATOMIC_ACQUIRE);
}

bool xen_has_event(const struct vcpu *v)
{
	return timer_counts(v) || __atomic_load_n(&v->xen.sel_due, __ATOMIC_ACQUIRE);
}

void xen_run_begin(struct vcpu *v)
{
	xen_runstate_enter(v);
	if (unlikely(xen_has_event(v)))
		__atomic_store_n(&v->xen.attention, true, __ATOMIC_RELEASE);
}

static bool poll_done(struct vcpu *v)
{
	return !__atomic_load_n(&v->xen.polling, __ATOMIC_SEQ_CST) || vcpu_has_wakeup(v);
}

/* The guest is in SCHEDOP_poll, whose answer it has: until an event, or a signal, which ends it too. */
static long poll_wait(struct vcpu *v)
{
	long r;

	if (v->xen.poll_until && timers_make(v))
		timer_arm(&v->xen.poll_timer, v->xen.poll_until);
	r = vcpu_sleep(v, poll_done);
	if (v->xen.timers)
		timer_stop(&v->xen.poll_timer);
	if (r == -ERESTART) { /* KVM_RUN begins again, and so does this */
		__atomic_store_n(&v->xen.attention, true, __ATOMIC_RELEASE);
		return r;
	}
	v->xen.waits = false;
	__atomic_store_n(&v->xen.polling, false, __ATOMIC_SEQ_CST);
	return r;
}

static void due_deliver(struct vcpu *v)
{
	if (__atomic_load_n(&v->xen.sel_due, __ATOMIC_ACQUIRE))
		xen_sel_deliver(v);
	if (!timer_counts(v))
		return;
	__atomic_store_n(&v->xen.timer_due, false, __ATOMIC_SEQ_CST);
	/* It fired for what it was set to before; or the two clocks differ a little. */
	if ((s64)(v->xen.timer_expires - xen_now(v->vm)) > 0) {
		timer_begin(v);
		return;
	}
	(void)xen_event_send(v->vm, v->id, v->xen.timer_port);
	v->xen.timer_expires = 0;
}

long xen_serve(struct vcpu *v)
{
	__atomic_store_n(&v->xen.attention, false, __ATOMIC_SEQ_CST);
	due_deliver(v);
	return v->xen.waits ? poll_wait(v) : 1;
}

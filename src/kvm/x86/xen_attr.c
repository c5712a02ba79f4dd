/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Attributes of Xen's interface: of the VM (KVM_XEN_HVM_*_ATTR) and of a vCPU (KVM_XEN_VCPU_*_ATTR). */
#include <errno.h>

#include "kvm/kvm.h"

#define VECTOR_FIRST	0x10
#define TIME_SIZE	32 /* struct pvclock_vcpu_time_info */
#define RUNSTATE_SIZE	48
#define NSEC_PER_SEC	1000000000ull
#define WALL_AT		0xc00 /* in the shared info */
#define WALL_HIGH_AT	0xc0c
#define WALL_AT_32	0x900
#define WALL_HIGH_AT_32 0x924
#define PRIORITY	KVM_IRQ_ROUTING_XEN_EVTCHN_PRIO_2LEVEL
#define RUNSTATE_AS_IS	(~0ull)

/* 0, -EINVAL (two pages) or -EFAULT (no memory that can be written). */
static long page_check(struct vm *vm, u64 gpa, unsigned size)
{
	u8 ignored;

	if ((gpa & ~PAGE_MASK) + size > PAGE_SIZE)
		return -EINVAL;
	return mem_or8(vm->mem, 0, gpa, 0, &ignored);
}

static long page_set(struct vm *vm, u64 *page, u64 gpa, unsigned size)
{
	long r = gpa == XEN_NO_PAGE ? 0 : page_check(vm, gpa, size);

	if (!r)
		__atomic_store_n(page, gpa, __ATOMIC_RELEASE);
	return r;
}

static void clocks_refresh(struct vm *vm)
{
	for (unsigned i = 0, n = vm_vcpus(vm); i < n; i++) {
		__atomic_store_n(&vm->vcpu[i]->clock_stale, true, __ATOMIC_RELEASE);
		vcpu_kick(vm->vcpu[i]);
	}
}

/* The wall clock is in it, and is written once. */
static long shared_set(struct vm *vm, u64 gfn)
{
	bool lm = vm->xen.long_mode;
	gpa_t gpa = gfn << PAGE_SHIFT;
	u32 high;
	long r;

	if (gfn == XEN_NO_PAGE)
		return page_set(vm, &vm->xen.shared, XEN_NO_PAGE, 0);
	r = page_check(vm, gpa, PAGE_SIZE);
	if (r)
		return r;
	pthread_mutex_lock(&vm->clock_lock);
	high = pvclock_boot(&vm->clock) / NSEC_PER_SEC >> 32;
	r = mem_write(vm->mem, 0, gpa + (lm ? WALL_HIGH_AT : WALL_HIGH_AT_32), &high, sizeof(high));
	if (!r)
		r = pvclock_write_wall(&vm->clock, vm->mem, gpa + (lm ? WALL_AT : WALL_AT_32));
	pthread_mutex_unlock(&vm->clock_lock);
	if (r)
		return r;
	__atomic_store_n(&vm->xen.shared, gpa, __ATOMIC_RELEASE);
	clocks_refresh(vm);
	return 0;
}

static long vector_set(u8 *to, u8 vector)
{
	if (vector && vector < VECTOR_FIRST)
		return -EINVAL;
	__atomic_store_n(to, vector, __ATOMIC_RELEASE);
	return 0;
}

static long vm_set(struct vm *vm, const struct kvm_xen_hvm_attr *a)
{
	switch (a->type) {
	case KVM_XEN_ATTR_TYPE_LONG_MODE:
		__atomic_store_n(&vm->xen.long_mode, !!a->u.long_mode, __ATOMIC_RELEASE);
		return 0;
	case KVM_XEN_ATTR_TYPE_SHARED_INFO:
		return shared_set(vm, a->u.shared_info.gfn);
	case KVM_XEN_ATTR_TYPE_UPCALL_VECTOR:
		return vector_set(&vm->xen.vector, a->u.vector);
	case KVM_XEN_ATTR_TYPE_EVTCHN:
		return xen_port_attr(vm, a);
	case KVM_XEN_ATTR_TYPE_XEN_VERSION:
		vm->xen.version = a->u.xen_version;
		return 0;
	default:
		return -ENOENT;
	}
}

long xen_vm_attr_set(struct call *c)
{
	long r;

	pthread_mutex_lock(&c->vm->lock);
	r = vm_set(c->vm, c->data);
	pthread_mutex_unlock(&c->vm->lock);
	return r;
}

long xen_vm_attr_get(struct call *c)
{
	struct kvm_xen_hvm_attr *a = c->data;
	const struct xen_vm *x = &c->vm->xen;

	switch (a->type) {
	case KVM_XEN_ATTR_TYPE_LONG_MODE:
		a->u.long_mode = x->long_mode;
		return 0;
	case KVM_XEN_ATTR_TYPE_SHARED_INFO:
		a->u.shared_info.gfn =
			x->shared == XEN_NO_PAGE ? XEN_NO_PAGE : x->shared >> PAGE_SHIFT;
		return 0;
	case KVM_XEN_ATTR_TYPE_UPCALL_VECTOR:
		a->u.vector = x->vector;
		return 0;
	case KVM_XEN_ATTR_TYPE_XEN_VERSION:
		a->u.xen_version = x->version;
		return 0;
	default:
		return -ENOENT;
	}
}

static long time_page_set(struct vcpu *v, u64 *page, u64 gpa, unsigned size)
{
	long r = page_set(v->vm, page, gpa, size);

	if (!r && gpa != XEN_NO_PAGE)
		__atomic_store_n(&v->clock_stale, true, __ATOMIC_RELEASE);
	return r;
}

static u64 times_sum(const struct kvm_xen_vcpu_attr *a)
{
	return a->u.runstate.time_running + a->u.runstate.time_runnable +
	       a->u.runstate.time_blocked + a->u.runstate.time_offline;
}

static void times_get(u64 time[XEN_RUNSTATES], const struct kvm_xen_vcpu_attr *a)
{
	time[XEN_RUNNING] = a->u.runstate.time_running;
	time[XEN_RUNNABLE] = a->u.runstate.time_runnable;
	time[XEN_BLOCKED] = a->u.runstate.time_blocked;
	time[XEN_OFFLINE] = a->u.runstate.time_offline;
}

static long runstate_data(struct vcpu *v, const struct kvm_xen_vcpu_attr *a)
{
	struct xen_vcpu *x = &v->xen;

	if (a->u.runstate.state > XEN_OFFLINE || a->u.runstate.state_entry_time != times_sum(a) ||
	    xen_now(v->vm) < a->u.runstate.state_entry_time)
		return -EINVAL;
	x->state = (u32)a->u.runstate.state;
	x->state_since = a->u.runstate.state_entry_time;
	times_get(x->state_time, a);
	x->last_delay = pv_run_delay(v);
	return 0;
}

static long runstate_adjust(struct vcpu *v, const struct kvm_xen_vcpu_attr *a)
{
	struct xen_vcpu *x = &v->xen;
	u64 time[XEN_RUNSTATES], state = a->u.runstate.state;

	if ((state > XEN_OFFLINE && state != RUNSTATE_AS_IS) ||
	    a->u.runstate.state_entry_time != times_sum(a) ||
	    xen_now(v->vm) < x->state_since + a->u.runstate.state_entry_time)
		return -EINVAL;
	times_get(time, a);
	x->state_since += a->u.runstate.state_entry_time;
	for (unsigned i = 0; i < XEN_RUNSTATES; i++)
		x->state_time[i] += time[i];
	if (state <= XEN_OFFLINE)
		xen_runstate_set(v, (u32)state);
	return 0;
}

static long runstate_current(struct vcpu *v, const struct kvm_xen_vcpu_attr *a)
{
	if (a->u.runstate.state > XEN_OFFLINE)
		return -EINVAL;
	xen_runstate_set(v, (u32)a->u.runstate.state);
	return 0;
}

static long vcpu_id_set(struct vcpu *v, u32 id)
{
	if (id >= VM_MAX_VCPUS)
		return -EINVAL;
	v->xen.id = id;
	return 0;
}

static long timer_set(struct vcpu *v, const struct kvm_xen_vcpu_attr *a)
{
	if (a->u.timer.port && a->u.timer.priority != PRIORITY)
		return -EINVAL;
	xen_timer_stop(v);
	v->xen.timer_port = a->u.timer.port;
	if (a->u.timer.port && a->u.timer.expires_ns)
		xen_timer_start(v, a->u.timer.expires_ns);
	return 0;
}

long xen_vcpu_attr_set(struct call *c)
{
	const struct kvm_xen_vcpu_attr *a = c->data;
	struct vcpu *v = c->vcpu;

	switch (a->type) {
	case KVM_XEN_VCPU_ATTR_TYPE_VCPU_INFO:
		return time_page_set(v, &v->xen.info, a->u.gpa, XEN_INFO_SIZE);
	case KVM_XEN_VCPU_ATTR_TYPE_VCPU_TIME_INFO:
		return time_page_set(v, &v->xen.time, a->u.gpa, TIME_SIZE);
	case KVM_XEN_VCPU_ATTR_TYPE_RUNSTATE_ADDR:
		return page_set(v->vm, &v->xen.runstate, a->u.gpa, RUNSTATE_SIZE);
	case KVM_XEN_VCPU_ATTR_TYPE_RUNSTATE_CURRENT:
		return runstate_current(v, a);
	case KVM_XEN_VCPU_ATTR_TYPE_RUNSTATE_DATA:
		return runstate_data(v, a);
	case KVM_XEN_VCPU_ATTR_TYPE_RUNSTATE_ADJUST:
		return runstate_adjust(v, a);
	case KVM_XEN_VCPU_ATTR_TYPE_VCPU_ID:
		return vcpu_id_set(v, a->u.vcpu_id);
	case KVM_XEN_VCPU_ATTR_TYPE_TIMER:
		return timer_set(v, a);
	case KVM_XEN_VCPU_ATTR_TYPE_UPCALL_VECTOR:
		return vector_set(&v->xen.vector, a->u.vector);
	default:
		return -ENOENT;
	}
}

long xen_vcpu_attr_get(struct call *c)
{
	struct kvm_xen_vcpu_attr *a = c->data;
	struct vcpu *v = c->vcpu;
	const struct xen_vcpu *x = &v->xen;

	switch (a->type) {
	case KVM_XEN_VCPU_ATTR_TYPE_VCPU_INFO:
		a->u.gpa = x->info;
		return 0;
	case KVM_XEN_VCPU_ATTR_TYPE_VCPU_TIME_INFO:
		a->u.gpa = x->time;
		return 0;
	case KVM_XEN_VCPU_ATTR_TYPE_RUNSTATE_ADDR:
		a->u.gpa = x->runstate;
		return x->runstate == XEN_NO_PAGE ? -ENOENT : 0;
	case KVM_XEN_VCPU_ATTR_TYPE_RUNSTATE_DATA:
		a->u.runstate.state_entry_time = x->state_since;
		a->u.runstate.time_running = x->state_time[XEN_RUNNING];
		a->u.runstate.time_runnable = x->state_time[XEN_RUNNABLE];
		a->u.runstate.time_blocked = x->state_time[XEN_BLOCKED];
		a->u.runstate.time_offline = x->state_time[XEN_OFFLINE];
		/* fallthrough */
	case KVM_XEN_VCPU_ATTR_TYPE_RUNSTATE_CURRENT:
		a->u.runstate.state = x->state;
		return 0;
	case KVM_XEN_VCPU_ATTR_TYPE_RUNSTATE_ADJUST:
		return -EINVAL;
	case KVM_XEN_VCPU_ATTR_TYPE_VCPU_ID:
		a->u.vcpu_id = x->id;
		return 0;
	case KVM_XEN_VCPU_ATTR_TYPE_TIMER:
		a->u.timer.port = x->timer_port;
		a->u.timer.priority = PRIORITY;
		a->u.timer.expires_ns = x->timer_expires;
		return 0;
	case KVM_XEN_VCPU_ATTR_TYPE_UPCALL_VECTOR:
		a->u.vector = x->vector;
		return 0;
	default:
		return -ENOENT;
	}
}

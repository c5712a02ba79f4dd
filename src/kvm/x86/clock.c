/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* KVM_GET/SET_CLOCK, KVM_KVMCLOCK_CTRL: the paravirtual clock as user space sees it. */
#include <errno.h>
#include <time.h>
#include <x86intrin.h>

#include "kvm/kvm.h"

static u64 realtime_now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	return ts.tv_sec * 1000000000ull + ts.tv_nsec;
}

long clock_get(struct call *c)
{
	struct kvm_clock_data *d = c->data;

	pthread_mutex_lock(&c->vm->clock_lock);
	d->clock = pvclock_now(&c->vm->clock);
	d->realtime = realtime_now();
	d->host_tsc = __rdtsc();
	pthread_mutex_unlock(&c->vm->clock_lock);
	d->flags = KVM_CLOCK_TSC_STABLE | KVM_CLOCK_REALTIME | KVM_CLOCK_HOST_TSC;
	return 0;
}

/* With KVM_CLOCK_REALTIME the time that passed since the value was taken is added, never subtracted. */
long clock_set(struct call *c)
{
	const struct kvm_clock_data *d = c->data;
	struct vm *vm = c->vm;
	u64 ns = d->clock, real;

	/* Flags that KVM_GET_CLOCK gives may come back; only one of them is an order. */
	if (d->flags & ~(u32)KVM_CLOCK_REALTIME)
		return -EINVAL;
	real = realtime_now();
	if (d->flags & KVM_CLOCK_REALTIME && real > d->realtime)
		ns += real - d->realtime;
	pthread_mutex_lock(&vm->clock_lock);
	pvclock_set(&vm->clock, ns);
	/* The reference page is of the old clock until it is written anew. */
	pthread_mutex_unlock(&vm->clock_lock);
	hv_clock_changed(vm);
	for (unsigned i = 0, n = vm_vcpus(vm); i < n; i++) {
		__atomic_store_n(&vm->vcpu[i]->clock_stale, true, __ATOMIC_RELEASE);
		vcpu_kick(vm->vcpu[i]);
	}
	return 0;
}

long clock_guest_paused(struct call *c)
{
	struct vcpu *v = c->vcpu;

	if (!(v->clock.msr & 1))
		return -EINVAL;
	v->guest_paused = true;
	__atomic_store_n(&v->clock_stale, true, __ATOMIC_RELEASE);
	return 0;
}

/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Looking after virtual processors in guest code: immediate_exit and blocked signals end KVM_RUN. */
#include "kvm/kvm.h"

/*
 * The kernel sees a signal the moment it is sent. A program that links the library has handlers of its own,
 * which run in the middle of guest code and can only leave a mark, immediate_exit, for which the VM's timer thread
 * looks while any vCPU is in guest code; so it does for blocked signals with KVM_SET_SIGNAL_MASK. Under the
 * preload library handlers report themselves (calling.h).
 *
 * DIFFERS: in a program that links the library, a signal whose handler does not set immediate_exit does not end
 * KVM_RUN while guest code runs, and one that does is noticed within 10 ms. With the preload library it ends at once, but
 * for a signal without a handler that the thread blocks and KVM_SET_SIGNAL_MASK lets through: 10 ms.
 */
#define TICK_NS 10000000ull

/* Whether some vCPU is in guest code; kicks those that have to come out. */
static bool tick_look(struct vm *vm)
{
	bool any = false;

	for (unsigned i = 0, n = vm_vcpus(vm); i < n; i++) {
		struct vcpu *v = vm->vcpu[i];

		if (!__atomic_load_n(&v->in_guest, __ATOMIC_SEQ_CST))
			continue;
		any = true;
		if (unlikely(__atomic_load_n(&v->cancellable, __ATOMIC_RELAXED))) {
			__atomic_store_n(&v->break_off, true, __ATOMIC_RELEASE);
			engine_kick(v->engine);
		}
		if (v->sigmask_active || __atomic_load_n(&v->run->immediate_exit, __ATOMIC_RELAXED))
			engine_kick(v->engine);
	}
	return any;
}

static void tick_fire(struct timer *t)
{
	struct vm *vm = container_of(t, struct vm, tick);

	if (!tick_look(vm)) {
		__atomic_store_n(&vm->tick_armed, false, __ATOMIC_SEQ_CST);
		/* Who entered meanwhile saw the tick armed. */
		if (!tick_look(vm) || __atomic_exchange_n(&vm->tick_armed, true, __ATOMIC_SEQ_CST))
			return;
	}
	timer_arm(t, timer_now() + TICK_NS);
}

int vm_tick_init(struct vm *vm)
{
	return timer_init(&vm->tick, vm->timers, tick_fire);
}

/* After in_guest was set. */
void vm_tick_start(struct vm *vm)
{
	if (likely(__atomic_load_n(&vm->tick_armed, __ATOMIC_SEQ_CST)))
		return;
	if (!__atomic_exchange_n(&vm->tick_armed, true, __ATOMIC_SEQ_CST))
		timer_arm(&vm->tick, timer_now() + TICK_NS);
}

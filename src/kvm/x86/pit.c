/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* KVM_CREATE_PIT2 and the requests on the interval timer. */
#include <errno.h>
#include <string.h>

#include "kvm/kvm.h"
#include "kvm/usercopy.h"

static long make(struct vm *vm, bool speaker)
{
	long r = 0;

	pthread_mutex_lock(&vm->lock);
	if (vm->pit) {
		r = -EEXIST;
	} else if (!vm->irqchip || vm->split) {
		r = -ENOENT;
	} else {
		struct i8254 *pit = i8254_create(vm->irqchip, vm->timers, speaker);

		__atomic_store_n(&vm->pit, pit, __ATOMIC_RELEASE);
		r = pit ? 0 : -ENOMEM;
	}
	pthread_mutex_unlock(&vm->lock);
	return r;
}

long pit_make(struct call *c)
{
	return make(c->vm, true);
}

long pit_make2(struct call *c)
{
	const struct kvm_pit_config *config = c->data;

	return make(c->vm, config->flags & KVM_PIT_SPEAKER_DUMMY);
}

long pit_get(struct call *c)
{
	struct kvm_pit_state2 s;

	if (!c->vm->pit)
		return -ENXIO;
	i8254_get(c->vm->pit, &s);
	memcpy(c->data, s.channels, sizeof(s.channels));
	return 0;
}

long pit_set(struct call *c)
{
	struct kvm_pit_state2 s = { .flags = 0 };

	if (!c->vm->pit)
		return -ENXIO;
	memcpy(s.channels, c->data, sizeof(s.channels));
	return i8254_set(c->vm->pit, &s);
}

long pit_get2(struct call *c)
{
	if (!c->vm->pit)
		return -ENXIO;
	i8254_get(c->vm->pit, c->data);
	return 0;
}

long pit_set2(struct call *c)
{
	return c->vm->pit ? i8254_set(c->vm->pit, c->data) : -ENXIO;
}

long pit_reinject(struct call *c)
{
	struct kvm_reinject_control r;

	if (user_read(&r, c->arg, sizeof(r)))
		return -EFAULT;
	if (!c->vm->pit)
		return -ENXIO;
	i8254_reinject(c->vm->pit, r.pit_reinject);
	return 0;
}

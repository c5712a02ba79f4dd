/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* KVM_GET/SET_TSC_KHZ. */
#include <errno.h>

#include "kvm/kvm.h"

#define TOLERANCE_PPM 250 /* as the kernel: so much off needs no scaling */

/*
 * DIFFERS: the TSC runs at the host's frequency; a rate outside the tolerance is refused with EINVAL,
 * where the kernel without scaling hardware accepts higher ones and catches up at exits.
 */
static long khz_check(u32 host, unsigned long *khz)
{
	u64 off = (u64)host * TOLERANCE_PPM / 1000000;

	*khz = (u32)*khz;
	if (!*khz)
		*khz = host;
	return *khz + off < host || *khz > host + off ? -EINVAL : 0;
}

long tsc_get(struct call *c)
{
	return c->vcpu->cpu->tsc_khz;
}

long tsc_set(struct call *c)
{
	unsigned long khz = c->arg;
	long r = khz_check(c->vm->host_tsc_khz, &khz);

	if (r)
		return r;
	c->vcpu->cpu->tsc_khz = khz;
	__atomic_store_n(&c->vcpu->clock_stale, true, __ATOMIC_RELEASE);
	return 0;
}

long tsc_vm_get(struct call *c)
{
	return c->vm->tsc_khz;
}

long tsc_vm_set(struct call *c)
{
	unsigned long khz = c->arg;
	long r = khz_check(c->vm->host_tsc_khz, &khz);

	if (!r)
		c->vm->tsc_khz = khz;
	return r;
}

/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* KVM_GET/SET_TSC_KHZ. */
#include <errno.h>

#include "cpu/x86/msr.h"
#include "kvm/kvm.h"

#define TOLERANCE_PPM 250 /* as the kernel: so much off needs no scaling */

#define KHZ_MAX	   0x7fffffffu
#define MSR_TSC	   0x10
#define RATIO_BITS 48

u64 tsc_ratio(const struct vm *vm, u32 khz)
{
	u64 host = vm->host_tsc_khz, off = host * TOLERANCE_PPM / 1000000;

	if (khz + off >= host && khz <= host + off)
		return 0;
	return (u64)(((unsigned __int128)khz << RATIO_BITS) / host);
}

/*
 * Programs that move a guest set the TSC of one vCPU after the other: values that are within a second of what
 * the one before would have by now are meant to be the same, and so is 0. As kvm_synchronize_tsc().
 */
static bool is_in_step(const struct vcpu *v, u64 value)
{
	u64 expected = x86_tsc_read(v->cpu) - v->cpu->tsc_offset + v->vm->tsc_offset;
	u64 second = v->cpu->tsc_khz * 1000ull;

	return v->cpu->tsc_khz == v->vm->tsc_khz &&
	       (!value || value - expected + second < 2 * second);
}

bool tsc_set_by_user(struct vcpu *v, u64 value)
{
	bool same = is_in_step(v, value);

	if (x86_msr_write(v->cpu, MSR_TSC, value, true) != X86_OK)
		return false;
	if (same)
		v->cpu->tsc_offset = v->vm->tsc_offset;
	else
		v->vm->tsc_offset = v->cpu->tsc_offset;
	return true;
}

static bool khz_is_valid(const struct vm *vm, unsigned long *khz)
{
	*khz = (u32)*khz;
	if (!*khz)
		*khz = vm->host_tsc_khz;
	return *khz <= KHZ_MAX;
}

long tsc_get(struct call *c)
{
	return c->vcpu->cpu->tsc_khz;
}

/* The counter goes on from where it is, at the new rate. */
long tsc_set(struct call *c)
{
	struct x86_cpu *cpu = c->vcpu->cpu;
	unsigned long khz = c->arg;
	u64 now = x86_tsc_read(cpu);

	if (!khz_is_valid(c->vm, &khz))
		return -EINVAL;
	cpu->tsc_khz = khz;
	cpu->tsc_ratio = tsc_ratio(c->vm, khz);
	cpu->tsc_offset += now - x86_tsc_read(cpu);
	vcpu_state_changed(c->vcpu);
	__atomic_store_n(&c->vcpu->clock_stale, true, __ATOMIC_RELEASE);
	return 0;
}

long tsc_vm_get(struct call *c)
{
	return c->vm->tsc_khz;
}

/* Of vCPUs to be created. */
long tsc_vm_set(struct call *c)
{
	struct vm *vm = c->vm;
	unsigned long khz = c->arg;

	if (!khz_is_valid(vm, &khz))
		return -EINVAL;
	pthread_mutex_lock(&vm->lock);
	vm->tsc_khz = khz;
	vm->tsc_offset = -x86_tsc_scale(tsc_ratio(vm, khz), vm->tsc_base);
	pthread_mutex_unlock(&vm->lock);
	return 0;
}

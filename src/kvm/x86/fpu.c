/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* KVM_GET/SET_FPU, XSAVE and XCRS. */
#include "cpu/x86/fpu.h"

#include <errno.h>
#include <linux/kvm.h>

#include "cpu/x86/control.h"
#include "cpu/x86/cpuid.h"
#include "kvm/kvm.h"

#define XCR0_X87  BIT_ULL(0)
#define XCR0_SSE  BIT_ULL(1)
#define XCR0_AVX  BIT_ULL(2)
#define XCR0_Z512 (BIT_ULL(5) | BIT_ULL(6) | BIT_ULL(7))

long fpu_get(struct call *c)
{
	x86_fpu_get(c->vcpu->cpu, c->data);
	return 0;
}

long fpu_set(struct call *c)
{
	x86_fpu_set(c->vcpu->cpu, c->data);
	return 0;
}

long xsave_get(struct call *c)
{
	x86_xsave_get(c->vcpu->cpu, c->data, sizeof(struct kvm_xsave));
	return 0;
}

long xsave_set(struct call *c)
{
	return x86_xsave_set(c->vcpu->cpu, c->data, sizeof(struct kvm_xsave));
}

long xcrs_get(struct call *c)
{
	struct kvm_xcrs *x = c->data;

	if (!c->sys->host.xsave)
		return -EINVAL;
	x->nr_xcrs = 1;
	x->xcrs[0].value = c->vcpu->cpu->xcr0;
	return 0;
}

/* The rules of XSETBV; what the guest's CPUID allows counts, without any CPUID only x87. */
static int xcr0_set(struct vcpu *v, u64 value)
{
	if (!(value & XCR0_X87) || (value & XCR0_AVX && !(value & XCR0_SSE)))
		return -EINVAL;
	if (value & XCR0_Z512 && ((value & XCR0_Z512) != XCR0_Z512 || !(value & XCR0_AVX)))
		return -EINVAL;
	if (value & ~(x86_xcr0_allowed(v->cpu) | XCR0_X87))
		return -EINVAL;
	v->cpu->xcr0 = value;
	vcpu_state_changed(v);
	return 0;
}

long xcrs_set(struct call *c)
{
	const struct kvm_xcrs *x = c->data;

	if (!c->sys->host.xsave || x->nr_xcrs > KVM_MAX_XCRS || x->flags)
		return -EINVAL;
	for (unsigned i = 0; i < x->nr_xcrs; i++) {
		if (x->xcrs[i].xcr == 0)
			return xcr0_set(c->vcpu, x->xcrs[i].value);
	}
	return 0;
}

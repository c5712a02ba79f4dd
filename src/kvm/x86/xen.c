/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Xen's interface for guests that know it: the hypercall page, and hypercalls as exits (KVM_XEN_HVM_CONFIG). */
#include <errno.h>
#include <string.h>

#include "cpu/x86/mode.h"
#include "kvm/kvm.h"
#include "kvm/usercopy.h"

#define PAGE_FIELD   (~0xfffull)
#define STUB_SIZE    32
#define FOR_HYPERV   BIT_ULL(31) /* of the number: see hypercall_set() in hyperv_msr.c */
#define CONFIG_FLAGS ((u32)KVM_XEN_HVM_CONFIG_INTERCEPT_HCALL)

bool vm_xen_takes_calls(const struct vm *vm)
{
	return vm->xen.flags & KVM_XEN_HVM_CONFIG_INTERCEPT_HCALL;
}

long xen_config(struct call *c)
{
	const struct kvm_xen_hvm_config *x = c->data;

	if (x->flags & ~CONFIG_FLAGS)
		return -EINVAL;
	/* With exits the page is ours. */
	if (x->flags & KVM_XEN_HVM_CONFIG_INTERCEPT_HCALL &&
	    (x->blob_addr_32 || x->blob_addr_64 || x->blob_size_32 || x->blob_size_64))
		return -EINVAL;
	pthread_mutex_lock(&c->vm->lock);
	c->vm->xen = *x;
	pthread_mutex_unlock(&c->vm->lock);
	return 0;
}

/* 128 stubs: mov $number, %eax; the hypercall; ret; INT3 to the end. */
static int stubs_write(struct vcpu *v, gpa_t at)
{
	for (u32 nr = 0; nr < PAGE_SIZE / STUB_SIZE; nr++, at += STUB_SIZE) {
		u8 stub[STUB_SIZE] = { 0xb8, (u8)nr, 0, 0, 0, 0x0f, 0x01, v->cpu->hypercall_modrm,
				       0xc3 };

		memset(stub + 9, 0xcc, STUB_SIZE - 9);
		if (mem_write(v->vm->mem, 0, at, stub, STUB_SIZE))
			return 1;
	}
	return 0;
}

bool vcpu_xen_msr_is(const struct vcpu *v, u32 index)
{
	return v->vm->xen.msr && v->vm->xen.msr == index;
}

int vcpu_xen_page_write(struct vcpu *v, u64 value)
{
	const struct kvm_xen_hvm_config *x = &v->vm->xen;
	bool lm = v->cpu->efer & EFER_LMA;
	u64 blob = lm ? x->blob_addr_64 : x->blob_addr_32, page = value & ~PAGE_FIELD;
	u8 data[PAGE_SIZE];

	if (vm_xen_takes_calls(v->vm))
		return page ? 1 : stubs_write(v, value & PAGE_FIELD);
	if (page >= (lm ? x->blob_size_64 : x->blob_size_32) ||
	    user_read(data, blob + page * PAGE_SIZE, PAGE_SIZE))
		return 1;
	return mem_write(v->vm->mem, 0, value & PAGE_FIELD, data, PAGE_SIZE) ? 1 : 0;
}

bool vcpu_xen_takes(const struct vcpu *v, u64 nr)
{
	return vm_xen_takes_calls(v->vm) && !(nr & FOR_HYPERV && hv_takes_calls(v));
}

enum x86_status vcpu_xen_hypercall(struct vcpu *v)
{
	static const u8 wide[] = { RDI, RSI, RDX, R10, R8, R9 };
	static const u8 narrow[] = { RBX, RCX, RDX, RSI, RDI, RBP };
	struct x86_cpu *cpu = v->cpu;
	const u8 *params = x86_is_64(cpu) ? wide : narrow;
	struct kvm_xen_exit *e = &v->run->xen;

	e->type = KVM_EXIT_XEN_HCALL;
	e->u.hcall.longmode = x86_is_64(cpu);
	e->u.hcall.cpl = cpu->cpl;
	e->u.hcall.input = x86_gpr(cpu, RAX);
	e->u.hcall.result = 0;
	for (unsigned i = 0; i < ARRAY_SIZE(wide); i++)
		e->u.hcall.params[i] = x86_gpr(cpu, params[i]);
	cpu->exit = (struct x86_exit){ .reason = X86_EXIT_HYPERCALL, .port = KVM_EXIT_XEN };
	return X86_EXIT;
}

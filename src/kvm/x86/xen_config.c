/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Xen's interface for guests that know it: its configuration and the hypercall page (KVM_XEN_HVM_CONFIG). */
#include <errno.h>
#include <string.h>

#include "cpu/x86/mode.h"
#include "kvm/kvm.h"
#include "kvm/usercopy.h"

#define PAGE_FIELD   (~0xfffull)
#define STUB_SIZE    32
#define CONFIG_FLAGS ((u32)(KVM_XEN_HVM_CONFIG_INTERCEPT_HCALL | KVM_XEN_HVM_CONFIG_EVTCHN_SEND))

void xen_vm_init(struct vm *vm)
{
	vm->xen.shared = XEN_NO_PAGE;
	pthread_mutex_init(&vm->xen.lock, NULL);
}

void xen_vm_destroy(struct vm *vm)
{
	xen_ports_destroy(vm);
	pthread_mutex_destroy(&vm->xen.lock);
}

void xen_vcpu_init(struct vcpu *v)
{
	v->xen.info = v->xen.time = v->xen.runstate = XEN_NO_PAGE;
	v->xen.id = v->index;
}

void xen_vcpu_destroy(struct vcpu *v)
{
	if (!v->xen.timers)
		return;
	timer_cancel(&v->xen.timer);
	timer_cancel(&v->xen.poll_timer);
}

bool vm_xen_takes_calls(const struct vm *vm)
{
	return vm->xen.config.flags & KVM_XEN_HVM_CONFIG_INTERCEPT_HCALL;
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
	c->vm->xen.config = *x;
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
	return v->vm->xen.config.msr && v->vm->xen.config.msr == index;
}

int vcpu_xen_page_write(struct vcpu *v, u64 value)
{
	const struct kvm_xen_hvm_config *x = &v->vm->xen.config;
	bool lm = v->cpu->efer & EFER_LMA;
	u64 blob = lm ? x->blob_addr_64 : x->blob_addr_32, page = value & ~PAGE_FIELD;
	u8 data[PAGE_SIZE];

	/* A guest says by this in which layout it shares its pages. */
	__atomic_store_n(&v->vm->xen.long_mode, lm, __ATOMIC_RELEASE);
	if (vm_xen_takes_calls(v->vm))
		return page ? 1 : stubs_write(v, value & PAGE_FIELD);
	if (page >= (lm ? x->blob_size_64 : x->blob_size_32) ||
	    user_read(data, blob + page * PAGE_SIZE, PAGE_SIZE))
		return 1;
	return mem_write(v->vm->mem, 0, value & PAGE_FIELD, data, PAGE_SIZE) ? 1 : 0;
}

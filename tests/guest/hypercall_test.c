/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Hypercalls of KVM, Xen and Hyper-V in every mode, with upper halves of registers that must not count. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "vm.h"

#define POISON		0xdead0000beef0000ull
#define ENOSYS_KVM	1000
#define EPERM_KVM	1
#define VAPIC_POLL_IRQ	1 /* does nothing, and answers 0 */
#define HV_GUEST_OS_ID	0x40000000
#define HV_POST_MESSAGE 0x5c
#define HV_FAST		0x10000

GUEST(calls, 16, ".byte 0x0f, 0x01, 0xd9, 0x0f, 0x01, 0xd9; hlt");

static bool is_wide(const struct vm *vm)
{
	return vm->mode == VM_LONG;
}

/* What the hypervisor is to see of a register. */
static uint64_t seen(const struct vm *vm, uint64_t v)
{
	return is_wide(vm) ? v : (uint32_t)v;
}

/* All registers but RSP: different, and poisoned above bit 31. */
static struct kvm_regs poisoned(struct vm *vm)
{
	struct kvm_regs r = vm_regs(vm);

	r.rax = POISON << 16 | 0xa;
	r.rbx = POISON << 16 | 0xb;
	r.rcx = POISON << 16 | 0xc;
	r.rdx = POISON << 16 | 0xd;
	r.rsi = POISON << 16 | 0x51;
	r.rdi = POISON << 16 | 0xd1;
	r.rbp = POISON << 16 | 0xb9;
	r.r8 = POISON << 16 | 0x8;
	r.r9 = POISON << 16 | 0x9;
	r.r10 = POISON << 16 | 0x10;
	return r;
}

static void xen_expect(struct vm *vm, const struct kvm_regs *r, uint64_t number)
{
	const uint64_t wide[6] = { r->rdi, r->rsi, r->rdx, r->r10, r->r8, r->r9 };
	const uint64_t narrow[6] = { r->rbx, r->rcx, r->rdx, r->rsi, r->rdi, r->rbp };

	CHECK_EXIT(vm, KVM_EXIT_XEN);
	CHECK_EQ(vm->run->xen.type, KVM_EXIT_XEN_HCALL);
	CHECK_EQ(vm->run->xen.u.hcall.longmode, is_wide(vm));
	CHECK_EQ(vm->run->xen.u.hcall.cpl, vm->mode == VM_V86 ? 3 : 0);
	CHECK_EQ(vm->run->xen.u.hcall.input, seen(vm, number));
	for (unsigned i = 0; i < 6; i++)
		CHECK_EQ(vm->run->xen.u.hcall.params[i],
			 seen(vm, (is_wide(vm) ? wide : narrow)[i]));
}

static void xen_in(struct vm *vm, enum vm_mode mode)
{
	struct kvm_regs r;

	VM_START(vm, mode, mode == VM_V86 ? 3 : 0, calls);
	r = poisoned(vm);
	vm_set_regs(vm, &r);
	xen_expect(vm, &r, r.rax);
	/* The result is the number of the next. */
	vm->run->xen.u.hcall.result = 0x1234567800000077ull;
	xen_expect(vm, &r, 0x1234567800000077ull);
}

static void xen(void)
{
	struct kvm_xen_hvm_config x = { .flags = KVM_XEN_HVM_CONFIG_INTERCEPT_HCALL };
	struct vm vm;

	for (enum vm_mode mode = 0; mode < VM_MODES; mode++) {
		vm_make(&vm, 0);
		CHECK_EQ(vm_ioctl(&vm, vm.fd, KVM_XEN_HVM_CONFIG, (unsigned long)&x), 0);
		xen_in(&vm, mode);
		vm_destroy(&vm);
	}
}

/* One call with @rax; RAX afterwards. */
static uint64_t kvm_call(struct vm *vm, enum vm_mode mode, uint64_t rax)
{
	struct kvm_regs r;

	VM_START(vm, mode, mode == VM_V86 ? 3 : 0, calls);
	vm_poke(vm, VM_CODE + 3, 0xf4, 1);
	r = poisoned(vm);
	r.rax = rax;
	vm_set_regs(vm, &r);
	if (mode == VM_V86) { /* HLT is not its to execute */
		vm_fault(vm, 13, VM_HERE);
		return vm_regs(vm).rax;
	}
	CHECK_EXIT(vm, KVM_EXIT_HLT);
	return vm_regs(vm).rax;
}

static void kvm(void)
{
	struct vm vm;

	vm_make(&vm, 0);
	for (enum vm_mode mode = 0; mode < VM_MODES; mode++) {
		int64_t poisoned_answer = mode == VM_V86 ? -EPERM_KVM : 0;
		int64_t unknown_answer = mode == VM_V86 ? -EPERM_KVM : -ENOSYS_KVM;

		vm.mode = mode;
		if (is_wide(&vm)) /* another number, then */
			poisoned_answer = -ENOSYS_KVM;
		CHECK_EQ(kvm_call(&vm, mode, VAPIC_POLL_IRQ),
			 seen(&vm, mode == VM_V86 ? -EPERM_KVM : 0));
		CHECK_EQ(kvm_call(&vm, mode, POISON << 16 | VAPIC_POLL_IRQ),
			 seen(&vm, poisoned_answer));
		CHECK_EQ(kvm_call(&vm, mode, POISON << 16 | 0xfff), seen(&vm, unknown_answer));
	}
	vm_destroy(&vm);
}

/* The guest's CPUID with Hyper-V's leaves instead of KVM's. */
static void hyperv_show(struct vm *vm)
{
	struct kvm_cpuid2 *c = calloc(1, sizeof(*c) + 256 * sizeof(c->entries[0]));
	struct kvm_cpuid2 *h = calloc(1, sizeof(*h) + 32 * sizeof(h->entries[0]));
	unsigned n = 0;

	c->nent = 200;
	h->nent = 32;
	CHECK_EQ(vm_ioctl(vm, vm->sys, KVM_GET_SUPPORTED_CPUID, (unsigned long)c), 0);
	CHECK_EQ(vm_ioctl(vm, vm->sys, KVM_GET_SUPPORTED_HV_CPUID, (unsigned long)h), 0);
	for (unsigned i = 0; i < c->nent; i++)
		if (c->entries[i].function >> 16 != 0x4000)
			c->entries[n++] = c->entries[i];
	memcpy(c->entries + n, h->entries, h->nent * sizeof(h->entries[0]));
	c->nent = n + h->nent;
	CHECK_EQ(vm_ioctl(vm, vm->vcpu, KVM_SET_CPUID2, (unsigned long)c), 0);
	free(c);
	free(h);
}

static void hyperv_in(struct vm *vm, enum vm_mode mode)
{
	const uint64_t in = 0x1122334400001000ull, out = 0x5566778800002000ull;
	struct kvm_regs r;

	VM_START(vm, mode, 0, calls);
	vm_msr(vm, HV_GUEST_OS_ID, 1);
	r = poisoned(vm);
	if (is_wide(vm)) {
		r.rcx = HV_POST_MESSAGE | HV_FAST;
		r.rdx = in;
		r.r8 = out;
	} else {
		r.rdx = POISON << 16;
		r.rax = POISON << 16 | HV_POST_MESSAGE | HV_FAST;
		r.rbx = POISON << 16 | in >> 32;
		r.rcx = POISON << 16 | (uint32_t)in;
		r.rdi = POISON << 16 | out >> 32;
		r.rsi = POISON << 16 | (uint32_t)out;
	}
	vm_set_regs(vm, &r);
	CHECK_EXIT(vm, KVM_EXIT_HYPERV);
	CHECK_EQ(vm->run->hyperv.type, KVM_EXIT_HYPERV_HCALL);
	CHECK_EQ(vm->run->hyperv.u.hcall.input, HV_POST_MESSAGE | HV_FAST);
	CHECK_EQ(vm->run->hyperv.u.hcall.params[0], in);
	CHECK_EQ(vm->run->hyperv.u.hcall.params[1], out);
	vm->run->hyperv.u.hcall.result = 0x3300000044ull;
	vm_poke(vm, VM_CODE + 3, 0x80e6, 2); /* out %al, $0x80: HLT would wait in the kernel */
	CHECK_EXIT(vm, KVM_EXIT_IO);
	/* EDX:EAX outside 64-bit mode, upper halves zero. */
	CHECK_EQ(vm_regs(vm).rax, seen(vm, 0x3300000044ull));
	if (!is_wide(vm))
		CHECK_EQ(vm_regs(vm).rdx, 0x33);
}

static void hyperv(void)
{
	struct kvm_enable_cap synic = { .cap = KVM_CAP_HYPERV_SYNIC2 };
	struct vm vm;

	for (enum vm_mode mode = VM_PM16; mode < VM_V86; mode++) {
		vm_make(&vm, VM_IRQCHIP);
		hyperv_show(&vm);
		CHECK_EQ(vm_ioctl(&vm, vm.vcpu, KVM_ENABLE_CAP, (unsigned long)&synic), 0);
		hyperv_in(&vm, mode);
		vm_destroy(&vm);
	}
}

/* Neither in real nor in v8086 mode: #UD. */
static void hyperv_nowhere(void)
{
	struct vm vm;

	vm_make(&vm, VM_IRQCHIP);
	hyperv_show(&vm);
	VM_START(&vm, VM_V86, 3, calls);
	vm_msr(&vm, HV_GUEST_OS_ID, 1);
	VM_FAULT(&vm, 6);
	VM_START(&vm, VM_PM32, 3, calls);
	VM_FAULT(&vm, 6);
	vm_destroy(&vm);
}

VM_TESTS({ .name = "Xen's, in every mode", .run = xen },
	 { .name = "KVM's, in every mode", .run = kvm },
	 { .name = "Hyper-V's, in every protected mode of the kernel's", .run = hyperv },
	 { .name = "Hyper-V's, where there are none", .run = hyperv_nowhere });

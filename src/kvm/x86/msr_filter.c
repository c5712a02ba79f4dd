/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* MSR accesses that user space forbids, and those that it wants to answer. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cpu/x86/mode.h"
#include "cpu/x86/raise.h"
#include "kvm/kvm.h"
#include "kvm/usercopy.h"

#define X2APIC_FIRST 0x800
#define X2APIC_LAST  0x8ff

struct msr_range {
	u32 flags, base, count;
	u8 *bitmap; /* a set bit allows */
};

struct msr_filter {
	bool allow; /* what no range names */
	unsigned n;
	struct msr_range range[KVM_MSR_FILTER_MAX_RANGES];
};

void msr_filter_free(struct msr_filter *f)
{
	if (!f)
		return;
	for (unsigned i = 0; i < f->n; i++)
		free(f->range[i].bitmap);
	free(f);
}

static long range_add(struct msr_filter *f, const struct kvm_msr_filter_range *r)
{
	struct msr_range *to = &f->range[f->n];
	size_t bytes;

	if (!r->nmsrs)
		return 0;
	if (!r->flags || r->flags & ~(u32)(KVM_MSR_FILTER_READ | KVM_MSR_FILTER_WRITE))
		return -EINVAL;
	bytes = ((u64)r->nmsrs + 63) / 64 * 8;
	if (bytes > KVM_MSR_FILTER_MAX_BITMAP_SIZE)
		return -EINVAL;
	*to = (struct msr_range){ r->flags, r->base, r->nmsrs, malloc(bytes) };
	if (!to->bitmap)
		return -ENOMEM;
	f->n++;
	return user_read(to->bitmap, (hva_t)r->bitmap, bytes);
}

static bool is_empty(const struct kvm_msr_filter *u)
{
	for (unsigned i = 0; i < ARRAY_SIZE(u->ranges); i++) {
		if (u->ranges[i].nmsrs)
			return false;
	}
	return true;
}

void vm_msr_exits_changed(struct vm *vm)
{
	for (unsigned i = 0, n = vm_vcpus(vm); i < n; i++)
		vcpu_choices(vm->vcpu[i]);
}

long msr_filter_set(struct call *c)
{
	const struct kvm_msr_filter *u = c->data;
	struct msr_filter *f, *old;
	struct vm *vm = c->vm;
	long r = 0;

	if (u->flags & ~(u32)KVM_MSR_FILTER_DEFAULT_DENY)
		return -EINVAL;
	if (u->flags & KVM_MSR_FILTER_DEFAULT_DENY && is_empty(u))
		return -EINVAL;
	f = calloc(1, sizeof(*f));
	if (!f)
		return -ENOMEM;
	f->allow = !(u->flags & KVM_MSR_FILTER_DEFAULT_DENY);
	for (unsigned i = 0; !r && i < ARRAY_SIZE(u->ranges); i++)
		r = range_add(f, &u->ranges[i]);
	if (r) {
		msr_filter_free(f);
		return r;
	}
	pthread_mutex_lock(&vm->lock);
	pthread_rwlock_wrlock(&vm->msr_lock);
	old = vm->msr_filter;
	vm->msr_filter = f;
	pthread_rwlock_unlock(&vm->msr_lock);
	vm_msr_exits_changed(vm);
	pthread_mutex_unlock(&vm->lock);
	msr_filter_free(old);
	return 0;
}

static bool filter_allows(const struct msr_filter *f, u32 index, u32 kind)
{
	for (unsigned i = 0; i < f->n; i++) {
		const struct msr_range *r = &f->range[i];
		u32 at = index - r->base;

		if (index >= r->base && at < r->count && r->flags & kind)
			return r->bitmap[at / 8] >> (at % 8) & 1;
	}
	return f->allow;
}

bool vcpu_msr_allowed(void *owner, u32 index, bool is_write)
{
	struct vm *vm = ((struct vcpu *)owner)->vm;
	bool allowed = true;

	if (index >= X2APIC_FIRST && index <= X2APIC_LAST)
		return true;
	pthread_rwlock_rdlock(&vm->msr_lock);
	if (vm->msr_filter)
		allowed = filter_allows(vm->msr_filter, index,
					is_write ? KVM_MSR_FILTER_WRITE : KVM_MSR_FILTER_READ);
	pthread_rwlock_unlock(&vm->msr_lock);
	return allowed;
}

bool vcpu_msr_ask(void *owner, u32 index, u64 value, bool is_write, enum x86_msr_why why)
{
	static const u32 reasons[] = {
		[X86_MSR_FILTERED] = KVM_MSR_EXIT_REASON_FILTER,
		[X86_MSR_UNKNOWN] = KVM_MSR_EXIT_REASON_UNKNOWN,
		[X86_MSR_INVALID] = KVM_MSR_EXIT_REASON_INVAL,
	};
	struct vcpu *v = owner;
	struct kvm_run *run = v->run;

	if (!(__atomic_load_n(&v->vm->msr_exit_mask, __ATOMIC_RELAXED) & reasons[why]))
		return false;
	v->cpu->exit = (struct x86_exit){ .reason = is_write ? X86_EXIT_WRMSR : X86_EXIT_RDMSR };
	run->msr.error = 0;
	memset(run->msr.pad, 0, sizeof(run->msr.pad));
	run->msr.reason = reasons[why];
	run->msr.index = index;
	run->msr.data = value;
	return true;
}

void vcpu_msr_complete(struct vcpu *v)
{
	struct x86_cpu *cpu = v->cpu;
	u64 data = v->run->msr.data;

	if (v->run->msr.error) {
		x86_raise_gp(cpu, 0);
		vcpu_queue_exception(v);
		return;
	}
	if (cpu->exit.reason == X86_EXIT_RDMSR)
		x86_edx_eax_set(cpu, data);
	vcpu_skip_instruction(v);
}

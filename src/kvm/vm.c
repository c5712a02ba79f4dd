/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Virtual machine: creation, destruction, memory regions and settings. */
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>
#include <x86intrin.h>

#include "kvm/file.h"
#include "kvm/kvm.h"
#include "mem/dirty.h"

#define MIN_MMU_PAGES	    64
#define TSS_ADDR_MAX	    (-3u * 4096u)
#define TSC_CALIBRATE_USECS 10000

static void vm_flush_all(void *owner)
{
	struct vm *vm = owner;

	__atomic_add_fetch(&vm->stats.remote_tlb_flush, 1, __ATOMIC_RELAXED);
	vm_stats_show(vm);
	engine_flush_all(vm->engine);
}

static void vm_drop_writes(void *owner, bool granted_only)
{
	struct vm *vm = owner;

	engine_drop_writes(vm->engine, granted_only);
}

static const struct mem_ops vm_mem_ops = { .flush_all = vm_flush_all,
					   .drop_writes = vm_drop_writes };

/* Frequency of the host's TSC where the host does not tell it. */
static u32 tsc_measure(void)
{
	static u32 khz;
	u64 t0, c0;

	if (!khz) {
		t0 = timer_now();
		c0 = __rdtsc();
		usleep(TSC_CALIBRATE_USECS);
		khz = (__rdtsc() - c0) * 1000000 / (timer_now() - t0);
	}
	return khz;
}

static void vm_destroy(struct vm *vm)
{
	/* The timer thread looks at vCPUs: it goes first, what arms timers after it. */
	if (vm->timers)
		timer_cancel(&vm->tick);
	if (vm->pit)
		i8254_destroy(vm->pit);
	if (vm->irqfds.poller)
		irqfds_destroy(&vm->irqfds);
	for (unsigned i = vm->nvcpus; i--;)
		vcpu_destroy(vm->vcpu[i]);
	iobuses_destroy(&vm->iobuses);
	if (vm->irqchip)
		irqchip_destroy(vm->irqchip);
	if (vm->timers)
		timers_destroy(vm->timers);
	if (vm->engine)
		engine_destroy(vm->engine);
	if (vm->mem)
		mem_destroy(vm->mem);
	hv_vm_destroy(vm);
	xen_vm_destroy(vm);
	stats_close(&vm->stats_file);
	msr_filter_free(vm->msr_filter);
	pthread_rwlock_destroy(&vm->msr_lock);
	pthread_mutex_destroy(&vm->clock_lock);
	pthread_mutex_destroy(&vm->lock);
	free(vm);
}

struct vm *vm_create(const struct system *sys, int *err)
{
	struct vm *vm = calloc(1, sizeof(*vm));

	*err = -ENOMEM;
	if (!vm)
		return NULL;
	vm->refs = 1;
	vm->sys = sys;
	vm->halt_poll_ns = sys->halt_poll_ns;
	pthread_rwlock_init(&vm->msr_lock, NULL);
	pthread_mutex_init(&vm->clock_lock, NULL);
	pthread_mutex_init(&vm->lock, NULL);
	xen_vm_init(vm);
	vm->mem = mem_create(&vm_mem_ops, vm);
	if (vm->mem)
		mem_dirty_collector(vm->mem, sys->collector);
	vm->timers = vm->mem ? timers_create() : NULL;
	if (vm->timers && !irqfds_init(&vm->irqfds) && !iobuses_init(&vm->iobuses) &&
	    !vm_tick_init(vm)) {
		errno = ENOMEM;
		vm->engine = engine_create(vm->mem, &sys->engine);
		*err = -errno;
	}
	if (!vm->engine) {
		vm_destroy(vm);
		return NULL;
	}
	vm->host_tsc_khz = x86_host_tsc_khz(&sys->host);
	if (!vm->host_tsc_khz)
		vm->host_tsc_khz = tsc_measure();
	vm->tsc_khz = vm->host_tsc_khz;
	vm->tsc_base = __rdtsc();
	vm->tsc_offset = -vm->tsc_base;
	pvclock_set(&vm->clock, 0);
	*err = 0;
	return vm;
}

void vm_put(void *object)
{
	struct vm *vm = object;

	if (!__atomic_sub_fetch(&vm->refs, 1, __ATOMIC_ACQ_REL))
		vm_destroy(vm);
}

void vm_counters(struct vm *vm, counter_fn fn, void *arg)
{
	engine_counters(vm->engine, NULL, fn, arg);
	dirty_counters(vm, fn, arg);
}

/* vCPUs may live on; interrupts from outside end with the VM's own descriptor, as in KVM. */
void vm_release(void *object)
{
	struct vm *vm = object;

	irqfds_release(&vm->irqfds);
	vm_put(vm);
}

struct vcpu *vm_vcpu_by_apic_id(struct vm *vm, u32 apic_id)
{
	for (unsigned i = 0, n = vm_vcpus(vm); i < n; i++) {
		if (vm->vcpu[i]->id == apic_id)
			return vm->vcpu[i];
	}
	return NULL;
}

long vm_check_extension(struct call *c)
{
	return caps_check(c->sys, c->vm, c->arg);
}

/* The checks in the kernel's order; the lock is held from the first that looks at the VM. */
static long create_vcpu(struct vm *vm, u32 id)
{
	struct vcpu *v;
	int fd, r;

	if (vm->nvcpus >= VM_MAX_VCPUS)
		return -EINVAL;
	if (vm->max_vcpu_ids && id >= vm->max_vcpu_ids)
		return -EINVAL;
	if (vm_vcpu_by_apic_id(vm, id))
		return -EEXIST;
	r = vcpu_create(vm, id, &v, &fd);
	if (r)
		return r;
	__atomic_add_fetch(&vm->refs, 1, __ATOMIC_RELAXED);
	r = file_add(fd, FILE_VCPU, v, vcpu_release);
	if (r) {
		__atomic_sub_fetch(&vm->refs, 1, __ATOMIC_RELAXED);
		vcpu_destroy(v);
		close(fd);
		return r;
	}
	/* Published last: the timer thread looks at every vCPU that is in the list. */
	vm->vcpu[vm->nvcpus] = v;
	__atomic_store_n(&vm->nvcpus, vm->nvcpus + 1, __ATOMIC_RELEASE);
	return fd;
}

long vm_create_vcpu(struct call *c)
{
	long r;

	if (c->arg >= VM_MAX_VCPU_IDS)
		return -EINVAL;
	pthread_mutex_lock(&c->vm->lock);
	r = create_vcpu(c->vm, c->arg);
	pthread_mutex_unlock(&c->vm->lock);
	return r;
}

/* The checks that need the byte values; mem_slot_set() makes the rest in the kernel's order. */
long vm_set_memory(struct call *c)
{
	const struct kvm_userspace_memory_region *r = c->data;
	const u32 known = KVM_MEM_LOG_DIRTY_PAGES | KVM_MEM_READONLY;

	if ((u16)r->slot >= VM_MEM_SLOTS || r->flags & ~known)
		return -EINVAL;
	if ((r->memory_size | r->guest_phys_addr | r->userspace_addr) & ~PAGE_MASK)
		return -EINVAL;
	return mem_slot_set(c->vm->mem, r->slot >> 16, (u16)r->slot, r->flags,
			    r->guest_phys_addr >> PAGE_SHIFT, r->memory_size >> PAGE_SHIFT,
			    (u8 *)r->userspace_addr);
}

/* There is no shadow MMU whose size could be set. */
long vm_set_mmu_pages(struct call *c)
{
	return c->arg < MIN_MMU_PAGES ? -EINVAL : 0;
}

/* Real mode needs no TSS in guest memory here: the address is checked and forgotten. */
long vm_set_tss_addr(struct call *c)
{
	return c->arg > TSS_ADDR_MAX ? -EINVAL : 0;
}

long vm_set_identity_map(struct call *c)
{
	return vm_vcpus(c->vm) ? -EINVAL : 0;
}

long vm_set_boot_cpu(struct call *c)
{
	long r = 0;

	pthread_mutex_lock(&c->vm->lock);
	if (c->vm->nvcpus)
		r = -EBUSY;
	else
		c->vm->bsp_id = c->arg;
	pthread_mutex_unlock(&c->vm->lock);
	return r;
}

static long set_max_vcpu_ids(struct vm *vm, u64 n)
{
	long r = -EINVAL;

	if (n > VM_MAX_VCPU_IDS)
		return -EINVAL;
	pthread_mutex_lock(&vm->lock);
	if (vm->max_vcpu_ids == n) {
		r = 0;
	} else if (!vm->max_vcpu_ids) {
		vm->max_vcpu_ids = n;
		r = 0;
	}
	pthread_mutex_unlock(&vm->lock);
	return r;
}

#define X2APIC_API_FLAGS (KVM_X2APIC_API_USE_32BIT_IDS | KVM_X2APIC_API_DISABLE_BROADCAST_QUIRK)

/* They hold for interrupt controllers made later too. X2APIC_API only adds. */
static long set_irq_options(struct vm *vm, bool quirks, u64 flags)
{
	struct irq_options *o = &vm->irq_options;

	if (!quirks && flags & ~(u64)X2APIC_API_FLAGS)
		return -EINVAL;
	pthread_mutex_lock(&vm->lock);
	if (quirks) {
		vm->quirks_off = flags;
		o->no_lint0 = !!(flags & KVM_X86_QUIRK_LINT0_REENABLED);
		o->no_mmio_hole = !!(flags & KVM_X86_QUIRK_LAPIC_MMIO_HOLE);
	} else {
		o->ids32 |= !!(flags & KVM_X2APIC_API_USE_32BIT_IDS);
		o->no_broadcast |= !!(flags & KVM_X2APIC_API_DISABLE_BROADCAST_QUIRK);
	}
	if (vm->irqchip)
		irqchip_options(vm->irqchip, o);
	for (unsigned i = 0; i < vm->nvcpus; i++)
		vcpu_choices(vm->vcpu[i]);
	pthread_mutex_unlock(&vm->lock);
	return 0;
}

long vm_enable_cap(struct call *c)
{
	const struct kvm_enable_cap *e = c->data;

	if (e->flags)
		return -EINVAL;
	switch (e->cap) {
	case KVM_CAP_HALT_POLL:
		if (e->args[0] != (u32)e->args[0])
			return -EINVAL;
		__atomic_store_n(&c->vm->halt_poll_ns, e->args[0], __ATOMIC_RELAXED);
		return 0;
	case KVM_CAP_EXCEPTION_PAYLOAD:
		c->vm->exception_payload = e->args[0];
		return 0;
	case KVM_CAP_X2APIC_API:
		return set_irq_options(c->vm, false, e->args[0]);
	case KVM_CAP_DISABLE_QUIRKS2:
		if (e->args[0] & ~(u64)VM_QUIRKS)
			return -EINVAL;
		return set_irq_options(c->vm, true, e->args[0]);
	case KVM_CAP_DISABLE_QUIRKS:
		return set_irq_options(c->vm, true, e->args[0]);
	case KVM_CAP_DIRTY_LOG_RING:
	case KVM_CAP_DIRTY_LOG_RING_ACQ_REL:
		return dirty_set_ring(c->vm, e->args[0]);
	case KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2:
		return dirty_set_manual(c->vm, e->args[0]);
	case KVM_CAP_MAX_VCPU_ID:
		return set_max_vcpu_ids(c->vm, e->args[0]);
	default:
		return vm_enable_x86_cap(c->vm, e);
	}
}

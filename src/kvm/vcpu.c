/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Virtual processor: creation, destruction, kicks and the requests that touch no register. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "cpu/x86/access.h"
#include "cpu/x86/event.h"
#include "cpu/x86/mode.h"
#include "kvm/file.h"
#include "kvm/kvm.h"
#include "kvm/usercopy.h"
#include "mem/dirty.h"

#define APIC_BASE_DEFAULT 0xfee00000ull
#define APIC_BASE_BSP	  BIT_ULL(8)
#define APIC_BASE_ENABLE  BIT_ULL(11)
#define KERNEL_SIGSET	  8 /* bytes of the kernel's sigset_t */

static bool vcpu_is_bsp(const struct vcpu *v)
{
	return v->id == v->vm->bsp_id;
}

/* The run pages and, where the program looks for it, the dirty ring. */
static size_t vcpu_pages_size(const struct vm *vm)
{
	return vm->ring_bytes ? RING_OFFSET + vm->ring_bytes : RUN_SIZE;
}

static int vcpu_map(struct vcpu *v, int *fd)
{
	size_t size = vcpu_pages_size(v->vm);
	void *p;

	*fd = file_memfd(FILE_VCPU, size, true);
	if (*fd < 0)
		return *fd;
	p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, *fd, 0);
	if (p == MAP_FAILED) {
		close(*fd);
		return -ENOMEM;
	}
	v->run = p;
	if (v->vm->ring_bytes)
		mem_ring_attach(v->cpu->writer, (void *)((u8 *)p + RING_OFFSET),
				v->vm->ring_bytes / sizeof(struct kvm_dirty_gfn));
	return 0;
}

/* Power-on state; no CPUID, as in KVM before KVM_SET_CPUID2. */
static void vcpu_power_on(struct vcpu *v)
{
	struct x86_cpu *cpu = v->cpu;
	struct vm *vm = v->vm;

	cpu->full = true;
	cpu->mem = vm->mem;
	cpu->platform = &vcpu_platform;
	cpu->owner = v;
	cpu->intel = vm->sys->host.intel;
	cpu->xcr0_host = vm->sys->host.xcr0;
	cpu->tsc_khz = vm->tsc_khz;
	cpu->tsc_ratio = tsc_ratio(vm, cpu->tsc_khz);
	cpu->tsc_offset = vm->tsc_offset;
	cpu->hypercall_modrm = cpu->intel ? 0xc1 : 0xd9;
	x86_reset(cpu, false);
	vcpu_choices(v);
	mce_init(v);
	v->apic_base = APIC_BASE_DEFAULT | APIC_BASE_ENABLE | (vcpu_is_bsp(v) ? APIC_BASE_BSP : 0);
	v->mp_state =
		v->lapic && !vcpu_is_bsp(v) ? KVM_MP_STATE_UNINITIALIZED : KVM_MP_STATE_RUNNABLE;
	engine_state_changed(v->engine);
}

int vcpu_create(struct vm *vm, u32 id, struct vcpu **out, int *fd)
{
	struct vcpu *v = calloc(1, sizeof(*v));
	int r = -ENOMEM;

	if (!v)
		return r;
	v->vm = vm;
	v->id = id;
	v->index = vm->nvcpus;
	v->hv.vp_index = v->index;
	xen_vcpu_init(v);
	pthread_mutex_init(&v->lock, NULL);
	v->engine = engine_vcpu_create(vm->engine);
	if (!v->engine)
		goto fail;
	v->cpu = engine_cpu(v->engine);
	if (vm->irqchip) {
		v->lapic = lapic_create(vm->irqchip, v->index, id, vcpu_is_bsp(v));
		if (!v->lapic)
			goto fail;
	}
	r = vcpu_map(v, fd);
	if (r)
		goto fail;
	vcpu_power_on(v);
	*out = v;
	return 0;
fail:
	vcpu_destroy(v);
	return r;
}

void vcpu_destroy(struct vcpu *v)
{
	if (v->lapic)
		lapic_destroy(v->lapic);
	if (v->engine)
		engine_vcpu_destroy(v->engine);
	hv_synic_destroy(v);
	xen_vcpu_destroy(v);
	stats_close(&v->stats_file);
	pv_destroy(v);
	if (v->run)
		munmap(v->run, vcpu_pages_size(v->vm));
	pthread_mutex_destroy(&v->lock);
	free(v);
}

/* The last descriptor of the vCPU is closed: the vCPU itself goes with its VM. */
void vcpu_release(void *object)
{
	struct vcpu *v = object;

	vm_put(v->vm);
}

void vcpu_kick(struct vcpu *v)
{
	engine_kick(v->engine);
	vcpu_wake(v);
}

void vcpu_ring(struct vcpu *v)
{
	engine_kick(v->engine);
	vcpu_doorbell(v);
}

void vcpu_state_changed(struct vcpu *v)
{
	x86_mode_update(v->cpu);
	engine_state_changed(v->engine);
}

void vcpu_replay_drop(struct vcpu *v)
{
	x86_replay_forget(v->cpu);
	v->exit_due = false;
}

/* TF is the engine's: it knows that the instruction was stepped. */
void vcpu_skip_instruction(struct vcpu *v)
{
	struct x86_cpu *cpu = v->cpu;

	cpu->rip = cpu->next_rip;
	cpu->f.rf = 0;
	x86_shadow_end(cpu);
	x86_mode_update(cpu);
}

void vcpu_queue_exception(struct vcpu *v)
{
	v->cpu->event.exception = true;
	v->cpu->event.vector = v->cpu->exc.vector;
}

long vcpu_run_call(struct call *c)
{
	return vcpu_run(c->vcpu);
}

long vcpu_set_signal_mask(struct call *c)
{
	struct vcpu *v = c->vcpu;
	struct kvm_signal_mask head;
	u64 set;

	if (!c->arg) {
		v->sigmask_active = false;
		return 0;
	}
	if (user_read(&head, c->arg, sizeof(head)))
		return -EFAULT;
	if (head.len != KERNEL_SIGSET)
		return -EINVAL;
	if (user_read(&set, c->arg + sizeof(head), sizeof(set)))
		return -EFAULT;
	sigemptyset(&v->sigmask);
	for (int sig = 1; sig <= 64; sig++) {
		if (set >> (sig - 1) & 1 && sig != SIGKILL && sig != SIGSTOP)
			sigaddset(&v->sigmask, sig);
	}
	v->sigmask_active = true;
	return 0;
}

long vcpu_enable_cap(struct call *c)
{
	const struct kvm_enable_cap *e = c->data;

	return e->flags ? -EINVAL : vcpu_enable_x86_cap(c->vcpu, e);
}

long mp_state_get(struct call *c)
{
	struct kvm_mp_state *s = c->data;
	struct vcpu *v = c->vcpu;

	vcpu_accept_events(v);
	s->mp_state = v->mp_state;
	if (s->mp_state == KVM_MP_STATE_HALTED && __atomic_load_n(&v->unhalted, __ATOMIC_ACQUIRE))
		s->mp_state = KVM_MP_STATE_RUNNABLE;
	return 0;
}

long mp_state_set(struct call *c)
{
	const struct kvm_mp_state *s = c->data;
	struct vcpu *v = c->vcpu;

	switch (s->mp_state) {
	case KVM_MP_STATE_RUNNABLE:
		break;
	case KVM_MP_STATE_UNINITIALIZED:
	case KVM_MP_STATE_INIT_RECEIVED:
	case KVM_MP_STATE_HALTED:
	case KVM_MP_STATE_SIPI_RECEIVED:
	case KVM_MP_STATE_AP_RESET_HOLD:
		if (v->lapic)
			break;
		return -EINVAL;
	default:
		return -EINVAL;
	}
	/* SMM keeps an INIT waiting: nobody has received one there. */
	if ((v->cpu->event.in_smm || v->cpu->event.smi_pending) &&
	    (s->mp_state == KVM_MP_STATE_INIT_RECEIVED ||
	     s->mp_state == KVM_MP_STATE_SIPI_RECEIVED))
		return -EINVAL;
	v->mp_state = s->mp_state;
	v->pv.halted = false;
	if (s->mp_state == KVM_MP_STATE_SIPI_RECEIVED) {
		v->mp_state = KVM_MP_STATE_INIT_RECEIVED;
		v->sipi_due = true;
	}
	engine_state_changed(v->engine);
	vcpu_kick(v);
	return 0;
}

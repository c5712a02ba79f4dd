/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* KVM_RUN: complete what user space answered, inject events, run, and tell why it ended. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/probe.h"
#include "cpu/x86/event.h"
#include "cpu/x86/mode.h"
#include "kvm/calling.h"
#include "kvm/kvm.h"
#include "mem/dirty.h"

/* With KVM_SET_SIGNAL_MASK: signals that may end KVM_RUN are those pending outside the mask. */
static bool signal_waits(const struct vcpu *v)
{
	sigset_t pending;

	if (sigpending(&pending))
		return false;
	for (int sig = 1; sig <= 64; sig++) {
		if (sigismember(&pending, sig) == 1 && sigismember(&v->sigmask, sig) != 1)
			return true;
	}
	return false;
}

long vcpu_interrupted(struct vcpu *v)
{
	if (likely(!__atomic_load_n(&v->run->immediate_exit, __ATOMIC_RELAXED)) &&
	    likely(!calling.interrupted) && likely(!v->sigmask_active || !signal_waits(v)))
		return 1;
	return -EINTR;
}

static long interrupted_exit(struct vcpu *v)
{
	v->stats.signal_exits++;
	v->run->exit_reason = KVM_EXIT_INTR;
	return -EINTR;
}

static bool init_or_sipi_came(struct vcpu *v)
{
	return v->sipi_due || (v->lapic && lapic_has_event(v->lapic));
}

/* A halted vCPU, or one that waits for SIPI. */
static bool runnable(struct vcpu *v)
{
	vcpu_accept_events(v);
	if ((v->mp_state == KVM_MP_STATE_HALTED || v->mp_state == KVM_MP_STATE_AP_RESET_HOLD) &&
	    vcpu_has_wakeup(v)) {
		__atomic_store_n(&v->unhalted, false, __ATOMIC_RELEASE);
		v->mp_state = KVM_MP_STATE_RUNNABLE;
	}
	return v->mp_state == KVM_MP_STATE_RUNNABLE;
}

/* A processor that never had INIT: the kernel waits for an event and asks to be called again. */
static long run_uninitialized(struct vcpu *v)
{
	long r;

	if (v->run->immediate_exit)
		return -EINTR;
	r = vcpu_sleep(v, init_or_sipi_came);
	if (r < 0)
		return r == -ERESTART ? r : interrupted_exit(v);
	vcpu_accept_events(v);
	return -EAGAIN;
}

static enum x86_status leave(void *vcpu)
{
	pv_leave(vcpu);
	return X86_OK;
}

/* 1: again, 0: exit to user space. */
static long enter(struct vcpu *v)
{
	enum engine_exit how;

	vm_tick_start(v->vm);
	PROBE(kvm_entry, v->id, v->cpu->rip);
	how = engine_run(v->engine);
	PROBE(kvm_exit, v->id, how == ENGINE_KICKED ? 0 : v->cpu->exit.reason, v->cpu->rip);
	v->stats.exits++;
	if (unlikely(v->pv.eoi_msr || v->pv.vapic_shown))
		(void)engine_guarded(v->engine, leave, v);
	return how == ENGINE_KICKED ? 1 : vcpu_exit(v);
}

/* Asleep nobody needs to look after it. */
static long sleep_until(struct vcpu *v, bool (*done)(struct vcpu *v))
{
	__atomic_store_n(&v->in_guest, false, __ATOMIC_RELEASE);
	return vcpu_sleep(v, done);
}

/* User space has the interrupt controller and wants to know when it can inject. */
static bool window_exit(struct vcpu *v)
{
	if (likely(!v->run->request_interrupt_window || (v->lapic && !v->vm->split)))
		return false;
	if (v->lapic && !lapic_takes_extint(v->lapic))
		return false;
	if (!vcpu_irq_window_open(v)) {
		v->cpu->irq_waiting = true;
		return false;
	}
	v->stats.irq_window++;
	v->run->exit_reason = KVM_EXIT_IRQ_WINDOW_OPEN;
	return true;
}

/* The time page follows KVM_SET_CLOCK and the guest's own writes of its TSC. */
static void clock_refresh(struct vcpu *v)
{
	if (likely(!__atomic_load_n(&v->clock_stale, __ATOMIC_ACQUIRE) &&
		   v->clock_tsc_offset == v->cpu->tsc_offset))
		return;
	__atomic_store_n(&v->clock_stale, false, __ATOMIC_SEQ_CST);
	v->clock_tsc_offset = v->cpu->tsc_offset;
	vcpu_clock_write(v);
}

static enum x86_status inject(void *vcpu)
{
	enum x86_status st;

	pv_leave(vcpu); /* an exit came between the last pv_enter() and the guest */
	st = vcpu_inject(vcpu);
	if (st == X86_OK)
		pv_enter(vcpu);
	return st;
}

/* HLT that gives no exit, without an APIC: only what user space injects ends it. */
static bool halt_ended(struct vcpu *v)
{
	if (vcpu_has_wakeup(v))
		v->pv.halted = false;
	return !v->pv.halted;
}

/* 1 go on, 0 exit, -EINTR. */
static long halted(struct vcpu *v)
{
	long r;

	if (halt_ended(v))
		return 1;
	if (window_exit(v))
		return 0;
	r = sleep_until(v, halt_ended);
	if (r < 0)
		return r == -ERESTART ? r : interrupted_exit(v);
	return 1;
}

static long run_loop(struct vcpu *v)
{
	long r = 1;

	while (r > 0) {
		/*
		 * What is set after the exchange is seen by engine_run(); what was set before, below. And who looks for vCPUs
		 * in guest code sees this one, or it sees below that nobody looks.
		 */
		__atomic_store_n(&v->in_guest, true, __ATOMIC_RELAXED);
		(void)__atomic_exchange_n(&v->cpu->kick, 0, __ATOMIC_SEQ_CST);
		if (vcpu_interrupted(v) < 0)
			return interrupted_exit(v);
		vcpu_accept_events(v);
		if (unlikely(v->mp_state != KVM_MP_STATE_RUNNABLE)) {
			pv_sleep(v);
			r = sleep_until(v, runnable);
			if (r < 0)
				return r == -ERESTART ? r : interrupted_exit(v);
			continue;
		}
		if (unlikely(__atomic_load_n(&v->break_off, __ATOMIC_ACQUIRE))) {
			__atomic_store_n(&v->break_off, false, __ATOMIC_RELAXED);
			return -ERESTART;
		}
		if (unlikely(hv_wants(v)) && !hv_serve(v))
			return 0;
		if (unlikely(__atomic_load_n(&v->xen.attention, __ATOMIC_ACQUIRE))) {
			r = xen_serve(v);
			if (r < 0)
				return r == -ERESTART ? r : interrupted_exit(v);
		}
		if (vcpu_late_exit(v))
			return 0;
		if (unlikely(v->pv.halted)) {
			r = halted(v);
			if (r <= 0)
				return r;
		}
		if (unlikely(v->triple_fault)) {
			v->triple_fault = false;
			v->run->exit_reason = KVM_EXIT_SHUTDOWN;
			return 0;
		}
		if (!vcpu_is_quiet(v) && engine_guarded(v->engine, inject, v) != X86_OK) {
			r = vcpu_exit(v);
			continue;
		}
		if (window_exit(v))
			return 0;
		mem_ring_refill(v->cpu->writer);
		if (unlikely(mem_writer_is_full(v->cpu->writer))) {
			v->run->exit_reason = KVM_EXIT_DIRTY_RING_FULL;
			PROBE(kvm_dirty_ring_exit, v->id);
			return 0;
		}
		clock_refresh(v);
		if (unlikely(v->recheck)) {
			v->recheck = false;
			engine_kick(v->engine);
		}
		r = enter(v);
	}
	return r;
}

/* KVM_CAP_SYNC_REGS: registers through the run page. */
static int sync_in(struct vcpu *v)
{
	struct kvm_run *run = v->run;
	struct kvm_sync_regs *s = &run->s.regs;
	int r = 0;

	if ((run->kvm_valid_regs | run->kvm_dirty_regs) & ~KVM_SYNC_X86_VALID_FIELDS)
		return -EINVAL;
	if (run->kvm_dirty_regs & KVM_SYNC_X86_REGS)
		regs_set(v, &s->regs);
	if (run->kvm_dirty_regs & KVM_SYNC_X86_SREGS)
		r = sregs_set(v, &s->sregs);
	if (!r && run->kvm_dirty_regs & KVM_SYNC_X86_EVENTS)
		r = events_set(v, &s->events);
	run->kvm_dirty_regs = 0;
	return r ? -EINVAL : 0;
}

static void sync_out(struct vcpu *v)
{
	struct kvm_run *run = v->run;
	struct kvm_sync_regs *s = &run->s.regs;

	if (run->kvm_valid_regs & KVM_SYNC_X86_REGS)
		regs_get(v, &s->regs);
	if (run->kvm_valid_regs & KVM_SYNC_X86_SREGS)
		sregs_get(v, &s->sregs);
	if (run->kvm_valid_regs & KVM_SYNC_X86_EVENTS)
		events_get(v, &s->events);
}

static void post_run(struct vcpu *v)
{
	struct kvm_run *run = v->run;

	mem_writer_exit(v->cpu->writer);
	/* Who stops the vCPUs and harvests a last time must find what was written late, too. */
	mem_ring_refill(v->cpu->writer);
	run->if_flag = v->cpu->f.intr;
	if (unlikely(v->cpu->event.in_smm))
		run->flags |= KVM_RUN_X86_SMM;
	run->cr8 = v->lapic ? lapic_tpr_get(v->lapic) : v->cpu->cr8;
	run->apic_base = vcpu_apic_base(v);
	run->ready_for_interrupt_injection =
		(v->lapic && !v->vm->split) ||
		(vcpu_irq_window_open(v) && (!v->lapic || lapic_takes_extint(v->lapic)));
	if (unlikely(run->kvm_valid_regs))
		sync_out(v);
	v->stats.dirty_records = v->cpu->writer->records;
	stats_show(&v->stats_file, &v->stats, sizeof(v->stats));
	vm_stats_show(v->vm);
}

/*
 * immediate_exit after a device access: the instruction is completed, and no other begins; so user
 * space brings a vCPU to a boundary before it saves it. 0: it needs another access, and exits.
 */
static long complete_only(struct vcpu *v)
{
	__atomic_store_n(&v->cpu->kick, 1, __ATOMIC_RELAXED);
	return enter(v);
}

/* In the order of kvm_arch_vcpu_ioctl_run(). */
static long run_checked(struct vcpu *v)
{
	struct kvm_run *run = v->run;
	int r;

	run->flags = 0;
	if (unlikely(v->mp_state == KVM_MP_STATE_UNINITIALIZED))
		return run_uninitialized(v);
	if (unlikely(run->kvm_valid_regs || run->kvm_dirty_regs)) {
		r = sync_in(v);
		if (r)
			return r;
	}
	if (!v->lapic) {
		if (run->cr8 > 15)
			return -EINVAL;
		v->cpu->cr8 = run->cr8;
	}
	if (v->exit_due) {
		vcpu_exit_complete(v);
		if ((run->immediate_exit || calling.interrupted) && !complete_only(v))
			return 0;
	}
	if (run->immediate_exit)
		return -EINTR;
	run->exit_reason = KVM_EXIT_UNKNOWN;
	v->has_run = true;
	if (unlikely(v->vm->xen.config.msr))
		xen_run_begin(v);
	return run_loop(v);
}

long vcpu_run(struct vcpu *v)
{
	long r;

	if (calling_is_restricted(CALLING_FIXED_GS) && !engine_thread_owns(v->engine)) {
		dprintf(STDERR_FILENO,
			"anykvm: vcpu %u: this thread's seccomp filter forbids arch_prctl, and the "
			"host's kernel "
			"does not offer FSGSBASE: allow it in the filter (AK005)\n",
			v->id);
		return -EPERM;
	}
	/* No handler of a masked signal may run; pending ones are found, also those that the thread blocks. */
	if (unlikely(v->sigmask_active))
		calling_set_mask(&v->sigmask);
	calling.vcpu = v;
	v->cancellable = calling.cancellable;
	r = run_checked(v);
	__atomic_store_n(&v->in_guest, false, __ATOMIC_RELEASE);
	v->cancellable = false;
	calling.vcpu = NULL;
	post_run(v);
	PROBE(kvm_userspace_exit, v->id, v->run->exit_reason, r);
	return r;
}

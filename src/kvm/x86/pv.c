/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Steal time, PV EOI, poll control: MSRs of the hypervisor, and the structures in guest memory behind them. */
#define _GNU_SOURCE
#include <asm/kvm_para.h>
#include <fcntl.h>
#include <linux/kvm_para.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <x86intrin.h>

#include "kvm/kvm.h"

#define MSR_ON	       1ull
#define PV_EOI_BIT     BIT(0)
#define STEAL_EVERY_US 100 /* KVM: whenever the vCPU's thread gets a CPU or enters KVM_RUN */
#define STEAL_STEAL    0   /* offsets in struct kvm_steal_time */
#define STEAL_VERSION  8
#define STEAL_PREEMPT  16
_Static_assert(offsetof(struct kvm_steal_time, version) == STEAL_VERSION &&
		       offsetof(struct kvm_steal_time, preempted) == STEAL_PREEMPT,
	       "kvm_steal_time");

/* DIFFERS: a vCPU in user space or taken off its CPU by the host is not marked as preempted; one that sleeps in HLT is. */

/*
 * Nanoseconds that this thread waited for a CPU. The file belongs to the thread that opened it; 0 where the host does
 * not count.
 */
static u64 run_delay(struct pv *pv)
{
	static __thread const char self;
	char text[64] = "", *second;

	if (pv->stat_thread != &self && pv->stat_fd) {
		close(pv->stat_fd);
		pv->stat_fd = 0;
	}
	if (!pv->stat_fd) {
		int fd = open("/proc/thread-self/schedstat", O_RDONLY | O_CLOEXEC);

		pv->stat_fd = fd > 0 ? fd : 0;
		pv->stat_thread = &self;
	}
	if (!pv->stat_fd || pread(pv->stat_fd, text, sizeof(text) - 1, 0) <= 0)
		return pv->last_delay;
	second = strchr(text, ' ');
	return second ? strtoull(second, NULL, 10) : pv->last_delay;
}

u64 pv_run_delay(struct vcpu *v)
{
	return run_delay(&v->pv);
}

void pv_destroy(struct vcpu *v)
{
	if (v->pv.stat_fd)
		close(v->pv.stat_fd);
}

/* Time stolen since the last writing, under an odd version. */
static void steal_add(struct vcpu *v, gpa_t gpa)
{
	struct mem *mem = v->vm->mem;
	u64 delay = run_delay(&v->pv), steal;
	u32 version;

	if (mem_read(mem, 0, gpa + STEAL_VERSION, &version, sizeof(version)) ||
	    mem_read(mem, 0, gpa + STEAL_STEAL, &steal, sizeof(steal)))
		return;
	version += 1 + (version & 1);
	(void)mem_write_as(mem, v->cpu->writer, 0, gpa + STEAL_VERSION, &version, sizeof(version));
	steal += delay - v->pv.last_delay;
	v->pv.last_delay = delay;
	(void)mem_write_as(mem, v->cpu->writer, 0, gpa + STEAL_STEAL, &steal, sizeof(steal));
	version++;
	(void)mem_write_as(mem, v->cpu->writer, 0, gpa + STEAL_VERSION, &version, sizeof(version));
}

/* Others may have left a request for a TLB flush while the vCPU was marked: taken with the mark, in one. */
static void steal_write(struct vcpu *v)
{
	gpa_t gpa = v->pv.steal_msr & ~63ull;
	u8 old = 0;

	v->pv.steal_due = false;
	v->pv.last_tsc = __rdtsc();
	if (mem_xchg8(v->vm->mem, v->cpu->writer, 0, gpa + STEAL_PREEMPT, 0, &old))
		return;
	if (old & KVM_VCPU_FLUSH_TLB && vcpu_pv_has(v, KVM_FEATURE_PV_TLB_FLUSH))
		v->cpu->flush.all = true;
	steal_add(v, gpa);
}

static void steal_refresh(struct vcpu *v)
{
	u64 every = (u64)v->vm->host_tsc_khz * STEAL_EVERY_US / 1000;

	if (v->pv.steal_due || __rdtsc() - v->pv.last_tsc > every)
		steal_write(v);
}

void pv_sleep(struct vcpu *v)
{
	u8 old;

	if (!(v->pv.steal_msr & MSR_ON))
		return;
	v->pv.steal_due = true;
	(void)mem_xchg8(v->vm->mem, v->cpu->writer, 0, (v->pv.steal_msr & ~63ull) + STEAL_PREEMPT,
			KVM_VCPU_PREEMPTED, &old);
}

/* The bit is set when the guest may clear it in place of an EOI. */
static void eoi_enter(struct vcpu *v)
{
	gpa_t gpa = v->pv.eoi_msr & ~MSR_ON;
	u8 byte, old;

	if (!lapic_pv_eoi_offer(v->lapic))
		return;
	if (mem_read(v->vm->mem, 0, gpa, &byte, sizeof(byte)) ||
	    mem_xchg8(v->vm->mem, v->cpu->writer, 0, gpa, byte | PV_EOI_BIT, &old))
		lapic_pv_eoi_end(v->lapic, false);
}

static void eoi_leave(struct vcpu *v)
{
	gpa_t gpa = v->pv.eoi_msr & ~MSR_ON;
	u8 byte = PV_EOI_BIT, old;

	if (!mem_read(v->vm->mem, 0, gpa, &byte, sizeof(byte)) && byte & PV_EOI_BIT)
		(void)mem_xchg8(v->vm->mem, v->cpu->writer, 0, gpa, byte & ~PV_EOI_BIT, &old);
	lapic_pv_eoi_end(v->lapic, !(byte & PV_EOI_BIT));
}

void pv_enter(struct vcpu *v)
{
	if (v->pv.steal_msr & MSR_ON)
		steal_refresh(v);
	if (v->pv.eoi_msr & MSR_ON && v->lapic)
		eoi_enter(v);
	if (v->pv.vapic)
		vapic_enter(v);
	if (unlikely(v->xen.runstate != XEN_NO_PAGE))
		xen_runstate_refresh(v);
}

void pv_leave(struct vcpu *v)
{
	if (unlikely(v->lapic && lapic_pv_eoi_offered(v->lapic)))
		eoi_leave(v);
	if (unlikely(v->pv.vapic_shown))
		vapic_leave(v);
}

static int steal_set(struct vcpu *v, u64 value)
{
	if (value & KVM_STEAL_RESERVED_MASK)
		return 1;
	v->pv.steal_msr = value;
	v->pv.steal_due = true;
	if (value & MSR_ON) /* written before the next instruction but a few */
		v->cpu->kick = 1;
	return 0;
}

static int eoi_set(struct vcpu *v, u64 value)
{
	if (value & ~MSR_ON & 3)
		return 1;
	if (value & MSR_ON && !mem_is_writable(v->vm->mem, 0, value & ~MSR_ON, 1))
		return 1;
	/* What is offered was offered under the old address. */
	if (v->lapic && lapic_pv_eoi_offered(v->lapic))
		eoi_leave(v);
	v->pv.eoi_msr = value;
	return 0;
}

static int poll_set(struct vcpu *v, u64 value)
{
	if (value & ~1ull)
		return 1;
	v->pv.poll_off = !value;
	return 0;
}

int pv_wrmsr(struct vcpu *v, u32 index, u64 value)
{
	switch (index) {
	case MSR_KVM_STEAL_TIME:
		return vcpu_pv_has(v, KVM_FEATURE_STEAL_TIME) ? steal_set(v, value) : 1;
	case MSR_KVM_PV_EOI_EN:
		return vcpu_pv_has(v, KVM_FEATURE_PV_EOI) ? eoi_set(v, value) : 1;
	case MSR_KVM_POLL_CONTROL:
		return vcpu_pv_has(v, KVM_FEATURE_POLL_CONTROL) ? poll_set(v, value) : 1;
	default:
		return 1;
	}
}

int pv_rdmsr(const struct vcpu *v, u32 index, u64 *value)
{
	switch (index) {
	case MSR_KVM_STEAL_TIME:
		*value = v->pv.steal_msr;
		return !vcpu_pv_has(v, KVM_FEATURE_STEAL_TIME);
	case MSR_KVM_PV_EOI_EN:
		*value = v->pv.eoi_msr;
		return !vcpu_pv_has(v, KVM_FEATURE_PV_EOI);
	case MSR_KVM_POLL_CONTROL:
		*value = !v->pv.poll_off;
		return !vcpu_pv_has(v, KVM_FEATURE_POLL_CONTROL);
	default:
		return 1;
	}
}

/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* What lies around a virtual processor: its APIC, the chips of the VM, MSRs of the hypervisor, hypercalls. */
#include <errno.h>
#include <linux/kvm_para.h>
#include <asm/kvm_para.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/probe.h"
#include "cpu/x86/cpuid.h"
#include "cpu/x86/mode.h"
#include "cpu/x86/msr.h"
#include "kvm/kvm.h"

#define MSR_TSC		 0x10
#define MSR_APICBASE	 0x1b
#define MSR_TSC_ADJUST	 0x3b
#define MSR_TSC_DEADLINE 0x6e0
#define MSR_X2APIC_FIRST 0x800
#define MSR_X2APIC_LAST	 0x8ff

#define APICBASE_ADDR	  0xfffffffff000ull
#define APICBASE_RESERVED 0x2ffull
#define APICBASE_EXTD	  BIT_ULL(10)
#define APICBASE_EN	  BIT_ULL(11)

#define LOG_LINES_PER_SECOND 10
#define ICR_LOGICAL	     BIT(11)
#define ICR_SHORTHAND	     (3u << 18)

#define PV_LEAF_LAST 0x4000ff00u
#define PV_LEAF_STEP 0x100

/* KVM's leaves stand behind those of other interfaces, Hyper-V's for example: where its name is. 0: nowhere. */
static u32 pv_leaf(const struct vcpu *v)
{
	static const char name[12] = "KVMKVMKVM";
	const struct x86_cpuid_entry *e;

	for (u32 leaf = KVM_CPUID_SIGNATURE; leaf <= PV_LEAF_LAST; leaf += PV_LEAF_STEP) {
		e = x86_cpuid_find(v->cpu, leaf, 0);
		if (e && e->function == leaf && !memcmp(&e->ebx, name, 4) &&
		    !memcmp(&e->ecx, name + 4, 4) && !memcmp(&e->edx, name + 8, 4))
			return leaf;
	}
	return 0;
}

bool vcpu_pv_has(const struct vcpu *v, unsigned feature)
{
	u32 leaf;

	if (likely(!v->enforce_pv))
		return true;
	leaf = pv_leaf(v);
	return leaf && x86_cpuid_has(v->cpu, leaf | KVM_CPUID_FEATURES, 0, 0, feature);
}

/* A change of priority or an EOI may have let another interrupt through. */
static void look_for_irq(struct vcpu *v)
{
	if (lapic_pending(v->lapic) || lapic_eoi_due(v->lapic))
		v->cpu->kick = 1;
}

static int platform_mmio(void *owner, gpa_t gpa, void *data, unsigned size, bool is_write)
{
	struct vcpu *v = owner;

	if (v->lapic && !lapic_mmio(v->lapic, gpa, data, size, is_write)) {
		PROBE(kvm_mmio, v->id, is_write, size, gpa);
		vapic_note_access(v, gpa, is_write);
		if (is_write)
			look_for_irq(v);
		return 0;
	}
	if (v->lapic && !irqchip_mmio(v->vm->irqchip, gpa, data, size, is_write))
		return 0;
	return !(is_write && iobus_write(v, IOBUS_MMIO, gpa, data, size));
}

static int platform_io(void *owner, u16 port, void *data, unsigned size, bool is_write)
{
	struct vcpu *v = owner;

	if ((v->vm->irqchip && !irqchip_io(v->vm->irqchip, port, data, size, is_write)) ||
	    (v->vm->pit && !i8254_io(v->vm->pit, port, data, size, is_write))) {
		PROBE(kvm_pio, v->id, is_write, port, size, 1);
		return 0;
	}
	return !(is_write && iobus_write(v, IOBUS_PIO, port, data, size));
}

u64 vcpu_apic_base(const struct vcpu *v)
{
	return v->lapic ? lapic_base_get(v->lapic) : v->apic_base;
}

int vcpu_apic_base_set(struct vcpu *v, u64 value, bool host)
{
	u64 address = APICBASE_ADDR & ((1ull << v->cpu->phys_bits) - 1);

	if (v->lapic) {
		int r = host ? lapic_base_set_host(v->lapic, value)
			     : lapic_base_set(v->lapic, value);

		v->cpu->apic_off = !(lapic_base_get(v->lapic) & APICBASE_EN);
		if (!r)
			look_for_irq(v);
		return r;
	}
	if (value & (APICBASE_RESERVED | ~(address | 0xfff)))
		return -1;
	if ((value & APICBASE_EXTD) && !(value & APICBASE_EN))
		return -1;
	v->apic_base = value;
	v->cpu->apic_off = !(value & APICBASE_EN);
	return 0;
}

/* A new line was drawn: the other vCPUs still tell time by the old one. */
static void clock_tell_others(const struct vcpu *self)
{
	struct vm *vm = self->vm;

	for (unsigned i = 0, n = vm_vcpus(vm); i < n; i++) {
		if (vm->vcpu[i] == self)
			continue;
		__atomic_store_n(&vm->vcpu[i]->clock_stale, true, __ATOMIC_SEQ_CST);
		vcpu_kick(vm->vcpu[i]);
	}
}

/* An address without memory, or whose memory is gone: as in KVM, the guest simply gets no time there. */
static void clock_write_to(struct vcpu *v, gpa_t gpa)
{
	struct pvclock_vcpu page = v->clock;

	page.msr = gpa | 1;
	(void)pvclock_write_time(&v->vm->clock, &page, v->vm->mem, x86_tsc_read(v->cpu),
				 v->cpu->tsc_khz, v->guest_paused);
}

static void wall_clock_write(struct vcpu *v)
{
	v->wall_due = false;
	pthread_mutex_lock(&v->vm->clock_lock);
	(void)pvclock_write_wall(&v->vm->clock, v->vm->mem, v->vm->clock.wall_msr);
	pthread_mutex_unlock(&v->vm->clock_lock);
}

void vcpu_clock_write(struct vcpu *v)
{
	struct pvclock_vm *clock = &v->vm->clock;
	u64 line, info = v->xen.info, time = v->xen.time;

	if (unlikely(v->wall_due))
		wall_clock_write(v);
	if (!(v->clock.msr & 1) && likely(info == XEN_NO_PAGE && time == XEN_NO_PAGE))
		return;
	v->clock.tsc_ahead = v->cpu->tsc_offset - v->vm->tsc_offset;
	pthread_mutex_lock(&v->vm->clock_lock);
	line = clock->line_khz ? clock->line_ns : 0;
	if (v->clock.msr & 1)
		clock_write_to(v, v->clock.msr & ~1ull);
	if (info != XEN_NO_PAGE)
		clock_write_to(v, info + XEN_INFO_TIME);
	if (time != XEN_NO_PAGE)
		clock_write_to(v, time);
	line = line && line != clock->line_ns;
	pthread_mutex_unlock(&v->vm->clock_lock);
	if (unlikely(line))
		clock_tell_others(v);
	v->guest_paused = false;
	v->clock_tsc_offset = v->cpu->tsc_offset;
}

/* What the register asked for is written before the next instruction, as the kernel does it. */
static void clock_is_due(struct vcpu *v)
{
	__atomic_store_n(&v->clock_stale, true, __ATOMIC_RELEASE);
	v->cpu->kick = 1;
}

static int wall_clock_set(struct vcpu *v, u64 value)
{
	pthread_mutex_lock(&v->vm->clock_lock);
	v->vm->clock.wall_msr = value;
	pthread_mutex_unlock(&v->vm->clock_lock);
	v->wall_due = value;
	if (value)
		clock_is_due(v);
	return 0;
}

static int system_time_set(struct vcpu *v, u64 value)
{
	v->clock.msr = value;
	if (value & 1)
		clock_is_due(v);
	return 0;
}

static int platform_wrmsr(void *owner, u32 index, u64 value)
{
	struct vcpu *v = owner;
	int r;

	if (unlikely(vcpu_xen_msr_is(v, index)))
		return vcpu_xen_page_write(v, value);
	if (unlikely(hv_msr_is_ours(index)))
		return hv_msr_write(v, index, value, v->host_access);
	if (v->lapic && index >= MSR_X2APIC_FIRST && index <= MSR_X2APIC_LAST) {
		r = lapic_msr_write(v->lapic, index, value);
		if (!r)
			look_for_irq(v);
		return r;
	}
	switch (index) {
	case MSR_APICBASE:
		return vcpu_apic_base_set(v, value, v->host_access);
	case MSR_TSC_DEADLINE:
		if (v->lapic)
			lapic_deadline_set(v->lapic, value);
		return 0;
	case MSR_TSC:
	case MSR_TSC_ADJUST: /* what the deadline is compared with has moved */
		if (v->lapic)
			lapic_deadline_set(v->lapic, lapic_deadline_get(v->lapic));
		return 0;
	case MSR_KVM_WALL_CLOCK:
		return vcpu_pv_has(v, KVM_FEATURE_CLOCKSOURCE) ? wall_clock_set(v, value) : 1;
	case MSR_KVM_WALL_CLOCK_NEW:
		return vcpu_pv_has(v, KVM_FEATURE_CLOCKSOURCE2) ? wall_clock_set(v, value) : 1;
	case MSR_KVM_SYSTEM_TIME:
		return vcpu_pv_has(v, KVM_FEATURE_CLOCKSOURCE) ? system_time_set(v, value) : 1;
	case MSR_KVM_SYSTEM_TIME_NEW:
		return vcpu_pv_has(v, KVM_FEATURE_CLOCKSOURCE2) ? system_time_set(v, value) : 1;
	default:
		return pv_wrmsr(v, index, value);
	}
}

static int platform_rdmsr(void *owner, u32 index, u64 *value)
{
	struct vcpu *v = owner;

	if (unlikely(hv_msr_is_ours(index)))
		return hv_msr_read(v, index, value, v->host_access);
	if (v->lapic && index >= MSR_X2APIC_FIRST && index <= MSR_X2APIC_LAST)
		return lapic_msr_read(v->lapic, index, value);
	switch (index) {
	case MSR_APICBASE:
		*value = vcpu_apic_base(v);
		return 0;
	case MSR_TSC_DEADLINE:
		*value = v->lapic ? lapic_deadline_get(v->lapic) : 0;
		return 0;
	case MSR_KVM_WALL_CLOCK:
	case MSR_KVM_WALL_CLOCK_NEW:
		*value = v->vm->clock.wall_msr;
		return !vcpu_pv_has(v, index == MSR_KVM_WALL_CLOCK ? KVM_FEATURE_CLOCKSOURCE
								   : KVM_FEATURE_CLOCKSOURCE2);
	case MSR_KVM_SYSTEM_TIME:
	case MSR_KVM_SYSTEM_TIME_NEW:
		*value = v->clock.msr;
		return !vcpu_pv_has(v, index == MSR_KVM_SYSTEM_TIME ? KVM_FEATURE_CLOCKSOURCE
								    : KVM_FEATURE_CLOCKSOURCE2);
	default:
		return pv_rdmsr(v, index, value);
	}
}

static u64 platform_get_tpr(void *owner)
{
	struct vcpu *v = owner;

	return v->lapic ? lapic_tpr_get(v->lapic) : v->cpu->cr8;
}

static void platform_set_tpr(void *owner, u64 tpr)
{
	struct vcpu *v = owner;

	if (!v->lapic) {
		/* User space's APIC may now let something through. */
		if (tpr < v->cpu->cr8) {
			v->pv.tpr_lowered = true;
			v->cpu->kick = 1;
		}
		v->cpu->cr8 = tpr;
		return;
	}
	lapic_tpr_set(v->lapic, tpr);
	look_for_irq(v);
}

static bool pv_offered(const struct vcpu *v, unsigned feature)
{
	return v->lapic && vcpu_pv_has(v, feature);
}

static void kick_cpu(struct vcpu *v, u32 apic_id)
{
	struct vcpu *target = vm_vcpu_by_apic_id(v->vm, apic_id);

	if (!target)
		return;
	__atomic_store_n(&target->unhalted, true, __ATOMIC_RELEASE);
	vcpu_kick(target);
}

/* KVM_HC_SEND_IPI: bitmaps of APIC IDs from @min on, each as wide as the caller's registers; how many took it. */
static u64 send_ipi(struct vcpu *v, const u64 bitmap[2], u32 min, u32 icr)
{
	const unsigned width = x86_is_64(v->cpu) ? 64 : 32;
	u64 count = 0;

	if (!v->lapic)
		return -(u64)EOPNOTSUPP;
	if (icr & (ICR_LOGICAL | ICR_SHORTHAND))
		return -(u64)KVM_EINVAL;
	for (unsigned i = 0; i < 2 * width; i++) {
		const u32 id = min + i;

		if (id >= min && bitmap[i / width] >> i % width & 1)
			count += (u64)irqchip_ipi(v->vm->irqchip, id, icr);
	}
	return count;
}

static enum x86_status platform_hypercall(void *owner, u64 nr, const u64 arg[4], u64 *result)
{
	struct vcpu *v = owner;

	v->stats.hypercalls++;
	PROBE(kvm_hypercall, nr, arg[0], arg[1], arg[2], arg[3]);
	if (unlikely(vcpu_xen_takes(v, nr)))
		return vcpu_xen_hypercall(v, result);
	if (unlikely(hv_takes_calls(v)))
		return hv_hypercall(v, result);
	*result = -(u64)KVM_ENOSYS;
	if (v->cpu->cpl) {
		*result = -(u64)KVM_EPERM;
	} else if (nr == KVM_HC_VAPIC_POLL_IRQ) {
		v->cpu->kick = 1; /* the TPR of the APIC page is looked at outside */
		*result = 0;
	} else if (nr == KVM_HC_KICK_CPU && pv_offered(v, KVM_FEATURE_PV_UNHALT)) {
		kick_cpu(v, arg[1]);
		*result = 0;
	} else if (nr == KVM_HC_SEND_IPI && vcpu_pv_has(v, KVM_FEATURE_PV_SEND_IPI)) {
		*result = send_ipi(v, arg, (u32)arg[2], (u32)arg[3]);
	} else if (nr == KVM_HC_SCHED_YIELD && vcpu_pv_has(v, KVM_FEATURE_PV_SCHED_YIELD)) {
		sched_yield(); /* whoever should run instead is a thread too */
		*result = 0;
	}
	return X86_OK;
}

/* In KVM_RUN, which a filter may have left nothing but write() to: dprintf() asks first whether it is a terminal. */
__attribute__((format(printf, 1, 2))) static void log_line(const char *format, ...)
{
	char line[256];
	va_list ap;
	int n;

	va_start(ap, format);
	n = vsnprintf(line, sizeof(line), format, ap);
	va_end(ap);
	if (n > 0 &&
	    write(STDERR_FILENO, line, (size_t)n < sizeof(line) ? (size_t)n : sizeof(line) - 1) < 0)
		return; /* nobody to tell */
}

static void platform_log(void *owner, const char *what, u64 a, u64 b)
{
	struct vcpu *v = owner;
	u64 second = timer_now() / 1000000000;

	if (v->log_second != second) {
		if (v->log_count > LOG_LINES_PER_SECOND)
			log_line("anykvm: vcpu %u: %llu more such lines\n", v->id,
				 (unsigned long long)(v->log_count - LOG_LINES_PER_SECOND));
		v->log_second = second;
		v->log_count = 0;
	}
	if (v->log_count++ < LOG_LINES_PER_SECOND)
		log_line("anykvm: vcpu %u: %s 0x%llx 0x%llx at rip 0x%llx, mode 0x%x\n", v->id,
			 what, (unsigned long long)a, (unsigned long long)b,
			 (unsigned long long)v->cpu->rip, v->cpu->mode);
}

const struct x86_platform vcpu_platform = {
	.mmio = platform_mmio,
	.io = platform_io,
	.rdmsr = platform_rdmsr,
	.wrmsr = platform_wrmsr,
	.msr_allowed = vcpu_msr_allowed,
	.msr_ask = vcpu_msr_ask,
	.get_tpr = platform_get_tpr,
	.set_tpr = platform_set_tpr,
	.hypercall = platform_hypercall,
	.log = platform_log,
};

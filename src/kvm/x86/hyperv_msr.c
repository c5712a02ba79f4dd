/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Hyper-V's synthetic registers: identity, hypercall page, time, APIC, crash and reset. */
#include <string.h>
#include <time.h>

#include "cpu/x86/mode.h"
#include "cpu/x86/msr.h"
#include "kvm/kvm.h"

enum { EAX, EBX, ECX, EDX };
enum { UNSAVED, SAVED };
enum { SCOPE_VM, SCOPE_VCPU };

enum hv_msr {
#define HV_MSR(first, count, name, scope, reg, bit, saved) HV_##name,
#include "kvm/x86/hyperv.def"
#undef HV_MSR
	HV_MSR_COUNT
};

static const struct hv_row {
	u32 first, count;
	u8 scope, reg, bit, saved;
} rows[HV_MSR_COUNT] = {
#define HV_MSR(first, count, name, scope, reg, bit, saved)                                         \
	[HV_##name] = { first, count, SCOPE_##scope, reg, bit, saved },
#include "kvm/x86/hyperv.def"
#undef HV_MSR
};

#define FEATURES     0x40000003u
#define PAGE_FIELD   (~0xfffull)
#define CRASH_NOTIFY BIT_ULL(63)
#define APIC_HZ	     1000000000u /* a LAPIC tick is a nanosecond, as KVM's */

#define APIC_EOI  0xb0
#define APIC_TPR  0x80
#define APIC_ICR  0x300
#define APIC_ICR2 0x310

bool hv_msr_is_ours(u32 index)
{
	return index >= 0x40000000 && index < 0x40000200;
}

static int row_find(u32 index)
{
	for (unsigned i = 0; i < ARRAY_SIZE(rows); i++) {
		if (index - rows[i].first < rows[i].count)
			return i;
	}
	return -1;
}

unsigned hv_msr_list(u32 *list, unsigned max)
{
	unsigned n = 0;

	for (unsigned i = 0; i < ARRAY_SIZE(rows); i++) {
		for (u32 k = 0; rows[i].saved == SAVED && k < rows[i].count && n < max; k++)
			list[n++] = rows[i].first + k;
	}
	return n;
}

/* What the guest may touch: with enforcement only what CPUID offers; the debugger's also by its own leaf. */
static bool is_allowed(const struct vcpu *v, const struct hv_row *row)
{
	if (!hv_is_shown(v))
		return false;
	if (row->reg == EDX && row->bit == 11 && !(hv_cpuid(v, 0x40000082, EAX) & BIT(1)))
		return false;
	return !v->hv.enforce || hv_cpuid(v, FEATURES, row->reg) >> row->bit & 1;
}

static u64 scaled(u64 tsc, u64 scale)
{
	return (unsigned __int128)tsc * scale >> 64;
}

/* Under clock_lock. */
static u64 time_now(struct vcpu *v)
{
	const struct hv_vm *hv = &v->vm->hv;

	if (hv->tsc_sequence)
		return scaled(x86_tsc_read(v->cpu), hv->tsc_scale) + hv->tsc_offset;
	return pvclock_now(&v->vm->clock) / 100;
}

u64 hv_time(struct vcpu *v)
{
	u64 t;

	pthread_mutex_lock(&v->vm->clock_lock);
	t = time_now(v);
	pthread_mutex_unlock(&v->vm->clock_lock);
	return t;
}

struct tsc_page {
	u32 sequence, reserved;
	u64 scale, offset;
};

/*
 * The reference page, under clock_lock: time = (tsc * scale >> 64) + offset. The sequence is 0 while it is
 * written, then another one than before. A page that cannot be written leaves the register as the clock.
 */
static void tsc_page_write(struct vcpu *v)
{
	struct vm *vm = v->vm;
	struct hv_vm *hv = &vm->hv;
	gpa_t gpa = hv->tsc_page & PAGE_FIELD;
	struct tsc_page page;
	u32 next;

	if (!(hv->tsc_page & HV_ENABLE) || mem_read(vm->mem, 0, gpa, &page, sizeof(page)))
		return;
	next = page.sequence + 1;
	next = next == 0 || next == ~0u ? 1 : next;
	hv->tsc_sequence = 0; /* time_now() is the clock's from here */
	hv->tsc_scale = ((unsigned __int128)10000 << 64) / v->cpu->tsc_khz;
	hv->tsc_offset = time_now(v) - scaled(x86_tsc_read(v->cpu), hv->tsc_scale);
	page = (struct tsc_page){ .scale = hv->tsc_scale, .offset = hv->tsc_offset };
	if (mem_write(vm->mem, 0, gpa, &page, sizeof(page)) ||
	    mem_write(vm->mem, 0, gpa, &next, sizeof(next)))
		return;
	hv->tsc_sequence = next;
}

void hv_clock_changed(struct vm *vm)
{
	if (!vm_vcpus(vm))
		return;
	pthread_mutex_lock(&vm->clock_lock);
	/* A guest that emulates its TSC after a migration wants the page as it is. */
	if (vm->hv.tsc_sequence && !vm->hv.emulation_control)
		tsc_page_write(vm->vcpu[0]);
	pthread_mutex_unlock(&vm->clock_lock);
}

static int reference_tsc_set(struct vcpu *v, u64 value)
{
	v->vm->hv.tsc_page = value;
	v->vm->hv.tsc_sequence = 0;
	tsc_page_write(v);
	return 0;
}

/* The page: a hypercall instruction and a return; with Xen's interface too, a bit tells the two apart. */
static int hypercall_set(struct vcpu *v, u64 value)
{
	static const u8 mark[] = { 0x0d, 0, 0, 0, 0x80 }; /* or $0x80000000, %eax */
	struct hv_vm *hv = &v->vm->hv;
	u8 code[9];
	unsigned n = 0;

	if (!hv->guest_os_id)
		return 0;
	if (value & HV_ENABLE) {
		if (vm_xen_takes_calls(v->vm)) {
			memcpy(code, mark, sizeof(mark));
			n = sizeof(mark);
		}
		code[n++] = 0x0f;
		code[n++] = 0x01;
		code[n++] = v->cpu->hypercall_modrm;
		code[n++] = 0xc3;
		if (mem_write(v->vm->mem, 0, value & PAGE_FIELD, code, n))
			return 1;
	}
	hv->hypercall = value;
	return 0;
}

static void want(struct vcpu *v, u32 what)
{
	v->hv.wants |= what;
	v->cpu->kick = 1;
}

static void syndbg_want(struct vcpu *v, u32 index)
{
	const u64 *s = v->vm->hv.syndbg;

	v->hv.exit = (struct kvm_hyperv_exit){ .type = KVM_EXIT_HYPERV_SYNDBG };
	v->hv.exit.u.syndbg.msr = index;
	v->hv.exit.u.syndbg.control = s[0];
	v->hv.exit.u.syndbg.status = s[1];
	v->hv.exit.u.syndbg.send_page = s[2];
	v->hv.exit.u.syndbg.recv_page = s[3];
	v->hv.exit.u.syndbg.pending_page = s[4];
	want(v, HV_WANT_EXIT);
}

static int vm_write(struct vcpu *v, int row, u32 index, u64 value, bool host)
{
	struct hv_vm *hv = &v->vm->hv;

	switch (row) {
	case HV_GUEST_OS_ID:
		hv->guest_os_id = value;
		if (!value)
			hv->hypercall &= ~HV_ENABLE;
		return 0;
	case HV_HYPERCALL:
		return hypercall_set(v, value);
	case HV_REFERENCE_TSC:
		return reference_tsc_set(v, value);
	case HV_CRASH_P:
		hv->crash[index - rows[row].first] = value;
		return 0;
	case HV_CRASH_CTL:
		if (host)
			hv->crash_ctl = value & CRASH_NOTIFY;
		else if (value & CRASH_NOTIFY)
			want(v, HV_WANT_CRASH);
		return 0;
	case HV_RESET:
		if (value == 1)
			want(v, HV_WANT_RESET);
		return 0;
	case HV_REENLIGHTENMENT:
		hv->reenlightenment = value;
		return 0;
	case HV_TSC_EMULATION_CONTROL:
		hv->emulation_control = value;
		return 0;
	case HV_TSC_EMULATION_STATUS:
		if (value && !host)
			return 1;
		hv->emulation_status = value;
		return 0;
	case HV_TIME_REF_COUNT:
		return !host;
	case HV_SYNDBG_OPTIONS:
		hv->syndbg[5] = value;
		return 0;
	default:
		hv->syndbg[index - rows[HV_SYNDBG_CONTROL].first] = value;
		if (!host && (row == HV_SYNDBG_CONTROL || row == HV_SYNDBG_PENDING))
			syndbg_want(v, index);
		return 0;
	}
}

static int vm_read(struct vcpu *v, int row, u32 index, u64 *value)
{
	struct hv_vm *hv = &v->vm->hv;
	const u32 nth = index - rows[row].first;
	const u64 *field[HV_MSR_COUNT] = {
		[HV_GUEST_OS_ID] = &hv->guest_os_id,
		[HV_HYPERCALL] = &hv->hypercall,
		[HV_REFERENCE_TSC] = &hv->tsc_page,
		[HV_CRASH_P] = row == HV_CRASH_P ? &hv->crash[nth] : NULL,
		[HV_CRASH_CTL] = &hv->crash_ctl,
		[HV_REENLIGHTENMENT] = &hv->reenlightenment,
		[HV_TSC_EMULATION_CONTROL] = &hv->emulation_control,
		[HV_TSC_EMULATION_STATUS] = &hv->emulation_status,
		[HV_SYNDBG_CONTROL] = &hv->syndbg[0],
		[HV_SYNDBG_STATUS] = &hv->syndbg[1],
		[HV_SYNDBG_SEND] = &hv->syndbg[2],
		[HV_SYNDBG_RECV] = &hv->syndbg[3],
		[HV_SYNDBG_PENDING] = &hv->syndbg[4],
		[HV_SYNDBG_OPTIONS] = &hv->syndbg[5],
	};

	*value = row == HV_TIME_REF_COUNT ? time_now(v) : field[row] ? *field[row] : 0;
	return 0;
}

static u64 thread_runtime(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
	return ts.tv_sec * 10000000ull + ts.tv_nsec / 100;
}

/* In whichever mode the APIC is. 0 or 1. */
static int apic_access(struct vcpu *v, unsigned offset, u32 *value, bool is_write)
{
	u64 base, x2apic = BIT_ULL(10), wide = *value;
	int r;

	if (!v->lapic)
		return 1;
	base = lapic_base_get(v->lapic);
	if (!(base & x2apic)) {
		r = lapic_mmio(v->lapic, (base & PAGE_FIELD) + offset, value, 4, is_write);
		return r ? 1 : 0;
	}
	if (is_write)
		return lapic_msr_write(v->lapic, 0x800 + (offset >> 4), wide) ? 1 : 0;
	r = lapic_msr_read(v->lapic, 0x800 + (offset >> 4), &wide);
	*value = (u32)wide;
	return r ? 1 : 0;
}

static int apic_write(struct vcpu *v, unsigned offset, u64 value)
{
	u32 low = (u32)value, high = value >> 32;
	int r;

	if (offset == APIC_ICR && v->lapic && lapic_base_get(v->lapic) & BIT_ULL(10))
		r = lapic_msr_write(v->lapic, 0x830, value) ? 1 : 0;
	else if (offset == APIC_ICR && apic_access(v, APIC_ICR2, &high, true))
		r = 1;
	else
		r = apic_access(v, offset, &low, true);
	if (!r && lapic_pending(v->lapic))
		v->cpu->kick = 1;
	return r;
}

static int apic_read(struct vcpu *v, unsigned offset, u64 *value)
{
	u32 low = 0, high = 0;
	int r = apic_access(v, offset, &low, false);

	if (!r && offset == APIC_ICR && !(lapic_base_get(v->lapic) & BIT_ULL(10)))
		r = apic_access(v, APIC_ICR2, &high, false);
	*value = (u64)high << 32 | low;
	return r;
}

/* Only the first word, which says that no EOI is needed, is cleared. */
static int assist_set(struct vcpu *v, u64 value)
{
	u32 zero = 0;

	if (value & HV_ENABLE && mem_write(v->vm->mem, 0, value & PAGE_FIELD, &zero, sizeof(zero)))
		return 1;
	v->hv.assist = value;
	return 0;
}

static int vcpu_write(struct vcpu *v, int row, u32 index, u64 value, bool host)
{
	switch (row) {
	case HV_VP_INDEX:
		if (!host || (u32)value >= VM_MAX_VCPUS)
			return 1;
		v->hv.vp_index = (u32)value;
		return 0;
	case HV_VP_RUNTIME:
		if (host)
			v->hv.runtime_offset = value - thread_runtime();
		return !host;
	case HV_TSC_FREQUENCY:
	case HV_APIC_FREQUENCY:
		return !host;
	case HV_EOI:
		return apic_write(v, APIC_EOI, value);
	case HV_ICR:
		return apic_write(v, APIC_ICR, value);
	case HV_TPR:
		return apic_write(v, APIC_TPR, value);
	case HV_VP_ASSIST_PAGE:
		return assist_set(v, value);
	default:
		return hv_synic_write(v, index, value, host);
	}
}

static int vcpu_read(struct vcpu *v, int row, u32 index, u64 *value, bool host)
{
	switch (row) {
	case HV_VP_INDEX:
		*value = v->hv.vp_index;
		return 0;
	case HV_VP_RUNTIME:
		*value = thread_runtime() + v->hv.runtime_offset;
		return 0;
	case HV_TSC_FREQUENCY:
		*value = v->cpu->tsc_khz * 1000ull;
		return 0;
	case HV_APIC_FREQUENCY:
		*value = APIC_HZ;
		return 0;
	case HV_EOI:
		return apic_read(v, APIC_EOI, value);
	case HV_ICR:
		return apic_read(v, APIC_ICR, value);
	case HV_TPR:
		return apic_read(v, APIC_TPR, value);
	case HV_VP_ASSIST_PAGE:
		*value = v->hv.assist;
		return 0;
	default:
		return hv_synic_read(v, index, value, host);
	}
}

int hv_msr_write(struct vcpu *v, u32 index, u64 value, bool host)
{
	int row = row_find(index), r;

	if (row < 0 || (!host && !is_allowed(v, &rows[row])))
		return 1;
	if (rows[row].scope == SCOPE_VCPU)
		return vcpu_write(v, row, index, value, host);
	pthread_mutex_lock(&v->vm->clock_lock);
	r = vm_write(v, row, index, value, host);
	pthread_mutex_unlock(&v->vm->clock_lock);
	return r;
}

int hv_msr_read(struct vcpu *v, u32 index, u64 *value, bool host)
{
	int row = row_find(index), r;

	if (row < 0 || (!host && !is_allowed(v, &rows[row])))
		return 1;
	if (rows[row].scope == SCOPE_VCPU)
		return vcpu_read(v, row, index, value, host);
	pthread_mutex_lock(&v->vm->clock_lock);
	r = vm_read(v, row, index, value);
	pthread_mutex_unlock(&v->vm->clock_lock);
	return r;
}

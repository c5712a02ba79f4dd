/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* KVM_GET/SET_MSRS, the list of MSRs to save, and feature MSRs. */
#include <errno.h>
#include <linux/kvm_para.h>
#include <asm/kvm_para.h>
#include <stdlib.h>
#include <string.h>

#include "cpu/x86/event.h"
#include "cpu/x86/msr.h"
#include "kvm/kvm.h"
#include "kvm/usercopy.h"

#define LIST_MAX 512

#define MSR_TSC		      0x10
#define MSR_TSC_ADJUST	      0x3b
#define MSR_UCODE_REV	      0x8b
#define MSR_ARCH_CAPABILITIES 0x10a
#define MSR_TSC_DEADLINE      0x6e0
#define MSR_DE_CFG	      0xc0011029

/* MSRs of the hypervisor and of the APIC, which the processor's own table does not know. */
static const u32 platform_list[] = {
	MSR_KVM_WALL_CLOCK, MSR_KVM_SYSTEM_TIME, MSR_KVM_WALL_CLOCK_NEW, MSR_KVM_SYSTEM_TIME_NEW,
	MSR_TSC_DEADLINE,   MSR_KVM_STEAL_TIME,	 MSR_KVM_PV_EOI_EN,	 MSR_KVM_POLL_CONTROL,
};

static bool list_has(const u32 *list, unsigned n, u32 index)
{
	while (n--) {
		if (list[n] == index)
			return true;
	}
	return false;
}

static unsigned list_make(u32 *list)
{
	unsigned n = x86_msr_list(list, LIST_MAX);

	if (n > LIST_MAX)
		n = LIST_MAX;
	n += hv_msr_list(list + n, LIST_MAX - n);
	for (unsigned i = 0; i < ARRAY_SIZE(platform_list) && n < LIST_MAX; i++) {
		if (!list_has(list, n, platform_list[i]))
			list[n++] = platform_list[i];
	}
	return n;
}

/* The count is told also when the list does not fit. */
static long list_out(struct call *c, const u32 *list, unsigned n)
{
	struct kvm_msr_list head;
	unsigned room;

	if (user_read(&head, c->arg, sizeof(head)))
		return -EFAULT;
	room = head.nmsrs;
	head.nmsrs = n;
	if (user_write(c->arg, &head, sizeof(head)))
		return -EFAULT;
	if (room < n)
		return -E2BIG;
	return user_write(c->arg + sizeof(head), list, n * sizeof(list[0]));
}

long msrs_index_list(struct call *c)
{
	u32 list[LIST_MAX];

	return list_out(c, list, list_make(list));
}

/* What the processor offers as a feature, readable on the system descriptor. */
static unsigned feature_list(const struct system *sys, u32 *list)
{
	unsigned n = 0;

	if (sys->host.amd)
		list[n++] = MSR_DE_CFG;
	list[n++] = MSR_UCODE_REV;
	list[n++] = MSR_ARCH_CAPABILITIES;
	return n;
}

long msrs_feature_list(struct call *c)
{
	u32 list[3];

	return list_out(c, list, feature_list(c->sys, list));
}

/* Run over the entries that were copied in; returns how many went well. */
typedef bool msr_entry_fn(struct x86_cpu *cpu, struct kvm_msr_entry *e, const struct system *sys);

static bool entry_get(struct x86_cpu *cpu, struct kvm_msr_entry *e, const struct system *sys)
{
	u64 value;

	(void)sys;
	if (x86_msr_read(cpu, e->index, &value, true) != X86_OK)
		return false;
	e->data = value;
	return true;
}

static bool entry_get_feature(struct x86_cpu *cpu, struct kvm_msr_entry *e,
			      const struct system *sys)
{
	u32 list[3];

	return list_has(list, feature_list(sys, list), e->index) && entry_get(cpu, e, sys);
}

static bool entry_set(struct x86_cpu *cpu, struct kvm_msr_entry *e, const struct system *sys)
{
	struct vcpu *v = cpu->owner;

	(void)sys;
	if (e->index == MSR_TSC ? !tsc_set_by_user(v, e->data)
				: x86_msr_write(cpu, e->index, e->data, true) != X86_OK)
		return false;
	if (e->index == MSR_TSC || e->index == MSR_TSC_ADJUST)
		v->clock_stale = true;
	return true;
}

static long entries_run(struct call *c, struct x86_cpu *cpu, msr_entry_fn *fn, bool write_back)
{
	struct kvm_msr_entry entries[VM_MAX_MSRS];
	struct kvm_msrs head;
	hva_t at = c->arg + sizeof(head);
	size_t bytes;
	unsigned n;

	if (user_read(&head, c->arg, sizeof(head)))
		return -EFAULT;
	if (head.nmsrs >= VM_MAX_MSRS)
		return -E2BIG;
	bytes = head.nmsrs * sizeof(entries[0]);
	if (user_read(entries, at, bytes))
		return -EFAULT;
	for (n = 0; n < head.nmsrs && fn(cpu, &entries[n], c->sys); n++)
		;
	if (write_back && user_write(at, entries, bytes))
		return -EFAULT;
	return n;
}

long msrs_get(struct call *c)
{
	long r;

	c->vcpu->host_access = true;
	r = entries_run(c, c->vcpu->cpu, entry_get, true);
	c->vcpu->host_access = false;
	return r;
}

long msrs_set(struct call *c)
{
	long r;

	c->vcpu->host_access = true;
	r = entries_run(c, c->vcpu->cpu, entry_set, false);
	c->vcpu->host_access = false;
	vcpu_state_changed(c->vcpu);
	return r;
}

/* The value of a feature MSR is that of a processor after power-on. */
long msrs_get_features(struct call *c)
{
	struct x86_cpu *cpu;
	long r;

	if (posix_memalign((void **)&cpu, 64, sizeof(*cpu)))
		return -ENOMEM;
	memset(cpu, 0, sizeof(*cpu));
	cpu->full = true;
	cpu->intel = c->sys->host.intel;
	x86_reset(cpu, false);
	r = entries_run(c, cpu, entry_get_feature, true);
	free(cpu);
	return r;
}

/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* All state of a virtual processor, by name: registers, segments, events, local APIC, MSRs, vector state. */
#include "vmm/save/save.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MSRS_MAX 1024u

#define MSR_TSC		   0x10u
#define MSR_WALL_CLOCK_OLD 0x11u
#define MSR_WALL_CLOCK	   0x4b564d00u
#define MSR_TSC_DEADLINE   0x6e0u
#define MSR_HV_FIRST	   0x40000000u /* those of Hyper-V act on other state: this machine has none */
#define MSR_HV_LAST	   0x400000ffu

#define F(member) DEVICE_FIELD(struct saved_processor, member)
#define SEGMENT(seg)                                                                               \
	F(sregs.seg.base), F(sregs.seg.limit), F(sregs.seg.selector), F(sregs.seg.type),           \
		F(sregs.seg.present), F(sregs.seg.dpl), F(sregs.seg.db), F(sregs.seg.s),           \
		F(sregs.seg.l), F(sregs.seg.g), F(sregs.seg.avl), F(sregs.seg.unusable)

static const struct device_field fixed_fields[] = {
	F(regs.rax),
	F(regs.rbx),
	F(regs.rcx),
	F(regs.rdx),
	F(regs.rsi),
	F(regs.rdi),
	F(regs.rsp),
	F(regs.rbp),
	F(regs.r8),
	F(regs.r9),
	F(regs.r10),
	F(regs.r11),
	F(regs.r12),
	F(regs.r13),
	F(regs.r14),
	F(regs.r15),
	F(regs.rip),
	F(regs.rflags),
	SEGMENT(cs),
	SEGMENT(ds),
	SEGMENT(es),
	SEGMENT(fs),
	SEGMENT(gs),
	SEGMENT(ss),
	SEGMENT(tr),
	SEGMENT(ldt),
	F(sregs.gdt.base),
	F(sregs.gdt.limit),
	F(sregs.idt.base),
	F(sregs.idt.limit),
	F(sregs.cr0),
	F(sregs.cr2),
	F(sregs.cr3),
	F(sregs.cr4),
	F(sregs.cr8),
	F(sregs.efer),
	F(sregs.apic_base),
	F(sregs.flags),
	F(sregs.pdptrs),
	F(debug.db),
	F(debug.dr6),
	F(debug.dr7),
	F(events.exception.injected),
	F(events.exception.nr),
	F(events.exception.has_error_code),
	F(events.exception.pending),
	F(events.exception.error_code),
	F(events.interrupt.injected),
	F(events.interrupt.nr),
	F(events.interrupt.soft),
	F(events.interrupt.shadow),
	F(events.nmi.injected),
	F(events.nmi.pending),
	F(events.nmi.masked),
	F(events.sipi_vector),
	F(events.flags),
	F(events.smi.smm),
	F(events.smi.pending),
	F(events.smi.smm_inside_nmi),
	F(events.smi.latched_init),
	F(events.triple_fault.pending),
	F(events.exception_has_payload),
	F(events.exception_payload),
	F(mp.mp_state),
	F(xcrs.xcrs[0].value),
	F(xsave.region),
	F(lapic.regs),
	F(tsc_khz),
	F(tsc),
	F(tsc_offset),
};

static int request(const struct saved_processor *s, unsigned long number, const void *argument,
		   const char *name, struct why *why)
{
	return machine_request(s->cpu->machine, s->cpu->fd, number, argument, name, why);
}

struct one_msr {
	struct kvm_msrs head;
	struct kvm_msr_entry entry;
};

static bool msr_read(const struct saved_processor *s, u32 index, u64 *value)
{
	struct one_msr one = { .head = { .nmsrs = 1 }, .entry = { .index = index } };

	if (kvmdev_ioctl_ptr(s->cpu->machine->dev, s->cpu->fd, KVM_GET_MSRS, &one) != 1)
		return false;
	*value = one.entry.data;
	return true;
}

static bool msr_write(const struct saved_processor *s, u32 index, u64 value)
{
	struct one_msr one = { .head = { .nmsrs = 1 }, .entry = { .index = index, .data = value } };

	return kvmdev_ioctl_ptr(s->cpu->machine->dev, s->cpu->fd, KVM_SET_MSRS, &one) == 1;
}

/* Not among the fields: the counter, which has its own, and what writes to the guest's memory when it is set. */
static bool is_left_out(u32 index)
{
	return index == MSR_TSC || index == MSR_WALL_CLOCK || index == MSR_WALL_CLOCK_OLD ||
	       (index >= MSR_HV_FIRST && index <= MSR_HV_LAST);
}

/* Those of the device's list that this processor has. */
static int msrs_list(struct saved_processor *s, struct why *why)
{
	const struct kvmdev *dev = s->cpu->machine->dev;
	struct kvm_msr_list *list = calloc(1, sizeof(*list) + MSRS_MAX * sizeof(list->indices[0]));
	int r;
	u64 value;

	s->msrs = calloc(MSRS_MAX, sizeof(*s->msrs));
	s->msr_indices = calloc(MSRS_MAX, sizeof(*s->msr_indices));
	if (!list || !s->msrs || !s->msr_indices) {
		free(list);
		return why_set(why, ENOMEM, "no memory for the state of a processor");
	}
	list->nmsrs = MSRS_MAX;
	r = machine_request(s->cpu->machine, dev->fd, KVM_GET_MSR_INDEX_LIST, list,
			    "KVM_GET_MSR_INDEX_LIST", why);
	for (u32 i = 0; r >= 0 && i < list->nmsrs; i++)
		if (!is_left_out(list->indices[i]) && msr_read(s, list->indices[i], &value))
			s->msr_indices[s->msr_count++] = list->indices[i];
	free(list);
	return r;
}

static int fields_make(struct saved_processor *s, struct why *why)
{
	const unsigned fixed = ARRAY_SIZE(fixed_fields);

	s->fields = calloc(fixed + s->msr_count, sizeof(*s->fields));
	s->names = calloc(s->msr_count + 1, sizeof(*s->names));
	if (!s->fields || !s->names)
		return why_set(why, ENOMEM, "no memory for the state of a processor");
	memcpy(s->fields, fixed_fields, sizeof(fixed_fields));
	for (unsigned i = 0; i < s->msr_count; i++) {
		snprintf(s->names[i], sizeof(s->names[i]), "msr.%08x", s->msr_indices[i]);
		/* Beside the structure: offsets are modulo the address space. */
		s->fields[fixed + i] = (struct device_field){
			s->names[i], (size_t)((uintptr_t)&s->msrs[i] - (uintptr_t)s), 8, 0
		};
	}
	s->device = (struct device){ .name = "processor",
				     .instance = s->cpu->index,
				     .version = 1,
				     .self = s,
				     .fields = s->fields,
				     .field_count = fixed + s->msr_count };
	return 0;
}

int saved_processor_init(struct saved_processor *s, const struct processor *cpu, struct why *why)
{
	int r;

	memset(s, 0, sizeof(*s));
	s->cpu = cpu;
	r = msrs_list(s, why);
	if (r >= 0)
		r = fields_make(s, why);
	if (r < 0)
		saved_processor_free(s);
	return r;
}

void saved_processor_free(struct saved_processor *s)
{
	free(s->msrs);
	free(s->msr_indices);
	free(s->fields);
	free(s->names);
	memset(s, 0, sizeof(*s));
}

/* False: the device does not tell, and counters are set one by one. */
static bool tsc_offset_access(const struct saved_processor *s, unsigned long number, u64 *offset)
{
	const struct kvm_device_attr attr = { .group = KVM_VCPU_TSC_CTRL,
					      .attr = KVM_VCPU_TSC_OFFSET,
					      .addr = (uintptr_t)offset };

	return kvmdev_ioctl_ptr(s->cpu->machine->dev, s->cpu->fd, number, &attr) == 0;
}

int saved_processor_fetch(struct saved_processor *s, struct why *why)
{
	int r = request(s, KVM_GET_MP_STATE, &s->mp, "KVM_GET_MP_STATE", why);

	if (r >= 0)
		r = request(s, KVM_GET_REGS, &s->regs, "KVM_GET_REGS", why);
	if (r >= 0)
		r = request(s, KVM_GET_SREGS2, &s->sregs, "KVM_GET_SREGS2", why);
	if (r >= 0)
		r = request(s, KVM_GET_DEBUGREGS, &s->debug, "KVM_GET_DEBUGREGS", why);
	if (r >= 0)
		r = request(s, KVM_GET_VCPU_EVENTS, &s->events, "KVM_GET_VCPU_EVENTS", why);
	if (r >= 0)
		r = request(s, KVM_GET_XCRS, &s->xcrs, "KVM_GET_XCRS", why);
	if (r >= 0)
		r = request(s, KVM_GET_XSAVE, &s->xsave, "KVM_GET_XSAVE", why);
	if (r >= 0 && s->cpu->machine->has_irqchip)
		r = request(s, KVM_GET_LAPIC, &s->lapic, "KVM_GET_LAPIC", why);
	if (r >= 0)
		r = request(s, KVM_GET_TSC_KHZ, NULL, "KVM_GET_TSC_KHZ", why);
	if (r < 0)
		return r;
	s->tsc_khz = (u32)r;
	for (unsigned i = 0; i < s->msr_count; i++)
		if (!msr_read(s, s->msr_indices[i], &s->msrs[i]))
			return why_set(why, EIO, "the device %s does not tell %s of processor %u",
				       s->cpu->machine->dev->path, s->names[i], s->cpu->index);
	if (!msr_read(s, MSR_TSC, &s->tsc))
		return why_set(why, EIO, "the device does not tell the time-stamp counter");
	if (!tsc_offset_access(s, KVM_GET_DEVICE_ATTR, &s->tsc_offset))
		s->tsc_offset = 0;
	return 0;
}

/* The first processor's counter goes on where it was; the others are as far from it as they were. */
static int tsc_put(const struct saved_processor *s, const struct saved_processor *first,
		   struct why *why)
{
	const struct machine *vm = s->cpu->machine;
	const int khz = kvmdev_ioctl(vm->dev, s->cpu->fd, KVM_GET_TSC_KHZ, 0);
	u64 now, offset;

	if (khz != (int)s->tsc_khz &&
	    kvmdev_ioctl(vm->dev, s->cpu->fd, KVM_SET_TSC_KHZ, s->tsc_khz) < 0)
		return why_set(why, EINVAL,
			       "the guest's time-stamp counter runs at %u kHz, and the device %s "
			       "cannot scale its %d kHz to that",
			       s->tsc_khz, vm->dev->path, khz);
	if (s != first && tsc_offset_access(first, KVM_GET_DEVICE_ATTR, &now)) {
		offset = s->tsc_offset - first->tsc_offset + now;
		if (tsc_offset_access(s, KVM_SET_DEVICE_ATTR, &offset))
			return 0;
	}
	return msr_write(s, MSR_TSC, s->tsc)
		       ? 0
		       : why_set(why, EINVAL, "the device refuses the time-stamp counter");
}

/* An MSR that cannot be written may have the right value all the same. */
static int msr_put(const struct saved_processor *s, unsigned i, struct why *why)
{
	u64 value;

	if (msr_write(s, s->msr_indices[i], s->msrs[i]))
		return 0;
	if (msr_read(s, s->msr_indices[i], &value) && value == s->msrs[i])
		return 0;
	return why_set(why, EINVAL, "the device %s refuses 0x%llx for %s of processor %u",
		       s->cpu->machine->dev->path, (unsigned long long)s->msrs[i], s->names[i],
		       s->cpu->index);
}

/* The deadline is compared with the counter: it comes after it. */
static int msrs_put(const struct saved_processor *s, const struct saved_processor *first,
		    struct why *why)
{
	int r = 0;

	for (unsigned i = 0; i < s->msr_count && r == 0; i++)
		if (s->msr_indices[i] != MSR_TSC_DEADLINE)
			r = msr_put(s, i, why);
	return r < 0 ? r : tsc_put(s, first, why);
}

static int deadline_put(const struct saved_processor *s, struct why *why)
{
	int r = 0;

	for (unsigned i = 0; i < s->msr_count && r == 0; i++)
		if (s->msr_indices[i] == MSR_TSC_DEADLINE)
			r = msr_put(s, i, why);
	return r;
}

int saved_processor_put(const struct saved_processor *s, const struct saved_processor *first,
			struct why *why)
{
	struct kvm_vcpu_events events = s->events;
	struct kvm_xcrs xcrs = { .nr_xcrs = 1 };
	int r = request(s, KVM_SET_SREGS2, &s->sregs, "KVM_SET_SREGS2", why);

	xcrs.xcrs[0].value = s->xcrs.xcrs[0].value;
	/* What the flags leave out would be as it is after a reset: all of it is wanted. */
	events.flags |= KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SIPI_VECTOR;
	if (r >= 0)
		r = request(s, KVM_SET_XCRS, &xcrs, "KVM_SET_XCRS", why);
	if (r >= 0)
		r = request(s, KVM_SET_XSAVE, &s->xsave, "KVM_SET_XSAVE", why);
	if (r >= 0)
		r = msrs_put(s, first, why);
	if (r >= 0 && s->cpu->machine->has_irqchip)
		r = request(s, KVM_SET_LAPIC, &s->lapic, "KVM_SET_LAPIC", why);
	if (r >= 0)
		r = deadline_put(s, why);
	if (r >= 0)
		r = request(s, KVM_SET_REGS, &s->regs, "KVM_SET_REGS", why);
	if (r >= 0)
		r = request(s, KVM_SET_DEBUGREGS, &s->debug, "KVM_SET_DEBUGREGS", why);
	if (r >= 0)
		r = request(s, KVM_SET_MP_STATE, &s->mp, "KVM_SET_MP_STATE", why);
	if (r >= 0)
		r = request(s, KVM_SET_VCPU_EVENTS, &events, "KVM_SET_VCPU_EVENTS", why);
	return r < 0 ? r : 0;
}

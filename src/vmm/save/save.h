/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The state of a machine that the KVM device keeps, as devices with named fields: processors, interrupt controllers, timer, clock. */
/*
 * It is fetched from the KVM device into these structures, saved and restored like any device (vmm/dev/state.h), and put
 * back: fetch and put are the requests, in the order that the KVM API wants. Nothing of the machine runs meanwhile.
 */
#ifndef VMM_SAVE_SAVE_H
#define VMM_SAVE_SAVE_H

#include "vmm/dev/device.h"
#include "vmm/machine.h"

struct saved_processor {
	struct device device;
	const struct processor *cpu;
	struct kvm_regs regs;
	struct kvm_sregs2 sregs;
	struct kvm_debugregs debug;
	struct kvm_vcpu_events events;
	struct kvm_mp_state mp;
	struct kvm_xcrs xcrs;
	struct kvm_xsave xsave;
	struct kvm_lapic_state lapic;
	u32 tsc_khz;
	u64 tsc;	/* at the moment of fetching */
	u64 tsc_offset; /* tells how far the processors' counters are from each other */
	u64 *msrs;
	u32 *msr_indices; /* field "msr.xxxxxxxx" each */
	unsigned msr_count;
	struct device_field *fields;
	char (*names)[16];
};

struct saved_chips {
	struct device device;
	const struct machine *vm;
	struct kvm_pic_state pic[2];
	struct kvm_ioapic_state ioapic;
	struct kvm_pit_state2 pit;
	u64 clock; /* of kvmclock, nanoseconds */
};

/* After CPUID was set: it decides which MSRs there are. 0 or -errno with one line. */
int saved_processor_init(struct saved_processor *s, const struct processor *cpu, struct why *why);
void saved_processor_free(struct saved_processor *s); /* also one of zeros */
int saved_processor_fetch(struct saved_processor *s, struct why *why);

/* @first: the saved state of processor 0, which was put before, or @s itself: counters keep their distances. */
int saved_processor_put(const struct saved_processor *s, const struct saved_processor *first,
			struct why *why);

void saved_chips_init(struct saved_chips *s, const struct machine *vm);
int saved_chips_fetch(struct saved_chips *s, struct why *why);
int saved_chips_put(const struct saved_chips *s, struct why *why);

/*
 * What a processor was made with (its CPUID) goes with it, and one that shall be made with it is refused where this
 * device does not offer a feature of it.
 */
int cpuid_check_offered(const struct kvmdev *dev, const struct kvm_cpuid2 *wanted, struct why *why);

#endif

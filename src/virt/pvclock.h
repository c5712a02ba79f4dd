/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* kvmclock: the paravirtual clock pages (Documentation/virt/kvm/x86/msr.rst, struct pvclock_vcpu_time_info). */
#ifndef VIRT_PVCLOCK_H
#define VIRT_PVCLOCK_H

#include "mem/mem.h"

/* One per VM: nanoseconds of guest time = CLOCK_MONOTONIC(_RAW) + offset. */
struct pvclock_vm {
	s64 offset_ns;
	u64 wall_msr; /* last MSR_KVM_WALL_CLOCK(_NEW) */
};

struct pvclock_vcpu {
	u64 msr; /* MSR_KVM_SYSTEM_TIME(_NEW): address | enable */
	u32 version;
};

u64 pvclock_now(const struct pvclock_vm *vm);
void pvclock_set(struct pvclock_vm *vm, u64 guest_ns);

/* Write the wall-clock structure at @gpa. */
int pvclock_write_wall(const struct pvclock_vm *vm, struct mem *mem, gpa_t gpa);

/* Write the vCPU's time structure, with PVCLOCK_TSC_STABLE_BIT: @tsc is the guest TSC now. */
int pvclock_write_time(const struct pvclock_vm *vm, struct pvclock_vcpu *v, struct mem *mem,
		       u64 tsc, u32 tsc_khz, bool guest_paused);

#endif

/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* kvmclock: the paravirtual clock pages (Documentation/virt/kvm/x86/msr.rst, struct pvclock_vcpu_time_info). */
#ifndef VIRT_PVCLOCK_H
#define VIRT_PVCLOCK_H

#include "mem/mem.h"

/*
 * One per VM, zero-initialised, then pvclock_set(vm, 0): nanoseconds of guest time = CLOCK_MONOTONIC_RAW + offset.
 * Written to guests is a straight line through (tsc, ns): every page gets the same line, so that vCPUs
 * agree to the nanosecond; a new line is drawn only when the old one is off (clock set, TSC written).
 *
 * Threads: the caller serializes all functions of one VM.
 */
struct pvclock_vm {
	s64 offset_ns;
	u64 wall_msr; /* last MSR_KVM_WALL_CLOCK(_NEW) */
	u64 line_tsc, line_ns;
	u32 line_khz; /* 0: no line */
};

struct pvclock_vcpu {
	u64 msr; /* MSR_KVM_SYSTEM_TIME(_NEW): address | enable */
	u64 tsc_ahead; /* of this vCPU's TSC before the VM's, that of the line: a guest may set one vCPU's */
	u32 version;
};

u64 pvclock_now(const struct pvclock_vm *vm);
void pvclock_set(struct pvclock_vm *vm, u64 guest_ns);

/* Multiplier and shift: ns = ((shift < 0 ? tsc >> -shift : tsc << shift) * mult) >> 32. @tsc_khz not 0. */
void pvclock_scale(u32 tsc_khz, u32 *mult, s8 *shift);

/* Real time at which guest time was 0, ns. */
u64 pvclock_boot(const struct pvclock_vm *vm);

/* Write the wall-clock structure at @gpa. 0 or -EFAULT. */
int pvclock_write_wall(const struct pvclock_vm *vm, struct mem *mem, gpa_t gpa);

/*
 * Write the vCPU's time structure, with PVCLOCK_TSC_STABLE_BIT: @tsc is the vCPU's TSC now. @guest_paused
 * sets PVCLOCK_GUEST_STOPPED, which stays until the guest clears it. 0 (also when not enabled), -EINVAL for
 * tsc_khz 0, -EFAULT.
 */
int pvclock_write_time(struct pvclock_vm *vm, struct pvclock_vcpu *v, struct mem *mem, u64 tsc,
		       u32 tsc_khz, bool guest_paused);

#endif

/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The guest's CPUID: what may be offered, what was set, and what follows from it. */
#ifndef CPU_X86_CPUID_H
#define CPU_X86_CPUID_H

#include "cpu/x86/host.h"
#include "cpu/x86/state.h"

#define X86_CPUID_INDEXED                                                                          \
	BIT(0) /* .flags: index is significant (KVM_CPUID_FLAG_SIGNIFCANT_INDEX) */

/*
 * KVM_GET_SUPPORTED_CPUID: the host's leaves through the filter of cpuid.def, plus the KVM leaves
 * 0x40000000 and 0x40000001. Returns the number of entries; at most @max are stored.
 */
unsigned x86_cpuid_supported(const struct x86_host *host, struct x86_cpuid_entry *out,
			     unsigned max);

/* KVM_SET_CPUID2: store, and derive phys_bits, virt_bits, vendor. 0 or -E2BIG, -EINVAL. */
int x86_cpuid_set(struct x86_cpu *cpu, const struct x86_cpuid_entry *entries, unsigned n);

/* The entry that CPUID would show, or NULL (with the vendor's rule for leaves out of range). */
const struct x86_cpuid_entry *x86_cpuid_find(const struct x86_cpu *cpu, u32 function, u32 index);

/* Whether a feature bit is set in the guest's CPUID; @reg 0-3 = EAX EBX ECX EDX. */
bool x86_cpuid_has(const struct x86_cpu *cpu, u32 function, u32 index, unsigned reg, unsigned bit);

/* What @e shows now: the bits that follow the state of the vCPU are put in. */
void x86_cpuid_now(const struct x86_cpu *cpu, struct x86_cpuid_entry *e);

/* Run CPUID: dynamic bits (OSXSAVE, APIC enable, XSAVE sizes) included. The APIC ID is what was set. */
void x86_cpuid_run(struct x86_cpu *cpu, u32 function, u32 index, u32 out[4]);

/* Bits of CR4, EFER and XCR0 that the guest's CPUID allows. */
u64 x86_cr4_allowed(const struct x86_cpu *cpu);
u64 x86_efer_allowed(const struct x86_cpu *cpu);
u64 x86_xcr0_allowed(const struct x86_cpu *cpu);

#endif

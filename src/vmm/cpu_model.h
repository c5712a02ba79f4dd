/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* --cpu host|intel|amd[,+flag,-flag...]: from the supported CPUID to what a vCPU is given. */
#ifndef VMM_CPU_MODEL_H
#define VMM_CPU_MODEL_H

#include <linux/kvm.h>

#include "base/types.h"
#include "vmm/why.h"

/* Edit the supported list for processor @index of @count; +flag may also ask for what is in @emulated. 0 or -EINVAL. */
int cpu_model_apply(struct kvm_cpuid2 *cpuid, struct kvm_cpuid2 *emulated, const char *spec,
		    unsigned index, unsigned count, struct why *why);

/* Whether @spec asks for the flag by name. */
bool cpu_model_asks(const char *spec, const char *flag);

/* Bits of a physical address that these leaves promise. */
unsigned cpu_model_phys_bits(const struct kvm_cpuid2 *cpuid);

#endif

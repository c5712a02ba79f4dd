/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* What the host's processor can execute natively, cut down by cpu-mask. */
#ifndef CPU_X86_HOST_H
#define CPU_X86_HOST_H

#include "base/types.h"

/* Rows: x86-64 levels and single features of the host that the translator and CPUID ask for. */
struct x86_host {
	bool intel, amd;
	bool xsave, xsaveopt, xsavec; /* XSAVE and enabled by the OS */
	bool xinuse;		      /* XGETBV with ECX = 1 */
	bool avx, avx2, avx512, fp16, bmi1, bmi2, fsgsbase, lahf64, cx16, erms, fsrm;
	u64 xcr0;	/* state components that the guest may have: 3, 7 or 0xe7 */
	u32 xsave_size; /* bytes of the standard-format area for xcr0 */
	u32 mxcsr_mask;
	u8 phys_bits, virt_bits;
	u8 level;      /* x86-64-vN that is left after masking: 1-4 */
	u8 mask_level; /* level that the mask named; 0: no mask, what is beyond every level stays */
	bool rdseed_off; /* the host's kernel has taken RDSEED away: it is broken here */
};

/*
 * Fill @host from CPUID, XGETBV and @mask: NULL, or "x86-64-v2", "x86-64-v3", "x86-64-v4": instructions
 * beyond that level are taken away, also those that no level has. Returns 0, -EINVAL for an unknown mask,
 * -ENOTSUP when what is truly required is missing (*why says it in one line).
 */
int x86_host_probe(struct x86_host *host, const char *mask, const char **why);

/*
 * The frequency of the host's TSC; 0 when it is not invariant. Where CPUID does not tell, it is measured from the first probe
 * on, and this waits until that was 2 ms ago: it is asked for when a VM is made, not before.
 */
u32 x86_host_tsc_khz(const struct x86_host *host);

/* CPUID as the masked host shows it: bits of features that the mask took away are cleared. */
void x86_host_cpuid(const struct x86_host *host, u32 function, u32 index, u32 out[4]);

#endif

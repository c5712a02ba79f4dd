/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Model-specific registers by the table msr.def. */
#ifndef CPU_X86_MSR_H
#define CPU_X86_MSR_H

#include "cpu/x86/state.h"

/*
 * Read or write as RDMSR/WRMSR would (host false) or as KVM_GET_MSRS/KVM_SET_MSRS (host true: read-only MSRs
 * may be set, unsupported ones fail). X86_OK; X86_FAULT (#GP, only with host false raises it); X86_FULL; X86_EXIT.
 * A write of the TSC or TSC_ADJUST is also told to platform->wrmsr(), whose answer does not matter.
 */
enum x86_status x86_msr_read(struct x86_cpu *cpu, u32 index, u64 *value, bool host);
enum x86_status x86_msr_write(struct x86_cpu *cpu, u32 index, u64 value, bool host);

/* KVM_GET_MSR_INDEX_LIST: rows marked as saved. Returns the number; at most @max are stored. */
unsigned x86_msr_list(u32 *out, unsigned max);

/* Power-on values of all rows that are stored in struct x86_cpu (not after INIT). */
void x86_msr_reset(struct x86_cpu *cpu);

/* Name of an MSR for messages, or NULL. */
const char *x86_msr_name(u32 index);

/* @host at the guest's rate, as cpu->tsc_ratio says. */
static inline u64 x86_tsc_scale(u64 ratio, u64 host)
{
	return unlikely(ratio) ? (u64)((unsigned __int128)host * ratio >> 48) : host;
}

/* Guest TSC now. Leaf. */
u64 x86_tsc_read(const struct x86_cpu *cpu);

#endif

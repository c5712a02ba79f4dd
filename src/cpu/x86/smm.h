/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* System management mode: entry by SMI, and which address space memory is looked up in. */
#ifndef CPU_X86_SMM_H
#define CPU_X86_SMM_H

#include "cpu/x86/state.h"

/* In or out, by the processor or by KVM_SET_VCPU_EVENTS: SMM has an address space of slots of its own. */
void x86_smm_changed(struct x86_cpu *cpu, bool in_smm);

/*
 * Take an SMI at an instruction boundary: save the state at SMBASE + 0xfe00, go to SMBASE + 0x8000. Full context.
 * Where there is no memory the state is lost, as it is in KVM.
 */
void x86_smm_enter(struct x86_cpu *cpu);

#endif

/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* x87, SSE and AVX state of a vCPU as images: reset, ioctl formats. */
#ifndef CPU_X86_FPU_H
#define CPU_X86_FPU_H

#include "cpu/x86/state.h"

struct kvm_fpu;

/*
 * cpu->xsave is an XSAVE area in the host's standard format. XSTATE_BV says which components are
 * there; a clear bit means "initial state" and the bytes may be stale. A host without XSAVE keeps
 * XSTATE_BV = 3: FXSAVE does not touch the header. All of this is for full context only.
 */

/* Power-on state: FCW 0x37f, MXCSR 0x1f80, everything else empty and zero. */
void x86_fpu_reset(struct x86_cpu *cpu);

/* KVM_GET_FPU and KVM_SET_FPU. Reserved bits of MXCSR are dropped. */
void x86_fpu_get(const struct x86_cpu *cpu, struct kvm_fpu *fpu);
void x86_fpu_set(struct x86_cpu *cpu, const struct kvm_fpu *fpu);

/* KVM_GET_XSAVE(2): the standard-format image; what does not fit into @size is left out. */
void x86_xsave_get(const struct x86_cpu *cpu, void *image, size_t size);

/*
 * KVM_SET_XSAVE: 0, or -EINVAL for components that the host does not have, a compact image, reserved
 * header or MXCSR bits, or an image shorter than its components. Nothing is changed on failure.
 */
int x86_xsave_set(struct x86_cpu *cpu, const void *image, size_t size);

/* Components that are not in their initial state (what XGETBV with ECX 1 gives, before XCR0). */
u64 x86_fpu_xinuse(const struct x86_cpu *cpu);

/* Components that this host's XCR0 enables and that the guest may have: 1 to 0xe7. Leaf. */
u64 x86_fpu_host_xcr0(void);

#endif

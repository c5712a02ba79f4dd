/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The bytes of cpu->xsave: offsets of the legacy region, of the header, and of the host's components. */
#ifndef CPU_X86_XSTATE_H
#define CPU_X86_XSTATE_H

#include "cpu/x86/state.h"

/* SDM "Legacy region of an XSAVE area" and "XSAVE header". */
#define XS_FCW	      0
#define XS_FSW	      2
#define XS_FTW	      4 /* abridged: bit i set when physical register i is not empty */
#define XS_FOP	      6
#define XS_FIP	      8
#define XS_FDP	      16
#define XS_MXCSR      24
#define XS_MXCSR_MASK 28
#define XS_ST	      32  /* 8 x 16 bytes, ST0 first */
#define XS_XMM	      160 /* 16 x 16 bytes */
#define XS_LEGACY     416 /* what of the 512 bytes is state */
#define XS_HEADER     512
#define XS_BV	      512
#define XS_COMP_BV    520
#define XS_EXTENDED   576

#define XC_X87	    BIT_ULL(0)
#define XC_SSE	    BIT_ULL(1)
#define XC_AVX	    BIT_ULL(2)
#define XC_LEGACY   (XC_X87 | XC_SSE)
#define XC_ZMM_HIGH BIT_ULL(6) /* bits 256 to 511 of ZMM0-15 */
#define XC_COUNT    8

#define FCW_INIT   0x037f
#define MXCSR_INIT 0x1f80

/* Asked of the host once; the same in every process on it. */
struct xstate_layout {
	u64 xcr0; /* components that exist: 1 to 0xe7 */
	u32 mxcsr_mask;
	u16 offset[XC_COUNT], size[XC_COUNT]; /* standard format */
	bool align64[XC_COUNT];		      /* in the compact format */
};

const struct xstate_layout *xstate_layout(void);

/* Write the initial state into the components of @which whose XSTATE_BV bit is clear. */
void xstate_complete(struct x86_cpu *cpu, u64 which);

static inline u16 xs_get16(const struct x86_cpu *cpu, unsigned offset)
{
	u16 v;

	__builtin_memcpy(&v, cpu->xsave + offset, sizeof(v));
	return v;
}

static inline u32 xs_get32(const struct x86_cpu *cpu, unsigned offset)
{
	u32 v;

	__builtin_memcpy(&v, cpu->xsave + offset, sizeof(v));
	return v;
}

static inline u64 xs_get64(const struct x86_cpu *cpu, unsigned offset)
{
	u64 v;

	__builtin_memcpy(&v, cpu->xsave + offset, sizeof(v));
	return v;
}

static inline void xs_set16(struct x86_cpu *cpu, unsigned offset, u16 v)
{
	__builtin_memcpy(cpu->xsave + offset, &v, sizeof(v));
}

static inline void xs_set32(struct x86_cpu *cpu, unsigned offset, u32 v)
{
	__builtin_memcpy(cpu->xsave + offset, &v, sizeof(v));
}

static inline void xs_set64(struct x86_cpu *cpu, unsigned offset, u64 v)
{
	__builtin_memcpy(cpu->xsave + offset, &v, sizeof(v));
}

#define FSW_EXCEPTIONS 0x003f
#define FSW_ES	       0x0080 /* one that is not masked waits */
#define FSW_B	       0x8000

/*
 * Control, status and tag word, as the processor loads them: reserved bits have their values, the error summary follows from what is
 * pending and not masked. The pointers and the opcode become 0.
 */
void xstate_x87_set(struct x86_cpu *cpu, u16 fcw, u16 fsw, u8 ftw);

#endif

/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The mode word: everything besides the bytes that decides how an instruction is translated. */
#ifndef CPU_X86_MODE_H
#define CPU_X86_MODE_H

#include "cpu/x86/state.h"

/* Data permissions (WP, SMEP, SMAP, NX, A/D) are no mode: they decide which tags are filled. */
#define MODE_CPL_SHIFT 0 /* 2 bits */
#define MODE_CPL       0x3u
#define MODE_64	       BIT(2) /* EFER.LMA and CS.L */
#define MODE_32	       BIT(3) /* CS.D (never with MODE_64) */
#define MODE_SS32      BIT(4) /* stack pointer is ESP; 64-bit mode: RSP */
#define MODE_PE	       BIT(5)
#define MODE_VM	       BIT(6) /* v8086 */
#define MODE_FLAT      BIT(7) /* CS, DS, ES, SS: base 0 and limit 4 GiB (always in 64-bit mode) */
#define MODE_TS	       BIT(8)
#define MODE_EM	       BIT(9)
#define MODE_MP	       BIT(10)
#define MODE_SSE       BIT(11) /* CR4.OSFXSR */
#define MODE_XSAVE     BIT(12) /* CR4.OSXSAVE */
#define MODE_AVX       BIT(13) /* OSXSAVE and XCR0[2:1] = 11 */
#define MODE_AVX512    BIT(14) /* and XCR0[7:5] = 111 */
#define MODE_STEP      BIT(15) /* TF, shadow, DR7 in use, guest debug: one instruction, slow exit */
#define MODE_AC	       BIT(16) /* CR0.AM, EFLAGS.AC and CPL 3 */
#define MODE_LMA       BIT(17)
#define MODE_SMM       BIT(18)
#define MODE_XM	       BIT(19) /* CR4.OSXMMEXCPT */
#define MODE_NE	       BIT(20) /* CR0.NE */

#define MODE_TSD BIT(21) /* RDTSC is a helper: CR4.TSD and CPL 3, or another rate than the host's */

/* Recompute cpu->mode and cpu->cpl; called after every change of what it is made of. */
void x86_mode_update(struct x86_cpu *cpu);

static inline bool x86_is_64(const struct x86_cpu *cpu)
{
	return cpu->mode & MODE_64;
}

/* Bytes of the stack pointer that the current mode uses: 2, 4 or 8. */
static inline unsigned x86_stack_size(const struct x86_cpu *cpu)
{
	return cpu->mode & MODE_64 ? 8 : cpu->mode & MODE_SS32 ? 4 : 2;
}

/*
 * The accessor pair. x86_gpr() truncates by mode: outside 64-bit mode the upper half of a register, which a switch
 * out of 64-bit mode leaves there, has no part in what an instruction does. Where the size is the instruction's,
 * x86_gpr_sized() and x86_gpr_write() have it. The raw pair takes all 64 bits in any mode, and each use says why in
 * a comment that begins with "raw:". tools/check-registers finds everything else.
 */
static inline u64 x86_gpr(const struct x86_cpu *cpu, unsigned r)
{
	return x86_is_64(cpu) ? cpu->gpr[r] : (u32)cpu->gpr[r];
}

static inline u64 x86_gpr_raw(const struct x86_cpu *cpu, unsigned r)
{
	return cpu->gpr[r];
}

static inline void x86_gpr_raw_set(struct x86_cpu *cpu, unsigned r, u64 v)
{
	cpu->gpr[r] = v;
}

/* Read the low @size bytes (1 means the low byte; AH..BH: see x86_gpr8()). */
static inline u64 x86_gpr_sized(const struct x86_cpu *cpu, unsigned r, unsigned size)
{
	u64 v = cpu->gpr[r];

	return size == 8 ? v : size == 4 ? (u32)v : size == 2 ? (u16)v : (u8)v;
}

/* Write as hardware does: 4 bytes clear the upper half, 1 and 2 keep the rest. */
static inline void x86_gpr_write(struct x86_cpu *cpu, unsigned r, u64 v, unsigned size)
{
	u64 keep = size == 2 ? ~0xffffull : size == 1 ? ~0xffull : 0;

	cpu->gpr[r] = (cpu->gpr[r] & keep) | (size == 8 ? v : size == 4 ? (u32)v : v & ~keep);
}

/* EDX:EAX, in which RDMSR and its kind have 64 bits in every mode. */
static inline u64 x86_edx_eax(const struct x86_cpu *cpu)
{
	return x86_gpr_sized(cpu, RDX, 4) << 32 | x86_gpr_sized(cpu, RAX, 4);
}

static inline void x86_edx_eax_set(struct x86_cpu *cpu, u64 v)
{
	x86_gpr_write(cpu, RAX, v, 4);
	x86_gpr_write(cpu, RDX, v >> 32, 4);
}

/* RIP cut to the code size of the mode. */
static inline u64 x86_rip_mask(const struct x86_cpu *cpu, u64 rip)
{
	return cpu->mode & MODE_64 ? rip : cpu->mode & MODE_32 ? (u32)rip : (u16)rip;
}

/*
 * Shadows of STI and MOV SS (cpu->shadow) make the next instruction a MODE_STEP one. Whoever
 * executes instructions calls x86_shadow_end() after it; event delivery and HLT do so themselves.
 */
void x86_shadow_begin(struct x86_cpu *cpu, u8 kind);
void x86_shadow_end(struct x86_cpu *cpu);

/* RFLAGS composed from and spread to aflags and f. */
u64 x86_rflags(const struct x86_cpu *cpu);
void x86_rflags_set(struct x86_cpu *cpu, u64 rflags);

#endif

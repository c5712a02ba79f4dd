/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Emitter of x86-64 host code: one small function per instruction form that the translator uses. */
#ifndef ENGINE_X86_EMIT_H
#define ENGINE_X86_EMIT_H

#include "base/types.h"
#include "cpu/x86/state.h" /* register numbers */

/*
 * Code is written through a writable alias of the code cache and runs at another address:
 * exec = write + delta. Running past the end sets .overflow and writes nothing, so that the
 * caller checks once per block.
 */
struct emit {
	u8 *p, *end;
	s64 delta; /* executable address - writable address */
	bool overflow;
};

/* As assert(), where libc must not be called. */
#define leaf_assert(what)                                                                          \
	do {                                                                                       \
		if (unlikely(!(what)))                                                             \
			__builtin_trap();                                                          \
	} while (0)

enum alu { ALU_ADD, ALU_OR, ALU_ADC, ALU_SBB, ALU_AND, ALU_SUB, ALU_XOR, ALU_CMP };
enum cc {
	CC_O,
	CC_NO,
	CC_B,
	CC_AE,
	CC_E,
	CC_NE,
	CC_BE,
	CC_A,
	CC_S,
	CC_NS,
	CC_P,
	CC_NP,
	CC_L,
	CC_GE,
	CC_LE,
	CC_G
};

static inline void emit8(struct emit *e, u8 b)
{
	if (unlikely(e->p >= e->end)) {
		e->overflow = true;
		return;
	}
	*e->p++ = b;
}

static inline void emit32(struct emit *e, u32 v)
{
	if (unlikely(e->end - e->p < 4)) {
		e->overflow = true;
		return;
	}
	__builtin_memcpy(e->p, &v, 4);
	e->p += 4;
}

static inline void emit64(struct emit *e, u64 v)
{
	emit32(e, v);
	emit32(e, v >> 32);
}

static inline void emit_bytes(struct emit *e, const u8 *b, unsigned n)
{
	while (n--)
		emit8(e, *b++);
}

static inline u64 emit_pc(const struct emit *e)
{
	return (u64)e->p + e->delta;
}

static inline void emit_rex(struct emit *e, bool w, unsigned reg, unsigned index, unsigned base)
{
	u8 rex = 0x40 | w << 3 | (reg >> 3) << 2 | (index >> 3) << 1 | base >> 3;

	if (rex != 0x40)
		emit8(e, rex);
}

/* ModRM (and SIB, displacement) for [base + disp]. */
static inline void emit_modrm_disp(struct emit *e, unsigned reg, unsigned base, s32 disp,
				   bool no_disp8)
{
	bool sib = (base & 7) == RSP;
	unsigned mod = disp == 0 && (base & 7) != RBP ? 0 : disp == (s8)disp && !no_disp8 ? 1 : 2;

	emit8(e, mod << 6 | (reg & 7) << 3 | (sib ? 4 : base & 7));
	if (sib)
		emit8(e, 0x24);
	if (mod == 1)
		emit8(e, disp);
	else if (mod == 2)
		emit32(e, disp);
}

static inline void emit_modrm_base(struct emit *e, unsigned reg, unsigned base, s32 disp)
{
	emit_modrm_disp(e, reg, base, disp, false);
}

/* op reg, [base + disp] and the like; @w: 64-bit. */
static inline void emit_op_base(struct emit *e, bool w, u8 op, unsigned reg, unsigned base,
				s32 disp)
{
	emit_rex(e, w, reg, 0, base);
	emit8(e, op);
	emit_modrm_base(e, reg, base, disp);
}

/* ModRM, SIB and displacement for [base + (index << shift) + disp]; @index is not RSP. */
static inline void emit_modrm_index(struct emit *e, unsigned reg, unsigned base, unsigned index,
				    unsigned shift, s32 disp, bool no_disp8)
{
	unsigned mod = disp == 0 && (base & 7) != RBP ? 0 : disp == (s8)disp && !no_disp8 ? 1 : 2;

	leaf_assert(index != RSP);
	emit8(e, mod << 6 | (reg & 7) << 3 | 4);
	emit8(e, shift << 6 | (index & 7) << 3 | (base & 7));
	if (mod == 1)
		emit8(e, disp);
	else if (mod == 2)
		emit32(e, disp);
}

/* op reg, [base + index + disp] */
static inline void emit_op_index(struct emit *e, bool w, u8 op, unsigned reg, unsigned base,
				 unsigned index, s32 disp)
{
	emit_rex(e, w, reg, index, base);
	emit8(e, op);
	emit_modrm_index(e, reg, base, index, 0, disp, false);
}

/* op reg, gs:[disp]: the vCPU. */
static inline void emit_op_gs(struct emit *e, bool w, u8 op, unsigned reg, u32 disp)
{
	emit8(e, 0x65);
	emit_rex(e, w, reg, 0, 0);
	emit8(e, op);
	emit8(e, (reg & 7) << 3 | 4);
	emit8(e, 0x25);
	emit32(e, disp);
}

/* op reg, gs:[base + disp] */
static inline void emit_op_gs_base(struct emit *e, bool w, u8 op, unsigned reg, unsigned base,
				   u32 disp)
{
	leaf_assert((base & 7) != RSP);
	emit8(e, 0x65);
	emit_rex(e, w, reg, 0, base);
	emit8(e, op);
	emit8(e, 0x80 | (reg & 7) << 3 | (base & 7));
	emit32(e, disp);
}

static inline void emit_load_gs(struct emit *e, unsigned reg, u32 disp)
{
	emit_op_gs(e, true, 0x8b, reg, disp);
}

static inline void emit_store_gs(struct emit *e, unsigned reg, u32 disp)
{
	emit_op_gs(e, true, 0x89, reg, disp);
}

static inline void emit_store32_gs(struct emit *e, unsigned reg, u32 disp)
{
	emit_op_gs(e, false, 0x89, reg, disp);
}

static inline void emit_store8_gs_imm(struct emit *e, u32 disp, u8 v)
{
	emit_op_gs(e, false, 0xc6, 0, disp);
	emit8(e, v);
}

static inline void emit_cmp8_gs_imm(struct emit *e, u32 disp, u8 v)
{
	emit_op_gs(e, false, 0x80, 7, disp);
	emit8(e, v);
}

/* movzx dst32, byte gs:[disp] */
static inline void emit_movzx8_gs(struct emit *e, unsigned dst, u32 disp)
{
	emit8(e, 0x65);
	emit_rex(e, false, dst, 0, 0);
	emit_bytes(e, (const u8[]){ 0x0f, 0xb6, (u8)((dst & 7) << 3 | 4), 0x25 }, 4);
	emit32(e, disp);
}

/* cmp word gs:[disp], 0 */
static inline void emit_cmp16_gs_zero(struct emit *e, u32 disp)
{
	emit8(e, 0x66);
	emit_op_gs(e, false, 0x83, 7, disp);
	emit8(e, 0);
}

static inline void emit_alu_gs(struct emit *e, enum alu op, unsigned reg, u32 disp)
{
	emit_op_gs(e, true, op << 3 | 3, reg, disp);
}

static inline void emit_mov(struct emit *e, unsigned dst, unsigned src)
{
	emit_rex(e, true, src, 0, dst);
	emit8(e, 0x89);
	emit8(e, 0xc0 | (src & 7) << 3 | (dst & 7));
}

static inline void emit_mov32(struct emit *e, unsigned dst, unsigned src)
{
	emit_rex(e, false, src, 0, dst);
	emit8(e, 0x89);
	emit8(e, 0xc0 | (src & 7) << 3 | (dst & 7));
}

static inline void emit_movzx16(struct emit *e, unsigned dst, unsigned src)
{
	emit_rex(e, false, dst, 0, src);
	emit8(e, 0x0f);
	emit8(e, 0xb7);
	emit8(e, 0xc0 | (dst & 7) << 3 | (src & 7));
}

static inline void emit_mov_imm32(struct emit *e, unsigned dst, u32 v)
{
	emit_rex(e, false, 0, 0, dst);
	emit8(e, 0xb8 | (dst & 7));
	emit32(e, v);
}

static inline void emit_mov_imm64(struct emit *e, unsigned dst, u64 v)
{
	emit_rex(e, true, 0, 0, dst);
	emit8(e, 0xb8 | (dst & 7));
	emit64(e, v);
}

static inline void emit_alu_imm(struct emit *e, bool w, enum alu op, unsigned dst, s32 v)
{
	emit_rex(e, w, 0, 0, dst);
	emit8(e, v == (s8)v ? 0x83 : 0x81);
	emit8(e, 0xc0 | op << 3 | (dst & 7));
	if (v == (s8)v)
		emit8(e, v);
	else
		emit32(e, v);
}

static inline void emit_alu(struct emit *e, enum alu op, unsigned dst, unsigned src)
{
	emit_rex(e, true, src, 0, dst);
	emit8(e, op << 3 | 1);
	emit8(e, 0xc0 | (src & 7) << 3 | (dst & 7));
}

enum shift { SHIFT_SHL = 4, SHIFT_SHR = 5, SHIFT_SAR = 7 };

static inline void emit_shift(struct emit *e, bool w, enum shift op, unsigned dst, u8 n)
{
	emit_rex(e, w, 0, 0, dst);
	emit8(e, 0xc1);
	emit8(e, 0xc0 | op << 3 | (dst & 7));
	emit8(e, n);
}

/* imul dst, dst, v */
static inline void emit_imul_imm(struct emit *e, unsigned dst, s32 v)
{
	emit_rex(e, true, dst, 0, dst);
	emit8(e, 0x69);
	emit8(e, 0xc0 | (dst & 7) << 3 | (dst & 7));
	emit32(e, v);
}

#define EMIT_NO_REG 0xff

/* lea dst, [base + index * scale + disp]; either register may be EMIT_NO_REG; @adsize 4 cuts the sum to 32 bits. */
static inline void emit_lea(struct emit *e, unsigned dst, unsigned base, unsigned index,
			    unsigned scale, s32 disp, unsigned adsize)
{
	unsigned b = base == EMIT_NO_REG ? 5 : base, i = index == EMIT_NO_REG ? 4 : index;
	unsigned ss = scale == 8 ? 3 : scale == 4 ? 2 : scale == 2 ? 1 : 0;
	unsigned mod = base == EMIT_NO_REG	   ? 0
		       : disp == 0 && (b & 7) != 5 ? 0
		       : disp == (s8)disp	   ? 1
						   : 2;

	emit_rex(e, adsize == 8, dst, i, b);
	emit8(e, 0x8d);
	if (index == EMIT_NO_REG && base != EMIT_NO_REG && (b & 7) != 4) {
		emit8(e, mod << 6 | (dst & 7) << 3 | (b & 7));
	} else {
		emit8(e, mod << 6 | (dst & 7) << 3 | 4);
		emit8(e, ss << 6 | (i & 7) << 3 | (b & 7));
	}
	if (mod == 1)
		emit8(e, disp);
	else if (mod == 2 || base == EMIT_NO_REG)
		emit32(e, disp);
}

/* Jumps: the displacement is returned for emit_patch(). Targets known by executable address take emit_jmp_to(). */
static inline u8 *emit_jcc(struct emit *e, enum cc cc)
{
	emit8(e, 0x0f);
	emit8(e, 0x80 | cc);
	emit32(e, 0);
	return e->p - 4;
}

static inline u8 *emit_jmp(struct emit *e)
{
	emit8(e, 0xe9);
	emit32(e, 0);
	return e->p - 4;
}

static inline u8 *emit_jcc8(struct emit *e, u8 op)
{
	emit8(e, op);
	emit8(e, 0);
	return e->p - 1;
}

/* Make the 32-bit (8-bit) displacement at @site reach the current position. */
static inline void emit_patch(struct emit *e, u8 *site)
{
	s32 d = e->p - (site + 4);

	if (!e->overflow)
		__builtin_memcpy(site, &d, 4);
}

static inline void emit_patch8(struct emit *e, u8 *site)
{
	leaf_assert(e->p - (site + 1) <= 127);
	if (!e->overflow)
		*site = e->p - (site + 1);
}

static inline void emit_rel32_to(struct emit *e, u64 target)
{
	emit32(e, target - (emit_pc(e) + 4));
}

static inline void emit_jmp_to(struct emit *e, u64 target)
{
	emit8(e, 0xe9);
	emit_rel32_to(e, target);
}

static inline void emit_jcc_to(struct emit *e, enum cc cc, u64 target)
{
	emit8(e, 0x0f);
	emit8(e, 0x80 | cc);
	emit_rel32_to(e, target);
}

static inline void emit_call_to(struct emit *e, u64 target)
{
	emit8(e, 0xe8);
	emit_rel32_to(e, target);
}

/* Absolute call through RAX: C functions may be far away. */
#define CALL_C_TAIL 2 /* bytes behind the address */
static inline void emit_call_c(struct emit *e, const void *fn)
{
	emit_mov_imm64(e, RAX, (u64)fn);
	emit8(e, 0xff);
	emit8(e, 0xd0);
}

/* Arithmetic flags to and from cpu->aflags by way of RAX, which is kept in @tmp. No other flag is touched. */
static inline void emit_flags_save(struct emit *e, unsigned tmp, u32 aflags)
{
	emit_mov(e, tmp, RAX);
	emit8(e, 0x9f);					    /* lahf */
	emit_bytes(e, (const u8[]){ 0x0f, 0x90, 0xc0 }, 3); /* seto al */
	emit8(e, 0x66);
	emit_op_gs(e, false, 0x89, RAX, aflags);
	emit_mov(e, RAX, tmp);
}

static inline void emit_flags_load(struct emit *e, unsigned tmp, u32 aflags)
{
	emit_mov(e, tmp, RAX);
	emit8(e, 0x65); /* movzx eax, word gs:[aflags] */
	emit_bytes(e, (const u8[]){ 0x0f, 0xb7, 0x04, 0x25 }, 4);
	emit32(e, aflags);
	emit_bytes(e, (const u8[]){ 0x04, 0x7f, 0x9e }, 3); /* add al, 127; sahf */
	emit_mov(e, RAX, tmp);
}

#endif

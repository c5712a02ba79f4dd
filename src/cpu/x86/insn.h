/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* One decoded instruction, as the translator hands it to a helper in cpu/x86. */
#ifndef CPU_X86_INSN_H
#define CPU_X86_INSN_H

#include "cpu/x86/state.h"

#define INSN_NO_REG 0xff
#define INSN_RIP    0xfe /* base register is RIP */

enum x86_insn_prefix {
	INSN_LOCK = BIT(0),
	INSN_REP = BIT(1),    /* F3 */
	INSN_REPNE = BIT(2),  /* F2 */
	INSN_OPSIZE = BIT(3), /* 66 */
	INSN_ADSIZE = BIT(4), /* 67 */
	INSN_REX = BIT(5),    /* a REX prefix is there: byte registers 4-7 are SPL..DIL */
	INSN_REX_W = BIT(6),
};

enum x86_insn_access { INSN_READ = BIT(0), INSN_WRITE = BIT(1) };

/* How the bytes of a memory operand are chosen by a mask (fault suppression). */
enum x86_insn_mask {
	INSN_MASK_NONE,
	INSN_MASK_K,	     /* AVX-512 opmask register .mask, element .elem bytes */
	INSN_MASK_K_PACKED,  /* compress/expand: popcount(mask) elements from the start */
	INSN_MASK_VEC,	     /* VMASKMOV: sign bits of vector register .mask */
	INSN_MASK_BROADCAST, /* one element, read when any mask bit is set */
};

/* The moves between memory and a general register or immediate: devices are driven by these. */
enum x86_insn_move {
	MOVE_NONE,
	MOVE_LOAD,
	MOVE_LOAD_ZERO,
	MOVE_LOAD_SIGN,
	MOVE_STORE_REG,
	MOVE_STORE_IMM
};

#define INSN_MAX 15 /* bytes */

struct x86_insn {
	u8 bytes[INSN_MAX];
	u8 len;
	u16 op;	      /* enum x86_op for helpers */
	u16 prefixes; /* enum x86_insn_prefix */
	u8 opcode;    /* last opcode byte (the map is implied by .op) */
	u8 modrm;
	u8 opsize; /* effective operand size in bytes: 1 (byte forms), 2, 4, 8 */
	u8 adsize; /* effective address size in bytes: 2, 4, 8 */
	u8 mode64; /* decoded in 64-bit mode */
	u8 seg;	   /* enum x86_sreg of the explicit memory operand, override applied */
	bool seg_override;
	u8 reg;	      /* ModRM.reg with REX.R / opcode register with REX.B for +r forms */
	u8 rm;	      /* ModRM.rm with REX.B, when it is a register */
	bool has_mem; /* ModRM (or moffs) names memory */
	u8 base, index,
		scale; /* INSN_NO_REG, INSN_RIP, or enum x86_reg; scale 1, 2, 4, 8; VSIB: vector register number in index */
	u16 memsize;   /* bytes of the explicit memory operand */
	u8 access;     /* enum x86_insn_access of the explicit memory operand */
	u8 mask_kind, mask, elem;
	u8 mask_bits; /* INSN_MASK_BROADCAST: how many bits of the mask count */
	u8 align; /* an operand that is not so aligned is #GP(0), before anything else about its address; 0: any */
	u8 move;	 /* enum x86_insn_move */
	bool vector;	 /* reads or writes x87, MMX, SSE or AVX state */
	bool zeroing;	 /* EVEX.z */
	bool bit_offset; /* BT, BTS, BTR, BTC m, r: the register reaches beyond the operand */
	u8 vvvv;	 /* third operand register */
	u8 vlen;	 /* vector length in bytes: 16, 32, 64; 0 for none */
	u8 form;	 /* of the block that the record belongs to (enum block_form) */
	bool exact;	 /* and whether that keeps all flags */
	u16 page_off;	 /* of the first byte in its page */
	s16 window;	 /* the checked address is so far below the operand's */
	u16 reach; /* bytes from there that other instructions access by the same check; 0: none do */
	u16 range;  /* the engine's cached range that serves it, plus one; 0: none */
	bool stack; /* memsize and access are of what it does to the stack, not of its operand */
	u16 imm2;   /* ENTER's level, far pointer's selector, EXTRQ's second */
	s64 disp;   /* displacement or moffs */
	u64 imm; /* first immediate, sign-extended as the instruction does; far pointer: offset */
};

#endif

/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* One decoded instruction with what the translator needs beyond struct x86_insn. */
#ifndef ENGINE_X86_DECODE_H
#define ENGINE_X86_DECODE_H

#include "cpu/x86/host.h"
#include "cpu/x86/insn.h"

enum insn_class {
	CLS_NONE, /* no row: #UD */
	CLS_NATIVE,
	CLS_STACK,
	CLS_BRANCH,
	CLS_HELPER,
	CLS_MOVSYS, /* only in the table: the decoder resolves it */
	CLS_NOP,
	CLS_LEA,
	CLS_UD,
};

/* Vector state that the instruction uses: decides #UD and #NM by CR0, CR4, XCR0. */
enum insn_state { STATE_NONE, STATE_X87, STATE_MMX, STATE_SSE, STATE_AVX, STATE_AVX512 };

enum insn_encoding { ENC_LEGACY, ENC_VEX, ENC_EVEX };

/* Where a general register is named in the encoding. */
enum gpr_slot { SLOT_REG, SLOT_RM, SLOT_VVVV, SLOT_OPCODE };

enum branch_kind { BR_NONE, BR_JMP, BR_JCC, BR_CALL, BR_LOOP, BR_IND_JMP, BR_IND_CALL, BR_RET };

struct decoded {
	struct x86_insn insn;
	u8 cls;	       /* enum insn_class */
	u8 state;      /* enum insn_state */
	u8 enc;	       /* enum insn_encoding */
	u8 branch;     /* enum branch_kind */
	u8 cc;	       /* BR_JCC: condition */
	u8 opcode_off; /* of the first opcode byte (0F included), or of the VEX/EVEX prefix */
	u8 modrm_off, imm_off; /* imm_off == len: none */
	u8 disp_off, disp_size,
		imm_size; /* of the displacement and the first immediate, in bytes */
	bool imm_signed;
	bool has_modrm;
	u8 rex;
	bool mandatory_66; /* 66h is a part of the opcode */
	u8 ngpr;
	struct {
		u8 slot; /* enum gpr_slot */
		u8 reg;	 /* enum x86_reg; for AH..BH the register that holds it */
		u8 size;
		u8 rw;	   /* enum x86_insn_access */
		bool high; /* AH, CH, DH, BH */
	} gpr[3];
	bool uses_high; /* some operand is AH..BH: no REX possible */
	/* Arithmetic flags as FL_*: what it needs and what it surely overwrites. */
	u16 fl_read, fl_write;
	u16 gpr_written; /* bits: general registers, also those that the encoding does not name */
};

struct decoder; /* tables of the process: made once */

/* To be called once before decode(). */
void decode_init(void);

/*
 * Decode @n bytes (1-15) for @mode (enum in cpu/x86/mode.h). Returns 0; -1: not an instruction (cls is CLS_UD and
 * out->insn has all bytes that were looked at); -2: more bytes are needed.
 * Uses vector registers: full context only.
 */
int decode(const struct x86_host *host, x86_mode_t mode, const u8 *bytes, unsigned n,
	   struct decoded *out);

/* Name of the instruction in out->insn.bytes, for logs: writes at most @size bytes. */
void decode_print(x86_mode_t mode, const u8 *bytes, unsigned n, char *buf, size_t size);

#endif

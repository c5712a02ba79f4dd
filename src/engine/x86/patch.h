/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Byte patcher: an instruction with other registers and another memory operand. */
#ifndef ENGINE_X86_PATCH_H
#define ENGINE_X86_PATCH_H

#include "engine/x86/decode.h"
#include "engine/x86/emit.h"

#define PATCH_KEEP 0xff

struct patch {
	u8 slot[4]; /* by enum gpr_slot: host register, or PATCH_KEEP */
	u8 base;    /* host register of the operand's host address; PATCH_KEEP: no memory operand */
	u8 index;   /* a register to be added to it, or PATCH_KEEP */
	s32 disp;
	u8 shift; /* of the index, in bits */
};

/*
 * Emit @d for 64-bit mode, whatever mode it was decoded for. Segment and address-size prefixes
 * go, the memory operand becomes [base + disp] or [base + (index << shift) + disp]. A byte register AH..BH allows no register above 7.
 */
void patch_emit(struct emit *e, const struct decoded *d, const struct patch *p);

#endif

/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* FNSTENV, FLDENV, FNSAVE, FRSTOR: the x87 environment in its 14- and 28-byte formats. */
#include "base/bulk.h"
#include "cpu/x86/access.h"
#include "cpu/x86/event.h"
#include "cpu/x86/ops.h"
#include "cpu/x86/xstate.h"

#define FSW_TOP(fsw) ((fsw) >> 11 & 7)
#define TAG_EMPTY    3

/* 32-bit format: seven words; 16-bit format: seven half words. */
#define ENV32 28
#define ENV16 14
#define REGS  80

static bool env_is_16(const struct x86_insn *insn)
{
	return insn->opsize == 2;
}

static enum x86_status x87_allowed(struct x86_cpu *cpu, const struct x86_insn *insn)
{
	if (insn->prefixes & INSN_LOCK || !insn->has_mem)
		return x86_raise_ud(cpu);
	if (cpu->cr0 & (CR0_EM | CR0_TS))
		return x86_raise(cpu, VEC_NM);
	return cpu->full ? X86_OK : X86_FULL;
}

/* Loads wait: a pending exception comes first. With CR0.NE clear it would be IRQ 13: nobody has that. */
static enum x86_status x87_wait(struct x86_cpu *cpu)
{
	xstate_complete(cpu, XC_X87);
	if (xs_get16(cpu, XS_FSW) & FSW_ES && cpu->cr0 & CR0_NE)
		return x86_raise(cpu, VEC_MF);
	return X86_OK;
}

/* Tag of a register that is not empty, by its contents: 0 valid, 1 zero, 2 special. */
static unsigned tag_of(const u8 *reg)
{
	u64 mantissa;
	u16 exponent;

	__builtin_memcpy(&mantissa, reg, 8);
	__builtin_memcpy(&exponent, reg + 8, 2);
	exponent &= 0x7fff;
	if (exponent == 0)
		return mantissa ? 2 : 1;
	return exponent == 0x7fff || !(mantissa >> 63) ? 2 : 0;
}

/* The full tag word: two bits for each physical register. */
static u16 tag_word(const struct x86_cpu *cpu)
{
	unsigned top = FSW_TOP(xs_get16(cpu, XS_FSW)), full = xs_get16(cpu, XS_FTW);
	u16 word = 0;

	for (unsigned i = 0; i < 8; i++) {
		const u8 *reg = cpu->xsave + XS_ST + 16 * ((i - top) & 7);

		word |= (full >> i & 1 ? tag_of(reg) : TAG_EMPTY) << (2 * i);
	}
	return word;
}

static u8 tag_abridge(u16 word)
{
	u8 full = 0;

	for (unsigned i = 0; i < 8; i++)
		if ((word >> (2 * i) & 3) != TAG_EMPTY)
			full |= 1 << i;
	return full;
}

/* The environment; pointers, selectors and opcode are 0 (see fpu_image.c). Returns its size. */
static unsigned env_make(const struct x86_cpu *cpu, bool is_16, u8 *env)
{
	u16 word[3] = { xs_get16(cpu, XS_FCW), xs_get16(cpu, XS_FSW), tag_word(cpu) };

	bulk_zero(env, ENV32);
	for (unsigned i = 0; i < 3; i++) {
		__builtin_memcpy(env + (is_16 ? 2 : 4) * i, &word[i], 2);
		if (!is_16)
			env[4 * i + 2] = env[4 * i + 3] = 0xff;
	}
	if (!is_16)
		env[26] = env[27] = 0xff;
	return is_16 ? ENV16 : ENV32;
}

/* The image has the registers from ST0 on: a new TOP renames them, their bits stay. */
static void top_change(struct x86_cpu *cpu, u16 fsw)
{
	unsigned turn = (FSW_TOP(fsw) - FSW_TOP(xs_get16(cpu, XS_FSW))) & 7;
	u8 old[8 * 16];

	bulk_copy(old, cpu->xsave + XS_ST, sizeof(old));
	for (unsigned i = 0; i < 8 && turn; i++)
		bulk_copy(cpu->xsave + XS_ST + 16 * i, old + 16 * ((i + turn) & 7), 16);
}

/* Load the three words. */
static void env_load(struct x86_cpu *cpu, bool is_16, const u8 *env)
{
	unsigned step = is_16 ? 2 : 4;
	u16 fcw, fsw, tags;

	__builtin_memcpy(&fcw, env, 2);
	__builtin_memcpy(&fsw, env + step, 2);
	__builtin_memcpy(&tags, env + 2 * step, 2);
	top_change(cpu, fsw);
	xstate_x87_set(cpu, fcw, fsw, tag_abridge(tags));
	xs_set64(cpu, XS_BV, xs_get64(cpu, XS_BV) | XC_X87);
}

enum x86_status x86_op_fnstenv(struct x86_cpu *cpu, const struct x86_insn *insn)
{
	enum x86_status st = x87_allowed(cpu, insn);
	unsigned size;
	u8 env[ENV32];

	if (st)
		return st;
	xstate_complete(cpu, XC_X87);
	size = env_make(cpu, env_is_16(insn), env);
	st = x86_image_write(cpu, insn, env, size);
	if (st)
		return st;
	/* All exceptions are masked afterwards. */
	xstate_x87_set(cpu, xs_get16(cpu, XS_FCW) | 0x3f, xs_get16(cpu, XS_FSW),
		       xs_get16(cpu, XS_FTW));
	xs_set64(cpu, XS_BV, xs_get64(cpu, XS_BV) | XC_X87);
	return X86_OK;
}

enum x86_status x86_op_fldenv(struct x86_cpu *cpu, const struct x86_insn *insn)
{
	enum x86_status st = x87_allowed(cpu, insn);
	bool is_16 = env_is_16(insn);
	u8 env[ENV32];

	if (!st)
		st = x87_wait(cpu);
	if (!st)
		st = x86_image_read(cpu, insn, env, is_16 ? ENV16 : ENV32);
	if (st)
		return st;
	env_load(cpu, is_16, env);
	return X86_OK;
}

enum x86_status x86_op_fnsave(struct x86_cpu *cpu, const struct x86_insn *insn)
{
	enum x86_status st = x87_allowed(cpu, insn);
	u8 image[ENV32 + REGS];
	unsigned size;

	if (st)
		return st;
	xstate_complete(cpu, XC_X87);
	size = env_make(cpu, env_is_16(insn), image);
	for (unsigned i = 0; i < 8; i++)
		bulk_copy(image + size + 10 * i, cpu->xsave + XS_ST + 16 * i, 10);
	st = x86_image_write(cpu, insn, image, size + REGS);
	if (st)
		return st;
	top_change(cpu, 0);
	xstate_x87_set(cpu, FCW_INIT, 0, 0); /* as FNINIT: the registers keep their bits */
	xs_set64(cpu, XS_BV, xs_get64(cpu, XS_BV) | XC_X87);
	return X86_OK;
}

enum x86_status x86_op_frstor(struct x86_cpu *cpu, const struct x86_insn *insn)
{
	enum x86_status st = x87_allowed(cpu, insn);
	bool is_16 = env_is_16(insn);
	unsigned size = is_16 ? ENV16 : ENV32;
	u8 image[ENV32 + REGS];

	if (!st)
		st = x87_wait(cpu);
	if (!st)
		st = x86_image_read(cpu, insn, image, size + REGS);
	if (st)
		return st;
	env_load(cpu, is_16, image);
	bulk_zero(cpu->xsave + XS_ST, 8 * 16);
	for (unsigned i = 0; i < 8; i++)
		bulk_copy(cpu->xsave + XS_ST + 16 * i, image + size + 10 * i, 10);
	return X86_OK;
}

/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Rare integer instructions: decimal adjustment, SALC, BOUND, XLAT, CLZERO. */
#include "cpu/x86/access.h"
#include "cpu/x86/event.h"
#include "cpu/x86/mode.h"
#include "cpu/x86/ops.h"

#define AF_FIXED 0x0200 /* bit 1 of RFLAGS, as LAHF stores it */

/* SF, ZF and PF of a byte. Flags that the manual calls undefined are given as 0. */
static u16 flags_of(u8 v)
{
	u8 parity = v ^ v >> 4;

	parity ^= parity >> 2;
	parity ^= parity >> 1;
	return AF_FIXED | (v & 0x80 ? AF_SF : 0) | (v ? 0 : AF_ZF) | (parity & 1 ? 0 : AF_PF);
}

static inline u8 al_read(const struct x86_cpu *cpu)
{
	return (u8)x86_gpr_sized(cpu, RAX, 1);
}

static inline u8 ah_read(const struct x86_cpu *cpu)
{
	return (u8)(x86_gpr_sized(cpu, RAX, 2) >> 8);
}

static inline void ax_write(struct x86_cpu *cpu, u8 ah, u8 al)
{
	x86_gpr_write(cpu, RAX, (u64)ah << 8 | al, 2);
}

/* DAA adds, DAS subtracts: the same corrections with the other sign. */
static enum x86_status decimal_adjust(struct x86_cpu *cpu, int sign)
{
	u8 al = al_read(cpu), old = al;
	bool carry = cpu->aflags & AF_CF, half = cpu->aflags & AF_AF;
	bool cf = false, af = false;

	if ((al & 0xf) > 9 || half) {
		cf = carry || (sign < 0 ? al < 6 : al > 0xf9);
		al += sign * 6;
		af = true;
	}
	if (old > 0x99 || carry) {
		al += sign * 0x60;
		cf = true;
	} else if (sign > 0) {
		cf = false;
	}
	x86_gpr_write(cpu, RAX, al, 1);
	cpu->aflags = flags_of(al) | (cf ? AF_CF : 0) | (af ? AF_AF : 0);
	return X86_OK;
}

enum x86_status x86_op_daa(struct x86_cpu *cpu, const struct x86_insn *insn)
{
	(void)insn;
	return decimal_adjust(cpu, 1);
}

enum x86_status x86_op_das(struct x86_cpu *cpu, const struct x86_insn *insn)
{
	(void)insn;
	return decimal_adjust(cpu, -1);
}

/* AAA and AAS: AF and CF tell of the adjustment. */
static enum x86_status ascii_adjust(struct x86_cpu *cpu, int sign)
{
	bool adjust = (al_read(cpu) & 0xf) > 9 || cpu->aflags & AF_AF;
	u16 ax = (u16)x86_gpr_sized(cpu, RAX, 2);

	if (adjust)
		ax += sign * 0x106;
	ax &= 0xff0f;
	x86_gpr_write(cpu, RAX, ax, 2);
	cpu->aflags = flags_of((u8)ax) | (adjust ? AF_AF | AF_CF : 0);
	return X86_OK;
}

enum x86_status x86_op_aaa(struct x86_cpu *cpu, const struct x86_insn *insn)
{
	(void)insn;
	return ascii_adjust(cpu, 1);
}

enum x86_status x86_op_aas(struct x86_cpu *cpu, const struct x86_insn *insn)
{
	(void)insn;
	return ascii_adjust(cpu, -1);
}

enum x86_status x86_op_aam(struct x86_cpu *cpu, const struct x86_insn *insn)
{
	u8 base = (u8)insn->imm, al = al_read(cpu);

	if (!base)
		return x86_raise(cpu, VEC_DE);
	ax_write(cpu, al / base, al % base);
	cpu->aflags = flags_of(al % base);
	return X86_OK;
}

enum x86_status x86_op_aad(struct x86_cpu *cpu, const struct x86_insn *insn)
{
	u8 al = al_read(cpu) + ah_read(cpu) * (u8)insn->imm;

	ax_write(cpu, 0, al);
	cpu->aflags = flags_of(al);
	return X86_OK;
}

enum x86_status x86_op_salc(struct x86_cpu *cpu, const struct x86_insn *insn)
{
	(void)insn;
	x86_gpr_write(cpu, RAX, cpu->aflags & AF_CF ? 0xff : 0, 1);
	return X86_OK;
}

static inline s32 sign_extend(u32 v, unsigned size)
{
	return size == 2 ? (s16)v : (s32)v;
}

enum x86_status x86_op_bound(struct x86_cpu *cpu, const struct x86_insn *insn)
{
	unsigned size = insn->opsize;
	s32 index = sign_extend(x86_gpr_sized(cpu, insn->reg & 7, 4), size), low, high;
	u64 bounds = 0;
	enum x86_status st;

	st = x86_image_read(cpu, insn, &bounds, 2 * size);
	if (st != X86_OK)
		return st;
	low = sign_extend((u32)bounds, size);
	high = sign_extend((u32)(bounds >> 8 * size), size);
	return index < low || index > high ? x86_raise(cpu, VEC_BR) : X86_OK;
}

static inline u64 address_cut(const struct x86_insn *insn, u64 ea)
{
	return insn->adsize == 8 ? ea : insn->adsize == 4 ? (u32)ea : (u16)ea;
}

enum x86_status x86_op_xlat(struct x86_cpu *cpu, const struct x86_insn *insn)
{
	unsigned seg = insn->seg_override ? insn->seg : SEG_DS;
	u64 ea = address_cut(insn, x86_gpr(cpu, RBX) + al_read(cpu));
	enum x86_status st;
	u8 v;

	st = x86_read_seg(cpu, seg, ea, &v, 1);
	if (st == X86_OK)
		x86_gpr_write(cpu, RAX, v, 1);
	return st;
}

#define CLZERO_BYTES 64u

enum x86_status x86_op_clzero(struct x86_cpu *cpu, const struct x86_insn *insn)
{
	static const u64 zero[CLZERO_BYTES / 8];
	unsigned seg = insn->seg_override ? insn->seg : SEG_DS;
	u64 base = x86_is_64(cpu) && seg < SEG_FS ? 0 : cpu->seg[seg].base;
	u64 ea = address_cut(insn, x86_gpr(cpu, RAX));

	ea -= (ea + base) & (CLZERO_BYTES - 1);

	return x86_write_seg(cpu, seg, ea, zero, CLZERO_BYTES);
}

/* Caches are the host's own; what remains is that the operand must be one that a byte can be read from. */
enum x86_status x86_op_clflush(struct x86_cpu *cpu, const struct x86_insn *insn)
{
	gva_t lin;
	enum x86_status st =
		x86_linear(cpu, insn->seg, x86_effective(cpu, insn), 1, ACC_READ, &lin);

	return st == X86_OK ? x86_probe(cpu, lin, 1, ACC_READ) : st;
}

/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Vector instructions that reach memory element by element: MASKMOV, gather, scatter. */
#include "base/bulk.h"
#include "cpu/x86/align.h"
#include "cpu/x86/event.h"
#include "cpu/x86/mode.h"
#include "cpu/x86/ops.h"
#include "cpu/x86/vector.h"
#include "cpu/x86/xstate.h"

static inline u64 address_cut(const struct x86_insn *insn, u64 ea)
{
	return insn->adsize == 8 ? ea : insn->adsize == 4 ? (u32)ea : (u16)ea;
}

/* --- MASKMOVQ, MASKMOVDQU, VMASKMOVDQU --- */

#define BV_OFFSET 512

/* The legacy 66 prefix or a VEX prefix means XMM registers; VEX.B of the long form extends @*rm. */
static bool maskmov_is_xmm(const struct x86_insn *insn, unsigned *rm)
{
	for (unsigned i = 0; i + 1 < insn->len && insn->bytes[i] != 0x0f; i++) {
		u8 b = insn->bytes[i];

		if (b == 0xc4 && !(insn->bytes[i + 1] & 0x20))
			*rm |= 8;
		if (b == 0x66 || b == 0xc4 || b == 0xc5)
			return true;
	}
	return false;
}

struct mmx_image {
	u16 fcw, fsw;
	u8 ftw, reserved;
	u16 fop;
	u64 fip, fdp;
	u64 mxcsr;
	u64 st[8][2]; /* in the order of the stack: MM i is physical register i, ST0 is TOP */
};

static inline struct mmx_image *mmx_image(struct x86_cpu *cpu)
{
	return (struct mmx_image *)cpu->xsave;
}

static inline bool x87_used(const struct x86_cpu *cpu)
{
	return cpu->xsave[BV_OFFSET] & 1;
}

static u64 mmx_read(struct x86_cpu *cpu, unsigned reg)
{
	const struct mmx_image *m = mmx_image(cpu);

	return x87_used(cpu) ? m->st[(reg - (m->fsw >> 11)) & 7][0] : 0;
}

/* What every MMX instruction does: TOP becomes 0 and all tags valid; the image turns with TOP. */
static void mmx_enter(struct x86_cpu *cpu)
{
	struct mmx_image *m = mmx_image(cpu);
	unsigned top = m->fsw >> 11 & 7;
	u64 old[8][2];

	if (!x87_used(cpu)) { /* the initial state comes into use */
		bulk_zero(m->st, sizeof(m->st));
		m->fcw = 0x37f;
		m->fsw = m->fop = 0;
		m->fip = m->fdp = 0;
		cpu->xsave[BV_OFFSET] |= 1;
		top = 0;
	}
	bulk_copy(old, m->st, sizeof(old));
	for (unsigned i = 0; i < 8; i++) {
		m->st[i][0] = old[(i - top) & 7][0];
		m->st[i][1] = old[(i - top) & 7][1];
	}
	m->fsw &= ~(7u << 11);
	m->ftw = 0xff;
}

struct maskmov {
	u8 data[16] __attribute__((aligned(8))), mask[16] __attribute__((aligned(8)));
	unsigned size, seg;
	u64 ea;
};

/*
 * Whether all of the operand can be written, bytes that the mask leaves out included: manuals leave it open; AMD's processors ask for
 * the whole of it, also under a mask of zeros, and report the first byte that cannot be.
 */
static enum x86_status maskmov_probe(struct x86_cpu *cpu, const struct x86_insn *insn,
				     const struct maskmov *m)
{
	gva_t lin;
	enum x86_status st =
		x86_linear(cpu, m->seg, address_cut(insn, m->ea), m->size, ACC_WRITE, &lin);

	if (!st)
		st = x86_align_operand(cpu, insn, lin);
	return st ? st : x86_probe(cpu, lin, m->size, ACC_WRITE);
}

/* Write each run of bytes whose mask has the top bit. */
static enum x86_status maskmov_write(struct x86_cpu *cpu, const struct x86_insn *insn,
				     const struct maskmov *m)
{
	unsigned i = 0, first;

	while (i < m->size) {
		enum x86_status st;
		gva_t lin;

		if (!(m->mask[i] & 0x80)) {
			i++;
			continue;
		}
		for (first = i; i < m->size && m->mask[i] & 0x80; i++)
			;
		st = x86_linear(cpu, m->seg, address_cut(insn, m->ea + first), i - first, ACC_WRITE,
				&lin);
		if (st == X86_OK)
			st = x86_write(cpu, lin, m->data + first, i - first,
				       ACC_WRITE | ACC_UNALIGNED);
		if (st != X86_OK)
			return st;
	}
	return X86_OK;
}

enum x86_status x86_op_maskmov(struct x86_cpu *cpu, const struct x86_insn *insn)
{
	unsigned rm = insn->rm;
	struct maskmov m = { .size = maskmov_is_xmm(insn, &rm) ? 16 : 8,
			     .seg = insn->seg_override ? insn->seg : SEG_DS,
			     .ea = x86_gpr(cpu, RDI) };
	enum x86_status st;

	if (!cpu->full)
		return X86_FULL;
	if (m.size == 16) {
		x86_vector_read(cpu, insn->reg, 0, m.data, 16);
		x86_vector_read(cpu, rm, 0, m.mask, 16);
	} else {
		if (x87_used(cpu) && mmx_image(cpu)->fsw & FSW_ES && cpu->cr0 & CR0_NE)
			return x86_raise(cpu, VEC_MF);
		*(u64 *)m.data = mmx_read(cpu, insn->reg & 7);
		*(u64 *)m.mask = mmx_read(cpu, rm & 7);
	}
	st = maskmov_probe(cpu, insn, &m);
	if (st == X86_OK)
		st = maskmov_write(cpu, insn, &m);
	if (st == X86_OK && m.size == 8)
		mmx_enter(cpu);
	return st;
}

/* --- gather and scatter --- */

/*
 * Elements are done from the lowest up; each one's mask bit is cleared and its destination written
 * as it is done. A fault or an exit therefore leaves a state from which the same instruction goes on.
 */
struct vsib {
	unsigned n, elem, index_size;
	bool evex;
};

/* VEX and EVEX are told apart by the byte after the legacy prefixes. */
static bool is_evex(const struct x86_insn *insn)
{
	for (unsigned i = 0; i < insn->len; i++) {
		switch (insn->bytes[i]) {
		case 0x62:
			return true;
		case 0xc4:
		case 0xc5:
			return false;
		}
	}
	return false;
}

static struct vsib vsib_make(const struct x86_insn *insn)
{
	struct vsib v = { .elem = insn->elem == 8 ? 8 : 4,
			  .index_size = insn->opcode & 1 ? 8 : 4,
			  .evex = is_evex(insn) };

	v.n = insn->vlen / (v.elem > v.index_size ? v.elem : v.index_size);
	return v;
}

static u64 vsib_address(const struct x86_cpu *cpu, const struct x86_insn *insn,
			const struct vsib *v, unsigned i)
{
	u64 ea = (u64)insn->disp, index = 0;

	x86_vector_read(cpu, insn->index, i * v->index_size, &index, v->index_size);
	if (v->index_size == 4)
		index = (u64)(s64)(s32)index;
	if (insn->base != INSN_NO_REG)
		ea += x86_gpr(cpu, insn->base & 15);
	return address_cut(insn, ea + index * (insn->scale ? insn->scale : 1));
}

static bool mask_test(const struct x86_cpu *cpu, const struct x86_insn *insn, const struct vsib *v,
		      unsigned i)
{
	u8 top;

	if (v->evex)
		return x86_opmask_read(cpu, insn->mask) >> i & 1;
	x86_vector_read(cpu, insn->vvvv, (i + 1) * v->elem - 1, &top, 1);
	return top & 0x80;
}

static void mask_clear(struct x86_cpu *cpu, const struct x86_insn *insn, const struct vsib *v,
		       unsigned i)
{
	const u64 zero = 0;

	if (v->evex)
		x86_opmask_write(cpu, insn->mask, x86_opmask_read(cpu, insn->mask) & ~BIT_ULL(i));
	else
		x86_vector_write(cpu, insn->vvvv, i * v->elem, &zero, v->elem);
}

/* Clear [from, widest register) of @reg. */
static void vector_clear_above(struct x86_cpu *cpu, unsigned reg, unsigned from)
{
	const u64 zero = 0;

	for (u64 old; from < 64; from += 8) {
		x86_vector_read(cpu, reg, from, &old, 8);
		if (old) /* what is 0 already need not come into use */
			x86_vector_write(cpu, reg, from, &zero, 8);
	}
}

static enum x86_status element_move(struct x86_cpu *cpu, const struct x86_insn *insn,
				    const struct vsib *v, unsigned i, unsigned access)
{
	enum x86_status st;
	u64 data = 0;
	gva_t lin;

	st = x86_linear(cpu, insn->seg, vsib_address(cpu, insn, v, i), v->elem, access, &lin);
	if (st != X86_OK)
		return st;
	if (access & ACC_WRITE) {
		x86_vector_read(cpu, insn->reg, i * v->elem, &data, v->elem);
		return x86_write(cpu, lin, &data, v->elem, access | ACC_UNALIGNED);
	}
	st = x86_read(cpu, lin, &data, v->elem, access | ACC_UNALIGNED);
	if (st == X86_OK)
		x86_vector_write(cpu, insn->reg, i * v->elem, &data, v->elem);
	return st;
}

static enum x86_status elements_move(struct x86_cpu *cpu, const struct x86_insn *insn,
				     const struct vsib *v, unsigned access)
{
	for (unsigned i = 0; i < v->n; i++) {
		enum x86_status st;

		if (mask_test(cpu, insn, v, i)) {
			st = element_move(cpu, insn, v, i, access);
			if (st != X86_OK)
				return st;
			/* The element is done for good: a restart does not replay its device. */
			x86_replay_forget(cpu);
		}
		mask_clear(cpu, insn, v, i);
	}
	return X86_OK;
}

/* Registers that must differ, and k0, which is no mask here. */
static bool vsib_is_valid(const struct x86_insn *insn, const struct vsib *v, bool gather)
{
	if (v->evex)
		return insn->mask && (!gather || insn->reg != insn->index);
	return insn->reg != insn->index && insn->reg != insn->vvvv && insn->index != insn->vvvv;
}

enum x86_status x86_op_gather(struct x86_cpu *cpu, const struct x86_insn *insn)
{
	const struct vsib v = vsib_make(insn);
	enum x86_status st;

	if (!vsib_is_valid(insn, &v, true))
		return x86_raise_ud(cpu);
	if (!cpu->full)
		return X86_FULL;
	st = elements_move(cpu, insn, &v, ACC_READ);
	if (st != X86_OK)
		return st;
	vector_clear_above(cpu, insn->reg, v.n * v.elem);
	if (v.evex)
		x86_opmask_write(cpu, insn->mask, 0);
	else
		vector_clear_above(cpu, insn->vvvv, v.n * v.elem);
	return X86_OK;
}

enum x86_status x86_op_scatter(struct x86_cpu *cpu, const struct x86_insn *insn)
{
	const struct vsib v = vsib_make(insn);
	enum x86_status st;

	if (!vsib_is_valid(insn, &v, false))
		return x86_raise_ud(cpu);
	if (!cpu->full)
		return X86_FULL;
	st = elements_move(cpu, insn, &v, ACC_WRITE);
	if (st == X86_OK)
		x86_opmask_write(cpu, insn->mask, 0);
	return st;
}

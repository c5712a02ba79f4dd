/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Windows: one check of an address for all accesses of a block that lie close together behind one base register. */
#include "engine/x86/translate.h"

/*
 *	push rbx			lea  t1, [r13 - 24]; check [t1, t1 + 64) for writing; t0 = host - linear
 *	push rbp			mov  [t0 + r13 - 8], rbx; lea r13, [r13 - 8]
 *	mov  [rsp - 8], rax		mov  [t0 + r13 - 8], rbp; lea r13, [r13 - 8]
 *	mov  rcx, [rsp]			mov  [t0 + r13 - 8], rax
 *					mov  rcx, [t0 + r13]
 *
 * T0 does not depend on the base register, so a register that moves by constants keeps its window. The check is made
 * where the first of the instructions stands, with its kind of access, and asks only whether the bytes of all lie in the
 * page that this one accesses itself: nothing is touched, and no fault is found, before its time. When they do not, or stores
 * to some of them must be seen because code was made from them, the instruction and what follows run in a block of FORM_NARROW,
 * which has no windows.
 *
 * Nothing that revokes a tag runs inside a block, but for helpers, and those end the window.
 */

#define SCAN_MAX 24 /* instructions */

bool tr_window_eligible(const struct tr *t, const struct x86_insn *insn)
{
	return t->form == FORM_FAST && insn->has_mem && insn->base < 16 &&
	       host_of[insn->base] != IN_MEMORY && insn->index == INSN_NO_REG &&
	       insn->adsize == 8 && insn->seg != SEG_FS && insn->seg != SEG_GS &&
	       !insn->bit_offset && insn->disp == (s32)insn->disp && tr_size_fits(insn->memsize) &&
	       insn->memsize <= 64;
}

bool tr_moves_by_constant(const struct decoded *d, unsigned base, s64 *add)
{
	const struct x86_insn *insn = &d->insn;

	*add = 0;
	if (!(d->gpr_written & BIT(base)))
		return true;
	if (d->cls == CLS_LEA) {
		*add = insn->disp;
		return insn->opsize == 8 && insn->adsize == 8 && insn->base == base &&
		       insn->index == INSN_NO_REG && insn->disp == (s32)insn->disp;
	}
	if (insn->opsize != 8 || insn->has_mem || insn->imm != (u64)(s64)(s32)insn->imm)
		return false;
	if (d->cls == CLS_STACK && base == RSP && d->ngpr == 1 && d->gpr[0].reg != RSP) {
		*add = insn->op == X86_OP_push ? -8 : 8;
		return insn->op == X86_OP_push || insn->op == X86_OP_pop;
	}
	if (d->cls == CLS_NATIVE && d->enc == ENC_LEGACY && !d->has_modrm && base == RAX &&
	    d->imm_off - d->opcode_off == 1 && (insn->opcode == 0x05 || insn->opcode == 0x2d)) {
		*add = insn->opcode == 0x05 ? (s64)insn->imm : -(s64)insn->imm;
		return true;
	}
	if (d->cls != CLS_NATIVE || d->enc != ENC_LEGACY || d->ngpr != 1 || !d->has_modrm ||
	    d->modrm_off - d->opcode_off != 1 || insn->rm != base)
		return false;
	if ((insn->opcode == 0x83 || insn->opcode == 0x81) &&
	    ((insn->modrm >> 3 & 7) == 0 || (insn->modrm >> 3 & 7) == 5))
		*add = (insn->modrm >> 3 & 7) ? -(s64)insn->imm : (s64)insn->imm;
	else if (insn->opcode == 0xff && (insn->modrm >> 3 & 7) < 2)
		*add = (insn->modrm >> 3 & 7) ? -1 : 1;
	else
		return false;
	return true;
}

/* What an instruction accesses behind a base register that may have a window. */
struct reach {
	unsigned base;
	s64 disp;
	unsigned size;
	bool write;
};

static bool reach_of(const struct tr *t, const struct decoded *d, struct reach *r)
{
	const struct x86_insn *insn = &d->insn;

	if (d->cls == CLS_NATIVE && !d->uses_high && tr_window_eligible(t, insn)) {
		*r = (struct reach){ insn->base, insn->disp, insn->memsize,
				     insn->access & INSN_WRITE };
		return true;
	}
	if (insn->has_mem || insn->opsize != 8)
		return false;
	if (d->cls == CLS_STACK && (insn->op == X86_OP_push || insn->op == X86_OP_pop)) {
		*r = (struct reach){ RSP, insn->op == X86_OP_push ? -8 : 0, 8,
				     insn->op == X86_OP_push };
		return true;
	}
	if (d->cls == CLS_BRANCH && (d->branch == BR_CALL || d->branch == BR_RET)) {
		*r = (struct reach){ RSP, d->branch == BR_CALL ? -8 : 0, 8, d->branch == BR_CALL };
		return true;
	}
	return false;
}

/* Whether code of the instruction leaves T0 alone: no more than a guess here, since it is watched when it is emitted. */
static bool keeps_t0(const struct tr *t, const struct decoded *d)
{
	unsigned in_memory = 0;

	if (d->cls == CLS_NOP || d->cls == CLS_LEA || d->cls == CLS_STACK || d->cls == CLS_BRANCH)
		return true;
	if (d->cls != CLS_NATIVE || d->uses_high || d->insn.bit_offset)
		return false;
	for (unsigned k = 0; k < d->ngpr; k++)
		in_memory += host_of[d->gpr[k].reg] == IN_MEMORY;
	if (!d->insn.has_mem || tr_window_eligible(t, &d->insn))
		return in_memory < 2;
	return !in_memory && tr_size_fits(d->insn.memsize);
}

/* How far the accesses reach that a check at instruction @i through @first can serve. */
static void scan(const struct tr *t, unsigned i, const struct reach *first, s64 *lo, s64 *hi)
{
	unsigned end = i + SCAN_MAX < t->n ? i + SCAN_MAX : t->n;
	s64 moved = 0, add;

	*lo = first->disp;
	*hi = first->disp + first->size;
	for (unsigned j = i; j < end; j++) {
		const struct decoded *d = &t->d[j];
		struct reach r;

		if (j != i && !keeps_t0(t, d))
			return;
		if (j != i && reach_of(t, d, &r) && r.base == first->base) {
			s64 at = r.disp + moved, from = at < *lo ? at : *lo,
			    to = at + r.size > *hi ? at + r.size : *hi;

			if ((r.write && !first->write) || to - from > RC_SPAN_MAX)
				return;
			*lo = from;
			*hi = to;
		}
		if (!tr_moves_by_constant(d, first->base, &add))
			return;
		moved += add;
	}
}

struct mem_ref tr_window(struct tr *t, unsigned i, unsigned base, s32 disp, unsigned size,
			 bool write, const struct x86_insn *as)
{
	struct window *w = &t->window;
	const struct reach first = { base, disp, size, write };
	const struct mem_ref ref = { T0, host_of[base], disp };
	struct mem_site *site;
	s64 lo, hi;
	unsigned span;

	if (w->valid && w->base == base && (w->write || !write) && w->moved + disp >= w->lo &&
	    w->moved + disp + (s32)size <= w->hi)
		return ref;
	lo = disp;
	hi = lo + size;
	if (t->windows)
		scan(t, i, &first, &lo, &hi);
	span = hi - lo > 64 ? RC_SPAN_MAX : hi - lo > 8 ? 64 : 8;
	if (hi - lo == (s64)size)
		span = size;
	site = tr_site(t, i);
	if (as) {
		site->insn.memsize = as->memsize;
		site->insn.access = as->access;
		site->insn.stack =
			true; /* the operand keeps its segment: a helper may run the instruction */
	}
	site->insn.window = disp - lo;
	site->insn.reach = span == size ? 0 : span;
	tr_flags_spill(t, i);
	emit_lea(&t->e, T1, host_of[base], EMIT_NO_REG, 1, lo, 8);
	tr_translate_delta(t, i, site, base, span, write, span != size);
	*w = (struct window){
		.valid = t->windows, .write = write, .base = base, .lo = lo, .hi = lo + span
	};
	return ref;
}

void tr_window_moved(struct tr *t, unsigned base, s64 add)
{
	struct window *w = &t->window;

	if (!w->valid || w->base != base)
		return;
	add += w->moved;
	w->valid = add == (s16)add;
	w->moved = add;
}

void tr_window_after(struct tr *t, unsigned i)
{
	s64 add;

	if (!t->window.valid)
		return;
	if (tr_moves_by_constant(&t->d[i], t->window.base, &add))
		tr_window_moved(t, t->window.base, add);
	else
		t->window.valid = false;
}

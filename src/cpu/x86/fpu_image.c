/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* FXSAVE, FXRSTOR and the XSAVE family: images in guest memory from and to cpu->xsave. */
#include "base/bulk.h"
#include "cpu/x86/align.h"
#include "cpu/x86/cpuid.h"
#include "cpu/x86/event.h"
#include "cpu/x86/mode.h"
#include "cpu/x86/ops.h"
#include "cpu/x86/xstate.h"

/*
 * The instruction and data pointers of the x87, its opcode, FCS and FDS are always stored as 0: what
 * the host keeps there are addresses of translated code and of the VMM's memory.
 */
/* DIFFERS: FIP, FDP, FOP, FCS and FDS in FXSAVE, XSAVE, FNSTENV and FNSAVE images are always 0. */

/* Outside 64-bit mode only registers 0-7 are saved and restored. */
static unsigned vector_registers(const struct x86_cpu *cpu)
{
	return x86_is_64(cpu) ? 16 : 8;
}

/* Bytes of component @i that the mode moves; they are its first ones. */
static unsigned component_bytes(const struct x86_cpu *cpu, const struct xstate_layout *l,
				unsigned i)
{
	static const u16 legacy_mode[XC_COUNT] = { 0, 0, 128, 0, 0, 64, 256, 0 };

	return x86_is_64(cpu) || legacy_mode[i] > l->size[i] ? l->size[i] : legacy_mode[i];
}

/* The first 32 bytes of an image, pointers cleared. */
static void image_head(const struct x86_cpu *cpu, u8 head[32])
{
	bulk_copy(head, cpu->xsave, 32);
	bulk_zero(head + XS_FOP, XS_MXCSR - XS_FOP);
	__builtin_memcpy(head + XS_MXCSR_MASK, &xstate_layout()->mxcsr_mask, 4);
}

/* Address of the area: linear and aligned, else #GP(0), which of the XSAVE family comes before the segment's checks. */
static enum x86_status area_address(struct x86_cpu *cpu, const struct x86_insn *insn, unsigned size,
				    unsigned align, unsigned access, gva_t *lin)
{
	u64 ea = x86_effective(cpu, insn);
	u64 base = x86_is_64(cpu) && insn->seg < SEG_FS ? 0 : cpu->seg[insn->seg].base;
	enum x86_status st;

	if (!insn->has_mem)
		return x86_raise_ud(cpu);
	if (insn->op != X86_OP_fxsave && insn->op != X86_OP_fxrstor && (ea + base) & (align - 1))
		return x86_raise_gp(cpu, 0);
	st = x86_linear(cpu, insn->seg, ea, size, access, lin);
	if (!st)
		st = x86_align_operand(cpu, insn, *lin);
	return !st && *lin & (align - 1) ? x86_raise_gp(cpu, 0) : st;
}

static enum x86_status fxsave_allowed(struct x86_cpu *cpu, const struct x86_insn *insn)
{
	if (insn->prefixes & INSN_LOCK || (cpu->cr0 & CR0_EM && !cpu->intel))
		return x86_raise_ud(cpu);
	if (cpu->cr0 & (CR0_EM | CR0_TS))
		return x86_raise(cpu, VEC_NM);
	return cpu->full ? X86_OK : X86_FULL;
}

/* Bytes of an FXSAVE image that are state: XMM registers only with CR4.OSFXSR. */
static unsigned fxsave_bytes(const struct x86_cpu *cpu)
{
	return cpu->cr4 & CR4_OSFXSR ? XS_XMM + 16 * vector_registers(cpu) : XS_XMM;
}

/* All 512 bytes must be accessible, also those behind the registers that nothing is stored to. AMD asks for the last one first. */
static enum x86_status image_address(struct x86_cpu *cpu, const struct x86_insn *insn,
				     unsigned access, gva_t *lin)
{
	enum x86_status st = area_address(cpu, insn, XS_HEADER, 16, access, lin);

	if (!st)
		st = x86_probe(cpu, *lin + XS_HEADER - 1, 1, access);
	return st ? st : x86_probe(cpu, *lin, XS_HEADER, access);
}

enum x86_status x86_op_fxsave(struct x86_cpu *cpu, const struct x86_insn *insn)
{
	enum x86_status st = fxsave_allowed(cpu, insn);
	u8 image[XS_LEGACY];
	gva_t lin;

	if (st)
		return st;
	st = image_address(cpu, insn, ACC_WRITE, &lin);
	if (st)
		return st;
	xstate_complete(cpu, XC_LEGACY);
	bulk_copy(image, cpu->xsave, sizeof(image));
	image_head(cpu, image);
	return x86_write(cpu, lin, image, fxsave_bytes(cpu), ACC_WRITE);
}

enum x86_status x86_op_fxrstor(struct x86_cpu *cpu, const struct x86_insn *insn)
{
	enum x86_status st = fxsave_allowed(cpu, insn);
	unsigned bytes = fxsave_bytes(cpu);
	u8 image[XS_LEGACY];
	u32 mxcsr;
	gva_t lin;

	if (st)
		return st;
	st = image_address(cpu, insn, ACC_READ, &lin);
	if (st)
		return st;
	st = x86_read(cpu, lin, image, bytes, ACC_READ);
	if (st)
		return st;
	__builtin_memcpy(&mxcsr, image + XS_MXCSR, 4);
	if (bytes > XS_XMM && mxcsr & ~xstate_layout()->mxcsr_mask)
		return x86_raise_gp(cpu, 0);
	xstate_complete(cpu, XC_LEGACY);
	bulk_copy(cpu->xsave, image, 5);
	xstate_x87_set(cpu, xs_get16(cpu, XS_FCW), xs_get16(cpu, XS_FSW), image[XS_FTW]);
	bulk_copy(cpu->xsave + XS_ST, image + XS_ST, 8 * 16);
	if (bytes > XS_XMM) {
		xs_set32(cpu, XS_MXCSR, mxcsr);
		bulk_copy(cpu->xsave + XS_XMM, image + XS_XMM, bytes - XS_XMM);
	}
	xs_set64(cpu, XS_BV, xs_get64(cpu, XS_BV) | XC_LEGACY);
	return X86_OK;
}

/* One run of bytes of an XSAVE area. */
struct piece {
	u16 offset, size;
	const u8 *from;
};

struct pieces {
	unsigned n, end;
	struct piece piece[XC_COUNT + 4];
};

static void piece_add(struct pieces *p, unsigned offset, const void *from, unsigned size)
{
	if (!size)
		return;
	p->piece[p->n++] = (struct piece){ .offset = offset, .size = size, .from = from };
	if (offset + size > p->end)
		p->end = offset + size;
}

/*
 * Offsets of the components of @which in the compact format (SDM "Compacted format of the extended
 * region of an XSAVE area"). Returns the end.
 */
static unsigned compact_offsets(const struct xstate_layout *l, u64 which, u16 offset[XC_COUNT])
{
	unsigned end = XS_EXTENDED;

	for (unsigned i = 2; i < XC_COUNT; i++) {
		if (!(which >> i & 1))
			continue;
		if (l->align64[i])
			end = ALIGN_UP(end, 64u);
		offset[i] = end;
		end += l->size[i];
	}
	return end;
}

static enum x86_status xsave_allowed(struct x86_cpu *cpu, const struct x86_insn *insn)
{
	if (insn->prefixes & INSN_LOCK || !(cpu->cr4 & CR4_OSXSAVE))
		return x86_raise_ud(cpu);
	if (cpu->cr0 & CR0_TS)
		return x86_raise(cpu, VEC_NM);
	return cpu->full ? X86_OK : X86_FULL;
}

static u64 requested(const struct x86_cpu *cpu)
{
	u64 mask = x86_edx_eax(cpu);

	return mask & cpu->xcr0 & xstate_layout()->xcr0;
}

enum xsave_form { XSAVE_PLAIN, XSAVE_OPT, XSAVE_COMPACT };

/* 0F C7 /5 XSAVES and 0F C7 /3 XRSTORS. There is no supervisor state: XSS is 0. */
static bool is_supervisor(const struct x86_insn *insn)
{
	unsigned reg = insn->modrm >> 3 & 7;

	return insn->opcode == 0xc7 && (reg == 5 || reg == 3);
}

/* 0F AE /4 XSAVE, 0F AE /6 XSAVEOPT, 0F C7 /4 XSAVEC and /5 XSAVES; false when CPUID does not show it. */
static bool xsave_form(const struct x86_cpu *cpu, const struct x86_insn *insn,
		       enum xsave_form *form)
{
	*form = insn->opcode == 0xc7	      ? XSAVE_COMPACT
		: (insn->modrm >> 3 & 7) == 6 ? XSAVE_OPT
					      : XSAVE_PLAIN;
	if (is_supervisor(insn))
		return x86_cpuid_has(cpu, 0xd, 1, 0, 3);
	return *form == XSAVE_PLAIN || x86_cpuid_has(cpu, 0xd, 1, 0, *form == XSAVE_OPT ? 0 : 1);
}

/* Components in use; for XSAVEC a changed MXCSR counts as SSE. */
static u64 in_use(const struct x86_cpu *cpu, enum xsave_form form)
{
	u64 v = xs_get64(cpu, XS_BV);

	if (form == XSAVE_COMPACT && xs_get32(cpu, XS_MXCSR) != MXCSR_INIT)
		v |= XC_SSE;
	return v;
}

/* Legacy region: what of it the components in @rfbm own. */
static void add_legacy(const struct x86_cpu *cpu, struct pieces *p, u64 rfbm, bool mxcsr,
		       const u8 head[32])
{
	if (rfbm & XC_X87) {
		piece_add(p, 0, head, mxcsr ? 32 : XS_MXCSR);
		piece_add(p, XS_ST, cpu->xsave + XS_ST, 8 * 16);
	} else if (mxcsr) {
		piece_add(p, XS_MXCSR, head + XS_MXCSR, 8);
	}
	if (rfbm & XC_SSE)
		piece_add(p, XS_XMM, cpu->xsave + XS_XMM, 16 * vector_registers(cpu));
}

/*
 * All that is to be written is checked before the header is read and the first piece written; legacy region and header always, also where
 * none of it will be: manuals leave it open, AMD's processors do so.
 */
static enum x86_status pieces_probe(struct x86_cpu *cpu, gva_t lin, const struct pieces *p)
{
	enum x86_status st = x86_probe(cpu, lin, XS_EXTENDED, ACC_WRITE);

	for (unsigned i = 0; i < p->n && !st; i++)
		st = x86_probe(cpu, lin + p->piece[i].offset, p->piece[i].size, ACC_WRITE);
	return st;
}

static enum x86_status pieces_write(struct x86_cpu *cpu, gva_t lin, const struct pieces *p)
{
	enum x86_status st = X86_OK;

	for (unsigned i = 0; i < p->n && !st; i++)
		st = x86_write(cpu, lin + p->piece[i].offset, p->piece[i].from, p->piece[i].size,
			       ACC_WRITE);
	return st;
}

enum x86_status x86_op_xsave(struct x86_cpu *cpu, const struct x86_insn *insn)
{
	const struct xstate_layout *l = xstate_layout();
	enum x86_status st = xsave_allowed(cpu, insn);
	u64 rfbm = requested(cpu), header[2] = { 0 }, saved, used;
	struct pieces p;
	u16 compact[XC_COUNT];
	enum xsave_form form;
	unsigned end;
	u8 head[32];
	gva_t lin;

	if (st)
		return st;
	if (!xsave_form(cpu, insn, &form))
		return x86_raise_ud(cpu);
	if (is_supervisor(insn) && cpu->cpl)
		return x86_raise_gp(cpu, 0);
	p.n = p.end = 0;
	used = in_use(cpu, form);
	saved = form == XSAVE_PLAIN ? rfbm : rfbm & used;
	xstate_complete(cpu, saved);
	image_head(cpu, head);
	add_legacy(cpu, &p, saved,
		   form == XSAVE_COMPACT ? saved & XC_SSE : rfbm & (XC_SSE | XC_AVX), head);
	end = compact_offsets(l, rfbm, compact);
	for (unsigned i = 2; i < XC_COUNT; i++) {
		unsigned offset = form == XSAVE_COMPACT ? compact[i] : l->offset[i];

		if (saved >> i & 1)
			piece_add(&p, offset, cpu->xsave + l->offset[i],
				  component_bytes(cpu, l, i));
	}
	piece_add(&p, XS_HEADER, (u8 *)header, form == XSAVE_COMPACT ? 16 : 8);
	st = area_address(cpu, insn, form == XSAVE_COMPACT ? end : p.end, 64, ACC_WRITE, &lin);
	if (!st)
		st = pieces_probe(cpu, lin, &p);
	if (st)
		return st;
	if (form == XSAVE_COMPACT) {
		header[1] = rfbm | BIT_ULL(63);
	} else {
		st = x86_read(cpu, lin + XS_HEADER, header, 8, ACC_READ);
		if (st)
			return st;
		header[0] &= ~rfbm;
	}
	header[0] |= rfbm & used;
	return pieces_write(cpu, lin, &p);
}

/* What XRSTOR checks in the header; XCOMP_BV bit 63 is the compact format. */
static bool header_is_valid(const struct x86_cpu *cpu, const u64 header[8])
{
	u64 bv = header[0], comp = header[1] & ~BIT_ULL(63), xcr0 = cpu->xcr0;

	if (!(header[1] >> 63))
		return !(bv & ~xcr0) && !header[1] && !header[2];
	if (!(x86_cpuid_has(cpu, 0xd, 1, 0, 1) || x86_cpuid_has(cpu, 0xd, 1, 0, 3)) ||
	    comp & ~xcr0 || bv & ~comp)
		return false;
	for (unsigned i = 2; i < 8; i++)
		if (header[i])
			return false;
	return true;
}

/* An image on its way in: nothing is changed before all of it was read and checked. */
struct restore {
	u64 rfbm, bv; /* asked for; of those, present in memory */
	bool load_mxcsr, init_mxcsr;
	unsigned offset[XC_COUNT];
	u8 legacy[XS_LEGACY];
	u8 extended[X86_XSAVE_MAX - XS_EXTENDED]; /* at the host's offsets - XS_EXTENDED */
};

static void restore_plan(struct restore *r, const u64 header[8])
{
	const struct xstate_layout *l = xstate_layout();
	bool compact = header[1] >> 63;
	u16 offset[XC_COUNT] = { 0 };

	r->bv = r->rfbm & header[0];
	if (compact)
		compact_offsets(l, header[1], offset);
	for (unsigned i = 2; i < XC_COUNT; i++)
		r->offset[i] = compact ? offset[i] : l->offset[i];
	r->load_mxcsr = compact ? r->bv & XC_SSE : r->rfbm & (XC_SSE | XC_AVX);
	r->init_mxcsr = compact && r->rfbm & ~r->bv & XC_SSE;
}

static enum x86_status restore_read(struct x86_cpu *cpu, gva_t lin, struct restore *r)
{
	const struct xstate_layout *l = xstate_layout();
	enum x86_status st = X86_OK;
	unsigned n = r->bv & XC_SSE   ? XS_XMM + 16 * vector_registers(cpu)
		     : r->bv & XC_X87 ? XS_XMM
		     : r->load_mxcsr  ? XS_ST
				      : 0;

	if (n)
		st = x86_read(cpu, lin, r->legacy, n, ACC_READ);
	for (unsigned i = 2; i < XC_COUNT && !st; i++) {
		unsigned bytes = component_bytes(cpu, l, i);

		if (r->bv >> i & 1 && bytes)
			st = x86_read(cpu, lin + r->offset[i],
				      r->extended + l->offset[i] - XS_EXTENDED, bytes, ACC_READ);
	}
	return st;
}

/* Put one component in place: from memory, or its initial state (zeros). */
static void restore_bytes(u8 *to, const u8 *from, bool present, unsigned n)
{
	if (present)
		bulk_copy(to, from, n);
	else
		bulk_zero(to, n);
}

static void restore_apply(struct x86_cpu *cpu, const struct restore *r)
{
	const struct xstate_layout *l = xstate_layout();
	u64 bv = xs_get64(cpu, XS_BV);

	xstate_complete(cpu, r->rfbm);
	if (r->rfbm & XC_X87) {
		bool present = r->bv & XC_X87;
		u16 word[3] = { FCW_INIT, 0, 0 };

		if (present)
			__builtin_memcpy(word, r->legacy, sizeof(word));
		xstate_x87_set(cpu, word[0], word[1], word[2]);
		restore_bytes(cpu->xsave + XS_ST, r->legacy + XS_ST, present, 8 * 16);
	}
	if (r->rfbm & XC_SSE)
		restore_bytes(cpu->xsave + XS_XMM, r->legacy + XS_XMM, r->bv & XC_SSE,
			      16 * vector_registers(cpu));
	if (r->load_mxcsr)
		bulk_copy(cpu->xsave + XS_MXCSR, r->legacy + XS_MXCSR, 4);
	else if (r->init_mxcsr)
		xs_set32(cpu, XS_MXCSR, MXCSR_INIT);
	for (unsigned i = 2; i < XC_COUNT; i++)
		if (r->rfbm >> i & 1)
			restore_bytes(cpu->xsave + l->offset[i],
				      r->extended + l->offset[i] - XS_EXTENDED, r->bv >> i & 1,
				      component_bytes(cpu, l, i));
	/* Outside 64-bit mode the upper registers keep what they had: not initial then. */
	bv = (x86_is_64(cpu) ? bv & ~r->rfbm : bv) | r->bv;
	xs_set64(cpu, XS_BV, bv);
}

enum x86_status x86_op_xrstor(struct x86_cpu *cpu, const struct x86_insn *insn)
{
	enum x86_status st = xsave_allowed(cpu, insn);
	struct restore r;
	u64 header[8];
	u32 mxcsr;
	gva_t lin;

	if (st)
		return st;
	if (is_supervisor(insn) && !x86_cpuid_has(cpu, 0xd, 1, 0, 3))
		return x86_raise_ud(cpu);
	if (is_supervisor(insn) && cpu->cpl)
		return x86_raise_gp(cpu, 0);
	st = area_address(cpu, insn, XS_EXTENDED, 64, ACC_READ, &lin);
	if (st)
		return st;
	/* Whether the legacy region is there is asked even where none of it is read, and before the header is judged. */
	st = x86_probe(cpu, lin, XS_EXTENDED, ACC_READ);
	if (!st)
		st = x86_read(cpu, lin + XS_HEADER, header, sizeof(header), ACC_READ);
	if (st)
		return st;
	if (!header_is_valid(cpu, header) || (is_supervisor(insn) && !(header[1] >> 63)))
		return x86_raise_gp(cpu, 0);
	r.rfbm = requested(cpu);
	restore_plan(&r, header);
	st = restore_read(cpu, lin, &r);
	if (st)
		return st;
	if (r.load_mxcsr) {
		__builtin_memcpy(&mxcsr, r.legacy + XS_MXCSR, 4);
		if (mxcsr & ~xstate_layout()->mxcsr_mask)
			return x86_raise_gp(cpu, 0);
	}
	restore_apply(cpu, &r);
	return X86_OK;
}

/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Alignment checks: the rules by instruction and by size of the operand. */
#include "cpu/x86/align.h"
#include "cpu/x86/ops.h"
#include "cpu/x86/vector.h"

/*
 * SDM "Alignment Requirements by Data Type" has the data types of integers and x87. It leaves to the processor
 * whether #AC is raised for operands of 16 bytes and more, for what is under a mask, and for images that have a #GP of their
 * own; there the answers are those of AMD's Zen 5, asked by tests/insn.
 */
enum rule {
	BY_SIZE,    /* see by_size[]; under a mask: of an element */
	BY_OPSIZE,  /* of the operand size: arrays of such data */
	WORD_DWORD, /* 2 with 16-bit operands, else 4: far pointers, x87 images */
	DWORD,	    /* descriptor table registers; FXSAVE: #AC below 4, #GP below 16 */
	QUADWORD,   /* MASKMOVDQU: it stores halves */
	NONE,	    /* gather and scatter, on AMD; XSAVE areas: #GP below 64; cache lines */
};

static const u8 rule_of[X86_OP_COUNT] = {
	[X86_OP_call_far] = WORD_DWORD, [X86_OP_jmp_far] = WORD_DWORD,
	[X86_OP_load_far] = WORD_DWORD, [X86_OP_fnstenv] = WORD_DWORD,
	[X86_OP_fldenv] = WORD_DWORD,	[X86_OP_fnsave] = WORD_DWORD,
	[X86_OP_frstor] = WORD_DWORD,	[X86_OP_bound] = BY_OPSIZE,
	[X86_OP_sgdt] = DWORD,		[X86_OP_sidt] = DWORD,
	[X86_OP_fxsave] = DWORD,	[X86_OP_fxrstor] = DWORD,
	[X86_OP_maskmov] = QUADWORD,	[X86_OP_gather] = NONE,
	[X86_OP_scatter] = NONE,	[X86_OP_xsave] = NONE,
	[X86_OP_xrstor] = NONE,		[X86_OP_clflush] = NONE,
	[X86_OP_clzero] = NONE,
};

/* Operands of natively executed instructions. Vectors of 32 and 64 bytes need no more than those of 16. */
static const struct {
	u8 size, align;
} by_size[] = {
	{ 1, 1 },   { 2, 2 },	{ 4, 4 },
	{ 8, 8 },   { 10, 8 }, /* x87: extended precision, packed decimals */
	{ 16, 16 }, { 32, 16 }, { 64, 16 },
};

static unsigned align_by_size(const struct x86_insn *insn)
{
	/* MOVAPS and its kind raise #GP; VMASKMOV is never checked. */
	if (insn->align || insn->mask_kind == INSN_MASK_VEC)
		return 1;
	if (insn->mask_kind != INSN_MASK_NONE)
		return insn->elem ? insn->elem : 1;
	for (unsigned i = 0; i < ARRAY_SIZE(by_size); i++)
		if (by_size[i].size == insn->memsize)
			return by_size[i].align;
	return 1;
}

unsigned x86_align_of(const struct x86_insn *insn)
{
	switch (rule_of[insn->op]) {
	case BY_SIZE:
		return align_by_size(insn);
	case BY_OPSIZE:
		return insn->opsize;
	case WORD_DWORD:
		return insn->opsize == 2 ? 2 : 4;
	case DWORD:
		return 4;
	case QUADWORD:
		return 8;
	default:
		return 1;
	}
}

/* By the first element: when that is not canonical it is #GP or #SS, which whoever moves the bytes finds. */
static bool mask_asks(const struct x86_cpu *cpu, const struct x86_insn *insn, gva_t lin)
{
	u64 active;

	x86_active_bytes(cpu, insn, &active);
	if (!active)
		return false;
	lin += (unsigned)__builtin_ctzll(active);
	return x86_is_canonical(cpu, lin) && x86_is_canonical(cpu, lin + x86_align_of(insn) - 1);
}

enum x86_status x86_align_operand_slow(struct x86_cpu *cpu, const struct x86_insn *insn, gva_t lin)
{
	if (!(lin & (x86_align_of(insn) - 1)))
		return X86_OK;
	if (insn->mask_kind != INSN_MASK_NONE) {
		if (!cpu->full)
			return X86_FULL;
		if (!mask_asks(cpu, insn, lin))
			return X86_OK;
	}
	return x86_raise_error(cpu, VEC_AC, 0);
}

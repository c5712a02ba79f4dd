/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Decoding by Zydis into our own form: the only file that knows Zydis. */
#include "engine/x86/decode.h"

#include <string.h>

#include <Zydis/Zydis.h>

#include "cpu/x86/mode.h"
#include "cpu/x86/ops.h"

struct row {
	u8 cls;
	u8 op;
};

static const struct row rows[ZYDIS_MNEMONIC_MAX_VALUE + 1] = {
#define INSN(mnemonic, class, op) [ZYDIS_MNEMONIC_##mnemonic] = { CLS_##class, X86_OP_##op },
#define ISA(set, state)
#include "engine/x86/insn.def"
#undef INSN
#undef ISA
};

/* State plus one; 0: no row. */
static const u8 isa_rows[ZYDIS_ISA_SET_MAX_VALUE + 1] = {
#define INSN(mnemonic, class, op)
#define ISA(set, state) [ZYDIS_ISA_SET_##set] = STATE_##state + 1,
#include "engine/x86/insn.def"
#undef INSN
#undef ISA
};

static ZydisDecoder decoders[6];

void decode_init(void)
{
	static const struct {
		ZydisMachineMode mode;
		ZydisStackWidth width;
	} modes[6] = {
		{ ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64 },
		{ ZYDIS_MACHINE_MODE_LONG_COMPAT_32, ZYDIS_STACK_WIDTH_32 },
		{ ZYDIS_MACHINE_MODE_LONG_COMPAT_16, ZYDIS_STACK_WIDTH_16 },
		{ ZYDIS_MACHINE_MODE_LEGACY_32, ZYDIS_STACK_WIDTH_32 },
		{ ZYDIS_MACHINE_MODE_LEGACY_16, ZYDIS_STACK_WIDTH_16 },
		{ ZYDIS_MACHINE_MODE_REAL_16, ZYDIS_STACK_WIDTH_16 },
	};

	for (unsigned i = 0; i < ARRAY_SIZE(modes); i++)
		ZydisDecoderInit(&decoders[i], modes[i].mode, modes[i].width);
}

static const ZydisDecoder *decoder_of(x86_mode_t mode)
{
	if (mode & MODE_64)
		return &decoders[0];
	if (mode & MODE_LMA)
		return &decoders[mode & MODE_32 ? 1 : 2];
	if (!(mode & MODE_PE) || mode & MODE_VM)
		return &decoders[mode & MODE_32 ? 3 : 5];
	return &decoders[mode & MODE_32 ? 3 : 4];
}

static unsigned reg_number(ZydisRegister reg, bool *high)
{
	unsigned id = ZydisRegisterGetId(reg);

	*high = false;
	if (ZydisRegisterGetClass(reg) != ZYDIS_REGCLASS_GPR8)
		return id;
	/* AL CL DL BL AH CH DH BH SPL BPL SIL DIL R8B ... */
	*high = reg >= ZYDIS_REGISTER_AH && reg <= ZYDIS_REGISTER_BH;
	if (id < 4)
		return id;
	return id - 4;
}

static unsigned seg_number(ZydisRegister seg)
{
	return seg >= ZYDIS_REGISTER_ES && seg <= ZYDIS_REGISTER_GS ? seg - ZYDIS_REGISTER_ES
								    : SEG_DS;
}

static bool is_gpr(ZydisRegister reg)
{
	ZydisRegisterClass c = ZydisRegisterGetClass(reg);

	return c == ZYDIS_REGCLASS_GPR8 || c == ZYDIS_REGCLASS_GPR16 || c == ZYDIS_REGCLASS_GPR32 ||
	       c == ZYDIS_REGCLASS_GPR64;
}

static u8 access_of(ZydisOperandActions actions)
{
	return (actions & ZYDIS_OPERAND_ACTION_MASK_READ ? INSN_READ : 0) |
	       (actions & ZYDIS_OPERAND_ACTION_MASK_WRITE ? INSN_WRITE : 0);
}

static void decode_mem(const ZydisDecodedInstruction *zi, const ZydisDecodedOperand *op,
		       struct x86_insn *insn)
{
	const ZydisDecodedOperandMem *m = &op->mem;

	insn->has_mem = true;
	insn->seg = seg_number(m->segment);
	insn->seg_override = zi->attributes & ZYDIS_ATTRIB_HAS_SEGMENT;
	insn->base = m->base == ZYDIS_REGISTER_NONE ? INSN_NO_REG
		     : m->base == ZYDIS_REGISTER_RIP || m->base == ZYDIS_REGISTER_EIP
			     ? INSN_RIP
			     : ZydisRegisterGetId(m->base);
	insn->index = m->index == ZYDIS_REGISTER_NONE ? INSN_NO_REG : ZydisRegisterGetId(m->index);
	insn->scale = m->scale ? m->scale : 1;
	insn->disp = m->disp.has_displacement ? m->disp.value : 0;
	insn->memsize = op->size / 8;
	insn->access = access_of(op->actions);
}

static void decode_gpr(const ZydisDecodedOperand *op, struct decoded *d)
{
	bool high;
	unsigned slot;

	switch (op->encoding) {
	case ZYDIS_OPERAND_ENCODING_MODRM_REG:
		slot = SLOT_REG;
		break;
	case ZYDIS_OPERAND_ENCODING_MODRM_RM:
		slot = SLOT_RM;
		break;
	case ZYDIS_OPERAND_ENCODING_NDSNDD:
		slot = SLOT_VVVV;
		break;
	case ZYDIS_OPERAND_ENCODING_OPCODE:
		slot = SLOT_OPCODE;
		break;
	default:
		return;
	}
	if (d->ngpr == ARRAY_SIZE(d->gpr))
		return;
	d->gpr[d->ngpr].slot = slot;
	d->gpr[d->ngpr].reg = reg_number(op->reg.value, &high);
	d->gpr[d->ngpr].size = op->size / 8;
	d->gpr[d->ngpr].rw = access_of(op->actions);
	d->gpr[d->ngpr].high = high;
	d->uses_high |= high;
	d->ngpr++;
}

static bool mask_is_packed(ZydisMnemonic m)
{
	switch (m) {
	case ZYDIS_MNEMONIC_VCOMPRESSPD:
	case ZYDIS_MNEMONIC_VCOMPRESSPS:
	case ZYDIS_MNEMONIC_VPCOMPRESSB:
	case ZYDIS_MNEMONIC_VPCOMPRESSW:
	case ZYDIS_MNEMONIC_VPCOMPRESSD:
	case ZYDIS_MNEMONIC_VPCOMPRESSQ:
	case ZYDIS_MNEMONIC_VEXPANDPD:
	case ZYDIS_MNEMONIC_VEXPANDPS:
	case ZYDIS_MNEMONIC_VPEXPANDB:
	case ZYDIS_MNEMONIC_VPEXPANDW:
	case ZYDIS_MNEMONIC_VPEXPANDD:
	case ZYDIS_MNEMONIC_VPEXPANDQ:
		return true;
	default:
		return false;
	}
}

/* Exception classes whose instructions do not suppress faults of masked-out elements. */
static bool class_suppresses(ZydisExceptionClass c)
{
	switch (c) {
	case ZYDIS_EXCEPTION_CLASS_E1NF:
	case ZYDIS_EXCEPTION_CLASS_E2NF:
	case ZYDIS_EXCEPTION_CLASS_E3NF:
	case ZYDIS_EXCEPTION_CLASS_E4NF:
	case ZYDIS_EXCEPTION_CLASS_E5NF:
	case ZYDIS_EXCEPTION_CLASS_E6NF:
	case ZYDIS_EXCEPTION_CLASS_E9NF:
	case ZYDIS_EXCEPTION_CLASS_E10NF:
	case ZYDIS_EXCEPTION_CLASS_E11NF:
		return false;
	default:
		return true;
	}
}

/* Zydis has these in class E4. */
static bool mnemonic_suppresses(ZydisMnemonic m)
{
	return m != ZYDIS_MNEMONIC_VCVTNE2PS2BF16 && m != ZYDIS_MNEMONIC_VDBPSADBW &&
	       m != ZYDIS_MNEMONIC_VGF2P8AFFINEQB && m != ZYDIS_MNEMONIC_VGF2P8AFFINEINVQB;
}

static bool may_be_unaligned(ZydisMnemonic m)
{
	switch (m) {
	case ZYDIS_MNEMONIC_MOVUPS:
	case ZYDIS_MNEMONIC_MOVUPD:
	case ZYDIS_MNEMONIC_MOVDQU:
	case ZYDIS_MNEMONIC_LDDQU:
	case ZYDIS_MNEMONIC_PCMPESTRI:
	case ZYDIS_MNEMONIC_PCMPESTRM:
	case ZYDIS_MNEMONIC_PCMPISTRI:
	case ZYDIS_MNEMONIC_PCMPISTRM:
		return true;
	default:
		return false;
	}
}

/* Alignment that the processor asks for, whatever AC says. */
static u8 alignment_of(const ZydisDecodedInstruction *zi, const struct decoded *d)
{
	const struct x86_insn *insn = &d->insn;

	switch (zi->meta.exception_class) {
	case ZYDIS_EXCEPTION_CLASS_AVX1:
	case ZYDIS_EXCEPTION_CLASS_E1:
	case ZYDIS_EXCEPTION_CLASS_E1NF:
		return insn->memsize;
	default:
		break;
	}
	if (zi->mnemonic == ZYDIS_MNEMONIC_CMPXCHG16B)
		return 16;
	if (zi->meta.isa_set == ZYDIS_ISA_SET_SHA || may_be_unaligned(zi->mnemonic))
		return 0; /* SHA: processors differ */
	return d->enc == ENC_LEGACY && d->state == STATE_SSE && insn->memsize == 16 ? 16 : 0;
}

static u8 broadcast_bits(ZydisBroadcastMode mode)
{
	switch (mode) {
	case ZYDIS_BROADCAST_MODE_1_TO_2:
		return 2;
	case ZYDIS_BROADCAST_MODE_1_TO_4:
	case ZYDIS_BROADCAST_MODE_2_TO_4:
		return 4;
	case ZYDIS_BROADCAST_MODE_1_TO_8:
	case ZYDIS_BROADCAST_MODE_2_TO_8:
	case ZYDIS_BROADCAST_MODE_4_TO_8:
		return 8;
	case ZYDIS_BROADCAST_MODE_1_TO_16:
	case ZYDIS_BROADCAST_MODE_2_TO_16:
	case ZYDIS_BROADCAST_MODE_4_TO_16:
	case ZYDIS_BROADCAST_MODE_8_TO_16:
		return 16;
	case ZYDIS_BROADCAST_MODE_1_TO_32:
		return 32;
	case ZYDIS_BROADCAST_MODE_1_TO_64:
		return 64;
	default:
		return 0;
	}
}

static void decode_mask(const ZydisDecodedInstruction *zi, const ZydisDecodedOperand *ops,
			struct x86_insn *insn)
{
	const ZydisDecodedOperand *mem = NULL;

	for (unsigned i = 0; i < zi->operand_count_visible; i++)
		if (ops[i].type == ZYDIS_OPERAND_TYPE_MEMORY)
			mem = &ops[i];
	insn->zeroing = zi->avx.mask.mode == ZYDIS_MASK_MODE_ZEROING;
	if (!mem)
		return;
	insn->elem = mem->element_size / 8;
	if (zi->encoding == ZYDIS_INSTRUCTION_ENCODING_EVEX &&
	    zi->avx.broadcast.mode != ZYDIS_BROADCAST_MODE_INVALID &&
	    !zi->avx.broadcast.is_static && mem->element_size)
		insn->memsize = insn->elem;
	switch (zi->mnemonic) {
	case ZYDIS_MNEMONIC_VMASKMOVPS:
	case ZYDIS_MNEMONIC_VPMASKMOVD:
	case ZYDIS_MNEMONIC_VMASKMOVPD:
	case ZYDIS_MNEMONIC_VPMASKMOVQ:
		insn->mask_kind = INSN_MASK_VEC;
		insn->mask = insn->vvvv;
		insn->elem = zi->mnemonic == ZYDIS_MNEMONIC_VMASKMOVPS ||
					     zi->mnemonic == ZYDIS_MNEMONIC_VPMASKMOVD
				     ? 4
				     : 8;
		return;
	default:
		break;
	}
	if (zi->encoding != ZYDIS_INSTRUCTION_ENCODING_EVEX ||
	    zi->avx.mask.reg <= ZYDIS_REGISTER_K0 || zi->avx.mask.reg > ZYDIS_REGISTER_K7)
		return;
	if (!class_suppresses(zi->meta.exception_class) || !mnemonic_suppresses(zi->mnemonic)) {
		/* All of it may fault; a store leaves some bytes as they are. */
		if (insn->access & INSN_WRITE)
			insn->access |= INSN_READ;
		return;
	}
	insn->mask_bits = broadcast_bits(zi->avx.broadcast.mode);
	insn->mask = zi->avx.mask.reg - ZYDIS_REGISTER_K0;
	insn->mask_kind = mask_is_packed(zi->mnemonic) ? INSN_MASK_K_PACKED
			  : zi->avx.broadcast.mode != ZYDIS_BROADCAST_MODE_INVALID
				  ? INSN_MASK_BROADCAST
				  : INSN_MASK_K;
}

static u8 branch_kind_of(const ZydisDecodedInstruction *zi, const ZydisDecodedOperand *ops)
{
	bool direct = ops[0].type == ZYDIS_OPERAND_TYPE_IMMEDIATE;

	switch (zi->mnemonic) {
	case ZYDIS_MNEMONIC_JMP:
		return direct ? BR_JMP : BR_IND_JMP;
	case ZYDIS_MNEMONIC_CALL:
		return direct ? BR_CALL : BR_IND_CALL;
	case ZYDIS_MNEMONIC_RET:
		return BR_RET;
	case ZYDIS_MNEMONIC_JCXZ:
	case ZYDIS_MNEMONIC_JECXZ:
	case ZYDIS_MNEMONIC_JRCXZ:
	case ZYDIS_MNEMONIC_LOOP:
	case ZYDIS_MNEMONIC_LOOPE:
	case ZYDIS_MNEMONIC_LOOPNE:
		return BR_LOOP;
	default:
		return BR_JCC;
	}
}

/* Far forms share the mnemonic with the near ones. */
static void resolve_branch(const ZydisDecodedInstruction *zi, const ZydisDecodedOperand *ops,
			   struct decoded *d)
{
	bool far = zi->meta.branch_type == ZYDIS_BRANCH_TYPE_FAR;

	if (far) {
		d->cls = CLS_HELPER;
		d->insn.op = zi->mnemonic == ZYDIS_MNEMONIC_CALL  ? X86_OP_call_far
			     : zi->mnemonic == ZYDIS_MNEMONIC_JMP ? X86_OP_jmp_far
								  : X86_OP_ret_far;
		return;
	}
	d->branch = branch_kind_of(zi, ops);
	d->cc = zi->opcode & 15;
}

static void resolve_mov(const ZydisDecodedOperand *ops, struct decoded *d)
{
	static const struct {
		ZydisRegisterClass c;
		u8 to, from;
	} kinds[] = {
		{ ZYDIS_REGCLASS_SEGMENT, X86_OP_mov_to_sreg, X86_OP_mov_from_sreg },
		{ ZYDIS_REGCLASS_CONTROL, X86_OP_mov_to_cr, X86_OP_mov_from_cr },
		{ ZYDIS_REGCLASS_DEBUG, X86_OP_mov_to_dr, X86_OP_mov_from_dr },
	};

	d->cls = CLS_NATIVE;
	for (unsigned side = 0; side < 2; side++) {
		if (ops[side].type != ZYDIS_OPERAND_TYPE_REGISTER)
			continue;
		for (unsigned k = 0; k < ARRAY_SIZE(kinds); k++)
			if (ZydisRegisterGetClass(ops[side].reg.value) == kinds[k].c) {
				d->cls = CLS_HELPER;
				d->insn.op = side ? kinds[k].from : kinds[k].to;
			}
	}
}

static void resolve_stack(const ZydisDecodedOperand *ops, struct decoded *d)
{
	if (ops[0].type != ZYDIS_OPERAND_TYPE_REGISTER ||
	    ZydisRegisterGetClass(ops[0].reg.value) != ZYDIS_REGCLASS_SEGMENT)
		return;
	d->cls = CLS_HELPER;
	d->insn.op = d->insn.op == X86_OP_push ? X86_OP_push_sreg : X86_OP_pop_sreg;
}

static bool isa_is_fp16(ZydisISASet set)
{
	return set >= ZYDIS_ISA_SET_AVX512_FP16_128 && set <= ZYDIS_ISA_SET_AVX512_FP16_SCALAR;
}

/* Only what is asked here is #UD before its memory operand is looked at; all else that the host lacks, after. */
static bool host_can(const struct x86_host *host, ZydisISASet set, const struct decoded *d)
{
	if (isa_is_fp16(set) && !host->fp16)
		return false;
	if (d->enc == ENC_EVEX || d->state == STATE_AVX512)
		return host->avx512;
	if (d->enc == ENC_VEX)
		return d->state == STATE_AVX ? host->avx : host->bmi1 || host->bmi2;
	return true;
}

static u8 move_of(const ZydisDecodedInstruction *zi, const ZydisDecodedOperand *ops)
{
	bool store = ops[0].type == ZYDIS_OPERAND_TYPE_MEMORY,
	     load = ops[1].type == ZYDIS_OPERAND_TYPE_MEMORY;

	if (!store && !load)
		return MOVE_NONE;
	switch (zi->mnemonic) {
	case ZYDIS_MNEMONIC_MOV:
		return load					     ? MOVE_LOAD
		       : ops[1].type == ZYDIS_OPERAND_TYPE_IMMEDIATE ? MOVE_STORE_IMM
								     : MOVE_STORE_REG;
	case ZYDIS_MNEMONIC_MOVZX:
		return MOVE_LOAD_ZERO;
	case ZYDIS_MNEMONIC_MOVSX:
	case ZYDIS_MNEMONIC_MOVSXD:
		return MOVE_LOAD_SIGN;
	default:
		return MOVE_NONE;
	}
}

static void find_segment(const ZydisDecodedInstruction *zi, struct x86_insn *insn)
{
	for (unsigned i = 0; i < zi->raw.prefix_count; i++) {
		u8 b = zi->raw.prefixes[i].value;

		if (b == 0x64 || b == 0x65) {
			insn->seg_override = true;
			insn->seg = b == 0x64 ? SEG_FS : SEG_GS;
		}
	}
}

static void resolve_class(const struct x86_host *host, const ZydisDecodedInstruction *zi,
			  const ZydisDecodedOperand *ops, struct decoded *d)
{
	const struct row *row = &rows[zi->mnemonic];
	u8 isa = isa_rows[zi->meta.isa_set];

	/* A row of its own says all: MOVNTI and the fences use no vector state, helpers check for themselves. */
	d->state = isa && !row->cls ? isa - 1 : STATE_NONE;
	d->cls = row->cls ? row->cls : isa ? CLS_NATIVE : CLS_NONE;
	d->insn.op = row->op;
	if (zi->meta.category == ZYDIS_CATEGORY_STRINGOP && zi->mnemonic == ZYDIS_MNEMONIC_MOVSD) {
		d->cls = CLS_HELPER;
		d->insn.op = X86_OP_movs;
	} else if (zi->meta.category == ZYDIS_CATEGORY_STRINGOP &&
		   zi->mnemonic == ZYDIS_MNEMONIC_CMPSD) {
		d->cls = CLS_HELPER;
		d->insn.op = X86_OP_cmps;
	} else if (d->cls == CLS_MOVSYS) {
		resolve_mov(ops, d);
	} else if (d->cls == CLS_BRANCH) {
		resolve_branch(zi, ops, d);
	} else if (d->cls == CLS_STACK) {
		resolve_stack(ops, d);
	}
	if (d->insn.op == X86_OP_gather || d->insn.op == X86_OP_scatter)
		d->state = d->enc == ENC_EVEX ? STATE_AVX512 : STATE_AVX;
	else if (d->insn.op == X86_OP_maskmov)
		d->state = isa - 1;
	if (zi->mnemonic == ZYDIS_MNEMONIC_FISTTP) /* Zydis: a part of SSE3 */
		d->state = STATE_X87;
	if (d->insn.op == X86_OP_clzero) /* Zydis gives it no operand that a prefix could change */
		find_segment(zi, &d->insn);
	/* PREFETCH of a register: #UD on AMD processors, NOP on Intel's. */
	if (!host_can(host, zi->meta.isa_set, d) ||
	    (host->amd && zi->mnemonic == ZYDIS_MNEMONIC_NOP && zi->opcode == 0x0d))
		d->cls = CLS_UD;
}

/* A shift by a count of zero writes no flag: it needs the old ones. */
static bool shift_may_be_empty(const ZydisDecodedInstruction *zi, const ZydisDecodedOperand *ops)
{
	const ZydisDecodedOperand *count;

	switch (zi->mnemonic) {
	case ZYDIS_MNEMONIC_SHL:
	case ZYDIS_MNEMONIC_SHR:
	case ZYDIS_MNEMONIC_SAR:
	case ZYDIS_MNEMONIC_ROL:
	case ZYDIS_MNEMONIC_ROR:
	case ZYDIS_MNEMONIC_RCL:
	case ZYDIS_MNEMONIC_RCR:
		count = &ops[1];
		break;
	case ZYDIS_MNEMONIC_SHLD:
	case ZYDIS_MNEMONIC_SHRD:
		count = &ops[2];
		break;
	default:
		return false;
	}
	return count->type != ZYDIS_OPERAND_TYPE_IMMEDIATE || (count->imm.value.u & 0x1f) == 0 ||
	       count->imm.value.u > 15;
}

static void decode_flags(const ZydisDecodedInstruction *zi, const ZydisDecodedOperand *ops,
			 struct decoded *d)
{
	const ZydisAccessedFlags *f = zi->cpu_flags;

	if (!f)
		return;
	d->fl_read = f->tested & FL_ARITH;
	d->fl_write = (f->modified | f->set_0 | f->set_1 | f->undefined) & FL_ARITH;
	if (shift_may_be_empty(zi, ops))
		d->fl_read = FL_ARITH;
}

static void decode_prefixes(const ZydisDecodedInstruction *zi, struct x86_insn *insn)
{
	static const struct {
		ZydisInstructionAttributes attribute;
		u16 prefix;
	} map[] = {
		{ ZYDIS_ATTRIB_HAS_LOCK, INSN_LOCK },
		{ ZYDIS_ATTRIB_HAS_REP | ZYDIS_ATTRIB_HAS_REPE | ZYDIS_ATTRIB_HAS_XRELEASE,
		  INSN_REP },
		{ ZYDIS_ATTRIB_HAS_REPNE | ZYDIS_ATTRIB_HAS_XACQUIRE, INSN_REPNE },
		{ ZYDIS_ATTRIB_HAS_OPERANDSIZE, INSN_OPSIZE },
		{ ZYDIS_ATTRIB_HAS_ADDRESSSIZE, INSN_ADSIZE },
		{ ZYDIS_ATTRIB_HAS_REX, INSN_REX },
	};

	for (unsigned i = 0; i < ARRAY_SIZE(map); i++)
		if (zi->attributes & map[i].attribute)
			insn->prefixes |= map[i].prefix;
	if (insn->prefixes & INSN_REX && zi->raw.rex.W)
		insn->prefixes |= INSN_REX_W;
}

static void decode_operands(const ZydisDecodedInstruction *zi, const ZydisDecodedOperand *ops,
			    struct decoded *d)
{
	struct x86_insn *insn = &d->insn;

	for (unsigned i = 0; i < zi->operand_count; i++) {
		const ZydisDecodedOperand *op = &ops[i];
		bool high;

		if (op->type == ZYDIS_OPERAND_TYPE_REGISTER && is_gpr(op->reg.value) &&
		    op->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE)
			d->gpr_written |= BIT(reg_number(op->reg.value, &high));
	}
	for (unsigned i = 0; i < zi->operand_count_visible; i++) {
		const ZydisDecodedOperand *op = &ops[i];

		if (op->type == ZYDIS_OPERAND_TYPE_MEMORY)
			decode_mem(zi, op, insn);
		if (op->type != ZYDIS_OPERAND_TYPE_REGISTER)
			continue;
		if (op->encoding == ZYDIS_OPERAND_ENCODING_NDSNDD)
			insn->vvvv = ZydisRegisterGetId(op->reg.value);
		if (op->encoding == ZYDIS_OPERAND_ENCODING_MODRM_REG && !is_gpr(op->reg.value))
			insn->reg = ZydisRegisterGetId(op->reg.value);
		if (is_gpr(op->reg.value))
			decode_gpr(op, d);
	}
	/* String instructions: the override applies to the source, which is an implicit operand. */
	if (zi->attributes & ZYDIS_ATTRIB_HAS_SEGMENT && !insn->has_mem) {
		static const struct {
			ZydisInstructionAttributes a;
			u8 seg;
		} segs[] = {
			{ ZYDIS_ATTRIB_HAS_SEGMENT_CS, SEG_CS },
			{ ZYDIS_ATTRIB_HAS_SEGMENT_SS, SEG_SS },
			{ ZYDIS_ATTRIB_HAS_SEGMENT_DS, SEG_DS },
			{ ZYDIS_ATTRIB_HAS_SEGMENT_ES, SEG_ES },
			{ ZYDIS_ATTRIB_HAS_SEGMENT_FS, SEG_FS },
			{ ZYDIS_ATTRIB_HAS_SEGMENT_GS, SEG_GS },
		};

		insn->seg_override = true;
		for (unsigned i = 0; i < ARRAY_SIZE(segs); i++)
			if (zi->attributes & segs[i].a)
				insn->seg = segs[i].seg;
	}
}

static void decode_layout(const ZydisDecodedInstruction *zi, struct decoded *d)
{
	struct x86_insn *insn = &d->insn;

	d->enc = zi->encoding == ZYDIS_INSTRUCTION_ENCODING_VEX	   ? ENC_VEX
		 : zi->encoding == ZYDIS_INSTRUCTION_ENCODING_EVEX ? ENC_EVEX
								   : ENC_LEGACY;
	for (unsigned i = 0; i < zi->raw.prefix_count; i++)
		if (zi->raw.prefixes[i].value == 0x66 &&
		    zi->raw.prefixes[i].type == ZYDIS_PREFIX_TYPE_MANDATORY)
			d->mandatory_66 = true;
	d->has_modrm = zi->attributes & ZYDIS_ATTRIB_HAS_MODRM;
	d->modrm_off = zi->raw.modrm.offset;
	d->imm_off = zi->raw.imm[0].size ? zi->raw.imm[0].offset : zi->length;
	d->imm_size = zi->raw.imm[0].size / 8;
	d->imm_signed = zi->raw.imm[0].is_signed;
	d->disp_off = zi->raw.disp.offset;
	d->disp_size = zi->raw.disp.size / 8;
	d->opcode_off = d->enc == ENC_VEX    ? zi->raw.vex.offset
			: d->enc == ENC_EVEX ? zi->raw.evex.offset
					     : zi->raw.prefix_count;
	if (zi->attributes & ZYDIS_ATTRIB_HAS_REX) {
		/* A REX prefix counts only directly before the opcode; Zydis ignores others. */
		d->rex = insn->bytes[zi->raw.rex.offset];
		d->opcode_off = zi->raw.rex.offset + 1;
	}
	if (d->has_modrm) {
		insn->modrm = insn->bytes[d->modrm_off];
		insn->reg = zi->raw.modrm.reg | (d->rex & 4 ? 8 : 0);
		insn->rm = zi->raw.modrm.rm | (d->rex & 1 ? 8 : 0);
	} else {
		insn->reg = (zi->opcode & 7) | (d->rex & 1 ? 8 : 0);
	}
	insn->imm = zi->raw.imm[0].is_signed ? (u64)zi->raw.imm[0].value.s : zi->raw.imm[0].value.u;
	insn->imm2 = zi->raw.imm[1].value.u;
}

/*
 * Bytes that are no instruction: the record has all that the decoder may have looked at, because the block is as
 * good as these bytes are.
 */
static int decode_nothing(const u8 *bytes, unsigned n, struct decoded *out)
{
	out->cls = CLS_UD;
	out->insn.len = n;
	memcpy(out->insn.bytes, bytes, n);
	return -1;
}

/*
 * LOCK MOV CR0 is AMD's other name of MOV CR8, which Zydis does not know. Returns the place of the LOCK prefix,
 * or @n where this is something else.
 */
static unsigned alt_cr8_lock(x86_mode_t mode, const u8 *bytes, unsigned n)
{
	static const u8 prefixes[] = { 0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65, 0x66, 0x67, 0xf0 };
	unsigned i = 0, lock = n;

	for (; i < n && memchr(prefixes, bytes[i], sizeof(prefixes)); i++)
		if (bytes[i] == 0xf0)
			lock = i;
	if (i < n && mode & MODE_64 && (bytes[i] & 0xf0) == 0x40)
		i++;
	return i + 2 < n && bytes[i] == 0x0f && (bytes[i + 1] & 0xfd) == 0x20 ? lock : n;
}

int decode(const struct x86_host *host, x86_mode_t mode, const u8 *bytes, unsigned n,
	   struct decoded *out)
{
	ZydisDecodedInstruction zi;
	ZydisDecodedOperand ops[ZYDIS_MAX_OPERAND_COUNT];
	struct x86_insn *insn = &out->insn;
	ZyanStatus status;
	u8 copy[15];

	/* Other vCPUs may be writing the bytes: what is executed must be what was decoded, so they are read once. */
	n = n < sizeof(copy) ? n : sizeof(copy);
	memcpy(copy, bytes, n);
	bytes = copy;
	__asm__ volatile("" : "+r"(bytes) : : "memory");
	status = ZydisDecoderDecodeFull(decoder_of(mode), bytes, n, &zi, ops);
	memset(out, 0, sizeof(*out));
	if (status == ZYDIS_STATUS_NO_MORE_DATA)
		return n >= 15 ? -1 : -2;
	if (!ZYAN_SUCCESS(status)) {
		unsigned lock = alt_cr8_lock(mode, bytes, n);
		u8 rest[15];

		if (lock == n)
			return decode_nothing(bytes, n, out);
		memcpy(rest, bytes, lock);
		memcpy(rest + lock, bytes + lock + 1, n - lock - 1);
		if (decode(host, mode, rest, n - 1, out))
			return decode_nothing(bytes, n, out);
		insn->prefixes |= INSN_LOCK;
		memcpy(insn->bytes, bytes, ++insn->len);
		return 0;
	}
	insn->len = zi.length;
	memcpy(insn->bytes, bytes, zi.length);
	insn->opcode = zi.opcode;
	insn->opsize = zi.operand_width / 8;
	insn->adsize = zi.address_width / 8;
	insn->mode64 = !!(mode & MODE_64);
	insn->base = insn->index = INSN_NO_REG;
	insn->seg = SEG_DS;
	insn->vlen = zi.avx.vector_length / 8;
	decode_prefixes(&zi, insn);
	decode_layout(&zi, out);
	decode_operands(&zi, ops, out);
	decode_mask(&zi, ops, insn);
	resolve_class(host, &zi, ops, out);
	decode_flags(&zi, ops, out);
	if (insn->has_mem)
		insn->align = alignment_of(&zi, out);
	if (zi.mnemonic == ZYDIS_MNEMONIC_PAUSE && out->rex & 1) {
		/* F3 REX.B 90 is XCHG R8 with RAX; Zydis says PAUSE. */
		out->gpr[out->ngpr].slot = SLOT_OPCODE;
		out->gpr[out->ngpr].reg = R8;
		out->gpr[out->ngpr].size = insn->opsize;
		out->gpr[out->ngpr++].rw = INSN_READ | INSN_WRITE;
	}
	if (insn->has_mem && !out->has_modrm)
		insn->reg = RAX; /* moffs */
	if (out->cls == CLS_NATIVE)
		insn->move = move_of(&zi, ops);
	insn->vector = out->state != STATE_NONE;
	insn->bit_offset = insn->has_mem && out->ngpr &&
			   (zi.mnemonic == ZYDIS_MNEMONIC_BT || zi.mnemonic == ZYDIS_MNEMONIC_BTS ||
			    zi.mnemonic == ZYDIS_MNEMONIC_BTR || zi.mnemonic == ZYDIS_MNEMONIC_BTC);
	return 0;
}

void decode_print(x86_mode_t mode, const u8 *bytes, unsigned n, char *buf, size_t size)
{
	ZydisDecodedInstruction zi;
	ZydisDecodedOperand ops[ZYDIS_MAX_OPERAND_COUNT];
	ZydisFormatter f;

	ZydisFormatterInit(&f, ZYDIS_FORMATTER_STYLE_INTEL);
	if (!ZYAN_SUCCESS(ZydisDecoderDecodeFull(decoder_of(mode), bytes, n, &zi, ops)) ||
	    !ZYAN_SUCCESS(ZydisFormatterFormatInstruction(&f, &zi, ops, zi.operand_count_visible,
							  buf, size, 0, NULL)))
		strcpy(buf, "(bad)");
}

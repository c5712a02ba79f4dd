/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The system instructions that a kernel executes most, without a call to C. */
#include "cpu/x86/ops.h"
#include "engine/x86/translate.h"

/* All are for 64-bit mode; none changes an arithmetic flag. Those that the row forbids in this mode take the helper. */

static bool at_cpl0(const struct tr *t)
{
	return (t->mode & MODE_CPL) == 0;
}

static bool emit_cli(struct tr *t, unsigned i)
{
	(void)i;
	if (!at_cpl0(t))
		return false;
	emit_store8_gs_imm(&t->e, GS(cpu.f.intr), 0);
	return true;
}

/*
 * No poll follows before the next instruction of the block has run, which is all that the shadow of
 * STI asks for, unless an interrupt waits already: then the helper does it by the book.
 */
static bool emit_sti(struct tr *t, unsigned i)
{
	struct emit *e = &t->e;
	struct x86_insn *rec;
	u8 *none, *done;

	if (!at_cpl0(t) || i == t->n - 1)
		return false;
	rec = tr_record(t, i);
	emit_mov(e, T0, RCX);
	emit8(e, 0x65); /* movzx ecx, byte gs:[irq_waiting] */
	emit_bytes(e, (const u8[]){ 0x0f, 0xb6, 0x0c, 0x25 }, 4);
	emit32(e, GS(cpu.irq_waiting));
	none = emit_jcc8(e, 0xe3);
	emit_mov(e, RCX, T0);
	if (t->flags == FLAGS_HOST)
		emit_flags_save(e, T0, GS_AFLAGS);
	emit_mov_imm64(e, T1, (u64)rec);
	emit_call_to(e, t->v->stubs.op);
	if (t->flags == FLAGS_HOST)
		emit_flags_load(e, T0, GS_AFLAGS);
	done = emit_jmp(e);
	emit_patch8(e, none);
	emit_mov(e, RCX, T0);
	emit_store8_gs_imm(e, GS(cpu.f.intr), 1);
	emit_patch(e, done);
	return true;
}

/* AC chooses the TLB context. */
static bool emit_ac(struct tr *t, u8 ac)
{
	if (!at_cpl0(t))
		return false;
	emit_store8_gs_imm(&t->e, GS(cpu.f.ac), ac);
	emit_load_gs(&t->e, T0, ac ? GS(tlb_ac) : GS(tlb_no_ac));
	emit_store_gs(&t->e, T0, GS(tlb));
	return true;
}

static bool emit_stac(struct tr *t, unsigned i)
{
	(void)i;
	return emit_ac(t, 1);
}

static bool emit_clac(struct tr *t, unsigned i)
{
	(void)i;
	return emit_ac(t, 0);
}

static bool emit_swapgs(struct tr *t, unsigned i)
{
	(void)i;
	if (!at_cpl0(t))
		return false;
	emit_load_gs(&t->e, T0, GS(cpu.kernel_gs_base));
	emit_load_gs(&t->e, T1, GS_SEG_BASE(SEG_GS));
	emit_store_gs(&t->e, T0, GS_SEG_BASE(SEG_GS));
	emit_store_gs(&t->e, T1, GS(cpu.kernel_gs_base));
	return true;
}

/* EDX:EAX = T0 */
static void emit_split(struct tr *t)
{
	emit_store_gs(&t->e, T0, GS(target));
	emit_mov32(&t->e, RAX, T0);
	emit_op_gs(&t->e, false, 0x8b, RDX, GS(target) + 4);
}

static bool emit_tsc(struct tr *t)
{
	struct emit *e = &t->e;

	if (t->mode & MODE_TSD)
		return false;
	emit_bytes(e, (const u8[]){ 0x0f, 0x31 }, 2); /* rdtsc */
	emit_store32_gs(e, RAX, GS(target));
	emit_store32_gs(e, RDX, GS(target) + 4);
	emit_load_gs(e, T0, GS(target));
	emit_load_gs(e, T1, GS(cpu.tsc_offset));
	emit_lea(e, T0, T0, T1, 1, 0, 8);
	emit_split(t);
	return true;
}

static bool emit_rdtsc(struct tr *t, unsigned i)
{
	(void)i;
	return emit_tsc(t);
}

/* LFENCE before: RDTSCP waits for what is older. */
static bool emit_rdtscp(struct tr *t, unsigned i)
{
	(void)i;
	if (t->mode & MODE_TSD)
		return false;
	emit_bytes(&t->e, (const u8[]){ 0x0f, 0xae, 0xe8 }, 3);
	emit_tsc(t);
	emit_op_gs(&t->e, false, 0x8b, RCX, GS(cpu.tsc_aux));
	return true;
}

static bool emit_mov_from_cr(struct tr *t, unsigned i)
{
	const struct x86_insn *insn = &t->d[i].insn;

	if (!at_cpl0(t) || insn->prefixes & INSN_LOCK || (insn->reg != 2 && insn->reg != 3))
		return false;
	emit_load_gs(&t->e, T0, insn->reg == 2 ? GS(cpu.cr2) : GS(cpu.cr3));
	tr_gpr_store(t, insn->rm, T0);
	return true;
}

/* RFLAGS from where its parts are: aflags as LAHF and SETO left them, IF, AC, and the rest in v->rare_flags. */
static bool emit_pushf(struct tr *t, unsigned i)
{
	static const struct {
		u32 at;
		u8 shift;
	} parts[] = {
		{ GS_AFLAGS + 1, 0 },
		{ GS_AFLAGS, 11 },
		{ GS(cpu.f.intr), 9 },
		{ GS(cpu.f.ac), 18 },
	};
	struct emit *e = &t->e;

	if (t->d[i].insn.opsize != 8 || t->flags == FLAGS_DEAD)
		return false;
	if (t->flags == FLAGS_HOST)
		emit_flags_save(e, T0, GS_AFLAGS);
	t->flags = FLAGS_SAVED;
	emit_load_gs(e, T1, GS(rare_flags));
	for (unsigned k = 0; k < ARRAY_SIZE(parts); k++) {
		emit_movzx8_gs(e, T0, parts[k].at);
		if (parts[k].shift)
			emit_shift(e, false, SHIFT_SHL, T0, parts[k].shift);
		emit_alu(e, ALU_OR, T1, T0);
	}
	/* No guest register is borrowed where memory is accessed: the host may refuse that. */
	emit_store_gs(e, T1, GS(target));
	tr_stack_push_address(t, i);
	emit_load_gs(e, T1, GS(target));
	tr_pc_access(t, i, 0);
	emit_op_base(e, true, 0x89, T1, T0, 0);
	emit_lea(e, HOST_RSP, HOST_RSP, EMIT_NO_REG, 1, -8, 8);
	return true;
}

static const struct {
	u16 op;
	bool (*emit)(struct tr *t, unsigned i);
} rows[] = {
	{ X86_OP_cli, emit_cli },	{ X86_OP_sti, emit_sti },
	{ X86_OP_stac, emit_stac },	{ X86_OP_clac, emit_clac },
	{ X86_OP_swapgs, emit_swapgs }, { X86_OP_rdtsc, emit_rdtsc },
	{ X86_OP_rdtscp, emit_rdtscp }, { X86_OP_mov_from_cr, emit_mov_from_cr },
	{ X86_OP_pushf, emit_pushf },
};

bool tr_system(struct tr *t, unsigned i)
{
	if (t->form != FORM_FAST)
		return false;
	for (unsigned k = 0; k < ARRAY_SIZE(rows); k++)
		if (rows[k].op == t->d[i].insn.op)
			return rows[k].emit(t, i);
	return false;
}

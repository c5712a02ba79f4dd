/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Port instructions: IN, OUT, INS and OUTS, with the I/O permission bitmap. */
#include "cpu/x86/io.h"

#include "base/bulk.h"
#include "cpu/x86/access.h"
#include "cpu/x86/event.h"
#include "cpu/x86/mode.h"
#include "cpu/x86/ops.h"

#define TSS_IO_BASE   0x66
#define TSS_MIN_LIMIT 103
#define TSS_32_BUSY   0xb
#define TSS_32	      0x9

enum x86_status x86_io_allowed(struct x86_cpu *cpu, u16 port, unsigned size)
{
	const struct x86_seg *tr = &cpu->seg[SEG_TR];
	unsigned type = tr->attr & SA_TYPE;
	enum x86_status st;
	u16 base = 0, bits = 0;
	u32 at;

	if (!(cpu->mode & MODE_PE) || (!(cpu->mode & MODE_VM) && cpu->cpl <= cpu->f.iopl))
		return X86_OK;
	if (tr->attr & SA_UNUSABLE || !(tr->attr & SA_P) ||
	    (type != TSS_32_BUSY && type != TSS_32) || tr->limit < TSS_MIN_LIMIT)
		return x86_raise_gp(cpu, 0);
	st = x86_read(cpu, tr->base + TSS_IO_BASE, &base, 2, ACC_READ | ACC_SYSTEM);
	if (st != X86_OK)
		return st;
	/* Two bytes are read always: a port's bits may end in the second. */
	at = base + port / 8u;
	if (at + 1 > tr->limit)
		return x86_raise_gp(cpu, 0);
	st = x86_read(cpu, tr->base + at, &bits, 2, ACC_READ | ACC_SYSTEM);
	if (st != X86_OK)
		return st;
	if (bits >> port % 8 & ((1u << size) - 1))
		return x86_raise_gp(cpu, 0);
	return X86_OK;
}

/* There are no 64-bit ports: REX.W changes nothing. */
static inline unsigned io_size(const struct x86_insn *insn)
{
	return insn->opsize > 4 ? 4 : insn->opsize;
}

/* Forms Ex with bit 3 set take the port from DX, the others from the immediate byte. */
static inline u16 io_port(const struct x86_cpu *cpu, const struct x86_insn *insn)
{
	return insn->opcode & 8 ? (u16)x86_gpr_sized(cpu, RDX, 2) : (u8)insn->imm;
}

enum x86_status x86_op_in(struct x86_cpu *cpu, const struct x86_insn *insn)
{
	unsigned size = io_size(insn);
	u16 port = io_port(cpu, insn);
	enum x86_status st = x86_io_allowed(cpu, port, size);
	u32 v = 0;

	if (st == X86_OK)
		st = x86_io(cpu, port, &v, size, false);
	if (st == X86_OK)
		x86_gpr_write(cpu, RAX, v, size);
	return st;
}

enum x86_status x86_op_out(struct x86_cpu *cpu, const struct x86_insn *insn)
{
	unsigned size = io_size(insn);
	u16 port = io_port(cpu, insn);
	enum x86_status st = x86_io_allowed(cpu, port, size);
	u32 v = x86_gpr_sized(cpu, RAX, 4);

	return st == X86_OK ? x86_io(cpu, port, &v, size, true) : st;
}

/* One element at @ea, of @left; registers are the caller's. */
typedef enum x86_status io_element_fn(struct x86_cpu *cpu, const struct x86_insn *insn, u64 ea,
				      u64 left);

static bool ahead_has(const struct x86_cpu *cpu)
{
	return cpu->ahead.at < cpu->ahead.end;
}

static void ahead_forget(struct x86_cpu *cpu)
{
	cpu->ahead.at = cpu->ahead.end = 0;
}

/* How many elements user space may be asked for at once: upwards and inside the page, as KVM. */
static u32 ins_batch(const struct x86_cpu *cpu, gva_t lin, unsigned size, u64 left)
{
	u64 n = (PAGE_SIZE - (lin & ~PAGE_MASK)) / size;

	if (cpu->f.df || cpu->mode & MODE_STEP)
		return 1;
	n = n > X86_AHEAD_MAX / size ? X86_AHEAD_MAX / size : n;
	n = n > left ? left : n;
	return n ? n : 1;
}

static enum x86_status ins_ask(struct x86_cpu *cpu, gva_t lin, u32 *v, unsigned size, u64 left)
{
	enum x86_status st;

	if (ahead_has(cpu) && !cpu->replay.n) {
		bulk_copy(v, cpu->ahead.data + cpu->ahead.at, size);
		cpu->ahead.at += size;
		return X86_OK;
	}
	st = x86_io(cpu, x86_gpr_sized(cpu, RDX, 2), v, size, false);
	if (st == X86_EXIT && cpu->exit.reason == X86_EXIT_IO) {
		ahead_forget(cpu);
		cpu->exit.count = ins_batch(cpu, lin, size, left);
	}
	return st;
}

/* The destination is checked before the device is asked: what was read must not be lost. */
static enum x86_status ins_element(struct x86_cpu *cpu, const struct x86_insn *insn, u64 ea,
				   u64 left)
{
	unsigned size = io_size(insn);
	enum x86_status st;
	gva_t lin;
	u32 v = 0;

	st = x86_linear(cpu, SEG_ES, ea, size, ACC_WRITE, &lin);
	if (st == X86_OK)
		st = x86_probe(cpu, lin, size, ACC_WRITE);
	if (st == X86_OK)
		st = ins_ask(cpu, lin, &v, size, left);
	if (st == X86_OK)
		st = x86_write(cpu, lin, &v, size, ACC_WRITE);
	return st;
}

static enum x86_status outs_element(struct x86_cpu *cpu, const struct x86_insn *insn, u64 ea,
				    u64 left)
{
	unsigned seg = insn->seg_override ? insn->seg : SEG_DS, size = io_size(insn);
	enum x86_status st;
	u32 v = 0;

	(void)left;
	st = x86_read_seg(cpu, seg, ea, &v, size);
	return st == X86_OK ? x86_io(cpu, x86_gpr_sized(cpu, RDX, 2), &v, size, true) : st;
}

#define IO_BUDGET 256 /* elements between two polls */

static enum x86_status io_string(struct x86_cpu *cpu, const struct x86_insn *insn, unsigned reg,
				 io_element_fn *element)
{
	u64 left = 1, size = io_size(insn), budget = cpu->mode & MODE_STEP ? 1 : IO_BUDGET;
	bool rep = insn->prefixes & (INSN_REP | INSN_REPNE);
	enum x86_status st = x86_io_allowed(cpu, x86_gpr_sized(cpu, RDX, 2), size);

	if (rep)
		left = x86_gpr_sized(cpu, RCX, insn->adsize);
	while (st == X86_OK && left) {
		bool replayed;

		st = element(cpu, insn, x86_gpr_sized(cpu, reg, insn->adsize), left);
		if (st != X86_OK)
			break;
		x86_gpr_write(cpu, reg, x86_gpr(cpu, reg) + (cpu->f.df ? -size : size),
			      insn->adsize);
		if (!rep)
			break;
		x86_gpr_write(cpu, RCX, --left, insn->adsize);
		replayed = cpu->replay.n;
		x86_replay_forget(cpu);
		if (left && !ahead_has(cpu) && (replayed || cpu->kick || !--budget)) {
			cpu->next_rip = cpu->rip;
			break;
		}
	}
	return st;
}

enum x86_status x86_op_ins(struct x86_cpu *cpu, const struct x86_insn *insn)
{
	enum x86_status st = io_string(cpu, insn, RDI, ins_element);

	/* User space may have changed RCX, and another vCPU the page tables: what is left over is lost. */
	if (st == X86_OK || st == X86_FAULT)
		ahead_forget(cpu);
	return st;
}

enum x86_status x86_op_outs(struct x86_cpu *cpu, const struct x86_insn *insn)
{
	return io_string(cpu, insn, RSI, outs_element);
}

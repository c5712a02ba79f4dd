/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Instructions on control and debug registers, the TLB, caches and XCR0. */
#include "cpu/x86/access.h"
#include "cpu/x86/control.h"
#include "cpu/x86/cpuid.h"
#include "cpu/x86/debug.h"
#include "cpu/x86/event.h"
#include "cpu/x86/fpu.h"
#include "cpu/x86/mode.h"
#include "cpu/x86/ops.h"

/* MOV to and from CR and DR: 64 bits in 64-bit mode, else 32, whatever the prefixes say. */
static unsigned register_size(const struct x86_cpu *cpu)
{
	return x86_is_64(cpu) ? 8 : 4;
}

/*
 * Which control register: CR8 by REX.R, or in any mode by AMD's LOCK MOV CR0 where CPUID has it.
 * Returns -1 for #UD.
 */
static int control_number(const struct x86_cpu *cpu, const struct x86_insn *insn)
{
	int n = insn->reg;

	if (insn->prefixes & INSN_LOCK) {
		if (n != 0 || !x86_cpuid_has(cpu, 0x80000001, 0, 2, 4))
			return -1;
		n = 8;
	}
	return n == 0 || n == 2 || n == 3 || n == 4 || n == 8 ? n : -1;
}

static bool tpr_is_platform(const struct x86_cpu *cpu)
{
	return cpu->platform && cpu->platform->get_tpr && cpu->platform->set_tpr;
}

enum x86_status x86_op_mov_from_cr(struct x86_cpu *cpu, const struct x86_insn *insn)
{
	int n = control_number(cpu, insn);
	u64 v;

	if (n < 0)
		return x86_raise_ud(cpu);
	if (cpu->cpl > 0)
		return x86_raise_gp(cpu, 0);
	if (n == 8 && tpr_is_platform(cpu) && !cpu->full)
		return X86_FULL;
	switch (n) {
	case 0:
		v = cpu->cr0;
		break;
	case 2:
		v = cpu->cr2;
		break;
	case 3:
		v = cpu->cr3;
		break;
	case 4:
		v = cpu->cr4;
		break;
	default:
		v = tpr_is_platform(cpu) ? cpu->platform->get_tpr(cpu->owner) : cpu->cr8;
	}
	x86_gpr_write(cpu, insn->rm, v, register_size(cpu));
	return X86_OK;
}

static enum x86_status set_cr8(struct x86_cpu *cpu, u64 v)
{
	if (v & ~0xfull)
		return x86_raise_gp(cpu, 0);
	if (tpr_is_platform(cpu)) {
		if (!cpu->full)
			return X86_FULL;
		cpu->platform->set_tpr(cpu->owner, v);
	}
	cpu->cr8 = v;
	x86_window_opened(cpu);
	return X86_OK;
}

enum x86_status x86_op_mov_to_cr(struct x86_cpu *cpu, const struct x86_insn *insn)
{
	int n = control_number(cpu, insn);
	u64 v = x86_gpr(cpu, insn->rm);

	if (n < 0)
		return x86_raise_ud(cpu);
	if (cpu->cpl > 0)
		return x86_raise_gp(cpu, 0);
	switch (n) {
	case 0:
		return x86_set_cr0(cpu, v);
	case 2:
		cpu->cr2 = v;
		return X86_OK;
	case 3:
		return x86_set_cr3(cpu, v);
	case 4:
		return x86_set_cr4(cpu, v);
	default:
		return set_cr8(cpu, v);
	}
}

/* DR4 and DR5 are DR6 and DR7, or #UD with CR4.DE. X86_OK: *@n is 0-3, 6 or 7 and may be accessed. */
static enum x86_status debug_number(struct x86_cpu *cpu, const struct x86_insn *insn, unsigned *n)
{
	*n = insn->reg;
	if (*n > 7 || insn->prefixes & INSN_LOCK)
		return x86_raise_ud(cpu);
	if (*n == 4 || *n == 5) {
		if (cpu->cr4 & CR4_DE)
			return x86_raise_ud(cpu);
		*n += 2;
	}
	if (cpu->cpl > 0)
		return x86_raise_gp(cpu, 0);
	if (x86_dr7(cpu) & DR7_GD)
		return x86_raise_db(cpu, DR6_BD);
	return X86_OK;
}

enum x86_status x86_op_mov_from_dr(struct x86_cpu *cpu, const struct x86_insn *insn)
{
	unsigned n;
	u64 v;

	if (debug_number(cpu, insn, &n))
		return X86_FAULT;
	v = n < 4 ? cpu->dr[n] : n == 6 ? cpu->dr6 : cpu->dr7;
	x86_gpr_write(cpu, insn->rm, v, register_size(cpu));
	return X86_OK;
}

enum x86_status x86_op_mov_to_dr(struct x86_cpu *cpu, const struct x86_insn *insn)
{
	u64 v = x86_gpr(cpu, insn->rm);
	unsigned n;

	if (debug_number(cpu, insn, &n))
		return X86_FAULT;
	if (n < 4) {
		cpu->dr[n] = v;
	} else {
		if (v >> 32)
			return x86_raise_gp(cpu, 0);
		if (n == 6)
			cpu->dr6 = (v & DR6_WRITABLE) | DR6_FIXED;
		else
			cpu->dr7 = (v & DR7_WRITABLE) | DR7_FIXED;
	}
	x86_mode_update(cpu); /* breakpoints decide how code is run */
	return X86_OK;
}

enum x86_status x86_op_lmsw(struct x86_cpu *cpu, const struct x86_insn *insn)
{
	enum x86_status st;
	u64 v;

	if (cpu->cpl > 0)
		return x86_raise_gp(cpu, 0);
	st = x86_operand_read(cpu, insn, &v, 2);
	if (st)
		return st;
	v &= CR0_PE | CR0_MP | CR0_EM | CR0_TS;
	v |= cpu->cr0 & CR0_PE; /* cannot be cleared this way */
	return x86_set_cr0(cpu, (cpu->cr0 & ~(CR0_PE | CR0_MP | CR0_EM | CR0_TS)) | v);
}

enum x86_status x86_op_smsw(struct x86_cpu *cpu, const struct x86_insn *insn)
{
	if (cpu->cpl > 0 && cpu->cr4 & CR4_UMIP)
		return x86_raise_gp(cpu, 0);
	return x86_operand_write(cpu, insn, cpu->cr0, insn->has_mem ? 2 : insn->opsize);
}

enum x86_status x86_op_clts(struct x86_cpu *cpu, const struct x86_insn *insn)
{
	(void)insn;
	if (cpu->cpl > 0)
		return x86_raise_gp(cpu, 0);
	cpu->cr0 &= ~CR0_TS;
	x86_mode_update(cpu);
	return X86_OK;
}

enum x86_status x86_op_invlpg(struct x86_cpu *cpu, const struct x86_insn *insn)
{
	u64 lin = x86_effective(cpu, insn);

	if (!insn->has_mem)
		return x86_raise_ud(cpu);
	if (cpu->cpl > 0)
		return x86_raise_gp(cpu, 0);
	/* No segment checks; an address that is not canonical is no address: nothing to do. */
	if (!x86_is_64(cpu))
		lin = (u32)(lin + cpu->seg[insn->seg].base);
	else if (insn->seg == SEG_FS || insn->seg == SEG_GS)
		lin += cpu->seg[insn->seg].base;
	if (x86_canonical(lin, cpu->cr4 & CR4_LA57 ? 57 : 48))
		x86_flush_page(cpu, lin);
	return X86_OK;
}

struct invpcid_descriptor {
	u64 pcid, address;
};

enum invpcid_type { INVPCID_ADDRESS, INVPCID_CONTEXT, INVPCID_ALL, INVPCID_NONGLOBAL };

/* Whether the descriptor is one that @type accepts. */
static bool invpcid_is_valid(const struct x86_cpu *cpu, u64 type,
			     const struct invpcid_descriptor *d)
{
	if (type > INVPCID_NONGLOBAL || d->pcid >> 12)
		return false;
	if (type <= INVPCID_CONTEXT && d->pcid && !(cpu->cr4 & CR4_PCIDE))
		return false;
	return type != INVPCID_ADDRESS || x86_canonical(d->address, cpu->cr4 & CR4_LA57 ? 57 : 48);
}

enum x86_status x86_op_invpcid(struct x86_cpu *cpu, const struct x86_insn *insn)
{
	u64 type = x86_gpr(cpu, insn->reg);
	struct invpcid_descriptor d;
	enum x86_status st;

	if (!insn->has_mem || !x86_cpuid_has(cpu, 7, 0, 1, 10))
		return x86_raise_ud(cpu);
	if (cpu->cpl > 0)
		return x86_raise_gp(cpu, 0);
	st = x86_read_seg(cpu, insn->seg, x86_effective(cpu, insn), &d, sizeof(d));
	if (st)
		return st;
	if (!invpcid_is_valid(cpu, type, &d))
		return x86_raise_gp(cpu, 0);
	if (type == INVPCID_ADDRESS && d.pcid == (cpu->cr4 & CR4_PCIDE ? cpu->cr3 & 0xfff : 0))
		x86_flush_page(cpu, d.address);
	else if (type <= INVPCID_CONTEXT)
		x86_flush_pcid(cpu, d.pcid);
	else /* that global pages go too for INVPCID_NONGLOBAL is allowed */
		x86_flush_all(cpu);
	return X86_OK;
}

enum x86_status x86_op_invd(struct x86_cpu *cpu, const struct x86_insn *insn)
{
	(void)insn;
	/* DIFFERS: INVD keeps modified lines, as KVM does: the caches are the host's. */
	return cpu->cpl > 0 ? x86_raise_gp(cpu, 0) : X86_OK;
}

enum x86_status x86_op_xgetbv(struct x86_cpu *cpu, const struct x86_insn *insn)
{
	u32 index = x86_gpr_sized(cpu, RCX, 4);
	u64 v = cpu->xcr0;

	(void)insn;
	if (!(cpu->cr4 & CR4_OSXSAVE))
		return x86_raise_ud(cpu);
	if (index == 1 && x86_cpuid_has(cpu, 0xd, 1, 0, 2)) {
		if (!cpu->full)
			return X86_FULL; /* the state is in the host's registers */
		v &= x86_fpu_xinuse(cpu);
	} else if (index != 0) {
		return x86_raise_gp(cpu, 0);
	}
	x86_edx_eax_set(cpu, v);
	return X86_OK;
}

enum x86_status x86_op_xsetbv(struct x86_cpu *cpu, const struct x86_insn *insn)
{
	(void)insn;
	if (!(cpu->cr4 & CR4_OSXSAVE))
		return x86_raise_ud(cpu);
	if (cpu->cpl > 0 || x86_gpr_sized(cpu, RCX, 4) != 0)
		return x86_raise_gp(cpu, 0);
	return x86_set_xcr0(cpu, x86_edx_eax(cpu));
}

/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The flags that guests own only virtually: CLI, STI, CLD, STD, CLAC, STAC, PUSHF, POPF; and HLT. */
#include "cpu/x86/access.h"
#include "cpu/x86/cpuid.h"
#include "cpu/x86/event.h"
#include "cpu/x86/mode.h"
#include "cpu/x86/ops.h"

#define SHADOW_STI 1

/* What CLI and STI change. */
enum if_target { IF_REAL, IF_VIRTUAL, IF_DENIED };

static inline enum if_target if_target(const struct x86_cpu *cpu)
{
	/* Real mode: CPL and IOPL do not matter, CPL is 0. */
	if (likely(cpu->cpl <= cpu->f.iopl))
		return IF_REAL;
	if (cpu->f.vm)
		return cpu->cr4 & CR4_VME ? IF_VIRTUAL : IF_DENIED;
	return cpu->cpl == 3 && (cpu->cr4 & CR4_PVI) ? IF_VIRTUAL : IF_DENIED;
}

enum x86_status x86_op_cli(struct x86_cpu *cpu, const struct x86_insn *insn)
{
	(void)insn;
	switch (if_target(cpu)) {
	case IF_REAL:
		cpu->f.intr = 0;
		return X86_OK;
	case IF_VIRTUAL:
		cpu->f.vif = 0;
		return X86_OK;
	default:
		return x86_raise_gp(cpu, 0);
	}
}

enum x86_status x86_op_sti(struct x86_cpu *cpu, const struct x86_insn *insn)
{
	(void)insn;
	switch (if_target(cpu)) {
	case IF_REAL:
		if (!cpu->f.intr) {
			cpu->f.intr = 1;
			x86_shadow_begin(cpu, SHADOW_STI);
			x86_window_opened(cpu);
		}
		return X86_OK;
	case IF_VIRTUAL:
		if (cpu->f.vip)
			return x86_raise_gp(cpu, 0);
		cpu->f.vif = 1;
		return X86_OK;
	default:
		return x86_raise_gp(cpu, 0);
	}
}

enum x86_status x86_op_cld(struct x86_cpu *cpu, const struct x86_insn *insn)
{
	(void)insn;
	cpu->f.df = 0;
	return X86_OK;
}

enum x86_status x86_op_std(struct x86_cpu *cpu, const struct x86_insn *insn)
{
	(void)insn;
	cpu->f.df = 1;
	return X86_OK;
}

static enum x86_status ac_set(struct x86_cpu *cpu, u8 ac)
{
	/* The bit in CR4 cannot be set without the feature, so it answers for CPUID. */
	if (unlikely(cpu->cpl || (!(cpu->cr4 & CR4_SMAP) && !x86_cpuid_has(cpu, 7, 0, 1, 20))))
		return x86_raise_ud(cpu);
	cpu->f.ac = ac;
	return X86_OK;
}

enum x86_status x86_op_clac(struct x86_cpu *cpu, const struct x86_insn *insn)
{
	(void)insn;
	return ac_set(cpu, 0);
}

enum x86_status x86_op_stac(struct x86_cpu *cpu, const struct x86_insn *insn)
{
	(void)insn;
	return ac_set(cpu, 1);
}

static inline unsigned flags_size(const struct x86_insn *insn)
{
	return insn->mode64 && insn->opsize == 4 ? 8 : insn->opsize;
}

enum x86_status x86_op_pushf(struct x86_cpu *cpu, const struct x86_insn *insn)
{
	unsigned size = flags_size(insn);
	u64 image = x86_rflags(cpu) & ~(u64)(FL_VM | FL_RF);

	if (unlikely(cpu->f.vm && cpu->f.iopl < 3)) {
		if (size != 2 || !(cpu->cr4 & CR4_VME))
			return x86_raise_gp(cpu, 0);
		image = (image & ~(u64)FL_IF) | FL_IOPL | (cpu->f.vif ? FL_IF : 0);
	}
	return x86_push(cpu, image, size);
}

static enum x86_status popf_vme(struct x86_cpu *cpu)
{
	u64 mask = FL_ARITH | FL_TF | FL_DF | FL_NT;
	/* raw: put back as it was when the image is refused */
	u64 sp = x86_gpr_raw(cpu, RSP), image;
	enum x86_status st = x86_pop(cpu, &image, 2);

	if (st)
		return st;
	if ((image & FL_TF) || ((image & FL_IF) && cpu->f.vip)) {
		x86_gpr_raw_set(cpu, RSP, sp); /* raw: as it was */
		return x86_raise_gp(cpu, 0);
	}
	x86_rflags_set(cpu, (x86_rflags(cpu) & ~mask) | (image & mask));
	cpu->f.vif = image & FL_IF ? 1 : 0;
	return X86_OK;
}

enum x86_status x86_op_popf(struct x86_cpu *cpu, const struct x86_insn *insn)
{
	unsigned size = flags_size(insn);
	u64 mask = FL_ARITH | FL_TF | FL_DF | FL_NT;
	enum x86_status st;
	u64 image;

	if (unlikely(cpu->f.vm && cpu->f.iopl < 3)) {
		if (size == 2 && (cpu->cr4 & CR4_VME))
			return popf_vme(cpu);
		return x86_raise_gp(cpu, 0);
	}
	if (size != 2)
		mask |= FL_AC | FL_ID;
	if (cpu->cpl <= cpu->f.iopl)
		mask |= FL_IF;
	if (cpu->cpl == 0)
		mask |= FL_IOPL;
	st = x86_pop(cpu, &image, size);
	if (unlikely(st))
		return st;
	x86_rflags_set(cpu, (x86_rflags(cpu) & ~(mask | FL_RF)) | (image & mask));
	return X86_OK;
}

enum x86_status x86_op_hlt(struct x86_cpu *cpu, const struct x86_insn *insn)
{
	(void)insn;
	if (cpu->cpl)
		return x86_raise_gp(cpu, 0);
	/* The only exit that is complete: nothing is to be answered and the instruction does not run again. */
	cpu->rip = cpu->next_rip;
	x86_shadow_end(cpu);
	x86_replay_forget(cpu);
	cpu->exit = (struct x86_exit){ .reason = X86_EXIT_HLT };
	return X86_EXIT;
}

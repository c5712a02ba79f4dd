/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Instructions that enter and leave the kernel: SYSCALL, SYSENTER and their returns, INT n and its kin. */
#include "cpu/x86/access.h"
#include "cpu/x86/debug.h"
#include "cpu/x86/event.h"
#include "cpu/x86/frame.h"
#include "cpu/x86/mode.h"
#include "cpu/x86/ops.h"

static inline void seg_set_flat(struct x86_cpu *cpu, unsigned sreg, u16 sel, u16 attr)
{
	cpu->seg[sreg] = (struct x86_seg){ .limit = 0xffffffffu, .sel = sel, .attr = attr };
}

static inline void flat_segments(struct x86_cpu *cpu, u16 cs, u16 ss, unsigned dpl, bool code64)
{
	seg_set_flat(cpu, SEG_CS, cs | dpl, code64 ? SEG_FLAT_CODE64(dpl) : SEG_FLAT_CODE32(dpl));
	seg_set_flat(cpu, SEG_SS, ss | dpl, SEG_FLAT_DATA(dpl));
}

enum x86_status x86_op_syscall(struct x86_cpu *cpu, const struct x86_insn *insn)
{
	bool long_mode = cpu->efer & EFER_LMA;
	u16 cs = (u16)(cpu->star >> 32) & 0xfffc;

	(void)insn;
	if (unlikely(!(cpu->efer & EFER_SCE) || !(cpu->cr0 & CR0_PE) || cpu->f.vm))
		return x86_raise_ud(cpu);
	/* Intel: in 64-bit mode only. AMD: from compatibility mode to CSTAR, in legacy mode to STAR. */
	if (unlikely(cpu->intel && !x86_is_64(cpu)))
		return x86_raise_ud(cpu);

	if (likely(long_mode)) {
		u64 flags = x86_rflags(cpu) & ~(u64)FL_RF;

		x86_gpr_write(cpu, RCX, cpu->next_rip, 8);
		x86_gpr_write(cpu, R11, flags, 8);
		cpu->next_rip = x86_is_64(cpu) ? cpu->lstar : cpu->cstar;
		x86_rflags_set(cpu, flags & ~cpu->sfmask);
	} else {
		x86_gpr_write(cpu, RCX, cpu->next_rip, 4);
		cpu->next_rip = (u32)cpu->star;
		cpu->f.intr = 0;
		cpu->f.rf = 0;
	}
	flat_segments(cpu, cs, (cs + 8) & 0xfffc, 0, long_mode);
	x86_mode_update(cpu);
	return X86_OK;
}

static enum x86_status sysret_check(struct x86_cpu *cpu, bool to_64)
{
	bool long_mode = cpu->efer & EFER_LMA;

	if (!(cpu->efer & EFER_SCE) || !(cpu->cr0 & CR0_PE) || cpu->f.vm ||
	    (cpu->intel && !x86_is_64(cpu)))
		return x86_raise_ud(cpu);
	if (cpu->cpl)
		return x86_raise_gp(cpu, 0);
	/* AMD finds the bad address at the fetch, with the user's CPL and stack. */
	if (to_64 && long_mode && cpu->intel && !x86_is_canonical(cpu, x86_gpr_sized(cpu, RCX, 8)))
		return x86_raise_gp(cpu, 0);
	return X86_OK;
}

enum x86_status x86_op_sysret(struct x86_cpu *cpu, const struct x86_insn *insn)
{
	const u64 settable = FL_ARITH | FL_TF | FL_IF | FL_DF | FL_IOPL | FL_NT | FL_AC | FL_VIF |
			     FL_VIP | FL_ID;
	bool to_64 = insn->opsize == 8;
	u16 base = (u16)(cpu->star >> 48);
	enum x86_status st = sysret_check(cpu, to_64);

	if (unlikely(st))
		return st;
	if (to_64) {
		cpu->next_rip = x86_gpr_sized(cpu, RCX, 8);
		flat_segments(cpu, base + 16, base + 8, 3, true);
	} else {
		cpu->next_rip = x86_gpr_sized(cpu, RCX, 4);
		flat_segments(cpu, base, base + 8, 3, false);
	}
	if (likely(cpu->efer & EFER_LMA)) {
		x86_rflags_set(cpu, x86_gpr_sized(cpu, R11, 4) & settable);
	} else {
		cpu->f.intr = 1;
		cpu->f.vm = 0;
		x86_window_opened(cpu);
	}
	x86_mode_update(cpu);
	return X86_OK;
}

enum x86_status x86_op_sysenter(struct x86_cpu *cpu, const struct x86_insn *insn)
{
	bool long_mode = cpu->efer & EFER_LMA;
	u16 cs = (u16)cpu->sysenter_cs & 0xfffc;

	(void)insn;
	if (long_mode && !cpu->intel)
		return x86_raise_ud(cpu);
	if (!(cpu->cr0 & CR0_PE) || !cs)
		return x86_raise_gp(cpu, 0);
	cpu->f.vm = 0;
	cpu->f.intr = 0;
	cpu->f.rf = 0;
	flat_segments(cpu, cs, cs + 8, 0, long_mode);
	x86_gpr_write(cpu, RSP, cpu->sysenter_esp, long_mode ? 8 : 4);
	cpu->next_rip = long_mode ? cpu->sysenter_eip : (u32)cpu->sysenter_eip;
	x86_mode_update(cpu);
	return X86_OK;
}

enum x86_status x86_op_sysexit(struct x86_cpu *cpu, const struct x86_insn *insn)
{
	bool to_64 = insn->opsize == 8;
	u16 cs = (u16)cpu->sysenter_cs & 0xfffc;

	if ((cpu->efer & EFER_LMA) && !cpu->intel)
		return x86_raise_ud(cpu);
	if (!(cpu->cr0 & CR0_PE) || cpu->cpl || !cs)
		return x86_raise_gp(cpu, 0);
	if (to_64 && (!x86_is_canonical(cpu, x86_gpr_sized(cpu, RCX, 8)) ||
		      !x86_is_canonical(cpu, x86_gpr_sized(cpu, RDX, 8))))
		return x86_raise_gp(cpu, 0);
	if (to_64) {
		flat_segments(cpu, cs + 32, cs + 40, 3, true);
		x86_gpr_write(cpu, RSP, x86_gpr_sized(cpu, RCX, 8), 8);
		cpu->next_rip = x86_gpr_sized(cpu, RDX, 8);
	} else {
		flat_segments(cpu, cs + 16, cs + 24, 3, false);
		x86_gpr_write(cpu, RSP, x86_gpr_sized(cpu, RCX, 4), 4);
		cpu->next_rip = x86_gpr_sized(cpu, RDX, 4);
	}
	x86_mode_update(cpu);
	return X86_OK;
}

/* --- software interrupts --- */

static enum x86_status interrupt_enter(struct x86_cpu *cpu, enum x86_event_kind kind, u8 vector)
{
	struct x86_event ev = {
		.kind = kind,
		.vector = vector,
		.rip = cpu->next_rip,
		.rflags = x86_rflags(cpu),
	};

	return x86_event_enter(cpu, &ev);
}

/* CR4.VME: INT n of a v8086 program goes through its own vector table where the TSS's bitmap says 0. */
static enum x86_status interrupt_redirected(struct x86_cpu *cpu, u8 vector, bool *redirected)
{
	const struct x86_seg *tr = &cpu->seg[SEG_TR];
	enum x86_status st;
	u32 offset;
	u16 iomap;
	u8 byte;

	*redirected = false;
	if (103 > tr->limit)
		return x86_raise_gp(cpu, 0);
	st = x86_read(cpu, (u32)(tr->base + 102), &iomap, 2, ACC_SYSTEM);
	if (st)
		return st;
	/* The redirection bitmap lies in the 32 bytes below the I/O bitmap. */
	offset = (u32)iomap - 32 + vector / 8;
	if (iomap < 32 || offset > tr->limit)
		return x86_raise_gp(cpu, 0);
	st = x86_read(cpu, (u32)(tr->base + offset), &byte, 1, ACC_SYSTEM);
	if (st == X86_OK)
		*redirected = !(byte >> vector % 8 & 1);
	return st;
}

static enum x86_status interrupt_v8086(struct x86_cpu *cpu, u8 vector)
{
	bool redirected = false;
	enum x86_status st;

	if (cpu->cr4 & CR4_VME) {
		st = interrupt_redirected(cpu, vector, &redirected);
		if (st)
			return st;
	}
	if (redirected) {
		struct x86_event ev = {
			.kind = EVENT_SOFT,
			.vector = vector,
			.rip = cpu->next_rip,
			.rflags = x86_rflags(cpu),
		};

		if (cpu->f.iopl < 3) {
			ev.rflags &= ~(u64)FL_IF;
			ev.rflags |= FL_IOPL | (cpu->f.vif ? FL_IF : 0);
		}
		return x86_event_real(cpu, &ev, 0);
	}
	if (cpu->f.iopl < 3)
		return x86_raise_gp(cpu, 0);
	return interrupt_enter(cpu, EVENT_SOFT, vector);
}

enum x86_status x86_op_int_n(struct x86_cpu *cpu, const struct x86_insn *insn)
{
	if (unlikely(cpu->f.vm))
		return interrupt_v8086(cpu, (u8)insn->imm);
	return interrupt_enter(cpu, EVENT_SOFT, (u8)insn->imm);
}

enum x86_status x86_op_int3(struct x86_cpu *cpu, const struct x86_insn *insn)
{
	(void)insn;
	if (unlikely(cpu->debug & X86_DEBUG_SW))
		return x86_debug_exit(cpu, VEC_BP, 0);
	return interrupt_enter(cpu, EVENT_SOFT, VEC_BP);
}

enum x86_status x86_op_int1(struct x86_cpu *cpu, const struct x86_insn *insn)
{
	(void)insn;
	if (unlikely(x86_debugger_has_db(cpu)))
		return x86_debug_exit(cpu, VEC_DB, 0);
	return interrupt_enter(cpu, EVENT_ICEBP, VEC_DB);
}

enum x86_status x86_op_into(struct x86_cpu *cpu, const struct x86_insn *insn)
{
	(void)insn;
	if (x86_is_64(cpu))
		return x86_raise_ud(cpu);
	if (!(cpu->aflags & AF_OF))
		return X86_OK;
	return interrupt_enter(cpu, EVENT_SOFT, VEC_OF);
}

/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Time stamp counter, and the instructions that have no other home: RDPMC, MONITOR, hypercalls. */
#include "cpu/x86/access.h"
#include "cpu/x86/cpuid.h"
#include "cpu/x86/event.h"
#include "cpu/x86/mode.h"
#include "cpu/x86/msr.h"
#include "cpu/x86/ops.h"

#define HYPERCALL_ENOSYS  (-1000)
#define HYPERCALL_LEN	  3
#define MISC_ENABLE_MWAIT BIT_ULL(18)

u64 x86_tsc_read(const struct x86_cpu *cpu)
{
	u32 lo, hi;
	u64 host;

	__asm__ volatile("rdtsc" : "=a"(lo), "=d"(hi));
	host = (u64)hi << 32 | lo;
	return x86_tsc_scale(cpu->tsc_ratio, host) + cpu->tsc_offset;
}

static bool tsc_is_forbidden(const struct x86_cpu *cpu)
{
	return cpu->cpl > 0 && cpu->cr4 & CR4_TSD;
}

enum x86_status x86_op_rdtsc(struct x86_cpu *cpu, const struct x86_insn *insn)
{
	(void)insn;
	if (tsc_is_forbidden(cpu))
		return x86_raise_gp(cpu, 0);
	x86_edx_eax_set(cpu, x86_tsc_read(cpu));
	return X86_OK;
}

enum x86_status x86_op_rdtscp(struct x86_cpu *cpu, const struct x86_insn *insn)
{
	enum x86_status st = x86_op_rdtsc(cpu, insn);

	if (st == X86_OK)
		x86_gpr_write(cpu, RCX, cpu->tsc_aux, 4);
	return st;
}

enum x86_status x86_op_rdpid(struct x86_cpu *cpu, const struct x86_insn *insn)
{
	x86_gpr_write(cpu, insn->rm, (u32)cpu->tsc_aux, x86_is_64(cpu) ? 8 : 4);
	return X86_OK;
}

enum x86_status x86_op_rdpmc(struct x86_cpu *cpu, const struct x86_insn *insn)
{
	(void)insn;
	return x86_raise_gp(cpu, 0); /* no counters */
}

/* They do nothing, as KVM's. Hidden from CPUID by default. */
static enum x86_status monitor_or_mwait(struct x86_cpu *cpu)
{
	bool shown = cpu->mwait_by_msr ? !!(cpu->misc_enable & MISC_ENABLE_MWAIT)
				       : x86_cpuid_has(cpu, 1, 0, 2, 3);

	if (cpu->cpl > 0 || !(shown || cpu->mwait_no_fault))
		return x86_raise_ud(cpu);
	return X86_OK;
}

enum x86_status x86_op_monitor(struct x86_cpu *cpu, const struct x86_insn *insn)
{
	(void)insn;
	return monitor_or_mwait(cpu);
}

enum x86_status x86_op_mwait(struct x86_cpu *cpu, const struct x86_insn *insn)
{
	(void)insn;
	return monitor_or_mwait(cpu);
}

/*
 * The other vendor's instruction: KVM writes the native one over it, in the guest's memory, and the guest runs
 * it again.
 */
static enum x86_status hypercall_rewrite(struct x86_cpu *cpu)
{
	u8 bytes[HYPERCALL_LEN] = { 0x0f, 0x01, cpu->hypercall_modrm };
	enum x86_status st;
	gva_t lin;

	if (!cpu->hypercall_fix)
		return x86_raise_ud(cpu);
	st = x86_linear(cpu, SEG_CS, cpu->rip, HYPERCALL_LEN, ACC_FETCH, &lin);
	if (st == X86_OK)
		st = x86_write(cpu, lin, bytes, HYPERCALL_LEN, ACC_WRITE);
	if (st == X86_OK)
		cpu->next_rip = cpu->rip;
	return st;
}

/* KVM's hypercall: RAX number, RBX RCX RDX RSI arguments; 32 bits of each outside 64-bit mode. */
enum x86_status x86_op_hypercall(struct x86_cpu *cpu, const struct x86_insn *insn)
{
	u64 arg[4] = { x86_gpr(cpu, RBX), x86_gpr(cpu, RCX), x86_gpr(cpu, RDX), x86_gpr(cpu, RSI) };
	u64 result = HYPERCALL_ENOSYS;
	enum x86_status st = X86_OK;

	if (!cpu->full)
		return X86_FULL;
	if (cpu->hypercall_modrm && cpu->hypercall_modrm != insn->modrm)
		return hypercall_rewrite(cpu);
	if (cpu->platform && cpu->platform->hypercall)
		st = cpu->platform->hypercall(cpu->owner, x86_gpr(cpu, RAX), arg, &result);
	if (st == X86_OK)
		x86_gpr_write(cpu, RAX, result, x86_is_64(cpu) ? 8 : 4);
	return st;
}

/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Time stamp counter, and the instructions that have no other home: RDPMC, MONITOR, hypercalls. */
#include "cpu/x86/cpuid.h"
#include "cpu/x86/event.h"
#include "cpu/x86/mode.h"
#include "cpu/x86/msr.h"
#include "cpu/x86/ops.h"

#define HYPERCALL_EPERM	 (-1)
#define HYPERCALL_ENOSYS (-1000)

u64 x86_tsc_read(const struct x86_cpu *cpu)
{
	u32 lo, hi;

	__asm__ volatile("rdtsc" : "=a"(lo), "=d"(hi));
	/* DIFFERS: no scaling: tsc_khz other than the host's cannot be had. */
	return ((u64)hi << 32 | lo) + cpu->tsc_offset;
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

/* Hidden by default; a VMM that shows MONITOR gets no-ops, as from KVM. */
static enum x86_status monitor_or_mwait(struct x86_cpu *cpu)
{
	if (cpu->cpl > 0 || !x86_cpuid_has(cpu, 1, 0, 2, 3))
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

/* KVM's hypercall: RAX number, RBX RCX RDX RSI arguments; 32 bits of each outside 64-bit mode. */
enum x86_status x86_op_hypercall(struct x86_cpu *cpu, const struct x86_insn *insn)
{
	u64 arg[4] = { x86_gpr(cpu, RBX), x86_gpr(cpu, RCX), x86_gpr(cpu, RDX), x86_gpr(cpu, RSI) };
	u64 result = HYPERCALL_ENOSYS;

	(void)insn;
	if (!cpu->full)
		return X86_FULL;
	if (cpu->cpl > 0)
		result = HYPERCALL_EPERM;
	else if (cpu->platform && cpu->platform->hypercall &&
		 cpu->platform->hypercall(cpu->owner, x86_gpr(cpu, RAX), arg, &result))
		return X86_EXIT;
	x86_gpr_write(cpu, RAX, result, x86_is_64(cpu) ? 8 : 4);
	return X86_OK;
}

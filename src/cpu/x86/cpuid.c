/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The guest's CPUID as it was set: look-up, the CPUID instruction, and what the bits allow. */
#include "cpu/x86/cpuid.h"

#include <errno.h>

#include "base/probe.h"
#include "base/bulk.h"
#include "cpu/x86/event.h"
#include "cpu/x86/fpu.h"
#include "cpu/x86/mode.h"
#include "cpu/x86/ops.h"

enum { EAX, EBX, ECX, EDX };

#define INTEL_EBX   0x756e6547u
#define CENTAUR_EBX 0x746e6543u

static const struct x86_cpuid_entry *find_exact(const struct x86_cpu *cpu, u32 function, u32 index)
{
	for (u32 i = 0; i < cpu->ncpuid; i++) {
		const struct x86_cpuid_entry *e = &cpu->cpuid[i];

		if (e->function == function &&
		    (!(e->flags & X86_CPUID_INDEXED) || e->index == index))
			return e;
	}
	return NULL;
}

/* Intel answers a leaf above the maximum of its range with the highest basic leaf, AMD with zeros. */
static const struct x86_cpuid_entry *find_out_of_range(const struct x86_cpu *cpu, u32 function,
						       u32 index)
{
	const struct x86_cpuid_entry *basic = find_exact(cpu, 0, 0), *range;

	if (!basic || !cpu->intel)
		return NULL;
	if (function >= 0x40000000 && function <= 0x4fffffff)
		range = find_exact(cpu, function & 0xffffff00, 0);
	else if (function >= 0xc0000000)
		range = find_exact(cpu, 0xc0000000, 0);
	else
		range = find_exact(cpu, function & 0x80000000, 0);
	if (range && function <= range->eax)
		return NULL;
	return find_exact(cpu, basic->eax, index);
}

const struct x86_cpuid_entry *x86_cpuid_find(const struct x86_cpu *cpu, u32 function, u32 index)
{
	const struct x86_cpuid_entry *e = find_exact(cpu, function, index);

	return e ? e : find_out_of_range(cpu, function, index);
}

bool x86_cpuid_has(const struct x86_cpu *cpu, u32 function, u32 index, unsigned reg, unsigned bit)
{
	const struct x86_cpuid_entry *e = find_exact(cpu, function, index);

	return e && (reg == EAX	  ? e->eax
		     : reg == EBX ? e->ebx
		     : reg == ECX ? e->ecx
				  : e->edx) >>
				    bit &
			    1;
}

int x86_cpuid_set(struct x86_cpu *cpu, const struct x86_cpuid_entry *entries, unsigned n)
{
	const struct x86_cpuid_entry *e;
	unsigned virt = 48;

	if (n > X86_CPUID_MAX)
		return -E2BIG;
	for (unsigned i = 0; i < n; i++) {
		if (entries[i].function != 0x80000008)
			continue;
		virt = entries[i].eax >> 8 & 0xff;
		if (virt != 0 && virt != 48 && virt != 57)
			return -EINVAL;
	}
	bulk_copy(cpu->cpuid, entries, n * sizeof(entries[0]));
	cpu->ncpuid = n;
	cpu->phys_bits = 36;
	cpu->virt_bits = virt == 57 ? 57 : 48;
	e = find_exact(cpu, 0x80000008, 0);
	if (e) {
		cpu->phys_bits = e->eax & 0xff;
		if (cpu->phys_bits < 32 || cpu->phys_bits > 52)
			cpu->phys_bits = cpu->phys_bits < 32 ? 32 : 52;
	}
	e = find_exact(cpu, 0, 0);
	if (e)
		cpu->intel = e->ebx == INTEL_EBX || e->ebx == CENTAUR_EBX;
	return 0;
}

/* Bytes of an XSAVE area for @xcr0, by the sub-leaves that the guest sees. */
static u32 xsave_size(const struct x86_cpu *cpu, u64 xcr0, bool compact)
{
	u32 size = 576;

	for (u32 i = 2; i < 63; i++) {
		const struct x86_cpuid_entry *e;
		u32 offset;

		if (!(xcr0 >> i & 1))
			continue;
		e = find_exact(cpu, 0xd, i);
		if (!e)
			continue;
		offset = !compact ? e->ebx : e->ecx & 2 ? ALIGN_UP(size, 64) : size;
		if (compact || offset + e->eax > size)
			size = offset + e->eax;
	}
	return size;
}

/* Bits that follow the state of the vCPU. */
static void run_dynamic(const struct x86_cpu *cpu, u32 function, u32 index, u32 out[4])
{
	switch (function) {
	case 1:
		out[ECX] &= ~BIT(27);
		if (cpu->cr4 & CR4_OSXSAVE)
			out[ECX] |= BIT(27);
		if (cpu->apic_off)
			out[EDX] &= ~BIT(9);
		if (cpu->mwait_by_msr)
			out[ECX] = (out[ECX] & ~BIT(3)) | (cpu->misc_enable >> 18 & 1) << 3;
		break;
	case 7:
		if (index == 0)
			out[ECX] = (out[ECX] & ~BIT(4)) | (cpu->cr4 & CR4_PKE ? BIT(4) : 0);
		break;
	case 0xd:
		if (index == 0)
			out[EBX] = xsave_size(cpu, cpu->xcr0, false);
		else if (index == 1 && out[EAX] & (BIT(1) | BIT(3)))
			out[EBX] = xsave_size(cpu, cpu->xcr0 | cpu->xss, true);
		break;
	}
}

void x86_cpuid_now(const struct x86_cpu *cpu, struct x86_cpuid_entry *e)
{
	u32 out[4] = { e->eax, e->ebx, e->ecx, e->edx };

	run_dynamic(cpu, e->function, e->index, out);
	e->eax = out[EAX];
	e->ebx = out[EBX];
	e->ecx = out[ECX];
	e->edx = out[EDX];
}

void x86_cpuid_run(struct x86_cpu *cpu, u32 function, u32 index, u32 out[4])
{
	const struct x86_cpuid_entry *e = x86_cpuid_find(cpu, function, index);

	out[EAX] = out[EBX] = out[ECX] = out[EDX] = 0;
	if (e) {
		out[EAX] = e->eax;
		out[EBX] = e->ebx;
		out[ECX] = e->ecx;
		out[EDX] = e->edx;
		run_dynamic(cpu, e->function, index, out);
	} else if (function == 0xb || function == 0x1f) {
		/* Levels past the last: the level number and the APIC ID are still there. */
		e = find_exact(cpu, function, 1);
		if (e) {
			out[ECX] = index & 0xff;
			out[EDX] = e->edx;
		}
	}
}

/* Bits of CR4 and EFER with the CPUID bit that allows them. */
struct allowed {
	u64 bits;
	u32 function;
	u8 reg, bit;
};

static u64 allowed_bits(const struct x86_cpu *cpu, const struct allowed *rows, unsigned n)
{
	u64 bits = 0;

	for (unsigned i = 0; i < n; i++)
		if (x86_cpuid_has(cpu, rows[i].function, 0, rows[i].reg, rows[i].bit))
			bits |= rows[i].bits;
	return bits;
}

u64 x86_cr4_allowed(const struct x86_cpu *cpu)
{
	static const struct allowed rows[] = {
		{ CR4_PCIDE, 1, ECX, 17 }, { CR4_OSXSAVE, 1, ECX, 26 }, { CR4_FSGSBASE, 7, EBX, 0 },
		{ CR4_SMEP, 7, EBX, 7 },   { CR4_SMAP, 7, EBX, 20 },	{ CR4_UMIP, 7, ECX, 2 },
		{ CR4_LA57, 7, ECX, 16 },
	};

	/* As in KVM the bits of the first x86-64 processors need no CPUID: small VMMs set none. */
	return CR4_VME | CR4_PVI | CR4_TSD | CR4_DE | CR4_PSE | CR4_PAE | CR4_MCE | CR4_PGE |
	       CR4_PCE | CR4_OSFXSR | CR4_OSXMMEXCPT | allowed_bits(cpu, rows, ARRAY_SIZE(rows));
}

u64 x86_efer_allowed(const struct x86_cpu *cpu)
{
	static const struct allowed rows[] = {
		{ EFER_LME | EFER_LMA, 0x80000001, EDX, 29 },
		{ EFER_NX, 0x80000001, EDX, 20 },
		{ EFER_AUTOIBRS, 0x80000021, EAX, 8 },
	};

	return EFER_SCE | allowed_bits(cpu, rows, ARRAY_SIZE(rows));
}

u64 x86_xcr0_allowed(const struct x86_cpu *cpu)
{
	const struct x86_cpuid_entry *e = find_exact(cpu, 0xd, 0);
	u64 host = cpu->xcr0_host ? cpu->xcr0_host : x86_fpu_host_xcr0();

	return e ? ((e->eax | (u64)e->edx << 32) & host) | 1 : 1;
}

enum x86_status x86_op_cpuid(struct x86_cpu *cpu, const struct x86_insn *insn)
{
	u32 out[4];

	(void)insn;
	/* CPUID faulting, as MISC_FEATURES_ENABLES asks. */
	if (cpu->cpl > 0 && cpu->misc_features & 1)
		return x86_raise_gp(cpu, 0);
	x86_cpuid_run(cpu, x86_gpr_sized(cpu, RAX, 4), x86_gpr_sized(cpu, RCX, 4), out);
	PROBE(kvm_cpuid, x86_gpr_sized(cpu, RAX, 4), x86_gpr_sized(cpu, RCX, 4), out[EAX], out[EBX],
	      out[ECX], out[EDX]);
	x86_gpr_write(cpu, RAX, out[EAX], 4);
	x86_gpr_write(cpu, RBX, out[EBX], 4);
	x86_gpr_write(cpu, RCX, out[ECX], 4);
	x86_gpr_write(cpu, RDX, out[EDX], 4);
	return X86_OK;
}

/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Model-specific registers: RDMSR, WRMSR and the ioctls, all by the rows of msr.def. */
#include "cpu/x86/msr.h"

#include "base/probe.h"
#include "cpu/x86/control.h"
#include "cpu/x86/cpuid.h"
#include "cpu/x86/event.h"
#include "cpu/x86/mode.h"
#include "cpu/x86/ops.h"

enum { EAX, EBX, ECX, EDX };
enum who {
	ANY,
	INTEL,
	AMD,
	SPEC_CTRL,
	IBPB,
	ARCH_CAP,
	FLUSH_L1D,
	MCG_CTL,
	XSAVES,
	VIRT_SSBD,
	PLATFORM,
	USER_ONLY
};
enum { UNSAVED, SAVED };

/*
 * IA32_ARCH_CAPABILITIES of the default model. The soft MMU and the translator are between the guest and
 * the hardware: permissions are checked before an address is used, so what these bits deny does
 * not reach across the guest's own boundaries by the guest's own means. What is left of speculation
 * inside one guest is the host's matter (CAVEATS). Each bit saves Linux work on every kernel entry.
 */
#define ARCH_CAPABILITIES                                                                          \
	(BIT_ULL(0) |  /* RDCL_NO: no page-table isolation */                                      \
	 BIT_ULL(1) |  /* IBRS_ALL: enhanced IBRS instead of retpolines */                         \
	 BIT_ULL(3) |  /* SKIP_L1DFL_VMENTRY */                                                    \
	 BIT_ULL(4) |  /* SSB_NO: no SSBD per task */                                              \
	 BIT_ULL(5) |  /* MDS_NO: no VERW on return to user mode */                                \
	 BIT_ULL(6) |  /* PSCHANGE_MC_NO: huge pages in nested guests */                           \
	 BIT_ULL(8) |  /* TAA_NO */                                                                \
	 BIT_ULL(13) | /* SBDR_SSDP_NO */                                                          \
	 BIT_ULL(14) | /* FBSDP_NO */                                                              \
	 BIT_ULL(15) | /* PSDP_NO */                                                               \
	 BIT_ULL(20) | /* BHI_NO: no branch history clearing on entry */                           \
	 BIT_ULL(24) | /* PBRSB_NO */                                                              \
	 BIT_ULL(26) | /* GDS_NO */                                                                \
	 BIT_ULL(27) | /* RFDS_NO */                                                               \
	 BIT_ULL(62))  /* ITS_NO: no aligned thunks */

struct msr;
/* X86_FAULT means #GP; the caller raises it. */
typedef enum x86_status msr_read_fn(struct x86_cpu *cpu, const struct msr *m, u32 index, u64 *v);
typedef enum x86_status msr_write_fn(struct x86_cpu *cpu, const struct msr *m, u32 index, u64 v,
				     bool host);

struct msr {
	u32 first, count;
	const char *name;
	u8 who, saved;
	u32 field; /* offset in struct x86_cpu, or NONE */
	u64 mask, reset;
	msr_read_fn *read;
	msr_write_fn *write;
};

#define NO_FIELD 0xffffffffu

/* AMD has the revision in the low half; the row has Intel's. Both as KVM's. */
#define UCODE_REV_AMD 0x01000065

static u64 *msr_field(struct x86_cpu *cpu, const struct msr *m, u32 index)
{
	return (u64 *)((char *)cpu + m->field) + (index - m->first);
}

static enum x86_status read_field(struct x86_cpu *cpu, const struct msr *m, u32 index, u64 *v)
{
	*v = *msr_field(cpu, m, index);
	return X86_OK;
}

static enum x86_status read_constant(struct x86_cpu *cpu, const struct msr *m, u32 index, u64 *v)
{
	(void)cpu;
	(void)index;
	*v = m->reset;
	return X86_OK;
}

static enum x86_status read_none(struct x86_cpu *cpu, const struct msr *m, u32 index, u64 *v)
{
	(void)cpu;
	(void)m;
	(void)index;
	*v = 0;
	return X86_FAULT;
}

static enum x86_status read_platform(struct x86_cpu *cpu, const struct msr *m, u32 index, u64 *v)
{
	(void)m;
	*v = 0;
	if (!cpu->full)
		return X86_FULL;
	if (!cpu->platform || !cpu->platform->rdmsr)
		return X86_FAULT;
	return cpu->platform->rdmsr(cpu->owner, index, v) ? X86_FAULT : X86_OK;
}

/* Without an APIC of ours: what the reset value says. */
static enum x86_status read_apic_base(struct x86_cpu *cpu, const struct msr *m, u32 index, u64 *v)
{
	enum x86_status st = read_platform(cpu, m, index, v);

	if (st == X86_FAULT) {
		*v = m->reset;
		return X86_OK;
	}
	return st;
}

static enum x86_status read_tsc(struct x86_cpu *cpu, const struct msr *m, u32 index, u64 *v)
{
	(void)m;
	(void)index;
	*v = x86_tsc_read(cpu);
	return X86_OK;
}

/* Banks: four registers each; those past the number in MCG_CAP are not there. */
static enum x86_status read_mc_bank(struct x86_cpu *cpu, const struct msr *m, u32 index, u64 *v)
{
	if ((index - m->first) / 4 >= (cpu->mcg_cap & 0xff))
		return read_none(cpu, m, index, v);
	return read_field(cpu, m, index, v);
}

/* Signalling of corrected errors: a bank's own register, with MCG_CAP.CMCI_P. */
static bool mc_ctl2_is_there(const struct x86_cpu *cpu, const struct msr *m, u32 index)
{
	return cpu->mcg_cap & BIT(10) && index - m->first < (cpu->mcg_cap & 0xff);
}

static enum x86_status read_mc_ctl2(struct x86_cpu *cpu, const struct msr *m, u32 index, u64 *v)
{
	return mc_ctl2_is_there(cpu, m, index) ? read_field(cpu, m, index, v)
					       : read_none(cpu, m, index, v);
}

static enum x86_status write_field(struct x86_cpu *cpu, const struct msr *m, u32 index, u64 v,
				   bool host)
{
	(void)host;
	if (v & ~m->mask)
		return X86_FAULT;
	*msr_field(cpu, m, index) = v;
	return X86_OK;
}

static enum x86_status write_masked(struct x86_cpu *cpu, const struct msr *m, u32 index, u64 v,
				    bool host)
{
	return write_field(cpu, m, index, v & m->mask, host);
}

static enum x86_status write_ignore(struct x86_cpu *cpu, const struct msr *m, u32 index, u64 v,
				    bool host)
{
	(void)cpu;
	(void)m;
	(void)index;
	(void)v;
	(void)host;
	return X86_OK;
}

/* Read-only for the guest; user space may store a field, or write back the constant that it has read. */
static enum x86_status write_none(struct x86_cpu *cpu, const struct msr *m, u32 index, u64 v,
				  bool host)
{
	if (!host)
		return X86_FAULT;
	if (m->field != NO_FIELD)
		return write_field(cpu, m, index, v, host);
	return v == m->reset ? X86_OK : X86_FAULT;
}

/* A command: reserved bits are checked, there is nothing to do. */
static enum x86_status write_barrier(struct x86_cpu *cpu, const struct msr *m, u32 index, u64 v,
				     bool host)
{
	(void)cpu;
	(void)index;
	(void)host;
	return v & ~m->mask ? X86_FAULT : X86_OK;
}

static enum x86_status write_canonical(struct x86_cpu *cpu, const struct msr *m, u32 index, u64 v,
				       bool host)
{
	if (!x86_canonical(v, cpu->virt_bits == 57 ? 57 : 48))
		return X86_FAULT;
	return write_field(cpu, m, index, v, host);
}

/* Intel gives #GP for an address that is not canonical, AMD drops its upper bits: as KVM, sign-extend. */
static enum x86_status write_sysenter(struct x86_cpu *cpu, const struct msr *m, u32 index, u64 v,
				      bool host)
{
	unsigned shift = cpu->virt_bits == 57 ? 7 : 16;

	return write_field(cpu, m, index, (s64)(v << shift) >> shift, host);
}

static enum x86_status write_platform(struct x86_cpu *cpu, const struct msr *m, u32 index, u64 v,
				      bool host)
{
	(void)m;
	(void)host;
	if (!cpu->full)
		return X86_FULL;
	if (!cpu->platform || !cpu->platform->wrmsr)
		return X86_FAULT;
	return cpu->platform->wrmsr(cpu->owner, index, v) ? X86_FAULT : X86_OK;
}

static enum x86_status write_apic_base(struct x86_cpu *cpu, const struct msr *m, u32 index, u64 v,
				       bool host)
{
	enum x86_status st = write_platform(cpu, m, index, v, host);

	if (st == X86_OK)
		cpu->apic_off = !(v & BIT(11));
	return st;
}

/* Whoever derives a clock from the TSC must know: kvmclock pages, the deadline timer. */
static void tsc_changed(struct x86_cpu *cpu, u32 index, u64 v)
{
	if (cpu->platform && cpu->platform->wrmsr)
		cpu->platform->wrmsr(cpu->owner, index, v);
}

static enum x86_status write_tsc(struct x86_cpu *cpu, const struct msr *m, u32 index, u64 v,
				 bool host)
{
	u64 delta;

	(void)m;
	if (!cpu->full)
		return X86_FULL;
	delta = v - x86_tsc_read(cpu);
	cpu->tsc_offset += delta;
	if (!host)
		cpu->tsc_adjust += delta;
	tsc_changed(cpu, index, v);
	return X86_OK;
}

static enum x86_status write_tsc_adjust(struct x86_cpu *cpu, const struct msr *m, u32 index, u64 v,
					bool host)
{
	(void)m;
	if (!cpu->full)
		return X86_FULL;
	if (!host)
		cpu->tsc_offset += v - cpu->tsc_adjust;
	cpu->tsc_adjust = v;
	if (!host)
		tsc_changed(cpu, index, v);
	return X86_OK;
}

static enum x86_status write_tsc_aux(struct x86_cpu *cpu, const struct msr *m, u32 index, u64 v,
				     bool host)
{
	if (cpu->intel && v >> 32)
		return X86_FAULT;
	return write_masked(cpu, m, index, v, host);
}

/* A guest's write of 0 comes before it reads the revision: ignored. */
static enum x86_status write_ucode_rev(struct x86_cpu *cpu, const struct msr *m, u32 index, u64 v,
				       bool host)
{
	return host ? write_field(cpu, m, index, v, host) : X86_OK;
}

static enum x86_status write_misc_features(struct x86_cpu *cpu, const struct msr *m, u32 index,
					   u64 v, bool host)
{
	if (v & 1 && !host && !(cpu->platform_info & BIT_ULL(31)))
		return X86_FAULT;
	return write_field(cpu, m, index, v, host);
}

static enum x86_status write_misc_enable(struct x86_cpu *cpu, const struct msr *m, u32 index, u64 v,
					 bool host)
{
	const u64 fixed = 0x1880; /* EMON, BTS unavailable, PEBS unavailable */

	if (!host)
		v = (v & ~fixed) | (cpu->misc_enable & fixed);
	return write_field(cpu, m, index, v, host);
}

/* Branch records and branch steps are accepted and do nothing. */
static enum x86_status write_debugctl(struct x86_cpu *cpu, const struct msr *m, u32 index, u64 v,
				      bool host)
{
	return v & ~m->mask ? X86_FAULT : write_field(cpu, m, index, 0, host);
}

static enum x86_status write_mcg_ctl(struct x86_cpu *cpu, const struct msr *m, u32 index, u64 v,
				     bool host)
{
	return v && v != ~0ull ? X86_FAULT : write_field(cpu, m, index, v, host);
}

/* SDM "IA32_MCi_CTL MSRs": all or nothing, but Linux clears bit 10 and others bit 0; status: only 0. */
static enum x86_status write_mc_bank(struct x86_cpu *cpu, const struct msr *m, u32 index, u64 v,
				     bool host)
{
	unsigned offset = index - m->first;
	bool may_set = host || (!cpu->intel && cpu->hwcr & BIT_ULL(18));

	if (offset / 4 >= (cpu->mcg_cap & 0xff))
		return X86_FAULT;
	if (offset % 4 == 0 && v && (v | BIT_ULL(10) | 1) != ~0ull)
		return X86_FAULT;
	if (offset % 4 == 1 && v && !may_set)
		return X86_FAULT;
	return write_field(cpu, m, index, v, host);
}

static enum x86_status write_mc_ctl2(struct x86_cpu *cpu, const struct msr *m, u32 index, u64 v,
				     bool host)
{
	return mc_ctl2_is_there(cpu, m, index) ? write_field(cpu, m, index, v, host) : X86_FAULT;
}

/* PAT, MTRR: memory types. */
static bool type_is_valid(u8 type, bool pat)
{
	return type <= 7 && (pat ? 0xf3 : 0x73) >> type & 1;
}

static bool types_are_valid(u64 v, bool pat)
{
	for (int i = 0; i < 64; i += 8)
		if (!type_is_valid(v >> i, pat))
			return false;
	return true;
}

static enum x86_status write_pat(struct x86_cpu *cpu, const struct msr *m, u32 index, u64 v,
				 bool host)
{
	return types_are_valid(v, true) ? write_field(cpu, m, index, v, host) : X86_FAULT;
}

static enum x86_status write_mtrr_fixed(struct x86_cpu *cpu, const struct msr *m, u32 index, u64 v,
					bool host)
{
	return types_are_valid(v, false) ? write_field(cpu, m, index, v, host) : X86_FAULT;
}

static enum x86_status write_mtrr_def(struct x86_cpu *cpu, const struct msr *m, u32 index, u64 v,
				      bool host)
{
	return type_is_valid(v, false) ? write_field(cpu, m, index, v, host) : X86_FAULT;
}

/* Even: base and type; odd: mask and valid bit. */
static enum x86_status write_mtrr_var(struct x86_cpu *cpu, const struct msr *m, u32 index, u64 v,
				      bool host)
{
	u64 reserved = ~(BIT_ULL(cpu->phys_bits ? cpu->phys_bits : 36) - 1);

	reserved |= index & 1 ? 0x7ff : 0xf00;
	if (v & reserved || (!(index & 1) && !type_is_valid(v, false)))
		return X86_FAULT;
	return write_field(cpu, m, index, v, host);
}

/* Cache and emulation controls of old kernels are dropped, as KVM does. */
static enum x86_status write_hwcr(struct x86_cpu *cpu, const struct msr *m, u32 index, u64 v,
				  bool host)
{
	v &= ~(BIT_ULL(3) | BIT_ULL(6) | BIT_ULL(8));
	return write_field(cpu, m, index, v, host);
}

static enum x86_status write_efer(struct x86_cpu *cpu, const struct msr *m, u32 index, u64 v,
				  bool host)
{
	(void)m;
	(void)index;
	if (!host)
		return x86_set_efer(cpu, v); /* the exception that it raises is the same */
	if (v & ~(x86_efer_allowed(cpu) | EFER_LME | EFER_LMA | EFER_NX))
		return X86_FAULT;
	cpu->efer = (v & ~EFER_LMA) | (cpu->efer & EFER_LMA);
	x86_flush_all(cpu);
	x86_mode_update(cpu);
	return X86_OK;
}

static const struct msr rows[] = {
#define NONE gpr /* no row may name it: stands for "no field" */
#define MSR(first, count, name, who, rd, wr, field, mask, reset, saved)                            \
	{ first,     count,                                                                        \
	  name,	     who,                                                                          \
	  saved,     offsetof(struct x86_cpu, field) ? offsetof(struct x86_cpu, field) : NO_FIELD, \
	  mask,	     reset,                                                                        \
	  read_##rd, write_##wr },
#include "cpu/x86/msr.def"
#undef MSR
#undef NONE
};

static const struct msr *msr_find(u32 index)
{
	unsigned lo = 0, hi = ARRAY_SIZE(rows);

	while (lo < hi) {
		unsigned mid = (lo + hi) / 2;

		if (index < rows[mid].first)
			hi = mid;
		else if (index - rows[mid].first >= rows[mid].count)
			lo = mid + 1;
		else
			return &rows[mid];
	}
	return NULL;
}

/* Whether a guest with this CPUID has the register. */
static bool msr_is_there(const struct x86_cpu *cpu, const struct msr *m)
{
	switch ((enum who)m->who) {
	case ANY:
		return true;
	case INTEL:
		return cpu->intel;
	case AMD:
		return !cpu->intel;
	case SPEC_CTRL: /* Intel's bit, AMD's IBRS, STIBP, SSBD */
		return x86_cpuid_has(cpu, 7, 0, EDX, 26) ||
		       x86_cpuid_has(cpu, 0x80000008, 0, EBX, 14) ||
		       x86_cpuid_has(cpu, 0x80000008, 0, EBX, 15) ||
		       x86_cpuid_has(cpu, 0x80000008, 0, EBX, 24);
	case IBPB:
		return x86_cpuid_has(cpu, 7, 0, EDX, 26) ||
		       x86_cpuid_has(cpu, 0x80000008, 0, EBX, 12);
	case ARCH_CAP:
		return x86_cpuid_has(cpu, 7, 0, EDX, 29);
	case FLUSH_L1D:
		return x86_cpuid_has(cpu, 7, 0, EDX, 28);
	case MCG_CTL:
		return cpu->mcg_cap & BIT(8);
	case XSAVES:
		return x86_cpuid_has(cpu, 0xd, 1, EAX, 3);
	case VIRT_SSBD:
		return x86_cpuid_has(cpu, 0x80000008, 0, EBX, 25);
	case PLATFORM:
		return !cpu->no_platform_info;
	case USER_ONLY:
		return false;
	}
	return false;
}

/* No row: a device's or the hypervisor's perhaps, else one line in the log and #GP. */
static enum x86_status msr_unknown(struct x86_cpu *cpu, u32 index, u64 *v, bool is_write, bool host)
{
	const struct x86_platform *p = cpu->platform;
	int r = 1;

	if (!cpu->full)
		return X86_FULL;
	if (p && is_write && p->wrmsr)
		r = p->wrmsr(cpu->owner, index, *v);
	else if (p && !is_write && p->rdmsr)
		r = p->rdmsr(cpu->owner, index, v);
	if (r == 0)
		return X86_OK;
	if (!host) {
		cpu->unknown_msrs++;
		if (p && p->log)
			p->log(cpu->owner, is_write ? "unknown MSR written" : "unknown MSR read",
			       index, is_write ? *v : 0);
	}
	return X86_FAULT;
}

/* One access. X86_FAULT: *why says why; the exception, if any, is the caller's to raise. */
static enum x86_status msr_access(struct x86_cpu *cpu, u32 index, u64 *v, bool is_write, bool host,
				  enum x86_msr_why *why)
{
	const struct msr *m = msr_find(index);

	*why = X86_MSR_INVALID;
	if (!m) {
		*why = X86_MSR_UNKNOWN;
		return msr_unknown(cpu, index, v, is_write, host);
	}
	if (!host && !msr_is_there(cpu, m)) {
		if (m->who == INTEL || m->who == AMD)
			*why = X86_MSR_UNKNOWN;
		return X86_FAULT;
	}
	if (m->read == read_platform && !cpu->platform)
		*why = X86_MSR_UNKNOWN;
	return is_write ? m->write(cpu, m, index, *v, host) : m->read(cpu, m, index, v);
}

enum x86_status x86_msr_read(struct x86_cpu *cpu, u32 index, u64 *value, bool host)
{
	enum x86_msr_why why;
	enum x86_status st;

	*value = 0;
	st = msr_access(cpu, index, value, false, host, &why);
	return st == X86_FAULT && !host ? x86_raise_gp(cpu, 0) : st;
}

enum x86_status x86_msr_write(struct x86_cpu *cpu, u32 index, u64 value, bool host)
{
	enum x86_msr_why why;
	enum x86_status st = msr_access(cpu, index, &value, true, host, &why);

	return st == X86_FAULT && !host ? x86_raise_gp(cpu, 0) : st;
}

/* RDMSR and WRMSR, when user space filters accesses or wants to answer those that fail. */
static enum x86_status msr_watched(struct x86_cpu *cpu, u32 index, u64 *v, bool is_write)
{
	const struct x86_platform *p = cpu->platform;
	enum x86_msr_why why = X86_MSR_FILTERED;
	enum x86_status st = X86_FAULT;

	if (!cpu->full)
		return X86_FULL;
	if (p->msr_allowed(cpu->owner, index, is_write))
		st = msr_access(cpu, index, v, is_write, false, &why);
	if (st != X86_FAULT)
		return st;
	if (p->msr_ask(cpu->owner, index, is_write ? *v : 0, is_write, why))
		return X86_EXIT;
	return x86_raise_gp(cpu, 0);
}

unsigned x86_msr_list(u32 *out, unsigned max)
{
	unsigned n = 0;

	for (unsigned i = 0; i < ARRAY_SIZE(rows); i++) {
		if (rows[i].saved != SAVED)
			continue;
		for (u32 j = 0; j < rows[i].count; j++, n++)
			if (n < max)
				out[n] = rows[i].first + j;
	}
	return n;
}

void x86_msr_reset(struct x86_cpu *cpu)
{
	for (unsigned i = 0; i < ARRAY_SIZE(rows); i++) {
		const struct msr *m = &rows[i];

		if (m->field == NO_FIELD)
			continue;
		for (u32 j = 0; j < m->count; j++)
			*msr_field(cpu, m, m->first + j) = m->reset;
	}
	if (!cpu->intel)
		cpu->ucode_rev = UCODE_REV_AMD;
}

const char *x86_msr_name(u32 index)
{
	const struct msr *m = msr_find(index);

	return m ? m->name : NULL;
}

enum x86_status x86_op_rdmsr(struct x86_cpu *cpu, const struct x86_insn *insn)
{
	enum x86_status st;
	u64 v = 0;

	(void)insn;
	if (cpu->cpl > 0)
		return x86_raise_gp(cpu, 0);
	if (unlikely(cpu->msr_exits))
		st = msr_watched(cpu, x86_gpr_sized(cpu, RCX, 4), &v, false);
	else
		st = x86_msr_read(cpu, x86_gpr_sized(cpu, RCX, 4), &v, false);
	PROBE(kvm_msr, 0, x86_gpr_sized(cpu, RCX, 4), v, st);
	if (st)
		return st;
	x86_edx_eax_set(cpu, v);
	return X86_OK;
}

enum x86_status x86_op_wrmsr(struct x86_cpu *cpu, const struct x86_insn *insn)
{
	u64 v = x86_edx_eax(cpu);
	enum x86_status st;

	(void)insn;
	if (cpu->cpl > 0)
		return x86_raise_gp(cpu, 0);
	if (unlikely(cpu->msr_exits))
		st = msr_watched(cpu, x86_gpr_sized(cpu, RCX, 4), &v, true);
	else
		st = x86_msr_write(cpu, x86_gpr_sized(cpu, RCX, 4), v, false);
	PROBE(kvm_msr, 1, x86_gpr_sized(cpu, RCX, 4), v, st);
	return st;
}

/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Machine checks: what banks there are, and errors that user space reports to the guest. */
#include <errno.h>

#include "cpu/x86/event.h"
#include "kvm/kvm.h"

#define MCG_CTL_P     BIT_ULL(8)
#define MCG_CMCI_P    BIT_ULL(10)
#define MCG_SER_P     BIT_ULL(24)
#define MCG_CAP_COUNT 0xffull
#define MCG_EXT_COUNT 0xff0000ull
/* DIFFERS: signalling of corrected errors (CMCI) is offered on AMD hosts too; there the kernel has it for Intel only. */
#define MCG_CAP_OFFER (MCG_CTL_P | MCG_CMCI_P | MCG_SER_P)

#define MCG_STATUS_MCIP BIT_ULL(2)

#define MCI_STATUS_VAL	BIT_ULL(63)
#define MCI_STATUS_OVER BIT_ULL(62)
#define MCI_STATUS_UC	BIT_ULL(61)
#define MCI_STATUS_PCC	BIT_ULL(57)
#define MCI_STATUS_S	BIT_ULL(56)
#define MCI_STATUS_AR	BIT_ULL(55)
#define MCI_CTL2_CMCI	BIT_ULL(30)

enum { BANK_CTL, BANK_STATUS, BANK_ADDR, BANK_MISC };

void mce_init(struct vcpu *v)
{
	v->cpu->mcg_cap = VM_MCE_BANKS;
}

long mce_supported(struct call *c)
{
	*(u64 *)c->data = MCG_CAP_OFFER;
	return 0;
}

long mce_setup(struct call *c)
{
	struct vcpu *v = c->vcpu;
	struct x86_cpu *cpu = v->cpu;
	u64 cap = *(u64 *)c->data;
	unsigned banks = cap & MCG_CAP_COUNT;

	if (!banks || banks > VM_MCE_BANKS)
		return -EINVAL;
	if (cap & ~(MCG_CAP_OFFER | MCG_CAP_COUNT | MCG_EXT_COUNT))
		return -EINVAL;
	cpu->mcg_cap = cap;
	if (cap & MCG_CTL_P)
		cpu->mcg_ctl = ~0ull;
	for (unsigned i = 0; i < banks; i++) {
		cpu->mc_bank[i * 4] = ~0ull;
		if (cap & MCG_CMCI_P)
			cpu->mc_ctl2[i] = 0;
	}
	if (v->lapic)
		lapic_cmci_offer(v->lapic, cap & MCG_CMCI_P);
	return 0;
}

/* Uncorrected, but no action required: valid, uncorrected, nothing corrupted, no machine check asked for. */
static bool is_ucna(u64 status)
{
	return status & MCI_STATUS_VAL && status & MCI_STATUS_UC &&
	       !(status & (MCI_STATUS_PCC | MCI_STATUS_S | MCI_STATUS_AR));
}

static void bank_fill(struct x86_cpu *cpu, const struct kvm_x86_mce *m, u64 status)
{
	u64 *bank = &cpu->mc_bank[m->bank * 4];

	bank[BANK_ADDR] = m->addr;
	bank[BANK_MISC] = m->misc;
	bank[BANK_STATUS] = status;
}

static long ucna_set(struct vcpu *v, const struct kvm_x86_mce *m)
{
	struct x86_cpu *cpu = v->cpu;

	bank_fill(cpu, m, m->status);
	if (cpu->mcg_cap & MCG_CMCI_P && v->lapic && cpu->mc_ctl2[m->bank] & MCI_CTL2_CMCI)
		lapic_cmci(v->lapic);
	return 0;
}

/* An uncorrected error is an exception; a second one, or one that the guest has not asked for, ends it. */
static void uncorrected_set(struct vcpu *v, const struct kvm_x86_mce *m)
{
	struct x86_cpu *cpu = v->cpu;
	u64 *bank = &cpu->mc_bank[m->bank * 4], status = m->status;

	if (cpu->mcg_status & MCG_STATUS_MCIP || !(cpu->cr4 & CR4_MCE)) {
		v->triple_fault = true;
		return;
	}
	if (bank[BANK_STATUS] & MCI_STATUS_VAL)
		status |= MCI_STATUS_OVER;
	bank_fill(cpu, m, status);
	cpu->mcg_status = m->mcg_status;
	x86_raise(cpu, VEC_MC);
	vcpu_queue_exception(v);
}

long mce_set(struct call *c)
{
	const struct kvm_x86_mce *m = c->data;
	struct x86_cpu *cpu = c->vcpu->cpu;
	u64 *bank;

	if (m->bank >= (cpu->mcg_cap & MCG_CAP_COUNT) || !(m->status & MCI_STATUS_VAL))
		return -EINVAL;
	bank = &cpu->mc_bank[m->bank * 4];
	if (is_ucna(m->status))
		return ucna_set(c->vcpu, m);
	/* Reporting of uncorrected errors may be off, for all banks or for this one. */
	if (m->status & MCI_STATUS_UC && cpu->mcg_cap & MCG_CTL_P && cpu->mcg_ctl != ~0ull)
		return 0;
	if (m->status & MCI_STATUS_UC && bank[BANK_CTL] != ~0ull)
		return 0;
	if (m->status & MCI_STATUS_UC)
		uncorrected_set(c->vcpu, m);
	else if (!(bank[BANK_STATUS] & MCI_STATUS_VAL) || !(bank[BANK_STATUS] & MCI_STATUS_UC))
		bank_fill(cpu, m,
			  m->status | (bank[BANK_STATUS] & MCI_STATUS_VAL ? MCI_STATUS_OVER : 0));
	else
		bank[BANK_STATUS] |= MCI_STATUS_OVER;
	return 0;
}

/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Loads of control registers, EFER and XCR0: checks, then all effects. */
#include "cpu/x86/control.h"

#include "base/attempt.h"
#include "cpu/x86/cpuid.h"
#include "cpu/x86/event.h"
#include "cpu/x86/mode.h"

#define CR0_KNOWN                                                                                  \
	(CR0_PE | CR0_MP | CR0_EM | CR0_TS | CR0_ET | CR0_NE | CR0_WP | CR0_AM | CR0_NW | CR0_CD | \
	 CR0_PG)

/* CR4 bits that paging depends on: a change drops every translation. */
#define CR4_PAGING (CR4_PSE | CR4_PAE | CR4_PGE | CR4_PCIDE | CR4_LA57 | CR4_SMEP | CR4_SMAP)

/* The PCIDE form of a CR3 load: keep what is cached. */
#define CR3_NOFLUSH BIT_ULL(63)

void x86_flush_all(struct x86_cpu *cpu)
{
	cpu->flush.all = true;
}

void x86_flush_nonglobal(struct x86_cpu *cpu)
{
	cpu->flush.nonglobal = true;
}

void x86_flush_pcid(struct x86_cpu *cpu, u16 pcid)
{
	struct x86_flush *f = &cpu->flush;

	if (f->npcids < X86_FLUSH_PCIDS)
		f->pcid[f->npcids++] = pcid;
	else
		f->npcids = X86_FLUSH_PCIDS + 1;
}

void x86_flush_page(struct x86_cpu *cpu, gva_t lin)
{
	struct x86_flush *f = &cpu->flush;

	if (f->npages < X86_FLUSH_PAGES)
		f->page[f->npages] = lin;
	if (f->npages <= X86_FLUSH_PAGES)
		f->npages++;
}

/* PAE paging: PAE without long mode. */
static bool paging_is_pae(u64 cr0, u64 cr4, u64 efer)
{
	return cr0 & CR0_PG && cr4 & CR4_PAE && !(efer & EFER_LMA);
}

/* SDM "PDPTE registers": bits 1-2, 5-8 and those from MAXPHYADDR are reserved in a present entry. */
static bool pdpte_is_valid(const struct x86_cpu *cpu, u64 e)
{
	u64 reserved = 0x1e6 | ~(BIT_ULL(cpu->phys_bits ? cpu->phys_bits : 36) - 1);

	return !(e & 1) || !(e & reserved);
}

enum x86_status x86_load_pdptrs(struct x86_cpu *cpu, u64 cr3)
{
	gpa_t gpa = (u32)cr3 & ~0x1fu;
	struct slot *slot = mem_slot_find(cpu->mem, cpu->space, gpa >> PAGE_SHIFT, &cpu->slot_hint);
	u64 e[4];

	if (!slot || attempt_copy(e, slot_hva(slot, gpa), sizeof(e)))
		return x86_raise_gp(cpu, 0);
	for (int i = 0; i < 4; i++) {
		if (!pdpte_is_valid(cpu, e[i]))
			return x86_raise_gp(cpu, 0);
	}
	for (int i = 0; i < 4; i++)
		cpu->pdptr[i] = e[i];
	return X86_OK;
}

enum x86_status x86_set_cr0(struct x86_cpu *cpu, u64 v)
{
	u64 old = cpu->cr0, efer = cpu->efer;

	if (v >> 32 || (v & CR0_NW && !(v & CR0_CD)) || (v & CR0_PG && !(v & CR0_PE)))
		return x86_raise_gp(cpu, 0);
	v = (v & CR0_KNOWN) | CR0_ET;
	if (v & ~old & CR0_PG && efer & EFER_LME) {
		if (!(cpu->cr4 & CR4_PAE) || cpu->seg[SEG_CS].attr & SA_L)
			return x86_raise_gp(cpu, 0);
		efer |= EFER_LMA;
	}
	if (old & ~v & CR0_PG) {
		if (cpu->cr4 & CR4_PCIDE || x86_is_64(cpu))
			return x86_raise_gp(cpu, 0);
		efer &= ~EFER_LMA;
	}
	if ((old ^ v) & (CR0_PG | CR0_CD | CR0_NW) && paging_is_pae(v, cpu->cr4, efer) &&
	    x86_load_pdptrs(cpu, cpu->cr3))
		return X86_FAULT;
	cpu->cr0 = v;
	cpu->efer = efer;
	if ((old ^ v) & (CR0_PG | CR0_PE | CR0_WP))
		x86_flush_all(cpu);
	x86_mode_update(cpu);
	return X86_OK;
}

enum x86_status x86_set_cr3(struct x86_cpu *cpu, u64 v)
{
	bool keep = false;

	if (cpu->cr4 & CR4_PCIDE) {
		keep = v & CR3_NOFLUSH;
		v &= ~CR3_NOFLUSH;
	}
	/* In any mode: SMM's return loads CR3 before long mode is back. */
	if (v >> (cpu->phys_bits ? cpu->phys_bits : 36))
		return x86_raise_gp(cpu, 0);
	if (paging_is_pae(cpu->cr0, cpu->cr4, cpu->efer) && x86_load_pdptrs(cpu, v))
		return X86_FAULT;
	cpu->cr3 = v;
	cpu->flush.switched = true;
	if (!keep)
		x86_flush_nonglobal(cpu);
	return X86_OK;
}

enum x86_status x86_set_cr4(struct x86_cpu *cpu, u64 v)
{
	u64 old = cpu->cr4, changed = old ^ v;

	if (v & ~x86_cr4_allowed(cpu))
		return x86_raise_gp(cpu, 0);
	if (cpu->efer & EFER_LMA && (!(v & CR4_PAE) || changed & CR4_LA57))
		return x86_raise_gp(cpu, 0);
	if (v & ~old & CR4_PCIDE && (!(cpu->efer & EFER_LMA) || cpu->cr3 & 0xfff))
		return x86_raise_gp(cpu, 0);
	if (changed & (CR4_PGE | CR4_PAE | CR4_PSE | CR4_SMEP) &&
	    paging_is_pae(cpu->cr0, v, cpu->efer) && x86_load_pdptrs(cpu, cpu->cr3))
		return X86_FAULT;
	cpu->cr4 = v;
	if (changed & CR4_PAGING)
		x86_flush_all(cpu);
	x86_mode_update(cpu);
	return X86_OK;
}

enum x86_status x86_set_efer(struct x86_cpu *cpu, u64 v)
{
	u64 old = cpu->efer;

	if (v & ~x86_efer_allowed(cpu))
		return x86_raise_gp(cpu, 0);
	if ((old ^ v) & EFER_LME && cpu->cr0 & CR0_PG)
		return x86_raise_gp(cpu, 0);
	cpu->efer = (v & ~EFER_LMA) | (old & EFER_LMA);
	if ((old ^ cpu->efer) & EFER_NX)
		x86_flush_all(cpu);
	x86_mode_update(cpu);
	return X86_OK;
}

enum x86_status x86_set_xcr0(struct x86_cpu *cpu, u64 v)
{
	const u64 sse = 0x2, avx = 0x4, avx512 = 0xe0;

	if (!(v & 1) || v & ~x86_xcr0_allowed(cpu) || (v & avx && !(v & sse)))
		return x86_raise_gp(cpu, 0);
	if (v & avx512 && ((v & avx512) != avx512 || !(v & avx)))
		return x86_raise_gp(cpu, 0);
	cpu->xcr0 = v;
	x86_mode_update(cpu);
	return X86_OK;
}

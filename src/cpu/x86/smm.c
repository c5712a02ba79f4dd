/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* System management mode: SMI, the state-save map in its 64-bit and 32-bit forms, and RSM. */
#include "cpu/x86/smm.h"

#include "base/bulk.h"
#include "cpu/x86/access.h"
#include "cpu/x86/control.h"
#include "cpu/x86/cpuid.h"
#include "cpu/x86/event.h"
#include "cpu/x86/mode.h"
#include "cpu/x86/ops.h"

/*
 * The map is the upper half of the 1 KiB below SMBASE + 0x10000, its offsets as the manuals count them, from
 * SMBASE + 0x8000. Which form is used follows from CPUID (long mode), as in KVM; the layout of the 64-bit form is
 * AMD's, that of the 32-bit form Intel's P6. Of what KVM leaves out only the interrupt shadow is kept, where later
 * kernels have it.
 *
 *	SMBASE + 0x8000  first instruction, real mode with segments of 4 GiB
 *	SMBASE + 0xfe00  state (MAP_FIRST)
 */
#define MAP_FIRST   0x7e00u
#define MAP_SIZE    0x200u
#define MAP_AT	    0xfe00u
#define SMM_RIP	    0x8000u
#define REVISION_32 0x00020000u
#define REVISION_64 0x00020064u

/* Where the two forms have what the code below has to look at itself. */
struct map {
	u16 rflags, rip, revision, smbase, shadow, efer, cr0, cr3, cr4, dr6, dr7;
	u16 seg[SEG_COUNT], gdt_limit, gdt_base, idt_limit, idt_base;
	u16 gpr;
	s8 gpr_step;
	u8 ngpr, word; /* bytes of a register */
};

static const struct map map64 = {
	.rflags = 0x7f70,
	.rip = 0x7f78,
	.revision = 0x7efc,
	.smbase = 0x7f00,
	.shadow = 0x7ecb,
	.efer = 0x7ed0,
	.cr0 = 0x7f58,
	.cr3 = 0x7f50,
	.cr4 = 0x7f48,
	.dr6 = 0x7f68,
	.dr7 = 0x7f60,
	.gpr = 0x7ff8,
	.gpr_step = -8,
	.ngpr = 16,
	.word = 8,
	.seg = { 0x7e00, 0x7e10, 0x7e20, 0x7e30, 0x7e40, 0x7e50, 0x7e70, 0x7e90 },
	.gdt_limit = 0x7e64,
	.gdt_base = 0x7e68,
	.idt_limit = 0x7e84,
	.idt_base = 0x7e88,
};

/* Segments: where flags, limit and base are; selectors lie elsewhere. */
static const struct map map32 = {
	.rflags = 0x7ff4,
	.rip = 0x7ff0,
	.revision = 0x7efc,
	.smbase = 0x7ef8,
	.shadow = 0x7f1a,
	.cr0 = 0x7ffc,
	.cr3 = 0x7ff8,
	.cr4 = 0x7f14,
	.dr6 = 0x7fcc,
	.dr7 = 0x7fc8,
	.gpr = 0x7fd0,
	.gpr_step = 4,
	.ngpr = 8,
	.word = 4,
	.seg = { 0x7f84, 0x7f90, 0x7f9c, 0x7f2c, 0x7f38, 0x7f44, 0x7f78, 0x7f5c },
	.gdt_limit = 0x7f70,
	.gdt_base = 0x7f74,
	.idt_limit = 0x7f54,
	.idt_base = 0x7f58,
};
static const u16 selectors32[SEG_COUNT] = { 0x7fa8, 0x7fac, 0x7fb0, 0x7fb4,
					    0x7fb8, 0x7fbc, 0x7fc0, 0x7fc4 };

static const struct map *map_of(const struct x86_cpu *cpu)
{
	return x86_cpuid_has(cpu, 0x80000001, 0, 3, 29) ? &map64 : &map32;
}

static inline void put(u8 *map, u16 at, u64 v, unsigned size)
{
	bulk_copy(map + at - MAP_FIRST, &v, size);
}

static inline u64 get(const u8 *map, u16 at, unsigned size)
{
	u64 v = 0;

	bulk_copy(&v, map + at - MAP_FIRST, size);
	return v;
}

/* --- segments --- */

/* A segment that was loaded with a null selector is not present in the map. */
static u16 flags_of(const struct x86_seg *s)
{
	u16 flags = s->attr & ~SA_UNUSABLE;

	return s->attr & SA_UNUSABLE ? flags & ~SA_P : flags;
}

static u16 attr_of(u16 flags)
{
	flags &= SA_TYPE | SA_S | SA_DPL | SA_P | SA_AVL | SA_L | SA_DB | SA_G;
	return flags & SA_P ? flags : flags | SA_UNUSABLE;
}

static void seg_save(const struct x86_cpu *cpu, const struct map *m, u8 *map, unsigned i)
{
	const struct x86_seg *s = &cpu->seg[i];
	u16 at = m->seg[i];

	if (m == &map64) {
		put(map, at, s->sel, 2);
		put(map, at + 2, flags_of(s), 2);
		put(map, at + 4, s->limit, 4);
		put(map, at + 8, s->base, 8);
	} else {
		put(map, selectors32[i], s->sel, 4);
		put(map, at, (u32)flags_of(s) << 8, 4);
		put(map, at + 4, s->limit, 4);
		put(map, at + 8, s->base, 4);
	}
}

static void seg_restore(struct x86_cpu *cpu, const struct map *m, const u8 *map, unsigned i)
{
	u16 at = m->seg[i];
	bool wide = m == &map64;

	cpu->seg[i] = (struct x86_seg){
		.sel = get(map, wide ? at : selectors32[i], 2),
		.attr = attr_of(wide ? get(map, at + 2, 2) : get(map, at, 4) >> 8),
		.limit = get(map, at + 4, 4),
		.base = get(map, at + 8, wide ? 8 : 4),
	};
}

/* --- entry --- */

static void state_save(const struct x86_cpu *cpu, const struct map *m, u8 *map)
{
	for (unsigned i = 0; i < m->ngpr; i++) /* raw: all of each register must come back */
		put(map, m->gpr + i * m->gpr_step, x86_gpr_raw(cpu, i), m->word);
	put(map, m->rip, cpu->rip, m->word);
	put(map, m->rflags, x86_rflags(cpu), 4);
	put(map, m->dr6, cpu->dr6, m->word);
	put(map, m->dr7, cpu->dr7, m->word);
	put(map, m->cr0, cpu->cr0, m->word);
	put(map, m->cr3, cpu->cr3, m->word);
	put(map, m->cr4, cpu->cr4, m->word);
	put(map, m->smbase, cpu->smbase, 4);
	put(map, m->shadow, cpu->shadow, 1);
	put(map, m->revision, m == &map64 ? REVISION_64 : REVISION_32, 4);
	if (m->efer)
		put(map, m->efer, cpu->efer, 8);
	put(map, m->gdt_limit, cpu->gdt.limit, 4);
	put(map, m->gdt_base, cpu->gdt.base, m->word);
	put(map, m->idt_limit, cpu->idt.limit, 4);
	put(map, m->idt_base, cpu->idt.base, m->word);
	for (unsigned i = 0; i < SEG_COUNT; i++)
		seg_save(cpu, m, map, i);
}

/* In pieces, with paging off; what has no memory or is read-only is left out. */
static void map_write(struct x86_cpu *cpu, const u8 *map)
{
	for (unsigned i = 0; i < MAP_SIZE; i += 8) {
		u32 at = (u32)cpu->smbase + MAP_AT + i;
		struct slot *first = x86_slot(cpu, at >> PAGE_SHIFT);
		struct slot *last = x86_slot(cpu, (at + 7) >> PAGE_SHIFT);

		if (first && last && !slot_is_readonly(first) && !slot_is_readonly(last))
			(void)x86_write(cpu, at, map + i, 8, ACC_WRITE | ACC_SYSTEM);
	}
}

static void segments_enter(struct x86_cpu *cpu)
{
	for (unsigned i = 0; i < SEG_LDTR; i++)
		cpu->seg[i] = (struct x86_seg){ .limit = ~0u, .attr = SA_P | SA_S | SA_G | 0x3 };
	cpu->seg[SEG_CS].sel = cpu->smbase >> 4;
	cpu->seg[SEG_CS].base = (u32)cpu->smbase;
}

void x86_smm_changed(struct x86_cpu *cpu, bool in_smm)
{
	cpu->event.in_smm = in_smm;
	if (!in_smm)
		cpu->event.smm_inside_nmi = false;
	cpu->space = in_smm;
	cpu->slot_hint = NULL;
	cpu->flush.all = true;
	cpu->kick = 1; /* an INIT or SMI may have been waiting for the change */
}

void x86_smm_enter(struct x86_cpu *cpu)
{
	u8 map[MAP_SIZE];

	bulk_zero(map, sizeof(map));
	state_save(cpu, map_of(cpu), map);
	x86_smm_changed(cpu, true);
	cpu->event.smm_inside_nmi = cpu->event.nmi_blocked;
	cpu->event.nmi_blocked = true;
	cpu->shadow = 0;
	cpu->cr0 &= ~(CR0_PE | CR0_EM | CR0_TS | CR0_PG);
	cpu->cr4 = 0;
	cpu->efer = 0;
	cpu->dr7 = DR7_FIXED;
	cpu->idt = (struct x86_dtable){ 0 };
	x86_rflags_set(cpu, 2);
	segments_enter(cpu);
	cpu->rip = cpu->next_rip = SMM_RIP;
	cpu->smi_count++;
	x86_mode_update(cpu);
	map_write(cpu, map);
}

/* --- RSM --- */

static bool map_read(struct x86_cpu *cpu, u8 *map)
{
	for (unsigned i = 0; i < MAP_SIZE; i++) {
		u32 at = (u32)cpu->smbase + MAP_AT + i;
		struct slot *s = x86_slot(cpu, at >> PAGE_SHIFT);

		if (!s)
			return false;
		map[i] = *slot_hva(s, at);
	}
	return true;
}

/*
 * CR3 first, with the PCID left out; PAE before paging; PCIDE when long mode is there. Each by the checks of MOV, so
 * that a CR3 beyond MAXPHYADDR is found here, where long mode is not on yet.
 */
static enum x86_status control_restore(struct x86_cpu *cpu, u64 cr0, u64 cr3, u64 cr4)
{
	u64 pcid = cr4 & CR4_PCIDE ? cr3 & 0xfff : 0;

	if (x86_set_cr3(cpu, cr3 & ~pcid) || x86_set_cr4(cpu, cr4 & ~CR4_PCIDE) ||
	    x86_set_cr0(cpu, cr0))
		return X86_FAULT;
	if (!(cr4 & CR4_PCIDE))
		return X86_OK;
	if (x86_set_cr4(cpu, cr4))
		return X86_FAULT;
	return pcid ? x86_set_cr3(cpu, cr3) : X86_OK;
}

/* Real mode without PAE and long mode, from which everything can be loaded. */
static void control_clear(struct x86_cpu *cpu)
{
	cpu->cr0 &= ~(CR0_PG | CR0_PE);
	cpu->cr4 = 0;
	cpu->efer = 0;
	cpu->seg[SEG_CS] = (struct x86_seg){ .limit = ~0u, .attr = SA_P | SA_S | SA_G | 0xb };
	cpu->f.vm = 0;
	x86_mode_update(cpu);
}

static enum x86_status state_restore(struct x86_cpu *cpu, const struct map *m, const u8 *map)
{
	u64 dr6 = get(map, m->dr6, m->word), dr7 = get(map, m->dr7, m->word);

	for (unsigned i = 0; i < m->ngpr; i++) /* raw: all of each register comes back */
		x86_gpr_raw_set(cpu, i, get(map, m->gpr + i * m->gpr_step, m->word));
	if (dr6 >> 32 || dr7 >> 32)
		return X86_FAULT;
	cpu->dr6 = (dr6 & DR6_WRITABLE) | DR6_FIXED;
	cpu->dr7 = (dr7 & DR7_WRITABLE) | DR7_FIXED;
	cpu->smbase = get(map, m->smbase, 4);
	if (m->efer && x86_set_efer(cpu, get(map, m->efer, 8) & ~EFER_LMA))
		return X86_FAULT;
	cpu->gdt = (struct x86_dtable){ get(map, m->gdt_base, m->word), get(map, m->gdt_limit, 2) };
	cpu->idt = (struct x86_dtable){ get(map, m->idt_base, m->word), get(map, m->idt_limit, 2) };
	if (control_restore(cpu, get(map, m->cr0, m->word), get(map, m->cr3, m->word),
			    get(map, m->cr4, m->word)))
		return X86_FAULT;
	for (unsigned i = 0; i < SEG_COUNT; i++)
		seg_restore(cpu, m, map, i);
	x86_rflags_set(cpu, get(map, m->rflags, 4) | 2);
	cpu->shadow = get(map, m->shadow, 1) & 3;
	cpu->next_rip = get(map, m->rip, m->word);
	return X86_OK;
}

/* Shutdown where the map cannot be loaded, an emulation failure where it cannot be read: as KVM. */
static enum x86_status rsm_failed(struct x86_cpu *cpu, enum x86_exit_reason reason)
{
	cpu->exit = (struct x86_exit){ .reason = reason,
				       .error = 1 /* KVM_INTERNAL_ERROR_EMULATION */ };
	return X86_EXIT;
}

enum x86_status x86_op_rsm(struct x86_cpu *cpu, const struct x86_insn *insn)
{
	u8 map[MAP_SIZE];
	enum x86_status st;

	(void)insn;
	if (!cpu->event.in_smm)
		return x86_raise_ud(cpu);
	if (!map_read(cpu, map))
		return rsm_failed(cpu, X86_EXIT_INTERNAL);
	if (!cpu->event.smm_inside_nmi)
		cpu->event.nmi_blocked = false;
	x86_smm_changed(cpu, false);
	control_clear(cpu);
	st = state_restore(cpu, map_of(cpu), map);
	cpu->flush.all = true;
	x86_mode_update(cpu);
	x86_window_opened(cpu);
	return st == X86_OK ? X86_OK : rsm_failed(cpu, X86_EXIT_SHUTDOWN);
}

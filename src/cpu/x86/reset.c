/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The processor after power-on and after INIT. */
#include "base/bulk.h"
#include "cpu/x86/access.h"
#include "cpu/x86/cpuid.h"
#include "cpu/x86/event.h"
#include "cpu/x86/fpu.h"
#include "cpu/x86/mode.h"
#include "cpu/x86/msr.h"

#define DR6_RESET 0xffff0ff0ull
#define DR7_RESET 0x400ull

static void segments_reset(struct x86_cpu *cpu)
{
	unsigned i;

	for (i = 0; i < SEG_LDTR; i++)
		cpu->seg[i] = (struct x86_seg){ .limit = 0xffff, .attr = SA_P | SA_S | 0x3 };
	cpu->seg[SEG_CS] = (struct x86_seg){
		.base = 0xffff0000u,
		.limit = 0xffff,
		.sel = 0xf000,
		.attr = SA_P | SA_S | 0xb,
	};
	cpu->seg[SEG_LDTR] = (struct x86_seg){ .limit = 0xffff, .attr = SA_P | 0x2 };
	cpu->seg[SEG_TR] = (struct x86_seg){ .limit = 0xffff, .attr = SA_P | 0xb };
	cpu->gdt = (struct x86_dtable){ .limit = 0xffff };
	cpu->idt = (struct x86_dtable){ .limit = 0xffff };
}

/* What INIT leaves alone. FCW as KVM has it, not the 0x40 of a reset without FINIT. */
static void msrs_reset(struct x86_cpu *cpu)
{
	x86_msr_reset(cpu);
	x86_fpu_reset(cpu);
	cpu->xcr0 = 1;
}

void x86_reset(struct x86_cpu *cpu, bool init)
{
	const struct x86_cpuid_entry *model = x86_cpuid_find(cpu, 1, 0);
	u64 caching = init ? cpu->cr0 & (CR0_CD | CR0_NW) : CR0_CD | CR0_NW;

	if (!cpu->phys_bits)
		cpu->phys_bits = 36;
	if (!cpu->virt_bits)
		cpu->virt_bits = 48;
	bulk_zero(cpu->gpr, sizeof(cpu->gpr));
	x86_gpr_write(cpu, RDX, model ? model->eax : 0x600, 4);
	cpu->rip = cpu->next_rip = 0xfff0;
	cpu->f = (struct x86_vflags){ 0 };
	cpu->aflags = 0x200;
	cpu->shadow = 0;
	segments_reset(cpu);
	cpu->cr0 = CR0_ET | caching;
	cpu->cr2 = cpu->cr3 = cpu->cr4 = cpu->cr8 = 0;
	cpu->efer = 0;
	bulk_zero(cpu->pdptr, sizeof(cpu->pdptr));
	bulk_zero(cpu->dr, sizeof(cpu->dr));
	cpu->dr6 = DR6_RESET;
	cpu->dr7 = DR7_RESET;
	if (!init)
		msrs_reset(cpu);
	cpu->exc = (struct x86_exception){ 0 };
	bulk_zero(&cpu->event, sizeof(cpu->event));
	cpu->space = 0;
	x86_replay_forget(cpu);
	cpu->flush.all = true;
	cpu->slot_hint = NULL;
	x86_mode_update(cpu);
}

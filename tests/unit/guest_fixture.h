/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* A processor with some RAM and without an engine, for tests of single helpers. */
#ifndef TESTS_UNIT_GUEST_FIXTURE_H
#define TESTS_UNIT_GUEST_FIXTURE_H

#include <stdlib.h>
#include <string.h>

#include "cpu/x86/access.h"
#include "cpu/x86/mode.h"
#include "cpu/x86/ops.h"

/* Paging is off, so linear = physical; what lies above the RAM is a device. */
#define GUEST_RAM (64 * 1024u)

struct guest {
	struct mem *mem;
	u8 *ram;
	struct x86_cpu *cpu;
	unsigned bits;
};

#define GUEST_DATA (SA_P | SA_S | 0x3)
#define GUEST_CODE (SA_P | SA_S | 0xb)

/* @bits: 16 (real mode), 32 or 64. In full context, CPL 0. */
static inline struct guest guest_create(unsigned bits)
{
	struct guest g = { .mem = mem_create(NULL, NULL), .bits = bits };
	struct x86_cpu *cpu;

	g.ram = aligned_alloc(PAGE_SIZE, GUEST_RAM);
	memset(g.ram, 0, GUEST_RAM);
	mem_slot_set(g.mem, 0, 0, 0, 0, GUEST_RAM / PAGE_SIZE, g.ram);
	g.cpu = cpu = aligned_alloc(64, ALIGN_UP(sizeof(*cpu), 64));
	memset(cpu, 0, sizeof(*cpu));
	cpu->mem = g.mem;
	cpu->full = true;
	cpu->phys_bits = 46;
	cpu->virt_bits = 48;
	cpu->cr0 = bits == 16 ? 0 : CR0_PE;
	cpu->cr4 = CR4_OSFXSR | CR4_OSXSAVE;
	cpu->xcr0 = 0xe7;
	cpu->efer = bits == 64 ? EFER_LME | EFER_LMA : 0;
	for (unsigned i = 0; i < SEG_LDTR; i++) {
		cpu->seg[i].attr =
			(i == SEG_CS ? GUEST_CODE : GUEST_DATA) | (bits == 32 ? SA_DB | SA_G : 0);
		cpu->seg[i].limit = bits == 16 ? 0xffff : 0xffffffff;
	}
	if (bits == 64)
		cpu->seg[SEG_CS].attr |= SA_L | SA_G;
	x86_mode_update(cpu);
	return g;
}

static inline void guest_destroy(struct guest *g)
{
	mem_destroy(g->mem);
	free(g->ram);
	free(g->cpu);
}

static inline struct x86_insn guest_insn(const struct guest *g, unsigned opsize, unsigned adsize)
{
	return (struct x86_insn){ .len = 2,
				  .opsize = opsize,
				  .adsize = adsize,
				  .mode64 = g->bits == 64,
				  .seg = SEG_DS,
				  .base = INSN_NO_REG,
				  .index = INSN_NO_REG,
				  .scale = 1 };
}

/* Run to the end of the instruction, as the engine would: polls are followed, devices not answered. */
static inline enum x86_status guest_run(struct guest *g, const struct x86_insn *insn,
					enum x86_status (*op)(struct x86_cpu *,
							      const struct x86_insn *))
{
	enum x86_status st;

	g->cpu->rip = 0x100;
	do {
		g->cpu->next_rip = 0x100 + insn->len;
		x86_replay_restart(g->cpu);
		st = op(g->cpu, insn);
	} while (st == X86_OK && g->cpu->next_rip == g->cpu->rip);
	if (st != X86_EXIT)
		x86_replay_forget(g->cpu);
	return st;
}

#endif

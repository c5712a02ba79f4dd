/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The machine of the rules from the inside, for those who run more on it than one instruction. */
#ifndef TESTS_MODES_MACHINE_H
#define TESTS_MODES_MACHINE_H

#include "engine/engine.h"
#include "modes.h"

/* Guest-physical memory; linear addresses are the same in every mode. */
#define RAM_SIZE 0x40000u
#define AT_GDT	 0x1000u
#define AT_IDT32 0x2000u
#define AT_IDT64 0x3000u
#define AT_TSS32 0x4000u
#define AT_TSS64 0x4800u
#define AT_TEXT	 0x5000u /* one HLT per vector, 16 bytes apart */
#define AT_RSP0	 0x6ff0u
#define AT_CODE	 0x8100u
#define AT_STACK 0x9f00u
#define AT_PML5	 0x10000u /* page tables: up to AT_PD32 and its page */
#define AT_PML4	 0x11000u
#define AT_PDPT	 0x12000u
#define AT_PD	 0x13000u
#define AT_PAE	 0x14000u
#define AT_PD32	 0x15000u

struct engine_vcpu *machine_vcpu(unsigned which);
u8 *machine_ram(void); /* all guests have the same */

/* From the world to the processor, its code at AT_CODE, and back. */
void world_load(struct x86_cpu *cpu, const struct cell *c, const struct world *w);
void world_read(struct x86_cpu *cpu, struct world *w);
/* Word @i, of @size bytes, of the frame that the last event has pushed. */
u64 frame_word(const struct x86_cpu *cpu, const struct cell *c, unsigned i, unsigned size);

#endif

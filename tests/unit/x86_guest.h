/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* A processor with a little memory, for tests of cpu/x86 without an engine. */
#ifndef TESTS_UNIT_X86_GUEST_H
#define TESTS_UNIT_X86_GUEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <cmocka.h>

#include "cpu/x86/access.h"
#include "cpu/x86/event.h"
#include "cpu/x86/mode.h"
#include "cpu/x86/ops.h"
#include "cpu/x86/segment.h"

#define GUEST_RAM  0x400000ull /* at 0 */
#define GUEST_ROM  0x800000ull /* 64 KiB, read-only slot */
#define GUEST_HOLE 0x900000ull /* nothing */

struct guest {
	struct x86_cpu *cpu;
	struct mem *mem;
	u8 *ram, *rom;
	/* calls of code_written */
	unsigned written;
	gpa_t written_gpa;
	u64 written_seen; /* what the memory held at that time */
};

static void guest_code_written(void *engine, struct slot *slot, gpa_t gpa, unsigned len)
{
	struct guest *g = engine;

	(void)len;
	g->written++;
	g->written_gpa = gpa;
	memcpy(&g->written_seen, slot_hva(slot, gpa), 8);
}

static inline void *guest_map(size_t size)
{
	void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	assert_true(p != MAP_FAILED);
	return p;
}

static inline int guest_setup(void **state)
{
	struct guest *g = calloc(1, sizeof(*g));
	static const struct mem_ops ops;

	assert_non_null(g);
	g->cpu = aligned_alloc(64, ALIGN_UP(sizeof(*g->cpu), (size_t)64));
	assert_non_null(g->cpu);
	memset(g->cpu, 0, sizeof(*g->cpu));
	g->mem = mem_create(&ops, NULL);
	assert_non_null(g->mem);
	g->ram = guest_map(GUEST_RAM);
	g->rom = guest_map(0x10000);
	assert_int_equal(mem_slot_set(g->mem, 0, 0, 0, 0, GUEST_RAM >> PAGE_SHIFT, g->ram), 0);
	assert_int_equal(mem_slot_set(g->mem, 0, 1, 2, GUEST_ROM >> PAGE_SHIFT, 16, g->rom), 0);
	g->cpu->mem = g->mem;
	g->cpu->engine = g;
	g->cpu->code_written = guest_code_written;
	g->cpu->phys_bits = 40;
	g->cpu->virt_bits = 48;
	x86_reset(g->cpu, false);
	*state = g;
	return 0;
}

static inline int guest_teardown(void **state)
{
	struct guest *g = *state;

	mem_destroy(g->mem);
	munmap(g->ram, GUEST_RAM);
	munmap(g->rom, 0x10000);
	free(g->cpu);
	free(g);
	return 0;
}

static inline void guest_put(struct guest *g, gpa_t at, u64 v, unsigned size)
{
	memcpy(g->ram + at, &v, size);
}

static inline u64 guest_get(const struct guest *g, gpa_t at, unsigned size)
{
	u64 v = 0;

	memcpy(&v, g->ram + at, size);
	return v;
}

static inline void guest_segment(struct guest *g, unsigned sreg, u16 sel, u64 base, u32 limit,
				 u16 attr)
{
	g->cpu->seg[sreg] =
		(struct x86_seg){ .base = base, .limit = limit, .sel = sel, .attr = attr };
}

/* Where things are in every test. */
#define AT_GDT	 0x1000u
#define AT_IDT	 0x2000u
#define AT_TSS	 0x3000u
#define AT_TSS2	 0x3800u
#define AT_CR3	 0x4000u  /* and the tables behind it up to 0x10000 */
#define AT_STACK 0x20000u /* top of the current stack */
#define AT_RSP0	 0x30000u
#define AT_IST1	 0x38000u

#define SEL_CODE0  0x08
#define SEL_DATA0  0x10
#define SEL_CODE3  0x1b
#define SEL_DATA3  0x23
#define SEL_CODE16 0x28
#define SEL_RO	   0x30 /* read-only data, DPL 3 */
#define SEL_XO	   0x38 /* execute-only code, DPL 0 */
#define SEL_CONF   0x40 /* conforming code, DPL 0 */
#define SEL_ABSENT 0x48 /* data, DPL 0, not present */
#define SEL_DOWN   0x50 /* data, expand-down, limit 0xfff */
#define SEL_TSS	   0x60 /* 16 bytes in long mode */
#define SEL_TSS2   0x70
#define SEL_LDT	   0x80
#define SEL_GATE   0x90
#define SEL_TASK   0xa0
#define GDT_LIMIT  0xff

static inline void guest_desc(struct guest *g, u16 sel, u64 base, u32 limit, u32 attr)
{
	u32 lo = (limit & 0xffff) | (u32)(base & 0xffff) << 16;
	u32 hi = (u32)(base >> 16 & 0xff) | (attr & 0xf0ff) << 8 | (limit & 0xf0000) |
		 (u32)(base & 0xff000000u);

	guest_put(g, AT_GDT + (sel & ~7u), lo, 4);
	guest_put(g, AT_GDT + (sel & ~7u) + 4, hi, 4);
}

/* @code: attributes of a code segment without DPL (0xc09a: 32-bit, 0xa09a: 64-bit). */
static inline void guest_gdt(struct guest *g, u32 code)
{
	memset(g->ram + AT_GDT, 0, GDT_LIMIT + 1);
	guest_desc(g, SEL_CODE0, 0, 0xfffff, code);
	guest_desc(g, SEL_DATA0, 0, 0xfffff, 0xc092);
	guest_desc(g, SEL_CODE3, 0, 0xfffff, code | 0x60);
	guest_desc(g, SEL_DATA3, 0, 0xfffff, 0xc0f2);
	guest_desc(g, SEL_CODE16, 0x10000, 0xffff, 0x009a);
	guest_desc(g, SEL_RO, 0, 0xfffff, 0xc0f0);
	guest_desc(g, SEL_XO, 0, 0xfffff, code & ~2u);
	guest_desc(g, SEL_CONF, 0, 0xfffff, code | 4);
	guest_desc(g, SEL_ABSENT, 0, 0xfffff, 0xc012);
	guest_desc(g, SEL_DOWN, 0, 0xfff, 0x4096);
	guest_desc(g, SEL_TSS, AT_TSS, 0x7ff, 0x89);
	guest_desc(g, SEL_TSS2, AT_TSS2, 0x7ff, 0x89);
	guest_desc(g, SEL_LDT, AT_GDT, GDT_LIMIT, 0x82);
	g->cpu->gdt = (struct x86_dtable){ .base = AT_GDT, .limit = GDT_LIMIT };
	g->cpu->idt = (struct x86_dtable){ .base = AT_IDT, .limit = 0xfff };
}

static inline void guest_cpl(struct guest *g, unsigned cpl)
{
	u16 code = (g->cpu->efer & EFER_LMA ? SEG_FLAT_CODE64(0) : SEG_FLAT_CODE32(0));
	u16 dpl = cpl << SA_DPL_SHIFT;

	guest_segment(g, SEG_CS, cpl ? SEL_CODE3 : SEL_CODE0, 0, 0xffffffffu, code | dpl);
	guest_segment(g, SEG_SS, cpl ? SEL_DATA3 : SEL_DATA0, 0, 0xffffffffu,
		      SEG_FLAT_DATA(0) | dpl);
	guest_segment(g, SEG_DS, SEL_DATA3, 0, 0xffffffffu, SEG_FLAT_DATA(3));
	guest_segment(g, SEG_ES, SEL_DATA3, 0, 0xffffffffu, SEG_FLAT_DATA(3));
	guest_segment(g, SEG_FS, 0, 0, 0, SA_UNUSABLE);
	guest_segment(g, SEG_GS, 0, 0, 0, SA_UNUSABLE);
	x86_mode_update(g->cpu);
	assert_int_equal(g->cpu->cpl, cpl);
}

/* Flat 32-bit protected mode without paging. */
static inline void guest_protected(struct guest *g, unsigned cpl)
{
	guest_gdt(g, 0xc09a);
	g->cpu->cr0 = CR0_PE | CR0_NE | CR0_ET;
	guest_segment(g, SEG_TR, SEL_TSS, AT_TSS, 0x7ff, 0x8b);
	guest_put(g, AT_TSS + 4, AT_RSP0, 4);
	guest_put(g, AT_TSS + 8, SEL_DATA0, 4);
	g->cpu->gpr[RSP] = AT_STACK;
	guest_cpl(g, cpl);
}

/* 64-bit mode, the RAM mapped one to one as user and supervisor 2 MiB pages. */
static inline void guest_long(struct guest *g, unsigned cpl)
{
	unsigned i;

	guest_gdt(g, 0xa09a);
	guest_put(g, AT_CR3, 0x5007, 8);
	guest_put(g, 0x5000, 0x6007, 8);
	for (i = 0; i < 8; i++)
		guest_put(g, 0x6000 + 8 * i, (u64)i << 21 | 0x87, 8);
	g->cpu->cr3 = AT_CR3;
	g->cpu->cr4 = CR4_PAE;
	g->cpu->efer = EFER_LME | EFER_LMA | EFER_SCE | EFER_NX;
	g->cpu->cr0 = CR0_PE | CR0_NE | CR0_ET | CR0_PG | CR0_WP;
	guest_segment(g, SEG_TR, SEL_TSS, AT_TSS, 0x7ff, 0x8b);
	guest_put(g, AT_TSS + 4, AT_RSP0, 8);
	guest_put(g, AT_TSS + 0x24, AT_IST1, 8);
	g->cpu->gpr[RSP] = AT_STACK;
	guest_cpl(g, cpl);
}

/* @type with DPL and P, e.g. 0x8e. */
static inline void guest_gate32(struct guest *g, unsigned vector, u16 sel, u32 offset, u32 type)
{
	guest_put(g, AT_IDT + 8 * vector, (u32)sel << 16 | (offset & 0xffff), 4);
	guest_put(g, AT_IDT + 8 * vector + 4, (offset & 0xffff0000u) | type << 8, 4);
}

static inline void guest_gate64(struct guest *g, unsigned vector, u16 sel, u64 offset, u32 type,
				unsigned ist)
{
	guest_put(g, AT_IDT + 16 * vector, (u32)sel << 16 | (offset & 0xffff), 4);
	guest_put(g, AT_IDT + 16 * vector + 4, (offset & 0xffff0000u) | type << 8 | ist, 4);
	guest_put(g, AT_IDT + 16 * vector + 8, offset >> 32, 8);
}

static inline struct x86_insn guest_insn(unsigned opsize)
{
	return (struct x86_insn){
		.len = 2,
		.opsize = opsize,
		.adsize = 8,
		.seg = SEG_DS,
		.base = INSN_NO_REG,
		.index = INSN_NO_REG,
		.scale = 1,
	};
}

/* An instruction whose explicit operand is memory at @address. */
static inline struct x86_insn guest_insn_mem(unsigned opsize, u64 address)
{
	struct x86_insn insn = guest_insn(opsize);

	insn.has_mem = true;
	insn.disp = (s64)address;
	return insn;
}

static inline void guest_fault(struct guest *g, enum x86_status st, unsigned vector, u32 error)
{
	assert_int_equal(st, X86_FAULT);
	assert_int_equal(g->cpu->exc.vector, vector);
	assert_int_equal(g->cpu->exc.error, error);
}

#define guest_test(f) cmocka_unit_test_setup_teardown(f, guest_setup, guest_teardown)

#endif

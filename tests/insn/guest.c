/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The same instruction in user mode of a guest of ours, in every form of the engine. */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "cpu/x86/cpuid.h"
#include "cpu/x86/event.h"
#include "cpu/x86/mode.h"
#include "cpu/x86/xstate.h"
#include "../solo.h"
#include "insn.h"

/* Guest-physical memory: the arena, the kernel's page, page tables. */
#define RAM_SIZE  0x40000u
#define GPA_GDT	  0x20000u
#define GPA_IDT	  0x21000u
#define GPA_TSS	  0x22000u
#define GPA_TEXT  0x23000u /* one HLT per vector, 16 bytes apart */
#define GPA_STACK 0x24000u
#define GPA_PML4  0x30000u
#define KERNEL	  0x20000000ull /* linear address of GPA_GDT, pages of the kernel follow */
#define LIN(gpa)  (KERNEL + (gpa)-GPA_GDT)

/* Selectors as Linux has them, so that images of them agree. */
#define KERNEL_CS 0x10
#define USER_CS	  0x33
#define USER_SS	  0x2b
#define TSS_SEL	  0x40

const char *const guest_names[GUESTS_MAX] = { "checked", "fast", "exact" };
u8 *guest_arena;

static u8 *ram;
static struct solo guests[GUESTS_MAX];
static unsigned nguests;

static u64 *table(u64 gpa)
{
	return (u64 *)(ram + gpa);
}

/* Map one page; all of the test lies below 1 GiB. */
static void map_page(u64 lin, u64 gpa, bool user, bool write)
{
	u64 *pd = table(GPA_PML4 + 0x2000), *pt;
	unsigned i = lin >> 21 & 511;

	if (!pd[i]) {
		static u64 next = GPA_PML4 + 0x3000;

		pd[i] = next | 7;
		next += PAGE_SIZE;
	}
	pt = table(pd[i] & PAGE_MASK & 0xffffffff);
	pt[lin >> 12 & 511] = gpa | 1 | (write ? 2 : 0) | (user ? 4 : 0);
}

static void map_range(u32 off, u32 size, bool write)
{
	for (u32 k = off; k < off + size; k += PAGE_SIZE)
		map_page(ARENA + k, k, true, write);
}

static void make_tables(void)
{
	table(GPA_PML4)[0] = (GPA_PML4 + 0x1000) | 7;
	table(GPA_PML4 + 0x1000)[0] = (GPA_PML4 + 0x2000) | 7;
	map_range(CODE_OFF, CODE_SIZE, true);
	map_range(DATA_OFF, DATA_SIZE, true);
	map_range(RO_OFF, RO_SIZE, false);
	map_range(STACK_OFF, STACK_SIZE, true);
	for (u64 gpa = GPA_GDT; gpa < GPA_STACK + PAGE_SIZE; gpa += PAGE_SIZE)
		map_page(LIN(gpa), gpa, false, true);
}

/* Whether user mode of the host can name the descriptor. */
static bool host_has_segment(unsigned sel)
{
	bool has;

	__asm__("lar %1, %1" : "=@ccz"(has), "+r"(sel));
	return has;
}

static void make_gates(void)
{
	u64 *gdt = table(GPA_GDT), *idt = table(GPA_IDT);
	u64 sp = LIN(GPA_STACK) + 0xf00;

	gdt[1] = 0x00cf9b000000ffff;	  /* kernel 32-bit code */
	gdt[2] = 0x00af9b000000ffff;	  /* kernel code */
	gdt[3] = 0x00cf93000000ffff;	  /* kernel data */
	if (host_has_segment(4 << 3 | 3)) /* some hypervisors leave user mode no 32-bit code */
		gdt[4] = 0x00cffb000000ffff;
	gdt[5] = 0x00cff3000000ffff;  /* user data */
	gdt[6] = 0x00affb000000ffff;  /* user code */
	gdt[15] = 0x0040f50000000000; /* Linux: number of the processor */
	gdt[8] = 0x00008b0000000067 | (LIN(GPA_TSS) & 0xffffff) << 16 |
		 (LIN(GPA_TSS) >> 24 & 0xff) << 56;
	for (unsigned i = 0; i < 256; i++) {
		u64 to = LIN(GPA_TEXT) + 16 * i, dpl = i == 3 || i == 4 || i == 0x80 ? 3 : 0;

		idt[2 * i] = (to & 0xffff) | KERNEL_CS << 16 | (0x8e00 | dpl << 13) << 32 |
			     (to >> 16 & 0xffff) << 48;
		idt[2 * i + 1] = to >> 32;
	}
	stubs_write(ram + GPA_TEXT);
	memcpy(ram + GPA_TSS + 4, &sp, 8);
	ram[GPA_TSS + 102] = 0x68; /* I/O permission map: none */
}

static void cpu_segment(struct x86_seg *s, u16 sel, u16 attr)
{
	*s = (struct x86_seg){ .limit = ~0u, .sel = sel, .attr = attr };
}

static void cpu_user(struct x86_cpu *cpu, const struct testcase *c, const struct state *in)
{
	cpu_segment(&cpu->seg[SEG_CS], USER_CS, 0xa0fb);
	cpu_segment(&cpu->seg[SEG_SS], USER_SS, 0xc0f3);
	for (unsigned s = 0; s < SEG_LDTR; s++)
		if (s != SEG_CS && s != SEG_SS)
			cpu->seg[s] = (struct x86_seg){ .attr = SA_UNUSABLE };
	cpu->seg[SEG_FS].base = in->fs_base;
	cpu->seg[SEG_GS].base = in->gs_base;
	memcpy(cpu->gpr, in->gpr, sizeof(cpu->gpr));
	x86_rflags_set(cpu, in->rflags);
	cpu->rip = c->start;
	memcpy(cpu->xsave, in->xsave, 2816);
	cpu->event.nmi_blocked = false;
	cpu->shadow = 0;
	cpu->cpl = 3;
	x86_mode_update(cpu);
}

static const struct x86_platform platform;

static void cpu_init(struct x86_cpu *cpu)
{
	cpu->efer = EFER_LME | EFER_LMA | EFER_NX | EFER_SCE;
	cpu->cr0 = CR0_PE | CR0_PG | CR0_ET | CR0_NE | CR0_MP | CR0_WP | CR0_AM;
	cpu->cr4 = CR4_PAE | CR4_OSFXSR | CR4_OSXMMEXCPT | CR4_PGE | CR4_OSXSAVE | CR4_FSGSBASE;
	cpu->xcr0 = state_mask;
	cpu->cr3 = GPA_PML4;
	cpu->gdt = (struct x86_dtable){ LIN(GPA_GDT), 0x7f };
	cpu->idt = (struct x86_dtable){ LIN(GPA_IDT), 0xfff };
	cpu->seg[SEG_TR] = (struct x86_seg){ LIN(GPA_TSS), 0x67, TSS_SEL, SA_P | 0xb };
	cpu->seg[SEG_LDTR] = (struct x86_seg){ .attr = SA_UNUSABLE };
}

static const struct engine_options forms_of[GUESTS_MAX] = {
	{ .form = ENGINE_CHECKED },
	{ .form = ENGINE_FAST, .windows = true, .loops = true, .ahead = true, .beside = true },
	{ .form = ENGINE_FAST, .windows = true, .loops = true, .beside = true, .exact = true },
};

const char *guest_init(unsigned n)
{
	const char *why = NULL;

	if (engine_init(&why))
		return why;
	ram = solo_ram(RAM_SIZE);
	if (!ram)
		return "no memory";
	guest_arena = ram;
	make_tables();
	make_gates();
	nguests = n;
	for (unsigned i = 0; i < n; i++) {
		why = solo_make(&guests[i], &forms_of[i], ram, RAM_SIZE, &platform, NULL);
		if (why)
			return why;
		cpu_init(engine_cpu(guests[i].v));
	}
	return NULL;
}

void guest_exit(void)
{
	for (unsigned i = 0; i < nguests; i++)
		solo_destroy(&guests[i]);
	munmap(ram, RAM_SIZE);
}

void guest_code(const struct testcase *c)
{
	u8 *p = guest_arena - ARENA;

	memset(guest_arena + CODE_OFF, 0xcc, CODE_SIZE);
	memcpy(p + c->start, c->before, c->nbefore);
	memcpy(p + c->at, c->bytes, c->zi.length);
	memcpy(p + c->at + c->zi.length, c->behind, c->nbehind);
}

/* The frame that the exception left on the kernel's stack. */
static void read_frame(struct x86_cpu *cpu, unsigned vector, struct outcome *out)
{
	u64 frame[6], off = cpu->gpr[RSP] - KERNEL;

	if (off > GPA_STACK - GPA_GDT + PAGE_SIZE - sizeof(frame)) {
		out->vector = -2;
		return;
	}
	memcpy(frame, ram + GPA_GDT + off, sizeof(frame));
	out->error = 0;
	if (vector_has_error(vector)) {
		out->error = frame[0];
		memmove(frame, frame + 1, 5 * sizeof(u64));
	}
	out->vector = vector;
	out->rip = frame[0];
	out->st.rflags = frame[2];
	out->st.gpr[RSP] = frame[3];
	out->st.sel[SEG_CS] = frame[1];
	out->st.sel[SEG_SS] = frame[4];
	out->cr2 = cpu->cr2;
}

static void read_state(struct x86_cpu *cpu, struct outcome *out)
{
	memcpy(out->st.gpr, cpu->gpr, sizeof(cpu->gpr));
	for (unsigned s = 0; s < 6; s++)
		out->st.sel[s] = cpu->seg[s].sel;
	out->st.fs_base = cpu->seg[SEG_FS].base;
	out->st.gs_base = cpu->seg[SEG_GS].base;
	memcpy(out->st.xsave, cpu->xsave, 2816);
}

void guest_run(unsigned which, const struct testcase *c, const struct state *in,
	       struct outcome *out)
{
	struct x86_cpu *cpu = engine_cpu(guests[which].v);
	int vector;

	cpu_user(cpu, c, in);
	solo_run(&guests[which]);
	read_state(cpu, out);
	out->rip = cpu->rip;
	vector = stub_of(cpu, LIN(GPA_TEXT));
	if (vector < 0) {
		out->vector = -2;
		out->error = cpu->exit.reason;
		return;
	}
	read_frame(cpu, vector, out);
	if (out->vector != VEC_BP)
		return;
	for (unsigned i = 0; i < TAILS; i++)
		if (out->rip == c->tail[i] + 1) {
			out->vector = -1;
			out->rip = c->tail[i];
		}
}

/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* One instruction in any mode, in a guest of both forms of the engine: set up, run, read back. */
#include <string.h>
#include <sys/mman.h>

#include "cpu/x86/control.h"
#include "cpu/x86/cpuid.h"
#include "cpu/x86/event.h"
#include "cpu/x86/mode.h"
#include "../solo.h"
#include "machine.h"

#define SEL_CODE32 0x08
#define SEL_CODE64 0x10
#define SEL_DATA   0x18
#define SEL_TSS	   0x40

#define CR0_PROTECTED (CR0_PE | CR0_ET | CR0_NE)
#define CR0_PAGED     (CR0_PROTECTED | CR0_PG | CR0_WP)
#define CR4_BASE      (CR4_OSFXSR | CR4_OSXSAVE)

const struct mode modes[MODES] = {
	[M_REAL] = { "real", 16, 16, .cr0 = CR0_ET },
	[M_UNREAL] = { "unreal", 16, 32, .cr0 = CR0_ET },
	[M_V86] = { "v8086", 16, 16, .user = true, .pe = true, .vm = true, .cr0 = CR0_PROTECTED },
	[M_PM16] = { "pm16", 16, 16, .pe = true, .cr0 = CR0_PROTECTED },
	[M_PM32] = { "pm32", 32, 32, .pe = true, .cr0 = CR0_PROTECTED },
	[M_PM32_USER] = { "pm32 cpl3", 32, 32, .user = true, .pe = true, .cr0 = CR0_PROTECTED },
	[M_PG32] = { "paged32", 32, 32, .pe = true, .cr0 = CR0_PAGED, .cr4 = CR4_PSE,
		     .cr3 = AT_PD32 },
	[M_PAE] = { "pae32", 32, 32, .pe = true, .cr0 = CR0_PAGED, .cr4 = CR4_PAE, .cr3 = AT_PAE },
	[M_COMPAT16] = { "compat16", 16, 16, .pe = true, .lma = true, .cr0 = CR0_PAGED,
			 .cr4 = CR4_PAE, .cr3 = AT_PML4 },
	[M_COMPAT32] = { "compat32", 32, 32, .pe = true, .lma = true, .cr0 = CR0_PAGED,
			 .cr4 = CR4_PAE, .cr3 = AT_PML4 },
	[M_COMPAT32_USER] = { "compat32 cpl3", 32, 32, .user = true, .pe = true, .lma = true,
			      .cr0 = CR0_PAGED, .cr4 = CR4_PAE, .cr3 = AT_PML4 },
	[M_LONG] = { "64-bit", 64, 32, .pe = true, .lma = true, .cr0 = CR0_PAGED, .cr4 = CR4_PAE,
		     .cr3 = AT_PML4 },
	[M_LONG_USER] = { "64-bit cpl3", 64, 32, .user = true, .pe = true, .lma = true,
			  .cr0 = CR0_PAGED, .cr4 = CR4_PAE, .cr3 = AT_PML4 },
	[M_LONG57] = { "64-bit la57", 64, 32, .pe = true, .lma = true, .cr0 = CR0_PAGED,
		       .cr4 = CR4_PAE | CR4_LA57, .cr3 = AT_PML5 },
};

const char *const guest_names[GUESTS_MAX] = { "checked", "fast", "exact" };
bool has_alt_cr8, is_intel;

static u8 *ram;
static unsigned nguests;
static struct solo guests[GUESTS_MAX];

static u64 hypercall_seen[5];
static bool hypercall_came;

/* Any result that shows whether its upper half is cut. */
#define HYPERCALL_RESULT 0x123456789abcdef0ull

static enum x86_status on_hypercall(void *owner, u64 nr, const u64 arg[4], u64 *result)
{
	(void)owner;
	hypercall_came = true;
	hypercall_seen[0] = nr;
	memcpy(hypercall_seen + 1, arg, 4 * sizeof(u64));
	*result = HYPERCALL_RESULT;
	return X86_OK;
}

static const struct x86_platform platform = { .hypercall = on_hypercall };

static void store(u32 at, u64 v, unsigned size)
{
	memcpy(ram + at, &v, size);
}

static void make_tables(void)
{
	store(AT_PML5, AT_PML4 | 7, 8);
	store(AT_PML4, AT_PDPT | 7, 8);
	store(AT_PDPT, AT_PD | 7, 8);
	store(AT_PD, 0x87, 8);
	store(AT_PAE, AT_PD | 1, 8);
	store(AT_PD32, 0x87, 4);
}

static void make_gates(void)
{
	store(AT_GDT + SEL_CODE32, 0x00cf9b000000ffff, 8);
	store(AT_GDT + SEL_CODE64, 0x00af9b000000ffff, 8);
	store(AT_GDT + SEL_DATA, 0x00cf93000000ffff, 8);
	for (unsigned v = 0; v < 256; v++) {
		u32 to = AT_TEXT + 16 * v, dpl = v == VEC_BP ? 3 : 0;
		u64 high = (u64)(0x8e00 | dpl << 13) << 32;

		store(4 * v, to, 4);
		store(AT_IDT32 + 8 * v, to | SEL_CODE32 << 16 | high, 8);
		store(AT_IDT64 + 16 * v, to | SEL_CODE64 << 16 | high, 8);
	}
	stubs_write(ram + AT_TEXT);
	store(AT_TSS32 + 4, AT_RSP0, 4);
	store(AT_TSS32 + 8, SEL_DATA, 4);
	store(AT_TSS32 + 102, 0x68, 2);
	store(AT_TSS64 + 4, AT_RSP0, 8);
	store(AT_TSS64 + 102, 0x68, 2);
}

/* Five levels are in the model; the host's CPUID decides only whether a guest is told by itself. */
static void offer_la57(struct x86_cpuid_entry *e, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		if (e[i].function == 7 && e[i].index == 0)
			e[i].ecx |= BIT(16);
}

static const struct engine_options engines[GUESTS_MAX] = {
	{ .form = ENGINE_CHECKED },
	{ .form = ENGINE_FAST, .windows = true, .beside = true },
	{ .form = ENGINE_FAST, .windows = true, .beside = true, .exact = true },
};

const char *machine_init(unsigned n)
{
	const char *why = NULL;

	if (engine_init(&why))
		return why;
	ram = solo_ram(RAM_SIZE);
	if (!ram)
		return "no memory";
	make_gates();
	make_tables();
	nguests = n;
	for (unsigned i = 0; i < n && !why; i++)
		why = solo_make(&guests[i], &engines[i], ram, RAM_SIZE, &platform, offer_la57);
	if (!why) {
		const struct x86_cpu *cpu = engine_cpu(guests[0].v);

		has_alt_cr8 = x86_cpuid_has(cpu, 0x80000001, 0, 2, 4);
		is_intel = cpu->intel;
	}
	return why;
}

void machine_exit(void)
{
	for (unsigned i = 0; i < nguests; i++)
		solo_destroy(&guests[i]);
	munmap(ram, RAM_SIZE);
}

struct engine_vcpu *machine_vcpu(unsigned which)
{
	return guests[which].v;
}

u8 *machine_ram(void)
{
	return ram;
}

bool cpuid_expect(u32 leaf, u32 out[4])
{
	const struct x86_cpu *cpu = engine_cpu(guests[0].v);

	for (u32 i = 0; i < cpu->ncpuid; i++)
		if (cpu->cpuid[i].function == leaf) {
			memcpy(out, &cpu->cpuid[i].eax, 16);
			return true;
		}
	return false;
}

void machine_code(const struct cell *c)
{
	memset(ram + AT_CODE, 0xcc, 16);
	memcpy(ram + AT_CODE, c->code, c->len);
}

/* --- segments --- */

/* What real mode can have as a base is one of those of all legacy modes; elsewhere FS wraps around 4 GiB. */
u64 segment_base(const struct cell *c, unsigned seg)
{
	bool far = !(REALLIKE >> c->id & 1) && c->mode->data_bits == 32;

	return seg == SEG_ES   ? 0x1000
	       : seg == SEG_FS ? (far ? 0xffffe000 : 0x2000)
	       : seg == SEG_GS ? 0x100
			       : 0;
}

u32 segment_limit(const struct cell *c, unsigned seg)
{
	if (c->id == M_UNREAL)
		return seg == SEG_CS || seg == SEG_SS ? 0xffff : ~0u;
	return c->mode->data_bits == 16 ? 0xffff : ~0u;
}

static void set_segments(struct x86_cpu *cpu, const struct cell *c, const struct world *w)
{
	const struct mode *m = c->mode;
	u16 dpl = m->user ? 0x60 : 0;

	for (unsigned s = 0; s < SEG_LDTR; s++) {
		bool code = s == SEG_CS;
		u16 attr = SA_P | SA_S | (code && !m->vm && m->pe ? 0xb : 0x3) | dpl;

		if (code ? m->bits == 32 : m->bits != 16)
			attr |= SA_DB;
		if (segment_limit(c, s) == ~0u)
			attr |= SA_G;
		cpu->seg[s] = (struct x86_seg){ segment_base(c, s), segment_limit(c, s),
						segment_base(c, s) >> 4, attr };
		if (m->pe && !m->vm)
			cpu->seg[s].sel = 0x80 + 8 * s + (m->user ? 3 : 0);
	}
	if (m->bits == 64) {
		cpu->seg[SEG_CS].attr |= SA_L;
		cpu->seg[SEG_FS].base = w->fs_base;
		cpu->seg[SEG_GS].base = w->gs_base;
	}
	cpu->seg[SEG_TR] =
		(struct x86_seg){ m->lma ? AT_TSS64 : AT_TSS32, 0x67, w->tr, SA_P | 0xb };
	cpu->seg[SEG_LDTR] = (struct x86_seg){ .attr = SA_UNUSABLE };
}

/* --- the world to and from the processor --- */

/* Registers that are fields on both sides. */
#define SAME(f)                                                                                    \
	{                                                                                          \
		offsetof(struct x86_cpu, f), offsetof(struct world, f),                            \
			sizeof(((struct world *)0)->f)                                             \
	}
static const struct {
	u32 cpu, world, size;
} fields[] = {
	SAME(gpr),	    SAME(cr0),
	SAME(cr2),	    SAME(cr3),
	SAME(cr4),	    SAME(cr8),
	SAME(xcr0),	    SAME(efer),
	SAME(dr),	    SAME(dr6),
	SAME(dr7),	    SAME(star),
	SAME(lstar),	    SAME(kernel_gs_base),
	SAME(sysenter_eip), SAME(tsc_aux),
	SAME(pat),	    SAME(gdt),
	SAME(idt),	    SAME(phys_bits),
};

void world_make(const struct cell *c, struct world *w)
{
	const struct mode *m = c->mode;

	memset(w, 0, sizeof(*w));
	for (unsigned i = 0; i < 16; i++)
		w->gpr[i] = m->bits == 64 || c->poisoned ? rng_next() : (u32)rng_next();
	w->gpr[RSP] = AT_STACK;
	if (c->id == M_COMPAT16 && c->poisoned) /* more than SP, and there is memory */
		w->gpr[RSP] |= 0x20000;
	w->cr0 = m->cr0;
	w->cr2 = rng_next();
	w->cr3 = m->cr3;
	w->cr4 = m->cr4 | CR4_BASE | (rng_chance(30) ? CR4_UMIP : 0);
	if (m->lma && rng_chance(40)) {
		w->cr4 |= CR4_PCIDE;
		w->cr3 |= rng_below(8);
	}
	w->cr8 = rng_below(16);
	w->efer = EFER_SCE | EFER_NX | (m->lma ? EFER_LME | EFER_LMA : 0);
	w->xcr0 = 3;
	for (unsigned i = 0; i < 4; i++)
		w->dr[i] = rng_next();
	w->dr6 = DR6_FIXED;
	w->dr7 = DR7_FIXED;
	w->star = rng_next();
	w->lstar = rng_next() & 0x7fffffffffff;
	w->kernel_gs_base = (s64)(rng_next() << 17) >> 17;
	w->sysenter_eip = (u32)rng_next();
	w->tsc_aux = (u32)rng_next();
	w->pat = 0x0007040600070406;
	w->gdt = (struct x86_dtable){ AT_GDT, 0xff };
	w->tr = SEL_TSS;
	w->tss = TSS_AVAILABLE;
	w->idt = (struct x86_dtable){ !m->pe ? 0 : m->lma ? AT_IDT64 : AT_IDT32, 0xfff };
	w->fs_base = m->bits == 64 ? 0xffffffffffffe000ull : segment_base(c, SEG_FS);
	w->gs_base = segment_base(c, SEG_GS);
	w->flags = (rng_next() & (AF_OF | AF_CF | AF_PF | AF_AF | AF_ZF | AF_SF)) | 0x200;
	w->df = rng_chance(30);
	w->phys_bits = (const u8[]){ 36, 39, 40, 46, 52 }[rng_below(5)];
	for (unsigned i = 0; i < DATA_SIZE; i += 8)
		memcpy(w->data + i, &(u64){ rng_next() }, 8);
	w->vector = -1;
}

/* Of a task that nobody is in. */
static void write_spare_tss(const struct cell *c, const struct world *w)
{
	u32 base = c->mode->lma ? AT_TSS64 : AT_TSS32;

	store(AT_GDT + SEL_SPARE_TSS, 0x67 | (u64)base << 16 | (u64)w->tss << 40, 8);
	store(AT_GDT + SEL_SPARE_TSS + 8, 0, 8);
}

void world_load(struct x86_cpu *cpu, const struct cell *c, const struct world *w)
{
	for (unsigned i = 0; i < ARRAY_SIZE(fields); i++)
		memcpy((u8 *)cpu + fields[i].cpu, (const u8 *)w + fields[i].world, fields[i].size);
	for (unsigned i = 0; i < 4; i++)
		cpu->pdptr[i] = c->id == M_PAE && !i ? AT_PD | 1 : 0;
	cpu->f = (struct x86_vflags){ .df = w->df, .vm = c->mode->vm, .iopl = 0 };
	cpu->aflags = w->flags;
	cpu->shadow = 0;
	cpu->event.nmi_blocked = false;
	cpu->rip = cpu->next_rip = AT_CODE;
	set_segments(cpu, c, w);
	x86_mode_update(cpu);
	memcpy(ram + DATA_AT, w->data, DATA_SIZE);
	write_spare_tss(c, w);
	hypercall_came = false;
}

u64 frame_word(const struct x86_cpu *cpu, const struct cell *c, unsigned i, unsigned size)
{
	u32 sp = c->mode->pe ? (u32)cpu->gpr[RSP] : (u16)cpu->gpr[RSP];
	u64 v = 0;

	if (sp + i * size < RAM_SIZE - 8)
		memcpy(&v, ram + sp + i * size, size);
	return v;
}

static void read_event(const struct x86_cpu *cpu, const struct cell *c, unsigned vector,
		       struct world *w)
{
	unsigned size = !c->mode->pe ? 2 : c->mode->lma ? 8 : 4;
	bool has_error = c->mode->pe && vector_has_error(vector);
	u64 rip = frame_word(cpu, c, has_error, size);

	w->vector = vector;
	w->error = has_error ? (u32)frame_word(cpu, c, 0, size) : 0;
	if (c->mode->lma) /* pushed always, and whole */
		w->gpr[RSP] = frame_word(cpu, c, has_error + 3, size);
	if (vector == VEC_BP && rip == AT_CODE + c->len + 1)
		w->vector = -1;
	else if (vector == VEC_BP || rip != AT_CODE)
		w->vector = 1000 + vector; /* not at the instruction */
}

void world_read(struct x86_cpu *cpu, struct world *w)
{
	for (unsigned i = 0; i < ARRAY_SIZE(fields); i++)
		memcpy((u8 *)w + fields[i].world, (u8 *)cpu + fields[i].cpu, fields[i].size);
	w->flags = cpu->aflags;
	w->df = cpu->f.df;
	w->tr = cpu->seg[SEG_TR].sel;
	w->tss = ram[AT_GDT + SEL_SPARE_TSS + 5];
	w->fs_base = cpu->seg[SEG_FS].base;
	w->gs_base = cpu->seg[SEG_GS].base;
	memcpy(w->data, ram + DATA_AT, DATA_SIZE);
	w->has_hypercall = hypercall_came;
	memcpy(w->hypercall, hypercall_seen, sizeof(w->hypercall));
}

void machine_run(unsigned which, const struct cell *c, const struct world *in, struct world *out)
{
	struct x86_cpu *cpu = engine_cpu(guests[which].v);
	int vector;

	world_load(cpu, c, in);
	solo_run(&guests[which]);
	memset(out, 0, sizeof(*out));
	world_read(cpu, out);
	vector = stub_of(cpu, AT_TEXT);
	if (vector < 0) {
		out->vector = 2000 + cpu->exit.reason;
		cpu->replay.n = 0;
		return;
	}
	read_event(cpu, c, vector, out);
}

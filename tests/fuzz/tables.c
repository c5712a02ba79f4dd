/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Whether a stream changes a translation that processors may have kept: from there on they are free to go by the old or the new one. */
#include <string.h>

#include "cpu/x86/control.h"
#include "cpu/x86/mode.h"
#include "end.h"

/*
 * A translation may be kept from the moment in which its entries are there until it is flushed, and code is itself reached by one: the
 * instruction behind the store already is. So what is open is: a store, with paging on, that changes an entry of the tables in use
 * which was present, in more than bits that nobody looks at. What is not: entries that were not present, which no processor keeps;
 * memory that is no table now, whatever becomes of it later; A and D that become 1; the four PDPTEs of PAE, which are registers.
 * An entry that is changed, flushed and only then used would be defined too, and is given away here.
 */
#define PTE_P	  BIT_ULL(0)
#define PTE_AD	  (BIT_ULL(5) | BIT_ULL(6))
#define PTE_PS	  BIT_ULL(7)
#define PTE_ADDR  0x000ffffffffff000ull
#define UNSEEN	  0xe18ull /* PWT and PCD: memory types do not show; bits 9 to 11 are software's */
#define UNSEEN_LM 0x07f0000000000000ull /* bits 52 to 58, in long mode only */
#define PAGES	  (RAM_SIZE >> PAGE_SHIFT)
#define STEPS_MAX 4000 /* this many take a second; of a longer stream only its end is looked at */

struct used {
	u64 pages;   /* of RAM that are tables */
	u64 seen[6]; /* by level */
	bool narrow; /* entries have 4 bytes */
	u64 unseen;
};
_Static_assert(PAGES == 64, "a bit for each page");

static u64 entry(const u8 *page, unsigned i, bool narrow)
{
	u64 e = 0;

	memcpy(&e, page + i * (narrow ? 4 : 8), narrow ? 4 : 8);
	return e;
}

static void reach(struct used *u, u64 table, unsigned level)
{
	u64 n = (table & PTE_ADDR) >> PAGE_SHIFT;

	if (n >= PAGES || u->seen[level] >> n & 1)
		return;
	u->seen[level] |= BIT_ULL(n);
	u->pages |= BIT_ULL(n);
	for (unsigned i = 0; level > 1 && i < (u->narrow ? 1024 : 512); i++) {
		u64 e = entry(machine_ram() + (n << PAGE_SHIFT), i, u->narrow);

		if (e & PTE_P && !(level <= 3 && e & PTE_PS))
			reach(u, e, level - 1);
	}
}

static struct used tables_used(const struct x86_cpu *cpu)
{
	struct used u = { .unseen = UNSEEN };

	if (!(cpu->cr0 & CR0_PG))
		return u;
	if (cpu->efer & EFER_LMA) {
		u.unseen |= UNSEEN_LM;
		reach(&u, cpu->cr3, cpu->cr4 & CR4_LA57 ? 5 : 4);
	} else if (cpu->cr4 & CR4_PAE) {
		for (unsigned i = 0; i < 4; i++)
			if (cpu->pdptr[i] & PTE_P)
				reach(&u, cpu->pdptr[i], 2);
	} else {
		u.narrow = true;
		reach(&u, (u32)cpu->cr3, 2);
	}
	return u;
}

static bool is_open(u64 old, u64 new, u64 unseen)
{
	return old & PTE_P && ((old ^ new) & ~unseen & ~PTE_AD || old & ~new &PTE_AD);
}

static bool page_is_open(const u8 *old, const u8 *new, const struct used *u)
{
	if (!memcmp(old, new, PAGE_SIZE))
		return false;
	for (unsigned i = 0; i < PAGE_SIZE / (u->narrow ? 4 : 8); i++)
		if (is_open(entry(old, i, u->narrow), entry(new, i, u->narrow), u->unseen))
			return true;
	return false;
}

/* A and D in all that is there, so that taking them away is seen also where the same instruction would have set them. */
static void mark(const struct used *u)
{
	unsigned size = u->narrow ? 4 : 8;

	for (u32 at = 0; at < RAM_SIZE; at += size)
		if (u->pages >> (at >> PAGE_SHIFT) & 1 && machine_ram()[at] & PTE_P)
			machine_ram()[at] |= PTE_AD;
}

/* One instruction of the checked form. */
static bool step_is_open(struct engine_vcpu *v, const struct used *u)
{
	static u8 before[RAM_SIZE];
	const u8 *ram = machine_ram();
	bool open = false;

	for (unsigned n = 0; n < PAGES; n++)
		if (u->pages >> n & 1)
			memcpy(before + n * PAGE_SIZE, ram + n * PAGE_SIZE, PAGE_SIZE);
	while (engine_run(v) == ENGINE_KICKED)
		;
	for (unsigned n = 0; n < PAGES; n++)
		if (u->pages >> n & 1)
			open |= page_is_open(before + n * PAGE_SIZE, ram + n * PAGE_SIZE, u);
	return open;
}

/* Whether the tables of the machine are other ones than at the start, but for A and D. */
static bool tables_changed(const u8 *start, const u8 *end)
{
	for (u32 at = AT_PML5; at < AT_PD32 + PAGE_SIZE; at += 8) {
		u64 a, b;

		memcpy(&a, start + at, 8);
		memcpy(&b, end + at, 8);
		if ((a ^ b) & ~(PTE_AD | PTE_AD << 32))
			return true;
	}
	return false;
}

bool stream_is_open(const struct cell *c, const u8 *code, unsigned n, const struct world *in,
		    const struct end *end)
{
	static u8 start[RAM_SIZE];
	struct engine_vcpu *v = machine_vcpu(0);
	struct x86_cpu *cpu = engine_cpu(v);
	bool open = false;
	unsigned i;

	stream_begin(0, c, code, n, in);
	memcpy(start, machine_ram(), RAM_SIZE);
	cpu->debug = X86_DEBUG_STEP;
	for (i = 0; i < STEPS_MAX && !open; i++) {
		struct used u = tables_used(cpu);

		x86_mode_update(cpu);
		if (!i)
			mark(&u);
		open = step_is_open(v, &u);
		if (cpu->exit.reason != X86_EXIT_DEBUG)
			break;
	}
	cpu->debug = 0;
	cpu->replay.n = 0;
	return open || (i == STEPS_MAX && tables_changed(start, end->memory));
}

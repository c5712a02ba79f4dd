/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Page-table walks in every mode, their error codes, A and D, and accesses on top: crossings, devices, code pages. */
#include "x86_guest.h"

#define P   1u
#define W   2u
#define U   4u
#define A   0x20u
#define D   0x40u
#define PS  0x80u
#define G   0x100u
#define NX  BIT_ULL(63)
#define VA  0x5555dead7000ull
#define PTE 0x8000u /* tables at AT_CR3, 0x5000.., the last at 0x8000 */

static void tables_4k(struct guest *g, unsigned top_flags, u64 leaf)
{
	unsigned shift = 39, i;
	u64 table = AT_CR3;

	for (i = 0; i < 3; i++, shift -= 9) {
		u64 next = table + 0x1000 + (i == 2 ? 0x1000 : 0);

		if (i == 2)
			next = PTE;
		guest_put(g, table + (VA >> shift & 511) * 8, next | top_flags, 8);
		table = next;
	}
	guest_put(g, PTE + (VA >> 12 & 511) * 8, leaf, 8);
}

static gpa_t leaf_at(void)
{
	return PTE + (VA >> 12 & 511) * 8;
}

static void long_setup(struct guest *g, unsigned cpl)
{
	guest_long(g, cpl);
	memset(g->ram + AT_CR3, 0, 0x6000);
}

static void test_long(void **state)
{
	struct guest *g = *state;
	struct x86_xlate xl;

	long_setup(g, 3);
	tables_4k(g, P | W | U, 0x123000 | P | U);
	assert_int_equal(x86_walk(g->cpu, VA + 0x345, ACC_READ, &xl), X86_OK);
	assert_int_equal(xl.gpa, 0x123345);
	assert_int_equal(xl.span, 4096);
	assert_true(xl.user && !xl.writable && xl.executable && !xl.global && !xl.dirty);
	/* A everywhere, D nowhere. */
	assert_int_equal(guest_get(g, leaf_at(), 8), 0x123000 | P | U | A);
	assert_int_equal(guest_get(g, AT_CR3 + (VA >> 39 & 511) * 8, 8), 0x5000 | P | W | U | A);
	guest_fault(g, x86_walk(g->cpu, VA, ACC_WRITE, &xl), VEC_PF, PF_P | PF_W | PF_U);
	assert_int_equal(g->cpu->exc.payload, VA);
	guest_fault(g, x86_walk(g->cpu, VA + 0x1000, ACC_FETCH, &xl), VEC_PF, PF_U | PF_I);
	guest_put(g, leaf_at(), 0x123000 | P | W | U | G | NX, 8);
	g->cpu->cr4 |= CR4_PGE;
	assert_int_equal(x86_walk(g->cpu, VA, ACC_WRITE, &xl), X86_OK);
	assert_true(xl.dirty && xl.writable && xl.global && !xl.executable);
	assert_int_equal(guest_get(g, leaf_at(), 8), 0x123000 | P | W | U | A | D | G | NX);
	guest_fault(g, x86_walk(g->cpu, VA, ACC_FETCH, &xl), VEC_PF, PF_P | PF_U | PF_I);
	g->cpu->efer &= ~EFER_NX;
	guest_fault(g, x86_walk(g->cpu, VA, ACC_READ, &xl), VEC_PF, PF_P | PF_U | PF_RSVD);
}

static void test_large_and_reserved(void **state)
{
	struct guest *g = *state;
	gpa_t pd = 0x6000 + (VA >> 21 & 511) * 8, pdpt = 0x5000 + (VA >> 30 & 511) * 8;
	gpa_t pml4 = AT_CR3 + (VA >> 39 & 511) * 8;
	struct x86_xlate xl;

	long_setup(g, 0);
	tables_4k(g, P | W, 0);
	guest_put(g, pd, 0x40200000ull | P | W | PS | 0x1000 /* PAT */, 8);
	assert_int_equal(x86_walk(g->cpu, VA, ACC_WRITE, &xl), X86_OK);
	assert_int_equal(xl.gpa, 0x40200000ull + (VA & 0x1fffff));
	assert_int_equal(xl.span, 0x200000);
	assert_int_equal(guest_get(g, pd, 8) & (A | D), A | D);
	guest_put(g, pd, 0x40200000ull | P | W | PS | 0x2000, 8);
	guest_fault(g, x86_walk(g->cpu, VA, ACC_READ, &xl), VEC_PF, PF_P | PF_RSVD);
	guest_put(g, pdpt, 0x80000000ull | P | PS, 8);
	assert_int_equal(x86_walk(g->cpu, VA, ACC_READ, &xl), X86_OK);
	assert_int_equal(xl.gpa, 0x80000000ull + (VA & 0x3fffffff));
	assert_int_equal(xl.span, 1 << 30);
	guest_put(g, pdpt, 0x80000000ull | P | PS | 0x200000, 8);
	guest_fault(g, x86_walk(g->cpu, VA, ACC_READ, &xl), VEC_PF, PF_P | PF_RSVD);
	guest_put(g, pdpt, 0x6000 | P | BIT_ULL(40), 8);
	guest_fault(g, x86_walk(g->cpu, VA, ACC_WRITE, &xl), VEC_PF, PF_P | PF_W | PF_RSVD);
	guest_put(g, pdpt, 0x6000 | P | BIT_ULL(52), 8); /* ignored in long mode */
	guest_put(g, pd, 0x40200000ull | P | PS, 8);
	assert_int_equal(x86_walk(g->cpu, VA, ACC_READ, &xl), X86_OK);
	guest_put(g, pml4, 0x5000 | P | PS, 8);
	guest_fault(g, x86_walk(g->cpu, VA, ACC_READ, &xl), VEC_PF, PF_P | PF_RSVD);
}

static void test_five_levels(void **state)
{
	struct guest *g = *state;
	struct x86_xlate xl;

	long_setup(g, 0);
	tables_4k(g, P | W, 0x7000 | P);
	guest_put(g, 0x9000 + 0x1ff * 8, AT_CR3 | P, 8);
	g->cpu->cr3 = 0x9000;
	g->cpu->cr4 |= CR4_LA57;
	assert_int_equal(x86_walk(g->cpu, VA | 0xffffull << 48, ACC_READ, &xl), X86_OK);
	assert_int_equal(xl.gpa, 0x7000);
	guest_fault(g, x86_walk(g->cpu, VA, ACC_READ, &xl), VEC_PF, 0);
}

/* Rights: a row is one situation. */
struct right {
	u64 leaf; /* with P */
	unsigned cpl;
	u64 cr0, cr4;
	bool ac;
	unsigned access;
	int error; /* -1: allowed */
};

static const struct right rights[] = {
	{ 0, 0, 0, 0, 0, ACC_READ, -1 },
	{ 0, 3, 0, 0, 0, ACC_READ, PF_P | PF_U },
	{ 0, 3, 0, 0, 0, ACC_READ | ACC_SYSTEM, -1 },
	{ 0, 0, 0, 0, 0, ACC_WRITE, -1 },
	{ 0, 0, CR0_WP, 0, 0, ACC_WRITE, PF_P | PF_W },
	{ W, 0, CR0_WP, 0, 0, ACC_WRITE, -1 },
	{ U, 3, 0, 0, 0, ACC_WRITE, PF_P | PF_W | PF_U },
	{ U | W, 3, 0, 0, 0, ACC_WRITE, -1 },
	{ W, 3, 0, 0, 0, ACC_WRITE, PF_P | PF_W | PF_U },
	{ U, 0, 0, CR4_SMEP, 0, ACC_FETCH, PF_P | PF_I },
	{ 0, 0, 0, CR4_SMEP, 0, ACC_FETCH, -1 },
	{ U, 3, 0, CR4_SMEP, 0, ACC_FETCH, -1 },
	{ U, 0, 0, CR4_SMAP, 0, ACC_READ, PF_P },
	{ U, 0, 0, CR4_SMAP, 1, ACC_READ, -1 },
	{ U, 0, 0, CR4_SMAP, 1, ACC_READ | ACC_SYSTEM, PF_P },
	{ U, 3, 0, CR4_SMAP, 1, ACC_READ | ACC_SYSTEM, PF_P },
	{ U, 3, 0, CR4_SMAP, 0, ACC_READ, -1 },
	{ U, 0, 0, CR4_SMAP, 0, ACC_FETCH, -1 },
	{ U | W, 0, CR0_WP, CR4_SMAP, 0, ACC_WRITE, PF_P | PF_W },
	{ NX, 0, 0, 0, 0, ACC_FETCH, PF_P | PF_I },
	{ NX | U, 3, 0, 0, 0, ACC_FETCH, PF_P | PF_I | PF_U },
	{ NX | U, 3, 0, 0, 0, ACC_READ, -1 },
};

static void test_rights(void **state)
{
	struct guest *g = *state;
	struct x86_xlate xl;
	unsigned i;

	for (i = 0; i < ARRAY_SIZE(rights); i++) {
		const struct right *r = &rights[i];
		enum x86_status st;

		long_setup(g, r->cpl);
		tables_4k(g, P | W | U, 0x7000 | P | r->leaf);
		g->cpu->cr0 = (g->cpu->cr0 & ~CR0_WP) | r->cr0;
		g->cpu->cr4 |= r->cr4;
		g->cpu->f.ac = r->ac;
		st = x86_walk(g->cpu, VA, r->access, &xl);
		if (r->error < 0) {
			if (st)
				print_error("row %u\n", i);
			assert_int_equal(st, X86_OK);
			continue;
		}
		if (st != X86_FAULT || g->cpu->exc.error != (u32)r->error)
			print_error("row %u\n", i);
		guest_fault(g, st, VEC_PF, (u32)r->error);
		assert_int_equal(guest_get(g, leaf_at(), 8), 0x7000 | P | r->leaf);
	}
}

static void test_narrow(void **state)
{
	struct guest *g = *state;
	const u32 va = 0xc0403456;
	gpa_t pde = AT_CR3 + (va >> 22) * 4, pte = 0x5000 + (va >> 12 & 1023) * 4;
	struct x86_xlate xl;

	guest_protected(g, 0);
	g->cpu->cr0 |= CR0_PG | CR0_WP;
	g->cpu->cr3 = AT_CR3;
	guest_put(g, pde, 0x5000 | P | W | U, 4);
	guest_put(g, pte, 0xfffff000u | P | W, 4);
	assert_int_equal(x86_walk(g->cpu, va, ACC_WRITE, &xl), X86_OK);
	assert_int_equal(xl.gpa, 0xfffff456);
	assert_true(xl.executable && !xl.user && xl.writable);
	assert_int_equal(guest_get(g, pte, 4), 0xfffff000u | P | W | A | D);
	assert_int_equal(guest_get(g, pde, 4), 0x5000 | P | W | U | A);
	/* Without PSE the bit is ignored; with it a 4 MiB page with PSE-36. */
	guest_put(g, pde, 0x5000 | P | W | PS, 4);
	assert_int_equal(x86_walk(g->cpu, va, ACC_READ, &xl), X86_OK);
	assert_int_equal(xl.span, 4096);
	g->cpu->cr4 |= CR4_PSE;
	guest_put(g, pde, 0x00c00000u | 0x2000 | P | PS, 4);
	assert_int_equal(x86_walk(g->cpu, va, ACC_READ, &xl), X86_OK);
	assert_int_equal(xl.gpa, 0x100c00000ull + (va & 0x3fffff));
	assert_int_equal(xl.span, 1 << 22);
	guest_put(g, pde, 0x00c00000u | 0x200000 | P | PS, 4);
	guest_fault(g, x86_walk(g->cpu, va, ACC_READ, &xl), VEC_PF, PF_P | PF_RSVD);
	g->cpu->phys_bits = 36;
	guest_put(g, pde, 0x00c00000u | 0x20000 | P | PS, 4);
	guest_fault(g, x86_walk(g->cpu, va, ACC_READ, &xl), VEC_PF, PF_P | PF_RSVD);
	guest_put(g, pde, 0x00c00000u | 0x10000 | P | PS, 4);
	assert_int_equal(x86_walk(g->cpu, va, ACC_READ, &xl), X86_OK);
	assert_int_equal(xl.gpa, 0x800c00000ull + (va & 0x3fffff));
	/* No I bit without NX or SMEP. */
	guest_put(g, pde, 0, 4);
	guest_fault(g, x86_walk(g->cpu, va, ACC_FETCH, &xl), VEC_PF, 0);
}

static void test_pae(void **state)
{
	struct guest *g = *state;
	const u32 va = 0xc0403456;
	gpa_t pde = 0x5000 + (va >> 21 & 511) * 8, pte = PTE + (va >> 12 & 511) * 8;
	struct x86_xlate xl;

	guest_protected(g, 3);
	g->cpu->cr0 |= CR0_PG;
	g->cpu->cr4 = CR4_PAE;
	guest_fault(g, x86_walk(g->cpu, va, ACC_READ, &xl), VEC_PF, PF_U);
	g->cpu->pdptr[3] = 0x5000 | P;
	guest_put(g, pde, PTE | P | W | U, 8);
	guest_put(g, pte, 0x1234567000ull | P | W | U, 8);
	assert_int_equal(x86_walk(g->cpu, va, ACC_WRITE, &xl), X86_OK);
	assert_int_equal(xl.gpa, 0x1234567456ull);
	guest_put(g, pte, 0x7000 | P | U | BIT_ULL(52), 8);
	guest_fault(g, x86_walk(g->cpu, va, ACC_READ, &xl), VEC_PF, PF_P | PF_U | PF_RSVD);
	g->cpu->efer |= EFER_NX;
	guest_put(g, pte, 0x7000 | P | U | NX, 8);
	guest_fault(g, x86_walk(g->cpu, va, ACC_FETCH, &xl), VEC_PF, PF_P | PF_U | PF_I);
	guest_put(g, pde, 0x200000 | P | U | PS, 8);
	assert_int_equal(x86_walk(g->cpu, va, ACC_READ, &xl), X86_OK);
	assert_int_equal(xl.gpa, 0x200000 + (va & 0x1fffff));
}

/* Tables outside RAM and in ROM, on pages with code, and looked at by a debugger. */
static void test_odd_tables(void **state)
{
	struct guest *g = *state;
	struct slot *s = mem_slot_find(g->mem, 0, 0, NULL);
	struct x86_xlate xl;

	long_setup(g, 0);
	tables_4k(g, P | W, 0x7000 | P | W);
	g->cpu->cr3 = GUEST_HOLE;
	guest_fault(g, x86_walk(g->cpu, VA, ACC_READ, &xl), VEC_PF, 0);
	g->cpu->cr3 = AT_CR3;
	assert_true(x86_walk_debug(g->cpu, VA + 5, &xl));
	assert_int_equal(xl.gpa, 0x7005);
	assert_false(x86_walk_debug(g->cpu, VA + 0x1000, &xl));
	assert_int_equal(guest_get(g, leaf_at(), 8), 0x7000 | P | W);

	page_code_get(s, PTE >> 12);
	assert_int_equal(x86_walk(g->cpu, VA, ACC_WRITE, &xl), X86_OK);
	assert_int_equal(g->written, 1);
	assert_int_equal(g->written_gpa, leaf_at());
	assert_int_equal(g->written_seen, 0x7000 | P | W); /* told before the store */
	assert_int_equal(guest_get(g, leaf_at(), 8), 0x7000 | P | W | A | D);

	memcpy(g->rom, g->ram + AT_CR3, 0x1000);
	g->cpu->cr3 = GUEST_ROM;
	*(u64 *)(g->rom + (VA >> 39 & 511) * 8) &= ~(u64)A;
	assert_int_equal(x86_walk(g->cpu, VA, ACC_READ, &xl), X86_OK);
	assert_int_equal(*(u64 *)(g->rom + (VA >> 39 & 511) * 8) & A, 0);
}

static void test_host(void **state)
{
	struct guest *g = *state;
	struct slot *s = mem_slot_find(g->mem, 0, 0, NULL);
	void *host;
	bool tag;

	guest_protected(g, 0);
	assert_int_equal(x86_host(g->cpu, 0x5ff8, 8, ACC_WRITE, &host, &tag, NULL), X86_OK);
	assert_ptr_equal(host, g->ram + 0x5ff8);
	assert_true(tag);
	assert_int_equal(x86_host(g->cpu, 0x5ff9, 8, ACC_READ, &host, &tag, NULL), X86_OK);
	assert_null(host);
	assert_int_equal(x86_host(g->cpu, GUEST_HOLE, 8, ACC_READ, &host, &tag, NULL), X86_OK);
	assert_null(host);
	assert_int_equal(x86_host(g->cpu, GUEST_ROM, 8, ACC_READ, &host, &tag, NULL), X86_OK);
	assert_ptr_equal(host, g->rom);
	assert_int_equal(x86_host(g->cpu, GUEST_ROM, 8, ACC_WRITE, &host, &tag, NULL), X86_OK);
	assert_null(host);
	page_code_get(s, 5);
	assert_int_equal(x86_host(g->cpu, 0x5000, 4, ACC_READ, &host, &tag, NULL), X86_OK);
	assert_true(host && tag);
	assert_int_equal(g->written, 0);
	assert_int_equal(x86_host(g->cpu, 0x5004, 4, ACC_WRITE, &host, &tag, NULL), X86_OK);
	assert_true(host && !tag);
	assert_int_equal(g->written, 1);
	assert_int_equal(g->written_gpa, 0x5004);
	guest_put(g, 0x5008, 0, 8);
	assert_int_equal(x86_write(g->cpu, 0x5008, "abcdefgh", 8, 0), X86_OK);
	assert_int_equal(g->written, 2);
	assert_int_equal(g->written_seen, 0);
}

static void test_crossing(void **state)
{
	struct guest *g = *state;
	gva_t last = VA + 0x1000 - 4;
	u8 buf[8];

	long_setup(g, 3);
	tables_4k(g, P | W | U, 0x100000 | P | W | U);
	memset(g->ram + 0x100ffc, 'x', 4);
	guest_fault(g, x86_write(g->cpu, last, "12345678", 8, 0), VEC_PF, PF_W | PF_U);
	assert_int_equal(g->cpu->exc.payload, VA + 0x1000);
	assert_memory_equal(g->ram + 0x100ffc, "xxxx", 4);
	guest_put(g, leaf_at() + 8, 0x180000 | P | W | U, 8);
	assert_int_equal(x86_write(g->cpu, last, "12345678", 8, 0), X86_OK);
	assert_memory_equal(g->ram + 0x100ffc, "1234", 4);
	assert_memory_equal(g->ram + 0x180000, "5678", 4);
	assert_int_equal(x86_read(g->cpu, last, buf, 8, 0), X86_OK);
	assert_memory_equal(buf, "12345678", 8);
	/* Alignment checks at CPL 3. */
	g->cpu->cr0 |= CR0_AM;
	g->cpu->f.ac = 1;
	x86_mode_update(g->cpu);
	guest_fault(g, x86_read(g->cpu, VA + 2, buf, 4, 0), VEC_AC, 0);
	assert_int_equal(x86_read(g->cpu, VA + 4, buf, 4, 0), X86_OK);
	assert_int_equal(x86_read(g->cpu, VA + 2, buf, 4, ACC_SYSTEM), X86_OK);
}

static unsigned asked;

static int device(void *owner, gpa_t gpa, void *data, unsigned size, bool is_write)
{
	(void)owner;
	if (gpa - GUEST_HOLE >= 0x1000)
		return 1;
	asked++;
	if (!is_write)
		memset(data, 0x40 + asked, size);
	return 0;
}

static const struct x86_platform platform = { .mmio = device };

/* An operand of which one part is answered here and two parts by user space. */
static void test_replay(void **state)
{
	struct guest *g = *state;
	struct x86_cpu *cpu = g->cpu;
	gva_t at = GUEST_HOLE + 0x1000 - 4;
	u8 buf[16];

	guest_protected(g, 0);
	cpu->platform = &platform;
	assert_int_equal(x86_read(cpu, at, buf, 16, 0), X86_FULL);
	cpu->full = true;
	asked = 0;
	x86_replay_restart(cpu);
	assert_int_equal(x86_read(cpu, at, buf, 16, 0), X86_EXIT);
	assert_int_equal(asked, 1);
	assert_int_equal(cpu->exit.reason, X86_EXIT_MMIO);
	assert_int_equal(cpu->exit.gpa, GUEST_HOLE + 0x1000);
	assert_int_equal(cpu->exit.size, 8);
	assert_false(cpu->exit.is_write);
	memcpy(cpu->exit.data, "ABCDEFGH", 8);
	x86_replay_restart(cpu);
	assert_int_equal(x86_read(cpu, at, buf, 16, 0), X86_EXIT);
	assert_int_equal(cpu->exit.gpa, GUEST_HOLE + 0x1008);
	assert_int_equal(cpu->exit.size, 4);
	memcpy(cpu->exit.data, "IJKL", 4);
	x86_replay_restart(cpu);
	assert_int_equal(x86_read(cpu, at, buf, 16, 0), X86_OK);
	assert_int_equal(asked, 1);
	assert_memory_equal(buf, "AAAAABCDEFGHIJKL", 16);
	/* ... and then written: the reads are still remembered. */
	assert_int_equal(x86_write(cpu, GUEST_HOLE + 0x2000, "wxyz", 4, 0), X86_EXIT);
	assert_true(cpu->exit.is_write);
	assert_memory_equal(cpu->exit.data, "wxyz", 4);
	x86_replay_restart(cpu);
	memset(buf, 0, sizeof(buf));
	assert_int_equal(x86_read(cpu, at, buf, 16, 0), X86_OK);
	assert_memory_equal(buf, "AAAAABCDEFGHIJKL", 16);
	assert_int_equal(x86_write(cpu, GUEST_HOLE + 0x2000, "wxyz", 4, 0), X86_OK);
	assert_int_equal(asked, 1);
	x86_replay_forget(cpu);
	assert_int_equal(x86_write(cpu, GUEST_ROM, "wxyz", 4, 0), X86_EXIT);
	x86_replay_forget(cpu);
	/* RAM is not touched while the device half of an operand is not done. */
	assert_int_equal(x86_write(cpu, GUEST_RAM - 4, "12345678", 8, 0), X86_EXIT);
	assert_int_equal(guest_get(g, GUEST_RAM - 4, 4), 0);
	x86_replay_restart(cpu);
	assert_int_equal(x86_write(cpu, GUEST_RAM - 4, "12345678", 8, 0), X86_OK);
	assert_memory_equal(g->ram + GUEST_RAM - 4, "1234", 4);
}

static void test_replay_limit(void **state)
{
	struct guest *g = *state;
	struct x86_cpu *cpu = g->cpu;
	static u8 buf[4096];
	unsigned i;

	guest_protected(g, 0);
	cpu->full = true;
	for (i = 0; i < X86_REPLAY_MAX; i++) {
		x86_replay_restart(cpu);
		assert_int_equal(x86_read(cpu, GUEST_HOLE, buf, 4096, 0), X86_EXIT);
		assert_int_equal(cpu->exit.reason, X86_EXIT_MMIO);
	}
	x86_replay_restart(cpu);
	assert_int_equal(x86_read(cpu, GUEST_HOLE, buf, 4096, 0), X86_EXIT);
	assert_int_equal(cpu->exit.reason, X86_EXIT_INTERNAL);
}

static void test_port(void **state)
{
	struct guest *g = *state;
	u32 v = 0;

	assert_int_equal(x86_io(g->cpu, 0x60, &v, 1, false), X86_FULL);
	g->cpu->full = true;
	assert_int_equal(x86_io(g->cpu, 0x60, &v, 1, false), X86_EXIT);
	assert_int_equal(g->cpu->exit.reason, X86_EXIT_IO);
	assert_int_equal(g->cpu->exit.port, 0x60);
	assert_int_equal(g->cpu->exit.count, 1);
	g->cpu->exit.data[0] = 0x5a;
	x86_replay_restart(g->cpu);
	assert_int_equal(x86_io(g->cpu, 0x60, &v, 1, false), X86_OK);
	assert_int_equal(v, 0x5a);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		guest_test(test_long),	       guest_test(test_large_and_reserved),
		guest_test(test_five_levels),  guest_test(test_rights),
		guest_test(test_narrow),       guest_test(test_pae),
		guest_test(test_odd_tables),   guest_test(test_host),
		guest_test(test_crossing),     guest_test(test_replay),
		guest_test(test_replay_limit), guest_test(test_port),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The guest's page tables: 32-bit, PAE, four and five levels, walked with the architecture's checks. */
#include "cpu/x86/access.h"
#include "cpu/x86/raise.h"

#define PTE_P  BIT_ULL(0)
#define PTE_W  BIT_ULL(1)
#define PTE_U  BIT_ULL(2)
#define PTE_A  BIT_ULL(5)
#define PTE_D  BIT_ULL(6)
#define PTE_PS BIT_ULL(7)
#define PTE_G  BIT_ULL(8)
#define PTE_NX BIT_ULL(63)

#define PTE_ADDR 0x000ffffffffff000ull
#define PAE_RSVD 0x7ff0000000000000ull /* bits 62:52 are ignored in long mode only */

#define WALK_MAX 5

/*
 * Result of reading the tables, before any permission is looked at. Rights are the AND of all
 * entries; NX is inverted on the way, so that bit 63 says "executable".
 */
struct walk {
	u64 rights;
	unsigned shift; /* log2 of the page's size */
	unsigned n;	/* entries read */
	bool narrow;	/* entries have 4 bytes */
	gpa_t base;	/* of the page */
	gpa_t at[WALK_MAX];
	u64 seen[WALK_MAX];
};

/* Outcome of a step: WALK_OK, or a #PF error code with WALK_FAULT added. */
#define WALK_OK	   0u
#define WALK_FAULT BIT(31)

/*
 * The host address of a table entry; NULL (taken for "not present", as KVM does) where there is no RAM.
 * @in is the slot of the level above: nearly always the same.
 */
static inline void *entry_host(struct x86_cpu *cpu, gpa_t gpa, struct slot **in)
{
	gfn_t gfn = gpa >> PAGE_SHIFT;

	if (unlikely(!*in || !slot_has(*in, gfn))) {
		*in = x86_slot(cpu, gfn);
		if (unlikely(!*in))
			return NULL;
	}
	return slot_hva(*in, gpa);
}

/* Levels with 8-byte entries from @shift downwards; @table holds the address of the first. */
static inline u32 walk_wide(struct x86_cpu *cpu, gva_t lin, u64 table, unsigned shift, u64 rsvd,
			    struct walk *w)
{
	struct slot *slot = NULL;

	rsvd |= (~0ull << (cpu->phys_bits & 63)) & PTE_ADDR;
	if (!(cpu->efer & EFER_NX))
		rsvd |= PTE_NX;

	for (;; shift -= 9) {
		gpa_t at = (table & PTE_ADDR) | (lin >> shift & 511) << 3;
		const volatile u64 *host = entry_host(cpu, at, &slot);
		u64 e;

		if (unlikely(!host))
			return WALK_FAULT;
		e = *host;
		w->at[w->n] = at;
		w->seen[w->n++] = e;
		if (unlikely(!(e & PTE_P)))
			return WALK_FAULT;
		if (unlikely(e & rsvd))
			return WALK_FAULT | PF_P | PF_RSVD;
		w->rights &= e ^ PTE_NX;
		table = e;
		if (shift == 12)
			break;
		if (e & PTE_PS) {
			/* Bit 7 is reserved above 1 GiB; below, the address bits under the page size but PAT. */
			if (shift > 30 || (e & (BIT_ULL(shift) - 1) & ~0x1fffull))
				return WALK_FAULT | PF_P | PF_RSVD;
			break;
		}
	}
	w->shift = shift;
	w->base = table & PTE_ADDR & ~(BIT_ULL(shift) - 1);
	return WALK_OK;
}

static u32 walk_pae(struct x86_cpu *cpu, gva_t lin, struct walk *w)
{
	u64 pdpte = cpu->pdptr[(u32)lin >> 30];

	if (!(pdpte & PTE_P))
		return WALK_FAULT;
	return walk_wide(cpu, (u32)lin, pdpte, 21, PAE_RSVD, w);
}

/* A 4 MiB page: PSE-36 keeps address bits 39:32 in bits 20:13. */
static u32 walk_large32(const struct x86_cpu *cpu, u32 e, struct walk *w)
{
	unsigned bits = cpu->phys_bits < 40 ? cpu->phys_bits : 40;
	u32 rsvd = bits > 32 ? (u32)((BIT_ULL(22) - 1) & (~0ull << (bits - 19))) : 0x3fe000u;

	if (e & rsvd)
		return WALK_FAULT | PF_P | PF_RSVD;
	w->shift = 22;
	w->base = (e & 0xffc00000u) | (u64)(e >> 13 & 0xff) << 32;
	return WALK_OK;
}

static u32 walk_narrow(struct x86_cpu *cpu, u32 lin, struct walk *w)
{
	u32 table = (u32)cpu->cr3;
	struct slot *slot = NULL;
	unsigned shift;

	w->narrow = true;
	for (shift = 22;; shift -= 10) {
		gpa_t at = (table & 0xfffff000u) | (lin >> shift & 1023) << 2;
		const volatile u32 *host = entry_host(cpu, at, &slot);
		u32 e;

		if (unlikely(!host))
			return WALK_FAULT;
		e = *host;
		w->at[w->n] = at;
		w->seen[w->n++] = e;
		if (unlikely(!(e & PTE_P)))
			return WALK_FAULT;
		w->rights &= e | PTE_NX;
		if (shift == 12) {
			w->shift = 12;
			w->base = e & 0xfffff000u;
			return WALK_OK;
		}
		if ((e & PTE_PS) && (cpu->cr4 & CR4_PSE))
			return walk_large32(cpu, e, w);
		table = e;
	}
}

static inline u32 walk_tables(struct x86_cpu *cpu, gva_t lin, struct walk *w)
{
	w->rights = ~0ull;
	w->n = 0;
	w->narrow = false;
	if (likely(cpu->efer & EFER_LMA))
		return walk_wide(cpu, lin, cpu->cr3, unlikely(cpu->cr4 & CR4_LA57) ? 48 : 39, 0, w);
	return cpu->cr4 & CR4_PAE ? walk_pae(cpu, lin, w) : walk_narrow(cpu, (u32)lin, w);
}

static inline bool access_is_user(const struct x86_cpu *cpu, unsigned access)
{
	return cpu->cpl == 3 && !(access & ACC_SYSTEM);
}

/* SDM "Determination of Access Rights": whether the combined rights deny this access. */
static inline bool access_denied(const struct x86_cpu *cpu, u64 rights, unsigned access)
{
	if ((access & ACC_FETCH) && !(rights & PTE_NX))
		return true;
	if (access_is_user(cpu, access)) {
		if (!(rights & PTE_U))
			return true;
		return (access & ACC_WRITE) && !(rights & PTE_W);
	}
	if ((access & ACC_WRITE) && !(rights & PTE_W) && (cpu->cr0 & CR0_WP))
		return true;
	if (!(rights & PTE_U))
		return false;
	if (access & ACC_FETCH)
		return cpu->cr4 & CR4_SMEP;
	return (cpu->cr4 & CR4_SMAP) && (!cpu->f.ac || (access & ACC_SYSTEM));
}

static enum x86_status walk_fault(struct x86_cpu *cpu, gva_t lin, unsigned access, u32 code)
{
	bool nx = (cpu->efer & EFER_NX) && (cpu->cr4 & CR4_PAE);

	code &= ~WALK_FAULT;
	if (access & ACC_WRITE)
		code |= PF_W;
	if (access_is_user(cpu, access))
		code |= PF_U;
	if ((access & ACC_FETCH) && (nx || (cpu->cr4 & CR4_SMEP)))
		code |= PF_I;
	return x86_raise_pf(cpu, code, lin);
}

static bool entry_exchange(void *host, bool narrow, u64 old, u64 new)
{
	u32 old32 = (u32)old;

	if (narrow)
		return __atomic_compare_exchange_n((u32 *)host, &old32, (u32) new, false,
						   __ATOMIC_SEQ_CST, __ATOMIC_RELAXED);
	return __atomic_compare_exchange_n((u64 *)host, &old, new, false, __ATOMIC_SEQ_CST,
					   __ATOMIC_RELAXED);
}

/* Set A (and D in the leaf) in what was seen. False: an entry changed meanwhile, walk again. */
static __attribute__((noinline)) bool walk_mark(struct x86_cpu *cpu, struct walk *w, bool dirty)
{
	unsigned i;

	for (i = 0; i < w->n; i++) {
		u64 set = w->seen[i] | PTE_A | (dirty && i == w->n - 1 ? PTE_D : 0);
		gfn_t gfn = w->at[i] >> PAGE_SHIFT;
		struct slot *s;

		if (set == w->seen[i])
			continue;
		s = x86_slot(cpu, gfn);
		/* Tables in ROM work, without A and D: KVM skips the update too. */
		if (!s || slot_is_readonly(s))
			continue;
		if (!page_grant_write(cpu->writer, s, gfn) && page_has_code(s, gfn) &&
		    cpu->code_written)
			cpu->code_written(cpu->engine, s, w->at[i], w->narrow ? 4 : 8);
		if (!entry_exchange(slot_hva(s, w->at[i]), w->narrow, w->seen[i], set))
			return false;
		w->seen[i] = set;
	}
	return true;
}

static inline void xlate_fill(const struct x86_cpu *cpu, const struct walk *w, gva_t lin,
			      struct x86_xlate *out)
{
	u64 leaf = w->seen[w->n - 1];

	out->span = BIT_ULL(w->shift);
	out->gpa = w->base | (lin & (out->span - 1));
	out->user = w->rights & PTE_U;
	out->writable = w->rights & PTE_W;
	out->executable = w->rights & PTE_NX;
	out->global = (leaf & PTE_G) && (cpu->cr4 & CR4_PGE);
	out->dirty = leaf & PTE_D;
}

static inline void xlate_identity(gva_t lin, struct x86_xlate *out)
{
	*out = (struct x86_xlate){
		.gpa = (u32)lin,
		.span = PAGE_SIZE,
		.user = true,
		.writable = true,
		.executable = true,
		.dirty = true,
	};
}

enum x86_status x86_walk(struct x86_cpu *cpu, gva_t lin, unsigned access, struct x86_xlate *out)
{
	struct walk w;
	u32 code;

	if (unlikely(!(cpu->cr0 & CR0_PG))) {
		xlate_identity(lin, out);
		return X86_OK;
	}
	for (;;) {
		u64 leaf;

		code = walk_tables(cpu, lin, &w);
		if (unlikely(code))
			return walk_fault(cpu, lin, access, code);
		if (unlikely(access_denied(cpu, w.rights, access)))
			return walk_fault(cpu, lin, access, PF_P);
		leaf = w.seen[w.n - 1];
		if (likely((w.rights & PTE_A) && (!(access & ACC_WRITE) || (leaf & PTE_D))))
			break;
		if (walk_mark(cpu, &w, access & ACC_WRITE))
			break;
	}
	xlate_fill(cpu, &w, lin, out);
	return X86_OK;
}

bool x86_walk_debug(struct x86_cpu *cpu, gva_t lin, struct x86_xlate *out)
{
	struct walk w;

	if (!(cpu->cr0 & CR0_PG)) {
		xlate_identity(lin, out);
		return true;
	}
	if (walk_tables(cpu, lin, &w))
		return false;
	xlate_fill(cpu, &w, lin, out);
	return true;
}

/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The soft TLB, the execute tags and the branch cache of one vCPU: filled and flushed by its own thread only. */
#include "base/bulk.h"
#include "engine/vcpu.h"

static unsigned tlb_index(gva_t lin)
{
	return (lin >> PAGE_SHIFT) & (TLB_SIZE - 1);
}

static enum tlb_context context_of(const struct x86_cpu *cpu)
{
	if (cpu->cpl == 3)
		return TLB_USER;
	return cpu->f.ac || !(cpu->cr4 & CR4_SMAP) ? TLB_KERNEL_AC : TLB_KERNEL;
}

static void ibtc_empty(struct ibtc *t)
{
	for (u32 k = 0; k < t->nfilled; k++)
		t->e[t->filled[k]] = (struct ibtc_entry){ ibtc_no_rip(t->filled[k]), 0 };
	t->nfilled = 0;
}

static struct ibtc *ibtc_of(struct engine_vcpu *v, u32 mode)
{
	struct ibtc *t = v->ibtcs;

	while (t < v->ibtcs + IBTC_MODES && t->used && t->mode != mode)
		t++;
	if (t == v->ibtcs + IBTC_MODES)
		return NULL;
	if (!t->used) {
		for (unsigned i = 0; i < IBTC_SIZE; i++)
			t->e[i] = (struct ibtc_entry){ ibtc_no_rip(i), 0 };
		t->used = true;
		t->mode = mode;
	}
	return t;
}

void tlb_select(struct engine_vcpu *v)
{
	u32 mode = engine_mode_key(v);

	const struct x86_cpu *cpu = &v->cpu;
	const struct x86_vflags *f = &cpu->f;

	v->tlb = v->context[context_of(cpu)]->e;
	v->tlb_ac = v->context[TLB_KERNEL_AC]->e;
	v->tlb_no_ac = v->context[cpu->cr4 & CR4_SMAP ? TLB_KERNEL : TLB_KERNEL_AC]->e;
	v->rare_flags = 2 | f->tf << 8 | f->df << 10 | f->iopl << 12 | f->nt << 14 | f->vif << 19 | f->vip << 20 | f->id << 21;
	if (mode != v->mode_seen || !v->ibtc) {
		v->ibtc = ibtc_of(v, mode);
		v->mode_seen = mode;
	}
}

void rc_flush(struct engine_vcpu *v)
{
	bulk_zero(v->rc[0].limit, sizeof(v->rc[0].limit));
	bulk_zero(v->rc[1].limit, sizeof(v->rc[1].limit));
}

/* Sizes of guest pages by code. */
static const u64 spans[4] = { PAGE_SIZE, 2ull << 20, 4ull << 20, 1ull << 30 };

static u64 span_bits(u64 span)
{
	for (u64 i = 1; i < ARRAY_SIZE(spans); i++)
		if (spans[i] == span)
			return TLB_LARGE | i << TLB_SPAN_SHIFT;
	return 0;
}

void tlb_fill(struct engine_vcpu *v, gva_t lin, u8 *host, bool write, const struct x86_xlate *xl, u64 range)
{
	struct tlb *t = container_of(v->tlb, struct tlb, e[0]);
	unsigned i = tlb_index(lin);
	struct tlb_entry *e = &t->e[i];
	gva_t page = lin & PAGE_MASK, lo = lin & ~(xl->span - 1);
	u8 *host_page = (u8 *)((u64)host & PAGE_MASK);

	v->stats.tlb_fills++;
	if (!(e->info & TLB_LISTED))
		t->filled[t->nfilled++] = i;
	if (e->page != (u64)host_page || e->tag_r != page)
		e->tag_w = tlb_no_tag(i);
	/* Every writable page is readable; the walk for a write has checked both. */
	e->tag_r = page;
	if (write)
		e->tag_w = page;
	e->page = (u64)host_page;
	e->info = range | TLB_LISTED | (xl->global ? TLB_GLOBAL : 0) | (xl->user ? TLB_USER_PAGE : 0) |
		  span_bits(xl->span);
	if (e->info & TLB_LARGE) {
		if (lo < t->large_lo)
			t->large_lo = lo;
		if (lo + xl->span - 1 > t->large_hi)
			t->large_hi = lo + xl->span - 1;
	}
}

static void context_flush(struct tlb *t, bool global_too)
{
	u32 kept = 0;

	for (u32 k = 0; k < t->nfilled; k++) {
		struct tlb_entry *e = &t->e[t->filled[k]];

		if (!global_too && e->info & TLB_GLOBAL) {
			t->filled[kept++] = t->filled[k];
			continue;
		}
		e->tag_r = e->tag_w = tlb_no_tag(t->filled[k]);
		e->info = 0;
	}
	t->nfilled = kept;
	if (!kept) {
		t->large_lo = ~0ull;
		t->large_hi = 0;
	}
}

/* All 4 KiB fragments of the large page that @lin lies in. */
static void large_flush(struct tlb *t, gva_t lin)
{
	for (u32 k = 0; k < t->nfilled; k++) {
		struct tlb_entry *e = &t->e[t->filled[k]];
		u64 span = spans[e->info >> TLB_SPAN_SHIFT & 3];
		gva_t page = e->tag_r;

		if (e->info & TLB_LARGE && ((page ^ lin) & ~(span - 1)) == 0)
			e->tag_r = e->tag_w = tlb_no_tag(t->filled[k]);
	}
}

static void page_flush(struct engine_vcpu *v, gva_t lin)
{
	gva_t page = lin & PAGE_MASK;

	for (unsigned c = 0; c < TLB_CONTEXTS; c++) {
		struct tlb *t = v->context[c];
		struct tlb_entry *e = &t->e[tlb_index(lin)];

		if (e->tag_r == page)
			e->tag_r = e->tag_w = tlb_no_tag(tlb_index(lin));
		if (lin >= t->large_lo && lin <= t->large_hi)
			large_flush(t, lin);
	}
}

void ibtc_flush(struct engine_vcpu *v)
{
	for (unsigned i = 0; i < IBTC_MODES; i++)
		ibtc_empty(&v->ibtcs[i]);
}

void itlb_flush(struct engine_vcpu *v, bool global_too)
{
	for (unsigned i = 0; i < ITLB_SIZE; i++)
		if (global_too || !v->itlb[i].global)
			v->itlb[i].tag = ITLB_NO_TAG;
	ibtc_flush(v);
}

void tlb_flush_all(struct engine_vcpu *v)
{
	v->stats.tlb_flushes++;
	rc_flush(v);
	for (unsigned c = 0; c < TLB_CONTEXTS; c++)
		context_flush(v->context[c], true);
	itlb_flush(v, true);
}

/* Entries of the branch cache in the gigabyte around @lin: the size of the page that goes is not known. */
static void ibtc_drop(struct engine_vcpu *v, gva_t lin)
{
	for (unsigned i = 0; i < IBTC_MODES; i++) {
		struct ibtc *t = &v->ibtcs[i];

		for (u32 k = 0; k < t->nfilled; k++) {
			struct ibtc_entry *e = &t->e[t->filled[k]];

			if ((e->rip ^ lin) >> 30 == 0)
				e->rip = ibtc_no_rip(t->filled[k]);
		}
	}
}

/* The execute tags of one page, and of the large page that it may be a part of. */
static void fetch_page_flush(struct engine_vcpu *v, gva_t lin)
{
	for (unsigned i = 0; i < ITLB_SIZE; i++) {
		struct itlb_entry *e = &v->itlb[i];

		if (e->tag != ITLB_NO_TAG && ((e->tag ^ lin) & ~(e->span - 1) & PAGE_MASK) == 0)
			e->tag = ITLB_NO_TAG;
	}
	ibtc_drop(v, lin);
}

void tlb_flush(struct engine_vcpu *v)
{
	struct x86_flush *f = &v->cpu.flush;

	if (f->all || f->npages > X86_FLUSH_PAGES) {
		tlb_flush_all(v);
	} else {
		rc_flush(v);
		if (f->nonglobal) {
			v->stats.tlb_flushes++;
			for (unsigned c = 0; c < TLB_CONTEXTS; c++)
				context_flush(v->context[c], false);
			itlb_flush(v, false);
		}
		for (unsigned i = 0; i < f->npages; i++) {
			page_flush(v, f->page[i]);
			fetch_page_flush(v, f->page[i]);
		}
	}
	f->all = f->nonglobal = false;
	f->npages = 0;
}

void tlb_drop_all_writes(struct engine_vcpu *v)
{
	rc_flush(v);
	for (unsigned c = 0; c < TLB_CONTEXTS; c++) {
		struct tlb *t = v->context[c];

		for (u32 k = 0; k < t->nfilled; k++)
			t->e[t->filled[k]].tag_w = tlb_no_tag(t->filled[k]);
	}
}

void tlb_drop_write(struct engine_vcpu *v, const u8 *host_page)
{
	rc_flush(v);
	for (unsigned c = 0; c < TLB_CONTEXTS; c++) {
		struct tlb *t = v->context[c];

		for (u32 k = 0; k < t->nfilled; k++)
			if (t->e[t->filled[k]].page == (u64)host_page)
				t->e[t->filled[k]].tag_w = tlb_no_tag(t->filled[k]);
	}
}

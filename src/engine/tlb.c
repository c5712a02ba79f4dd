/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The soft TLB, the execute tags and the branch cache of one vCPU: filled and flushed by its own thread only. */
#include "base/bulk.h"
#include "engine/vcpu.h"
#include "mem/dirty.h"

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
	t->has_nonglobal = false;
	t->lo = ~0ull;
	t->hi = 0;
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
		t->user = (mode & MODE_CPL) == 3;
		ibtc_empty(t);
	}
	return t;
}

void tlb_select(struct engine_vcpu *v)
{
	const struct x86_cpu *cpu = &v->cpu;
	const struct x86_vflags *f = &cpu->f;
	struct tlb **context = v->spaces[v->now].context;
	u32 mode = engine_mode_key(v);

	v->tlb = context[context_of(cpu)]->e;
	v->tlb_ac = context[TLB_KERNEL_AC]->e;
	v->tlb_no_ac = context[cpu->cr4 & CR4_SMAP ? TLB_KERNEL : TLB_KERNEL_AC]->e;
	v->salt_now = cpu->cpl == 3 ? v->ibtc_salt : 0;
	v->rare_flags = 2 | f->tf << 8 | f->df << 10 | f->iopl << 12 | f->nt << 14 | f->vif << 19 |
			f->vip << 20 | f->id << 21;
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

void tlb_fill(struct engine_vcpu *v, gva_t lin, u8 *host, bool write, const struct x86_xlate *xl,
	      u64 range)
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
	e->info = range | TLB_LISTED | (xl->global ? TLB_GLOBAL : 0) |
		  (xl->user ? TLB_USER_PAGE : 0) | span_bits(xl->span);
	if (xl->global)
		lin_range_add(&v->global_range, lo, lo + xl->span - 1);
	if (e->info & TLB_LARGE) {
		if (lo < t->large_lo)
			t->large_lo = lo;
		if (lo + xl->span - 1 > t->large_hi)
			t->large_hi = lo + xl->span - 1;
	}
}

static struct beside *beside_of(const struct engine_vcpu *v, u64 host_page)
{
	return (struct beside *)&v->beside[host_page >> PAGE_SHIFT & (BESIDE_SIZE - 1)];
}

void tlb_fill_beside(struct engine_vcpu *v, gva_t lin, u8 *host, const struct x86_xlate *xl,
		     u64 range, struct code_page *code)
{
	u64 page = (u64)host & PAGE_MASK;

	tlb_fill(v, lin, host, false, xl, range);
	v->tlb[tlb_index(lin)].info |= TLB_BESIDE;
	*beside_of(v, page) = (struct beside){ page, code };
}

/* The largest aligned range around offset @off of the page whose chunks are free. */
static unsigned free_range(u64 map, unsigned off)
{
	unsigned n = 1, first = off >> CHUNK_SHIFT;

	while (n < CHUNKS / 2 && !(map >> (first & ~(2 * n - 1)) & (BIT_ULL(2 * n) - 1)))
		n *= 2;
	return n << CHUNK_SHIFT;
}

static void range_fill(struct engine_vcpu *v, const struct x86_insn *insn, gva_t lin,
		       const struct tlb_entry *e, struct code_page *code)
{
	unsigned i = (insn->range - 1) % RC_SIZE, table = (insn->range - 1) / RC_SIZE,
		 range = free_range(code->map, lin & (PAGE_SIZE - 1));
	struct regcache *rc = &v->rc[table];

	if (range <= rc_room(i) || (!table && e->info & TLB_USER_PAGE))
		return;
	rc->tag[i] = lin & ~(u64)(range - 1);
	rc->delta[i] = e->page - e->tag_r;
	rc->host[i] = rc->tag[i] + rc->delta[i];
	rc->limit[i] = range - rc_room(i);
	code->ranged = true;
}

u8 *tlb_beside(struct engine_vcpu *v, const struct x86_insn *insn, gva_t lin)
{
	const struct tlb_entry *e = &v->tlb[tlb_index(lin)];
	const struct beside *b = beside_of(v, e->page);
	unsigned off = lin & (PAGE_SIZE - 1), from = insn->reach ? off - insn->window : off,
		 size = insn->reach ? insn->reach : insn->memsize;

	if (e->tag_r != (lin & PAGE_MASK) || !(e->info & TLB_BESIDE) || b->page != e->page ||
	    from + size > PAGE_SIZE)
		return NULL;
	/* A page without live code is to be forgotten: those stores are counted. */
	if (!b->code->live || cache_has_code(b->code, from, size))
		return NULL;
	if (++b->code->quiet > BESIDE_QUIET && insn->range)
		range_fill(v, insn, lin, e, b->code);
	return (u8 *)e->page + off;
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

		if (e->info & TLB_LARGE && ((e->tag_r ^ lin) & ~(span - 1)) == 0)
			e->tag_r = e->tag_w = tlb_no_tag(t->filled[k]);
	}
}

static void page_flush(struct tlb *t, gva_t lin)
{
	struct tlb_entry *e = &t->e[tlb_index(lin)];

	if (e->tag_r == (lin & PAGE_MASK))
		e->tag_r = e->tag_w = tlb_no_tag(tlb_index(lin));
	if (lin >= t->large_lo && lin <= t->large_hi)
		large_flush(t, lin);
}

void ibtc_flush(struct engine_vcpu *v)
{
	for (unsigned i = 0; i < IBTC_MODES; i++)
		ibtc_empty(&v->ibtcs[i]);
}

/* User entries of one space; supervisor entries unless all of them come from global pages. */
static void ibtc_flush_space(struct engine_vcpu *v, unsigned space)
{
	for (unsigned i = 0; i < IBTC_MODES; i++) {
		struct ibtc *t = &v->ibtcs[i];

		if (!t->user && t->has_nonglobal)
			ibtc_empty(t);
		for (u32 k = 0; t->user && k < t->nfilled; k++) {
			struct ibtc_entry *e = &t->e[t->filled[k]];

			if ((ibtc_index(e->rip, 0) ^ t->filled[k]) >> IBTC_SALT_SHIFT == space)
				e->rip = ibtc_no_rip(t->filled[k]);
		}
	}
}

/* Entries of the branch cache around @lin: the size of the page that goes is not known, but none was larger than .exec_span. */
static void ibtc_drop(struct engine_vcpu *v, gva_t lin)
{
	const u64 outside = ~(v->exec_span - 1);

	if ((lin & outside) >= (v->cache.cross_lo & outside) &&
	    lin <= (v->cache.cross_hi | ~outside))
		cache_cross_undo(&v->cache);
	for (unsigned i = 0; i < IBTC_MODES; i++) {
		struct ibtc *t = &v->ibtcs[i];

		if ((lin & outside) < (t->lo & outside) || (lin & outside) > (t->hi & outside))
			continue;
		for (u32 k = 0; k < t->nfilled; k++) {
			struct ibtc_entry *e = &t->e[t->filled[k]];

			if (((e->rip ^ lin) & outside) == 0 ||
			    (((e->rip + INSN_MAX - 1) ^ lin) & outside) == 0)
				e->rip = ibtc_no_rip(t->filled[k]);
		}
	}
}

void itlb_flush_all(struct engine_vcpu *v)
{
	for (unsigned i = 0; i < ITLB_SIZE; i++)
		v->itlb[i].tag = ITLB_NO_TAG;
	bulk_zero(v->exec_map, sizeof(v->exec_map));
	v->exec_span = PAGE_SIZE;
	ibtc_flush(v);
	cache_cross_undo(&v->cache);
}

static void itlb_flush_space(struct engine_vcpu *v, unsigned space)
{
	for (unsigned i = 0; i < ITLB_SIZE; i++)
		if (!(v->itlb[i].tag & ITLB_GLOBAL) &&
		    (v->itlb[i].tag >> ITLB_SPACE_SHIFT & (SPACES - 1)) == space)
			v->itlb[i].tag = ITLB_NO_TAG;
	ibtc_flush_space(v, space);
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

static void for_each_tlb(struct engine_vcpu *v, void (*fn)(struct tlb *t, u64 arg), u64 arg)
{
	for (unsigned s = 0; s < SPACES; s++)
		for (unsigned c = 0; c < TLB_CONTEXTS; c++)
			if (v->spaces[s].context[c])
				fn(v->spaces[s].context[c], arg);
}

static void flush_fn(struct tlb *t, u64 arg)
{
	context_flush(t, arg);
}

static void page_fn(struct tlb *t, u64 arg)
{
	page_flush(t, arg);
}

static void drop_fn(struct tlb *t, u64 arg)
{
	for (u32 k = 0; k < t->nfilled; k++)
		if (!arg || t->e[t->filled[k]].page == arg) {
			t->e[t->filled[k]].tag_w = tlb_no_tag(t->filled[k]);
			t->e[t->filled[k]].info &= ~TLB_BESIDE;
		}
}

void tlb_flush_all(struct engine_vcpu *v)
{
	v->stats.tlb_flushes++;
	v->cpu.writer->granted = false;
	rc_flush(v);
	for_each_tlb(v, flush_fn, true);
	v->global_range = (struct lin_range){ ~0ull, 0 };
	itlb_flush_all(v);
}

void tlb_drop_all_writes(struct engine_vcpu *v)
{
	v->cpu.writer->granted = false;
	rc_flush(v);
	for_each_tlb(v, drop_fn, 0);
}

void tlb_drop_write(struct engine_vcpu *v, const u8 *host_page)
{
	rc_flush(v);
	for_each_tlb(v, drop_fn, (u64)host_page);
}

static void space_flush(struct engine_vcpu *v, unsigned space)
{
	v->stats.tlb_flushes++;
	for (unsigned c = 0; c < TLB_CONTEXTS; c++)
		if (v->spaces[space].context[c])
			context_flush(v->spaces[space].context[c], false);
	itlb_flush_space(v, space);
}

/* The tables of a space are made in full context; until then the space cannot be entered. */
static bool space_is_ready(const struct space *s)
{
	return s->context[0] && s->context[1] && s->context[2];
}

/* Follow CR3 to the space of its PCID, taking over another when it has none. */
static void space_switch(struct engine_vcpu *v)
{
	const struct x86_cpu *cpu = &v->cpu;
	u16 pcid = cpu->cr4 & CR4_PCIDE ? cpu->cr3 & 0xfff : 0;
	unsigned i = 0;

	while (i < SPACES && !(v->spaces[i].used && v->spaces[i].pcid == pcid))
		i++;
	if (i == SPACES) {
		do
			i = v->victim++ % SPACES;
		while (!space_is_ready(&v->spaces[i]));
		space_flush(v, i);
		v->spaces[i].pcid = pcid;
		v->spaces[i].used = true;
	}
	/* What supervisor entries come from may differ between spaces. */
	for (unsigned k = 0; k < IBTC_MODES; k++)
		if (!v->ibtcs[k].user && v->ibtcs[k].has_nonglobal)
			ibtc_empty(&v->ibtcs[k]);
	v->now = i;
	v->ibtc_salt = (u64)i << IBTC_SALT_SHIFT;
}

static void pcid_flush(struct engine_vcpu *v, u16 pcid)
{
	for (unsigned i = 0; i < SPACES; i++)
		if (v->spaces[i].used && v->spaces[i].pcid == pcid)
			space_flush(v, i);
}

/* INVLPG: of the current space, and global pages of all. */
static void page_drop(struct engine_vcpu *v, gva_t lin)
{
	if (lin_range_has(&v->global_range, lin))
		for_each_tlb(v, page_fn, lin);
	else
		for (unsigned c = 0; c < TLB_CONTEXTS; c++)
			page_flush(v->spaces[v->now].context[c], lin);
	if (v->exec_map[exec_bit(lin) >> 6] & BIT_ULL(exec_bit(lin) & 63))
		fetch_page_flush(v, lin);
}

void tlb_flush(struct engine_vcpu *v)
{
	struct x86_flush *f = &v->cpu.flush;

	rc_flush(v);
	if (f->switched)
		space_switch(v);
	if (f->all || f->npages > X86_FLUSH_PAGES || f->npcids > X86_FLUSH_PCIDS) {
		tlb_flush_all(v);
	} else {
		if (f->nonglobal)
			space_flush(v, v->now);
		for (unsigned i = 0; i < f->npcids; i++)
			pcid_flush(v, f->pcid[i]);
		for (unsigned i = 0; i < f->npages; i++) {
			page_drop(v, f->page[i]);
		}
	}
	f->all = f->switched = f->nonglobal = false;
	f->npages = f->npcids = 0;
}

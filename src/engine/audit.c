/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The option "audit": one hit in many walks again what is cached, and compares. Leaf code. */
#include "engine/audit.h"

#include "cpu/x86/access.h"

/* Entries of the branch cache that one audit looks at; the next one goes on behind them. */
#define BRANCHES_AT_ONCE 256

struct audit {
	struct engine_vcpu *v;
	u64 gone;  /* not mapped any more */
	u64 stale; /* mapped otherwise */
};

/* Whether the tables of now say what a fill said: @host and the right to write by supervisor or user. */
static void compare(struct audit *a, gva_t lin, u64 host, bool write, bool user)
{
	struct x86_cpu *cpu = &a->v->cpu;
	struct x86_xlate xl;
	struct slot *s;

	if (!x86_walk_debug(cpu, lin, &xl)) {
		a->gone++;
		return;
	}
	s = mem_slot_find(a->v->engine->mem, cpu->space, xl.gpa >> PAGE_SHIFT, NULL);
	a->stale += !s || (u64)slot_hva(s, xl.gpa) != host || (user && !xl.user) ||
		    (write && (!xl.dirty || slot_is_readonly(s) ||
			       !(xl.writable || (!user && !(cpu->cr0 & CR0_WP)))));
}

/* Ranges of more than a page are for reading: both ends. */
static void ranges(struct audit *a, unsigned table)
{
	const struct regcache *rc = &a->v->rc[table];

	for (unsigned i = 0; i < RC_SIZE; i++) {
		const bool write = rc_is_write(i);
		const u64 last = rc->limit[i] + rc_room(i) - 1;

		if (!rc->limit[i])
			continue;
		compare(a, rc->tag[i], rc->host[i], write, table);
		compare(a, rc->tag[i] + last, rc->host[i] + last, write, table);
	}
}

static void tags(struct audit *a, const struct tlb *t, bool user)
{
	for (u32 k = 0; k < t->nfilled; k++) {
		const u16 i = t->filled[k];
		const struct tlb_entry *e = &t->e[i];

		if (e->tag_r != tlb_no_tag(i))
			compare(a, e->tag_r, e->page, e->tag_w != tlb_no_tag(i), user);
	}
}

static void execute_tags(struct audit *a)
{
	const struct engine_vcpu *v = a->v;

	for (unsigned i = 0; i < ITLB_SIZE; i++) {
		const struct itlb_entry *e = &v->itlb[i];

		if (e->tag != ITLB_NO_TAG &&
		    (e->tag & ITLB_GLOBAL || (e->tag >> ITLB_SPACE_SHIFT & (SPACES - 1)) == v->now))
			compare(a, e->tag & PAGE_MASK, (u64)e->host, false, e->tag & ITLB_USER);
	}
}

/* Where the branch cache says that the code of a RIP is: a live block must be that of the page which is there. */
static void branches(struct audit *a)
{
	struct engine_vcpu *v = a->v;
	const struct ibtc *t = v->ibtc;
	struct x86_xlate xl;

	for (u32 n = 0; n < BRANCHES_AT_ONCE && n < t->nfilled; n++) {
		const u16 i = t->filled[v->audit_next++ % t->nfilled];
		const struct ibtc_entry *e = &t->e[i];
		const struct block *b;

		if (e->rip == ibtc_no_rip(i) ||
		    (t->user && (ibtc_index(e->rip, v->ibtc_salt) ^ i) & ~1u))
			continue;
		b = cache_block_at(&v->cache, e->code);
		if (!b || b->dead)
			continue;
		if (!x86_walk_debug(&v->cpu, v->cpu.seg[SEG_CS].base + e->rip, &xl))
			a->gone++;
		else
			a->stale += cache_key(v->cpu.space, xl.gpa) != b->gpa;
	}
}

u64 engine_audit(struct engine_vcpu *v, const struct x86_insn *insn)
{
	const struct engine_options *o = &v->engine->options;
	struct audit a = { .v = v };

	v->audit_left = o->audit;
	/* What somebody waits for is dropped at the next poll. */
	if (v->cpu.request || x86_flush_wanted(&v->cpu.flush))
		return 1;
	v->stats.audits++;
	ranges(&a, 0);
	ranges(&a, 1);
	for (unsigned c = 0; c < TLB_CONTEXTS; c++)
		tags(&a, v->spaces[v->now].context[c], c == TLB_USER);
	execute_tags(&a);
	branches(&a);
	if (v->cpu.request)
		return 1;
	v->stats.audit_gone += a.gone;
	v->stats.audit_stale += a.stale;
	if (!o->audit_strict || !(a.gone + a.stale))
		return 1;
	v->cpu.rip = v->rip_page + insn->page_off;
	v->cpu.exit = (struct x86_exit){ .reason = X86_EXIT_INTERNAL };
	v->reason = LEAVE_EXIT;
	return 0;
}

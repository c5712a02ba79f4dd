/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Finding the next block, and linking exits to it: called by translated code that has no answer in line. Leaf code. */
#include "cpu/x86/debug.h"
#include "cpu/x86/event.h"
#include "engine/vcpu.h"
#include "mem/dirty.h"

static u64 itlb_tag(const struct engine_vcpu *v, gva_t lin)
{
	return (lin & PAGE_MASK) | (v->cpu.cpl == 3) | v->now << ITLB_SPACE_SHIFT;
}

static bool itlb_matches(const struct engine_vcpu *v, const struct itlb_entry *e, gva_t lin)
{
	return e->tag == itlb_tag(v, lin) ||
	       e->tag == ((lin & PAGE_MASK) | (v->cpu.cpl == 3) | ITLB_GLOBAL);
}

bool engine_smc_is_near(const struct engine_vcpu *v)
{
	gva_t lin = v->cpu.seg[SEG_CS].base + v->cpu.rip;
	const struct itlb_entry *e = &v->itlb[(lin >> PAGE_SHIFT) & (ITLB_SIZE - 1)];

	return !itlb_matches(v, e, lin) || e->gpa == v->smc_page;
}

static enum x86_status fetch_fill(struct engine_vcpu *v, gva_t lin, struct itlb_entry *e, u64 tag)
{
	struct x86_cpu *cpu = &v->cpu;
	struct code_page *p;
	struct x86_xlate xl;
	struct slot *s;
	gpa_t key;
	u8 *host;

	if (x86_walk(cpu, lin, ACC_FETCH, &xl) != X86_OK)
		return X86_FAULT;
	s = mem_slot_find(v->engine->mem, cpu->space, xl.gpa >> PAGE_SHIFT, &v->fetch_hint);
	if (!s) {
		cpu->exit.reason = X86_EXIT_FETCH;
		cpu->exit.gpa = xl.gpa;
		return X86_EXIT;
	}
	v->stats.itlb_fills++;
	host = slot_hva(s, xl.gpa & PAGE_MASK);
	key = cache_key(cpu->space, xl.gpa & PAGE_MASK);
	p = cache_page_find(&v->cache, key);
	if (p && p->live) {
		if (p->serial != s->serial) {
			/* Other memory is there now, whose stores nobody reports yet: engine_run() asks for it. */
			v->protect_page = key;
			v->reason = LEAVE_PROTECT;
			return X86_EXIT;
		}
		cache_verify_page(&v->cache, key, host);
	}
	if (xl.global)
		tag = (tag & (PAGE_MASK | ITLB_USER)) | ITLB_GLOBAL;
	for (gva_t at = lin & ~(xl.span - 1), n = 0; n < xl.span; at += 2ull << 20, n += 2ull << 20)
		v->exec_map[exec_bit(at) >> 6] |= BIT_ULL(exec_bit(at) & 63);
	if (xl.span > v->exec_span)
		v->exec_span = xl.span;
	*e = (struct itlb_entry){ tag, key, host, xl.span, xl.writable };
	return X86_OK;
}

enum x86_status engine_fetch(struct engine_vcpu *v, u64 rip, gpa_t *gpa, u8 **host)
{
	struct x86_cpu *cpu = &v->cpu;
	struct itlb_entry *e;
	enum x86_status st;
	gva_t lin;

	/*
	 * DIFFERS: a near branch to an address that is not canonical raises #GP there and not at the branch, and a CALL has pushed:
	 * asking at each indirect branch would cost all of them. The checked form asks, and the option "exact".
	 */
	st = x86_linear(cpu, SEG_CS, rip, 1, ACC_FETCH, &lin);
	if (st != X86_OK)
		return st;
	e = &v->itlb[(lin >> PAGE_SHIFT) & (ITLB_SIZE - 1)];
	if (!itlb_matches(v, e, lin)) {
		st = fetch_fill(v, lin, e, itlb_tag(v, lin));
		if (st != X86_OK)
			return st;
	}
	v->fetch_global = e->tag & ITLB_GLOBAL;
	v->fetch_writable = e->writable;
	*gpa = e->gpa | (lin & (PAGE_SIZE - 1));
	*host = e->host;
	return X86_OK;
}

/* The second page of a straddling block must still be the one it was made from. */
static bool second_holds(struct engine_vcpu *v, const struct block *b, u64 rip)
{
	gpa_t gpa;
	u8 *host;
	u64 next = x86_rip_mask(&v->cpu, rip + PAGE_SIZE - (b->gpa & (PAGE_SIZE - 1)));

	return engine_fetch(v, next, &gpa, &host) == X86_OK && (gpa & PAGE_MASK) == b->second &&
	       !b->dead;
}

/* An entry whose .code is 0 is not on the list of those to be emptied; one that was dropped still is. */
static void ibtc_put(struct ibtc *t, unsigned i, struct ibtc_entry e)
{
	if (!t->e[i].code)
		t->filled[t->nfilled++] = i;
	t->e[i] = e;
}

static void ibtc_fill(struct engine_vcpu *v, u64 rip, u64 code)
{
	const u64 last = rip + INSN_MAX - 1, end = last < rip ? ~0ull : last; /* it may straddle */
	struct ibtc *t = v->ibtc;
	unsigned i = ibtc_index(rip, t->user ? v->ibtc_salt : 0);
	struct ibtc_entry old = t->e[i];

	if (old.rip != rip && old.rip != ibtc_no_rip(i))
		ibtc_put(t, ibtc_near(i), old);
	ibtc_put(t, i, (struct ibtc_entry){ rip, code });
	t->has_nonglobal |= !v->found_global;
	t->lo = rip < t->lo ? rip : t->lo;
	t->hi = end > t->hi ? end : t->hi;
	v->stats.ibtc_fills++;
}

static enum block_form form_wanted(struct engine_vcpu *v)
{
	struct x86_cpu *cpu = &v->cpu;
	bool narrow = v->narrow;

	v->narrow = false;
	if (v->single || cpu->shadow || v->hold_kick || v->step || cpu->f.rf)
		return FORM_SINGLE;
	if (v->engine->options.form == ENGINE_FAST && (cpu->mode & (MODE_64 | MODE_AC)) == MODE_64)
		return narrow ? FORM_NARROW : FORM_FAST;
	return cpu->mode & (MODE_64 | MODE_FLAT) ? FORM_CHECKED : FORM_SINGLE;
}

/* Text is often written before it is made read-only; then its blocks become fast again, once. */
static bool exactness_holds(const struct engine_vcpu *v, struct block *b)
{
	if (b->exact == v->exact || (b->form != FORM_FAST && b->form != FORM_NARROW))
		return true;
	if (!b->exact)
		b->tightened = true;
	else if (b->tightened)
		return true;
	return false;
}

/* Exits that leave their page by a constant are linked only between pages that run at one linear address. */
static void runs_at(struct engine_vcpu *v, struct code_page *p, u64 linear)
{
	if (likely(p->linear == linear) || p->linear == CODE_LINEAR_MANY)
		return;
	if (p->linear == CODE_LINEAR_NONE) {
		p->linear = linear;
		return;
	}
	p->linear = CODE_LINEAR_MANY;
	cache_cross_undo(&v->cache);
}

/* Find the block for @rip; 0 with v->reason set when there is none or something else comes first. */
static u64 find(struct engine_vcpu *v, u64 rip)
{
	struct x86_cpu *cpu = &v->cpu;
	enum block_form form = form_wanted(v);
	enum x86_status st;
	struct block *b;
	gpa_t gpa;
	u8 *host;

	v->found = NULL;
	if (form == FORM_FAST && !v->linking) {
		const struct ibtc_entry *e =
			&v->ibtc->e[ibtc_index(rip, v->ibtc->user ? v->ibtc_salt : 0)];

		if (e->rip == rip) {
			v->rip_page = rip & PAGE_MASK;
			return e->code;
		}
	}
	st = engine_fetch(v, rip, &gpa, &host);
	if (st == X86_FAULT) {
		engine_fault(v);
		return 0;
	}
	if (st != X86_OK) {
		if (!v->reason)
			v->reason = LEAVE_EXIT;
		return 0;
	}
	v->found_global = v->fetch_global;
	v->exact = v->fetch_writable || v->linking_exact;
	b = cache_find(&v->cache, gpa, engine_mode_key(v), form);
	if (b && !exactness_holds(v, b)) {
		cache_kill(&v->cache, b);
		b = NULL;
	}
	if (b && b->straddles && !second_holds(v, b, rip)) {
		cache_kill(&v->cache, b);
		b = NULL;
	}
	v->found_global &= v->fetch_global; /* of the second page */
	if (!b)
		b = translate_here(v, gpa, host, form);
	if (!b) {
		v->want = form;
		v->want_gpa = gpa;
		v->want_host = host;
		v->reason = LEAVE_TRANSLATE;
		return 0;
	}
	v->rip_page = rip - (gpa & (PAGE_SIZE - 1));
	v->found = b;
	if (cpu->cpl != 3)
		runs_at(v, b->node[0].page, v->rip_page);
	v->single = false;
	v->hold_kick = false;
	v->unshadow = cpu->shadow;
	v->unrf = cpu->f.rf;
	if (form < FORM_SINGLE) /* narrow ones are found by the windows only */
		ibtc_fill(v, rip, (u64)v->cache.code_w + v->cache.delta + b->code);
	return (u64)v->cache.code_w + v->cache.delta + b->code;
}

u64 engine_dispatch(struct engine_vcpu *v, u64 rip)
{
	struct x86_cpu *cpu = &v->cpu;
	u64 code;
	bool armed;

	v->stats.dispatches++;
	v->stale = false;
	cpu->writer->nopen = 0;
	cpu->rip = rip;
	do {
		if (v->unrf)
			cpu->f.rf = v->unrf = 0;
		if (v->unshadow) {
			v->unshadow = false;
			cpu->shadow = 0;
			x86_mode_update(cpu);
			x86_window_opened(cpu);
		}
		v->smc = false;
		if (v->npending)
			requests_post_written(v);
		if (cpu->request)
			requests_serve(v);
		if (x86_flush_wanted(&cpu->flush))
			tlb_flush(v);
		tlb_select(v);
		if (!v->ibtc) {
			v->reason = LEAVE_MODES;
			return 0;
		}
		if (v->step == STEP_RUNNING ||
		    (v->step == STEP_NONE && unlikely(x86_is_debugged(cpu))))
			v->reason = LEAVE_STEP;
		else if (cpu->kick && !v->hold_kick && !cpu->shadow && !v->step)
			v->reason = LEAVE_KICK;
		if (v->reason)
			return 0;
		armed = v->step == STEP_ARMED;
		if (armed)
			v->step = STEP_RUNNING;
		code = find(v, cpu->rip);
		if (!code && armed && v->step == STEP_RUNNING)
			v->step = STEP_ARMED; /* it has to be translated first: nothing has run */
		/* A fetch fault that was delivered: go on at its handler. */
	} while (!code && !v->reason);
	return code;
}

u64 engine_resume(struct engine_vcpu *v)
{
	return v->reason ? 0 : engine_dispatch(v, v->cpu.rip);
}

u64 engine_dead(struct engine_vcpu *v, u64 pc)
{
	const struct block *b;
	u64 code;

	__builtin_memcpy(&b, (const void *)pc, sizeof(b));
	v->linking = true; /* the branch cache is what led here */
	code = engine_dispatch(v, x86_rip_mask(&v->cpu, v->rip_page + (b->gpa & (PAGE_SIZE - 1))));
	v->linking = false;
	return code;
}

/* A killed block's entry leads on by itself, so the address may be kept as long as the site. */
u64 engine_narrow(struct engine_vcpu *v, struct mem_site *site)
{
	u64 code;

	v->narrow = true;
	v->linking_exact = site->insn.exact;
	code = engine_dispatch(v, x86_rip_mask(&v->cpu, v->rip_page + site->insn.page_off));
	v->narrow = v->linking_exact = false;
	if (code && v->found && v->found->form == FORM_NARROW)
		site->narrow = code;
	return code;
}

/* Whether the exit @l leads to @to as long as the translation of the pages it is in stays. */
static bool holds_by_translation(const struct engine_vcpu *v, const struct exit_link *l,
				 const struct block *to)
{
	return v->found_global && v->cpu.cpl != 3 &&
	       l->from->node[0].page->linear != CODE_LINEAR_MANY &&
	       to->node[0].page->linear == v->rip_page;
}

static void link_found(struct engine_vcpu *v, struct exit_link *l, struct block *to)
{
	bool same = to->gpa == ((l->from->gpa & PAGE_MASK) | l->target_off);

	if (to->form != FORM_FAST || l->from->mode != to->mode)
		return;
	if (!(l->kind & LINK_CROSS) && same && !to->straddles) {
		cache_link(&v->cache, l, to);
	} else if ((l->kind & LINK_CROSS || same) && holds_by_translation(v, l, to)) {
		cache_link_cross(&v->cache, l, to, v->rip_page,
				 v->rip_page + (to->straddles ? 2 : 1) * PAGE_SIZE - 1);
	} else {
		if (l->kind & LINK_CROSS)
			cache_link_around(&v->cache, l);
		return;
	}
	v->stats.links++;
}

u64 engine_link(struct engine_vcpu *v, struct exit_link *l)
{
	u64 code, killed = v->cache.killed;

	v->linking = true;
	/* In its own page it may be entered by a mapping that this one is not. */
	v->linking_exact = l->from->exact && !(l->kind & LINK_CROSS);
	code = engine_dispatch(v, x86_rip_mask(&v->cpu, v->rip_page + l->target_off));
	v->linking = v->linking_exact = false;
	/* A block that was killed meanwhile may have another one in its place, and that other exits. */
	if (code && v->found && v->cache.killed == killed)
		link_found(v, l, v->found);
	return code;
}

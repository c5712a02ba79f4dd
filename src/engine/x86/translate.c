/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The translator: guest bytes of one page in, one block of host code out. Leaf code but for the decoder. */
#include "engine/x86/translate.h"

#include "base/bulk.h"
#include "cpu/x86/ops.h"
#include "cpu/x86/xstate.h"
#include "engine/x86/memo.h"

#define CODE_ROOM (64u << 10) /* more than any block needs */
#define META_ROOM (64u << 10)

/* Helpers behind which nothing of the block would run. */
static bool op_ends_block(u16 op)
{
	switch (op) {
#define X86_OP(name, context)                                                                      \
	case X86_OP_##name:                                                                        \
		return (context) != 0;
#define LEAF 0
#define FULL 1
#include "cpu/x86/ops.def"
#undef LEAF
#undef FULL
#undef X86_OP
	default:
		return true;
	}
}

static bool op_transfers(u16 op)
{
	static const u16 ops[] = {
		X86_OP_call_far, X86_OP_jmp_far,  X86_OP_ret_far, X86_OP_iret,
		X86_OP_int_n,	 X86_OP_int3,	  X86_OP_int1,	  X86_OP_syscall,
		X86_OP_sysret,	 X86_OP_sysenter, X86_OP_sysexit, X86_OP_hlt,
	};

	for (unsigned k = 0; k < ARRAY_SIZE(ops); k++)
		if (op == ops[k])
			return true;
	return false;
}

/* The vector that the instruction raises because of CR0, CR4 and XCR0, or -1. */
static int state_fault(x86_mode_t mode, const struct decoded *d)
{
	bool wait = d->state == STATE_X87 && d->insn.opcode == 0x9b && !d->has_modrm;

	switch (d->state) {
	case STATE_NONE:
		return -1;
	case STATE_X87:
		if (wait)
			return (mode & (MODE_MP | MODE_TS)) == (MODE_MP | MODE_TS) ? VEC_NM : -1;
		return mode & (MODE_EM | MODE_TS) ? VEC_NM : -1;
	case STATE_MMX:
		return mode & MODE_EM ? VEC_UD : mode & MODE_TS ? VEC_NM : -1;
	case STATE_SSE:
		if (mode & MODE_EM || !(mode & MODE_SSE))
			return VEC_UD;
		break;
	case STATE_AVX:
		if (!(mode & MODE_AVX) || !(mode & MODE_PE) || mode & MODE_VM)
			return VEC_UD;
		break;
	default:
		if (!(mode & MODE_AVX512) || !(mode & MODE_PE) || mode & MODE_VM)
			return VEC_UD;
		break;
	}
	return mode & MODE_TS ? VEC_NM : -1;
}

static bool ends_block(x86_mode_t mode, const struct decoded *d)
{
	switch (d->cls) {
	case CLS_BRANCH:
	case CLS_UD:
	case CLS_NONE:
		return true;
	case CLS_HELPER:
		return op_ends_block(d->insn.op) || op_transfers(d->insn.op);
	default:
		return state_fault(mode, d) >= 0;
	}
}

/* Whether stores to the page are reported to this vCPU. */
static bool page_is_held(struct engine_vcpu *v, gpa_t key)
{
	struct slot *s =
		mem_slot_find(v->engine->mem, key >> 60, cache_gpa(key) >> PAGE_SHIFT, NULL);
	const struct code_page *p = cache_page_find(&v->cache, key);

	return s && p && p->serial == s->serial;
}

/* As decode(), which only full context may call: -3 when it is needed and cannot be. */
static int decode_one(struct tr *t, const u8 *bytes, unsigned n, struct decoded *d)
{
	struct engine_vcpu *v = t->v;
	int r;

	if (t->mode & MODE_64 && memo_find(v->memo, bytes, n, d))
		return 0;
	if (!v->cpu.full)
		return -3;
	r = v->decode(&v->engine->host, t->mode, bytes, n, d);
	if (!r && t->mode & MODE_64)
		memo_keep(v->memo, d);
	return r;
}

/* The instruction at the end of the page goes on in the next one. */
static enum x86_status decode_straddling(struct tr *t, const u8 *host, unsigned off)
{
	struct engine_vcpu *v = t->v;
	unsigned first = PAGE_SIZE - off;
	enum x86_status st;
	gpa_t gpa;
	u8 bytes[15], *host2;

	if (!v->cpu.full)
		return X86_FULL;
	st = engine_fetch(v, x86_rip_mask(&v->cpu, v->cpu.rip + first), &gpa, &host2);
	if (st != X86_OK)
		return st;
	if (!page_is_held(v, gpa & PAGE_MASK)) {
		v->protect_page = gpa & PAGE_MASK;
		v->reason = LEAVE_PROTECT;
		return X86_EXIT;
	}
	bulk_copy(bytes, host + off, first);
	bulk_copy(bytes + first, host2, sizeof(bytes) - first);
	decode_one(t, bytes, sizeof(bytes), &t->d[0]);
	t->off[0] = off;
	t->n = 1;
	t->straddles = t->d[0].insn.len > first;
	t->second = gpa & PAGE_MASK;
	return X86_OK;
}

static enum x86_status decode_block(struct tr *t, gpa_t at, const u8 *host)
{
	unsigned off = at & (PAGE_SIZE - 1), max = t->form == FORM_FAST ? BLOCK_MAX : 1;

	while (t->n < max && off < PAGE_SIZE) {
		unsigned room = PAGE_SIZE - off < 15 ? PAGE_SIZE - off : 15;
		struct decoded *d = &t->d[t->n];

		int r = decode_one(t, host + off, room, d);

		if (r == -3)
			return X86_FULL;
		if (r == -2 && t->n) {
			t->before_straddler = true;
			return X86_OK;
		}
		if (r == -2)
			return decode_straddling(t, host, off);
		t->off[t->n++] = off;
		off += d->insn.len;
		if (ends_block(t->mode, d))
			break;
	}
	return X86_OK;
}

/* Instructions across which flags live on. */
static bool passes_flags(const struct tr *t, const struct decoded *d)
{
	return (d->cls == CLS_NATIVE || d->cls == CLS_LEA || d->cls == CLS_NOP ||
		d->cls == CLS_STACK) &&
	       state_fault(t->mode, d) < 0;
}

/* Look at one instruction behind the block, and remember what was seen. Returns whether it says anything. */
static bool ahead_one(struct tr *t, const u8 *host, s64 off, struct decoded *d)
{
	unsigned room = PAGE_SIZE - off < 15 ? PAGE_SIZE - off : 15;
	struct ahead *a = &t->ahead[t->nahead];
	s64 from = off < t->from ? off : t->from, to;

	if (off < 0 || off >= (s64)PAGE_SIZE || decode_one(t, host + off, room, d))
		return false;
	to = off + d->insn.len > t->to ? off + d->insn.len : t->to;
	if (to - from > AHEAD_SPAN || (!passes_flags(t, d) && d->branch != BR_JMP))
		return false;
	a->off = off;
	a->len = d->insn.len;
	bulk_copy(a->bytes, d->insn.bytes, d->insn.len);
	t->nahead++;
	t->from = from;
	t->to = to;
	return true;
}

/* The flags that are needed at page offset @off: what is read there before it is written. */
static u16 ahead_needs(struct tr *t, const u8 *host, s64 off)
{
	u16 open = FL_ARITH, needed = 0;
	struct decoded d;

	while (open && t->nahead < AHEAD_MAX && ahead_one(t, host, off, &d)) {
		needed |= d.fl_read & open;
		open &= ~d.fl_write;
		off += d.insn.len + (d.branch == BR_JMP ? (s64)d.insn.imm : 0);
	}
	return needed | open;
}

/* Whether an access of the block would have to keep flags that only what follows may need. */
static bool ahead_matters(const struct tr *t)
{
	for (unsigned i = t->n; i--;) {
		const struct decoded *d = &t->d[i];

		if (d->insn.has_mem || d->cls == CLS_STACK || d->branch == BR_CALL)
			return true;
		if (d->cls != CLS_BRANCH && (!passes_flags(t, d) || d->fl_write))
			return false;
	}
	return false;
}

/*
 * Flags that the block must leave behind. A block that ends in a direct jump or call looks at its target. It is killed
 * when what it saw is stored to; in an exact block that would be too late.
 */
static u16 live_out(struct tr *t, const u8 *host)
{
	const struct engine_options *o = &t->v->engine->options;
	const struct decoded *last = &t->d[t->n - 1];
	unsigned end = t->off[t->n - 1] + last->insn.len;
	u16 needed;

	t->from = t->off[0];
	t->to = end;
	t->nahead = 0;
	if (t->form != FORM_FAST || t->v->exact || t->straddles || !o->ahead || o->exact ||
	    last->cls != CLS_BRANCH || (last->branch != BR_JMP && last->branch != BR_CALL) ||
	    last->insn.opsize == 2 || !ahead_matters(t))
		return FL_ARITH;
	needed = ahead_needs(t, host, end + (s64)last->insn.imm);
	if (needed != FL_ARITH)
		return needed;
	t->from = t->off[0];
	t->to = end;
	t->nahead = 0;
	return FL_ARITH;
}

/*
 * Flags that each instruction needs, backwards.
 * DIFFERS: the frame of a fault or interrupt, and KVM_GET_REGS between instructions, show arithmetic flags that the next instructions
 * overwrite unread as anything: they are lost. The checked form keeps them, and the option "exact".
 */
static void find_live_flags(struct tr *t, const u8 *host)
{
	bool exact = t->v->engine->options.exact;
	u16 behind = live_out(t, host);

	t->live_in[t->n] = behind;
	for (unsigned i = t->n; i--;) {
		const struct decoded *d = &t->d[i];
		bool through = i == t->n - 1 && behind != FL_ARITH; /* a jump or call */

		if (through)
			t->live_in[i] = behind;
		else if (exact || !passes_flags(t, d))
			t->live_in[i] = FL_ARITH;
		else
			t->live_in[i] = (t->live_in[i + 1] & ~d->fl_write) | d->fl_read;
	}
}

/* Returns whether the code behind instruction @i is never reached from it. */
static bool translate_one(struct tr *t, unsigned i)
{
	struct decoded *d = &t->d[i];
	int vector = state_fault(t->mode, d);

	if (vector < 0 && (d->cls == CLS_UD || d->cls == CLS_NONE))
		vector = VEC_UD;
	if (vector >= 0) {
		t->window.valid = false;
		tr_raise(t, i, vector, d->cls == CLS_NONE);
		return false;
	}
	if (d->cls == CLS_HELPER)
		t->window.valid = false;
	switch (d->cls) {
	case CLS_NATIVE:
		tr_native(t, i);
		return false;
	case CLS_LEA:
		tr_lea(t, i);
		return false;
	case CLS_NOP:
		return false;
	case CLS_STACK:
		if (!tr_stack(t, i))
			tr_helper(t, i);
		return false;
	case CLS_BRANCH:
		tr_branch(t, i);
		return true;
	default:
		if (!tr_system(t, i))
			tr_helper(t, i);
		return false;
	}
}

static void emit_block(struct tr *t)
{
	/* Whoever comes through a dispatch has the flags in memory; few blocks begin with a need for them. */
	if (t->form == FORM_FAST && t->live_in[0])
		emit_flags_load(&t->e, T0, GS_AFLAGS);
	t->b->chain = t->e.p - t->c->code_w;
	for (unsigned i = 0; i < t->n; i++) {
		tr_loop_at(t, i);
		tr_pc(t, i, 0);
		if (translate_one(t, i))
			goto slow;
	}
	tr_fallthrough(t);
slow:
	tr_slow_paths(t);
}

/* The bytes that the block was made from, which need not be those in memory any more. */
static void block_bytes(const struct tr *t, u8 *out)
{
	for (unsigned i = 0; i < t->n; i++)
		for (unsigned k = 0; k < t->d[i].insn.len; k++)
			*out++ = t->d[i].insn.bytes[k];
}

void *tr_alloc(struct tr *t, size_t n)
{
	void *p = t->meta;

	n = ALIGN_UP(n, (size_t)8);
	if (n > (size_t)(t->meta_end - t->meta))
		return NULL;
	t->meta += n;
	return p;
}

static void tr_init(struct tr *t, struct engine_vcpu *v, enum block_form form)
{
	const struct stubs *s = &v->stubs;
	bool cached = form == FORM_FAST || form == FORM_NARROW || form == FORM_CHECKED;

	t->v = v;
	t->c = &v->cache;
	t->form = form == FORM_NARROW ? FORM_FAST : form;
	t->windows = form == FORM_FAST && v->engine->options.windows;
	t->mode = engine_mode_key(v);
	t->leave_at = cached ? s->dispatch : s->dispatch_c;
	t->leave_at_saved = cached ? s->dispatch_saved : s->dispatch_c_saved;
	t->straddles = t->before_straddler = false;
	t->second = 0;
	t->n = 0;
}

/* What the decoded instructions become, in memory of @b; its place in the cache is known. */
static void emit_begin(struct tr *t, struct block *b, size_t room, size_t meta_room)
{
	struct cache *c = t->c;
	u8 *code = c->code_w + b->code;
	const struct decoded *last = &t->d[t->n - 1];

	t->b = b;
	t->e = (struct emit){ code, code + room, c->delta, false };
	t->meta = (u8 *)b + ALIGN_UP(sizeof(*b), (size_t)16);
	t->meta_end = (u8 *)b + meta_room;
	t->window.valid = false;
	t->flags = t->form == FORM_FAST ? FLAGS_HOST : FLAGS_SAVED;
	t->full = false;
	t->npc = t->nslow = t->nexits = 0;
	b->straddles = t->straddles;
	b->second = t->second;
	b->needs_flags = t->live_in[0];
	b->exact = t->v->exact;
	b->len = t->off[t->n - 1] + last->insn.len - t->off[0];
	b->ninsns = t->n;
	b->from = t->from;
	b->to = t->to;
	for (unsigned k = 0; k < ARRAY_SIZE(b->exit); k++)
		b->exit[k] = (struct exit_link){ 0 };
	b->incoming = NULL;
	b->loop = NULL;
	tr_loop_plan(t);
}

/* The block's code is written: what belongs to it. Returns whether there was room for all. */
static bool emit_end(struct tr *t)
{
	struct block *b = t->b;

	b->code_len = t->e.p - t->c->code_w - b->code;
	b->npc = t->npc;
	b->pc = tr_alloc(t, t->npc * sizeof(*b->pc));
	b->node = tr_alloc(t, cache_nodes(b) * sizeof(*b->node));
	if (!b->pc || !b->node || t->e.overflow || t->full)
		return false;
	for (unsigned k = 0; k < t->npc; k++)
		b->pc[k] = t->pc[k];
	return true;
}

/* Again at the place of a block that was killed. Its jumps may have been longer; then it is given up. */
static struct block *emit_again(struct tr *t, struct block *b)
{
	struct cache *c = t->c;
	struct emit stubs = { c->code_w + c->code_used, c->code_w + c->code_size, c->delta, false };

	emit_begin(t, b, b->code_room, 8u * b->meta_words);
	emit_block(t);
	if (!emit_end(t)) {
		cache_abandon(c, b);
		return NULL;
	}
	tr_new_stubs(t, &stubs);
	c->code_used = ALIGN_UP((size_t)(stubs.p - c->code_w), (size_t)16);
	return b;
}

/*
 * The writable alias is touched 16 pages at a time, so that the host, which maps around a fault what is there, takes one
 * fault for all of them when they are executed.
 */
static void code_touch(struct cache *c)
{
	for (; c->code_touched < c->code_used && c->code_touched < c->code_size;)
		for (unsigned k = 0; k < 16; k++, c->code_touched += PAGE_SIZE)
			__atomic_fetch_or(c->code_w + c->code_touched, 0, __ATOMIC_RELAXED);
}

static struct block *emit_new(struct tr *t, gpa_t gpa, enum block_form form)
{
	struct cache *c = t->c;
	size_t used = ALIGN_UP(c->meta_used, (size_t)64), left = c->meta_size - used;
	struct block *b = (struct block *)(c->meta + used);

	bulk_zero(b, sizeof(*b));
	b->gpa = gpa;
	b->mode = t->mode;
	b->form = form;
	b->code = c->code_used;
	emit_begin(t, b, c->code_size - c->code_used, left);
	emit_block(t);
	if (!emit_end(t))
		return NULL;
	t->e.p = c->code_w + ALIGN_UP(b->code + (size_t)b->code_len, (size_t)16);
	b->code_room = t->e.p - c->code_w - b->code;
	b->meta_words = (t->meta - (u8 *)b) / 8;
	tr_new_stubs(t, &t->e);
	c->code_used = ALIGN_UP((size_t)(t->e.p - c->code_w), (size_t)16);
	c->meta_used = used + 8u * b->meta_words;
	code_touch(c);
	return b;
}

/*
 * Components that the block's instructions touch. CVTPI2PS and its like are SSE's, and go by way of the x87 registers; an
 * instruction with VEX zeroes its target as far as the registers reach.
 */
static u64 components(const struct tr *t)
{
	static const u64 of[] = {
		[STATE_X87] = XC_X87,	  [STATE_MMX] = XC_X87,
		[STATE_SSE] = XC_LEGACY,  [STATE_AVX] = XC_SSE | XC_AVX | XC_ZMM_HIGH,
		[STATE_AVX512] = ~XC_X87,
	};
	u64 all = 0;

	for (unsigned i = 0; i < t->n; i++)
		all |= of[t->d[i].state];
	return all & t->v->engine->host.xcr0;
}

static struct block *make(struct engine_vcpu *v, gpa_t gpa, u8 *host, enum block_form form,
			  enum x86_status *status)
{
	struct cache *c = &v->cache;
	struct tr *t = v->tr_room;
	struct block *b, *dead;
	u8 bytes[BLOCK_MAX * 15];

	*status = X86_OK;
	if (c->code_size - c->code_used < CODE_ROOM || c->meta_size - c->meta_used < META_ROOM)
		return NULL;
	tr_init(t, v, form);
	*status = decode_block(t, gpa, host);
	if (*status != X86_OK)
		return NULL;
	if (components(t) & ~v->xmask && !v->cpu.full) {
		*status = X86_FULL; /* what the guest has there is not in the registers yet */
		return NULL;
	}
	v->xmask |= components(t);
	find_live_flags(t, host);
	dead = cache_find_dead(c, gpa, t->mode, form);
	b = dead ? emit_again(t, dead) : NULL;
	if (!b)
		b = emit_new(t, gpa, form);
	if (b && dead)
		b->tightened = dead->tightened;
	if (!b)
		return NULL; /* all is forgotten next, the stubs too */
	block_bytes(t, bytes);
	for (unsigned i = 0; i < t->nahead; i++)
		cache_seen(c, (gpa & PAGE_MASK) + t->ahead[i].off, t->ahead[i].bytes,
			   t->ahead[i].len);
	if (!cache_insert(c, b, bytes))
		return NULL;
	if (c->ranges_stale)
		rc_flush(v);
	c->ranges_stale = false;
	return b;
}

struct block *translate(struct engine_vcpu *v, gpa_t gpa, u8 *host, enum block_form form,
			enum x86_status *status)
{
	u64 start = v->engine->options.verbose ? __builtin_ia32_rdtsc() : 0;
	struct block *b = make(v, gpa, host, form, status);

	if (start)
		v->cache.cycles += __builtin_ia32_rdtsc() - start;
	return b;
}

struct block *translate_here(struct engine_vcpu *v, gpa_t gpa, u8 *host, enum block_form form)
{
	const u32 where = v->where;
	enum x86_status st;
	struct block *b;

	if (!page_is_held(v, gpa & PAGE_MASK) || v->engine->options.named)
		return NULL;
	v->where = WHERE_TRANSLATE;
	b = translate(v, gpa, host, form, &st);
	v->where = where;
	return b;
}

size_t translate_room(void)
{
	return sizeof(struct tr);
}

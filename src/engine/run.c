/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The loop around translated code: whatever needs the host's own state is done here, then back in. */
#define _GNU_SOURCE
#include <asm/prctl.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "cpu/x86/align.h"
#include "cpu/x86/bounce.h"
#include "cpu/x86/debug.h"
#include "cpu/x86/event.h"
#include "cpu/x86/ops.h"
#include "cpu/x86/xstate.h"
#include "engine/vcpu.h"
#include "mem/dirty.h"

typedef void (*enter_fn)(struct engine_vcpu *v, u64 code);

static void enter(struct engine_vcpu *v, u64 code)
{
	v->stats.enters++;
	v->where = WHERE_GUEST;
	v->cpu.full = false;
	((enter_fn)v->stubs.enter)(v, code);
	v->cpu.full = true;
}

/* The instruction is complete: answers of devices are used up. */
static void done(struct engine_vcpu *v)
{
	memset(&v->cpu.replay, 0, offsetof(struct x86_replay, frag));
}

/* Deliver cpu.exc in full context. */
static void deliver(struct engine_vcpu *v)
{
	v->step = STEP_NONE;
	if (engine_debug_fault(v))
		return;
	switch (x86_deliver_exception(&v->cpu)) {
	case X86_OK:
		done(v);
		break;
	default:
		v->reason = LEAVE_EXIT;
		break;
	}
}

/* Forget all translations: the cache is full. */
static void start_over(struct engine_vcpu *v)
{
	cache_reset(&v->cache, v->engine->mem);
	memset(v->rc_stub, 0, sizeof(v->rc_stub));
	memset(v->beside, 0, sizeof(v->beside));
	itlb_flush_all(v);
	for (unsigned i = 0; i < IBTC_MODES; i++)
		v->ibtcs[i].used = false;
	v->ibtc = NULL;
}

/*
 * Become a holder of the page's code: from here on its stores are reported. The first holder waits until
 * no vCPU has a write tag on it. Returns whether all is as it was, so that pointers are still good: nothing was waited for,
 * and there was room.
 */
static bool page_hold(struct engine_vcpu *v, gpa_t key)
{
	gfn_t gfn = cache_gpa(key) >> PAGE_SHIFT;
	struct slot *s = mem_slot_find(v->engine->mem, key >> 60, gfn, NULL);
	struct code_page *p;
	u64 serial;

	if (!s)
		return false;
	p = cache_page_get(&v->cache, key, slot_hva(s, gfn << PAGE_SHIFT));
	if (!p) { /* no room */
		start_over(v);
		return false;
	}
	if (p->serial == s->serial)
		return true;
	serial = s->serial;
	if (__atomic_load_n(&v->engine->nvcpus, __ATOMIC_SEQ_CST) == 1) {
		if (!page_code_get(s, gfn))
			tlb_drop_write(v, slot_hva(s, gfn << PAGE_SHIFT));
		/* A vCPU that is made later takes no write tag: it sees the count. */
		if (likely(__atomic_load_n(&v->engine->nvcpus, __ATOMIC_SEQ_CST) == 1)) {
			p->serial = serial;
			return true;
		}
		page_code_put(s, gfn);
	}
	vcpu_out(v);
	pthread_mutex_lock(&v->engine->lock);
	v->holds_lock = true;
	vcpu_in(v);
	/*
	 * The slot may be gone by now. ->serial says that this vCPU is counted, so it is set with the count: stores that
	 * vcpu_in() serves may take both back.
	 */
	s = mem_slot_find(v->engine->mem, key >> 60, gfn, NULL);
	if (s && s->serial == serial) {
		p->serial = serial;
		if (!page_code_get(s, gfn)) {
			vcpu_out(v);
			requests_ask_all(v->engine, v, REQUEST_DROP_WRITE);
			vcpu_in(v);
			tlb_drop_all_writes(v);
		}
	}
	v->holds_lock = false;
	pthread_mutex_unlock(&v->engine->lock);
	return false;
}

/* A block for what engine_dispatch() did not find; NULL when something else must be done first. */
static struct block *make_block(struct engine_vcpu *v, gpa_t gpa, u8 *host, enum block_form form)
{
	enum x86_status st;
	struct block *b;

	if (!page_hold(v, gpa & PAGE_MASK))
		return NULL; /* slots may have changed meanwhile: look again */
	b = translate(v, gpa, host, form, &st);
	if (b) {
		perf_map_block(v, b);
		return b;
	}
	if (st == X86_FAULT) {
		deliver(v);
	} else if (st == X86_EXIT) {
		if (!v->reason)
			v->reason = LEAVE_EXIT;
	} else {
		start_over(v);
	}
	return NULL;
}

static void run_full(struct engine_vcpu *v)
{
	const struct x86_insn *insn = v->insn;
	enum x86_status st = engine_op_call(v, insn);

	v->stats.full_ops++;
	if (st == X86_FULL) { /* a helper that asks for the context it has would ask for ever */
		v->cpu.exit.reason = X86_EXIT_INTERNAL;
		v->reason = LEAVE_EXIT;
		return;
	}
	if (engine_commit(v, insn, st))
		done(v);
}

/* The block that runs the instruction at RIP on the bounce buffer; NULL when something else comes first. */
static struct block *bounce_block(struct engine_vcpu *v, bool make)
{
	struct block *b;
	gpa_t gpa;
	u8 *host;

	switch (engine_fetch(v, v->cpu.rip, &gpa, &host)) {
	case X86_OK:
		break;
	case X86_FAULT:
		deliver(v);
		return NULL;
	default:
		if (!v->reason)
			v->reason = LEAVE_EXIT;
		return NULL;
	}
	tlb_select(v);
	v->exact = v->fetch_writable;
	b = cache_find(&v->cache, gpa, engine_mode_key(v), FORM_BOUNCE);
	if (!b && make)
		b = make_block(v, gpa, host, FORM_BOUNCE);
	if (b)
		v->rip_page = v->cpu.rip - (gpa & (PAGE_SIZE - 1));
	return b;
}

/* Run @insn on the bounce buffer. Returns whether it ran to its end. */
static bool bounce_run(struct engine_vcpu *v, bool make)
{
	struct block *b = bounce_block(v, make);

	if (!b)
		return false;
	v->reason = LEAVE_NONE;
	enter(v, (u64)v->cache.code_w + v->cache.delta + b->code);
	if (v->reason != LEAVE_DONE)
		return false;
	v->reason = LEAVE_NONE;
	return true;
}

/* Moves need no processor to be executed on. */
static enum x86_status run_move(struct x86_cpu *cpu, const struct x86_insn *insn, gva_t lin)
{
	unsigned size = insn->memsize, bits = 64 - 8 * size;
	enum x86_status st;
	u64 v = 0;

	if (insn->move == MOVE_STORE_IMM || insn->move == MOVE_STORE_REG) {
		v = insn->move == MOVE_STORE_IMM ? insn->imm
		    : size == 1			 ? x86_gpr8(cpu, insn, insn->reg)
						 : cpu->gpr[insn->reg];
		return x86_write(cpu, lin, &v, size, ACC_WRITE);
	}
	st = x86_read(cpu, lin, &v, size, ACC_READ);
	if (st != X86_OK)
		return st;
	if (insn->move == MOVE_LOAD_SIGN)
		v = (s64)(v << bits) >> bits;
	if (insn->move == MOVE_LOAD && size == 1)
		x86_gpr8_write(cpu, insn, insn->reg, v);
	else
		x86_gpr_write(cpu, insn->reg, v, insn->opsize);
	return X86_OK;
}

/* Whether the other vCPUs must see the instruction as one. XCHG with memory is locked by itself. */
static bool is_locked(const struct x86_insn *insn)
{
	return insn->access == (INSN_READ | INSN_WRITE) && !insn->vector &&
	       (insn->prefixes & INSN_LOCK || (insn->opcode & 0xfe) == 0x86);
}

#define X87_HOLDS_BACK (BIT(0) | BIT(3) | BIT(4)) /* invalid, overflow, underflow */

/*
 * An x87 store leaves memory as it is when it has raised one of these unmasked; a result that is not exact is stored.
 * Nothing was pending before but for FNSTCW and FNSTSW, which raise nothing.
 */
static bool store_held_back(const struct x86_cpu *cpu, const struct x86_insn *insn)
{
	bool x87 = insn->opcode >= 0xd8 && insn->opcode <= 0xdf;
	bool fn = (insn->opcode == 0xd9 || insn->opcode == 0xdd) && (insn->modrm >> 3 & 7) == 7;

	return x87 && !fn && xs_get64(cpu, XS_BV) & XC_X87 &&
	       xs_get16(cpu, XS_FSW) & ~xs_get16(cpu, XS_FCW) & X87_HOLDS_BACK;
}

/*
 * A memory operand that is no plain RAM inside a page: its bytes are gathered in a buffer of the
 * same alignment, the instruction runs there, and the buffer is written back. When the write
 * has to ask user space, the instruction is undone and will run again with the answers.
 */
static void bounce(struct engine_vcpu *v, const struct x86_insn *i, gva_t lin, bool make)
{
	struct x86_cpu *cpu = &v->cpu;
	const struct x86_insn insn = *i;
	unsigned access = insn.access & INSN_WRITE ? ACC_WRITE : ACC_READ;
	u8 *buf = v->bounce + (lin & 63);
	u64 gpr[16];
	u16 aflags = cpu->aflags;
	enum x86_status st;

	st = x86_bounce_in(cpu, &insn, lin, insn.memsize, access, buf);
	if (st != X86_OK) {
		if (st == X86_FAULT)
			engine_misaligned(v, &insn);
		engine_commit(v, &insn, st);
		return;
	}
	memcpy(gpr, cpu->gpr, sizeof(gpr));
	if (insn.access & INSN_WRITE && insn.vector)
		memcpy(v->undo, cpu->xsave, sizeof(v->undo));
	v->bounce_ptr = (u64)buf;
	if (!bounce_run(v, make))
		return;
	if (insn.access & INSN_WRITE && !store_held_back(cpu, &insn)) {
		st = x86_bounce_out(cpu, &insn, lin, insn.memsize, access, buf);
		if (st != X86_OK) {
			memcpy(cpu->gpr, gpr, sizeof(gpr));
			if (insn.vector)
				memcpy(cpu->xsave, v->undo, sizeof(v->undo));
			cpu->aflags = aflags;
		}
	}
	cpu->next_rip = x86_rip_mask(cpu, cpu->rip + insn.len);
	if (engine_commit(v, &insn, st))
		done(v);
}

static void run_bounce(struct engine_vcpu *v)
{
	struct x86_cpu *cpu = &v->cpu;
	struct x86_insn insn = *v->insn;
	enum x86_status st;
	gva_t lin;

	v->stats.bounces++;
	st = engine_linear(v, &insn, &lin);
	if (st == X86_OK)
		st = x86_align_operand(cpu, &insn, lin);
	if (st == X86_OK && insn.move) {
		cpu->next_rip = x86_rip_mask(cpu, cpu->rip + insn.len);
		if (engine_commit(v, &insn, run_move(cpu, &insn, lin)))
			done(v);
		return;
	}
	if (st != X86_OK) {
		if (st == X86_FAULT)
			engine_misaligned(v, &insn);
		engine_commit(v, &insn, st);
	} else if (is_locked(&insn) && (lin & (PAGE_SIZE - 1)) + insn.memsize > PAGE_SIZE) {
		/* Translation may wait for others, so it is done before: gone again meanwhile, the instruction starts over. */
		if (!bounce_block(v, true))
			return;
		exclusive_begin(v);
		bounce(v, &insn, lin, false);
		exclusive_end(v);
	} else {
		bounce(v, &insn, lin, true);
	}
}

#define SHADOW_SS 2 /* of cpu->shadow */

/* DR7's execution breakpoints at the next instruction: DR6 bits that hit. */
static u64 breakpoints_hit(const struct x86_cpu *cpu)
{
	u64 hit = 0, lin = cpu->seg[SEG_CS].base + cpu->rip, dr7 = x86_dr7(cpu);

	for (unsigned i = 0; i < 4; i++)
		if (dr7_enabled(dr7, i) && dr7_kind(dr7, i) == DR7_EXECUTE && x86_dr(cpu, i) == lin)
			hit |= BIT(i);
	return hit;
}

/* What the instruction that is complete now traps with: TF, a debugger's step, data breakpoints; bits of DR6. */
static u64 traps_due(struct engine_vcpu *v)
{
	struct x86_cpu *cpu = &v->cpu;
	u64 bits = cpu->watch;

	if (v->step_tf || cpu->debug & X86_DEBUG_STEP)
		bits |= DR6_BS;
	cpu->watch = 0;
	return bits;
}

/* TF, DR7 or a debugger: one instruction at a time. */
static void run_step(struct engine_vcpu *v)
{
	struct x86_cpu *cpu = &v->cpu;
	bool held =
		cpu->shadow == SHADOW_SS; /* no #DB between a load of SS and the next instruction */
	u64 hit;

	if (v->step == STEP_RUNNING) {
		v->step = STEP_NONE;
		hit = held ? 0 : traps_due(v);
		if (hit) {
			x86_raise_db(cpu, hit);
			deliver(v);
			return;
		}
	}
	if (cpu->kick && !v->hold_kick) {
		v->reason = LEAVE_KICK;
		return;
	}
	hit = cpu->f.rf || held ? 0 : breakpoints_hit(cpu);
	if (hit) {
		/* In the frame: the instruction is to run when the handler returns. */
		cpu->f.rf = !x86_debugger_has_db(cpu);
		x86_raise_db(cpu, hit);
		deliver(v);
		return;
	}
	v->stats.steps++;
	v->step_tf = cpu->f.tf;
	v->step = STEP_ARMED;
}

/* An instruction that needs full context; one that must ask user space is kept, to take the answers. */
static void run_complex(struct engine_vcpu *v)
{
	struct x86_insn insn = *v->insn;

	if (insn.op != X86_OP_NONE || !insn.has_mem)
		run_full(v);
	else
		run_bounce(v);
	if (v->reason == LEAVE_EXIT && (v->cpu.replay.n || v->cpu.replay.waiting)) {
		v->again = insn;
		v->has_again = true;
	}
}

static u32 where_of(const struct engine_vcpu *v)
{
	switch (v->reason) {
	case LEAVE_TRANSLATE:
		return WHERE_TRANSLATE;
	case LEAVE_BOUNCE:
		return WHERE_DEVICE;
	case LEAVE_FULL:
		return v->insn->op || !v->insn->has_mem ? WHERE_OP + v->insn->op : WHERE_DEVICE;
	default:
		return WHERE_ENGINE;
	}
}

/* What translated code asked for. Returns whether engine_run() must return. */
static bool serve(struct engine_vcpu *v, enum engine_exit *out)
{
	u32 reason = v->reason;

	v->where = where_of(v);
	v->reason = LEAVE_NONE;
	switch (reason) {
	case LEAVE_KICK:
		v->cpu.kick = 0;
		*out = ENGINE_KICKED;
		return true;
	case LEAVE_EXIT:
		*out = ENGINE_EXIT;
		return true;
	case LEAVE_TRANSLATE:
		make_block(v, v->want_gpa, v->want_host, v->want);
		break;
	case LEAVE_FULL:
	case LEAVE_BOUNCE:
		run_complex(v);
		break;
	case LEAVE_FAULT:
		deliver(v);
		break;
	case LEAVE_MODES:
		start_over(v);
		break;
	case LEAVE_PROTECT:
		page_hold(v, v->protect_page);
		break;
	case LEAVE_STEP:
		run_step(v);
		break;
	default:
		break;
	}
	return false;
}

/* Whose %gs this thread has, where the kernel sets it. */
static __thread const struct engine_vcpu *gs_owner __attribute__((tls_model("initial-exec")));

/* Without FSGSBASE in user space the kernel sets %gs, and it stays: no 64-bit program but ours uses it. */
static void gs_by_kernel(struct engine_vcpu *v)
{
	if (likely(gs_owner == v))
		return;
	v->gs_taken = true;
	syscall(SYS_arch_prctl, ARCH_SET_GS, v);
	gs_owner = v;
}

bool engine_thread_bind(struct engine_vcpu *v)
{
	if (v->engine->host.fsgsbase || gs_owner == v)
		return true;
	if (__atomic_exchange_n(&v->gs_taken, true, __ATOMIC_SEQ_CST))
		return false;
	gs_by_kernel(v);
	return true;
}

bool engine_thread_owns(const struct engine_vcpu *v)
{
	return v->engine->host.fsgsbase || gs_owner == v;
}

static enum engine_exit run(struct engine_vcpu *v)
{
	enum engine_exit out = ENGINE_KICKED;

	vcpu_in(v);
	/* Without paging a guest has no means to say that code was loaded by a device. */
	if (!(v->cpu.cr0 & CR0_PG))
		itlb_flush_all(v);
	for (;;) {
		u64 code;

		if (v->reason && serve(v, &out))
			break;
		if (v->reason)
			continue;
		v->where = WHERE_DISPATCH;
		code = engine_resume(v);
		if (code)
			enter(v, code);
	}
	return out;
}

/* Memory of a slot could not be accessed in the middle of anything: give back what may be held. */
static void run_abandoned(struct engine_vcpu *v)
{
	v->reason = LEAVE_NONE;
	v->step = STEP_NONE;
	done(v);
	if (__atomic_load_n(&v->engine->exclusive, __ATOMIC_RELAXED) == v)
		exclusive_end(v);
	if (v->holds_lock) {
		v->holds_lock = false;
		pthread_mutex_unlock(&v->engine->lock);
	}
	/* What was to be compared with memory may not have been. */
	requests_verify_later(v);
}

static void guard_begin(struct engine_vcpu *v)
{
	v->cpu.full = true;
	signals_enter(v);
	v->guarded = true;
}

static void guard_end(struct engine_vcpu *v)
{
	v->guarded = false;
	signals_leave(v);
}

enum engine_exit engine_run(struct engine_vcpu *v)
{
	enum engine_exit out;

	v->hold_kick = v->cpu.replay.n > 0 && !v->has_again;
	if (v->cpu.replay.n && v->has_again) {
		v->insn = &v->again;
		v->reason = LEAVE_FULL;
	}
	v->has_again = false;
	if (!v->engine->host.fsgsbase)
		gs_by_kernel(v);
	v->cpu.writer->nopen = 0; /* of the run before */
	if (!__builtin_setjmp(v->guard)) {
		guard_begin(v);
		out = run(v);
	} else {
		run_abandoned(v);
		out = ENGINE_EXIT;
	}
	vcpu_out(v);
	guard_end(v);
	return out;
}

enum x86_status engine_guarded(struct engine_vcpu *v, enum x86_status (*fn)(void *), void *arg)
{
	enum x86_status st;

	if (!__builtin_setjmp(v->guard)) {
		guard_begin(v);
		v->cpu.writer->nopen = 0;
		/* IN: whoever harvests or changes slots must wait for what is written here. */
		vcpu_in(v);
		st = fn(arg);
	} else {
		v->reason = LEAVE_NONE;
		st = X86_EXIT;
	}
	vcpu_out(v);
	guard_end(v);
	return st;
}

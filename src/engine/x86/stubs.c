/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The stubs between C and translated code, made once per VM at the start of the code cache. */
#include "cpu/x86/xstate.h"
#include "engine/audit.h"
#include "engine/x86/emit.h"
#include "engine/x86/regs.h"

/*
 *	C  --enter-->  block  --mem_slow, mem_call, op-->  C (leaf)  -->  back, or engine_resume()
 *	               block  --dispatch, link, kick-->    next block
 *	C  <--leave--                                      v->reason says why
 *
 * In translated code RSP is a multiple of 16.
 */

#define GS(field) ((u32)offsetof(struct engine_vcpu, field))
#define GS_GPR(r) ((u32)(offsetof(struct engine_vcpu, cpu.gpr) + 8 * (r)))
#define GS_AFLAGS GS(cpu.aflags)

/* Host registers that hold guest registers: { host, guest }. */
static const u8 held[][2] = {
	{ RAX, RAX }, { RCX, RCX }, { RDX, RDX },      { RSI, RSI }, { RDI, RDI },
	{ R8, R8 },   { R9, R9 },   { R10, R10 },      { R11, R11 }, { RBX, RBX },
	{ RBP, RBP }, { R12, R12 }, { HOST_RSP, RSP },
};
#define HELD_CLOBBERED 9 /* the first ones do not survive a C call */

static void emit_save(struct emit *e)
{
	for (unsigned i = 0; i < ARRAY_SIZE(held); i++)
		emit_store_gs(e, held[i][0], GS_GPR(held[i][1]));
}

static void emit_reload(struct emit *e, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		emit_load_gs(e, held[i][0], GS_GPR(held[i][1]));
}

static void emit_test_rax(struct emit *e)
{
	emit_bytes(e, (const u8[]){ 0x48, 0x85, 0xc0 }, 3);
}

static void emit_jmp_t1(struct emit *e)
{
	emit_bytes(e, (const u8[]){ 0x41, 0xff, 0xe7 }, 3);
}

/* RAX = code to go on with, or 0. */
static void emit_continue(struct emit *e, u64 leave)
{
	emit_test_rax(e);
	emit_jcc_to(e, CC_E, leave);
	emit_mov(e, T1, RAX);
	emit_reload(e, ARRAY_SIZE(held));
	emit_jmp_t1(e);
}

static void emit_xop(struct emit *e, const struct x86_host *host, bool save)
{
	/* xsave64 / xrstor64 / fxsave64 / fxrstor64 [rdi + xsave] */
	unsigned reg = host->xsave ? (save ? 4 : 5) : (save ? 0 : 1);

	if (host->xsave) {
		emit_op_base(e, false, 0x8b, RAX, RDI, GS(xmask));
		emit_op_base(e, false, 0x8b, RDX, RDI, GS(xmask) + 4);
	}
	if (!save && host->xinuse) {
		/*
		 * A component that is in its initial state here and in the image needs no restoring:
		 * mask &= 2 | XSTATE_BV | XINUSE. SSE stays, for MXCSR.
		 */
		emit_mov(e, R8, RAX);
		emit_mov_imm32(e, RCX, 1);
		emit_bytes(e, (const u8[]){ 0x0f, 0x01, 0xd0 }, 3); /* xgetbv */
		emit_op_base(e, false, ALU_OR << 3 | 3, RAX, RDI, GS(cpu.xsave) + 512);
		emit_alu_imm(e, false, ALU_OR, RAX, 2);
		emit_alu(e, ALU_AND, RAX, R8);
		emit_mov_imm32(e, RDX, 0);
	}
	emit_bytes(e, (const u8[]){ 0x48, 0x0f, 0xae, 0x80 | reg << 3 | RDI }, 4);
	emit32(e, GS(cpu.xsave));
}

/* Skips what follows while the guest has executed no instruction that touches any of the state. */
static u8 *emit_if_vectors(struct emit *e)
{
	emit_op_base(e, false, 0x83, ALU_CMP, RDI, GS(xmask));
	emit8(e, 0);
	return emit_jcc(e, CC_E);
}

/* Guest's vector state in, the host's control words kept. RDI: the vCPU. */
static void emit_vectors_in(struct emit *e, const struct x86_host *host)
{
	u8 *none = emit_if_vectors(e);

	emit_bytes(e, (const u8[]){ 0x0f, 0xae, 0x80 | 3 << 3 | RDI }, 3); /* stmxcsr */
	emit32(e, GS(mxcsr_host));
	emit_bytes(e, (const u8[]){ 0xd9, 0x80 | 7 << 3 | RDI }, 2); /* fnstcw */
	emit32(e, GS(fcw_host));
	emit_xop(e, host, false);
	emit_patch(e, none);
}

/* Guest's vector state out; the host finds an empty x87 stack and its control words. RDI: the vCPU. */
static void emit_vectors_out(struct emit *e, const struct x86_host *host)
{
	u8 *none = emit_if_vectors(e), *initial = NULL;

	emit_xop(e, host, true);
	if (host->xsave) { /* just written: whether x87 is in another state than FNINIT's */
		emit_op_base(e, false, 0xf6, 0, RDI, GS(cpu.xsave) + XS_BV);
		emit8(e, XC_X87);
		initial = emit_jcc(e, CC_E);
	}
	emit_bytes(e, (const u8[]){ 0xdb, 0xe3 }, 2); /* fninit */
	if (initial)
		emit_patch(e, initial);
	emit_bytes(e, (const u8[]){ 0xd9, 0x80 | 5 << 3 | RDI }, 2); /* fldcw */
	emit32(e, GS(fcw_host));
	emit_bytes(e, (const u8[]){ 0x0f, 0xae, 0x80 | 2 << 3 | RDI }, 3); /* ldmxcsr */
	emit32(e, GS(mxcsr_host));
	if (host->avx)
		emit_bytes(e, (const u8[]){ 0xc5, 0xf8, 0x77 }, 3); /* vzeroupper */
	emit_patch(e, none);
}

static const u8 saved_by_callee[] = { RBX, RBP, R12, R13, R14, R15 };

static void make_enter(struct emit *e, struct stubs *s, const struct x86_host *host)
{
	s->enter = emit_pc(e);
	for (unsigned i = 0; i < ARRAY_SIZE(saved_by_callee); i++) {
		emit_rex(e, false, 0, 0, saved_by_callee[i]);
		emit8(e, 0x50 | (saved_by_callee[i] & 7));
	}
	emit_bytes(e, (const u8[]){ 0x48, 0x83, 0xec, 0x08 }, 4); /* sub rsp, 8 */
	if (host->fsgsbase) {
		emit_bytes(e, (const u8[]){ 0xf3, 0x48, 0x0f, 0xae, 0xc8 }, 5); /* rdgsbase rax */
		emit_op_base(e, true, 0x89, RAX, RDI, GS(host_gs));
		emit_bytes(e, (const u8[]){ 0xf3, 0x48, 0x0f, 0xae, 0xdf }, 5); /* wrgsbase rdi */
	}
	emit_store_gs(e, RSP, GS(host_rsp));
	emit_vectors_in(e, host);
	emit_mov(e, T1, RSI);
	emit_reload(e, ARRAY_SIZE(held));
	emit_jmp_t1(e);
}

static void make_leave(struct emit *e, struct stubs *s, const struct x86_host *host)
{
	s->leave = emit_pc(e);
	emit_load_gs(e, RDI, GS(self));
	emit_vectors_out(e, host);
	if (host->fsgsbase) {
		emit_op_base(e, true, 0x8b, RAX, RDI, GS(host_gs));
		emit_bytes(e, (const u8[]){ 0xf3, 0x48, 0x0f, 0xae, 0xd8 }, 5); /* wrgsbase rax */
	}
	emit_bytes(e, (const u8[]){ 0x48, 0x83, 0xc4, 0x08 }, 4);
	for (unsigned i = ARRAY_SIZE(saved_by_callee); i--;) {
		emit_rex(e, false, 0, 0, saved_by_callee[i]);
		emit8(e, 0x58 | (saved_by_callee[i] & 7));
	}
	emit8(e, 0xc3);
}

enum result {
	RESULT_NONE,  /* registers as the helper left them */
	RESULT_T0,    /* a host address, registers as they were */
	RESULT_DELTA, /* T0: it, less the linear address that was in T0 */
	RESULT_T1,    /* T1; and T0 = stub_t0 */
};

static void emit_result(struct emit *e, enum result result)
{
	if (result == RESULT_T0 || result == RESULT_DELTA)
		emit_mov(e, T0, RAX);
	if (result == RESULT_DELTA)
		emit_alu_gs(e, ALU_SUB, T0, GS(stub_lin));
	if (result == RESULT_T1) {
		emit_mov(e, T1, RAX);
		emit_load_gs(e, T0, GS(stub_t0));
	}
}

/* A call of a function of slow.c or dispatch.c; where its address is, is kept for watch_apply(). */
static void emit_call_slow(struct emit *e, struct stubs *s, const void *fn)
{
	struct watch_sites *w = &s->watch;

	emit_call_c(e, fn);
	if (w->n == WATCH_SITES)
		e->overflow = true;
	else
		w->at[w->n++] = e->p - CALL_C_TAIL - sizeof(u64);
}

/* A call from a block: save, call C, come back; or drop the return address and resume elsewhere. */
static u64 make_call(struct emit *e, struct stubs *s, const void *fn, bool address,
		     enum result result)
{
	u64 pc = emit_pc(e);
	u8 *gone, *stale = NULL;

	if (result == RESULT_DELTA)
		emit_store_gs(e, T0, GS(stub_lin));
	emit_save(e);
	emit_bytes(e, (const u8[]){ 0x48, 0x83, 0xec, 0x08 }, 4);
	emit_load_gs(e, RDI, GS(self));
	emit_mov(e, RSI, T1);
	if (address)
		emit_mov(e, RDX, T0);
	emit_call_slow(e, s, fn);
	emit_test_rax(e);
	gone = emit_jcc(e, CC_E);
	if (address) {
		/* Not in C: no signal comes between this and the block that would be served there. */
		emit_cmp16_gs_zero(e, GS(stale));
		stale = emit_jcc(e, CC_NE);
	}
	emit_bytes(e, (const u8[]){ 0x48, 0x83, 0xc4, 0x08 }, 4);
	emit_result(e, result);
	/* A memory access changes no register; a helper may change any. */
	emit_reload(e, result ? HELD_CLOBBERED : ARRAY_SIZE(held));
	emit8(e, 0xc3);
	emit_patch(e, gone);
	if (stale)
		emit_patch(e, stale);
	emit_bytes(e, (const u8[]){ 0x48, 0x83, 0xc4, 0x10 }, 4);
	emit_load_gs(e, RDI, GS(self));
	emit_call_slow(e, s, engine_resume);
	emit_continue(e, s->leave);
	return pc;
}

/* Flags are in cpu.aflags, T0 = RIP: find the block in C. */
static void make_dispatch_c(struct emit *e, struct stubs *s)
{
	s->dispatch_c = emit_pc(e);
	s->kick = s->dispatch_c;
	emit_flags_save(e, T1, GS_AFLAGS);
	s->dispatch_c_saved = emit_pc(e);
	emit_save(e);
	emit_load_gs(e, RDI, GS(self));
	emit_mov(e, RSI, T0);
	emit_call_slow(e, s, engine_dispatch);
	emit_continue(e, s->leave);
}

/* T1 = an entry of the branch cache of the current mode: go where it says when it is of the RIP in T0. */
static void emit_entry(struct emit *e, const struct stubs *s, bool count)
{
	emit_op_base(e, true, ALU_CMP << 3 | 3, T0, T1, offsetof(struct ibtc_entry, rip));
	emit_jcc_to(e, CC_NE, s->dispatch_c_saved);
	emit_alu_imm(e, true, ALU_AND, T0, -(s32)PAGE_SIZE);
	emit_store_gs(e, T0, GS(rip_page));
	if (count)
		emit_op_gs(e, true, 0xff, 0, GS(cached));		       /* inc */
	emit_op_base(e, true, 0xff, 4, T1, offsetof(struct ibtc_entry, code)); /* jmp [t1 + code] */
}

static void make_dispatch(struct emit *e, struct stubs *s, bool count)
{
	s->dispatch = emit_pc(e);
	emit_flags_save(e, T1, GS_AFLAGS);
	s->dispatch_saved = emit_pc(e);
	emit_cmp16_gs_zero(e, GS(cpu.kick));
	emit_jcc_to(e, CC_NE, s->dispatch_c_saved);
	emit_mov32(e, T1, T0);
	emit_shift(e, false, SHIFT_SHR, T1, IBTC_BITS);
	emit_alu(e, ALU_XOR, T1, T0);
	emit_alu_gs(e, ALU_XOR, T1, GS(salt_now));
	emit_alu_imm(e, false, ALU_AND, T1, IBTC_SIZE - 1);
	emit_shift(e, false, SHIFT_SHL, T1, 4);
	emit_alu_gs(e, ALU_ADD, T1, GS(ibtc));
	emit_entry(e, s, count);
}

/* The entry at T1, an offset in the branch cache, was of another RIP than the one in T0: flags are saved, and were polled. */
static void make_near(struct emit *e, struct stubs *s, bool count)
{
	s->near = emit_pc(e);
	emit_alu_imm(e, false, ALU_XOR, T1, sizeof(struct ibtc_entry) * ibtc_near(0));
	emit_alu_gs(e, ALU_ADD, T1, GS(ibtc));
	emit_entry(e, s, count);
}

static void make_link(struct emit *e, struct stubs *s)
{
	s->link = emit_pc(e);
	emit_flags_save(e, T0, GS_AFLAGS);
	s->link_saved = emit_pc(e);
	emit_save(e);
	emit_load_gs(e, RDI, GS(self));
	emit_mov(e, RSI, T1);
	emit_call_slow(e, s, engine_link);
	emit_continue(e, s->leave);
}

/* Flags are in cpu.aflags, or dead. */
static void make_narrow(struct emit *e, struct stubs *s)
{
	s->narrow = emit_pc(e);
	emit_save(e);
	emit_load_gs(e, RDI, GS(self));
	emit_mov(e, RSI, T1);
	emit_call_slow(e, s, engine_narrow);
	emit_continue(e, s->leave);
}

static void make_done(struct emit *e, struct stubs *s)
{
	s->done = emit_pc(e);
	emit_flags_save(e, T0, GS_AFLAGS);
	emit_save(e);
	emit_op_gs(e, false, 0xc7, 0, GS(reason));
	emit32(e, LEAVE_DONE);
	emit_jmp_to(e, s->leave);
}

/* The return address says which block was to be entered. */
static void make_dead(struct emit *e, struct stubs *s)
{
	s->dead = emit_pc(e);
	emit_op_base(e, true, 0x8b, T1, RSP, 0);
	emit_lea(e, RSP, RSP, EMIT_NO_REG, 1, 8, 8);
	emit_save(e);
	emit_load_gs(e, RDI, GS(self));
	emit_mov(e, RSI, T1);
	emit_call_slow(e, s, engine_dead);
	emit_continue(e, s->leave);
}

bool stubs_make(struct engine_vcpu *v)
{
	const struct x86_host *host = &v->engine->host;
	struct cache *c = &v->cache;
	struct emit e = { c->code_w + 64, c->code_w + c->code_size, c->delta, false };
	struct stubs *s = &v->stubs;

	make_enter(&e, s, host);
	make_leave(&e, s, host);
	s->fault = s->leave;
	make_dispatch_c(&e, s);
	make_dispatch(&e, s, v->engine->options.verbose);
	make_near(&e, s, v->engine->options.verbose);
	make_link(&e, s);
	make_narrow(&e, s);
	make_done(&e, s);
	make_dead(&e, s);
	c->dead_stub = s->dead;
	s->mem_slow = make_call(&e, s, engine_mem_slow, true, RESULT_T0);
	s->mem_slow_delta = make_call(&e, s, engine_mem_slow, true, RESULT_DELTA);
	s->mem_slow_t1 = make_call(&e, s, engine_mem_slow, true, RESULT_T1);
	s->mem_call = make_call(&e, s, engine_mem_call, false, RESULT_T0);
	s->op = make_call(&e, s, engine_op, false, RESULT_NONE);
	s->audit = make_call(&e, s, engine_audit, false, RESULT_NONE);
	c->stubs_end = c->code_used = ALIGN_UP((size_t)(e.p - c->code_w), (size_t)64);
	return !e.overflow;
}

/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The calls out of translated code as they are while a VM is watched: they say where the vCPU is. Leaf code. */
#include "engine/vcpu.h"

static inline void where_set(struct engine_vcpu *v, u32 where)
{
	__atomic_store_n(&v->where, where, __ATOMIC_RELAXED);
}

/* Back in the guest, or on the way out: what comes next says so itself. */
static void *watched_mem_slow(struct engine_vcpu *v, const struct x86_insn *insn, gva_t lin)
{
	void *host;

	where_set(v, WHERE_SLOW);
	host = engine_mem_slow(v, insn, lin);
	where_set(v, host ? WHERE_GUEST : WHERE_ENGINE);
	return host;
}

static void *watched_mem_call(struct engine_vcpu *v, const struct x86_insn *insn)
{
	void *host;

	where_set(v, WHERE_SLOW);
	host = engine_mem_call(v, insn);
	where_set(v, host ? WHERE_GUEST : WHERE_ENGINE);
	return host;
}

static u64 watched_op(struct engine_vcpu *v, const struct x86_insn *insn)
{
	u64 goes_on;

	where_set(v, WHERE_OP + insn->op);
	goes_on = engine_op(v, insn);
	where_set(v, goes_on ? WHERE_GUEST : WHERE_ENGINE);
	return goes_on;
}

static inline u64 found(struct engine_vcpu *v, u64 code)
{
	where_set(v, code ? WHERE_GUEST : WHERE_ENGINE);
	return code;
}

static u64 watched_resume(struct engine_vcpu *v)
{
	where_set(v, WHERE_DISPATCH);
	return found(v, engine_resume(v));
}

static u64 watched_dispatch(struct engine_vcpu *v, u64 rip)
{
	where_set(v, WHERE_DISPATCH);
	return found(v, engine_dispatch(v, rip));
}

static u64 watched_dead(struct engine_vcpu *v, u64 pc)
{
	where_set(v, WHERE_DISPATCH);
	return found(v, engine_dead(v, pc));
}

static u64 watched_link(struct engine_vcpu *v, struct exit_link *l)
{
	where_set(v, WHERE_DISPATCH);
	return found(v, engine_link(v, l));
}

static u64 watched_narrow(struct engine_vcpu *v, struct mem_site *site)
{
	where_set(v, WHERE_DISPATCH);
	return found(v, engine_narrow(v, site));
}

static const struct {
	const void *plain, *watched;
} calls[] = {
	{ engine_mem_slow, watched_mem_slow },
	{ engine_mem_call, watched_mem_call },
	{ engine_op, watched_op },
	{ engine_resume, watched_resume },
	{ engine_dispatch, watched_dispatch },
	{ engine_dead, watched_dead },
	{ engine_link, watched_link },
	{ engine_narrow, watched_narrow },
};

/* In one store; the call that led here has read its address. */
static void site_point(u8 *at, bool watched)
{
	u64 now, then;

	__builtin_memcpy(&now, at, sizeof(now));
	then = now;
	for (unsigned i = 0; i < ARRAY_SIZE(calls); i++)
		if (now == (u64)calls[i].plain || now == (u64)calls[i].watched)
			then = (u64)(watched ? calls[i].watched : calls[i].plain);
	__builtin_memcpy(at, &then, sizeof(then));
}

void watch_apply(struct engine_vcpu *v)
{
	const bool watched = __atomic_load_n(&v->engine->watched, __ATOMIC_SEQ_CST);

	for (u32 i = 0; i < v->stubs.watch.n; i++)
		site_point(v->stubs.watch.at[i], watched);
}

/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Counters of vCPUs by name, and watching where their time goes. */
#include <pthread.h>

#include "engine/vcpu.h"
#include "engine/x86/memo.h"

static const char *const op_names[X86_OP_COUNT] = {
	"helper_raise",
#define X86_OP(name, context) "helper_" #name,
#include "cpu/x86/ops.def"
#undef X86_OP
};

#define AT(field) offsetof(struct engine_vcpu, field)
static const struct {
	const char *name;
	size_t at; /* a u64 */
} rows[] = {
	{ "blocks", AT(cache.translated) },
	{ "insns_translated", AT(cache.insns) },
	{ "translate_cycles", AT(cache.cycles) },
	{ "code_bytes", AT(cache.bytes) },
	{ "blocks_killed", AT(cache.killed) },
	{ "pages_verified", AT(cache.verified) },
	{ "blocks_stale", AT(cache.verify_killed) },
	{ "cache_resets", AT(cache.resets) },
	{ "enters", AT(stats.enters) },
	{ "dispatches", AT(stats.dispatches) },
	{ "branch_cache_fills", AT(stats.ibtc_fills) },
	{ "links", AT(stats.links) },
	{ "exits_chained", AT(chained) },
	{ "exits_cached", AT(cached) },
	{ "mem_slow", AT(stats.mem_slow) },
	{ "mem_calls", AT(stats.mem_calls) },
	{ "tlb_fills", AT(stats.tlb_fills) },
	{ "tlb_flushes", AT(stats.tlb_flushes) },
	{ "requests", AT(requests.epoch) },
	{ "audits", AT(stats.audits) },
	{ "audit_gone", AT(stats.audit_gone) },
	{ "audit_stale", AT(stats.audit_stale) },
	{ "execute_tag_fills", AT(stats.itlb_fills) },
	{ "helpers", AT(stats.ops) },
	{ "helpers_left_block", AT(stats.ops_left) },
	{ "helpers_full", AT(stats.full_ops) },
	{ "bounces", AT(stats.bounces) },
	{ "faults", AT(stats.faults) },
	{ "code_writes", AT(stats.code_writes) },
	{ "steps", AT(stats.steps) },
	{ "unknown_instructions", AT(cpu.unknown_insns) },
	{ "unknown_msrs", AT(cpu.unknown_msrs) },
};

/*
 * What a vCPU looks addresses and instructions up in: address space that its tables have, of which a guest touches what it
 * uses. Without the code cache, which is counted by itself.
 */
#define TABLE_BYTES                                                                                \
	(sizeof(struct engine_vcpu) + SPACES * TLB_CONTEXTS * sizeof(struct tlb) +                 \
	 sizeof(struct memo))
#define TLB_AND_SITES                                                                              \
	(SPACES * TLB_CONTEXTS * sizeof(struct tlb) + IBTC_MODES * sizeof(struct ibtc) +           \
	 2 * sizeof(struct regcache) + sizeof(((struct engine_vcpu *)0)->rc_stub) +                \
	 sizeof(((struct engine_vcpu *)0)->itlb))
_Static_assert(TLB_AND_SITES <= 8u << 20, "TLB and site tables of a vCPU are at most 8 MiB");

/* Running vCPUs go on counting. */
static u64 read_at(const struct engine_vcpu *v, size_t at)
{
	return __atomic_load_n((const u64 *)((const u8 *)v + at), __ATOMIC_RELAXED);
}

static u64 sum(const struct engine *e, const struct engine_vcpu *only, size_t at)
{
	u64 n = 0;

	if (only)
		return read_at(only, at);
	for (const struct engine_vcpu *v = e->vcpus; v; v = v->next)
		n += read_at(v, at);
	return n;
}

/* How full the code cache is, and what the tables take. */
static void levels_visit(const struct engine *e, const struct engine_vcpu *only, counter_fn fn,
			 void *arg)
{
	const u64 n = only ? 1 : __atomic_load_n(&e->nvcpus, __ATOMIC_RELAXED);
	u64 blocks = 0;

	for (const struct engine_vcpu *v = only ? only : e->vcpus; v; v = only ? NULL : v->next)
		blocks += __atomic_load_n(&v->cache.nblocks, __ATOMIC_RELAXED);
	fn(arg, "cache_blocks", blocks);
	fn(arg, "cache_code_bytes", sum(e, only, AT(cache.code_used)));
	fn(arg, "cache_code_room", sum(e, only, AT(cache.code_size)));
	fn(arg, "cache_record_bytes", sum(e, only, AT(cache.meta_used)));
	fn(arg, "cache_record_room", sum(e, only, AT(cache.meta_size)));
	fn(arg, "tlb_and_site_bytes", n * TLB_AND_SITES);
	fn(arg, "table_bytes", n * TABLE_BYTES);
}

void engine_counters(struct engine *e, const struct engine_vcpu *only, counter_fn fn, void *arg)
{
	u64 n;

	pthread_mutex_lock(&e->lock);
	for (unsigned i = 0; i < ARRAY_SIZE(rows); i++)
		fn(arg, rows[i].name, sum(e, only, rows[i].at));
	n = sum(e, only, AT(inline_hits));
	fn(arg, "mem_inline", n ? n - sum(e, only, AT(stats.mem_slow)) : 0);
	levels_visit(e, only, fn, arg);
	for (unsigned i = 0; i < X86_OP_COUNT; i++) {
		n = sum(e, only, AT(op_calls) + i * sizeof(u64));
		if (n)
			fn(arg, op_names[i], n);
	}
	pthread_mutex_unlock(&e->lock);
}

void engine_watch(struct engine *e, bool on)
{
	__atomic_store_n(&e->watched, on, __ATOMIC_SEQ_CST);
	pthread_mutex_lock(&e->lock);
	requests_post_all(e, REQUEST_WATCH);
	pthread_mutex_unlock(&e->lock);
}

bool engine_is_in(const struct engine_vcpu *v)
{
	return __atomic_load_n(&v->requests.in, __ATOMIC_RELAXED);
}

u32 engine_where(const struct engine_vcpu *v)
{
	return __atomic_load_n(&v->where, __ATOMIC_RELAXED);
}

const char *engine_where_name(u32 where)
{
	static const char *const names[WHERE_OP] = {
		[WHERE_GUEST] = "guest",       [WHERE_SLOW] = "slow_path",
		[WHERE_DISPATCH] = "dispatch", [WHERE_TRANSLATE] = "translate",
		[WHERE_DEVICE] = "device",     [WHERE_ENGINE] = "engine",
	};

	if (where >= WHERE_COUNT)
		return NULL;
	return where < WHERE_OP ? names[where] : op_names[where - WHERE_OP];
}

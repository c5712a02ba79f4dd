/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Creation and destruction of engines and vCPUs, requests from outside. */
#define _GNU_SOURCE
#include "engine/engine.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "engine/vcpu.h"
#include "engine/x86/memo.h"
#include "mem/dirty.h"

static pthread_once_t once = PTHREAD_ONCE_INIT;
static int init_error;

static void init(void)
{
	decode_init();
	init_error = signals_install();
}

int engine_init(const char **why)
{
	pthread_once(&once, init);
	if (init_error)
		*why = "signal handlers for guest exceptions could not be installed";
	return init_error;
}

struct engine *engine_create(struct mem *mem, const struct engine_options *options)
{
	struct engine *e = calloc(1, sizeof(*e));
	const char *why;
	int err = -ENOMEM;

	if (!e)
		goto out;
	e->options = *options;
	e->mem = mem;
	if (options->host)
		e->host = *options->host;
	err = options->host ? 0 : x86_host_probe(&e->host, options->cpu_mask, &why);
	if (err)
		goto out_engine;
	pthread_mutex_init(&e->lock, NULL);
	return e;

out_engine:
	free(e);
out:
	errno = -err;
	return NULL;
}

void engine_destroy(struct engine *e)
{
	pthread_mutex_destroy(&e->lock);
	free(e);
}

static void *pages_get(size_t n)
{
	void *p = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
		       -1, 0);

	return p == MAP_FAILED ? NULL : p;
}

struct tlb *tlb_new(void)
{
	struct tlb *t = pages_get(sizeof(*t));

	if (!t)
		return NULL;
	/* Zero is the tag of page 0, whose index is 0: no tag for the others, and their memory stays untouched. */
	t->e[0].tag_r = t->e[0].tag_w = tlb_no_tag(0);
	t->large_lo = ~0ull;
	return t;
}

/* A store of this vCPU is about to hit translated code. Leaf. */
static void code_written(void *engine, struct slot *slot, gpa_t gpa, unsigned len)
{
	struct engine_vcpu *v = engine;
	gpa_t key = cache_key(v->cpu.space, gpa);

	v->stats.code_writes++;
	if (cache_written(&v->cache, slot, key, len)) {
		v->smc = true;
		v->smc_page = key & PAGE_MASK;
	}
	if (page_code_holders(slot, gpa >> PAGE_SHIFT)) {
		struct code_page *p = cache_page_find(&v->cache, key & PAGE_MASK);

		if (page_code_holders(slot, gpa >> PAGE_SHIFT) > (p && p->serial == slot->serial))
			requests_note_written(v, key, len);
	}
}

struct engine_vcpu *engine_vcpu_create(struct engine *e)
{
	struct engine_vcpu *v = pages_get(sizeof(*v));
	u32 others;
	bool ok;

	if (!v)
		goto out;
	v->self = v;
	v->engine = e;
	v->tr_room = malloc(translate_room());
	v->memo = pages_get(sizeof(*v->memo));
	v->decode = decode;
	v->audit_left = e->options.audit;
	if (!v->tr_room || !v->memo || cache_create(&v->cache) || !stubs_make(v)) {
		engine_vcpu_destroy(v);
		goto out;
	}
	ok = true;
	for (unsigned i = 0; i < SPACES * TLB_CONTEXTS; i++) {
		struct tlb **t = &v->spaces[i / TLB_CONTEXTS].context[i % TLB_CONTEXTS];

		*t = tlb_new();
		ok &= *t != NULL;
	}
	v->spaces[0].used = true;
	v->global_range = (struct lin_range){ ~0ull, 0 };
	if (!ok) {
		engine_vcpu_destroy(v);
		goto out;
	}
	for (unsigned i = 0; i < ITLB_SIZE; i++)
		v->itlb[i].tag = ITLB_NO_TAG;
	v->cpu.mem = e->mem;
	v->cpu.writer = mem_writer_create(e->mem);
	if (!v->cpu.writer) {
		engine_vcpu_destroy(v);
		goto out;
	}
	v->cpu.engine = v;
	v->cpu.code_written = code_written;
	perf_map_stubs(v);
	pthread_mutex_lock(&e->lock);
	v->next = e->vcpus;
	__atomic_store_n(&e->vcpus, v, __ATOMIC_RELEASE);
	if (e->watched)
		requests_post_all(e, REQUEST_WATCH);
	others = __atomic_fetch_add(&e->nvcpus, 1, __ATOMIC_SEQ_CST);
	pthread_mutex_unlock(&e->lock);
	/* Before the second vCPU runs, the first must not store beside code any more without asking. */
	if (others == 1)
		requests_ask_all(e, v, REQUEST_DROP_WRITE);
	return v;
out:
	errno = ENOMEM;
	return NULL;
}

void engine_vcpu_destroy(struct engine_vcpu *v)
{
	struct engine_vcpu **p = &v->engine->vcpus;

	pthread_mutex_lock(&v->engine->lock);
	while (*p && *p != v)
		p = &(*p)->next;
	if (*p) {
		*p = v->next;
		v->engine->nvcpus--;
	}
	pthread_mutex_unlock(&v->engine->lock);
	if (v->cache.code_w)
		cache_reset(&v->cache, v->engine->mem);
	cache_destroy(&v->cache);
	mem_writer_destroy(v->cpu.writer);
	free(v->tr_room);
	if (v->memo)
		munmap(v->memo, sizeof(*v->memo));
	for (unsigned i = 0; i < SPACES * TLB_CONTEXTS; i++) {
		struct tlb *t = v->spaces[i / TLB_CONTEXTS].context[i % TLB_CONTEXTS];

		if (t)
			munmap(t, sizeof(*t));
	}
	munmap(v, sizeof(*v));
}

struct x86_cpu *engine_cpu(struct engine_vcpu *v)
{
	return &v->cpu;
}

void engine_state_changed(struct engine_vcpu *v)
{
	itlb_flush_all(v);
	v->cpu.flush.all = v->cpu.flush.switched = true;
	v->reason = LEAVE_NONE;
	v->step = STEP_NONE;
	v->has_again = false;
	v->unshadow = v->unrf = v->single = false;
}

void engine_kick(struct engine_vcpu *v)
{
	__atomic_store_n(&v->cpu.kick, 1, __ATOMIC_RELEASE);
}

void engine_flush_all(void *engine)
{
	requests_ask_all(engine, NULL, REQUEST_FLUSH);
}

void engine_drop_writes(void *engine, bool granted_only)
{
	requests_drop_writes(engine, granted_only);
}

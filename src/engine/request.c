/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Requests between vCPUs: drop tags, flush, code was written. Leaf code; waiting is in wait.c. */
#include <sys/syscall.h>

#include "base/bulk.h"
#include "engine/vcpu.h"
#include "mem/dirty.h"

#define STOP_SPINS 200

/*
 * Non-temporal stores stay in write-combining buffers, past plain stores that follow them, until an SFENCE, an interrupt or a
 * locked instruction. Who acknowledges has made two locked exchanges since the guest's last store, so their order is the fence;
 * who goes OUT may have made none. In a build that the tests must find out (meson's option "broken") neither drains anything:
 * what is exchanged is loaded and stored, which one asker at a time cannot tell apart.
 */
#ifdef ANYKVM_BROKEN_FENCE
#define EXCHANGE_DRAINING(p, value)                                                                \
	({                                                                                         \
		__auto_type was_ = __atomic_load_n(p, __ATOMIC_RELAXED);                           \
		__atomic_store_n(p, value, __ATOMIC_RELEASE);                                      \
		was_;                                                                              \
	})
static void stores_fence(void)
{
}
#else
#define EXCHANGE_DRAINING(p, value) __atomic_exchange_n(p, value, __ATOMIC_SEQ_CST)
static void stores_fence(void)
{
	__asm__ volatile("sfence" ::: "memory");
}
#endif

static void lock(struct requests *r)
{
	while (__atomic_exchange_n(&r->lock, 1, __ATOMIC_ACQUIRE))
		__builtin_ia32_pause();
}

static void unlock(struct requests *r)
{
	__atomic_store_n(&r->lock, 0, __ATOMIC_RELEASE);
}

static void written_serve(struct engine_vcpu *v)
{
	struct requests *r = &v->requests;
	struct written_range range[WRITTEN_MAX];
	u32 n;

	lock(r);
	n = r->nwritten;
	bulk_copy(range, r->written, sizeof(range));
	r->nwritten = 0;
	unlock(r);
	if (n > WRITTEN_MAX) {
		cache_verify_all(&v->cache, v->engine->mem);
		return;
	}
	for (u32 i = 0; i < n; i++) {
		struct slot *s = mem_slot_find(v->engine->mem, range[i].gpa >> 60,
					       cache_gpa(range[i].gpa) >> PAGE_SHIFT, NULL);

		if (s)
			cache_written(&v->cache, s, range[i].gpa, range[i].len);
	}
}

void requests_verify_later(struct engine_vcpu *v)
{
	struct requests *r = &v->requests;

	lock(r);
	r->nwritten = WRITTEN_MAX + 1;
	unlock(r);
	__atomic_fetch_or(&r->wanted, REQUEST_WRITTEN, __ATOMIC_SEQ_CST);
	__atomic_store_n(&v->cpu.request, 1, __ATOMIC_SEQ_CST);
}

/* Let the host run somebody else: a system call keeps all guest registers that leaf code must keep. */
static void yield(void)
{
	long nr = SYS_sched_yield;

	__asm__ volatile("syscall" : "+a"(nr) : : "rcx", "r11", "memory");
}

static void exclusive_wait(const struct engine_vcpu *v)
{
	for (unsigned n = 0; __atomic_load_n(&v->engine->exclusive, __ATOMIC_SEQ_CST); n++) {
		if (n < STOP_SPINS)
			__builtin_ia32_pause();
		else
			yield();
	}
}

/* IN, but not while another vCPU runs alone. Whoever stops the others sets .exclusive first and then looks at .in. */
static void come_in(struct engine_vcpu *v)
{
	struct engine *e = v->engine;
	const struct engine_vcpu *owner;
	bool waited = false;

	for (;;) {
		(void)__atomic_exchange_n(&v->requests.in, true, __ATOMIC_SEQ_CST);
		owner = __atomic_load_n(&e->exclusive, __ATOMIC_SEQ_CST);
		if (likely(!owner || owner == v))
			break;
		vcpu_out(v);
		if (!waited)
			__atomic_add_fetch(&e->stopped, 1, __ATOMIC_SEQ_CST);
		waited = true;
		exclusive_wait(v);
	}
	if (unlikely(waited))
		__atomic_sub_fetch(&e->stopped, 1, __ATOMIC_SEQ_CST);
}

static bool serve_once(struct engine_vcpu *v)
{
	struct requests *r = &v->requests;
	u64 epoch;
	u32 wanted;

	r->serving = true;
	__atomic_signal_fence(__ATOMIC_SEQ_CST);
	/*
	 * Whoever asks after the load of epoch sets cpu.request again. The store must be visible before that load:
	 * as a plain store it could wait in the store buffer and then undo the setting, and the asker would wait for ever.
	 */
	(void)EXCHANGE_DRAINING(&v->cpu.request, 0);
	epoch = __atomic_load_n(&r->epoch, __ATOMIC_SEQ_CST);
	wanted = EXCHANGE_DRAINING(&r->wanted, 0);
	if (wanted & REQUEST_FLUSH)
		tlb_flush_all(v);
	if (wanted & REQUEST_DROP_WRITE)
		tlb_drop_all_writes(v);
	if (wanted & REQUEST_WRITTEN)
		written_serve(v);
	if (unlikely(wanted & REQUEST_WATCH))
		watch_apply(v);
	/* Stores that went through a dropped tag are visible, non-temporal ones by the exchanges above. */
	__atomic_store_n(&r->acked, epoch, __ATOMIC_RELEASE);
	__atomic_signal_fence(__ATOMIC_SEQ_CST);
	r->serving = false;
	return wanted & REQUEST_STOP;
}

/*
 * The interrupted code may hold host addresses of pages that it was allowed to write. They are recorded again before the
 * acknowledgement, so its stores belong to the next log; and a tag that it is about to install has its record.
 * Earlier instructions of the block may have checked addresses for the ones to come: the block is left before these.
 */
void requests_serve_stuck(struct engine_vcpu *v)
{
	struct requests *r = &v->requests;
	u64 epoch = __atomic_load_n(&r->epoch, __ATOMIC_SEQ_CST);

	if (r->serving || !r->in || !v->cpu.request ||
	    (__atomic_load_n(&r->wanted, __ATOMIC_SEQ_CST) & ~REQUEST_WATCH) !=
		    REQUEST_DROP_WRITE ||
	    !dirty_renew(v->cpu.writer))
		return;
	/* .wanted stays: it is served once more when the code comes to a poll. */
	tlb_drop_all_writes(v);
	v->stale = true;
	v->cpu.writer->granted = true;
	__asm__ volatile("mfence" ::: "memory");
	__atomic_store_n(&r->acked, epoch, __ATOMIC_RELEASE);
}

void requests_serve(struct engine_vcpu *v)
{
	do {
		if (unlikely(serve_once(v))) {
			vcpu_out(v);
			come_in(v);
		}
	} while (unlikely(__atomic_load_n(&v->requests.wanted, __ATOMIC_SEQ_CST)));
}

/* Let @r take in @more, when it is of the same page. */
static bool range_join(struct written_range *r, const struct written_range *more)
{
	gpa_t end = r->gpa + r->len, other = more->gpa + more->len;

	if ((r->gpa ^ more->gpa) & PAGE_MASK)
		return false;
	r->gpa = r->gpa < more->gpa ? r->gpa : more->gpa;
	r->len = (end > other ? end : other) - r->gpa;
	return true;
}

void requests_note_written(struct engine_vcpu *v, gpa_t key, u32 len)
{
	const struct written_range w = { key, len };

	v->smc = true; /* the block is left behind this instruction, and the others are told */
	if (v->npending && v->npending <= ARRAY_SIZE(v->pending) &&
	    range_join(&v->pending[v->npending - 1], &w))
		return;
	if (v->npending < ARRAY_SIZE(v->pending))
		v->pending[v->npending] = w;
	v->npending++;
}

/* Who does not come to serve them for long gets wider ranges before none at all. */
static void range_add(struct requests *r, const struct written_range *w)
{
	if (r->nwritten && r->nwritten <= WRITTEN_MAX) {
		const struct written_range *last = &r->written[r->nwritten - 1];

		if (last->gpa == w->gpa && last->len == w->len)
			return;
	}
	if (r->nwritten < WRITTEN_MAX) {
		r->written[r->nwritten++] = *w;
		return;
	}
	for (u32 i = 0; r->nwritten == WRITTEN_MAX && i < WRITTEN_MAX; i++)
		if (range_join(&r->written[i], w))
			return;
	r->nwritten = WRITTEN_MAX + 1;
}

static void tell(struct engine_vcpu *o, const struct engine_vcpu *v)
{
	struct requests *r = &o->requests;

	lock(r);
	if (v->npending > ARRAY_SIZE(v->pending))
		r->nwritten = WRITTEN_MAX + 1;
	for (u32 i = 0; i < v->npending && i < ARRAY_SIZE(v->pending); i++)
		range_add(r, &v->pending[i]);
	unlock(r);
	__atomic_fetch_or(&r->wanted, REQUEST_WRITTEN, __ATOMIC_SEQ_CST);
	__atomic_store_n(&o->cpu.request, 1, __ATOMIC_SEQ_CST);
}

/*
 * Tell the other vCPUs of stores to code, after the store: what they translated from the bytes before is found then,
 * and a store to a flag that follows in program order is seen after this. Nobody waits.
 */
void requests_post_written(struct engine_vcpu *v)
{
	for (struct engine_vcpu *o = __atomic_load_n(&v->engine->vcpus, __ATOMIC_ACQUIRE); o;
	     o = o->next)
		if (o != v)
			tell(o, v);
	v->npending = 0;
}

void vcpu_in(struct engine_vcpu *v)
{
	come_in(v);
	if (__atomic_load_n(&v->requests.wanted, __ATOMIC_SEQ_CST))
		requests_serve(v);
}

void vcpu_out(struct engine_vcpu *v)
{
	stores_fence();
	__atomic_store_n(&v->requests.in, false, __ATOMIC_RELEASE);
}

/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Asking all vCPUs and waiting until each has done it or is outside. Full context. */
#include <sched.h>
#include <time.h>

#include "engine/vcpu.h"
#include "mem/dirty.h"

#define SPINS 2000

static u64 ask(struct engine_vcpu *o, u32 what)
{
	struct requests *r = &o->requests;
	u64 epoch;

	__atomic_fetch_or(&r->wanted, what, __ATOMIC_SEQ_CST);
	epoch = __atomic_add_fetch(&r->epoch, 1, __ATOMIC_SEQ_CST);
	__atomic_store_n(&o->cpu.request, 1, __ATOMIC_SEQ_CST);
	return epoch;
}

static void pause_or_yield(unsigned n)
{
	if (n < SPINS)
		__builtin_ia32_pause();
	else
		sched_yield();
}

#define FETCH_FIRST_NS 200000ull
#define FETCH_AGAIN_NS 5000000ull

static u64 now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000000000ull + ts.tv_nsec;
}

/*
 * A vCPU that does not come may wait for host memory, and whoever provides that may wait for us: a page of userfaultfd
 * whose server asks for the dirty log. So it is fetched by a signal; again, since the first may have come at a wrong moment.
 */
static void wait_for(struct engine_vcpu *o, u64 epoch)
{
	const struct requests *r = &o->requests;
	u64 fetch = 0;

	for (unsigned n = 0;; n++) {
		if (!__atomic_load_n(&r->in, __ATOMIC_SEQ_CST) ||
		    __atomic_load_n(&r->acked, __ATOMIC_ACQUIRE) >= epoch)
			return;
		pause_or_yield(n);
		if (n < SPINS)
			continue;
		if (!fetch)
			fetch = now_ns() + FETCH_FIRST_NS;
		if (now_ns() >= fetch) {
			signals_fetch(o);
			fetch = now_ns() + FETCH_AGAIN_NS;
		}
	}
}

/*
 * Two vCPUs that want to be alone: one waits, as OUT. A vCPU that was IN goes OUT at its next poll, where it is between
 * two instructions; .acked is not enough, since it comes back IN only when the section has ended.
 */
void exclusive_begin(struct engine_vcpu *v)
{
	struct engine *e = v->engine;
	struct engine_vcpu *none = NULL;

	vcpu_out(v);
	for (unsigned n = 0; __atomic_load_n(&e->stopped, __ATOMIC_SEQ_CST) ||
			     !__atomic_compare_exchange_n(&e->exclusive, &none, v, false,
							  __ATOMIC_SEQ_CST, __ATOMIC_RELAXED);
	     n++) {
		none = NULL;
		pause_or_yield(n);
	}
	for (struct engine_vcpu *o = __atomic_load_n(&e->vcpus, __ATOMIC_ACQUIRE); o; o = o->next)
		if (o != v)
			ask(o, REQUEST_STOP);
	for (struct engine_vcpu *o = __atomic_load_n(&e->vcpus, __ATOMIC_ACQUIRE); o; o = o->next)
		for (unsigned n = 0; o != v && __atomic_load_n(&o->requests.in, __ATOMIC_SEQ_CST);
		     n++)
			pause_or_yield(n);
	vcpu_in(v);
}

void exclusive_end(struct engine_vcpu *v)
{
	__atomic_store_n(&v->engine->exclusive, NULL, __ATOMIC_SEQ_CST);
}

#define VCPUS_MAX 1024

static bool holds_grants(const struct engine_vcpu *o)
{
	return __atomic_load_n(&o->cpu.writer->granted, __ATOMIC_SEQ_CST);
}

/*
 * What the tests of dirty logs must notice when it is missing: meson's option "broken", for builds of theirs only. Clearing the
 * bits without stopping the fast path is the mistake that loses guests.
 */
#ifdef ANYKVM_BROKEN_WAIT
#define DROP_WRITES_WAITS false
#else
#define DROP_WRITES_WAITS true
#endif

/* All are asked before any is waited for. */
void requests_drop_writes(struct engine *e, bool granted_only)
{
	u64 epoch[VCPUS_MAX];
	u32 n = 0;
	bool asked[VCPUS_MAX];
	struct engine_vcpu *first = __atomic_load_n(&e->vcpus, __ATOMIC_ACQUIRE);

	for (struct engine_vcpu *o = first; o && n < VCPUS_MAX; o = o->next, n++) {
		asked[n] = !granted_only || holds_grants(o);
		if (asked[n])
			epoch[n] = ask(o, REQUEST_DROP_WRITE);
	}
	n = 0;
	for (struct engine_vcpu *o = first; o && n < VCPUS_MAX && DROP_WRITES_WAITS;
	     o = o->next, n++)
		if (asked[n])
			wait_for(o, epoch[n]);
}

void requests_ask_all(struct engine *e, struct engine_vcpu *self, u32 what)
{
	u64 epoch[VCPUS_MAX];
	u32 n = 0;
	struct engine_vcpu *first = __atomic_load_n(&e->vcpus, __ATOMIC_ACQUIRE);

	for (struct engine_vcpu *o = first; o && n < VCPUS_MAX; o = o->next)
		epoch[n++] = o == self ? 0 : ask(o, what);
	n = 0;
	for (struct engine_vcpu *o = first; o && n < VCPUS_MAX; o = o->next, n++)
		if (o != self)
			wait_for(o, epoch[n]);
}

void requests_post_all(struct engine *e, u32 what)
{
	for (struct engine_vcpu *o = __atomic_load_n(&e->vcpus, __ATOMIC_ACQUIRE); o; o = o->next)
		ask(o, what);
}

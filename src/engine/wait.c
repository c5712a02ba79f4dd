/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Asking all vCPUs and waiting until each has done it or is outside. Full context. */
#include <sched.h>

#include "engine/vcpu.h"

#define SPINS 2000

static u32 ask(struct engine_vcpu *o, u32 what)
{
	struct requests *r = &o->requests;
	u32 epoch;

	__atomic_fetch_or(&r->wanted, what, __ATOMIC_SEQ_CST);
	epoch = __atomic_add_fetch(&r->epoch, 1, __ATOMIC_SEQ_CST);
	__atomic_store_n(&o->cpu.request, 1, __ATOMIC_SEQ_CST);
	return epoch;
}

static void wait_for(struct engine_vcpu *o, u32 epoch)
{
	const struct requests *r = &o->requests;

	for (unsigned n = 0;; n++) {
		if (!__atomic_load_n(&r->in, __ATOMIC_SEQ_CST) ||
		    (s32)(__atomic_load_n(&r->acked, __ATOMIC_ACQUIRE) - epoch) >= 0)
			return;
		if (n < SPINS)
			__builtin_ia32_pause();
		else
			sched_yield();
	}
}

#define VCPUS_MAX 1024

void requests_ask_all(struct engine *e, struct engine_vcpu *self, u32 what)
{
	u32 epoch[VCPUS_MAX], n = 0;
	struct engine_vcpu *first = __atomic_load_n(&e->vcpus, __ATOMIC_ACQUIRE);

	for (struct engine_vcpu *o = first; o && n < VCPUS_MAX; o = o->next)
		epoch[n++] = o == self ? 0 : ask(o, what);
	n = 0;
	for (struct engine_vcpu *o = first; o && n < VCPUS_MAX; o = o->next, n++)
		if (o != self)
			wait_for(o, epoch[n]);
}

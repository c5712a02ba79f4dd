/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* A halted virtual processor sleeps until an event, a signal or immediate_exit. */
#define _GNU_SOURCE
#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/probe.h"
#include "kvm/kvm.h"

/*
 * The futex is the first word of struct kvm_run: request_interrupt_window, immediate_exit and two
 * bytes of padding, of which the last is the doorbell. So one comparison in the kernel sees both a
 * kick and a signal handler that set immediate_exit just before the wait, and none is lost.
 * The wait has a timeout because only then the kernel ends it with EINTR for handlers with SA_RESTART too.
 *
 * DIFFERS: padding1[1] of struct kvm_run is written while a vCPU sleeps; the kernel leaves it alone.
 */
#define DOORBELL 1 /* index in padding1 */
_Static_assert(offsetof(struct kvm_run, immediate_exit) < 4 &&
		       offsetof(struct kvm_run, padding1) + DOORBELL < 4,
	       "one word");

#define SLEEP_NS 1000000000ull
#define SLEEP_MASK_NS                                                                              \
	10000000ull /* pending signals of KVM_SET_SIGNAL_MASK, and cancellation, are looked for */

static u32 *futex_word(struct vcpu *v)
{
	return (u32 *)v->run;
}

void vcpu_doorbell(struct vcpu *v)
{
	__atomic_store_n(&v->run->padding1[DOORBELL], 1, __ATOMIC_SEQ_CST);
}

void vcpu_wake(struct vcpu *v)
{
	vcpu_doorbell(v);
	if (__atomic_load_n(&v->sleeping, __ATOMIC_SEQ_CST))
		syscall(SYS_futex, futex_word(v), FUTEX_WAKE | FUTEX_PRIVATE_FLAG, INT_MAX, NULL,
			NULL, 0);
}

/* 0, -EINTR, or -ERESTART: the thread is to look for its cancellation. */
static int futex_sleep(struct vcpu *v, u32 expected)
{
	bool short_sleep = v->sigmask_active || v->cancellable;
	u64 end = timer_now() + (short_sleep ? SLEEP_MASK_NS : SLEEP_NS);
	struct timespec ts = { end / 1000000000, end % 1000000000 };

	if (syscall(SYS_futex, futex_word(v), FUTEX_WAIT_BITSET | FUTEX_PRIVATE_FLAG, expected, &ts,
		    NULL, FUTEX_BITSET_MATCH_ANY) < 0) {
		if (errno == EINTR)
			return -EINTR;
		if (errno == ETIMEDOUT && v->cancellable)
			return -ERESTART;
	}
	return 0;
}

long vcpu_sleep(struct vcpu *v, bool (*done)(struct vcpu *v))
{
	u64 since = timer_now();
	long r = 1;
	u32 word;

	v->stats.blocking = 1;
	stats_show(&v->stats_file, &v->stats, sizeof(v->stats));
	__atomic_store_n(&v->sleeping, true, __ATOMIC_SEQ_CST);
	for (;;) {
		__atomic_store_n(&v->run->padding1[DOORBELL], 0, __ATOMIC_SEQ_CST);
		word = __atomic_load_n(futex_word(v), __ATOMIC_SEQ_CST);
		if (done(v))
			break;
		r = vcpu_interrupted(v);
		if (r < 0)
			break;
		r = futex_sleep(v, word);
		if (r < 0)
			break;
		r = 1;
	}
	__atomic_store_n(&v->sleeping, false, __ATOMIC_SEQ_CST);
	v->stats.blocking = 0;
	v->stats.halt_wakeup += r > 0;
	since = timer_now() - since;
	v->stats.halt_wait_ns += since;
	PROBE(kvm_vcpu_wakeup, v->id, since, r);
	return r;
}

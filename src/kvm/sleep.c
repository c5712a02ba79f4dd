/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* A halted virtual processor looks for a while, then sleeps, until an event, a signal or immediate_exit. */
#define _GNU_SOURCE
#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <sched.h>
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
	if (__atomic_load_n(&v->rest, __ATOMIC_SEQ_CST) == REST_SLEEPS)
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

/*
 * Who is woken soon after HLT looks at the doorbell before it sleeps, and who wakes it needs no system call. How long it looks
 * follows the kernel's rule (Documentation/virt/kvm/halt-polling.rst): from nothing to 10 us, then twice as long, as long as halts
 * are shorter than the limit; after one that was longer, nothing.
 * DIFFERS: the kernel stops when another task wants the processor. Here it is offered to others all the time, and when one took
 * it, the next halts sleep at once.
 */
#define POLL_FIRST_NS	 10000u
#define POLL_TAKEN_NS	 100000u /* between two looks at the clock: somebody else ran */
#define POLL_TAKEN_HALTS 200
#define POLL_LOOKS	 32

static u32 poll_limit(const struct vcpu *v)
{
	return v->pv.poll_off ? 0 : __atomic_load_n(&v->vm->halt_poll_ns, __ATOMIC_RELAXED);
}

static bool poll_looks(const struct vcpu *v, u32 word)
{
	for (unsigned n = 0; n < POLL_LOOKS; n++) {
		if (__atomic_load_n((const u32 *)v->run, __ATOMIC_ACQUIRE) != word)
			return true;
		__builtin_ia32_pause();
	}
	return false;
}

/* Whether the word changed, so that there is something to look at. */
static bool poll(struct vcpu *v, u32 word, u64 since)
{
	u64 at = timer_now(), now;

	while (at - since < v->halt_poll_ns) {
		if (poll_looks(v, word))
			return true;
		sched_yield();
		now = timer_now();
		if (now - at > POLL_TAKEN_NS) {
			v->halt_poll_ns = 0;
			v->halt_poll_off = POLL_TAKEN_HALTS;
		}
		at = now;
	}
	return false;
}

/* After a halt of @ns. */
static void poll_learn(struct vcpu *v, u64 ns)
{
	u32 limit = poll_limit(v);

	if (v->halt_poll_off)
		v->halt_poll_off--;
	else if (ns > limit)
		v->halt_poll_ns = 0;
	else if (ns > v->halt_poll_ns)
		v->halt_poll_ns =
			v->halt_poll_ns < POLL_FIRST_NS ? POLL_FIRST_NS : 2 * v->halt_poll_ns;
}

static void rest(struct vcpu *v, enum vcpu_rest how)
{
	__atomic_store_n(&v->rest, how, __ATOMIC_SEQ_CST);
}

/* The doorbell is silent; whoever rings it from here on changes the word. */
static u32 doorbell_silence(struct vcpu *v)
{
	__atomic_store_n(&v->run->padding1[DOORBELL], 0, __ATOMIC_SEQ_CST);
	return __atomic_load_n(futex_word(v), __ATOMIC_SEQ_CST);
}

/* Since *@slept it slept; 0: not at all. */
static long wait_until(struct vcpu *v, bool (*done)(struct vcpu *v), u64 since, u64 *slept)
{
	u32 word;
	long r;

	for (*slept = 0;;) {
		word = doorbell_silence(v);
		if (done(v))
			return 1;
		r = vcpu_interrupted(v);
		if (r < 0)
			return r;
		if (!*slept) {
			if (poll(v, word, since))
				continue;
			*slept = timer_now();
			rest(v, REST_SLEEPS);
		}
		r = futex_sleep(v, word);
		if (r < 0)
			return r;
	}
}

long vcpu_sleep(struct vcpu *v, bool (*done)(struct vcpu *v))
{
	u64 since = timer_now(), slept, end;
	struct vcpu_stats *s = &v->stats;
	bool polls;
	long r;

	if (v->halt_poll_ns > poll_limit(v))
		v->halt_poll_ns = poll_limit(v);
	polls = v->halt_poll_ns;
	s->blocking = 1;
	stats_show(&v->stats_file, s, sizeof(*s));
	rest(v, REST_POLLS);
	r = wait_until(v, done, since, &slept);
	rest(v, REST_NOT);
	end = timer_now();
	s->blocking = 0;
	s->halt_attempted_poll += polls;
	if (slept) {
		s->halt_poll_fail_ns += polls ? slept - since : 0;
		s->halt_wait_ns += end - slept;
		s->halt_wakeup += r > 0;
	} else if (polls) {
		s->halt_poll_success_ns += end - since;
		s->halt_successful_poll++;
	}
	poll_learn(v, end - since);
	PROBE(kvm_vcpu_wakeup, v->id, end - since, r);
	return r;
}

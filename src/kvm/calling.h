/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* One call of the program into the library: its signal handlers wait until the call is over. */
#ifndef KVM_CALLING_H
#define KVM_CALLING_H

#include <signal.h>

#include "base/types.h"

struct vcpu;

/*
 * A handler may longjmp() away, and a thread that left in the middle of a request would leave locks
 * behind. So a signal that arrives during a call is put back as pending, blocked, and the mask is restored
 * when nothing is held any more; its handler then runs at that boundary, as with the kernel, where a
 * request is never torn either. KVM_RUN is told to come back.
 *
 * That takes system calls. A thread whose filter forbids them runs its handlers in place, where a handler must
 * return; other things too are done another way there.
 */
enum calling_way {
	CALLING_NORMAL,
	CALLING_IN_PLACE = BIT(0),  /* handlers run during calls; no masks of signals */
	CALLING_BY_NUMBER = BIT(1), /* no fstat() of descriptors, for no request */
	CALLING_FIXED_GS = BIT(2),  /* only the vCPU that the thread is bound to */
};

struct calling {
	unsigned depth;
	bool mask_due;	  /* .saved is to be restored */
	bool interrupted; /* a signal came: KVM_RUN is to return EINTR */
	bool cancellable; /* pthread_cancel() is to take effect at once: KVM_RUN looks for it, see api.c */
	u32 ways;	  /* enum calling_way, of this thread */
	struct vcpu *vcpu; /* in KVM_RUN */
	sigset_t saved;
};

extern __thread struct calling calling __attribute__((tls_model("initial-exec")));

void calling_end(void);

static inline void calling_enter(void)
{
	calling.depth++;
	__atomic_signal_fence(__ATOMIC_SEQ_CST);
}

static inline void calling_leave(void)
{
	__atomic_signal_fence(__ATOMIC_SEQ_CST);
	calling.depth--;
	__atomic_signal_fence(__ATOMIC_SEQ_CST);
	if (unlikely((calling.mask_due || calling.interrupted) && !calling.depth))
		calling_end();
}

/* Until the call is over the thread has @mask; signals of it that have a handler of ours are let through. */
void calling_set_mask(const sigset_t *mask);

/* Signals (bit n - 1) whose handler in the kernel calls calling_signal(). */
extern u64 calling_handled;

/*
 * From the handler that stands for the program's: true when the signal was put back and the handler has to return.
 * False: the program's handler may run now, and calling_signal_done() follows.
 */
bool calling_signal(int sig, siginfo_t *info, void *context);
void calling_signal_done(void);

/* This thread, or @everywhere all, may not use the system calls that a way stands for. */
void calling_restrict(enum calling_way way, bool everywhere);

extern u32 calling_ways_everywhere;
static inline bool calling_is_restricted(enum calling_way way)
{
	return unlikely((calling.ways | calling_ways_everywhere) & way);
}

/*
 * Before arch_prctl() is forbidden to this thread, on a host that needs it: guess which vCPU it will run, the first that
 * no thread has. False: there is none.
 */
bool calling_bind(void);

#endif

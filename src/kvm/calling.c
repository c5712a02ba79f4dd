/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* One call of the program into the library: its signal handlers wait until the call is over. */
#define _GNU_SOURCE
#include "kvm/calling.h"

#include <ucontext.h>

#include "engine/chain.h"
#include "kvm/file.h"
#include "kvm/kvm.h"

__thread struct calling calling __attribute__((tls_model("initial-exec")));
u64 calling_handled;
u32 calling_ways_everywhere;

void calling_end(void)
{
	sigset_t saved = calling.saved;
	bool due = calling.mask_due;

	calling.mask_due = calling.interrupted = false;
	__atomic_signal_fence(__ATOMIC_SEQ_CST);
	if (due)
		pthread_sigmask(SIG_SETMASK, &saved,
				NULL); /* handlers run here, and may not return */
}

void calling_set_mask(const sigset_t *mask)
{
	u64 handled = __atomic_load_n(&calling_handled, __ATOMIC_RELAXED);
	sigset_t old, open;

	pthread_sigmask(SIG_BLOCK, mask, &old);
	if (!calling.mask_due) {
		calling.saved = old;
		calling.mask_due = true;
	}
	sigemptyset(&open);
	for (int sig = 1; sig <= 64 && handled; sig++)
		if (handled >> (sig - 1) & 1 && sigismember(&old, sig) == 1 &&
		    sigismember(mask, sig) != 1)
			sigaddset(&open, sig);
	if (handled)
		pthread_sigmask(SIG_UNBLOCK, &open, NULL);
}

static void come_back(void)
{
	struct vcpu *v = calling.vcpu;

	calling.interrupted = true;
	if (v)
		vcpu_ring(v);
}

bool calling_signal(int sig, siginfo_t *info, void *context)
{
	ucontext_t *uc = context;

	if (!calling.depth || calling_is_restricted(CALLING_IN_PLACE))
		return false;
	if (!calling.mask_due) {
		calling.saved = uc->uc_sigmask;
		calling.mask_due = true;
	}
	sigaddset(&uc->uc_sigmask, sig);
	chain_again(sig, info);
	come_back();
	return true;
}

void calling_signal_done(void)
{
	if (calling.depth)
		come_back();
}

void calling_restrict(enum calling_way way, bool everywhere)
{
	calling.ways |= way;
	if (everywhere)
		__atomic_fetch_or(&calling_ways_everywhere, way, __ATOMIC_SEQ_CST);
}

bool calling_bind(void)
{
	bool bound = false, stale;
	struct file *f;

	for (int fd = file_next(0); fd >= 0 && !bound; fd = file_next(fd + 1)) {
		f = file_get_hot(fd, &stale);
		if (!f)
			continue;
		if (f->kind == FILE_VCPU && !stale)
			bound = engine_thread_bind(((struct vcpu *)f->object)->engine);
		file_put(f);
	}
	return bound;
}

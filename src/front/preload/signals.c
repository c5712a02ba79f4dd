/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The program's signal handlers behind one of ours, once it has a VM. */
#define _GNU_SOURCE
#include "front/preload/signals.h"

#include <errno.h>
#include <string.h>
#include <ucontext.h>

#include "engine/chain.h"
#include "engine/engine.h"
#include "front/preload/interpose.h"
#include "front/preload/real.h"
#include "kvm/calling.h"
#include "kvm/file.h"

/*
 * Until the first VM nothing is changed. From then on every handler of the program is called by ours, which decides: a
 * fault of translated code is the guest's; what arrives during a request is put back until the request is over
 * (kvm/calling.h); all else is the program's, at once, with the mask, the stack and the information that
 * the kernel would give. The default and "ignore" stay the kernel's, but for the synchronous signals.
 *
 * Nothing need be done for sigwait(), signalfd() and the like: what is put back is pending as before.
 * Libc's own sigaction() calls, as in system(), go past us and put back what they found, which is ours.
 *
 * The synchronous signals are never blocked in the kernel: a blocked fault ends the process. The program
 * sees them blocked as it asked, and one that is sent while it wants it blocked is kept until it does not.
 */
static bool taken;
static __thread u64 wanted_blocked __attribute__((tls_model("initial-exec"))); /* of CHAIN_SYNC */

/* Sent, not raised by an instruction, while the program has it blocked: kept until it has not. */
static bool keep(int sig, siginfo_t *info, void *context)
{
	ucontext_t *uc = context;

	if (likely(!(wanted_blocked >> (sig - 1) & 1)) || info->si_code > 0)
		return false;
	sigaddset(&uc->uc_sigmask, sig);
	chain_again(sig, info);
	return true;
}

static void handler(int sig, siginfo_t *info, void *context)
{
	int saved = errno;

	if (engine_signal(sig, info, context))
		return;
	if (!(chain_is_sync(sig) && info->si_code > 0) &&
	    (keep(sig, info, context) || calling_signal(sig, info, context))) {
		errno = saved;
		return;
	}
	chain_call(sig, info, context);
	calling_signal_done();
}

static bool is_handler(const struct sigaction *sa)
{
	return sa->sa_handler != SIG_DFL && sa->sa_handler != SIG_IGN;
}

static bool is_reserved(int sig)
{
	return sig == SIGKILL || sig == SIGSTOP || (sig > 31 && sig < SIGRTMIN);
}

/* Under the lock of chain.h. */
static int take(int sig, const struct sigaction *program)
{
	struct sigaction sa = *program;

	if (!is_handler(program) && !chain_is_sync(sig))
		return real_sigaction(sig, program, NULL);
	chain_set(sig, program);
	chain_action(program, handler, &sa);
	__atomic_fetch_or(&calling_handled, BIT_ULL(sig - 1), __ATOMIC_RELAXED);
	return real_sigaction(sig, &sa, NULL);
}

void signals_take_over(void)
{
	struct sigaction sa;
	sigset_t saved;

	if (__atomic_load_n(&taken, __ATOMIC_ACQUIRE))
		return;
	chain_lock(&saved);
	for (int sig = 1; sig <= 64 && !taken; sig++) {
		if (is_reserved(sig) || real_sigaction(sig, NULL, &sa))
			continue;
		if (chain_is_sync(sig)) /* the engine has its own there */
			chain_get(sig, &sa);
		else if (!is_handler(&sa))
			continue;
		take(sig, &sa);
	}
	__atomic_store_n(&taken, true, __ATOMIC_RELEASE);
	chain_unlock(&saved);
}

/* What the program believes to be installed. Under the lock. */
static int current(int sig, struct sigaction *sa)
{
	int r = real_sigaction(sig, NULL, sa);

	if (!r && sa->sa_sigaction == handler)
		chain_get(sig, sa);
	return r;
}

static int action(int sig, const struct sigaction *act, struct sigaction *old)
{
	struct sigaction before;
	sigset_t saved;
	int r;

	/* A child of vfork() has handlers of its own, but our memory. */
	if (!__atomic_load_n(&taken, __ATOMIC_ACQUIRE) || sig < 1 || sig > 64 || is_reserved(sig) ||
	    !file_owner())
		return real_sigaction(sig, act, old);
	chain_lock(&saved);
	r = current(sig, &before);
	if (!r && act)
		r = take(sig, act);
	chain_unlock(&saved);
	if (!r && old)
		*old = before;
	return r;
}

INTERPOSE int sigaction(int sig, const struct sigaction *restrict act,
			struct sigaction *restrict old)
{
	return action(sig, act, old);
}

static sighandler_t simple(int sig, sighandler_t fn, int flags)
{
	struct sigaction sa, old;

	memset(&sa, 0, sizeof(sa));
	sa.sa_handler = fn;
	sa.sa_flags = flags;
	sigemptyset(&sa.sa_mask);
	if (!(flags & SA_NODEFER))
		sigaddset(&sa.sa_mask, sig);
	return fn == SIG_ERR || action(sig, &sa, &old) ? SIG_ERR : old.sa_handler;
}

/* Signals after siginterrupt(sig, 1). */
static u64 interrupting;

static int restart_flag(int sig)
{
	bool no = sig >= 1 && sig <= 64 &&
		  __atomic_load_n(&interrupting, __ATOMIC_RELAXED) >> (sig - 1) & 1;

	return no ? 0 : SA_RESTART;
}

INTERPOSE sighandler_t signal(int sig, sighandler_t fn)
{
	return simple(sig, fn, restart_flag(sig));
}

INTERPOSE sighandler_t bsd_signal(int sig, sighandler_t fn)
{
	return simple(sig, fn, restart_flag(sig));
}

INTERPOSE sighandler_t ssignal(int sig, sighandler_t fn)
{
	return simple(sig, fn, restart_flag(sig));
}

INTERPOSE sighandler_t sysv_signal(int sig, sighandler_t fn)
{
	return simple(sig, fn, SA_RESETHAND | SA_NODEFER);
}

INTERPOSE sighandler_t __sysv_signal(int sig, sighandler_t fn)
{
	return simple(sig, fn, SA_RESETHAND | SA_NODEFER);
}

INTERPOSE int siginterrupt(int sig, int on)
{
	struct sigaction sa;

	if (action(sig, NULL, &sa))
		return -1;
	if (on) {
		__atomic_fetch_or(&interrupting, BIT_ULL(sig - 1), __ATOMIC_RELAXED);
		sa.sa_flags &= ~SA_RESTART;
	} else {
		__atomic_fetch_and(&interrupting, ~BIT_ULL(sig - 1), __ATOMIC_RELAXED);
		sa.sa_flags |= SA_RESTART;
	}
	return action(sig, &sa, NULL);
}

static u64 sync_of(const sigset_t *set)
{
	u64 bits = 0;

	for (int sig = 1; sig <= 64; sig++)
		if (chain_is_sync(sig) && sigismember(set, sig) == 1)
			bits |= BIT_ULL(sig - 1);
	return bits;
}

/* Of the set that goes to the kernel, the synchronous signals are taken out; of the old one, they are as was asked. */
static int mask(int how, const sigset_t *set, sigset_t *old,
		int (*real)(int how, const sigset_t *set, sigset_t *old))
{
	u64 before = wanted_blocked, wish = before;
	sigset_t ours;
	int r;

	if (likely(!__atomic_load_n(&taken, __ATOMIC_ACQUIRE)))
		return real(how, set, old);
	if (set) {
		u64 asked = sync_of(set);

		wish = how == SIG_BLOCK	    ? before | asked
		       : how == SIG_UNBLOCK ? before & ~asked
					    : asked;
		ours = *set;
		for (int sig = 1; sig <= 64 && how != SIG_UNBLOCK; sig++)
			if (chain_is_sync(sig))
				sigdelset(&ours, sig);
	}
	r = real(how, set ? &ours : NULL, old);
	if (r)
		return r;
	wanted_blocked = wish;
	for (int sig = 1; sig <= 64 && old; sig++)
		if (before >> (sig - 1) & 1)
			sigaddset(old, sig);
	return 0;
}

INTERPOSE int sigprocmask(int how, const sigset_t *restrict set, sigset_t *restrict old)
{
	return mask(how, set, old, real_sigprocmask);
}

INTERPOSE int pthread_sigmask(int how, const sigset_t *restrict set, sigset_t *restrict old)
{
	return mask(how, set, old, real_pthread_sigmask);
}

/* sigset(), as the manual has it: a handler that is blocked meanwhile, or SIG_HOLD. */
INTERPOSE sighandler_t sigset(int sig, sighandler_t fn)
{
	struct sigaction sa, old;
	sigset_t self, before;

	sigemptyset(&self);
	if (sigaddset(&self, sig))
		return SIG_ERR;
	if (fn == SIG_HOLD) {
		if (mask(SIG_BLOCK, &self, &before, real_sigprocmask) || action(sig, NULL, &old))
			return SIG_ERR;
	} else {
		memset(&sa, 0, sizeof(sa));
		sa.sa_handler = fn;
		if (action(sig, &sa, &old) || mask(SIG_UNBLOCK, &self, &before, real_sigprocmask))
			return SIG_ERR;
	}
	return sigismember(&before, sig) == 1 ? SIG_HOLD : old.sa_handler;
}

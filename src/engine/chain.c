/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* What the program wants done for a signal whose handler in the kernel is one of ours. */
#define _GNU_SOURCE
#include "engine/chain.h"

#include <sched.h>
#include <string.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#define SIGNALS 65

/* Odd while it is written. */
struct wish {
	u32 version;
	struct sigaction sa;
};

static struct wish wishes[SIGNALS];
static u32 lock;

void chain_lock(sigset_t *saved)
{
	sigset_t all;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, saved);
	while (__atomic_exchange_n(&lock, 1, __ATOMIC_ACQUIRE))
		sched_yield();
}

void chain_unlock(const sigset_t *saved)
{
	__atomic_store_n(&lock, 0, __ATOMIC_RELEASE);
	pthread_sigmask(SIG_SETMASK, saved, NULL);
}

void chain_set(int sig, const struct sigaction *sa)
{
	struct wish *w = &wishes[sig];

	__atomic_fetch_add(&w->version, 1, __ATOMIC_SEQ_CST);
	w->sa = *sa;
	__atomic_fetch_add(&w->version, 1, __ATOMIC_SEQ_CST);
}

void chain_get(int sig, struct sigaction *sa)
{
	struct wish *w = &wishes[sig];
	u32 before;

	do {
		before = __atomic_load_n(&w->version, __ATOMIC_ACQUIRE);
		*sa = w->sa;
		__atomic_thread_fence(__ATOMIC_SEQ_CST);
	} while (before & 1 || before != __atomic_load_n(&w->version, __ATOMIC_RELAXED));
}

void chain_action(const struct sigaction *program,
		  void (*handler)(int sig, siginfo_t *info, void *context), struct sigaction *out)
{
	memset(out, 0, sizeof(*out));
	out->sa_sigaction = handler;
	out->sa_flags = SA_SIGINFO;
	if (program->sa_handler == SIG_DFL || program->sa_handler == SIG_IGN)
		return;
	out->sa_flags |=
		program->sa_flags & (SA_ONSTACK | SA_RESTART | SA_NOCLDSTOP | SA_NOCLDWAIT);
	out->sa_mask = program->sa_mask;
	for (int sig = 1; sig < SIGNALS; sig++)
		if (chain_is_sync(sig))
			sigdelset(&out->sa_mask, sig);
}

void chain_again(int sig, siginfo_t *info)
{
	syscall(SYS_rt_tgsigqueueinfo, getpid(), syscall(SYS_gettid), sig, info);
}

/* Without a handler: let it happen again as if ours were not there. */
static void call_default(int sig, siginfo_t *info)
{
	struct sigaction sa;

	memset(&sa, 0, sizeof(sa));
	sa.sa_handler = SIG_DFL;
	sigaction(sig, &sa, NULL);
	chain_again(sig, info);
}

void chain_call(int sig, siginfo_t *info, void *context)
{
	struct sigaction sa, reset;
	sigset_t self;

	chain_get(sig, &sa);
	/* A fault cannot be ignored; what another process sends can. */
	if (sa.sa_handler == SIG_IGN && !(chain_is_sync(sig) && info->si_code > 0))
		return;
	if (sa.sa_handler == SIG_DFL || sa.sa_handler == SIG_IGN) {
		call_default(sig, info);
		return;
	}
	if (sa.sa_flags & SA_RESETHAND) {
		memset(&reset, 0, sizeof(reset));
		reset.sa_handler = SIG_DFL;
		chain_set(sig, &reset);
	}
	if (sa.sa_flags & SA_NODEFER) {
		sigemptyset(&self);
		sigaddset(&self, sig);
		pthread_sigmask(SIG_UNBLOCK, &self, NULL);
	}
	if (sa.sa_flags & SA_SIGINFO)
		sa.sa_sigaction(sig, info, context);
	else
		sa.sa_handler(sig);
}

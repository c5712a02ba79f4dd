/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* What the program wants done for a signal whose handler in the kernel is one of ours. */
#ifndef ENGINE_CHAIN_H
#define ENGINE_CHAIN_H

#include <signal.h>

#include "base/types.h"

/* The signals that translated code raises; they are never left blocked in a thread that runs a vCPU. */
#define CHAIN_SYNC                                                                                 \
	(BIT_ULL(SIGFPE - 1) | BIT_ULL(SIGILL - 1) | BIT_ULL(SIGSEGV - 1) | BIT_ULL(SIGBUS - 1) |  \
	 BIT_ULL(SIGTRAP - 1))

static inline bool chain_is_sync(int sig)
{
	return sig >= 1 && sig <= 64 && CHAIN_SYNC >> (sig - 1) & 1;
}

/*
 * The program's wish, kept whole against a handler that reads it meanwhile. Writers exclude each other and
 * have all signals blocked (chain_lock()), so that no reader of the same thread ever waits for them.
 */
void chain_lock(sigset_t *saved);
void chain_unlock(const sigset_t *saved);
void chain_set(int sig, const struct sigaction *sa);
void chain_get(int sig, struct sigaction *sa);

/*
 * The action to install for @program's wish: @handler, with its mask less the synchronous signals, on its stack.
 * SA_RESETHAND and SA_NODEFER are left to chain_call().
 */
void chain_action(const struct sigaction *program,
		  void (*handler)(int sig, siginfo_t *info, void *context), struct sigaction *out);

/* From our handler: do as the kernel would have done for the program. */
void chain_call(int sig, siginfo_t *info, void *context);

/* Queue the signal for this thread again, with all that it says. */
void chain_again(int sig, siginfo_t *info);

#endif

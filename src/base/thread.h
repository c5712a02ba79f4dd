/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Threads of our own beside those of the program. */
#ifndef BASE_THREAD_H
#define BASE_THREAD_H

#include <pthread.h>
#include <signal.h>

/* As pthread_create(), with every signal blocked in the new thread: they are the program's, the console's and the processors'. */
static inline int thread_start(pthread_t *thread, void *(*fn)(void *argument), void *argument)
{
	sigset_t all, old;
	int r;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	r = pthread_create(thread, NULL, fn, argument);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	return r;
}

#endif

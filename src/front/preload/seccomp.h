/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* A filter of system calls that the program is about to install: what it forbids, and what that means for us. */
#ifndef FRONT_PRELOAD_SECCOMP_H
#define FRONT_PRELOAD_SECCOMP_H

#include <linux/filter.h>

#include "base/types.h"

/* What the filter says to system call @number with arguments 0: SECCOMP_RET_*. A program that is no filter: SECCOMP_RET_ALLOW. */
u32 seccomp_verdict(const struct sock_fprog *program, int number);

/*
 * Before seccomp(@operation, @flags, @argument): set up what the thread will not be able to, and return the ways
 * (enum calling_way) that are left to it. After it has succeeded, these are taken: by this thread, with TSYNC or from the
 * main thread by all.
 */
u32 seccomp_before(unsigned operation, unsigned flags, const void *argument);
void seccomp_after(u32 ways, unsigned flags);

#endif

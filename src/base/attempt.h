/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Accesses to memory that may not be there: a fault is an answer, not a signal. */
#ifndef BASE_ATTEMPT_H
#define BASE_ATTEMPT_H

#include "base/types.h"

/*
 * Leaf code without a system call. The handler of the fault signals asks attempt_resume(), so it must be installed, and the
 * thread must not have these signals blocked.
 */

/* Copy; returns how many bytes were not copied. Aligned words of a copy of at most 256 bytes are single accesses. */
size_t attempt_copy(void *dst, const void *src, size_t n);

/* Atomically; *old is the byte before. Returns whether the memory was there. */
bool attempt_exchange8(u8 *p, u8 value, u8 *old);
bool attempt_or8(u8 *p, u8 bits, u8 *old);

/* Whether @pc is such an access; then it is moved behind it. */
bool attempt_resume(u64 *pc);

#endif

/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Copying, clearing and comparing without libc and without vector registers, for leaf code. */
#ifndef BASE_BULK_H
#define BASE_BULK_H

#include "base/types.h"

static inline void bulk_copy(void *dst, const void *src, size_t n)
{
	__asm__ volatile("rep movsb" : "+D"(dst), "+S"(src), "+c"(n) : : "memory");
}

static inline void bulk_zero(void *dst, size_t n)
{
	__asm__ volatile("rep stosb" : "+D"(dst), "+c"(n) : "a"(0) : "memory");
}

static inline bool bulk_equal(const void *a, const void *b, size_t n)
{
	bool equal;

	/* CMP first: with n = 0 the loop leaves the flags as they are. */
	__asm__ volatile("cmp %%rax, %%rax; repe cmpsb"
			 : "=@cce"(equal), "+D"(a), "+S"(b), "+c"(n)
			 :
			 : "memory");
	return equal;
}

#endif

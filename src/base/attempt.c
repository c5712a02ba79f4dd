/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Accesses to memory that may not be there: the fault handler goes on behind them, and a count says what was not done. */
#include "base/attempt.h"

/* The access of each function lies between two labels; behind the second one the outcome is looked at. */
#define ATTEMPTS(F) F(copy) F(exchange8) F(or8)

#define DECLARE(name) extern const char attempt_##name##_at[], attempt_##name##_after[];
ATTEMPTS(DECLARE)

#define LABEL(label) ".globl " label "\n.hidden " label "\n" label ":\n"

/* Structures of a few words go by words, since the string instruction takes longer to begin. */
__attribute__((noinline)) size_t attempt_copy(void *dst, const void *src, size_t n)
{
	u64 word;

	__asm__ volatile(LABEL("attempt_copy_at") "	cmp	$256, %[n]\n"
						  "	ja	2f\n"
						  "1:	cmp	$8, %[n]\n"
						  "	jb	2f\n"
						  "	mov	(%[src]), %[word]\n"
						  "	mov	%[word], (%[dst])\n"
						  "	add	$8, %[src]\n"
						  "	add	$8, %[dst]\n"
						  "	sub	$8, %[n]\n"
						  "	jnz	1b\n"
						  "2:	rep movsb\n" LABEL("attempt_copy_after")
			 : [dst] "+D"(dst), [src] "+S"(src), [n] "+c"(n), [word] "=&r"(word)
			 :
			 : "memory", "cc");
	return n;
}

__attribute__((noinline)) bool attempt_exchange8(u8 *p, u8 value, u8 *old)
{
	u32 left = 1;

	__asm__ volatile(LABEL("attempt_exchange8_at") "	xchg	%[value], (%[p])\n"
						       "	xor	%[left], %[left]\n" LABEL(
							       "attempt_exchange8_after")
			 : [value] "+q"(value), [left] "+r"(left)
			 : [p] "r"(p)
			 : "memory", "cc");
	*old = value;
	return !left;
}

__attribute__((noinline)) bool attempt_or8(u8 *p, u8 bits, u8 *old)
{
	u32 left = 1;
	u8 was = 0, now;

	__asm__ volatile(LABEL("attempt_or8_at") "	mov	(%[p]), %[was]\n"
						 "1:	mov	%[was], %[now]\n"
						 "	or	%[bits], %[now]\n"
						 "	lock cmpxchg %[now], (%[p])\n"
						 "	jne	1b\n"
						 "	xor	%[left], %[left]\n" LABEL(
							 "attempt_or8_after")
			 : [was] "+a"(was), [now] "=&q"(now), [left] "+r"(left)
			 : [p] "r"(p), [bits] "q"(bits)
			 : "memory", "cc");
	*old = was;
	return !left;
}

bool attempt_resume(u64 *pc)
{
#define ROW(name) { attempt_##name##_at, attempt_##name##_after },
	static const struct {
		const char *at, *after;
	} attempts[] = { ATTEMPTS(ROW) };

	for (unsigned i = 0; i < ARRAY_SIZE(attempts); i++) {
		if (*pc >= (u64)attempts[i].at && *pc < (u64)attempts[i].after) {
			*pc = (u64)attempts[i].after;
			return true;
		}
	}
	return false;
}

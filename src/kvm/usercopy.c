/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Copies from and to pointers that the program passed: a bad one gives -EFAULT, not a crash. */
#include <errno.h>

#include "base/attempt.h"
#include "engine/engine.h"
#include "kvm/calling.h"
#include "kvm/usercopy.h"

/*
 * No system call: a plain copy, whose fault the engine's signal handler turns into "not all was copied". A thread whose fault
 * signals are blocked would be ended by the kernel; they are let through once per thread, unless a filter forbids even that.
 */
void user_prepare(void)
{
	if (!calling_is_restricted(CALLING_IN_PLACE))
		engine_thread_prepare();
}

static int copy(void *dst, const void *src, size_t len)
{
	user_prepare();
	return unlikely(attempt_copy(dst, src, len)) ? -EFAULT : 0;
}

int user_read(void *dst, hva_t src, size_t len)
{
	return copy(dst, (const void *)src, len);
}

int user_write(hva_t dst, const void *src, size_t len)
{
	return copy((void *)dst, src, len);
}

/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* One line for a person: what happened, why, and what to do. */
#include "vmm/why.h"

#include <stdarg.h>
#include <stdio.h>

int why_set(struct why *why, int err, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(why->text, sizeof(why->text), format, args);
	va_end(args);
	return -err;
}

/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* How a fuzz target says that it has found something: a line, then an abort, which libFuzzer keeps the input of. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "fuzz.h"

void fuzz_failed(const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	fputs("fuzz: ", stderr);
	vfprintf(stderr, format, ap);
	fputc('\n', stderr);
	va_end(ap);
	abort();
}

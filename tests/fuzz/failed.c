/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* How a fuzz target says that it has found something: a line, then an abort, which libFuzzer keeps the input of. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "fuzz.h"

const u8 *fuzz_input;
size_t fuzz_input_size;

void fuzz_failed(const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	fputs("fuzz: ", stderr);
	vfprintf(stderr, format, ap);
	fputs(fuzz_input ? "\nfuzz: input" : "", stderr);
	for (size_t i = 0; fuzz_input && i < fuzz_input_size; i++)
		fprintf(stderr, " %02x", fuzz_input[i]);
	fputc('\n', stderr);
	va_end(ap);
	abort();
}

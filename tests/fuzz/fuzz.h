/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* One fuzz target: the entry point of libFuzzer, which replay.c calls too. */
#ifndef TESTS_FUZZ_FUZZ_H
#define TESTS_FUZZ_FUZZ_H

#include <stddef.h>

#include "base/types.h"

int LLVMFuzzerTestOneInput(const u8 *data, size_t size);

/* Written out with a failure where it is set; libFuzzer keeps its own. */
extern const u8 *fuzz_input;
extern size_t fuzz_input_size;

/* What is wrong with the input at hand; ends the process. */
_Noreturn void fuzz_failed(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif

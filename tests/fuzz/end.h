/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Streams of instructions on the machine of tests/modes: what one leaves, and whether two left the same. */
#ifndef TESTS_FUZZ_END_H
#define TESTS_FUZZ_END_H

#include "../modes/machine.h"

#define STREAM_MAX 256

struct end {
	struct world world; /* .vector -1: at a HLT or INT3 of the stream; 2000 + reason: an exit */
	u8 xsave[X86_XSAVE_MAX];
	u8 memory[RAM_SIZE];
	bool is_lax; /* what the fast form leaves here may be something else, see end_is_lax() */
};

/* Memory, code and registers as they are before the first instruction. */
void stream_begin(unsigned which, const struct cell *c, const u8 *code, unsigned n,
		  const struct world *in);

/* Run @n bytes until the guest halts, faults, or asks for a device. False: it was still running when the time was over. */
bool stream_run(unsigned which, const struct cell *c, const u8 *code, unsigned n,
		const struct world *in, struct end *out);

/*
 * Where the ends differ, in words; NULL: nowhere. @lax: flags that the fast form loses are not compared (translate.c), nor what
 * else RSP and the last frame show.
 */
const char *end_difference(const struct end *a, const struct end *b, bool lax);

/*
 * tables.c: run it on the checked form; whether it does what processors are free to answer in more than one way. Of a stream that
 * is too long for that, whether its @end on some form has other page tables.
 */
bool stream_is_open(const struct cell *c, const u8 *code, unsigned n, const struct world *in,
		    const struct end *end);

#endif

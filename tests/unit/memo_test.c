/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Instructions found again by their shape are what the decoder says of them, for all opcodes, with random numbers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "cpu/x86/mode.h"
#include "engine/x86/memo.h"

#define MODE (MODE_64 | MODE_LMA | MODE_PE | MODE_FLAT | MODE_SSE | MODE_XSAVE | MODE_AVX)

static u64 seed = 11;
static struct x86_host host;
static struct memo *memo;

static u32 rnd(void)
{
	seed = seed * 6364136223846793005ull + 1442695040888963407ull;
	return seed >> 33;
}

/* Few shapes of each opcode, so that they come again; everything behind them is random. */
static void make(u8 out[16], unsigned opcode)
{
	static const u8 prefixes[] = { 0x66, 0xf2, 0xf3, 0x64, 0x67, 0xf0, 0x2e };
	static const u8 modrms[] = { 0xc1, 0x05, 0x44, 0x84, 0x43, 0x87, 0x3c, 0xf8, 0x04, 0xe9 };
	unsigned n = 0;

	for (unsigned i = 0; i < 16; i++)
		out[i] = rnd();
	if (rnd() % 4 == 0)
		out[n++] = prefixes[rnd() % sizeof(prefixes)];
	if (rnd() % 16 == 0)
		out[n++] = prefixes[rnd() % sizeof(prefixes)];
	if (rnd() % 2)
		out[n++] = rnd() % 2 ? 0x48 : 0x40 | (rnd() & 15);
	if (opcode >= 0x100)
		out[n++] = 0x0f;
	if (opcode >= 0x200)
		out[n++] = opcode >= 0x300 ? 0x3a : 0x38;
	out[n++] = opcode;
	out[n++] = modrms[rnd() % sizeof(modrms)];
	if (rnd() % 2)
		out[n] = rnd() % 2 ? 0x24 : 0x25; /* no index; no base */
}

static unsigned check(unsigned opcode)
{
	struct decoded truth, got;
	unsigned n = rnd() % 8 ? 15 : 1 + rnd() % 15;
	u8 bytes[16];
	bool found;
	int r;

	make(bytes, opcode);
	memset(&got, 0xa5, sizeof(got));
	found = memo_find(memo, bytes, n, &got);
	r = decode(&host, MODE, bytes, n, &truth);
	if (found) {
		assert_int_equal(r, 0);
		assert_memory_equal(&got, &truth, sizeof(got));
	}
	if (!r)
		memo_keep(memo, &truth);
	return found;
}

static void shapes(void **state)
{
	unsigned hits = 0, runs = 0;

	(void)state;
	/* One opcode at a time, or the shapes of all would drive each other out. */
	for (unsigned opcode = 0; opcode < 0x400; opcode++)
		for (unsigned i = 0; i < 400; i++, runs++)
			hits += check(opcode);
	assert_true(hits > runs / 8);
}

/* What is more than its shape is never found: a shift count of zero, an opcode behind the operands, two immediates. */
static void special(void **state)
{
	static const u8 insns[][6] = {
		{ 0xc1, 0xe0, 0x00 },		  /* shl eax, 0 */
		{ 0x0f, 0xa4, 0xc8, 0x00 },	  /* shld eax, ecx, 0 */
		{ 0x0f, 0x0f, 0xc1, 0x9e },	  /* pfadd */
		{ 0xc8, 0x10, 0x00, 0x01 },	  /* enter 16, 1 */
		{ 0xc5, 0xf8, 0x58, 0xc1 },	  /* vaddps */
		{ 0x66, 0x0f, 0x78, 0xc0, 1, 2 }, /* extrq */
	};
	struct decoded d;

	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(insns); i++) {
		u8 bytes[16] = { 0 };

		memcpy(bytes, insns[i], sizeof(insns[i]));
		if (!decode(&host, MODE, bytes, 15, &d))
			memo_keep(memo, &d);
		assert_false(memo_find(memo, bytes, 15, &d));
	}
}

/* An instruction that goes on behind the bytes at hand is the decoder's to refuse. */
static void cut_short(void **state)
{
	static const u8 mov[16] = { 0x48, 0x8b, 0x80, 1, 2, 3, 4 };
	struct decoded d;

	(void)state;
	assert_int_equal(decode(&host, MODE, mov, 15, &d), 0);
	memo_keep(memo, &d);
	assert_true(memo_find(memo, mov, 7, &d));
	assert_int_equal(d.insn.disp, 0x04030201);
	for (unsigned n = 1; n < 7; n++)
		assert_false(memo_find(memo, mov, n, &d));
}

static int setup(void **state)
{
	const char *why;

	(void)state;
	memo = calloc(1, sizeof(*memo));
	decode_init();
	return !memo || x86_host_probe(&host, NULL, &why);
}

static int teardown(void **state)
{
	(void)state;
	free(memo);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(shapes),
		cmocka_unit_test(special),
		cmocka_unit_test(cut_short),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}

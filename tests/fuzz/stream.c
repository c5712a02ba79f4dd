/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Fuzz target: a stream of instructions, the same on both forms. Bytes: the mode, the seed of the registers, the code. */
#include <stdio.h>
#include <string.h>

#include "../modes/modes.h"
#include "fuzz.h"

static u64 rng_state;

u64 rng_next(void)
{
	u64 z = rng_state += 0x9e3779b97f4a7c15ull;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ z >> 27) * 0x94d049bb133111ebull;
	return z ^ z >> 31;
}

unsigned rng_below(unsigned n)
{
	return (rng_next() >> 32) * n >> 32;
}

/* Time and chance: RDTSC, RDTSCP, RDMSR, RDRAND, RDSEED, and XSAVE images with their host's habits. */
static bool is_repeatable(const u8 *code, size_t n)
{
	for (size_t i = 0; i + 1 < n; i++)
		if (code[i] == 0x0f && (code[i + 1] == 0x31 || code[i + 1] == 0x32 ||
					code[i + 1] == 0xc7 || code[i + 1] == 0xae ||
					(code[i + 1] == 0x01 && i + 2 < n && code[i + 2] == 0xf9)))
			return false;
	return true;
}

/*
 * Instructions whose undefined flags are what they were before on some processors: the fast form has lost those, since nobody
 * may read them. Multiplication, division, shifts, bit tests and scans.
 */
static bool leaves_flags_open(const u8 *code, size_t n)
{
	static const u8 one[] = { 0xf6, 0xf7, 0x69, 0x6b, 0xc0, 0xc1, 0xd0, 0xd1, 0xd2, 0xd3 };
	static const u8 two[] = { 0xaf, 0xa3, 0xab, 0xb3, 0xbb, 0xba,
				  0xbc, 0xbd, 0xa4, 0xa5, 0xac, 0xad };

	for (size_t i = 0; i < n; i++)
		if (memchr(one, code[i], sizeof(one)) ||
		    (i && code[i - 1] == 0x0f && memchr(two, code[i], sizeof(two))))
			return true;
	return false;
}

static void compare(const struct world *a, const struct world *b, enum mode_id mode)
{
	u32 at;

	if (a->vector != b->vector)
		fuzz_failed("%s: vector %d in the checked form, %d in the fast one",
			    modes[mode].name, a->vector, b->vector);
	for (unsigned i = 0; i < 16; i++)
		if (a->gpr[i] != b->gpr[i] && i != RSP)
			fuzz_failed(
				"%s: register %u is %lx in the checked form, %lx in the fast one",
				modes[mode].name, i, a->gpr[i], b->gpr[i]);
	if (a->cr0 != b->cr0 || a->cr2 != b->cr2 || a->cr3 != b->cr3 || a->cr4 != b->cr4 ||
	    a->efer != b->efer || a->df != b->df || a->xcr0 != b->xcr0)
		fuzz_failed("%s: control registers differ", modes[mode].name);
	if (machine_memory_differs(&at))
		fuzz_failed("%s: memory differs at %#x (%s), vector %d", modes[mode].name, at,
			    machine_memory_text(at), a->vector);
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t size)
{
	static struct world in, out[GUESTS];
	static bool made;
	struct cell c = { 0 };
	const u8 *code = data + 2;
	const char *why;
	size_t n;

	if (size < 3 || size > STREAM_MAX)
		return 0;
	why = made ? NULL : machine_init();
	if (why)
		fuzz_failed("%s", why);
	made = true;
	n = size - 2;
	if (!is_repeatable(code, n) ||
	    (modes[data[0] % MODES].bits == 64 && leaves_flags_open(code, n)))
		return 0;
	rng_state = data[1];
	c.id = data[0] % MODES;
	c.mode = &modes[c.id];
	c.poisoned = data[0] & 0x80;
	world_make(&c, &in);
	in.phys_bits = 46;
	for (unsigned i = 0; i < 16; i++) /* most addresses lead somewhere */
		if (i != RSP && rng_chance(60))
			in.gpr[i] = 0xa000 + rng_below(0x1000);
	for (unsigned which = 0; which < GUESTS; which++)
		if (!machine_stream(which, &c, code, n, &in, &out[which]))
			return 0;
	compare(&out[0], &out[1], c.id);
	return 0;
}

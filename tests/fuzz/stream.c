/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Fuzz target: a stream of instructions, the same on three forms. Bytes: the mode, the seed of the registers, the code. */
#include <stdio.h>
#include <string.h>

#include "end.h"
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

/* The world of the input; most addresses lead somewhere. */
static void start(const u8 *data, struct cell *c, struct world *in)
{
	rng_state = data[1];
	c->id = data[0] % MODES;
	c->mode = &modes[c->id];
	c->poisoned = data[0] & 0x80;
	world_make(c, in);
	in->phys_bits = 46;
	for (unsigned i = 0; i < 16; i++)
		if (i != RSP && rng_chance(60))
			in->gpr[i] = 0xa000 + rng_below(0x1000);
	for (unsigned i = 0; i < DATA_SIZE; i++) /* nothing that is_repeatable() would find */
		if (in->data[i] == 0x0f)
			in->data[i] = 0;
}

static void compare(const struct end *end, unsigned which, enum mode_id mode, bool lax)
{
	const char *difference = end_difference(&end[0], &end[which], lax);

	if (difference)
		fuzz_failed("%s: %s, %s; vectors %d, %d", modes[mode].name, guest_names[which],
			    difference, end[0].world.vector, end[which].world.vector);
}

/* The exact form must do all that the checked one does; the fast one may lose what nobody reads. */
int LLVMFuzzerTestOneInput(const u8 *data, size_t size)
{
	static struct world in;
	static struct end end[GUESTS_MAX];
	static bool made;
	struct cell c = { 0 };
	const u8 *code = data + 2;
	const char *why;

	if (size < 3 || size > STREAM_MAX)
		return 0;
	why = made ? NULL : machine_init(GUESTS_MAX);
	if (why)
		fuzz_failed("%s", why);
	made = true;
	if (!is_repeatable(code, size - 2))
		return 0;
	start(data, &c, &in);
	for (unsigned which = 0; which < GUESTS_MAX; which++)
		if (!stream_run(which, &c, code, size - 2, &in, &end[which]))
			return 0;
	if (!is_repeatable(end[0].memory, RAM_SIZE)) /* it may have made and run that */
		return 0;
	compare(end, 2, c.id, false);
	if (!end[0].is_lax && !end[1].is_lax)
		compare(end, 1, c.id, true);
	return 0;
}

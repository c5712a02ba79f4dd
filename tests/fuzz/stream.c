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

/* One stream, on all forms. */
struct run {
	struct cell c;
	struct world in;
	const u8 *code;
	unsigned n;
	struct end end[GUESTS_MAX];
};

static void compare(const struct run *r, unsigned which, bool lax)
{
	const struct end *end = r->end;
	const char *difference = end_difference(&end[0], &end[which], lax);

	if (difference && !stream_is_open(&r->c, r->code, r->n, &r->in, &end[0]) &&
	    !stream_is_open(&r->c, r->code, r->n, &r->in, &end[which]))
		fuzz_failed("%s: %s, %s; vectors %d, %d", r->c.mode->name, guest_names[which],
			    difference, end[0].world.vector, end[which].world.vector);
}

/* The exact form must do all that the checked one does; the fast one may lose what nobody reads. */
int LLVMFuzzerTestOneInput(const u8 *data, size_t size)
{
	static struct run r;
	static bool made;
	const char *why;

	if (size < 3 || size > STREAM_MAX)
		return 0;
	why = made ? NULL : machine_init(GUESTS_MAX);
	if (why)
		fuzz_failed("%s", why);
	made = true;
	r.code = data + 2;
	r.n = size - 2;
	if (!is_repeatable(r.code, r.n))
		return 0;
	memset(&r.c, 0, sizeof(r.c));
	start(data, &r.c, &r.in);
	for (unsigned which = 0; which < GUESTS_MAX; which++)
		if (!stream_run(which, &r.c, r.code, r.n, &r.in, &r.end[which]))
			return 0;
	if (!is_repeatable(r.end[0].memory, RAM_SIZE)) /* it may have made and run that */
		return 0;
	compare(&r, 2, false);
	if (!r.end[0].is_lax && !r.end[1].is_lax)
		compare(&r, 1, true);
	return 0;
}

/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Which stores to page tables leave it to the processor what follows: streams of known kind, and what must come out of them. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "end.h"

static u64 rng_state;

u64 rng_next(void)
{
	return rng_state = rng_state * 6364136223846793005ull + 1442695040888963407ull;
}

unsigned rng_below(unsigned n)
{
	return (rng_next() >> 33) % n;
}

#define STREAM(...) (const u8[]){ __VA_ARGS__ }, sizeof((const u8[]){ __VA_ARGS__ })

static const struct {
	const char *what;
	enum mode_id mode;
	const u8 *code;
	unsigned n;
	bool open;
} streams[] = {
	/* movl $0x87, AT_PD + 8; mov 0x20a000, %eax */
	{ "a page that was not there, used at once", M_PAE,
	  STREAM(0xc7, 0x05, 0x08, 0x30, 0x01, 0x00, 0x87, 0, 0, 0, 0xa1, 0x00, 0xa0, 0x20, 0),
	  false },
	{ "the same in 64-bit mode", M_LONG,
	  STREAM(0xc7, 0x04, 0x25, 0x08, 0x30, 0x01, 0x00, 0x87, 0, 0, 0, 0x8b, 0x04, 0x25, 0x00,
		 0xa0, 0x20, 0),
	  false },
	{ "the same with 4 MiB pages", M_PG32,
	  STREAM(0xc7, 0x05, 0x04, 0x50, 0x01, 0x00, 0x87, 0, 0, 0, 0xa1, 0x00, 0xa0, 0x40, 0),
	  false },
	{ "that page taken away again", M_PAE,
	  STREAM(0xc7, 0x05, 0x08, 0x30, 0x01, 0x00, 0x87, 0, 0, 0, 0xc7, 0x05, 0x08, 0x30, 0x01,
		 0x00, 0, 0, 0, 0),
	  true },
	{ "the page of the code made read-only", M_LONG,
	  STREAM(0xc7, 0x04, 0x25, 0x00, 0x30, 0x01, 0x00, 0xe5, 0, 0, 0), true },
	{ "a bit of software's", M_LONG, STREAM(0x80, 0x0c, 0x25, 0x01, 0x30, 0x01, 0x00, 0x0e),
	  false },
	{ "A taken away", M_LONG, STREAM(0x80, 0x24, 0x25, 0x00, 0x30, 0x01, 0x00, 0xdf), true },
	{ "A and D set", M_LONG, STREAM(0x80, 0x0c, 0x25, 0x00, 0x30, 0x01, 0x00, 0x60), false },
	{ "a level above, with five of them", M_LONG57,
	  STREAM(0x80, 0x24, 0x25, 0x00, 0x00, 0x01, 0x00, 0xfb), true },
	{ "five levels' table while there are four", M_LONG,
	  STREAM(0x80, 0x24, 0x25, 0x00, 0x00, 0x01, 0x00, 0xfb), false },
	{ "PDPTEs, which PAE keeps in registers", M_PAE,
	  STREAM(0xc7, 0x05, 0x00, 0x40, 0x01, 0x00, 0, 0, 0, 0), false },
	{ "tables while paging is off", M_PM32,
	  STREAM(0xc7, 0x05, 0x00, 0x30, 0x01, 0x00, 0, 0, 0, 0), false },
	/* mov $10000, %ecx; loop .; more than is stepped */
	{ "a long stream that changes the page of its code at last", M_LONG,
	  STREAM(0xb9, 0x10, 0x27, 0, 0, 0xe2, 0xfe, 0xc7, 0x04, 0x25, 0x00, 0x30, 0x01, 0x00, 0xe5,
		 0, 0, 0),
	  true },
	{ "a long stream without a store", M_LONG, STREAM(0xb9, 0x10, 0x27, 0, 0, 0xe2, 0xfe),
	  false },
	{ "no store at all", M_LONG, STREAM(0x90), false },
};

/* --- streams at random, made of what goes on at page tables --- */

struct stream {
	u8 code[STREAM_MAX];
	unsigned n;
};

static void stream_put(struct stream *s, const u8 *bytes, unsigned n)
{
	memcpy(s->code + s->n, bytes, n);
	s->n += n;
}
#define PUT(s, ...) stream_put(s, (const u8[]){ __VA_ARGS__ }, sizeof((const u8[]){ __VA_ARGS__ }))

static void put32(struct stream *s, u32 v)
{
	stream_put(s, (const u8 *)&v, 4);
}

static u32 any_entry(void)
{
	static const u32 tables[] = { AT_PD,   AT_PD,	AT_PD32, AT_PD32, AT_PDPT,
				      AT_PML4, AT_PML5, AT_PAE,	 0xb000 };

	return tables[rng_below(ARRAY_SIZE(tables))] + 4 * rng_below(12);
}

/* In a page, large or not, that some entry may map. */
static u32 any_address(void)
{
	return 0x200000 * rng_below(5) + (rng_below(2) ? 0xa000 : 0x1000 * rng_below(12)) +
	       rng_below(0x200);
}

static u32 any_value(void)
{
	static const u32 values[] = { 0x87,   0xe7,   0x83,	  0x85,	    0,
				      0x187,  0x86,   0xb007,	  0xb067,   0xa007,
				      0xa067, 0xa005, 0x8e87,	  0x200087, 0x8007,
				      0x9067, 0xc003, 0x80000087, 0x800087, 0x2087 };

	return values[rng_below(ARRAY_SIZE(values))];
}

/* Operands are absolute with a SIB byte, which means the same in 32-bit and 64-bit code. */
static void put_one(struct stream *s)
{
	switch (rng_below(9)) {
	case 0:
	case 1:
		PUT(s, 0xc7, 0x04, 0x25); /* mov $value, entry */
		put32(s, any_entry());
		put32(s, any_value());
		break;
	case 2:
		PUT(s, 0x80, rng_below(2) ? 0x0c : 0x34, 0x25); /* or, xor: one bit */
		put32(s, any_entry());
		PUT(s, 1u << rng_below(8));
		break;
	case 3:
		PUT(s, 0x0f, 0xba, rng_below(2) ? 0x2c : 0x34, 0x25); /* bts, btr */
		put32(s, any_entry());
		PUT(s, rng_below(12));
		break;
	case 4:
		PUT(s, 0x8b, 0x04, 0x25); /* mov address, %eax */
		put32(s, any_address());
		break;
	case 5:
		PUT(s, 0x01, 0x04, 0x25); /* add %eax, address */
		put32(s, any_address());
		break;
	case 6:
		PUT(s, 0x0f, 0x01, 0x3c, 0x25); /* invlpg */
		put32(s, any_address());
		break;
	case 7:
		PUT(s, 0x0f, 0x20, 0xd8, 0x0f, 0x22, 0xd8); /* mov %cr3, %eax; mov %eax, %cr3 */
		break;
	default:
		PUT(s, 0x87, 0x04, 0x25); /* xchg %eax, entry */
		put32(s, any_entry());
	}
}

/* --- all of them --- */

static void world_of(struct cell *c, enum mode_id id, struct world *in)
{
	*c = (struct cell){ .id = id, .mode = &modes[id] };
	world_make(c, in);
	in->cr4 &= ~CR4_PCIDE;
	in->cr3 = c->mode->cr3;
	in->phys_bits = 46;
}

static bool is_open(const struct cell *c, const u8 *code, unsigned n, const struct world *in)
{
	static struct end end;

	return stream_run(0, c, code, n, in, &end) && stream_is_open(c, code, n, in, &end);
}

/* Where a form of the engine ends otherwise than the checked one, in words; NULL: nowhere. */
static const char *difference_of(const struct cell *c, const u8 *code, unsigned n,
				 const struct world *in)
{
	static struct end end[GUESTS_MAX];
	const char *why = NULL;

	for (unsigned which = 0; which < GUESTS_MAX && !why; which++)
		if (!stream_run(which, c, code, n, in, &end[which]))
			return "not over in time";
		else if (which)
			why = end_difference(&end[0], &end[which], which == 1);
	return why;
}

static bool one_known(unsigned i)
{
	const u8 *code = streams[i].code;
	unsigned n = streams[i].n;
	struct world in;
	struct cell c;
	bool open, ok;

	world_of(&c, streams[i].mode, &in);
	open = is_open(&c, code, n, &in);
	ok = open == streams[i].open && (open || !difference_of(&c, code, n, &in));
	printf("%s %u - %s: %s\n", ok ? "ok" : "not ok", i + 1, streams[i].what,
	       open ? "open" : "defined, and the same on all forms");
	return ok;
}

static void print_stream(const struct cell *c, const struct stream *s, const char *why)
{
	printf("# %s: %s [", c->mode->name, why);
	for (unsigned k = 0; k < s->n; k++)
		printf(" %02x", s->code[k]);
	printf(" ]\n");
}

static bool many_at_random(unsigned number, unsigned count)
{
	static const enum mode_id ids[] = { M_PG32, M_PAE, M_COMPAT32, M_LONG, M_LONG, M_LONG57 };
	unsigned n[2][2] = {}; /* open, different */
	bool ok;

	for (unsigned i = 0; i < count; i++) {
		struct stream s = { .n = 0 };
		const char *why;
		struct world in;
		struct cell c;
		bool open;

		world_of(&c, ids[rng_below(ARRAY_SIZE(ids))], &in);
		for (unsigned k = 2 + rng_below(12); k--;)
			put_one(&s);
		open = is_open(&c, s.code, s.n, &in);
		why = difference_of(&c, s.code, s.n, &in);
		if (n[open][!!why]++ < 3 && why && !open)
			print_stream(&c, &s, why);
	}
	ok = !n[0][1] && n[0][0] && n[1][1];
	printf("%sok %u - %u streams at random: %u defined and %u open are the same on all forms, "
	       "%u open and %u "
	       "defined are not\n",
	       ok ? "" : "not ", number, count, n[0][0], n[1][0], n[1][1], n[0][1]);
	return ok;
}

int main(int argc, char **argv)
{
	const char *seed = getenv("ANYKVM_SEED"), *why = machine_init(GUESTS_MAX);
	bool ok = true;

	if (why) {
		printf("1..0 # SKIP %s\n", why);
		return 0;
	}
	rng_state = seed ? strtoull(seed, NULL, 0) : 1;
	printf("1..%u\n", (unsigned)ARRAY_SIZE(streams) + 1);
	for (unsigned i = 0; i < ARRAY_SIZE(streams); i++)
		ok &= one_known(i);
	ok &= many_at_random(ARRAY_SIZE(streams) + 1, argc > 1 ? strtoul(argv[1], NULL, 0) : 1000);
	machine_exit();
	return !ok;
}

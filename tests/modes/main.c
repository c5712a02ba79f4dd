/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Every cell of rule x mode x prefix x poison, many times, on both forms of the engine. */
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <unistd.h>

#include "modes.h"

#define STATES_PER_CODE 16

static struct {
	u64 seed;
	unsigned samples, shown;
	unsigned forget; /* number of a cell, from 1, that is left out: the run must fail */
	const char *only;
	bool table;
} options = { .seed = 1, .samples = 160, .shown = 3 };

static u64 rng_state, cases, mismatches;

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

/* --- comparison --- */

static bool differ(FILE *f, const char *what, u64 want, u64 got)
{
	if (want == got)
		return false;
	if (f)
		fprintf(f, "#     %-14s rule %016lx guest %016lx\n", what, want, got);
	return true;
}

static bool worlds_differ(const struct cell *c, const struct world *want, const struct world *got,
			  FILE *f)
{
	bool bad = differ(f, "vector", want->vector, got->vector);
	char name[8];

	if (want->vector >= 0)
		bad |= differ(f, "error", want->error, got->error);
	for (unsigned i = 0; i < 16; i++) {
		u64 mask = want->any_low >> i & 1 ? ~0ull << 32 : ~0ull;

		snprintf(name, sizeof(name), "r%u", i);
		if (i != RSP ||
		    c->mode->lma) /* elsewhere the event that ends the case has moved it */
			bad |= differ(f, name, want->gpr[i] & mask, got->gpr[i] & mask);
	}
	for (unsigned i = 0; i < 4; i++)
		bad |= differ(f, "dr", want->dr[i], got->dr[i]);
#define SAME(field) bad |= differ(f, #field, want->field, got->field)
	SAME(cr0), SAME(cr2), SAME(cr3), SAME(cr4), SAME(cr8), SAME(xcr0), SAME(efer);
	SAME(dr6), SAME(dr7), SAME(star), SAME(lstar), SAME(kernel_gs_base), SAME(sysenter_eip);
	SAME(tsc_aux), SAME(pat), SAME(gdt.base), SAME(gdt.limit), SAME(idt.base), SAME(idt.limit);
	SAME(flags), SAME(df), SAME(tr), SAME(tss), SAME(has_hypercall);
	if (is_64(c))
		SAME(fs_base), SAME(gs_base);
	for (unsigned i = 0; want->has_hypercall && i < 5; i++)
		SAME(hypercall[i]);
#undef SAME
	if (memcmp(want->data, got->data, DATA_SIZE))
		bad |= differ(f, "memory", 0, 1);
	return bad;
}

static void print_case(const struct cell *c, const struct world *in, unsigned which)
{
	printf("# %s: %s, %s, %s%s  [", guest_names[which], c->rule->name, c->mode->name,
	       prefix_names[c->prefix], c->poisoned ? ", poisoned" : "");
	for (unsigned i = 0; i < c->len; i++)
		printf(" %02x", c->code[i]);
	printf(" ]\n");
	for (unsigned i = 0; i < 16; i++)
		printf("%sr%u %lx%s", i % 4 ? "" : "#     in ", i, in->gpr[i],
		       i % 4 == 3 ? "\n" : " ");
	printf("#     in cr0 %lx cr3 %lx cr4 %lx phys %u\n", in->cr0, in->cr3, in->cr4,
	       in->phys_bits);
}

/* --- one cell --- */

static void by_rule(const struct cell *c, struct world *w)
{
	if (!(c->rule->exists >> c->id & 1))
		fault(w, VEC_UD, 0);
	else if (c->rule->privileged && c->mode->user)
		fault(w, VEC_GP, 0);
	else
		c->rule->apply(c, w);
	if (w->vector >= 0 && !c->mode->pe)
		w->error = 0; /* real mode pushes none */
}

static void run_case(const struct cell *c)
{
	static struct world in, want, got[GUESTS];
	unsigned bad = 0, shown;

	world_make(c, &in);
	if (c->rule->prepare)
		c->rule->prepare(c, &in);
	want = in;
	by_rule(c, &want);
	for (unsigned which = 0; which < GUESTS; which++) {
		machine_run(which, c, &in, &got[which]);
		bad += worlds_differ(c, &want, &got[which], NULL);
	}
	cases++;
	mismatches += bad;
	shown = cell_note(c, want.vector >= 0, bad);
	for (unsigned which = 0; bad && shown <= options.shown && which < GUESTS; which++) {
		print_case(c, &in, which);
		worlds_differ(c, &want, &got[which], stdout);
	}
}

static void prefix_set(struct cell *c, enum prefix p)
{
	c->prefix = p;
	c->p66 = p == P_66 || p == P_66_67 || p == P_66_REX;
	c->p67 = p == P_67 || p == P_66_67 || p == P_67_REX_W;
	c->rex = p >= P_REX;
	c->rex_w = p == P_REX_W || p == P_67_REX_W;
}

static void run_cell(struct cell *c)
{
	const struct cell empty = *c;

	for (unsigned n = 0, tries = 0; n < options.samples && tries < 400; tries++) {
		*c = empty;
		c->base = c->index = c->seg = NO_REG;
		c->scale = 1;
		if (rng_chance(25))
			c->seg = rng_below(6);
		if (!c->rule->encode(c))
			continue;
		machine_code(c);
		for (unsigned i = 0; i < STATES_PER_CODE && n < options.samples; i++, n++)
			run_case(c);
	}
}

/* --- all of them --- */

static void run_rule(const struct rule *rule, unsigned number)
{
	static unsigned ncells;

	for (unsigned m = 0; m < MODES; m++)
		for (unsigned k = 0; k < 2 * PREFIXES; k++) {
			struct cell c = { .rule = rule,
					  .number = number,
					  .mode = &modes[m],
					  .id = m,
					  .poisoned = k & 1 };

			prefix_set(&c, k / 2);
			if (!cell_is_possible(&c) || ++ncells == options.forget)
				continue;
			alarm(120);
			run_cell(&c);
		}
}

static const struct rule *chosen[RULES_MAX];

static unsigned choose(void)
{
	static const struct {
		const struct rule *rules;
		const unsigned *n;
	} lists[] = { { rules_control, &nrules_control },
		      { rules_msr, &nrules_msr },
		      { rules_address, &nrules_address },
		      { rules_string, &nrules_string } };
	unsigned n = 0;

	for (unsigned l = 0; l < ARRAY_SIZE(lists); l++)
		for (unsigned i = 0; i < *lists[l].n; i++) {
			const struct rule *rule = &lists[l].rules[i];

			if (options.only && strcmp(options.only, rule->name))
				continue;
			if (n == RULES_MAX)
				abort(); /* make room */
			chosen[n++] = rule;
		}
	return n;
}

static bool parse(int argc, char **argv)
{
	const char *seed = getenv("ANYKVM_SEED");

	if (seed)
		options.seed = strtoull(seed, NULL, 0);
	for (int i = 1; i < argc; i++) {
		if (!strcmp(argv[i], "--table")) {
			options.table = true;
			continue;
		}
		if (i + 1 == argc)
			return false;
		if (!strcmp(argv[i], "--samples"))
			options.samples = strtoul(argv[++i], NULL, 0);
		else if (!strcmp(argv[i], "--seed"))
			options.seed = strtoull(argv[++i], NULL, 0);
		else if (!strcmp(argv[i], "--forget"))
			options.forget = strtoul(argv[++i], NULL, 0);
		else if (!strcmp(argv[i], "--only"))
			options.only = argv[++i];
		else
			return false;
	}
	return true;
}

int main(int argc, char **argv)
{
	bool ok = true;
	const char *why;
	unsigned n;

	if (!parse(argc, argv)) {
		fprintf(stderr, "usage: modes [--samples N] [--seed N] [--only RULE] [--table] "
				"[--forget CELL]\n");
		return 2;
	}
	rng_state = options.seed;
	why = machine_init(GUESTS);
	if (why) {
		printf("1..0 # SKIP %s\n", why);
		return 0;
	}
	n = choose();
	for (unsigned i = 0; i < n; i++) {
		run_rule(chosen[i], i);
		ok &= cells_print_rule(chosen[i], i);
	}
	ok &= cells_are_complete(chosen, n);
	nested_print();
	printf("1..%u\n# %lu cases of %u rules, %lu mismatches\n", n + 1, cases, n, mismatches);
	if (options.table)
		cells_print_tables(chosen, n);
	machine_exit();
	return !ok;
}

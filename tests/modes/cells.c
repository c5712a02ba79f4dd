/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Every cell of rule x mode x prefix x poison: what was tried of it, why it cannot be, and a failure for one that is neither. */
#include "modes.h"

static struct tally {
	u32 cases, faults, bad;
} tallies[RULES_MAX][MODES][PREFIXES][2];

/* --- cells that cannot be --- */

#define REX_FORMS (BIT(P_REX) | BIT(P_REX_W) | BIT(P_66_REX) | BIT(P_67_REX_W))

static const struct {
	u32 modes, prefixes;
	const char *why;
} impossible[] = {
	{ ALL & ~LONG64, REX_FORMS,
	  "outside 64-bit mode the bytes 40h to 4Fh are INC and DEC, so the cell is two "
	  "instructions" },
};

static const char *why_impossible(unsigned m, unsigned p)
{
	for (unsigned i = 0; i < ARRAY_SIZE(impossible); i++)
		if (impossible[i].modes >> m & 1 && impossible[i].prefixes >> p & 1)
			return impossible[i].why;
	return NULL;
}

bool cell_is_possible(const struct cell *c)
{
	return !why_impossible(c->id, c->prefix);
}

/* --- what was tried --- */

static void add(struct tally *sum, const struct tally *t)
{
	sum->cases += t->cases;
	sum->faults += t->faults;
	sum->bad += t->bad;
}

static void add_mode(struct tally *sum, unsigned number, unsigned m)
{
	for (unsigned k = 0; k < 2 * PREFIXES; k++)
		add(sum, &tallies[number][m][k / 2][k & 1]);
}

static struct tally sum_of_rule(unsigned number)
{
	struct tally sum = {};

	for (unsigned m = 0; m < MODES; m++)
		add_mode(&sum, number, m);
	return sum;
}

unsigned cell_note(const struct cell *c, bool faulted, unsigned bad)
{
	struct tally *t = &tallies[c->number][c->id][c->prefix][c->poisoned], mode = {};

	t->cases++;
	t->faults += faulted;
	t->bad += bad;
	if (bad)
		add_mode(&mode, c->number, c->id);
	return mode.bad;
}

bool cells_print_rule(const struct rule *rule, unsigned number)
{
	struct tally sum = sum_of_rule(number);
	bool ok = sum.cases && !sum.bad;

	printf("%s %u - %s: %u cases in %u modes", ok ? "ok" : "not ok", number + 1, rule->name,
	       sum.cases, MODES);
	printf(sum.bad ? ", %u differ\n" : "\n", sum.bad);
	return ok;
}

/* --- the whole --- */

static const char *poison_name(unsigned poisoned)
{
	return poisoned ? "poisoned" : "clean";
}

static unsigned missing_of_rule(const struct rule *rule, unsigned number, unsigned *cells)
{
	unsigned missing = 0;

	for (unsigned m = 0; m < MODES; m++)
		for (unsigned k = 0; k < 2 * PREFIXES; k++) {
			if (why_impossible(m, k / 2))
				continue;
			++*cells;
			if (tallies[number][m][k / 2][k & 1].cases)
				continue;
			missing++;
			printf("# no case: %s, %s, prefix %s, %s\n", rule->name, modes[m].name,
			       prefix_names[k / 2], poison_name(k & 1));
		}
	return missing;
}

bool cells_are_complete(const struct rule *const *rules, unsigned n)
{
	unsigned cells = 0, missing = 0;

	for (unsigned i = 0; i < n; i++)
		missing += missing_of_rule(rules[i], i, &cells);
	printf("%s %u - every cell of %u rules, %u modes, %u prefixes, clean and poisoned: %u have "
	       "cases, %u "
	       "cannot be, %u are missing\n",
	       missing ? "not ok" : "ok", n + 1, n, MODES, PREFIXES, cells - missing,
	       n * MODES * PREFIXES * 2 - cells, missing);
	return !missing;
}

/* --- the tables of docs/EXACTNESS.md --- */

static void print_rules(const struct rule *const *rules, unsigned n)
{
	printf("\n| rule | cells | cases | of them end in a fault |\n|---|---|---|---|\n");
	for (unsigned i = 0; i < n; i++) {
		struct tally sum = sum_of_rule(i);
		unsigned cells = 0;

		missing_of_rule(rules[i], i, &cells);
		printf("| %s | %u | %u | %u |\n", rules[i]->name, cells, sum.cases, sum.faults);
	}
}

static void print_modes(unsigned n)
{
	printf("\n| mode |");
	for (unsigned p = 0; p < PREFIXES; p++)
		printf(" %s |", prefix_names[p]);
	printf("\n|---|");
	for (unsigned p = 0; p < PREFIXES; p++)
		printf("---|");
	for (unsigned m = 0; m < MODES; m++) {
		printf("\n| %s |", modes[m].name);
		for (unsigned p = 0; p < PREFIXES; p++) {
			struct tally sum[2] = {};

			for (unsigned i = 0; i < 2 * n; i++)
				add(&sum[i & 1], &tallies[i / 2][m][p][i & 1]);
			if (why_impossible(m, p))
				printf(" cannot be |");
			else
				printf(" %u + %u |", sum[0].cases, sum[1].cases);
		}
	}
	printf("\n\n");
}

void cells_print_tables(const struct rule *const *rules, unsigned n)
{
	print_rules(rules, n);
	print_modes(n);
	for (unsigned i = 0; i < ARRAY_SIZE(impossible); i++)
		printf("cannot be: %s\n", impossible[i].why);
}

/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Command-line options as rows of a table, which also gives --help. */
#include "cmd/args.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define WORD_MAX 32

/* Edits (insert, delete, replace, swap of neighbours) from one word to the other. */
static unsigned distance(const char *a, const char *b)
{
	unsigned d[WORD_MAX + 1][WORD_MAX + 1];
	const size_t n = strnlen(a, WORD_MAX), m = strnlen(b, WORD_MAX);

	for (unsigned i = 0; i <= n; i++)
		d[i][0] = i;
	for (unsigned j = 0; j <= m; j++)
		d[0][j] = j;
	for (size_t i = 1; i <= n; i++) {
		for (size_t j = 1; j <= m; j++) {
			unsigned best = d[i - 1][j - 1] + (a[i - 1] != b[j - 1]);

			if (d[i - 1][j] + 1 < best)
				best = d[i - 1][j] + 1;
			if (d[i][j - 1] + 1 < best)
				best = d[i][j - 1] + 1;
			if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] &&
			    d[i - 2][j - 2] + 1 < best)
				best = d[i - 2][j - 2] + 1;
			d[i][j] = best;
		}
	}
	return d[n][m];
}

const char *args_nearest(const char *word, const void *names, unsigned count, size_t stride)
{
	unsigned best = strlen(word) < 4 ? 2 : 3; /* more edits than this are another word */
	const char *found = NULL;

	for (unsigned i = 0; i < count; i++) {
		const char *name;
		unsigned d;

		memcpy(&name, (const char *)names + i * stride, sizeof(name));
		d = distance(word, name);
		if (d < best) {
			best = d;
			found = name;
		}
	}
	return found;
}

static const struct args_row *row_find(const struct args_table *t, const char *arg, size_t *n)
{
	const char *name = arg + 2;

	*n = strcspn(name, "=");
	for (unsigned i = 0; i < t->count; i++) {
		if (arg[1] != '-') {
			if (t->rows[i].letter && arg[1] == t->rows[i].letter && !arg[2])
				return &t->rows[i];
		} else if (strlen(t->rows[i].name) == *n && !memcmp(t->rows[i].name, name, *n)) {
			return &t->rows[i];
		}
	}
	return NULL;
}

static int unknown(const struct args_table *t, const char *arg, struct why *why)
{
	char word[WORD_MAX + 1] = "";
	const char *near;

	strncat(word, arg + strspn(arg, "-"), WORD_MAX);
	word[strcspn(word, "=")] = 0;
	near = args_nearest(word, t->rows, t->count, sizeof(t->rows[0]));
	if (near && arg[1] == '-')
		return why_set(why, EINVAL, "there is no option '%s'; did you mean --%s?", arg,
			       near);
	return why_set(why, EINVAL, "there is no option '%s'; --help lists them", arg);
}

static int value_set(const struct args_row *row, const char *value, void *target, struct why *why)
{
	struct why inner = { "" };
	int r;

	if (!row->parse) {
		*(bool *)((char *)target + row->field) = true;
		return 0;
	}
	r = row->parse(value, (char *)target + row->field, &inner);
	return r < 0 ? why_set(why, -r, "--%s: %.300s", row->name, inner.text) : 0;
}

/* One option at argv[*i], with its value there or in the next word. */
static int option_take(const struct args_table *t, int argc, char **argv, int *i, void *target,
		       struct why *why)
{
	const char *arg = argv[*i];
	const char *value = NULL;
	const struct args_row *row;
	size_t n;

	if (strcmp(arg, "--help") == 0 || strcmp(arg, "-h") == 0)
		return -ENOENT;
	row = row_find(t, arg, &n);
	if (!row)
		return unknown(t, arg, why);
	if (arg[1] == '-' && arg[2 + n] == '=')
		value = arg + 3 + n;
	if (!row->parse && value)
		return why_set(why, EINVAL, "--%s takes no value; write it alone", row->name);
	if (row->parse && !value) {
		if (*i + 1 >= argc)
			return why_set(why, EINVAL, "--%s needs a value; write --%s %s", row->name,
				       row->name, row->value);
		value = argv[++*i];
	}
	return value_set(row, value, target, why);
}

int args_parse(const struct args_table *table, int argc, char **argv, void *target,
	       const char **words, int words_max, struct why *why)
{
	bool only_words = false;
	int n = 0;

	for (int i = 1; i < argc; i++) {
		int r = 0;

		if (!only_words && strcmp(argv[i], "--") == 0)
			only_words = true;
		else if (!only_words && argv[i][0] == '-' && argv[i][1])
			r = option_take(table, argc, argv, &i, target, why);
		else if (n < words_max)
			words[n++] = argv[i];
		else
			r = why_set(why, EINVAL,
				    "'%s' is one word too many; --help shows what is "
				    "possible",
				    argv[i]);
		if (r < 0)
			return r;
	}
	return n;
}

void args_help(const struct args_table *table, FILE *out)
{
	for (unsigned i = 0; i < table->count; i++) {
		const struct args_row *r = &table->rows[i];
		char left[40];

		snprintf(left, sizeof(left), "--%s%s%s", r->name, r->parse ? " " : "",
			 r->parse ? r->value : "");
		if (r->letter)
			fprintf(out, "  -%c, %-22s %s\n", r->letter, left, r->help);
		else
			fprintf(out, "      %-22s %s\n", left, r->help);
	}
}

int args_text(const char *value, void *field, struct why *why)
{
	if (!*value)
		return why_set(why, EINVAL, "the value is empty; give one or drop the option");
	*(const char **)field = value;
	return 0;
}

static int shift_of(const char *suffix)
{
	static const char *const units[] = { "K", "M", "G", "T" };

	if (!*suffix)
		return 20; /* MiB */
	for (unsigned i = 0; i < ARRAY_SIZE(units); i++)
		if (toupper((unsigned char)suffix[0]) == units[i][0] &&
		    (!suffix[1] || !strcasecmp(suffix + 1, "iB") || !strcasecmp(suffix + 1, "B")))
			return 10 * ((int)i + 1);
	return strcasecmp(suffix, "B") == 0 ? 0 : -1;
}

int args_size(const char *value, void *field, struct why *why)
{
	unsigned long long whole;
	double fraction = 0;
	char *end;
	int shift;

	errno = 0;
	whole = strtoull(value, &end, 10);
	if (*end == '.')
		fraction = strtod(end, &end);
	shift = shift_of(end);
	if (!isdigit((unsigned char)*value) || shift < 0 || errno)
		return why_set(why, EINVAL, "'%s' is no size; write for example 512M or 2G", value);
	if (whole > (1ull << 46) >> shift)
		return why_set(why, EINVAL, "'%s' is more than 64 TiB; give less", value);
	*(u64 *)field = ((u64)whole << shift) + (u64)(fraction * (double)(1ull << shift));
	return 0;
}

int args_count(const char *value, void *field, struct why *why)
{
	unsigned long n;
	char *end;

	errno = 0;
	n = strtoul(value, &end, 10);
	if (!isdigit((unsigned char)*value) || *end || errno || n == 0 || n > 4096)
		return why_set(why, EINVAL, "'%s' is no number from 1 to 4096", value);
	*(unsigned *)field = (unsigned)n;
	return 0;
}

/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Options: forms of writing, sizes, mistakes that get a suggestion. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <errno.h>

#include "cmd/args.h"

struct target {
	const char *file;
	u64 size;
	unsigned count;
	bool flag;
};

static const struct args_row rows[] = {
	{ "file", 'f', args_text, offsetof(struct target, file), "FILE", "a file" },
	{ "size", 0, args_size, offsetof(struct target, size), "SIZE", "a size" },
	{ "count", 'c', args_count, offsetof(struct target, count), "N", "a number" },
	{ "verbose", 'v', NULL, offsetof(struct target, flag), NULL, "a flag" },
};

static const struct args_table table = { rows, ARRAY_SIZE(rows) };
static struct target t;
static struct why why;
static const char *words[2];

static int parse(char *a, char *b, char *c, char *d)
{
	char *argv[] = { (char *)"verb", a, b, c, d, NULL };
	int argc = 1;

	while (argv[argc])
		argc++;
	memset(&t, 0, sizeof(t));
	why.text[0] = 0;
	return args_parse(&table, argc, argv, &t, words, 2, &why);
}

#define S(text) ((char *)(text))

static void test_forms(void **state)
{
	(void)state;
	assert_int_equal(parse(NULL, NULL, NULL, NULL), 0);
	assert_int_equal(parse(S("--file"), S("a b"), S("-v"), NULL), 0);
	assert_string_equal(t.file, "a b");
	assert_true(t.flag);
	assert_int_equal(parse(S("--file=x=y"), S("one"), S("--"), S("-v")), 2);
	assert_string_equal(t.file, "x=y");
	assert_string_equal(words[0], "one");
	assert_string_equal(words[1], "-v");
	assert_false(t.flag);
	assert_int_equal(parse(S("-c"), S("7"), NULL, NULL), 0);
	assert_int_equal(t.count, 7);
	assert_int_equal(parse(S("--help"), NULL, NULL, NULL), -ENOENT);
}

static void test_sizes(void **state)
{
	static const struct {
		const char *text;
		u64 bytes; /* 0: refused */
	} cases[] = {
		{ "512", 512ull << 20 },
		{ "512M", 512ull << 20 },
		{ "1g", 1ull << 30 },
		{ "4GiB", 4ull << 30 },
		{ "1.5G", 3ull << 29 },
		{ "64K", 64 << 10 },
		{ "4096B", 4096 },
		{ "2T", 2ull << 40 },
		{ "", 0 },
		{ "-1", 0 },
		{ "x", 0 },
		{ "1X", 0 },
		{ "1GG", 0 },
		{ "99999999999999G", 0 },
		{ "1e9", 0 },
		{ "99999999999999999999999", 0 },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		const int r = parse(S("--size"), S(cases[i].text), NULL, NULL);

		assert_int_equal(r, cases[i].bytes ? 0 : -EINVAL);
		assert_int_equal(t.size, cases[i].bytes);
		if (r < 0)
			assert_memory_equal(why.text, "--size: ", 8);
	}
}

static void test_mistakes(void **state)
{
	(void)state;
	assert_int_equal(parse(S("--flie"), S("x"), NULL, NULL), -EINVAL);
	assert_non_null(strstr(why.text, "--file"));
	assert_int_equal(parse(S("--wibble"), NULL, NULL, NULL), -EINVAL);
	assert_non_null(strstr(why.text, "--help"));
	assert_int_equal(parse(S("--verbose=1"), NULL, NULL, NULL), -EINVAL);
	assert_int_equal(parse(S("--file"), NULL, NULL, NULL), -EINVAL);
	assert_int_equal(parse(S("--file="), NULL, NULL, NULL), -EINVAL);
	assert_int_equal(parse(S("-x"), NULL, NULL, NULL), -EINVAL);
	assert_int_equal(parse(S("--count"), S("0"), NULL, NULL), -EINVAL);
	assert_int_equal(parse(S("--count"), S("5x"), NULL, NULL), -EINVAL);
	assert_int_equal(parse(S("a"), S("b"), S("c"), NULL), -EINVAL);
	assert_int_equal(
		parse(S("--this-is-a-very-long-option-name-that-nobody-has"), NULL, NULL, NULL),
		-EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_forms),
		cmocka_unit_test(test_sizes),
		cmocka_unit_test(test_mistakes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

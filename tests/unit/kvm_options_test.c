/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* ANYKVM_OPTIONS: what is accepted, and what the refusal says. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "kvm/options.h"

static struct options parsed;
static char why[160];

static int parse(const char *text)
{
	options_default(&parsed);
	why[0] = 0;
	return options_parse(&parsed, text, why, sizeof(why));
}

static void accepts(void **state)
{
	(void)state;
	assert_int_equal(parse(""), 0);
	assert_int_equal(parse("engine=checked"), 0);
	assert_int_equal(parsed.form, ENGINE_CHECKED);
	assert_int_equal(parse("engine=checked,engine=fast"), 0);
	assert_int_equal(parsed.form, ENGINE_FAST);
	assert_int_equal(parse(",cpu-mask=x86-64-v3,,counters=on,dirty=pml,"), 0);
	assert_string_equal(parsed.cpu_mask, "x86-64-v3");
	assert_true(parsed.counters);
	assert_int_equal(parsed.collector, DIRTY_PML);
	assert_true(parsed.windows);
	assert_true(parsed.beside);
	assert_false(parsed.perf_map);
	assert_false(parsed.exact);
	assert_true(parsed.loops);
	assert_true(parsed.ahead);
	assert_int_equal(parse("windows=off,loops=off,ahead=off,beside=off,perf-map=on,exact=on"),
			 0);
	assert_true(parsed.exact);
	assert_false(parsed.windows);
	assert_false(parsed.loops);
	assert_false(parsed.ahead);
	assert_false(parsed.beside);
	assert_true(parsed.perf_map);
	assert_int_equal(parse("cpu-mask=x86-64-v2,cpu-mask=none"), 0);
	assert_string_equal(parsed.cpu_mask, "");
}

static void refuses(void **state)
{
	static const struct {
		const char *text, *named;
	} rows[] = {
		{ "engine", "engine=VALUE" },
		{ "engine=", "checked or fast" },
		{ "engine=Fast", "\"Fast\"" },
		{ "speed=9", "\"speed\"" },
		{ "=fast", "\"\"" },
		{ "cpu-mask=x86-64-v9", "x86-64-v2" },
		{ "engine=fast,counters=maybe", "on or off" },
		{ "dirty=ring", "wp or pml" },
		{ "windows=1", "on or off" },
		{ "exact=yes", "on or off" },
		{ "loops=1", "on or off" },
		{ "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa="
		  "1",
		  "too long" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		assert_int_equal(parse(rows[i].text), -EINVAL);
		assert_non_null(strstr(why, rows[i].named));
		assert_null(strchr(why, '\n'));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(accepts),
		cmocka_unit_test(refuses),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

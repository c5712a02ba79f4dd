/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Saved state of devices: round trips, versions of fields, and everything that is not such a state, each with nothing applied. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "vmm/crc32c.h"
#include "vmm/dev/state.h"

struct chip {
	u32 a;
	u8 b[7];
	u64 later;
	unsigned restored, saving;
};

static void chip_restored(void *self)
{
	((struct chip *)self)->restored++;
}

static void chip_saving(void *self)
{
	((struct chip *)self)->saving++;
}

static const struct device_field fields_1[] = {
	DEVICE_FIELD(struct chip, a),
	DEVICE_FIELD(struct chip, b),
};
static const struct device_field fields_2[] = {
	DEVICE_FIELD(struct chip, a),
	DEVICE_FIELD(struct chip, b),
	DEVICE_FIELD_SINCE(struct chip, later, 2),
};

static struct chip chips[2];
static struct device devices[2];
static const struct device *list[] = { &devices[0], &devices[1] };
static const struct state_set set = { list, 2 };
static u8 saved[512], bad[512];
static size_t size;
static struct why why;

static void device_make(unsigned i, u32 version)
{
	devices[i] = (struct device){ .name = "chip",
				      .instance = i,
				      .version = version,
				      .self = &chips[i],
				      .fields = version == 1 ? fields_1 : fields_2,
				      .field_count = version == 1 ? 2 : 3,
				      .saving = chip_saving,
				      .restored = chip_restored };
}

static int setup(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 2; i++) {
		device_make(i, 2);
		chips[i] = (struct chip){ .a = 10 + i, .b = "abcdef", .later = 77 };
	}
	size = state_save(&set, saved, sizeof(saved));
	assert_int_equal(size, state_size(&set));
	assert_int_equal(chips[1].saving, 1);
	memset(chips, 0, sizeof(chips));
	return 0;
}

static bool is_untouched(void)
{
	static const struct chip zeros[2];

	return memcmp(chips, zeros, sizeof(chips)) == 0;
}

static void test_round(void **state)
{
	(void)state;
	assert_int_equal(state_save(&set, bad, size - 1), 0);
	memset(chips, 0, sizeof(chips));
	assert_int_equal(state_restore(&set, saved, size, &why), 0);
	for (unsigned i = 0; i < 2; i++) {
		assert_int_equal(chips[i].a, 10 + i);
		assert_string_equal((char *)chips[i].b, "abcdef");
		assert_int_equal(chips[i].later, 77);
		assert_int_equal(chips[i].restored, 1);
	}
}

static void test_versions(void **state)
{
	(void)state;
	/* A newer state: refused by name and number. */
	device_make(0, 1);
	assert_true(state_restore(&set, saved, size, &why) < 0);
	assert_non_null(strstr(why.text, "chip 0 has version 2"));
	assert_true(is_untouched());
	/* An older one: the field that it cannot have stays as it is. */
	device_make(1, 1);
	size = state_save(&set, saved, sizeof(saved));
	device_make(0, 2);
	device_make(1, 2);
	chips[1].later = 5;
	assert_int_equal(state_restore(&set, saved, size, &why), 0);
	assert_int_equal(chips[1].later, 5);
	/* But not one that it must have: version 2 without the field. */
	device_make(0, 2);
	devices[0].field_count = 2;
	size = state_save(&set, saved, sizeof(saved));
	devices[0].field_count = 3;
	assert_true(state_restore(&set, saved, size, &why) < 0);
	assert_non_null(strstr(why.text, "chip 0 has no field 'later'"));
}

static void test_devices(void **state)
{
	const struct state_set one = { list, 1 };
	const struct device *twice[] = { &devices[0], &devices[0] };
	const struct state_set doubled = { twice, 2 };
	size_t n;

	(void)state;
	assert_true(state_restore(&one, saved, size, &why) < 0);
	assert_non_null(strstr(why.text, "'chip' 1"));
	n = state_save(&one, bad, sizeof(bad));
	memset(chips, 0, sizeof(chips));
	assert_true(state_restore(&set, bad, n, &why) < 0);
	assert_non_null(strstr(why.text, "lacks the device chip 1"));
	n = state_save(&doubled, bad, sizeof(bad));
	memset(chips, 0, sizeof(chips));
	assert_true(state_restore(&set, bad, n, &why) < 0);
	assert_non_null(strstr(why.text, "there already"));
	assert_true(is_untouched());
	assert_int_equal(state_movable(&set, &why), 0);
	devices[1].unmovable = "it is nailed down";
	assert_true(state_movable(&set, &why) < 0);
	assert_non_null(strstr(why.text, "nailed"));
}

/* Each prefix, each flipped bit; then bytes at random with checksums made right, so that the inner checks are met. */
static void test_damage(void **state)
{
	const char *seed = getenv("ANYKVM_SEED");

	(void)state;
	for (size_t cut = 0; cut < size; cut++)
		assert_true(state_restore(&set, saved, cut, &why) < 0);
	for (size_t bit = 0; bit < size * 8; bit++) {
		memcpy(bad, saved, size);
		bad[bit / 8] ^= (u8)BIT(bit % 8);
		assert_true(state_restore(&set, bad, size, &why) < 0);
	}
	assert_true(is_untouched());
	srand(seed ? (unsigned)atoi(seed) : 1);
	for (unsigned round = 0; round < 100000; round++) {
		const size_t half = size / 2;
		u32 crc;

		memcpy(bad, saved, size);
		for (unsigned k = (unsigned)rand() % 4; k < 4; k++)
			bad[(unsigned)rand() % (half - 4)] = (u8)rand();
		crc = crc32c(0, bad, half - 4);
		memcpy(bad + half - 4, &crc, 4);
		if (state_restore(&set, bad, size, &why) < 0)
			assert_true(is_untouched());
		memset(chips, 0, sizeof(chips));
	}
}

static u32 crc_slow(const u8 *p, size_t n)
{
	u32 crc = ~0u;

	for (size_t i = 0; i < n; i++) {
		crc ^= p[i];
		for (unsigned k = 0; k < 8; k++)
			crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78u : 0);
	}
	return ~crc;
}

static void test_crc(void **state)
{
	static u8 bytes[20000];
	static const size_t sizes[] = { 0, 1, 7, 8, 9, 3071, 3072, 3073, 4096, 6144, 20000 };

	(void)state;
	assert_int_equal(crc32c(0, "123456789", 9), 0xe3069283);
	for (size_t i = 0; i < sizeof(bytes); i++)
		bytes[i] = (u8)rand();
	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		assert_int_equal(crc32c(0, bytes, sizes[i]), crc_slow(bytes, sizes[i]));
		assert_int_equal(crc32c(crc32c(0, bytes, sizes[i] / 3), bytes + sizes[i] / 3,
					sizes[i] - sizes[i] / 3),
				 crc_slow(bytes, sizes[i]));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_round, setup),
		cmocka_unit_test_setup(test_versions, setup),
		cmocka_unit_test_setup(test_devices, setup),
		cmocka_unit_test_setup(test_damage, setup),
		cmocka_unit_test(test_crc),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* ACPI tables: checksums, lengths and pointers hold together, and too little room is noticed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "vmm/acpi.h"
#include "vmm/aml.h"

#define BASE 0xe0000u

static u8 image[ACPI_ROOM];

static u32 get32(const u8 *p)
{
	u32 v;

	memcpy(&v, p, 4);
	return v;
}

static u64 get64(const u8 *p)
{
	u64 v;

	memcpy(&v, p, 8);
	return v;
}

static u8 sum(const u8 *p, size_t n)
{
	u8 s = 0;

	while (n--)
		s += *p++;
	return s;
}

/* The table at a guest address: inside the image, signed so, and summing up to 0. */
static const u8 *table_at(u64 gpa, size_t size, const char *signature)
{
	const u8 *t = image + (gpa - BASE);

	assert_in_range(gpa, BASE, BASE + size - 36);
	assert_memory_equal(t, signature, 4);
	assert_in_range(get32(t + 4), 36, size - (gpa - BASE));
	assert_int_equal(sum(t, get32(t + 4)), 0);
	return t;
}

static void test_tables(void **state)
{
	const size_t n = acpi_build(image, sizeof(image), BASE, 3);
	const u8 *xsdt, *fadt, *madt;
	unsigned lapics = 0;

	(void)state;
	assert_in_range(n, 300, 4096);
	assert_memory_equal(image, "RSD PTR ", 8);
	assert_int_equal(sum(image, 20), 0);
	assert_int_equal(sum(image, 36), 0);
	xsdt = table_at(get64(image + 24), n, "XSDT");
	assert_int_equal(get32(xsdt + 4), 36 + 3 * 8);
	fadt = table_at(get64(xsdt + 36), n, "FACP");
	madt = table_at(get64(xsdt + 44), n, "APIC");
	assert_int_equal(get32(fadt + 4), 276);
	table_at(get64(fadt + 140), n, "DSDT");
	assert_int_equal(get32(fadt + 40), get64(fadt + 140));
	assert_memory_equal(image + (get32(fadt + 36) - BASE), "FACS", 4);
	assert_int_equal((get32(fadt + 36)) % 64, 0);
	for (u32 at = 44; at < get32(madt + 4); at += madt[at + 1]) {
		assert_true(madt[at + 1] >= 2);
		lapics += madt[at] == 0;
	}
	assert_int_equal(lapics, 3);
}

/* Every room that is too small gives 0 and touches nothing behind it. */
static void test_room(void **state)
{
	const size_t n = acpi_build(image, sizeof(image), BASE, 1);
	u8 *small = malloc(n);

	(void)state;
	for (size_t room = 0; room < n; room++) {
		memset(small, 0xaa, n);
		assert_int_equal(acpi_build(small, room, BASE, 1), 0);
		for (size_t i = room; i < n; i++)
			assert_int_equal(small[i], 0xaa);
	}
	free(small);
	assert_int_equal(acpi_build(image, sizeof(image), BASE, 0), 0);
	assert_int_equal(acpi_build(image, sizeof(image), BASE, 255), 0);
	assert_true(acpi_build(image, sizeof(image), BASE, 254) > n);
}

static void test_aml(void **state)
{
	u8 out[64];
	struct aml a = { out, 0, sizeof(out), false };
	static const u8 expected[] = { 0x08, '_',  'H',	 'I',  'D',  0x0c, 0x41, 0xd0, 0x05,
				       0x01, 0x12, 0x46, 0x00, 0x02, 0x00, 0x0a, 0x05 };

	(void)state;
	aml_name(&a, "_HID");
	aml_eisa_id(&a, "PNP0501");
	const size_t mark = aml_package_begin(&a, 2);
	aml_integer(&a, 0);
	aml_integer(&a, 5);
	aml_end(&a, mark);
	assert_false(a.overflow);
	assert_int_equal(a.size, sizeof(expected));
	assert_memory_equal(out, expected, sizeof(expected));
	a.room = a.size + 2;
	aml_integer(&a, 0x12345);
	assert_true(a.overflow);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_tables),
		cmocka_unit_test(test_room),
		cmocka_unit_test(test_aml),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

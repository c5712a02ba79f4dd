/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* cpio archives: fields, alignment and trailer as a kernel reads them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <stdio.h>
#include <sys/stat.h>

#include "vmm/cpio.h"

static unsigned field(const u8 *header, unsigned i)
{
	char text[9] = "";

	memcpy(text, header + 6 + 8 * i, 8);
	return (unsigned)strtoul(text, NULL, 16);
}

enum { INODE, MODE, UID, GID, NLINK, MTIME, SIZE, MAJ, MIN, RMAJ, RMIN, NAMESIZE, CHECK };

/* Read one entry at @at, check its form; returns where the next one is. */
static size_t entry_check(const struct cpio *c, size_t at, const char *name, unsigned mode,
			  const char *data)
{
	const u8 *h = c->data + at;
	size_t body;

	assert_int_equal(at % 4, 0);
	assert_true(at + 110 <= c->size);
	assert_memory_equal(h, "070701", 6);
	assert_int_equal(field(h, MODE), mode);
	assert_int_equal(field(h, NAMESIZE), strlen(name) + 1);
	assert_string_equal((const char *)h + 110, name);
	body = ALIGN_UP(at + 110 + strlen(name) + 1, 4);
	assert_int_equal(field(h, SIZE), strlen(data));
	assert_memory_equal(c->data + body, data, strlen(data));
	return ALIGN_UP(body + strlen(data), 4);
}

static void test_archive(void **state)
{
	struct cpio c = { 0 };
	size_t at = 0;

	(void)state;
	cpio_add_directory(&c, "bin");
	cpio_add(&c, "bin/a", S_IFREG | 0755, "hello", 5);
	cpio_add_link(&c, "bin/sh", "a");
	cpio_add_device(&c, "dev/console", S_IFCHR | 0600, 5, 1);
	assert_int_equal(cpio_finish(&c), 0);
	assert_int_equal(c.size % 512, 0);
	at = entry_check(&c, at, "bin", S_IFDIR | 0755, "");
	at = entry_check(&c, at, "bin/a", S_IFREG | 0755, "hello");
	at = entry_check(&c, at, "bin/sh", S_IFLNK | 0777, "a");
	assert_int_equal(field(c.data + at, RMAJ), 5);
	assert_int_equal(field(c.data + at, RMIN), 1);
	at = entry_check(&c, at, "dev/console", S_IFCHR | 0600, "");
	at = entry_check(&c, at, "TRAILER!!!", 0, "");
	for (; at < c.size; at++)
		assert_int_equal(c.data[at], 0);
	cpio_free(&c);
	assert_null(c.data);
}

static void test_names(void **state)
{
	/* Every length of name and body: the alignment must hold. */
	(void)state;
	for (size_t n = 1; n < 9; n++) {
		struct cpio c = { 0 };
		char name[16] = "", data[16] = "";
		size_t at;

		memset(name, 'n', n);
		memset(data, 'd', 9 - n);
		cpio_add(&c, name, S_IFREG, data, 9 - n);
		assert_int_equal(cpio_finish(&c), 0);
		at = entry_check(&c, 0, name, S_IFREG, data);
		entry_check(&c, at, "TRAILER!!!", 0, "");
		cpio_free(&c);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_archive),
		cmocka_unit_test(test_names),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

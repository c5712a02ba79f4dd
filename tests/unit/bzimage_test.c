/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Kernel files: every truncation and many damages give an error, never a crash; each format is unpacked. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <errno.h>
#include <elf.h>

#include "vmm/boot/bzimage.h"
#include "vmm/boot/decompress.h"
#include "vmm/boot/elf.h"

#include "packed_fixture.h"

#define BODY	  20000u
#define NOTE_AT	  512
#define KERNEL_AT 0x100000

static u8 body[BODY]; /* an ELF kernel with a PVH note */
static struct why why;

static void body_make(void)
{
	Elf64_Ehdr e = { .e_type = ET_EXEC,
			 .e_machine = EM_X86_64,
			 .e_entry = KERNEL_AT,
			 .e_phoff = sizeof(e),
			 .e_phentsize = sizeof(Elf64_Phdr),
			 .e_phnum = 2 };
	const Elf64_Phdr p[2] = {
		{ .p_type = PT_LOAD,
		  .p_offset = 0,
		  .p_paddr = KERNEL_AT,
		  .p_filesz = BODY,
		  .p_memsz = BODY + 5000 },
		{ .p_type = PT_NOTE, .p_offset = NOTE_AT, .p_filesz = 20 },
	};
	const u32 note[5] = { 4, 4, 18, 0x006e6558, 0x123456 };

	memcpy(e.e_ident, ELFMAG, SELFMAG);
	e.e_ident[EI_CLASS] = ELFCLASS64;
	e.e_ident[EI_DATA] = ELFDATA2LSB;
	for (unsigned i = 0; i < BODY; i++)
		body[i] = (u8)(i * i >> 7);
	memcpy(body, &e, sizeof(e));
	memcpy(body + sizeof(e), p, sizeof(p));
	memcpy(body + NOTE_AT, note, sizeof(note));
}

/* Parse and unpack a copy of exactly @n bytes, so that a sanitizer sees any byte too many. */
static int open_image(const u8 *data, size_t n, bool *same)
{
	u8 *copy = malloc(n ? n : 1), *out = NULL;
	struct packed packed = { .unpacked = 0 };
	struct bzimage image;
	struct elf_image elf;
	int r;

	memcpy(copy, data, n);
	r = bzimage_parse(&image, copy, n, &why);
	if (r == 0)
		r = packed_open(&packed, image.payload, image.payload_size, &why);
	if (r == 0)
		r = packed_unpack(&packed, out = malloc(packed.unpacked), &why);
	if (r == 0)
		r = elf_parse(&elf, out, packed.unpacked, &why);
	*same = r == 0 && packed.unpacked == BODY && memcmp(out, body, BODY) == 0 && elf.has_pvh &&
		elf.pvh_entry == 0x123456;
	free(out);
	free(copy);
	return r;
}

static void test_formats(void **state)
{
	static u8 image[4 * BODY];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(packers); i++) {
		const size_t n = image_make(image, sizeof(image), packers[i], body, BODY);
		bool same;

		assert_int_equal(open_image(image, n, &same), 0);
		assert_true(same);
	}
}

static void test_truncated(void **state)
{
	static u8 image[4 * BODY];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(packers); i++) {
		const size_t full = image_make(image, sizeof(image), packers[i], body, BODY);
		bool same;

		for (size_t n = 0; n < full; n += n < 1024 ? 1 : 97) {
			why.text[0] = 0;
			assert_int_equal(open_image(image, n, &same), -EINVAL);
			assert_true(strlen(why.text) > 10);
		}
	}
}

/* A damaged payload of the right length: an error, or another kernel, and no crash. */
static void test_damaged(void **state)
{
	static u8 good[4 * BODY], image[4 * BODY];
	bool same;

	(void)state;
	srand(1);
	for (size_t i = 0; i < ARRAY_SIZE(packers); i++) {
		const size_t n = image_make(good, sizeof(good), packers[i], body, BODY);

		for (unsigned round = 0; round < 300; round++) {
			memcpy(image, good, n);
			for (unsigned k = 0; k < 3; k++)
				image[SETUP + (size_t)rand() % (n - SETUP)] = (u8)rand();
			if (open_image(image, n, &same) < 0)
				assert_true(strlen(why.text) > 10);
		}
	}
}

static void test_elf_load(void **state)
{
	struct elf_image elf;
	struct ram ram;
	gpa_t end;

	(void)state;
	assert_int_equal(elf_parse(&elf, body, BODY, &why), 0);
	assert_int_equal(ram_create(&ram, 2 << 20, &why), 0);
	assert_int_equal(elf_load(&elf, &ram, &end, &why), 0);
	assert_int_equal(end, KERNEL_AT + BODY + 5000);
	assert_memory_equal(ram.host + KERNEL_AT, body, BODY);
	ram_destroy(&ram);
	assert_int_equal(ram_create(&ram, KERNEL_AT + 4096, &why), 0);
	assert_int_equal(elf_load(&elf, &ram, &end, &why), -EINVAL);
	ram_destroy(&ram);
}

static void test_elf_damaged(void **state)
{
	struct elf_image elf;
	struct ram ram;
	gpa_t end;

	(void)state;
	srand(2);
	assert_int_equal(ram_create(&ram, 4 << 20, &why), 0);
	for (unsigned round = 0; round < 20000; round++) {
		u8 *copy = malloc(BODY);

		memcpy(copy, body, BODY);
		for (unsigned k = 0; k < 3; k++)
			copy[4 + rand() % 200] = (u8)rand();
		if (elf_parse(&elf, copy, BODY, &why) == 0)
			elf_load(&elf, &ram, &end, &why);
		free(copy);
	}
	ram_destroy(&ram);
}

static int setup(void **state)
{
	(void)state;
	body_make();
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_formats),	    cmocka_unit_test(test_truncated),
		cmocka_unit_test(test_damaged),	    cmocka_unit_test(test_elf_load),
		cmocka_unit_test(test_elf_damaged),
	};

	return cmocka_run_group_tests(tests, setup, NULL);
}

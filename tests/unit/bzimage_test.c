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
#include <lz4.h>
#include <lzma.h>
#include <zlib.h>
#include <zstd.h>

#include "vmm/boot/bzimage.h"
#include "vmm/boot/decompress.h"
#include "vmm/boot/elf.h"

#define SETUP	  (5 * 512)
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

static size_t pack_gzip(u8 *out, size_t room)
{
	z_stream z = {
		.next_in = body, .avail_in = BODY, .next_out = out, .avail_out = (uInt)room
	};

	deflateInit2(&z, 9, Z_DEFLATED, MAX_WBITS + 16, 8, Z_DEFAULT_STRATEGY);
	assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
	deflateEnd(&z);
	return z.total_out; /* ends with the size already */
}

static size_t size_append(u8 *out, size_t n)
{
	const u32 size = BODY;

	memcpy(out + n, &size, 4);
	return n + 4;
}

static size_t pack_xz(u8 *out, size_t room)
{
	size_t n = 0;

	assert_int_equal(
		lzma_easy_buffer_encode(6, LZMA_CHECK_CRC32, NULL, body, BODY, out, &n, room),
		LZMA_OK);
	return size_append(out, n);
}

static size_t pack_zstd(u8 *out, size_t room)
{
	const size_t n = ZSTD_compress(out, room, body, BODY, 3);

	assert_false(ZSTD_isError(n));
	return size_append(out, n);
}

/* Two blocks, as the legacy frame has them after each 8 MiB. */
static size_t pack_lz4(u8 *out, size_t room)
{
	static const u8 magic[4] = { 2, 0x21, 0x4c, 0x18 };
	size_t n = 4;

	memcpy(out, magic, 4);
	for (unsigned at = 0; at < BODY; at += BODY / 2) {
		const int m = LZ4_compress_default((char *)body + at, (char *)out + n + 4, BODY / 2,
						   (int)(room - n - 4));

		memcpy(out + n, &m, 4);
		n += 4 + (size_t)m;
	}
	return size_append(out, n);
}

static size_t pack_none(u8 *out, size_t room)
{
	assert_true(room >= BODY);
	memcpy(out, body, BODY);
	return BODY;
}

static size_t (*const packers[])(u8 *, size_t) = { pack_gzip, pack_xz, pack_zstd, pack_lz4,
						   pack_none };

static size_t image_make(u8 *out, size_t room, size_t (*pack)(u8 *, size_t))
{
	struct setup_header h = { .setup_sects = 4,
				  .boot_flag = 0xaa55,
				  .jump = 0x66eb,
				  .header = 0x53726448,
				  .version = 0x20f,
				  .loadflags = LOADED_HIGH,
				  .payload_offset = 100 };
	const size_t n = pack(out + SETUP + 100, room - SETUP - 100);

	memset(out, 0, SETUP + 100);
	h.payload_length = (u32)n;
	memcpy(out + 0x1f1, &h, sizeof(h));
	return SETUP + 100 + n;
}

/* Parse and unpack a copy of exactly @n bytes, so that a sanitizer sees any byte too many. */
static int open_image(const u8 *data, size_t n, bool *same)
{
	u8 *copy = malloc(n ? n : 1), *out = NULL;
	struct bzimage image;
	struct elf_image elf;
	size_t size = 0;
	int r;

	memcpy(copy, data, n);
	r = bzimage_parse(&image, copy, n, &why);
	if (r == 0)
		r = decompress(image.payload, image.payload_size, &out, &size, &why);
	if (r == 0)
		r = elf_parse(&elf, out, size, &why);
	*same = r == 0 && size == BODY && memcmp(out, body, BODY) == 0 && elf.has_pvh &&
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
		const size_t n = image_make(image, sizeof(image), packers[i]);
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
		const size_t full = image_make(image, sizeof(image), packers[i]);
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
		const size_t n = image_make(good, sizeof(good), packers[i]);

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

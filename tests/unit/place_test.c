/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Kernels unpacked to where they run: memory is as after a copy, and shapes that would destroy themselves are copied. */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>
#include <elf.h>
#include <errno.h>

#include "vmm/boot/elf.h"
#include "vmm/boot/load.h"

#include "packed_fixture.h"

#define KIB	  1024u
#define FILE_SIZE (160 * KIB)
#define MEMORY	  (2048 * KIB)
#define NOTE_AT	  (10 * KIB)
#define PVH_ENTRY 0x123456
#define FOREVER	  ~0ull
#define MAX_PARTS 4

/* In KiB: places in the file and in memory. */
struct part {
	u64 offset, paddr, filesz, memsz;
};

struct shape {
	const char *name;
	bool in_place;
	int result;	  /* of boot_load() */
	unsigned headers; /* where the program headers are; 0: behind the ELF header */
	struct part parts[MAX_PARTS];
};

/* clang-format off */
static const struct shape shapes[] = {
	{ "as Linux's: two stay, two move down", true, 0, 0,
	  { { 8, 1100, 30, 30 }, { 40, 1132, 20, 20 }, { 64, 1152, 3, 3 }, { 72, 1156, 60, 60 } } },
	{ "bss behind each", true, 0, 0,
	  { { 8, 1100, 30, 32 }, { 64, 1140, 20, 31 }, { 100, 1171, 20, 300 } } },
	{ "bss over the source of the next", true, 0, 0,
	  { { 8, 1100, 4, 60 }, { 100, 1160, 40, 41 } } },
	{ "headers in the first", true, 0, 0, { { 0, 1030, 20, 25 }, { 50, 1056, 60, 60 } } },
	{ "from the first usable byte on", true, 0, 0, { { 8, 1032, 100, 100 } } },
	{ "to the last byte of memory", true, 0, 0, { { 8, 2048 - 152, 100, 100 } } },
	{ "bss to the last byte of memory", true, 0, 0, { { 8, 1100, 100, 948 } } },
	{ "bss alone", true, 0, 0, { { 8, 1100, 100, 100 }, { 150, 1200, 0, 30 } } },
	{ "bss alone at the end of the file", true, 0, 0,
	  { { 8, 1100, 100, 100 }, { 160, 1252, 0, 30 } } },
	{ "headers that are moved over", true, 0, 5, { { 1, 1100, 2, 2 }, { 20, 1102, 60, 60 } } },
	{ "files overlap", true, 0, 0,
	  { { 8, 1100, 1, 1 }, { 20, 1105, 30, 30 }, { 49, 1136, 30, 30 } } },
	{ "one moves up", false, 0, 0, { { 8, 1100, 30, 30 }, { 40, 1133, 20, 20 } } },
	{ "targets descend", false, 0, 0, { { 8, 1100, 30, 30 }, { 60, 1060, 20, 20 } } },
	{ "offsets descend", false, 0, 0, { { 40, 1100, 30, 30 }, { 10, 1140, 20, 20 } } },
	{ "targets overlap", false, 0, 0, { { 8, 1100, 30, 31 }, { 60, 1130, 20, 20 } } },
	{ "the file would begin below 1 MiB", false, 0, 0, { { 8, 1031, 100, 100 } } },
	{ "the file would end beyond memory", false, 0, 0, { { 8, 2048 - 151, 100, 100 } } },
	{ "the file would begin in low memory", false, 0, 0, { { 159, 192, 1, 2 } } },
	{ "the file would begin below 0", false, -EINVAL, 0, { { 150, 100, 1, 2 } } },
	{ "headers far inside", false, 0, 100, { { 8, 1100, 30, 30 } } },
	{ "beyond memory", false, -EINVAL, 0, { { 8, 2000, 49, 49 } } },
	{ "bss beyond memory", false, -EINVAL, 0, { { 8, 1100, 100, 949 } } },
	{ "a size that overflows", false, -EINVAL, 0, { { 8, 1100, 100, FOREVER } } },
	{ "an address that overflows", false, -EINVAL, 0, { { 8, FOREVER, 1, 1 } } },
	{ "on the loader's tables", false, -EINVAL, 0,
	  { { 8, 100, 30, 30 }, { 40, 132, 20, 20 } } },
	{ "beyond the file", false, -EINVAL, 0, { { 8, 1100, 153, 153 } } },
	{ "less memory than file", false, -EINVAL, 0, { { 8, 1100, 30, 29 } } },
	{ "nothing", false, -EINVAL, 0, { { 0, 0, 0, 0 } } },
};
/* clang-format on */

static struct why why;

static u64 bytes(u64 kib)
{
	return kib == FOREVER ? FOREVER - 4095 : kib * KIB;
}

static void elf_make(u8 *file, const struct shape *shape)
{
	Elf64_Ehdr e = { .e_type = ET_EXEC,
			 .e_machine = EM_X86_64,
			 .e_entry = 1,
			 .e_phoff = shape->headers ? shape->headers * KIB : sizeof(e),
			 .e_phentsize = sizeof(Elf64_Phdr),
			 .e_phnum = MAX_PARTS + 1 };
	const u32 note[5] = { 4, 4, 18, 0x006e6558, PVH_ENTRY };
	Elf64_Phdr p[MAX_PARTS + 1] = {
		{ .p_type = PT_NOTE, .p_offset = NOTE_AT, .p_filesz = sizeof(note) }
	};

	for (unsigned i = 0; i < MAX_PARTS; i++)
		p[i + 1] = (Elf64_Phdr){ .p_type = PT_LOAD,
					 .p_offset = bytes(shape->parts[i].offset),
					 .p_paddr = bytes(shape->parts[i].paddr),
					 .p_filesz = bytes(shape->parts[i].filesz),
					 .p_memsz = bytes(shape->parts[i].memsz) };
	memcpy(e.e_ident, ELFMAG, SELFMAG);
	e.e_ident[EI_CLASS] = ELFCLASS64;
	e.e_ident[EI_DATA] = ELFDATA2LSB;
	for (unsigned i = 0; i < FILE_SIZE; i++)
		file[i] = (u8)(1 +
			       ((i >> 4) * 40503u >> 7) % 255); /* no zeros, and it can be packed */
	memcpy(file, &e, sizeof(e));
	memcpy(file + e.e_phoff, p, sizeof(p));
	memcpy(file + NOTE_AT, note, sizeof(note));
}

/* Two, of exactly their size, so that a sanitizer sees any byte outside. */
static u8 *memories[2];

static struct ram memory_make(unsigned i, u8 fill)
{
	struct ram ram = { .host = memories[i], .size = MEMORY, .low = MEMORY };

	memset(ram.host, fill, MEMORY);
	return ram;
}

static int memories_create(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 2; i++)
		memories[i] = malloc(MEMORY);
	return memories[0] && memories[1] ? 0 : -1;
}

static int memories_destroy(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 2; i++)
		free(memories[i]);
	return 0;
}

static int kernel_open(struct kernel *kernel, const u8 *image, size_t n)
{
	const int fd = memfd_create("kernel", 0);
	char path[64];
	int r;

	assert_int_equal(write(fd, image, n), n);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	r = kernel_read(kernel, path, &why);
	close(fd);
	kernel->path = "K";
	return r;
}

static int kernel_boot(const struct kernel *kernel, const struct ram *ram, struct boot_entry *entry)
{
	const struct boot_request request = { .kernel = kernel, .cmdline = "" };
	int r;

	why.text[0] = 0;
	r = boot_load(ram, &request, entry, &why);
	if (r < 0)
		assert_non_null(strstr(why.text, "cannot boot the kernel 'K': "));
	return r;
}

static bool has_place(const u8 *file, const struct ram *ram, gpa_t *place)
{
	struct elf_image head;

	return elf_head(&head, file, KERNEL_HEAD, FILE_SIZE, &why) == 0 &&
	       elf_place(&head, ram, place);
}

/* Memory of zeros looks as after a copy; in other memory what is no segment is cleared where the file was. */
static void shape_check(const struct shape *shape, const u8 *file, const struct kernel *kernel,
			u8 fill, bool is_packed)
{
	struct ram got = memory_make(0, fill), expected = memory_make(1, fill);
	struct boot_entry entry = { .rip = 0 };
	struct elf_image elf;
	gpa_t place, end;
	int r;

	assert_int_equal(has_place(file, &got, &place), shape->in_place);
	assert_int_equal(kernel_boot(kernel, &got, &entry), shape->result);
	if (shape->in_place && is_packed)
		memset(expected.host + place, 0, FILE_SIZE);
	r = elf_parse(&elf, file, FILE_SIZE, &why);
	if (r == 0)
		r = elf_load(&elf, &expected, &end, &why);
	assert_int_equal(r, shape->result);
	/* And a reset: the same again, over what the first left. */
	for (unsigned i = 0; r == 0 && i < 2; i++) {
		assert_true(entry.mode == BOOT_PVH && entry.rip == PVH_ENTRY);
		/* Below is what the loader tells. */
		assert_int_equal(memcmp(got.host + RAM_LOADER_END, expected.host + RAM_LOADER_END,
					MEMORY - RAM_LOADER_END),
				 0);
		assert_int_equal(kernel_boot(kernel, &got, &entry), 0);
	}
}

static void test_shapes(void **state)
{
	static u8 file[FILE_SIZE], image[2 * FILE_SIZE];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(shapes); i++) {
		print_message("# %s\n", shapes[i].name);
		elf_make(file, &shapes[i]);
		for (size_t k = 0; k < ARRAY_SIZE(packers); k++) {
			const size_t n =
				image_make(image, sizeof(image), packers[k], file, FILE_SIZE);
			const bool is_packed = packers[k] != pack_none;
			struct kernel kernel;

			assert_int_equal(kernel_open(&kernel, image, n), 0);
			shape_check(&shapes[i], file, &kernel, 0, is_packed);
			shape_check(&shapes[i], file, &kernel, 0xa5, is_packed);
			kernel_free(&kernel);
		}
	}
}

/* Memory above the hole is another piece; a file must not lie in both. */
static void test_two_pieces(void **state)
{
	static const struct shape low = { .parts = { { 8, 1100, 100, 100 } } };
	static const struct shape high = { .parts = { { 8, 4096 * KIB + 100, 100, 100 },
						      { 120, 4096 * KIB + 210, 40, 40 } } };
	struct ram ram = memory_make(0, 0);
	static u8 file[FILE_SIZE];
	gpa_t place;

	(void)state;
	ram.low = 1251 * KIB;
	ram.high = 252 * KIB;
	elf_make(file, &low);
	assert_false(has_place(file, &ram, &place));
	ram.low = 1252 * KIB;
	assert_true(has_place(file, &ram, &place));
	assert_int_equal(place, 1092 * KIB);
	elf_make(file, &high);
	assert_true(has_place(file, &ram, &place));
	assert_int_equal(place, RAM_HIGH_START + 92 * KIB);
	ram.high = 251 * KIB;
	assert_false(has_place(file, &ram, &place));
}

/* Whatever the payload is: an error of one line, or a kernel, and no byte outside memory. */
static void damaged_boot(const u8 *image, size_t n)
{
	struct ram ram = memory_make(0, 0x5a);
	struct boot_entry entry;
	struct kernel kernel;

	why.text[0] = 0;
	if (kernel_open(&kernel, image, n) == 0) {
		kernel_boot(&kernel, &ram, &entry);
		kernel_free(&kernel);
	} else {
		assert_non_null(strstr(why.text, "cannot boot the kernel"));
	}
	assert_null(strchr(why.text, '\n'));
}

static void test_damaged(void **state)
{
	static const struct shape at_end = { .parts = { { 8, 2048 - 152, 100, 100 } } };
	static u8 file[FILE_SIZE], good[2 * FILE_SIZE], image[2 * FILE_SIZE];

	(void)state;
	srand(3);
	elf_make(file, &at_end);
	for (size_t k = 0; k < ARRAY_SIZE(packers); k++) {
		const size_t n = image_make(good, sizeof(good), packers[k], file, FILE_SIZE);

		for (unsigned round = 0; round < 60; round++) {
			memcpy(image, good, n);
			for (unsigned i = 0; i < 1 + round % 3; i++)
				image[PAYLOAD_AT + (size_t)rand() % (n - PAYLOAD_AT)] ^=
					(u8)(1 << rand() % 8);
			damaged_boot(image, n);
		}
	}
}

static void damage_found(const u8 *image, size_t n)
{
	struct ram ram = memory_make(0, 0);
	struct boot_entry entry;
	struct kernel kernel;
	int r = kernel_open(&kernel, image, n);

	if (r == 0) {
		r = kernel_boot(&kernel, &ram, &entry);
		kernel_free(&kernel);
	}
	assert_int_equal(r, -EINVAL);
	assert_non_null(strstr(why.text, "truncated or damaged"));
}

/* A size that is not the stream's, and a stream that is cut while the file is whole. */
static void test_wrong_size(void **state)
{
	static const int off[] = { -70000, -1, 1, 70000, 1 << 26 };
	static u8 file[FILE_SIZE], image[2 * FILE_SIZE];

	(void)state;
	elf_make(file, &shapes[0]);
	for (size_t k = 0; packers[k] != pack_none; k++) {
		const size_t n = image_make(image, sizeof(image), packers[k], file, FILE_SIZE);
		const size_t half = (n - PAYLOAD_AT) / 2;

		for (size_t i = 0; i < ARRAY_SIZE(off); i++) {
			size_append(image, n - 4, FILE_SIZE + (size_t)off[i]);
			damage_found(image, n);
		}
		size_append(image, n - 4, FILE_SIZE);
		memset(image + PAYLOAD_AT + half, 0, n - 4 - PAYLOAD_AT - half);
		damage_found(image, n);
	}
}

/* What is told when the file is read, before there is a machine. */
static void test_read_errors(void **state)
{
	static u8 file[FILE_SIZE], image[2 * FILE_SIZE];
	struct kernel kernel;
	size_t n;

	(void)state;
	elf_make(file, &shapes[0]);
	file[0] = 'X';
	for (size_t k = 0; packers[k] != pack_none; k++) {
		n = image_make(image, sizeof(image), packers[k], file, FILE_SIZE);
		assert_int_equal(kernel_open(&kernel, image, n), -EINVAL);
		assert_non_null(strstr(why.text, "no ELF file"));
		assert_null(kernel.file);
		size_append(image, n - 4, 0);
		assert_int_equal(kernel_open(&kernel, image, n), -EINVAL);
		assert_non_null(strstr(why.text, "truncated or damaged"));
		image[PAYLOAD_AT] = 'Y';
		assert_int_equal(kernel_open(&kernel, image, n), -EINVAL);
		assert_non_null(strstr(why.text, "something unknown"));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_shapes),	    cmocka_unit_test(test_two_pieces),
		cmocka_unit_test(test_damaged),	    cmocka_unit_test(test_wrong_size),
		cmocka_unit_test(test_read_errors),
	};

	return cmocka_run_group_tests(tests, memories_create, memories_destroy);
}

/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* A kernel, its initrd and its command line into guest memory. */
#include "vmm/boot/load.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/boot/elf.h"
#include "vmm/blob.h"

#define KERNEL_FILE_MAX (1ull << 30)

/* Put the name of the file before what a parser said. */
static int blame(const struct kernel *kernel, int err, struct why *why)
{
	struct why told = *why;

	return why_set(why, -err, "cannot boot the kernel '%s': %.300s", kernel->path, told.text);
}

static int kernel_open(struct kernel *kernel, const struct blob *blob, struct why *why)
{
	struct bzimage image = { .payload = blob->data, .payload_size = blob->size };
	int r = 0;

	if (!elf_is(blob->data, blob->size))
		r = bzimage_parse(&image, blob->data, blob->size, why);
	if (r < 0)
		return r;
	kernel->header = image.header;
	r = packed_open(&kernel->packed, image.payload, image.payload_size, why);
	if (r < 0)
		return r;
	kernel->head_size =
		kernel->packed.unpacked < KERNEL_HEAD ? kernel->packed.unpacked : KERNEL_HEAD;
	r = packed_head(&kernel->packed, kernel->head, kernel->head_size, why);
	if (r == 0 && !elf_is(kernel->head, kernel->head_size))
		r = why_set(why, EINVAL, "what is packed in it is no ELF file; give the vmlinux");
	return r;
}

int kernel_read(struct kernel *kernel, const char *path, struct why *why)
{
	struct blob blob;
	int r;

	memset(kernel, 0, sizeof(*kernel));
	kernel->path = path;
	r = blob_read(&blob, path, "kernel", KERNEL_FILE_MAX, why);
	if (r < 0)
		return r;
	kernel->file = blob.data;
	r = kernel_open(kernel, &blob, why);
	if (r == 0)
		return 0;
	kernel_free(kernel);
	return blame(kernel, r, why);
}

void kernel_free(struct kernel *kernel)
{
	free(kernel->file);
	kernel->file = NULL;
}

static int kernel_parse(struct elf_image *elf, const u8 *data, size_t size, struct why *why)
{
	int r = elf_parse(elf, data, size, why);

	if (r == 0 && !elf->has_pvh && !elf->is64)
		r = why_set(why, EINVAL,
			    "it is a 32-bit kernel without a PVH entry; give a 64-bit "
			    "kernel, or one with CONFIG_PVH");
	return r;
}

/* Unpack it to where it runs, so that no byte of the host's memory is touched for a copy alone. */
static int load_in_place(const struct ram *ram, const struct kernel *kernel,
			 const struct elf_image *head, gpa_t place, struct elf_image *elf,
			 gpa_t *end, struct why *why)
{
	u8 *file = ram_at(ram, place, head->size);
	int r = packed_unpack(&kernel->packed, file, why);

	if (r < 0)
		return r;
	/* Damaged data need not unpack to the same bytes twice: what was checked is what is there. */
	if (memcmp(file, kernel->head, kernel->head_size) != 0)
		return why_set(why, EINVAL, "its data is damaged; copy or download the file again");
	r = kernel_parse(elf, file, head->size, why);
	if (r == 0)
		elf_settle(head, ram, place, end);
	return r;
}

static int load_copy(const struct ram *ram, const struct kernel *kernel, struct elf_image *elf,
		     gpa_t *end, struct why *why)
{
	const size_t size = kernel->packed.unpacked;
	u8 *file = blob_room(size);
	int r;

	if (!file)
		return why_set(why, ENOMEM, "no memory to unpack a kernel of %zu bytes", size);
	r = packed_unpack(&kernel->packed, file, why);
	if (r == 0)
		r = kernel_parse(elf, file, size, why);
	if (r == 0)
		r = elf_load(elf, ram, end, why);
	free(file);
	return r;
}

/* Of @elf the entries stay good, its data may be gone. */
static int kernel_load(const struct ram *ram, const struct kernel *kernel, struct elf_image *elf,
		       gpa_t *end, struct why *why)
{
	const struct packed *packed = &kernel->packed;
	struct elf_image head;
	gpa_t place;
	int r;

	if (!packed->format) {
		r = kernel_parse(elf, packed->data, packed->size, why);
		return r < 0 ? r : elf_load(elf, ram, end, why);
	}
	if (elf_head(&head, kernel->head, kernel->head_size, packed->unpacked, why) == 0 &&
	    elf_place(&head, ram, &place))
		return load_in_place(ram, kernel, &head, place, elf, end, why);
	return load_copy(ram, kernel, elf, end, why);
}

/* As high as it goes in low memory, where every kernel finds it. */
static int initrd_load(const struct ram *ram, const struct boot_request *request, gpa_t kernel_end,
		       gpa_t *at, struct why *why)
{
	const u64 size = ALIGN_UP((u64)request->initrd_size, PAGE_SIZE);
	const u64 floor = ALIGN_UP(kernel_end, PAGE_SIZE);

	*at = 0;
	if (!request->initrd)
		return 0;
	if (size > ram->low || ram->low - size < floor)
		return why_set(
			why, EINVAL,
			"the initrd of %llu KiB does not fit beside the kernel: the VM has %llu "
			"MiB, %llu MiB of them taken; give a larger --mem or a smaller --initrd",
			(unsigned long long)(size >> 10), (unsigned long long)(ram->size >> 20),
			(unsigned long long)(floor >> 20));
	*at = ram->low - size;
	return ram_write(ram, *at, request->initrd, request->initrd_size);
}

static int cmdline_load(const struct ram *ram, const char *cmdline, struct why *why)
{
	const size_t n = strlen(cmdline) + 1;

	if (n > BOOT_CMDLINE_MAX)
		return why_set(why, EINVAL,
			       "the kernel command line has %zu bytes, and %u are "
			       "possible; shorten --append",
			       n - 1, BOOT_CMDLINE_MAX - 1);
	return ram_write(ram, BOOT_CMDLINE_AT, cmdline, n);
}

int boot_load(const struct ram *ram, const struct boot_request *request, struct boot_entry *entry,
	      struct why *why)
{
	struct elf_image elf;
	gpa_t end, initrd;
	int r;

	r = kernel_load(ram, request->kernel, &elf, &end, why);
	if (r < 0)
		return blame(request->kernel, r, why);
	r = initrd_load(ram, request, end, &initrd, why);
	if (r == 0)
		r = cmdline_load(ram, request->cmdline, why);
	if (r < 0)
		return r;
	if (elf.is64 && linux64_wants_five(request)) {
		linux64_prepare(ram, request, initrd);
		*entry = (struct boot_entry){ BOOT_LONG57, elf.entry, BOOT_PARAMS_AT };
	} else if (elf.has_pvh) {
		pvh_prepare(ram, request, initrd);
		*entry = (struct boot_entry){ BOOT_PVH, elf.pvh_entry, BOOT_START_AT };
	} else {
		linux64_prepare(ram, request, initrd);
		*entry = (struct boot_entry){ BOOT_LONG64, elf.entry, BOOT_PARAMS_AT };
	}
	return 0;
}

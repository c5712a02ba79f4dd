/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* A kernel, its initrd and its command line into guest memory. */
#include "vmm/boot/load.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/boot/decompress.h"
#include "vmm/boot/elf.h"
#include "vmm/blob.h"

#define KERNEL_FILE_MAX (1ull << 30)

/* Put the name of the file before what a parser said. */
static int blame(const struct kernel *kernel, int err, struct why *why)
{
	struct why told = *why;

	return why_set(why, -err, "cannot boot the kernel '%s': %.300s", kernel->path, told.text);
}

static int kernel_unpack(struct kernel *kernel, const struct blob *blob, struct why *why)
{
	struct bzimage image;
	int r = bzimage_parse(&image, blob->data, blob->size, why);

	if (r < 0)
		return r;
	kernel->header = image.header;
	return decompress(image.payload, image.payload_size, &kernel->elf, &kernel->elf_size, why);
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
	if (elf_is(blob.data, blob.size)) {
		kernel->elf = blob.data;
		kernel->elf_size = blob.size;
		return 0;
	}
	r = kernel_unpack(kernel, &blob, why);
	blob_free(&blob);
	if (r == 0 && !elf_is(kernel->elf, kernel->elf_size)) {
		kernel_free(kernel);
		r = why_set(why, EINVAL, "what is packed in it is no ELF file; give the vmlinux");
	}
	return r < 0 ? blame(kernel, r, why) : 0;
}

void kernel_free(struct kernel *kernel)
{
	free(kernel->elf);
	kernel->elf = NULL;
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

	r = elf_parse(&elf, request->kernel->elf, request->kernel->elf_size, why);
	if (r == 0 && !elf.has_pvh && !elf.is64)
		r = why_set(why, EINVAL,
			    "it is a 32-bit kernel without a PVH entry; give a 64-bit "
			    "kernel, or one with CONFIG_PVH");
	if (r == 0)
		r = elf_load(&elf, ram, &end, why);
	if (r < 0)
		return blame(request->kernel, r, why);
	r = initrd_load(ram, request, end, &initrd, why);
	if (r == 0)
		r = cmdline_load(ram, request->cmdline, why);
	if (r < 0)
		return r;
	if (elf.has_pvh) {
		pvh_prepare(ram, request, initrd);
		*entry = (struct boot_entry){ BOOT_PVH, elf.pvh_entry, BOOT_START_AT };
	} else {
		linux64_prepare(ram, request, initrd);
		*entry = (struct boot_entry){ BOOT_LONG64, elf.entry, BOOT_PARAMS_AT };
	}
	return 0;
}

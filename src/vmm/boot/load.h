/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* A kernel, its initrd and its command line into guest memory. */
#ifndef VMM_BOOT_LOAD_H
#define VMM_BOOT_LOAD_H

#include "vmm/boot/bzimage.h"
#include "vmm/boot/decompress.h"
#include "vmm/ram.h"

/* Where the loader puts what it hands to the kernel: all below 640 KiB. */
#define BOOT_GDT_AT	 0x500
#define BOOT_START_AT	 0x6000 /* hvm_start_info, module list, memory map */
#define BOOT_PARAMS_AT	 0x7000 /* struct boot_params */
#define BOOT_PAGES_AT	 0x9000 /* six page tables, one more for five levels */
#define BOOT_CMDLINE_AT	 0x20000
#define BOOT_CMDLINE_MAX 0x10000

_Static_assert(BOOT_CMDLINE_AT + BOOT_CMDLINE_MAX <= RAM_LOADER_END, "kernels load above");

#define KERNEL_HEAD 8192

/* Read once, unpacked into RAM at the start and after each reset. */
struct kernel {
	u8 *file; /* owned */
	struct packed packed;
	u8 head[KERNEL_HEAD]; /* the first bytes of what is packed, an ELF file */
	size_t head_size;
	struct setup_header header; /* zero where the file was no bzImage */
	const char *path;
};

/* 0 or -errno. What only unpacking can tell comes from boot_load(). */
int kernel_read(struct kernel *kernel, const char *path, struct why *why);
void kernel_free(struct kernel *kernel);

struct boot_request {
	const struct kernel *kernel;
	const u8 *initrd; /* NULL: none */
	size_t initrd_size;
	const char *cmdline;
	gpa_t rsdp;
	bool five_levels; /* of page tables, where the kernel knows them */
};

enum boot_mode {
	BOOT_PVH,    /* 32-bit flat protected mode, EBX = hvm_start_info */
	BOOT_LONG64, /* 64-bit mode, identity-mapped below 4 GiB, RSI = boot_params */
	BOOT_LONG57, /* the same by tables of five levels */
};

struct boot_entry {
	enum boot_mode mode;
	u64 rip;
	u64 argument;
};

/* 0, or -EINVAL or -ENOMEM with the reason. */
int boot_load(const struct ram *ram, const struct boot_request *request, struct boot_entry *entry,
	      struct why *why);

/* The two ways in; @initrd is where boot_load() put it. */
void pvh_prepare(const struct ram *ram, const struct boot_request *request, gpa_t initrd);
void linux64_prepare(const struct ram *ram, const struct boot_request *request, gpa_t initrd);
/* As its own decompressor decides, which is not run: a kernel goes on with as many levels as it is entered with. */
bool linux64_wants_five(const struct boot_request *request);

#endif

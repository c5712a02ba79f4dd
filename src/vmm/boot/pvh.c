/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* PVH start of day: what Xen's public/arch-x86/hvm/start_info.h describes. */
#include <string.h>

#include "vmm/boot/load.h"

#define START_MAGIC 0x336ec578

struct start_info {
	u32 magic;
	u32 version;
	u32 flags;
	u32 nr_modules;
	u64 modlist_paddr;
	u64 cmdline_paddr;
	u64 rsdp_paddr;
	u64 memmap_paddr;
	u32 memmap_entries;
	u32 reserved;
};

struct start_module {
	u64 paddr;
	u64 size;
	u64 cmdline_paddr;
	u64 reserved;
};

struct start_memory {
	u64 addr;
	u64 size;
	u32 type;
	u32 reserved;
};

struct start_page {
	struct start_info info;
	struct start_module module;
	struct start_memory memory[RAM_RANGES_MAX];
};

_Static_assert(sizeof(struct start_info) == 56, "layout of hvm_start_info, version 1");
_Static_assert(sizeof(struct start_page) <= BOOT_PARAMS_AT - BOOT_START_AT, "its own page");

void pvh_prepare(const struct ram *ram, const struct boot_request *request, gpa_t initrd)
{
	struct ram_range ranges[RAM_RANGES_MAX];
	struct start_page page;

	memset(&page, 0, sizeof(page));
	page.info.magic = START_MAGIC;
	page.info.version = 1;
	page.info.cmdline_paddr = BOOT_CMDLINE_AT;
	page.info.rsdp_paddr = request->rsdp;
	page.info.memmap_paddr = BOOT_START_AT + offsetof(struct start_page, memory);
	page.info.memmap_entries = ram_map(ram, ranges);
	for (unsigned i = 0; i < page.info.memmap_entries; i++)
		page.memory[i] =
			(struct start_memory){ ranges[i].start, ranges[i].size, ranges[i].type, 0 };
	if (request->initrd) {
		page.info.nr_modules = 1;
		page.info.modlist_paddr = BOOT_START_AT + offsetof(struct start_page, module);
		page.module.paddr = initrd;
		page.module.size = request->initrd_size;
	}
	ram_write(ram, BOOT_START_AT, &page, sizeof(page));
}

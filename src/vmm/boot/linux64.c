/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The 64-bit boot protocol of Linux, for kernels without a PVH entry. */
#include <string.h>

#include "vmm/boot/load.h"

#define LOADER_UNDEFINED 0xff
#define PTE_PRESENT_RW	 3ull
#define PTE_LARGE	 0x80ull
#define GIB_MAPPED	 4
#define ENTRIES		 512

/* Whether the command line has the word. */
static bool has_word(const char *line, const char *word)
{
	const size_t n = strlen(word);
	const char *at = line;

	while ((at = strstr(at, word))) {
		if ((at == line || at[-1] == ' ') && (at[n] == ' ' || !at[n]))
			return true;
		at += n;
	}
	return false;
}

bool linux64_wants_five(const struct boot_request *request)
{
	return request->five_levels && request->kernel->header.xloadflags & XLF_5LEVEL_ENABLED &&
	       !has_word(request->cmdline, "no5lvl");
}

/*
 * The first 4 GiB, identity-mapped by 2 MiB pages: PML4, PDPT, four page directories; in front of them the PML5, when there are five
 * levels.
 */
static void page_tables_write(const struct ram *ram, gpa_t at)
{
	u64 *table = ram_at(ram, at, (2 + GIB_MAPPED) * PAGE_SIZE);
	u64 *directory = table + 2 * ENTRIES;

	memset(table, 0, (2 + GIB_MAPPED) * PAGE_SIZE);
	table[0] = (at + PAGE_SIZE) | PTE_PRESENT_RW;
	for (u64 i = 0; i < GIB_MAPPED; i++)
		table[ENTRIES + i] = (at + (2 + i) * PAGE_SIZE) | PTE_PRESENT_RW;
	for (u64 i = 0; i < GIB_MAPPED * ENTRIES; i++)
		directory[i] = i << 21 | PTE_LARGE | PTE_PRESENT_RW;
}

static void five_levels_write(const struct ram *ram)
{
	u64 *top = ram_at(ram, BOOT_PAGES_AT, PAGE_SIZE);

	memset(top, 0, PAGE_SIZE);
	top[0] = (BOOT_PAGES_AT + PAGE_SIZE) | PTE_PRESENT_RW;
	page_tables_write(ram, BOOT_PAGES_AT + PAGE_SIZE);
}

void linux64_prepare(const struct ram *ram, const struct boot_request *request, gpa_t initrd)
{
	struct ram_range ranges[RAM_RANGES_MAX];
	struct boot_params params;

	memset(&params, 0, sizeof(params));
	params.hdr = request->kernel->header;
	/* A plain vmlinux brings no header: the fields that the kernel reads are these. */
	params.hdr.boot_flag = 0xaa55;
	params.hdr.header = 0x53726448;
	if (params.hdr.version == 0)
		params.hdr.version = 0x20f;
	params.hdr.loadflags |= LOADED_HIGH;
	params.hdr.type_of_loader = LOADER_UNDEFINED;
	params.hdr.cmd_line_ptr = BOOT_CMDLINE_AT;
	params.hdr.ramdisk_image = (u32)initrd;
	params.hdr.ramdisk_size = request->initrd ? (u32)request->initrd_size : 0;
	params.acpi_rsdp_addr = request->rsdp;
	params.e820_entries = (u8)ram_map(ram, ranges);
	for (unsigned i = 0; i < params.e820_entries; i++) {
		params.e820_table[i].addr = ranges[i].start;
		params.e820_table[i].size = ranges[i].size;
		params.e820_table[i].type = ranges[i].type;
	}
	ram_write(ram, BOOT_PARAMS_AT, &params, sizeof(params));
	if (linux64_wants_five(request))
		five_levels_write(ram);
	else
		page_tables_write(ram, BOOT_PAGES_AT);
}

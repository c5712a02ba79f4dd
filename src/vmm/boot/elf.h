/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* ELF kernels: program headers to guest memory, and the PVH entry from the notes. */
#ifndef VMM_BOOT_ELF_H
#define VMM_BOOT_ELF_H

#include "vmm/ram.h"
#include "vmm/why.h"

struct elf_image {
	const u8 *data;
	size_t size;
	bool is64;
	u64 entry; /* e_entry */
	u64 phoff;
	unsigned phentsize;
	unsigned phnum;
	bool has_pvh;
	u32 pvh_entry; /* physical, 32-bit protected mode */
};

bool elf_is(const u8 *data, size_t size);

/* Check the headers and look for the note; @image points into @data. 0 or -EINVAL. */
int elf_parse(struct elf_image *image, const u8 *data, size_t size, struct why *why);

/* Copy the segments; *end is the first byte after all of them. 0 or -EINVAL. */
int elf_load(const struct elf_image *image, const struct ram *ram, gpa_t *end, struct why *why);

/*
 * Without a copy: the whole file is put into RAM so that the first segment lies where it runs, and the others need to
 * move down only. @head is a parsed head of the file, without its contents.
 */
int elf_head(struct elf_image *image, const u8 *head, size_t head_size, size_t size,
	     struct why *why);

/* Where in @ram the file has to lie for that; false: it cannot, elf_load() may. */
bool elf_place(const struct elf_image *head, const struct ram *ram, gpa_t *place);

/*
 * The file lies at @place: move its segments, and clear what else was in it, so that RAM is as elf_load() leaves RAM
 * of zeros.
 */
void elf_settle(const struct elf_image *head, const struct ram *ram, gpa_t place, gpa_t *end);

#endif

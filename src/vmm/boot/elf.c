/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* ELF kernels: program headers to guest memory, and the PVH entry from the notes. */
#include "vmm/boot/elf.h"

#include <elf.h>
#include <errno.h>
#include <string.h>

#define NOTE_PHYS32_ENTRY 18 /* XEN_ELFNOTE_PHYS32_ENTRY of Xen's public/elfnote.h */

/* What a program header of either class says. */
struct segment {
	u32 type;
	u64 offset;
	u64 paddr;
	u64 filesz;
	u64 memsz;
};

bool elf_is(const u8 *data, size_t size)
{
	return size >= SELFMAG && memcmp(data, ELFMAG, SELFMAG) == 0;
}

static int elf_truncated(struct why *why)
{
	return why_set(why, EINVAL,
		       "the ELF file is truncated or damaged; copy or download it again");
}

/* The range check of elf_parse() covers the table. */
static struct segment segment_get(const struct elf_image *image, unsigned i)
{
	const u8 *p = image->data + image->phoff + (size_t)i * image->phentsize;
	Elf64_Phdr h64;
	Elf32_Phdr h32;

	if (image->is64) {
		memcpy(&h64, p, sizeof(h64));
		return (struct segment){ h64.p_type, h64.p_offset, h64.p_paddr, h64.p_filesz,
					 h64.p_memsz };
	}
	memcpy(&h32, p, sizeof(h32));
	return (struct segment){ h32.p_type, h32.p_offset, h32.p_paddr, h32.p_filesz, h32.p_memsz };
}

/* The next segment from @i on that takes memory. */
static bool segment_next(const struct elf_image *image, unsigned *i, struct segment *s)
{
	while (*i < image->phnum) {
		*s = segment_get(image, (*i)++);
		if (s->type == PT_LOAD && s->memsz > 0)
			return true;
	}
	return false;
}

static bool segment_in_file(const struct elf_image *image, const struct segment *s)
{
	return s->filesz <= image->size && s->offset <= image->size - s->filesz;
}

/* Notes are {name size, descriptor size, type}, name and descriptor padded to 4 bytes. */
static void notes_search(struct elf_image *image, const u8 *p, size_t n)
{
	while (n >= sizeof(Elf64_Nhdr)) {
		Elf64_Nhdr h;
		u64 name, desc;

		memcpy(&h, p, sizeof(h));
		p += sizeof(h);
		n -= sizeof(h);
		name = ALIGN_UP((u64)h.n_namesz, 4);
		desc = ALIGN_UP((u64)h.n_descsz, 4);
		if (name > n || desc > n - name)
			return;
		if (h.n_type == NOTE_PHYS32_ENTRY && h.n_namesz == 4 && !memcmp(p, "Xen", 4) &&
		    h.n_descsz >= 4) {
			memcpy(&image->pvh_entry, p + name, 4);
			image->has_pvh = true;
			return;
		}
		p += name + desc;
		n -= name + desc;
	}
}

static int headers_read(struct elf_image *image, struct why *why)
{
	Elf64_Ehdr h64;
	Elf32_Ehdr h32;

	if (image->size < sizeof(h64))
		return elf_truncated(why);
	image->is64 = image->data[EI_CLASS] == ELFCLASS64;
	memcpy(&h64, image->data, sizeof(h64));
	memcpy(&h32, image->data, sizeof(h32));
	if (image->data[EI_DATA] != ELFDATA2LSB ||
	    h64.e_machine != (image->is64 ? EM_X86_64 : EM_386) || h64.e_type != ET_EXEC)
		return why_set(
			why, EINVAL,
			"it is no x86 kernel but another ELF file; give a vmlinux or a bzImage");
	image->entry = image->is64 ? h64.e_entry : h32.e_entry;
	image->phoff = image->is64 ? h64.e_phoff : h32.e_phoff;
	image->phnum = image->is64 ? h64.e_phnum : h32.e_phnum;
	image->phentsize = image->is64 ? h64.e_phentsize : h32.e_phentsize;
	if (image->phentsize < (image->is64 ? sizeof(Elf64_Phdr) : sizeof(Elf32_Phdr)) ||
	    image->phoff > image->size ||
	    (u64)image->phnum * image->phentsize > image->size - image->phoff)
		return elf_truncated(why);
	return 0;
}

int elf_parse(struct elf_image *image, const u8 *data, size_t size, struct why *why)
{
	int r;

	memset(image, 0, sizeof(*image));
	image->data = data;
	image->size = size;
	r = headers_read(image, why);
	for (unsigned i = 0; r == 0 && i < image->phnum; i++) {
		struct segment s = segment_get(image, i);

		if (s.type != PT_LOAD && s.type != PT_NOTE)
			continue;
		if (!segment_in_file(image, &s) || (s.type == PT_LOAD && s.memsz < s.filesz))
			return elf_truncated(why);
		if (s.type == PT_NOTE && !image->has_pvh)
			notes_search(image, data + s.offset, s.filesz);
	}
	return r;
}

static bool segment_on_tables(const struct segment *s)
{
	return s->paddr < RAM_LOADER_END ||
	       (s->paddr < RAM_BIOS_END &&
		(s->paddr >= RAM_BIOS_START || s->memsz > RAM_BIOS_START - s->paddr));
}

static int segment_load(const struct elf_image *image, const struct segment *s,
			const struct ram *ram, struct why *why)
{
	u8 *to;

	if (segment_on_tables(s))
		return why_set(
			why, EINVAL,
			"it wants to be loaded at 0x%llx, where the loader's tables are; link "
			"it at 1 MiB or above",
			(unsigned long long)s->paddr);
	to = ram_at(ram, s->paddr, s->memsz);
	if (!to)
		return why_set(
			why, EINVAL,
			"the kernel needs memory up to 0x%llx, and the VM has %llu MiB; give a "
			"larger --mem",
			(unsigned long long)(s->paddr + s->memsz),
			(unsigned long long)(ram->size >> 20));
	memcpy(to, image->data + s->offset, s->filesz);
	memset(to + s->filesz, 0, s->memsz - s->filesz);
	return 0;
}

int elf_load(const struct elf_image *image, const struct ram *ram, gpa_t *end, struct why *why)
{
	struct segment s;
	unsigned i = 0;

	*end = 0;
	while (segment_next(image, &i, &s)) {
		int r = segment_load(image, &s, ram, why);

		if (r < 0)
			return r;
		if (s.paddr + s.memsz > *end)
			*end = s.paddr + s.memsz;
	}
	if (*end == 0)
		return why_set(why, EINVAL,
			       "the ELF file holds nothing to load; give a vmlinux or "
			       "a bzImage");
	return 0;
}

int elf_head(struct elf_image *image, const u8 *head, size_t head_size, size_t size,
	     struct why *why)
{
	int r;

	memset(image, 0, sizeof(*image));
	image->data = head;
	image->size =
		head_size; /* the table of segments must lie in it, the segments in the file */
	r = headers_read(image, why);
	image->size = size;
	return r;
}

/*
 *      place                                            place + size
 *        | ELF |    first    | second |xxxx|  third   | sections |    the file, unpacked
 *              |    first    | second |  third   |                    memory
 *
 * Addresses ascend and nothing moves up: what a segment moves over has moved itself or is no segment, and each begins
 * inside the unpacked file. That is one piece of RAM, above all that the loader itself writes.
 */
bool elf_place(const struct elf_image *head, const struct ram *ram, gpa_t *place)
{
	struct segment s;
	u64 end = 0;
	unsigned i = 0;

	*place = 0;
	while (segment_next(head, &i, &s)) {
		if (!segment_in_file(head, &s) || s.memsz < s.filesz ||
		    !ram_at(ram, s.paddr, s.memsz) || s.offset > s.paddr)
			return false;
		if (end == 0)
			*place = s.paddr - s.offset;
		if (s.paddr < end || s.paddr > *place + s.offset)
			return false;
		end = s.paddr + s.memsz;
	}
	return *place >= RAM_LEGACY_END && ram_at(ram, *place, head->size);
}

void elf_settle(const struct elf_image *head, const struct ram *ram, gpa_t place, gpa_t *end)
{
	u8 *file = ram_at(ram, place, head->size);
	u64 at = 0, used = 0; /* from @place on, as in the file */
	struct segment s;
	unsigned i = 0;

	while (segment_next(head, &i, &s))
		if (s.paddr - place != s.offset)
			memmove(file + (s.paddr - place), file + s.offset, s.filesz);
	i = 0;
	while (segment_next(head, &i, &s)) {
		memset(file + at, 0, s.paddr - place - at);
		at = s.paddr - place + s.filesz;
		used = s.paddr - place + s.memsz;
	}
	memset(file + at, 0, (used > head->size ? used : head->size) - at);
	*end = place + used;
}

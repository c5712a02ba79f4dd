/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The guest's RAM: one mapping, below and above the hole under 4 GiB, and the map that the guest is told. */
#ifndef VMM_RAM_H
#define VMM_RAM_H

#include "base/types.h"
#include "vmm/why.h"

#define RAM_HOLE_START	 0xc0000000ull /* low RAM ends here at the latest: APICs live above */
#define RAM_HIGH_START	 0x100000000ull
#define RAM_LEGACY_START 0x9fc00ull /* EBDA, video memory and BIOS of a PC: RAM that nobody uses */
#define RAM_BIOS_START	 0xe0000ull /* ACPI tables */
#define RAM_LOADER_END	 0x30000ull /* below: what the loader hands to a kernel */
#define RAM_BIOS_END	 0xf0000ull
#define RAM_LEGACY_END	 0x100000ull
#define RAM_MIN		 0x100000ull

struct ram_source;

/* Memory that comes while the machine runs. */
struct ram_source_ops {
	/* Wait until bytes [at, at + len) are there; false: they will never be. */
	bool (*need)(struct ram_source *source, u64 at, u64 len);
};

struct ram_source {
	const struct ram_source_ops *ops;
};

struct ram {
	u8 *host;
	u64 size;
	u64 low;  /* bytes from 0 */
	u64 high; /* bytes from RAM_HIGH_START */
	void *mapping;
	size_t mapping_size;
	struct ram_source *source; /* NULL: all of it is there */
	u64 *dirty; /* a bit per page that a device has written since the last harvest; NULL: nobody asks */
};

enum { RAM_USABLE = 1, RAM_RESERVED = 2 }; /* types of an e820 map and of PVH's */

struct ram_range {
	u64 start;
	u64 size;
	u32 type;
};

#define RAM_RANGES_MAX 5

int ram_check_size(u64 size, struct why *why);		    /* 0 or -EINVAL */
int ram_create(struct ram *ram, u64 size, struct why *why); /* 0, -EINVAL or -ENOMEM */
void ram_destroy(struct ram *ram);

/* Host address of [gpa, gpa+len), or NULL if that is not all RAM, or is lost. Waits for what is not there yet. */
void *ram_at(const struct ram *ram, gpa_t gpa, u64 len);

/* The same for what has a host address already: false when it is lost. */
bool ram_need(const struct ram *ram, const void *host, u64 len);

/* 0, or -EFAULT if the range is not all RAM. */
int ram_write(const struct ram *ram, gpa_t gpa, const void *data, u64 len);

/* Who is no vCPU stores first and marks after: the dirty log of the KVM device does not see such stores. Any thread. */
void ram_mark(const struct ram *ram, const void *host, u64 len);

/* Move the marks of pages [first, first + 64) out; @first is a multiple of 64. */
u64 ram_marks_take(const struct ram *ram, u64 first);

/* The memory map of the guest; returns the number of ranges, at most RAM_RANGES_MAX. */
unsigned ram_map(const struct ram *ram, struct ram_range *out);

#endif

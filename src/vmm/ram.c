/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The guest's RAM: one mapping, below and above the hole under 4 GiB. */
#include "vmm/ram.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define HUGE (2ull << 20)

int ram_check_size(u64 size, struct why *why)
{
	if (size >= RAM_MIN && !(size & (PAGE_SIZE - 1)))
		return 0;
	return why_set(why, EINVAL, "memory of %llu bytes is %s; give for example --mem 1G",
		       (unsigned long long)size,
		       size < RAM_MIN ? "less than 1 MiB" : "not a multiple of 4 KiB");
}

int ram_create(struct ram *ram, u64 size, struct why *why)
{
	int r = ram_check_size(size, why);

	memset(ram, 0, sizeof(*ram));
	if (r < 0)
		return r;
	ram->mapping_size = size + HUGE;
	/* Aligned to 2 MiB in the guest and here, so that host and guest see the same large pages. */
	ram->mapping = mmap(NULL, ram->mapping_size, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (ram->mapping == MAP_FAILED) {
		ram->mapping = NULL;
		return why_set(why, ENOMEM,
			       "cannot get %llu MiB of memory from the host: %s; give a smaller "
			       "--mem, or look at 'ulimit -v'",
			       (unsigned long long)(size >> 20), strerror(errno));
	}
	ram->host = (u8 *)ALIGN_UP((uintptr_t)ram->mapping, (uintptr_t)HUGE);
	madvise(ram->host, size, MADV_HUGEPAGE); /* a wish: the kernel may be built without */
	madvise(ram->host, size, MADV_DONTDUMP);
	ram->dirty = calloc((size >> PAGE_SHIFT) / 64 + 1, sizeof(u64));
	if (!ram->dirty) {
		ram_destroy(ram);
		return why_set(why, ENOMEM, "no memory for the marks of written pages");
	}
	ram->size = size;
	ram->low = size < RAM_HOLE_START ? size : RAM_HOLE_START;
	ram->high = size - ram->low;
	return 0;
}

void ram_destroy(struct ram *ram)
{
	if (ram->mapping)
		munmap(ram->mapping, ram->mapping_size);
	free(ram->dirty);
	memset(ram, 0, sizeof(*ram));
}

static u8 *address_of(const struct ram *ram, gpa_t gpa, u64 len)
{
	if (len <= ram->low && gpa <= ram->low - len)
		return ram->host + gpa;
	if (gpa < RAM_HIGH_START)
		return NULL;
	gpa -= RAM_HIGH_START;
	if (len <= ram->high && gpa <= ram->high - len)
		return ram->host + ram->low + gpa;
	return NULL;
}

void *ram_at(const struct ram *ram, gpa_t gpa, u64 len)
{
	u8 *host = address_of(ram, gpa, len);

	return host && ram_need(ram, host, len) ? host : NULL;
}

bool ram_need(const struct ram *ram, const void *host, u64 len)
{
	const u64 at = (u64)((const u8 *)host - ram->host);

	return !ram->source || !len || ram->source->ops->need(ram->source, at, len);
}

int ram_write(const struct ram *ram, gpa_t gpa, const void *data, u64 len)
{
	void *to = ram_at(ram, gpa, len);

	if (!to)
		return -EFAULT;
	memcpy(to, data, len);
	ram_mark(ram, to, len);
	return 0;
}

/* In a build that the tests must find out (meson's option "broken") marks are plain loads and stores. */
#ifdef ANYKVM_BROKEN_MARK
static void mark_set(u64 *word, u64 bits)
{
	*(volatile u64 *)word |= bits;
}
#else
/* The locked operation is also the fence between the caller's store, a non-temporal one too, and the look of a harvester. */
static void mark_set(u64 *word, u64 bits)
{
	__atomic_fetch_or(word, bits, __ATOMIC_SEQ_CST);
}
#endif

void ram_mark(const struct ram *ram, const void *host, u64 len)
{
	const u64 first = (u64)((const u8 *)host - ram->host) >> PAGE_SHIFT;
	const u64 last = ((u64)((const u8 *)host - ram->host) + len - 1) >> PAGE_SHIFT;

	if (!ram->dirty || !len)
		return;
	for (u64 page = first; page <= last; page++)
		mark_set(&ram->dirty[page / 64], BIT_ULL(page % 64));
}

u64 ram_marks_take(const struct ram *ram, u64 first)
{
	return __atomic_exchange_n(&ram->dirty[first / 64], 0, __ATOMIC_SEQ_CST);
}

unsigned ram_map(const struct ram *ram, struct ram_range *out)
{
	unsigned n = 0;

	out[n++] = (struct ram_range){ 0, RAM_LEGACY_START, RAM_USABLE };
	out[n++] = (struct ram_range){ RAM_LEGACY_START, RAM_LEGACY_END - RAM_LEGACY_START,
				       RAM_RESERVED };
	if (ram->low > RAM_LEGACY_END)
		out[n++] =
			(struct ram_range){ RAM_LEGACY_END, ram->low - RAM_LEGACY_END, RAM_USABLE };
	/* The pages that SET_TSS_ADDR and SET_IDENTITY_MAP_ADDR take, and the firmware's place. */
	out[n++] = (struct ram_range){ 0xfffbc000, 0x44000, RAM_RESERVED };
	if (ram->high)
		out[n++] = (struct ram_range){ RAM_HIGH_START, ram->high, RAM_USABLE };
	return n;
}

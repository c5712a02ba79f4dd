/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Counters as a file in the binary form of KVM_GET_STATS_FD: header, id, descriptors and values. */
#define _GNU_SOURCE
#include "kvm/stats.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define NAME_SIZE 48 /* KVM_STATS_NAME_SIZE */

struct stat_row {
	const char *name;
	u32 flags;
	s16 exponent;
};

#define ROW(name, type, unit, base, exponent)                                                      \
	{ #name, KVM_STATS_TYPE_##type | KVM_STATS_UNIT_##unit | KVM_STATS_BASE_##base, exponent },

static const struct stat_row vm_rows[] = {
#define KVM_STAT_VM ROW
#include "kvm/stats.def"
};
static const struct stat_row vcpu_rows[] = {
#define KVM_STAT_VCPU ROW
#include "kvm/stats.def"
};

static void file_fill(u8 *map, const char *id, const struct stat_row *rows, unsigned n)
{
	struct kvm_stats_header *h = (struct kvm_stats_header *)map;
	size_t step = sizeof(struct kvm_stats_desc) + NAME_SIZE;

	h->name_size = NAME_SIZE;
	h->num_desc = n;
	h->id_offset = sizeof(*h);
	h->desc_offset = h->id_offset + NAME_SIZE;
	h->data_offset = h->desc_offset + n * step;
	snprintf((char *)map + h->id_offset, NAME_SIZE, "%s", id);
	for (unsigned i = 0; i < n; i++) {
		struct kvm_stats_desc *d =
			(struct kvm_stats_desc *)(map + h->desc_offset + i * step);

		d->flags = rows[i].flags;
		d->exponent = rows[i].exponent;
		d->size = 1;
		d->offset = i * sizeof(u64);
		snprintf((char *)(d + 1), NAME_SIZE, "%s", rows[i].name);
	}
}

static int file_make(struct stats_file *f, const char *id, const struct stat_row *rows, unsigned n)
{
	size_t head = sizeof(struct kvm_stats_header) + NAME_SIZE +
		      n * (sizeof(struct kvm_stats_desc) + NAME_SIZE);
	size_t size = head + n * sizeof(u64);
	int fd = syscall(SYS_memfd_create, "kvm-stats", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	u8 *map;

	if (fd < 0)
		return -errno;
	map = ftruncate(fd, size) ? MAP_FAILED
				  : mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (map == MAP_FAILED) {
		close(fd);
		return -ENOMEM;
	}
	(void)fcntl(fd, F_ADD_SEALS,
		    F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_FUTURE_WRITE | F_SEAL_SEAL);
	file_fill(map, id, rows, n);
	f->fd = fd;
	f->size = size;
	f->data_at = head;
	__atomic_store_n(&f->map, map, __ATOMIC_RELEASE);
	return 0;
}

/* Opened anew it has a position of its own; without /proc the descriptors share one. */
static int file_open(const struct stats_file *f)
{
	char path[32];
	int fd;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", f->fd);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		fd = fcntl(f->fd, F_DUPFD_CLOEXEC, 0);
	return fd < 0 ? -errno : fd;
}

static int stats_open(struct stats_file *f, const char *id, const struct stat_row *rows, unsigned n,
		      const void *values)
{
	int r = f->map ? 0 : file_make(f, id, rows, n);

	if (r)
		return r;
	stats_show(f, values, n * sizeof(u64));
	return file_open(f);
}

int stats_open_vm(struct stats_file *f, const char *id, const struct vm_stats *s)
{
	return stats_open(f, id, vm_rows, ARRAY_SIZE(vm_rows), s);
}

int stats_open_vcpu(struct stats_file *f, const char *id, const struct vcpu_stats *s)
{
	return stats_open(f, id, vcpu_rows, ARRAY_SIZE(vcpu_rows), s);
}

void stats_visit_vcpu(const struct vcpu_stats *s,
		      void (*fn)(void *arg, const char *name, u64 value), void *arg)
{
	const u64 *values = (const u64 *)s;

	for (unsigned i = 0; i < ARRAY_SIZE(vcpu_rows); i++)
		fn(arg, vcpu_rows[i].name, __atomic_load_n(&values[i], __ATOMIC_RELAXED));
}

void stats_show(struct stats_file *f, const void *values, size_t size)
{
	u8 *map = __atomic_load_n(&f->map, __ATOMIC_ACQUIRE);

	if (map)
		memcpy(map + f->data_at, values, size);
}

void stats_close(struct stats_file *f)
{
	if (!f->map)
		return;
	munmap(f->map, f->size);
	close(f->fd);
}

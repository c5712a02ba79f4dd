/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Counters of a KVM descriptor, in the binary form of KVM_GET_STATS_FD. */
#include "vmm/stats.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <linux/kvm.h>

#include "base/types.h"

#define NAME_MAX_SIZE 256
#define DESC_MAX      4096

bool stats_read(int fd, const char *name, u64 *value)
{
	struct kvm_stats_header h;
	struct kvm_stats_desc *d;
	bool is_found = false;
	size_t stride;

	if (pread(fd, &h, sizeof(h), 0) != sizeof(h) || h.name_size > NAME_MAX_SIZE ||
	    h.num_desc > DESC_MAX)
		return false;
	stride = sizeof(*d) + h.name_size;
	d = malloc(stride);
	for (u32 i = 0; d && i < h.num_desc && !is_found; i++)
		is_found = pread(fd, d, stride, (off_t)(h.desc_offset + i * stride)) ==
				   (ssize_t)stride &&
			   strncmp(d->name, name, h.name_size) == 0 &&
			   pread(fd, value, 8, (off_t)h.data_offset + d->offset) == 8;
	free(d);
	return is_found;
}

void stats_visit(int fd, void (*fn)(void *arg, const char *name, unsigned long value), void *arg)
{
	struct kvm_stats_header h;
	size_t stride;
	struct kvm_stats_desc *d;
	u64 value;

	if (pread(fd, &h, sizeof(h), 0) != sizeof(h) || h.name_size > NAME_MAX_SIZE ||
	    h.num_desc > DESC_MAX)
		return;
	stride = sizeof(*d) + h.name_size;
	d = calloc(1, stride + 1); /* a name ends, whatever the file says */
	for (u32 i = 0; d && i < h.num_desc; i++)
		/* Histograms have more than one value. */
		if (pread(fd, d, stride, (off_t)(h.desc_offset + i * stride)) == (ssize_t)stride &&
		    d->size == 1 && pread(fd, &value, 8, (off_t)h.data_offset + d->offset) == 8)
			fn(arg, d->name, value);
	free(d);
}

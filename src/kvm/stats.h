/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Counters of a VM and of a vCPU, and the file that shows them in the kernel's binary form. */
#ifndef KVM_STATS_H
#define KVM_STATS_H

#include <stddef.h>

#include "base/types.h"

struct vm_stats {
#define KVM_STAT_VM(name, type, unit, base, exponent) u64 name;
#include "kvm/stats.def"
};

struct vcpu_stats {
#define KVM_STAT_VCPU(name, type, unit, base, exponent) u64 name;
#include "kvm/stats.def"
};

/*
 * One memfd per VM or vCPU, made when it is first asked for. Its counters are a copy in shared memory, so that
 * read() and pread() are the kernel's own; stats_show() refreshes it.
 */
struct stats_file {
	int fd;	 /* ours, writable; 0: none */
	u8 *map; /* NULL: none; published with release */
	size_t size, data_at;
};

/* A new descriptor on the file, read-only; @id as "kvm-123/vcpu-0". >= 0 or -errno. The caller holds a lock. */
int stats_open_vm(struct stats_file *f, const char *id, const struct vm_stats *s);
int stats_open_vcpu(struct stats_file *f, const char *id, const struct vcpu_stats *s);
/* Each counter of a vCPU by its name. */
void stats_visit_vcpu(const struct vcpu_stats *s,
		      void (*fn)(void *arg, const char *name, u64 value), void *arg);
void stats_show(struct stats_file *f, const void *values, size_t size);
void stats_close(struct stats_file *f);

#endif

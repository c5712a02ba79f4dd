/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The KVM device: ours or the kernel's. Nothing else in the VMM knows the difference. */
#ifndef VMM_KVMDEV_H
#define VMM_KVMDEV_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "vmm/why.h"

struct kvmdev_ops {
	int (*open)(const char *path, int flags);
	int (*ioctl)(int fd, unsigned long request, ...);
	void *(*mmap)(void *addr, size_t length, int prot, int flags, int fd, off_t offset);
	int (*close)(int fd);
};

struct kvmdev {
	const struct kvmdev_ops *ops;
	const char *path; /* as messages show it */
	int fd;
};

/* @device: NULL or "anykvm" for ours, otherwise the path of a real device. 0 or -errno. */
int kvmdev_open(struct kvmdev *dev, const char *device, struct why *why);
void kvmdev_close(struct kvmdev *dev);

/* One request on a descriptor of this device: the result, or -errno. */
int kvmdev_ioctl(const struct kvmdev *dev, int fd, unsigned long request, unsigned long argument);

/* Counters of a VM, and what the device counts for each of its processors, on stderr. */
void kvmdev_print_counters(const struct kvmdev *dev, int vm);
void kvmdev_print_cpu_counters(const struct kvmdev *dev, int vcpu, unsigned index);

/*
 * Counters of a VM or of one of its processors, by name; none where the device keeps none. Where a processor is this moment, as a number
 * for kvmdev_where_name() (NULL past the last); -1: the device does not tell. While a VM is watched, that is more exact.
 */
void kvmdev_counters(const struct kvmdev *dev, int fd,
		     void (*fn)(void *arg, const char *name, unsigned long value), void *arg);
void kvmdev_watch(const struct kvmdev *dev, int vm, bool on);
int kvmdev_where(const struct kvmdev *dev, int vcpu);
const char *kvmdev_where_name(int where);

#define kvmdev_ioctl_ptr(dev, fd, request, p)                                                      \
	kvmdev_ioctl(dev, fd, request, (unsigned long)(uintptr_t)(p))

#endif

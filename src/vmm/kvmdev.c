/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The KVM device: ours or the kernel's, behind four operations. */
#include "vmm/kvmdev.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <linux/kvm.h>

#include "anykvm/anykvm.h"
#include "vmm/say.h"
#include "vmm/stats.h"

static int real_open(const char *path, int flags)
{
	return open(path, flags);
}

static const struct kvmdev_ops ours = { anykvm_open, anykvm_ioctl, anykvm_mmap, anykvm_close };
static const struct kvmdev_ops real = { real_open, ioctl, mmap, close };

static int open_failed(const struct kvmdev *dev, int err, struct why *why)
{
	if (dev->ops == &ours)
		return why_set(why, err,
			       "the built-in processor cannot start: %s; run with ANYKVM_OPTIONS "
			       "unset, or see 'anykvm help'",
			       strerror(err));
	return why_set(why, err,
		       "cannot open the device %s: %s; drop --device to use the built-in processor",
		       dev->path, strerror(err));
}

int kvmdev_open(struct kvmdev *dev, const char *device, struct why *why)
{
	const bool is_ours = !device || strcmp(device, "anykvm") == 0;
	int version, err;

	dev->ops = is_ours ? &ours : &real;
	dev->path = is_ours ? "anykvm" : device;
	dev->fd = dev->ops->open(is_ours ? "/dev/kvm" : device, O_RDWR | O_CLOEXEC);
	if (dev->fd < 0)
		return open_failed(dev, errno, why);
	version = kvmdev_ioctl(dev, dev->fd, KVM_GET_API_VERSION, 0);
	if (version == KVM_API_VERSION)
		return 0;
	err = version < 0 ? -version : ENOTSUP;
	kvmdev_close(dev);
	if (version < 0)
		return why_set(why, err, "%s is not a KVM device: %s; give /dev/kvm or no --device",
			       dev->path, strerror(err));
	return why_set(why, err, "%s speaks KVM API version %d, and this program speaks %d",
		       dev->path, version, KVM_API_VERSION);
}

void kvmdev_close(struct kvmdev *dev)
{
	if (dev->fd >= 0)
		dev->ops->close(dev->fd);
	dev->fd = -1;
}

int kvmdev_ioctl(const struct kvmdev *dev, int fd, unsigned long request, unsigned long argument)
{
	int r = dev->ops->ioctl(fd, request, argument);

	return r < 0 ? -errno : r;
}

void kvmdev_counters(const struct kvmdev *dev, int fd,
		     void (*fn)(void *arg, const char *name, unsigned long value), void *arg)
{
	int stats;

	if (dev->ops == &ours) {
		anykvm_counters(fd, fn, arg);
		return;
	}
	stats = kvmdev_ioctl(dev, fd, KVM_GET_STATS_FD, 0);
	if (stats < 0)
		return;
	stats_visit(stats, fn, arg);
	close(stats);
}

void kvmdev_watch(const struct kvmdev *dev, int vm, bool on)
{
	if (dev->ops == &ours)
		anykvm_watch(vm, on);
}

int kvmdev_where(const struct kvmdev *dev, int vcpu)
{
	return dev->ops == &ours ? anykvm_where(vcpu) : -1;
}

const char *kvmdev_where_name(int where)
{
	return anykvm_where_name(where);
}

static void counter_print(void *label, const char *name, unsigned long value)
{
	if (value)
		say("%s %s %lu", (const char *)label, name, value);
}

/* Ours are those of all processors together. */
void kvmdev_print_counters(const struct kvmdev *dev, int vm)
{
	if (dev->ops == &ours)
		anykvm_print_counters(vm, stderr);
	else
		kvmdev_counters(dev, vm, counter_print, (void *)"vm");
}

void kvmdev_print_cpu_counters(const struct kvmdev *dev, int vcpu, unsigned index)
{
	char label[24];

	if (dev->ops == &ours)
		return;
	snprintf(label, sizeof(label), "vcpu%u", index);
	kvmdev_counters(dev, vcpu, counter_print, label);
}

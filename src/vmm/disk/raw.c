/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Raw disk images and block devices: the bytes of the disk are those of the file. */
#define _GNU_SOURCE /* fallocate */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vmm/disk/disk.h"

static int raw_read(struct disk *disk, const struct iovec *iov, unsigned count, u64 offset)
{
	return disk_file_read(disk->fd, iov, count, offset);
}

static int raw_write(struct disk *disk, const struct iovec *iov, unsigned count, u64 offset)
{
	return disk_file_write(disk->fd, iov, count, offset);
}

static int raw_flush(struct disk *disk)
{
	return disk_file_flush(disk->fd);
}

static int raw_zero(struct disk *disk, u64 offset, u64 n, bool may_unmap)
{
	return disk_file_zero(disk->fd, offset, n, may_unmap);
}

/* Where the file system cannot, the bytes simply stay. */
static int raw_discard(struct disk *disk, u64 offset, u64 n)
{
	const int mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;

	if (fallocate(disk->fd, mode, (off_t)offset, (off_t)n) == 0 || errno == EOPNOTSUPP ||
	    errno == ENODEV)
		return 0;
	return -errno;
}

/* The size that the guest was told is the disk's. */
static int raw_load(struct disk *disk, struct why *why)
{
	if (lseek(disk->fd, 0, SEEK_END) == (off_t)disk->size)
		return 0;
	return why_set(why, EINVAL, "the disk image '%s' has another size than before", disk->path);
}

static void raw_close(struct disk *disk)
{
	close(disk->fd);
	free(disk);
}

static const struct disk_ops raw_ops = {
	.read = raw_read,
	.write = raw_write,
	.flush = raw_flush,
	.zero = raw_zero,
	.discard = raw_discard,
	.settle = raw_flush,
	.load = raw_load,
	.close = raw_close,
};

int raw_open(struct disk **out, int fd, const char *path, bool read_only, struct why *why)
{
	const off_t size = lseek(fd, 0, SEEK_END);
	struct disk *disk;
	struct stat st;

	if (size < 0 || fstat(fd, &st) < 0 || (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode)))
		return why_set(why, EINVAL,
			       "'%s' is neither a file nor a block device; give a disk image",
			       path);
	if (size == 0 || size % DISK_SECTOR)
		return why_set(
			why, EINVAL,
			"the disk image '%s' has %lld bytes, and a disk is a multiple of 512; "
			"make it one with 'truncate -s %%512'",
			path, (long long)size);
	disk = calloc(1, sizeof(*disk));
	if (!disk)
		return why_set(why, ENOMEM, "no memory for the disk '%s'", path);
	*disk = (struct disk){
		.ops = &raw_ops,
		.size = (u64)size,
		.is_read_only = read_only,
		.fd = fd,
		.is_flat = true,
	};
	snprintf(disk->path, sizeof(disk->path), "%s", path);
	*out = disk;
	return 0;
}

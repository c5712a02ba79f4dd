/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Opening disk images, and what their formats share. */
#define _GNU_SOURCE /* fallocate */
#include "vmm/disk/disk.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vmm/virtio/iov.h"

#define ZERO_CHUNK 65536u

static int file_transfer(int fd, const struct iovec *iov, unsigned count, u64 offset, bool is_write)
{
	const size_t total = iov_bytes(iov, count);
	struct iovec part[IOV_MAX];
	size_t done = 0;

	if (count > IOV_MAX)
		return -EINVAL;
	while (done < total) {
		const int n = (int)iov_cut(iov, count, done, total - done, part);
		const ssize_t r = is_write ? pwritev(fd, part, n, (off_t)(offset + done))
					   : preadv(fd, part, n, (off_t)(offset + done));

		if (r < 0 && errno == EINTR)
			continue;
		if (r <= 0)
			return r < 0 ? -errno : -EIO;
		done += (size_t)r;
	}
	return 0;
}

int disk_file_read(int fd, const struct iovec *iov, unsigned count, u64 offset)
{
	return file_transfer(fd, iov, count, offset, false);
}

int disk_file_write(int fd, const struct iovec *iov, unsigned count, u64 offset)
{
	return file_transfer(fd, iov, count, offset, true);
}

int disk_file_flush(int fd)
{
	return fdatasync(fd) < 0 ? -errno : 0;
}

int disk_file_zero(int fd, u64 offset, u64 n, bool may_unmap)
{
	static u8 zeros[ZERO_CHUNK]; /* only read */
	const int mode = may_unmap ? FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE
				   : FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE;

	if (!n || fallocate(fd, mode, (off_t)offset, (off_t)n) == 0)
		return 0;
	while (n) {
		const struct iovec iov = { zeros, n < ZERO_CHUNK ? (size_t)n : ZERO_CHUNK };
		int r = disk_file_write(fd, &iov, 1, offset);

		if (r < 0)
			return r;
		offset += iov.iov_len;
		n -= iov.iov_len;
	}
	return 0;
}

/* Two writers, or a writer beside readers, would ruin the image. */
static int image_lock(int fd, const char *path, bool read_only, struct why *why)
{
	if (flock(fd, (read_only ? LOCK_SH : LOCK_EX) | LOCK_NB) == 0 || errno != EWOULDBLOCK)
		return 0;
	return why_set(why, EBUSY,
		       "the disk image '%s' is in use by another machine; stop that one, or give "
		       "both ,ro",
		       path);
}

static int format_check(int fd, const char *path, enum disk_format format, struct why *why)
{
	static const char magic[4] = { 'Q', 'F', 'I', '\xfb' };
	char head[4] = "";
	const bool is_qcow2 = pread(fd, head, 4, 0) == 4 && memcmp(head, magic, 4) == 0;

	if (format == DISK_QCOW2 && !is_qcow2)
		return why_set(why, EINVAL,
			       "'%s' is no qcow2 image; drop format=qcow2, or look at it with "
			       "'qemu-img info'",
			       path);
	/* What a guest has written into a raw image must not decide how it is read. */
	if (format == DISK_ANY && is_qcow2)
		return why_set(why, EINVAL,
			       "'%s' looks like a qcow2 image; add ,format=qcow2 or ,format=raw",
			       path);
	return 0;
}

int disk_open(struct disk **out, const char *path, enum disk_format format, bool read_only,
	      bool is_away, struct why *why)
{
	const int fd = open(path, (read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC | O_NOCTTY);
	int r;

	if (fd < 0)
		return why_set(why, errno, "cannot open the disk image '%s': %s%s", path,
			       strerror(errno),
			       (errno == EACCES || errno == EROFS) && !read_only
				       ? "; add ,ro to only read it"
				       : "; give the path of an image");
	r = is_away ? 0 : image_lock(fd, path, read_only, why);
	if (r == 0)
		r = format_check(fd, path, format, why);
	if (r == 0)
		r = format == DISK_QCOW2 ? qcow2_open(out, fd, path, read_only, is_away, why)
					 : raw_open(out, fd, path, read_only, why);
	if (r < 0) {
		close(fd);
		return r;
	}
	(*out)->is_away = is_away;
	return 0;
}

int disk_settle(struct disk *disk, struct why *why)
{
	int r = disk->is_read_only || disk->is_away ? 0 : disk->ops->settle(disk);

	return r == 0 ? 0
		      : why_set(why, -r, "cannot write the disk image '%s': %s", disk->path,
				strerror(-r));
}

int disk_check(struct disk *disk, struct why *why)
{
	return disk->ops->load(disk, why);
}

void disk_release(struct disk *disk)
{
	flock(disk->fd, LOCK_UN);
	disk->is_away = true;
}

int disk_take(struct disk *disk, struct why *why)
{
	int r;

	if (!disk->is_away)
		return 0;
	r = image_lock(disk->fd, disk->path, disk->is_read_only, why);
	if (r < 0)
		return r;
	r = disk->ops->load(disk, why);
	disk->is_away = r < 0;
	if (r < 0)
		flock(disk->fd, LOCK_UN);
	return r;
}

void disk_close(struct disk *disk)
{
	if (disk)
		disk->ops->close(disk);
}

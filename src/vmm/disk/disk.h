/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* A disk image on the host: bytes at offsets, whatever its format. */
#ifndef VMM_DISK_DISK_H
#define VMM_DISK_DISK_H

#include <sys/uio.h>

#include "base/types.h"
#include "vmm/why.h"

#define DISK_SECTOR 512u

struct disk;

/* Each returns 0 or -errno, and has then done all, or nobody knows how much. [offset, offset + n) lies in the disk. */
struct disk_ops {
	int (*read)(struct disk *disk, const struct iovec *iov, unsigned count, u64 offset);
	int (*write)(struct disk *disk, const struct iovec *iov, unsigned count, u64 offset);
	int (*flush)(struct disk *disk);
	int (*zero)(struct disk *disk, u64 offset, u64 n, bool may_unmap);
	int (*discard)(struct disk *disk, u64 offset, u64 n); /* a wish */
	void (*close)(struct disk *disk);
};

struct disk {
	const struct disk_ops *ops;
	u64 size; /* bytes, a multiple of DISK_SECTOR */
	bool is_read_only;
	int fd;	      /* of the image */
	bool is_flat; /* offsets of the disk are those of fd: it may be read and written directly */
};

enum disk_format { DISK_ANY, DISK_RAW, DISK_QCOW2 };

/* 0, or -errno with one line. DISK_ANY is raw, but an image that looks like another format is refused. */
int disk_open(struct disk **out, const char *path, enum disk_format format, bool read_only,
	      struct why *why);
void disk_close(struct disk *disk);

/* All of it, past short transfers; -EIO where the file ends too early. Shared by the formats. */
int disk_file_read(int fd, const struct iovec *iov, unsigned count, u64 offset);
int disk_file_write(int fd, const struct iovec *iov, unsigned count, u64 offset);
int disk_file_flush(int fd);
int disk_file_zero(int fd, u64 offset, u64 n, bool may_unmap);

/* The formats: they take over @fd when they succeed. */
int raw_open(struct disk **out, int fd, const char *path, bool read_only, struct why *why);
int qcow2_open(struct disk **out, int fd, const char *path, bool read_only, struct why *why);

#endif

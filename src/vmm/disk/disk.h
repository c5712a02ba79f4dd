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
	/* All is on the host, as if closed; only reads may follow before the next load. */
	int (*settle)(struct disk *disk);
	/* What is kept of the image's own tables, anew. */
	int (*load)(struct disk *disk, struct why *why);
	void (*close)(struct disk *disk);
};

struct disk {
	const struct disk_ops *ops;
	u64 size; /* bytes, a multiple of DISK_SECTOR */
	bool is_read_only;
	bool is_away;	/* somebody else may have it: see disk_take() */
	int fd;		/* of the image */
	char path[256]; /* for messages */
	bool is_flat; /* offsets of the disk are those of fd: it may be read and written directly */
};

enum disk_format { DISK_ANY, DISK_RAW, DISK_QCOW2 };

/*
 * 0, or -errno with one line. DISK_ANY is raw, but an image that looks like another format is refused. @is_away: another
 * machine has it still, so it is neither locked nor written, and of its tables nothing is read, until disk_take().
 */
int disk_open(struct disk **out, const char *path, enum disk_format format, bool read_only,
	      bool is_away, struct why *why);
void disk_close(struct disk *disk);

/*
 * A machine moves, and its disks with it. Here it stands: disk_settle(), and whether it moves is still open, since nothing is lost by
 * going on. There disk_check() reads what disk_take() will. Then disk_release() here and disk_take() there, which locks the
 * image, so that two machines never have it, and reads its tables. 0 or -errno with one line; a disk that is here is taken already.
 */
int disk_settle(struct disk *disk, struct why *why);
int disk_check(struct disk *disk, struct why *why);
void disk_release(struct disk *disk);
int disk_take(struct disk *disk, struct why *why);

/* All of it, past short transfers; -EIO where the file ends too early. Shared by the formats. */
int disk_file_read(int fd, const struct iovec *iov, unsigned count, u64 offset);
int disk_file_write(int fd, const struct iovec *iov, unsigned count, u64 offset);
int disk_file_flush(int fd);
int disk_file_zero(int fd, u64 offset, u64 n, bool may_unmap);

/* The formats: they take over @fd when they succeed. */
int raw_open(struct disk **out, int fd, const char *path, bool read_only, struct why *why);
int qcow2_open(struct disk **out, int fd, const char *path, bool read_only, bool is_away,
	       struct why *why);

#endif

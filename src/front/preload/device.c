/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The path /dev/kvm: what looking at it and opening it give. */
#define _GNU_SOURCE
#include "front/preload/device.h"

#include <errno.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

#include "anykvm/anykvm.h"
#include "front/preload/mode.h"
#include "front/preload/real.h"

#define DEVICE_MAJOR 10
#define DEVICE_MINOR 232
#define DEVICE_MODE  (S_IFCHR | 0666)

static bool is_dev(int dir)
{
	struct stat a, b;

	return !real_fstat(dir, &a) && !real_stat("/dev", &b) && a.st_ino == b.st_ino &&
	       a.st_dev == b.st_dev;
}

bool device_is(int dir, const char *path)
{
	int saved = errno;
	bool is;

	if (likely(!path || (path[0] != '/' && path[0] != 'k')))
		return false;
	is = !strcmp(path, "/dev/kvm") ||
	     (dir >= 0 && unlikely(!strcmp(path, "kvm")) && is_dev(dir));
	errno = saved;
	return unlikely(is) && mode_is_ours();
}

static int fail(int err)
{
	errno = err;
	return -1;
}

int device_open(int flags)
{
	if ((flags & (O_CREAT | O_EXCL)) == (O_CREAT | O_EXCL))
		return fail(EEXIST);
	if (flags & O_DIRECTORY)
		return fail(ENOTDIR);
	return anykvm_open("/dev/kvm", flags);
}

int device_access(int mode)
{
	if (mode & ~(R_OK | W_OK | X_OK))
		return fail(EINVAL);
	return mode & X_OK ? fail(EACCES) : 0;
}

int device_not_a_link(void)
{
	return fail(EINVAL);
}

/* The times of a device node are those of the boot; here, of /dev. */
void device_stat(struct stat *st)
{
	struct stat dev;
	int saved = errno;

	memset(st, 0, sizeof(*st));
	if (!real_stat("/dev", &dev)) {
		st->st_dev = dev.st_dev;
		st->st_atim = st->st_mtim = st->st_ctim = dev.st_ctim;
	}
	errno = saved;
	st->st_ino = DEVICE_MAJOR << 8 | DEVICE_MINOR;
	st->st_nlink = 1;
	st->st_mode = DEVICE_MODE;
	st->st_rdev = makedev(DEVICE_MAJOR, DEVICE_MINOR);
	st->st_blksize = PAGE_SIZE;
}

static struct statx_timestamp stamp(struct timespec t)
{
	return (struct statx_timestamp){ .tv_sec = t.tv_sec, .tv_nsec = t.tv_nsec };
}

void device_statx(struct statx *stx)
{
	struct stat st;

	device_stat(&st);
	memset(stx, 0, sizeof(*stx));
	stx->stx_mask = STATX_BASIC_STATS;
	stx->stx_blksize = st.st_blksize;
	stx->stx_nlink = st.st_nlink;
	stx->stx_mode = st.st_mode;
	stx->stx_ino = st.st_ino;
	stx->stx_rdev_major = DEVICE_MAJOR;
	stx->stx_rdev_minor = DEVICE_MINOR;
	stx->stx_dev_major = major(st.st_dev);
	stx->stx_dev_minor = minor(st.st_dev);
	stx->stx_atime = stamp(st.st_atim);
	stx->stx_mtime = stamp(st.st_mtim);
	stx->stx_ctime = stamp(st.st_ctim);
}

/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Functions of libc that take a path: open, stat, access and readlink see our device at /dev/kvm. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "front/preload/device.h"
#include "front/preload/interpose.h"
#include "front/preload/paths.h"
#include "front/preload/real.h"
#include "kvm/file.h"

/* struct stat64 is struct stat on x86-64. */
_Static_assert(sizeof(struct stat) == sizeof(struct stat64), "one layout");

int path_open(int dir, const char *path, int flags, mode_t mode)
{
	if (unlikely(device_is(dir, path)))
		return device_open(flags);
	return dir == AT_FDCWD ? real_open(path, flags, mode) : real_openat(dir, path, flags, mode);
}

static mode_t mode_of(int flags, va_list ap)
{
	return flags & O_CREAT || (flags & __O_TMPFILE) == __O_TMPFILE ? va_arg(ap, mode_t) : 0;
}

#define OPEN(name)                                                                                 \
	INTERPOSE int name(const char *path, int flags, ...)                                       \
	{                                                                                          \
		va_list ap;                                                                        \
		mode_t mode;                                                                       \
                                                                                                   \
		va_start(ap, flags);                                                               \
		mode = mode_of(flags, ap);                                                         \
		va_end(ap);                                                                        \
		return path_open(AT_FDCWD, path, flags, mode);                                     \
	}

#define OPENAT(name)                                                                               \
	INTERPOSE int name(int dir, const char *path, int flags, ...)                              \
	{                                                                                          \
		va_list ap;                                                                        \
		mode_t mode;                                                                       \
                                                                                                   \
		va_start(ap, flags);                                                               \
		mode = mode_of(flags, ap);                                                         \
		va_end(ap);                                                                        \
		return path_open(dir, path, flags, mode);                                          \
	}

OPEN(open)
OPEN(open64)
OPENAT(openat)
OPENAT(openat64)

/* _FORTIFY_SOURCE's forms for constant flags: they take no mode, and end the program when one is due. */
static int open_checked(int dir, const char *path, int flags)
{
	if (flags & O_CREAT || (flags & __O_TMPFILE) == __O_TMPFILE)
		abort();
	return path_open(dir, path, flags, 0);
}

INTERPOSE int __open_2(const char *path, int flags)
{
	return open_checked(AT_FDCWD, path, flags);
}

INTERPOSE int __open64_2(const char *path, int flags)
{
	return open_checked(AT_FDCWD, path, flags);
}

INTERPOSE int __openat_2(int dir, const char *path, int flags)
{
	return open_checked(dir, path, flags);
}

INTERPOSE int __openat64_2(int dir, const char *path, int flags)
{
	return open_checked(dir, path, flags);
}

static int path_stat(const char *path, struct stat *st)
{
	if (likely(!device_is(AT_FDCWD, path)))
		return real_stat(path, st);
	device_stat(st);
	return 0;
}

static int path_lstat(const char *path, struct stat *st)
{
	if (likely(!device_is(AT_FDCWD, path)))
		return real_lstat(path, st);
	device_stat(st);
	return 0;
}

static bool is_system(int fd)
{
	bool stale;
	struct file *f = file_known(fd) ? file_get(fd, &stale) : NULL;
	bool is = f && f->kind == FILE_SYSTEM;

	if (f)
		file_put(f);
	return is;
}

/* A program may make sure that it has opened a character device. */
static int path_fstat(int fd, struct stat *st)
{
	if (likely(!file_known(fd)) || !is_system(fd))
		return real_fstat(fd, st);
	device_stat(st);
	return 0;
}

/* Not inlined: libc's headers say of these parameters that they are never NULL, and a stranger's program may differ. */
static __attribute__((noinline)) bool is_descriptor(int dir, const char *path, int flags)
{
	return path && !*path && flags & AT_EMPTY_PATH && file_known(dir);
}

static int path_fstatat(int dir, const char *path, struct stat *st, int flags)
{
	if (is_descriptor(dir, path, flags))
		return path_fstat(dir, st);
	if (likely(!device_is(dir, path)))
		return real_fstatat(dir, path, st, flags);
	device_stat(st);
	return 0;
}

INTERPOSE int stat(const char *restrict path, struct stat *restrict st)
{
	return path_stat(path, st);
}

INTERPOSE int stat64(const char *restrict path, struct stat64 *restrict st)
{
	return path_stat(path, (struct stat *)st);
}

INTERPOSE int lstat(const char *restrict path, struct stat *restrict st)
{
	return path_lstat(path, st);
}

INTERPOSE int lstat64(const char *restrict path, struct stat64 *restrict st)
{
	return path_lstat(path, (struct stat *)st);
}

INTERPOSE int fstat(int fd, struct stat *st)
{
	return path_fstat(fd, st);
}

INTERPOSE int fstat64(int fd, struct stat64 *st)
{
	return path_fstat(fd, (struct stat *)st);
}

INTERPOSE int fstatat(int dir, const char *restrict path, struct stat *restrict st, int flags)
{
	return path_fstatat(dir, path, st, flags);
}

INTERPOSE int fstatat64(int dir, const char *restrict path, struct stat64 *restrict st, int flags)
{
	return path_fstatat(dir, path, (struct stat *)st, flags);
}

/* The forms of programs built against libc before 2.33; version 1 is the only one. */
static bool version_is_wrong(int version)
{
	if (version == 0 || version == 1)
		return false;
	errno = EINVAL;
	return true;
}

INTERPOSE int __xstat(int version, const char *path, struct stat *st)
{
	return version_is_wrong(version) ? -1 : path_stat(path, st);
}

INTERPOSE int __xstat64(int version, const char *path, struct stat64 *st)
{
	return __xstat(version, path, (struct stat *)st);
}

INTERPOSE int __lxstat(int version, const char *path, struct stat *st)
{
	return version_is_wrong(version) ? -1 : path_lstat(path, st);
}

INTERPOSE int __lxstat64(int version, const char *path, struct stat64 *st)
{
	return __lxstat(version, path, (struct stat *)st);
}

INTERPOSE int __fxstat(int version, int fd, struct stat *st)
{
	return version_is_wrong(version) ? -1 : path_fstat(fd, st);
}

INTERPOSE int __fxstat64(int version, int fd, struct stat64 *st)
{
	return __fxstat(version, fd, (struct stat *)st);
}

INTERPOSE int __fxstatat(int version, int dir, const char *path, struct stat *st, int flags)
{
	return version_is_wrong(version) ? -1 : path_fstatat(dir, path, st, flags);
}

INTERPOSE int __fxstatat64(int version, int dir, const char *path, struct stat64 *st, int flags)
{
	return __fxstatat(version, dir, path, (struct stat *)st, flags);
}

INTERPOSE int statx(int dir, const char *restrict path, int flags, unsigned mask,
		    struct statx *restrict stx)
{
	bool is = is_descriptor(dir, path, flags) ? is_system(dir) : device_is(dir, path);

	if (likely(!is))
		return real_statx(dir, path, flags, mask, stx);
	device_statx(stx);
	return 0;
}

int path_access(const char *path, int mode)
{
	return device_is(AT_FDCWD, path) ? device_access(mode) : real_access(path, mode);
}

INTERPOSE int access(const char *path, int mode)
{
	return path_access(path, mode);
}

INTERPOSE int faccessat(int dir, const char *path, int mode, int flags)
{
	return device_is(dir, path) ? device_access(mode) : real_faccessat(dir, path, mode, flags);
}

INTERPOSE int eaccess(const char *path, int mode)
{
	return device_is(AT_FDCWD, path) ? device_access(mode) : real_eaccess(path, mode);
}

INTERPOSE int euidaccess(const char *path, int mode)
{
	return eaccess(path, mode);
}

INTERPOSE ssize_t readlink(const char *restrict path, char *restrict buf, size_t size)
{
	return device_is(AT_FDCWD, path) ? device_not_a_link() : real_readlink(path, buf, size);
}

INTERPOSE ssize_t readlinkat(int dir, const char *restrict path, char *restrict buf, size_t size)
{
	return device_is(dir, path) ? device_not_a_link() : real_readlinkat(dir, path, buf, size);
}

INTERPOSE ssize_t __readlink_chk(const char *path, char *buf, size_t size, size_t room)
{
	if (size > room)
		abort();
	return readlink(path, buf, size);
}

INTERPOSE ssize_t __readlinkat_chk(int dir, const char *path, char *buf, size_t size, size_t room)
{
	if (size > room)
		abort();
	return readlinkat(dir, path, buf, size);
}

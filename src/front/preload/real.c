/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The functions that stand behind ours: the next library's, or the kernel before those are known. */
#define _GNU_SOURCE
#include "front/preload/real.h"

#include <dlfcn.h>
#include <errno.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

/*
 * Libc's own functions are asked where possible: they are cancellation points, and another library
 * may stand between. Code that runs before the constructor (of other libraries, or a malloc of the
 * program's) gets the bare system call: at that time dlsym() may not be called.
 */
#define FUNCTIONS(F)                                                                               \
	F(open)                                                                                    \
	F(openat)                                                                                  \
	F(stat)                                                                                    \
	F(lstat)                                                                                   \
	F(fstat)                                                                                   \
	F(fstatat)                                                                                 \
	F(statx)                                                                                   \
	F(access)                                                                                  \
	F(faccessat)                                                                               \
	F(eaccess)                                                                                 \
	F(readlink)                                                                                \
	F(readlinkat)                                                                              \
	F(ioctl)                                                                                   \
	F(syscall)                                                                                 \
	F(mmap)                                                                                    \
	F(close)                                                                                   \
	F(close_range)                                                                             \
	F(closefrom)                                                                               \
	F(dup)                                                                                     \
	F(dup2)                                                                                    \
	F(dup3)                                                                                    \
	F(write)                                                                                   \
	F(writev)                                                                                  \
	F(fcntl)                                                                                   \
	F(sigaction)                                                                               \
	F(sigprocmask)                                                                             \
	F(pthread_sigmask)                                                                         \
	F(prctl)

static struct {
#define F(name) __typeof__(&name) name;
	FUNCTIONS(F)
#undef F
} next;

__attribute__((constructor)) static void next_find(void)
{
#define F(name) next.name = (__typeof__(next.name))dlsym(RTLD_NEXT, #name);
	FUNCTIONS(F)
#undef F
}

static long as_libc(long r)
{
	if (r > -4096 && r < 0) {
		errno = -r;
		return -1;
	}
	return r;
}

#define RAW(number, a, b, c, d, e, f)                                                              \
	as_libc(raw_call(number, (long)(a), (long)(b), (long)(c), (long)(d), (long)(e), (long)(f)))

/* The next function of that name with these arguments, else the system call. */
#define NEXT(name, args, raw) (likely(next.name) ? next.name args : raw)

int real_open(const char *path, int flags, mode_t mode)
{
	return NEXT(open, (path, flags, mode), RAW(SYS_open, path, flags, mode, 0, 0, 0));
}

int real_openat(int dir, const char *path, int flags, mode_t mode)
{
	return NEXT(openat, (dir, path, flags, mode),
		    RAW(SYS_openat, dir, path, flags, mode, 0, 0));
}

int real_stat(const char *path, struct stat *st)
{
	return NEXT(stat, (path, st), RAW(SYS_stat, path, st, 0, 0, 0, 0));
}

int real_lstat(const char *path, struct stat *st)
{
	return NEXT(lstat, (path, st), RAW(SYS_lstat, path, st, 0, 0, 0, 0));
}

int real_fstat(int fd, struct stat *st)
{
	return NEXT(fstat, (fd, st), RAW(SYS_fstat, fd, st, 0, 0, 0, 0));
}

int real_fstatat(int dir, const char *path, struct stat *st, int flags)
{
	return NEXT(fstatat, (dir, path, st, flags),
		    RAW(SYS_newfstatat, dir, path, st, flags, 0, 0));
}

int real_statx(int dir, const char *path, int flags, unsigned mask, struct statx *stx)
{
	return NEXT(statx, (dir, path, flags, mask, stx),
		    RAW(SYS_statx, dir, path, flags, mask, stx, 0));
}

int real_access(const char *path, int mode)
{
	return NEXT(access, (path, mode), RAW(SYS_access, path, mode, 0, 0, 0, 0));
}

int real_faccessat(int dir, const char *path, int mode, int flags)
{
	return NEXT(faccessat, (dir, path, mode, flags),
		    RAW(SYS_faccessat2, dir, path, mode, flags, 0, 0));
}

int real_eaccess(const char *path, int mode)
{
	return NEXT(eaccess, (path, mode),
		    RAW(SYS_faccessat2, AT_FDCWD, path, mode, AT_EACCESS, 0, 0));
}

ssize_t real_readlink(const char *path, char *buf, size_t size)
{
	return NEXT(readlink, (path, buf, size), RAW(SYS_readlink, path, buf, size, 0, 0, 0));
}

ssize_t real_readlinkat(int dir, const char *path, char *buf, size_t size)
{
	return NEXT(readlinkat, (dir, path, buf, size),
		    RAW(SYS_readlinkat, dir, path, buf, size, 0, 0));
}

int real_ioctl(int fd, unsigned long request, unsigned long arg)
{
	return NEXT(ioctl, (fd, request, arg), RAW(SYS_ioctl, fd, request, arg, 0, 0, 0));
}

long real_syscall(long number, const long arg[6])
{
	return NEXT(syscall, (number, arg[0], arg[1], arg[2], arg[3], arg[4], arg[5]),
		    RAW(number, arg[0], arg[1], arg[2], arg[3], arg[4], arg[5]));
}

void *real_mmap(void *addr, size_t length, int prot, int flags, int fd, off_t offset)
{
	return NEXT(mmap, (addr, length, prot, flags, fd, offset),
		    (void *)RAW(SYS_mmap, addr, length, prot, flags, fd, offset));
}

int real_close(int fd)
{
	return NEXT(close, (fd), RAW(SYS_close, fd, 0, 0, 0, 0, 0));
}

int real_close_range(unsigned first, unsigned last, int flags)
{
	return NEXT(close_range, (first, last, flags),
		    RAW(SYS_close_range, first, last, flags, 0, 0, 0));
}

void real_closefrom(int first)
{
	if (likely(next.closefrom))
		next.closefrom(first);
	else
		real_close_range(first < 0 ? 0 : first, ~0u, 0);
}

int real_dup(int fd)
{
	return NEXT(dup, (fd), RAW(SYS_dup, fd, 0, 0, 0, 0, 0));
}

int real_dup2(int fd, int to)
{
	return NEXT(dup2, (fd, to), RAW(SYS_dup2, fd, to, 0, 0, 0, 0));
}

int real_dup3(int fd, int to, int flags)
{
	return NEXT(dup3, (fd, to, flags), RAW(SYS_dup3, fd, to, flags, 0, 0, 0));
}

int real_fcntl(int fd, int command, unsigned long arg)
{
	return NEXT(fcntl, (fd, command, arg), RAW(SYS_fcntl, fd, command, arg, 0, 0, 0));
}

ssize_t real_write(int fd, const void *buf, size_t size)
{
	return NEXT(write, (fd, buf, size), RAW(SYS_write, fd, buf, size, 0, 0, 0));
}

ssize_t real_writev(int fd, const struct iovec *iov, int n)
{
	return NEXT(writev, (fd, iov, n), RAW(SYS_writev, fd, iov, n, 0, 0, 0));
}

/* Handlers need libc's trampoline, so these wait for the constructor, or call it. */
int real_sigaction(int sig, const struct sigaction *act, struct sigaction *old)
{
	if (!next.sigaction)
		next_find();
	return next.sigaction(sig, act, old);
}

int real_sigprocmask(int how, const sigset_t *set, sigset_t *old)
{
	return NEXT(sigprocmask, (how, set, old), RAW(SYS_rt_sigprocmask, how, set, old, 8, 0, 0));
}

int real_pthread_sigmask(int how, const sigset_t *set, sigset_t *old)
{
	return NEXT(pthread_sigmask, (how, set, old),
		    -(int)raw_call(SYS_rt_sigprocmask, how, (long)set, (long)old, 8, 0, 0));
}

int real_prctl(int option, const unsigned long arg[4])
{
	return NEXT(prctl, (option, arg[0], arg[1], arg[2], arg[3]),
		    RAW(SYS_prctl, option, arg[0], arg[1], arg[2], arg[3], 0));
}

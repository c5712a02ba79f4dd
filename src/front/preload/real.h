/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The functions that stand behind ours: the next library's, or the kernel before those are known. */
#ifndef FRONT_PRELOAD_REAL_H
#define FRONT_PRELOAD_REAL_H

#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/types.h>

#include "base/types.h"

struct statx; /* with _GNU_SOURCE only */
struct iovec;

/* As in the system calls: -1 and errno. Each is the function of its name in libc. */
int real_open(const char *path, int flags, mode_t mode);
int real_openat(int dir, const char *path, int flags, mode_t mode);
int real_stat(const char *path, struct stat *st);
int real_lstat(const char *path, struct stat *st);
int real_fstat(int fd, struct stat *st);
int real_fstatat(int dir, const char *path, struct stat *st, int flags);
int real_statx(int dir, const char *path, int flags, unsigned mask, struct statx *stx);
int real_access(const char *path, int mode);
int real_faccessat(int dir, const char *path, int mode, int flags);
int real_eaccess(const char *path, int mode);
ssize_t real_readlink(const char *path, char *buf, size_t size);
ssize_t real_readlinkat(int dir, const char *path, char *buf, size_t size);
int real_ioctl(int fd, unsigned long request, unsigned long arg);
long real_syscall(long number, const long arg[6]);
void *real_mmap(void *addr, size_t length, int prot, int flags, int fd, off_t offset);
int real_close(int fd);
int real_close_range(unsigned first, unsigned last, int flags);
void real_closefrom(int first);
int real_dup(int fd);
int real_dup2(int fd, int to);
int real_dup3(int fd, int to, int flags);
int real_fcntl(int fd, int command, unsigned long arg);
ssize_t real_write(int fd, const void *buf, size_t size);
ssize_t real_writev(int fd, const struct iovec *iov, int n);
int real_sigaction(int sig, const struct sigaction *act, struct sigaction *old);
int real_sigprocmask(int how, const sigset_t *set, sigset_t *old);
int real_pthread_sigmask(int how, const sigset_t *set, sigset_t *old);
int real_prctl(int option, const unsigned long arg[4]);

/* One system call without libc: a value or -errno. */
static inline long raw_call(long number, long a, long b, long c, long d, long e, long f)
{
	register long r10 __asm__("r10") = d, r8 __asm__("r8") = e, r9 __asm__("r9") = f;
	long r;

	__asm__ volatile("syscall"
			 : "=a"(r)
			 : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
			 : "rcx", "r11", "memory");
	return r;
}

#endif

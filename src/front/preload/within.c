/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* What the library itself calls: the linker (--wrap) leads its references past our own functions to these. */
#define _GNU_SOURCE
#include <stdarg.h>

#include "front/preload/real.h"
#include "front/preload/within.h"

static mode_t mode_of(int flags, va_list ap)
{
	return flags & (O_CREAT | __O_TMPFILE) ? va_arg(ap, mode_t) : 0;
}

int __wrap_open64(const char *path, int flags, ...)
{
	va_list ap;
	mode_t mode;

	va_start(ap, flags);
	mode = mode_of(flags, ap);
	va_end(ap);
	return real_open(path, flags, mode);
}

int __wrap_fstat64(int fd, struct stat *st)
{
	return real_fstat(fd, st);
}

int __wrap_close(int fd)
{
	return real_close(fd);
}

ssize_t __wrap_write(int fd, const void *buf, size_t size)
{
	return real_write(fd, buf, size);
}

int __wrap_fcntl64(int fd, int command, ...)
{
	unsigned long arg;
	va_list ap;

	va_start(ap, command);
	arg = va_arg(ap, unsigned long);
	va_end(ap);
	return real_fcntl(fd, command, arg);
}

int __wrap_dup(int fd)
{
	return real_dup(fd);
}

int __wrap_ioctl(int fd, unsigned long request, ...)
{
	unsigned long arg;
	va_list ap;

	va_start(ap, request);
	arg = va_arg(ap, unsigned long);
	va_end(ap);
	return real_ioctl(fd, request, arg);
}

long __wrap_syscall(long number, ...)
{
	long arg[6];
	va_list ap;

	va_start(ap, number);
	for (unsigned i = 0; i < 6; i++)
		arg[i] = va_arg(ap, long);
	va_end(ap);
	return real_syscall(number, arg);
}

void *__wrap_mmap64(void *addr, size_t length, int prot, int flags, int fd, off_t offset)
{
	return real_mmap(addr, length, prot, flags, fd, offset);
}

int __wrap_sigaction(int sig, const struct sigaction *act, struct sigaction *old)
{
	return real_sigaction(sig, act, old);
}

int __wrap_pthread_sigmask(int how, const sigset_t *set, sigset_t *old)
{
	return real_pthread_sigmask(how, set, old);
}

int __wrap_prctl(int option, ...)
{
	unsigned long arg[4];
	va_list ap;

	va_start(ap, option);
	for (unsigned i = 0; i < 4; i++)
		arg[i] = va_arg(ap, unsigned long);
	va_end(ap);
	return real_prctl(option, arg);
}

/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* ioctl, mmap and syscall of libc: what is for a descriptor of ours goes to the library. */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/kvm.h>
#include <linux/openat2.h>
#include <stdarg.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "anykvm/anykvm.h"
#include "front/preload/descriptors.h"
#include "front/preload/device.h"
#include "front/preload/eventfds.h"
#include "front/preload/interpose.h"
#include "front/preload/paths.h"
#include "front/preload/real.h"
#include "front/preload/seccomp.h"
#include "front/preload/signals.h"
#include "kvm/file.h"

/*
 * KVM_RUN asks the table and nobody else. For other requests the kernel is asked which inode a number is; numbers
 * that the table does not know are asked for only when the request is one of KVM's (a descriptor that came by another way).
 */
static bool is_for_us(int fd, unsigned long request)
{
	if (file_known(fd))
		return true;
	return unlikely(_IOC_TYPE(request) == KVMIO) && file_next(0) >= 0 && anykvm_is_ours(fd);
}

static int request(int fd, unsigned long number, unsigned long arg)
{
	int r;

	if (likely(!is_for_us(fd, number)))
		return real_ioctl(fd, number, arg);
	if (unlikely((u32)number == KVM_CREATE_VM))
		signals_take_over();
	r = anykvm_ioctl(fd, number, arg);
	if (unlikely(r < 0 && errno == EBADF))
		return real_ioctl(fd, number,
				  arg); /* the number has got another owner behind our back */
	return r;
}

INTERPOSE int ioctl(int fd, unsigned long number, ...)
{
	unsigned long arg;
	va_list ap;

	va_start(ap, number);
	arg = va_arg(ap, unsigned long);
	va_end(ap);
	return request(fd, number, arg);
}

static void *map(void *addr, size_t length, int prot, int flags, int fd, off_t offset)
{
	void *p;

	if (likely(flags & MAP_ANONYMOUS || fd < 0 || !file_known(fd)))
		return real_mmap(addr, length, prot, flags, fd, offset);
	p = anykvm_mmap(addr, length, prot, flags, fd, offset);
	if (unlikely(p == MAP_FAILED && errno == EBADF))
		return real_mmap(addr, length, prot, flags, fd, offset);
	return p;
}

INTERPOSE void *mmap(void *addr, size_t length, int prot, int flags, int fd, off_t offset)
{
	return map(addr, length, prot, flags, fd, offset);
}

INTERPOSE void *mmap64(void *addr, size_t length, int prot, int flags, int fd, off64_t offset)
{
	return map(addr, length, prot, flags, fd, offset);
}

/* System calls by number, for programs that go past libc's functions but not past libc. */
static long call_open(const long a[6])
{
	return path_open(AT_FDCWD, (const char *)a[0], a[1], a[2]);
}

static long call_openat(const long a[6])
{
	return path_open(a[0], (const char *)a[1], a[2], a[3]);
}

static long call_openat2(const long a[6])
{
	const struct open_how *how = (const void *)a[2];

	if (device_is(a[0], (const char *)a[1]))
		return device_open(how->flags);
	return real_syscall(SYS_openat2, a);
}

static long call_ioctl(const long a[6])
{
	return request(a[0], a[1], a[2]);
}

static long call_mmap(const long a[6])
{
	return (long)map((void *)a[0], a[1], a[2], a[3], a[4], a[5]);
}

static long call_close(const long a[6])
{
	return descriptor_close(a[0]);
}

static long call_close_range(const long a[6])
{
	return descriptor_close_range(a[0], a[1], a[2]);
}

static long call_dup(const long a[6])
{
	return descriptor_dup(a[0]);
}

static long call_dup2(const long a[6])
{
	return descriptor_dup2(a[0], a[1]);
}

static long call_dup3(const long a[6])
{
	return descriptor_dup3(a[0], a[1], a[2]);
}

static long call_fcntl(const long a[6])
{
	return descriptor_fcntl(a[0], a[1], a[2]);
}

static long call_access(const long a[6])
{
	return path_access((const char *)a[0], a[1]);
}

static long call_write(const long a[6])
{
	return eventfds_write(a[0], (const void *)a[1], a[2]);
}

static long call_writev(const long a[6])
{
	return eventfds_writev(a[0], (const struct iovec *)a[1], a[2]);
}

static long call_seccomp(const long a[6])
{
	u32 ways = seccomp_before(a[0], a[1], (const void *)a[2]);
	long r = real_syscall(SYS_seccomp, a);

	if (!r)
		seccomp_after(ways, a[1]);
	return r;
}

static const struct {
	long number;
	long (*call)(const long a[6]);
} calls[] = {
	{ SYS_ioctl, call_ioctl },     { SYS_open, call_open },
	{ SYS_openat, call_openat },   { SYS_openat2, call_openat2 },
	{ SYS_mmap, call_mmap },       { SYS_close, call_close },
	{ SYS_dup, call_dup },	       { SYS_close_range, call_close_range },
	{ SYS_dup2, call_dup2 },       { SYS_dup3, call_dup3 },
	{ SYS_fcntl, call_fcntl },     { SYS_access, call_access },
	{ SYS_seccomp, call_seccomp }, { SYS_write, call_write },
	{ SYS_writev, call_writev },
};

INTERPOSE long syscall(long number, ...)
{
	long arg[6];
	va_list ap;

	/* As libc does: six arguments are passed on, whatever their number is. */
	va_start(ap, number);
	for (unsigned i = 0; i < 6; i++)
		arg[i] = va_arg(ap, long);
	va_end(ap);
	for (unsigned i = 0; i < ARRAY_SIZE(calls); i++)
		if (unlikely(calls[i].number == number))
			return calls[i].call(arg);
	return real_syscall(number, arg);
}

/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Functions of libc that close and duplicate descriptors: the table of ours follows. */
#define _GNU_SOURCE
#include "front/preload/descriptors.h"

#include <errno.h>
#include <limits.h>
#include <linux/close_range.h>
#include <stdarg.h>
#include <unistd.h>

#include "anykvm/anykvm.h"
#include "front/preload/interpose.h"
#include "front/preload/real.h"
#include "kvm/calling.h"
#include "kvm/file.h"
#include "kvm/irqfds.h"

/*
 * A number that the table does not know costs one load. A child of vfork() closes and duplicates in a
 * descriptor table of its own but in our memory: for it, nothing is written down.
 */
static bool is_ours(int fd)
{
	return unlikely(file_known(fd)) && file_owner();
}

static void note(int fd)
{
	int saved = errno;

	calling_enter();
	file_note(fd);
	calling_leave();
	errno = saved;
}

/* The number will not be that of an irqfd any more. */
static void eventfd_gone(int fd)
{
	if (unlikely(kvm_eventfd_is_known(fd)) && file_owner())
		kvm_eventfd_closed(fd, fd);
}

int descriptor_close(int fd)
{
	int saved = errno;

	eventfd_gone(fd);
	if (likely(!is_ours(fd)))
		return real_close(fd);
	if (!anykvm_close(fd)) {
		errno = saved;
		return 0;
	}
	return errno == EBADF ? real_close(fd) : -1;
}

static void close_ours(unsigned first, unsigned last)
{
	/* Without a descriptor of ours there is no irqfd either. */
	if (first > INT_MAX || file_next(0) < 0 || !file_owner())
		return;
	kvm_eventfd_closed(first, last);
	for (int fd = file_next(first); fd >= 0 && (unsigned)fd <= last; fd = file_next(fd + 1))
		descriptor_close(fd);
}

int descriptor_close_range(unsigned first, unsigned last, int flags)
{
	if (first <= last && !(flags & CLOSE_RANGE_CLOEXEC))
		close_ours(first, last);
	return real_close_range(first, last, flags);
}

int descriptor_dup(int fd)
{
	int r = real_dup(fd);

	if (r >= 0 && is_ours(fd))
		note(r);
	return r;
}

int descriptor_dup2(int fd, int to)
{
	bool ours = fd != to && (is_ours(fd) || is_ours(to));
	int r;

	if (fd != to)
		eventfd_gone(to);
	r = real_dup2(fd, to);
	if (r >= 0 && ours)
		note(r);
	return r;
}

int descriptor_dup3(int fd, int to, int flags)
{
	bool ours = is_ours(fd) || is_ours(to);
	int r;

	eventfd_gone(to);
	r = real_dup3(fd, to, flags);
	if (r >= 0 && ours)
		note(r);
	return r;
}

int descriptor_fcntl(int fd, int command, unsigned long arg)
{
	int r = real_fcntl(fd, command, arg);

	if (r >= 0 && (command == F_DUPFD || command == F_DUPFD_CLOEXEC) && is_ours(fd))
		note(r);
	return r;
}

INTERPOSE int close(int fd)
{
	return descriptor_close(fd);
}

INTERPOSE int close_range(unsigned first, unsigned last, int flags)
{
	return descriptor_close_range(first, last, flags);
}

INTERPOSE void closefrom(int first)
{
	close_ours(first < 0 ? 0 : first, INT_MAX);
	real_closefrom(first);
}

INTERPOSE int dup(int fd)
{
	return descriptor_dup(fd);
}

INTERPOSE int dup2(int fd, int to)
{
	return descriptor_dup2(fd, to);
}

INTERPOSE int dup3(int fd, int to, int flags)
{
	return descriptor_dup3(fd, to, flags);
}

INTERPOSE int fcntl(int fd, int command, ...)
{
	unsigned long arg;
	va_list ap;

	va_start(ap, command);
	arg = va_arg(ap, unsigned long);
	va_end(ap);
	return descriptor_fcntl(fd, command, arg);
}

INTERPOSE int fcntl64(int fd, int command, ...)
{
	unsigned long arg;
	va_list ap;

	va_start(ap, command);
	arg = va_arg(ap, unsigned long);
	va_end(ap);
	return descriptor_fcntl(fd, command, arg);
}

/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* write, writev and eventfd_write of libc: what goes to an eventfd of KVM_IRQFD is injected by the writer itself. */
#define _GNU_SOURCE
#include "front/preload/eventfds.h"

#include <errno.h>
#include <sys/eventfd.h>
#include <sys/uio.h>

#include "front/preload/interpose.h"
#include "front/preload/real.h"
#include "kvm/calling.h"
#include "kvm/irqfds.h"
#include "kvm/usercopy.h"

/*
 * A number that is no irqfd costs two loads. For one that is, the kernel is asked what it is now: a number that was
 * closed in a way that is not seen, or that a child of vfork() has given to something else, may be a file or a
 * pipe, whose bytes must not vanish. Only then the interrupt is injected, and nothing is written.
 */
static bool is_eventfd_still(int fd)
{
	struct stat st;

	return !real_fstat(fd, &st) && !(st.st_mode & S_IFMT);
}

/* Whether the write of @size bytes at @from to @fd has been done. */
static bool injected(int fd, const void *from, size_t size)
{
	int saved = errno;
	u64 value;
	bool done;

	if (likely(!kvm_eventfd_is_known(fd)) || size < sizeof(value))
		return false;
	calling_enter();
	done = !user_read(&value, (hva_t)from, sizeof(value)) && value != ~0ull &&
	       is_eventfd_still(fd) && kvm_eventfd_written(fd);
	calling_leave();
	errno = saved;
	return done;
}

ssize_t eventfds_write(int fd, const void *buf, size_t size)
{
	return injected(fd, buf, size) ? (ssize_t)sizeof(u64) : real_write(fd, buf, size);
}

/* More than one part is more than one write: left to the kernel. */
ssize_t eventfds_writev(int fd, const struct iovec *iov, int n)
{
	struct iovec one;

	if (unlikely(kvm_eventfd_is_known(fd)) && n == 1 &&
	    !user_read(&one, (hva_t)iov, sizeof(one)) && injected(fd, one.iov_base, one.iov_len))
		return sizeof(u64);
	return real_writev(fd, iov, n);
}

INTERPOSE ssize_t write(int fd, const void *buf, size_t size)
{
	return eventfds_write(fd, buf, size);
}

INTERPOSE ssize_t writev(int fd, const struct iovec *iov, int n)
{
	return eventfds_writev(fd, iov, n);
}

INTERPOSE int eventfd_write(int fd, eventfd_t value)
{
	return eventfds_write(fd, &value, sizeof(value)) == sizeof(value) ? 0 : -1;
}

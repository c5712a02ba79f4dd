/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Eventfds of the program: held by a duplicate, compared by what is behind them, signalled and drained. */
#define _GNU_SOURCE
#include "kvm/eventfd.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/kcmp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "kvm/file.h"

#define COUNT_LINE "eventfd-count:"
#define ID_LINE	   "eventfd-id:"

/* What the kernel says about a descriptor, as text; false without /proc. */
static bool fdinfo_read(int fd, char *text, size_t size)
{
	char path[40];
	ssize_t n;
	int info;

	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", fd);
	info = open(path, O_RDONLY | O_CLOEXEC);
	if (info < 0)
		return false;
	n = read(info, text, size - 1);
	close(info);
	text[n < 0 ? 0 : n] = 0;
	return n >= 0;
}

/*
 * All eventfds share one inode, so fstat() cannot tell them apart. Without /proc, any descriptor of that inode's
 * type passes for one.
 */
static int identify(struct eventfd *e)
{
	char text[512];
	const char *id;
	struct stat st;

	if (!fdinfo_read(e->fd, text, sizeof(text)))
		return fstat(e->fd, &st) || st.st_mode & S_IFMT ? -EINVAL : 0;
	if (!strstr(text, COUNT_LINE))
		return -EINVAL;
	id = strstr(text, ID_LINE);
	if (id)
		e->id = strtoll(id + strlen(ID_LINE), NULL, 10);
	return 0;
}

int eventfd_hold(struct eventfd *e, int number)
{
	int r;

	*e = (struct eventfd){ .fd = -1, .number = number, .id = -1 };
	e->fd = fcntl(number, F_DUPFD_CLOEXEC, 3);
	if (e->fd < 0)
		return -errno;
	e->waits = !(fcntl(e->fd, F_GETFL) & O_NONBLOCK);
	r = identify(e);
	if (r)
		eventfd_drop(e);
	return r;
}

void eventfd_drop(struct eventfd *e)
{
	if (e->fd >= 0)
		close(e->fd);
	e->fd = -1;
}

bool eventfd_is_same(const struct eventfd *a, const struct eventfd *b)
{
	long r;

	if (a->id >= 0 && b->id >= 0)
		return a->id == b->id;
	r = syscall(SYS_kcmp, file_pid(), file_pid(), KCMP_FILE, a->fd, b->fd);
	return r < 0 ? a->number == b->number : !r;
}

void eventfd_signal(const struct eventfd *e)
{
	struct pollfd p = { .fd = e->fd, .events = POLLOUT };
	u64 one = 1;

	if (e->waits && poll(&p, 1, 0) != 1)
		return;
	while (write(e->fd, &one, sizeof(one)) < 0 && errno == EINTR)
		;
}

bool eventfd_drain(const struct eventfd *e)
{
	struct pollfd p = { .fd = e->fd, .events = POLLIN };
	u64 count = 0;
	struct iovec v = { &count, sizeof(count) };
	ssize_t n;

	n = preadv2(e->fd, &v, 1, -1, RWF_NOWAIT);
	if (n < 0 && errno != EAGAIN && poll(&p, 1, 0) == 1)
		n = read(e->fd, &count, sizeof(count));
	return n == (ssize_t)sizeof(count);
}

/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The host's side of virtio-vsock: unix sockets, as Firecracker and Cloud Hypervisor lay them out. */
#define _GNU_SOURCE
#include "vmm/vsock/host.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define BACKLOG	 64
#define GREETING "CONNECT "

static struct sockaddr_un address_of(const char *path)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };

	snprintf(a.sun_path, sizeof(a.sun_path), "%.*s", (int)sizeof(a.sun_path) - 1, path);
	return a;
}

static int stream_new(void)
{
	return socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
}

/* A socket whose server is gone. */
static bool is_leftover(const struct sockaddr_un *a)
{
	struct stat st;
	const int fd = stream_new();
	const bool refused = fd >= 0 && lstat(a->sun_path, &st) == 0 && S_ISSOCK(st.st_mode) &&
			     connect(fd, (const struct sockaddr *)a, sizeof(*a)) < 0 &&
			     errno == ECONNREFUSED;

	if (fd >= 0)
		close(fd);
	return refused;
}

static int bind_at(int fd, const struct sockaddr_un *a)
{
	/* The mode of a socket that is bound is the one that it had. */
	if (fchmod(fd, 0600) == 0 && bind(fd, (const struct sockaddr *)a, sizeof(*a)) == 0)
		return 0;
	return -errno;
}

int vsock_listen(const char *path, struct why *why)
{
	const struct sockaddr_un a = address_of(path);
	const int fd = stream_new();
	int r = fd < 0 ? -errno : bind_at(fd, &a);

	if (r == -EADDRINUSE && is_leftover(&a)) {
		unlink(path);
		r = bind_at(fd, &a);
	}
	if (r == 0 && listen(fd, BACKLOG) < 0)
		r = -errno;
	if (r == 0)
		return fd;
	if (fd >= 0)
		close(fd);
	return why_set(why, -r,
		       "--vsock: cannot listen at '%s': %s; give another path with uds=", path,
		       strerror(-r));
}

void vsock_unlisten(int fd, const char *path)
{
	close(fd);
	unlink(path);
}

int vsock_accept(int fd)
{
	return accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
}

int vsock_connect(const char *path, u32 port)
{
	char text[VSOCK_PATH_MAX + 16];
	struct sockaddr_un a;
	const int fd = stream_new();

	snprintf(text, sizeof(text), "%s_%u", path, port);
	a = address_of(text);
	if (fd >= 0 && connect(fd, (const struct sockaddr *)&a, sizeof(a)) == 0)
		return fd;
	if (fd >= 0)
		close(fd);
	return -1;
}

static int port_of(const char *digits, u32 *port)
{
	char *end;
	unsigned long value;

	errno = 0;
	value = strtoul(digits, &end, 10);
	if (*digits < '0' || *digits > '9' || *end || errno || value > 0xfffffffe)
		return -EPROTO;
	*port = (u32)value;
	return 1;
}

/* Byte by byte: what comes behind the line is the guest's. */
int vsock_greeting_take(struct vsock_greeting *g, int fd, u32 *port)
{
	const size_t known = sizeof(GREETING) - 1;

	while (g->size < VSOCK_GREETING_MAX) {
		const ssize_t n = recv(fd, g->text + g->size, 1, MSG_DONTWAIT);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			return 0;
		if (n <= 0)
			return -EPROTO;
		if (g->size < known && g->text[g->size] != GREETING[g->size])
			return -EPROTO;
		if (g->text[g->size] == '\n') {
			g->text[g->size] = 0;
			return g->size < known ? -EPROTO : port_of(g->text + known, port);
		}
		g->size++;
	}
	return -EPROTO;
}

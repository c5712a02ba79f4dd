/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Where a machine goes to or comes from: sockets. */
#define _GNU_SOURCE /* accept4 */
#include "vmm/move/uri.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/types.h"

struct place {
	bool is_unix;
	struct sockaddr_un path;
	char host[256], port[16];
};

static int wrong(const char *uri, struct why *why)
{
	return why_set(why, EINVAL,
		       "'%.100s' is no place for a machine; give unix:PATH or tcp:HOST:PORT", uri);
}

static int place_read(struct place *p, const char *uri, struct why *why)
{
	const char *colon, *host;
	size_t n;

	memset(p, 0, sizeof(*p));
	if (strncmp(uri, "unix:", 5) == 0) {
		p->is_unix = true;
		p->path.sun_family = AF_UNIX;
		if (!uri[5] || strlen(uri + 5) >= sizeof(p->path.sun_path))
			return wrong(uri, why);
		memcpy(p->path.sun_path, uri + 5, strlen(uri + 5));
		return 0;
	}
	colon = strrchr(uri, ':');
	if (strncmp(uri, "tcp:", 4) != 0 || colon < uri + 4 || !colon[1] ||
	    strlen(colon + 1) >= sizeof(p->port))
		return wrong(uri, why);
	memcpy(p->port, colon + 1, strlen(colon + 1));
	host = uri + 4;
	n = (size_t)(colon - host);
	if (n >= 2 && host[0] == '[' && host[n - 1] == ']') {
		host++;
		n -= 2;
	}
	if (n >= sizeof(p->host))
		return wrong(uri, why);
	memcpy(p->host, host, n);
	return 0;
}

int uri_check(const char *uri, struct why *why)
{
	struct place p;

	return place_read(&p, uri, why);
}

/* A link that hangs is a link that is cut, after a while. */
static void socket_prepare(int fd)
{
	const struct timeval patience = { 20, 0 };
	const int one = 1, room = 4 << 20;

	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
	setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &room, sizeof(room));
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
}

/* Each address in turn; @is_server: bind and listen instead. */
static int tcp_open(const struct place *p, bool is_server, int *error)
{
	const struct addrinfo hints = { .ai_socktype = SOCK_STREAM,
					.ai_flags = is_server ? AI_PASSIVE : 0 };
	const int one = 1;
	struct addrinfo *list;
	int fd = -1, r = getaddrinfo(p->host[0] ? p->host : NULL, p->port, &hints, &list);

	*error = EHOSTUNREACH;
	if (r)
		return -1;
	for (const struct addrinfo *a = list; a && fd < 0; a = a->ai_next) {
		fd = socket(a->ai_family, a->ai_socktype | SOCK_CLOEXEC, a->ai_protocol);
		if (fd < 0)
			continue;
		setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
		r = is_server ? bind(fd, a->ai_addr, a->ai_addrlen)
			      : connect(fd, a->ai_addr, a->ai_addrlen);
		if (r == 0 && is_server)
			r = listen(fd, 1);
		if (r == 0)
			break;
		*error = errno;
		close(fd);
		fd = -1;
	}
	freeaddrinfo(list);
	return fd;
}

/* Only a socket that nobody listens at is replaced. */
static int unix_open(const struct place *p, bool is_server, int *error)
{
	const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	const struct sockaddr *address = (const struct sockaddr *)&p->path;
	struct stat st;
	int r;

	if (fd >= 0 && !is_server) {
		r = connect(fd, address, sizeof(p->path));
	} else {
		r = fd < 0 ? -1 : bind(fd, address, sizeof(p->path));
		if (r < 0 && errno == EADDRINUSE && stat(p->path.sun_path, &st) == 0 &&
		    S_ISSOCK(st.st_mode) && connect(fd, address, sizeof(p->path)) < 0 &&
		    errno == ECONNREFUSED && unlink(p->path.sun_path) == 0)
			r = bind(fd, address, sizeof(p->path));
		if (r == 0)
			r = listen(fd, 1);
	}
	*error = errno;
	if (r < 0 && fd >= 0)
		close(fd);
	return r < 0 ? -1 : fd;
}

int uri_connect(const char *uri, struct why *why)
{
	struct place p;
	int error, fd, r = place_read(&p, uri, why);

	if (r < 0)
		return r;
	fd = p.is_unix ? unix_open(&p, false, &error) : tcp_open(&p, false, &error);
	if (fd < 0)
		return why_set(why, error,
			       "cannot connect to %s: %s; is 'anykvm run --incoming' there?", uri,
			       strerror(error));
	socket_prepare(fd);
	return fd;
}

int uri_accept(const char *uri, struct why *why)
{
	struct place p;
	int error, listening, fd, r = place_read(&p, uri, why);

	if (r < 0)
		return r;
	listening = p.is_unix ? unix_open(&p, true, &error) : tcp_open(&p, true, &error);
	if (listening < 0)
		return why_set(why, error, "cannot wait at %s: %s", uri, strerror(error));
	do {
		fd = accept4(listening, NULL, NULL, SOCK_CLOEXEC);
	} while (fd < 0 && (errno == EINTR || errno == ECONNABORTED));
	error = errno;
	close(listening);
	if (p.is_unix)
		unlink(p.path.sun_path);
	if (fd < 0)
		return why_set(why, error, "cannot wait at %s: %s", uri, strerror(error));
	socket_prepare(fd);
	return fd;
}

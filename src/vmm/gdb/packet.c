/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Packets of gdb's remote serial protocol, and the socket that they come by. */

#include "vmm/gdb/packet.h"

#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define BREAK	0x03
#define SEND_MS 5000

static int digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c |= 0x20;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

void hex_write(char *out, const void *data, size_t n)
{
	static const char digits[] = "0123456789abcdef";
	const u8 *p = data;

	for (size_t i = 0; i < n; i++) {
		*out++ = digits[p[i] >> 4];
		*out++ = digits[p[i] & 15];
	}
	*out = 0;
}

bool hex_read(const char *text, void *data, size_t n)
{
	u8 *p = data;

	for (size_t i = 0; i < n; i++) {
		const int high = digit(text[2 * i]);
		const int low = high < 0 ? -1 : digit(text[2 * i + 1]);

		if (low < 0)
			return false;
		p[i] = (u8)(high << 4 | low);
	}
	return true;
}

/* Somebody who does not read is not waited for long. */
static void all_send(struct packets *p, const char *data, size_t n)
{
	struct pollfd out = { p->fd, POLLOUT, 0 };

	while (n && p->fd >= 0) {
		const ssize_t r = send(p->fd, data, n, MSG_NOSIGNAL | MSG_DONTWAIT);

		if (r > 0) {
			data += r;
			n -= (size_t)r;
		} else if ((errno != EAGAIN && errno != EINTR) || poll(&out, 1, SEND_MS) == 0) {
			return;
		}
	}
}

void packet_send(struct packets *p, const char *data, size_t n)
{
	size_t at = 0;
	u8 sum = 0;

	p->last[at++] = '$';
	for (size_t i = 0; i < n && at < PACKET_MAX; i++) {
		if (strchr("#$}*", data[i])) {
			p->last[at++] = '}';
			p->last[at++] = data[i] ^ 0x20;
		} else {
			p->last[at++] = data[i];
		}
	}
	for (size_t i = 1; i < at; i++)
		sum = (u8)(sum + (u8)p->last[i]);
	p->last[at++] = '#';
	hex_write(p->last + at, &sum, 1);
	p->last_size = at + 2;
	all_send(p, p->last, p->last_size);
}

bool packets_fill(struct packets *p)
{
	ssize_t n;

	/* A packet that is longer than we said we take cannot end. */
	if (p->in_size == sizeof(p->in))
		return false;
	n = recv(p->fd, p->in + p->in_size, sizeof(p->in) - p->in_size, MSG_DONTWAIT);
	if (n < 0)
		return errno == EAGAIN || errno == EINTR;
	p->in_size += (size_t)n;
	return n > 0;
}

static void drop(struct packets *p, size_t n)
{
	memmove(p->in, p->in + n, p->in_size - n);
	p->in_size -= n;
}

/* The data between $ and #, without escapes. */
static size_t unescape(const u8 *from, size_t n, char *out)
{
	size_t size = 0;

	for (size_t i = 0; i < n; i++)
		out[size++] = (char)(from[i] == '}' && i + 1 < n ? from[++i] ^ 0x20 : from[i]);
	out[size] = 0;
	return size;
}

enum packet_kind packet_next(struct packets *p, char *out, size_t *n)
{
	while (p->in_size) {
		const u8 *end;
		size_t size;
		u8 sum = 0, told = 0;
		bool is_good;

		if (p->in[0] != '$') {
			const u8 byte = p->in[0];

			drop(p, 1);
			if (byte == BREAK)
				return PACKET_BREAK;
			if (byte == '-' && !p->no_ack)
				all_send(p, p->last, p->last_size);
			continue;
		}
		end = memchr(p->in, '#', p->in_size);
		if (!end || (size_t)(end - p->in) + 3 > p->in_size)
			return PACKET_NONE;
		size = (size_t)(end - p->in) - 1;
		for (size_t i = 1; i <= size; i++)
			sum = (u8)(sum + p->in[i]);
		is_good = hex_read((const char *)end + 1, &told, 1) && told == sum;
		*n = unescape(p->in + 1, size, out);
		drop(p, size + 4);
		if (!p->no_ack)
			all_send(p, is_good ? "+" : "-", 1);
		if (is_good)
			return PACKET_DATA;
	}
	return PACKET_NONE;
}

static int unix_listen(const char *path, char *place, size_t room, struct why *why)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	int fd;

	if (!*path || strlen(path) >= sizeof(a.sun_path))
		return why_set(why, EINVAL, "the path of a socket has 1 to 107 characters");
	strcpy(a.sun_path, path);
	snprintf(place, room, "%s", path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd >= 0 && bind(fd, (struct sockaddr *)&a, sizeof(a)) == 0 && listen(fd, 1) == 0)
		return fd;
	why_set(why, errno, "cannot listen on '%s': %s; give a path that is not there yet", path,
		strerror(errno));
	if (fd >= 0)
		close(fd);
	return -EINVAL;
}

static int tcp_listen(const char *text, char *place, size_t room, struct why *why)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr = { htonl(INADDR_LOOPBACK) } };
	const char *colon = strrchr(text, ':'), *number = colon ? colon + 1 : text;
	socklen_t size = sizeof(a);
	char host[64], *end;
	const int on = 1;
	long port;
	int fd;

	snprintf(host, sizeof(host), "%.*s", colon ? (int)(colon - text) : 0, text);
	port = strtol(number, &end, 10);
	if (*number < '0' || *number > '9' || *end || port > 65535 ||
	    (colon && inet_pton(AF_INET, host, &a.sin_addr) != 1))
		return why_set(why, EINVAL,
			       "'%.60s' is no place for gdb; give tcp:PORT, tcp:ADDRESS:PORT or "
			       "unix:PATH",
			       text);
	a.sin_port = htons((u16)port);
	fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd >= 0)
		setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (fd < 0 || bind(fd, (struct sockaddr *)&a, sizeof(a)) < 0 || listen(fd, 1) < 0 ||
	    getsockname(fd, (struct sockaddr *)&a, &size) < 0) {
		why_set(why, errno, "cannot listen on port %ld for gdb: %s; give another one", port,
			strerror(errno));
		if (fd >= 0)
			close(fd);
		return -EINVAL;
	}
	inet_ntop(AF_INET, &a.sin_addr, host, sizeof(host));
	snprintf(place, room, "%s:%u", host, ntohs(a.sin_port));
	return fd;
}

int packet_listen(const char *where, char *place, size_t room, struct why *why)
{
	if (strncmp(where, "unix:", 5) == 0)
		return unix_listen(where + 5, place, room, why);
	return tcp_listen(strncmp(where, "tcp:", 4) == 0 ? where + 4 : where, place, room, why);
}

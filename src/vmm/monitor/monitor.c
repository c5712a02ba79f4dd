/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The monitor of a VM: commands in JSON over a unix socket. */
#define _GNU_SOURCE /* struct ucred */
#include "vmm/monitor/monitor.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/thread.h"
#include "anykvm/anykvm.h"
#include "vmm/monitor/name.h"

#define CLIENTS_MAX 8u
#define LINE_BYTES  65536u
#define OUT_BYTES   (1u << 20) /* a client that lets more wait is dropped */

struct client {
	int fd; /* -1: free */
	char *line;
	size_t line_size;
	char *out;
	size_t out_size;
	bool is_broken;
};

struct monitor {
	struct named named;
	struct monitor_table table;
	int listen_fd, wake_fd;
	pthread_t thread;
	atomic_bool stopped;
	pthread_mutex_t lock; /* what goes out: events come from any thread */
	struct client clients[CLIENTS_MAX];
};

static void wake(struct monitor *m)
{
	const u64 one = 1;

	if (write(m->wake_fd, &one, sizeof(one)) < 0)
		return; /* it is awake */
}

/* Under the lock. */
static void client_send(struct client *c, json_t *message)
{
	char *text = json_dumps(message, JSON_COMPACT);
	const size_t n = text ? strlen(text) : 0;
	char *grown = text && c->out_size + n + 1 <= OUT_BYTES
			      ? realloc(c->out, c->out_size + n + 1)
			      : NULL;

	if (grown) {
		c->out = grown;
		memcpy(c->out + c->out_size, text, n);
		c->out[c->out_size + n] = '\n';
		c->out_size += n + 1;
	} else {
		c->is_broken = true;
	}
	free(text);
}

static void client_reply(struct monitor *m, struct client *c, json_t *message)
{
	pthread_mutex_lock(&m->lock);
	client_send(c, message);
	pthread_mutex_unlock(&m->lock);
	json_decref(message);
}

static void client_close(struct monitor *m, struct client *c)
{
	pthread_mutex_lock(&m->lock);
	close(c->fd);
	free(c->line);
	free(c->out);
	*c = (struct client){ .fd = -1 };
	pthread_mutex_unlock(&m->lock);
}

static json_t *error_new(const char *class, const char *text)
{
	return json_pack("{s:{s:s,s:s}}", "error", "class", class, "desc", text);
}

static json_t *commands_list(const struct monitor_table *t)
{
	json_t *list = json_array();

	for (unsigned i = 0; i < t->count; i++)
		json_array_append_new(list, json_pack("{s:s}", "name", t->rows[i].name));
	return list;
}

static json_t *command_run(struct monitor *m, const char *name, json_t *arguments)
{
	const struct monitor_table *t = &m->table;
	struct why why = { "" };
	json_t *result = NULL;

	if (strcmp(name, "qmp_capabilities") == 0)
		return json_pack("{s:{}}", "return");
	if (strcmp(name, "query-commands") == 0)
		return json_pack("{s:o}", "return", commands_list(t));
	for (unsigned i = 0; i < t->count; i++) {
		if (strcmp(t->rows[i].name, name) != 0)
			continue;
		if (t->rows[i].run(t->owner, arguments, &result, &why) < 0)
			return error_new("GenericError", why.text);
		return json_pack("{s:o}", "return", result ? result : json_object());
	}
	why_set(&why, ENOENT, "The command %.60s has not been found", name);
	return error_new("CommandNotFound", why.text);
}

static json_t *request_answer(struct monitor *m, json_t *request)
{
	const char *name = json_string_value(json_object_get(request, "execute"));
	json_t *arguments = json_object_get(request, "arguments");
	const char *key;
	json_t *value;

	if (!json_is_object(request))
		return error_new("GenericError", "a request is an object");
	json_object_foreach(
		request, key,
		value) if (strcmp(key, "execute") && strcmp(key, "arguments") &&
			   strcmp(key, "id")) return error_new("GenericError",
							       "a request has execute, arguments "
							       "and id, and nothing else");
	if (!name)
		return error_new("GenericError",
				 "a request needs \"execute\" with the name of a command");
	if (arguments && !json_is_object(arguments))
		return error_new("GenericError", "\"arguments\" is an object");
	return command_run(m, name, arguments);
}

static void line_serve(struct monitor *m, struct client *c, const char *line, size_t n)
{
	json_error_t error;
	json_t *request, *answer, *id;

	if (strspn(line, " \t\r") >= n)
		return;
	request = json_loadb(line, n, JSON_REJECT_DUPLICATES, &error);
	answer = request ? request_answer(m, request) : error_new("GenericError", error.text);
	id = json_object_get(request, "id");
	if (!answer)
		answer = error_new("GenericError", "the text is not UTF-8, or memory is short");
	if (id && answer)
		json_object_set(answer, "id", id);
	if (answer)
		client_reply(m, c, answer);
	json_decref(request);
}

/* What came, line by line; what is left waits for its end. */
static void client_read(struct monitor *m, struct client *c)
{
	const ssize_t n = read(c->fd, c->line + c->line_size, LINE_BYTES - c->line_size);
	size_t at = 0;

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		c->is_broken = true;
		return;
	}
	c->line_size += (size_t)n;
	for (;;) {
		char *end = memchr(c->line + at, '\n', c->line_size - at);

		if (!end)
			break;
		*end = 0;
		line_serve(m, c, c->line + at, (size_t)(end - c->line) - at);
		at = (size_t)(end - c->line) + 1;
	}
	memmove(c->line, c->line + at, c->line_size - at);
	c->line_size -= at;
	if (c->line_size == LINE_BYTES)
		c->is_broken = true;
}

static void client_write(struct monitor *m, struct client *c)
{
	ssize_t n;

	pthread_mutex_lock(&m->lock);
	n = send(c->fd, c->out, c->out_size, MSG_DONTWAIT | MSG_NOSIGNAL);
	if (n > 0) {
		memmove(c->out, c->out + n, c->out_size - (size_t)n);
		c->out_size -= (size_t)n;
	} else if (n < 0 && errno != EAGAIN && errno != EINTR) {
		c->is_broken = true;
	}
	pthread_mutex_unlock(&m->lock);
}

static json_t *greeting_new(void)
{
	return json_pack("{s:{s:{s:s},s:[]}}", "QMP", "version", "anykvm", anykvm_version(),
			 "capabilities");
}

/* The folder keeps others out; this keeps them out should it be opened to them. */
static bool is_peer_trusted(int fd)
{
	struct ucred peer;
	socklen_t n = sizeof(peer);

	return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &n) == 0 &&
	       (peer.uid == 0 || peer.uid == geteuid());
}

static void client_accept(struct monitor *m)
{
	const int fd = accept4(m->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	struct client *c = NULL;

	if (fd < 0)
		return;
	for (unsigned i = 0; i < CLIENTS_MAX && !c; i++)
		if (m->clients[i].fd < 0)
			c = &m->clients[i];
	if (!c || !is_peer_trusted(fd)) {
		close(fd);
		return;
	}
	c->line = malloc(LINE_BYTES);
	if (!c->line) {
		close(fd);
		return;
	}
	pthread_mutex_lock(&m->lock);
	c->fd = fd;
	pthread_mutex_unlock(&m->lock);
	client_reply(m, c, greeting_new());
}

static void client_serve(struct monitor *m, struct client *c, short came)
{
	if (came & (POLLIN | POLLHUP | POLLERR))
		client_read(m, c);
	if (c->out_size)
		client_write(m, c);
	if (c->is_broken)
		client_close(m, c);
}

static unsigned fds_fill(struct monitor *m, struct pollfd *fds)
{
	fds[0] = (struct pollfd){ m->listen_fd, POLLIN, 0 };
	fds[1] = (struct pollfd){ m->wake_fd, POLLIN, 0 };
	pthread_mutex_lock(&m->lock);
	for (unsigned i = 0; i < CLIENTS_MAX; i++)
		fds[2 + i] =
			(struct pollfd){ m->clients[i].fd,
					 (short)(POLLIN | (m->clients[i].out_size ? POLLOUT : 0)),
					 0 };
	pthread_mutex_unlock(&m->lock);
	return 2 + CLIENTS_MAX;
}

static void *monitor_thread(void *argument)
{
	struct pollfd fds[2 + CLIENTS_MAX];
	struct monitor *m = argument;
	u64 count;

	while (!atomic_load(&m->stopped)) {
		if (poll(fds, fds_fill(m, fds), -1) < 0)
			continue;
		if (fds[1].revents && read(m->wake_fd, &count, sizeof(count)) < 0)
			continue;
		for (unsigned i = 0; i < CLIENTS_MAX; i++)
			if (fds[2 + i].fd >= 0 && fds[2 + i].fd == m->clients[i].fd)
				client_serve(m, &m->clients[i], fds[2 + i].revents);
		if (fds[0].revents)
			client_accept(m);
	}
	return NULL;
}

static json_t *event_new(const char *name, json_t *data)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	return json_pack("{s:s,s:o,s:{s:I,s:I}}", "event", name, "data",
			 data ? data : json_object(), "timestamp", "seconds",
			 (json_int_t)now.tv_sec, "microseconds", (json_int_t)now.tv_nsec / 1000);
}

void monitor_event(struct monitor *m, const char *name, json_t *data)
{
	json_t *event = event_new(name, data);

	pthread_mutex_lock(&m->lock);
	for (unsigned i = 0; event && i < CLIENTS_MAX; i++)
		if (m->clients[i].fd >= 0)
			client_send(&m->clients[i], event);
	pthread_mutex_unlock(&m->lock);
	json_decref(event);
	wake(m);
}

static int socket_open(struct monitor *m, struct why *why)
{
	m->listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	m->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (m->listen_fd < 0 || m->wake_fd < 0 ||
	    bind(m->listen_fd, (struct sockaddr *)&m->named.address, sizeof(m->named.address)) <
		    0 ||
	    listen(m->listen_fd, CLIENTS_MAX) < 0)
		return why_set(why, errno, "cannot open the monitor's socket %s: %s",
			       m->named.address.sun_path, strerror(errno));
	return 0;
}

static int monitor_begin(struct monitor *m, struct why *why)
{
	int r;

	r = thread_start(&m->thread, monitor_thread, m);
	return r ? why_set(why, r, "cannot start the monitor: %s", strerror(r)) : 0;
}

static void monitor_free(struct monitor *m)
{
	for (unsigned i = 0; i < CLIENTS_MAX; i++)
		if (m->clients[i].fd >= 0)
			client_close(m, &m->clients[i]);
	if (m->listen_fd >= 0)
		close(m->listen_fd);
	if (m->wake_fd >= 0)
		close(m->wake_fd);
	name_give_back(&m->named);
	pthread_mutex_destroy(&m->lock);
	free(m);
}

int monitor_open(struct monitor **out, const char *name, struct monitor_table table,
		 struct why *why)
{
	struct monitor *m = calloc(1, sizeof(*m));
	int r;

	if (!m)
		return why_set(why, ENOMEM, "no memory for the monitor");
	pthread_mutex_init(&m->lock, NULL);
	m->table = table;
	m->listen_fd = m->wake_fd = -1;
	for (unsigned i = 0; i < CLIENTS_MAX; i++)
		m->clients[i].fd = -1;
	r = name_take(&m->named, name, why);
	if (r == 0)
		r = socket_open(m, why);
	if (r == 0)
		r = monitor_begin(m, why);
	if (r < 0) {
		monitor_free(m);
		return r;
	}
	*out = m;
	return 0;
}

/* What waits for a client that reads is written before. */
void monitor_close(struct monitor *m)
{
	atomic_store(&m->stopped, true);
	wake(m);
	pthread_join(m->thread, NULL);
	for (unsigned i = 0; i < CLIENTS_MAX; i++)
		if (m->clients[i].fd >= 0 && m->clients[i].out_size)
			client_write(m, &m->clients[i]);
	monitor_free(m);
}

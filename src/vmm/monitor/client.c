/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The other end of a monitor. */
#include "vmm/monitor/client.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "vmm/monitor/name.h"

#define LINE_BYTES (2u << 20)

int monitor_client_open(struct monitor_client *c, const char *name, struct why *why)
{
	*c = (struct monitor_client){ .fd = name_connect(name, why) };
	if (c->fd < 0)
		return c->fd;
	c->buffer = malloc(LINE_BYTES);
	if (c->buffer)
		return 0;
	monitor_client_close(c);
	return why_set(why, ENOMEM, "no memory for the answers of the VM");
}

void monitor_client_close(struct monitor_client *c)
{
	if (c->fd >= 0)
		close(c->fd);
	free(c->buffer);
	json_decref(c->moved);
	*c = (struct monitor_client){ .fd = -1 };
}

static int gone(struct why *why)
{
	return why_set(why, EPIPE, "the VM has ended");
}

static int send_all(struct monitor_client *c, const char *text, size_t n, struct why *why)
{
	while (n) {
		const ssize_t done = send(c->fd, text, n, MSG_NOSIGNAL);

		if (done < 0 && errno == EINTR)
			continue;
		if (done <= 0)
			return gone(why);
		text += done;
		n -= (size_t)done;
	}
	return 0;
}

/* The next line as an object, a new reference; NULL: the VM is gone, or speaks something else. */
static json_t *line_take(struct monitor_client *c)
{
	for (;;) {
		char *end = memchr(c->buffer + c->at, '\n', c->size - c->at);
		ssize_t n;

		if (end) {
			const size_t from = c->at;

			c->at = (size_t)(end - c->buffer) + 1;
			return json_loadb(c->buffer + from, c->at - from, 0, NULL);
		}
		memmove(c->buffer, c->buffer + c->at, c->size - c->at);
		c->size -= c->at;
		c->at = 0;
		if (c->size == LINE_BYTES)
			return NULL;
		n = recv(c->fd, c->buffer + c->size, LINE_BYTES - c->size, 0);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return NULL;
		c->size += (size_t)n;
	}
}

static void event_keep(struct monitor_client *c, json_t *line)
{
	const char *name = json_string_value(json_object_get(line, "event"));

	if (!name || strcmp(name, "MIGRATION") != 0)
		return;
	json_decref(c->moved);
	c->moved = json_incref(json_object_get(line, "data"));
}

/* What it said before it ended. */
static int last_words(struct monitor_client *c, int r)
{
	json_t *line;

	while ((line = line_take(c))) {
		event_keep(c, line);
		json_decref(line);
	}
	return r;
}

static int answer_take(struct monitor_client *c, json_t **result, struct why *why)
{
	for (;;) {
		json_t *line = line_take(c), *value;

		if (!line)
			return gone(why);
		value = json_object_get(line, "return");
		if (value) {
			*result = json_incref(value);
			json_decref(line);
			return 0;
		}
		value = json_object_get(json_object_get(line, "error"), "desc");
		if (json_is_string(value)) {
			why_set(why, EIO, "%s", json_string_value(value));
			json_decref(line);
			return -EIO;
		}
		event_keep(c, line);
		json_decref(line); /* the greeting, an event */
	}
}

int monitor_client_call(struct monitor_client *c, const char *command, json_t *arguments,
			json_t **result, struct why *why)
{
	json_t *request = json_pack("{s:s,s:o}", "execute", command, "arguments",
				    arguments ? arguments : json_object());
	char *text = request ? json_dumps(request, JSON_COMPACT) : NULL;
	int r;

	json_decref(request);
	if (!text)
		return why_set(why, EINVAL, "the command is not UTF-8");
	r = send_all(c, text, strlen(text), why);
	if (r == 0)
		r = send_all(c, "\n", 1, why);
	free(text);
	return r < 0 ? last_words(c, r) : answer_take(c, result, why);
}

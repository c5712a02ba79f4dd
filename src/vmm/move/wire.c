/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The stream of a migration. */
#include "vmm/move/wire.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "vmm/crc32c.h"

#define FRAME_MAGIC 0x4d564b41u /* "AKVM" */

struct frame_head {
	u32 magic, type, number, size;
	u32 data_crc, head_crc; /* the latter of all before it */
};

/* Name, and how large it may be: what comes is a stranger's, and room is made for it. */
static const struct frame_row {
	const char *name;
	size_t max;
} rows[FRAME_TYPES] = {
	[FRAME_HELLO] = { "hello", 8u << 20 },
	[FRAME_WELCOME] = { "welcome", 0 },
	[FRAME_REFUSE] = { "refuse", 400 },
	[FRAME_PAGES] = { "pages", WIRE_PAGES *(PAGE_SIZE + 8) },
	[FRAME_ZEROS] = { "zeros", 65536 },
	[FRAME_ROUND] = { "round", 0 },
	[FRAME_ROUND_DONE] = { "round-done", 0 },
	[FRAME_STATE] = { "state", 64u << 20 },
	[FRAME_END] = { "end", SHA256_BYTES },
	[FRAME_READY] = { "ready", 8 },
	[FRAME_COMMIT] = { "commit", 0 },
	[FRAME_RUNNING] = { "running", 0 },
};

void wire_init(struct wire *w, int fd)
{
	*w = (struct wire){ .fd = fd };
}

void wire_close(struct wire *w)
{
	if (w->fd >= 0)
		close(w->fd);
	free(w->data);
	*w = (struct wire){ .fd = -1 };
}

static int cut(int error, struct why *why)
{
	if (error == EAGAIN)
		return why_set(why, ETIMEDOUT, "the other side does not answer");
	if (error == 0 || error == EPIPE || error == ECONNRESET)
		return why_set(why, ECONNRESET, "the connection was cut");
	return why_set(why, error, "the connection failed: %s", strerror(error));
}

static int send_all(struct wire *w, const void *data, size_t n, int flags, struct why *why)
{
	const u8 *p = data;

	while (n) {
		const ssize_t done = send(w->fd, p, n, flags | MSG_NOSIGNAL);

		if (done < 0 && errno == EINTR)
			continue;
		if (done <= 0)
			return cut(errno, why);
		p += done;
		n -= (size_t)done;
		w->bytes += (u64)done;
	}
	return 0;
}

static int receive_all(struct wire *w, void *out, size_t n, struct why *why)
{
	u8 *p = out;

	while (n) {
		const ssize_t done = recv(w->fd, p, n, MSG_WAITALL);

		if (done < 0 && errno == EINTR)
			continue;
		if (done <= 0)
			return cut(done ? errno : 0, why);
		p += done;
		n -= (size_t)done;
	}
	return 0;
}

int wire_send(struct wire *w, enum frame_type type, const void *data, size_t n, struct why *why)
{
	struct frame_head h = { FRAME_MAGIC, type, w->sent++, (u32)n, crc32c(0, data, n), 0 };
	int r;

	h.head_crc = crc32c(0, &h, offsetof(struct frame_head, head_crc));
	r = send_all(w, &h, sizeof(h), n ? MSG_MORE : 0, why);
	return r < 0 ? r : send_all(w, data, n, 0, why);
}

static int refuse(const struct wire *w, const char *what, struct why *why)
{
	return why_set(why, EPROTO, "the stream is refused at frame %u: %s", w->received, what);
}

static int head_check(const struct wire *w, const struct frame_head *h, struct why *why)
{
	if (h->magic != FRAME_MAGIC)
		return refuse(w, "it is not one of anykvm", why);
	if (h->head_crc != crc32c(0, h, offsetof(struct frame_head, head_crc)))
		return refuse(w, "the head of the frame is damaged (checksum)", why);
	if (h->number != w->received)
		return refuse(w, "frames are missing or doubled", why);
	if (h->type >= FRAME_TYPES || !rows[h->type].name)
		return refuse(w, "a type of frame that this program does not know", why);
	if (h->size > rows[h->type].max)
		return refuse(w, "the frame is larger than one of its type can be", why);
	return 0;
}

static int room_make(struct wire *w, size_t n, struct why *why)
{
	u8 *grown = n > w->room ? realloc(w->data, n) : w->data;

	if (n > w->room && !grown)
		return why_set(why, ENOMEM, "no memory for a frame of %zu bytes", n);
	w->data = grown;
	if (n > w->room)
		w->room = n;
	return 0;
}

int wire_receive(struct wire *w, struct why *why)
{
	struct frame_head h;
	int r = receive_all(w, &h, sizeof(h), why);

	if (r == 0)
		r = head_check(w, &h, why);
	if (r == 0)
		r = room_make(w, h.size, why);
	if (r == 0)
		r = receive_all(w, w->data, h.size, why);
	if (r == 0 && crc32c(0, w->data, h.size) != h.data_crc)
		r = refuse(w, "the frame is damaged (checksum)", why);
	if (r < 0)
		return r;
	w->received++;
	w->type = (enum frame_type)h.type;
	w->size = h.size;
	if (w->type != FRAME_REFUSE)
		return 0;
	for (size_t i = 0; i < w->size; i++)
		if (w->data[i] < ' ' || w->data[i] > 126)
			w->data[i] = '?';
	return why_set(why, EREMOTEIO, "the other side refuses: %.*s", (int)w->size,
		       (const char *)w->data);
}

int wire_expect(struct wire *w, enum frame_type type, struct why *why)
{
	int r = wire_receive(w, why);

	if (r < 0 || w->type == type)
		return r;
	return why_set(why, EPROTO, "the stream is refused at frame %u: '%s' where '%s' belongs",
		       w->received - 1, rows[w->type].name, rows[type].name);
}

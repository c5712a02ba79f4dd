/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* A machine that comes from another process. What it says is a stranger's until all of it has been checked. */
#include "vmm/move/incoming.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/thread.h"
#include "vmm/move/digest.h"
#include "vmm/move/job.h"
#include "vmm/move/pages.h"
#include "vmm/move/uri.h"

int incoming_open(struct incoming *in, const char *uri, struct why *why)
{
	int r;

	memset(in, 0, sizeof(*in));
	in->wire.fd = -1;
	pthread_mutex_init(&in->lock, NULL);
	r = uri_accept(uri, why);
	if (r < 0)
		return r;
	wire_init(&in->wire, r);
	r = wire_expect(&in->wire, FRAME_HELLO, why);
	if (r == 0)
		r = description_read(&in->description, (const char *)in->wire.data, in->wire.size,
				     why);
	if (r < 0)
		incoming_refuse(in, why->text);
	return r;
}

void incoming_refuse(struct incoming *in, const char *reason)
{
	struct why why;

	if (in->wire.fd >= 0)
		wire_send(&in->wire, FRAME_REFUSE, reason, strnlen(reason, 399), &why);
}

void incoming_free(struct incoming *in)
{
	incoming_join(in);
	wire_close(&in->wire);
	description_free(&in->description);
	free(in->state);
	pthread_mutex_destroy(&in->lock);
}

static int refuse(const struct incoming *in, const char *what, struct why *why)
{
	return why_set(why, EPROTO, "the stream is refused at frame %u: %s", in->wire.received - 1,
		       what);
}

/* The pages of one frame. */
static int pages_take_in(struct incoming *in, const struct ram *ram, struct why *why)
{
	const u64 count = ram->size >> PAGE_SHIFT;
	const size_t n = in->wire.size / (8 + PAGE_SIZE);
	const u8 *data = in->wire.data + n * 8;

	if (!n || in->wire.size % (8 + PAGE_SIZE))
		return refuse(in, "no whole number of pages", why);
	for (size_t i = 0; i < n; i++) {
		u64 page;

		memcpy(&page, in->wire.data + i * 8, 8);
		if (page >= count)
			return refuse(in, "a page outside of memory", why);
		memcpy(ram->host + (page << PAGE_SHIFT), data + i * PAGE_SIZE, PAGE_SIZE);
	}
	in->pages += n;
	return 0;
}

/* Memory that nobody has touched is zeros already, and stays untouched in the first round. */
static int zeros_take_in(struct incoming *in, const struct ram *ram, struct why *why)
{
	const u64 count = ram->size >> PAGE_SHIFT;

	if (in->wire.size % 16)
		return refuse(in, "no whole number of ranges", why);
	for (size_t at = 0; at < in->wire.size; at += 16) {
		u64 range[2];

		memcpy(range, in->wire.data + at, sizeof(range));
		if (range[0] > count || range[1] > count - range[0])
			return refuse(in, "a range outside of memory", why);
		for (u64 page = range[0]; in->rounds && page < range[0] + range[1]; page++)
			if (!page_is_zero(ram->host + (page << PAGE_SHIFT)))
				memset(ram->host + (page << PAGE_SHIFT), 0, PAGE_SIZE);
	}
	return 0;
}

static int state_keep(struct incoming *in, struct why *why)
{
	if (in->state)
		return refuse(in, "a second state", why);
	in->state = malloc(in->wire.size + 1);
	if (!in->state)
		return why_set(why, ENOMEM, "no memory for the state");
	memcpy(in->state, in->wire.data, in->wire.size);
	in->state_size = in->wire.size;
	return 0;
}

/* 1: it was the end. */
static int frame_take_in(struct incoming *in, const struct ram *ram, struct why *why)
{
	switch (in->wire.type) {
	case FRAME_PAGES:
		return pages_take_in(in, ram, why);
	case FRAME_ZEROS:
		return zeros_take_in(in, ram, why);
	case FRAME_ROUND:
		in->rounds++;
		return wire_send(&in->wire, FRAME_ROUND_DONE, NULL, 0, why);
	case FRAME_STATE:
		return state_keep(in, why);
	case FRAME_END:
		return in->state ? 1 : refuse(in, "an end without a state", why);
	default:
		return refuse(in, "a frame that does not belong here", why);
	}
}

/* The last frame of the source's may hold the SHA-256 of its memory. */
static int digest_check(struct incoming *in, const struct ram *ram, struct why *why)
{
	const u64 start = move_now_us();
	u8 digest[SHA256_BYTES];
	int r;

	if (!in->wire.size)
		return 0;
	if (in->wire.size != SHA256_BYTES)
		return refuse(in, "a SHA-256 of another size", why);
	r = ram_digest(ram, digest, why);
	in->digest_us = move_now_us() - start + 1;
	if (r == 0 && memcmp(digest, in->wire.data, SHA256_BYTES) != 0)
		return refuse(in, "memory is not the same on both sides (SHA-256)", why);
	return r;
}

static int memory_take_in(struct incoming *in, struct why *why)
{
	const struct control_machine *m = control_hold(in->control);
	const struct ram *ram = m ? m->ram : NULL;
	int r;

	if (!m)
		return why_set(why, ECANCELED, "the machine ended");
	/* Its memory stays until incoming_join(). */
	control_release(in->control);
	do {
		r = wire_receive(&in->wire, why);
		if (r == 0)
			r = frame_take_in(in, ram, why);
	} while (r == 0);
	return r < 0 ? r : digest_check(in, ram, why);
}

static int state_put(struct incoming *in, struct why *why)
{
	int r;

	if (!control_hold(in->control))
		return why_set(why, ECANCELED, "the machine ended");
	r = control_restore(in->control, in->state, in->state_size, why);
	if (r == 0)
		r = devices_check_disks(in->control->machine.devices, why);
	control_release(in->control);
	return r;
}

static void status_set(struct incoming *in, enum incoming_status status, const char *error)
{
	pthread_mutex_lock(&in->lock);
	in->status = status;
	snprintf(in->error, sizeof(in->error), "%s", error);
	pthread_mutex_unlock(&in->lock);
	if (in->told)
		in->told(in->owner, "MIGRATION");
}

static int run_here(struct incoming *in, struct why *why)
{
	int r;

	if (!control_hold(in->control))
		return why_set(why, ECANCELED, "the machine ended");
	r = control_go(in->control, GATE_INCOMING, why);
	control_release(in->control);
	return r;
}

/* The commit exchange: the machine is whole here, and must not run before it is told to. */
static void commit_wait(struct incoming *in)
{
	char text[400];
	struct why why;
	int r = wire_send(&in->wire, FRAME_READY, &in->digest_us,
			  in->digest_us ? sizeof(in->digest_us) : 0, &why);

	if (r == 0)
		r = wire_expect(&in->wire, FRAME_COMMIT, &why);
	if (r < 0) {
		snprintf(text, sizeof(text),
			 "%.100s in the commit exchange: the machine stands here, and may run or "
			 "stand there; if it does, 'anykvm migrate --resolve discard NAME', if it "
			 "is "
			 "gone, '--resolve run'",
			 why.text);
		status_set(in, INCOMING_UNRESOLVED, text);
		return;
	}
	r = run_here(in, &why);
	if (r < 0) {
		incoming_refuse(in, why.text);
		status_set(in, INCOMING_UNRESOLVED, why.text);
		return;
	}
	status_set(in, INCOMING_RUNNING, "");
	wire_send(&in->wire, FRAME_RUNNING, NULL, 0, &why); /* it runs, heard or not */
}

static void *incoming_thread(void *argument)
{
	struct incoming *in = argument;
	struct why why;
	int r = wire_send(&in->wire, FRAME_WELCOME, NULL, 0, &why);

	if (r == 0)
		r = memory_take_in(in, &why);
	if (r == 0)
		r = state_put(in, &why);
	if (r == 0) {
		commit_wait(in);
	} else {
		incoming_refuse(in, why.text);
		status_set(in, INCOMING_FAILED, why.text);
		in->control->ops.fail(in->control->ops.owner, STATUS_INCOMING, why.text);
	}
	return NULL;
}

int incoming_start(struct incoming *in, struct control *control, struct why *why)
{
	int r;

	in->control = control;
	r = thread_start(&in->thread, incoming_thread, in);
	in->has_thread = r == 0;
	return r ? why_set(why, r, "cannot start a thread: %s", strerror(r)) : 0;
}

void incoming_join(struct incoming *in)
{
	if (!in->has_thread)
		return;
	if (incoming_status(in) == INCOMING_ACTIVE)
		shutdown(in->wire.fd, SHUT_RDWR);
	pthread_join(in->thread, NULL);
	in->has_thread = false;
}

enum incoming_status incoming_status(struct incoming *in)
{
	enum incoming_status status;

	pthread_mutex_lock(&in->lock);
	status = in->status;
	pthread_mutex_unlock(&in->lock);
	return status;
}

enum incoming_status incoming_why(struct incoming *in, char error[400])
{
	enum incoming_status status;

	pthread_mutex_lock(&in->lock);
	status = in->status;
	memcpy(error, in->error, sizeof(in->error));
	pthread_mutex_unlock(&in->lock);
	return status;
}

int incoming_resolve(struct incoming *in, bool runs_here, struct why *why)
{
	if (incoming_status(in) != INCOMING_UNRESOLVED)
		return why_set(why, EINVAL, "there is nothing to resolve");
	if (runs_here) {
		int r = run_here(in, why);

		if (r < 0)
			return r;
		status_set(in, INCOMING_RUNNING, "");
	} else {
		status_set(in, INCOMING_FAILED, "discarded");
		in->control->ops.end(in->control->ops.owner, VM_MOVED);
	}
	return 0;
}

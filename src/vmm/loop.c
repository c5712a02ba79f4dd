/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The device thread: one poll loop over what all devices wait for on the host. */
#include "vmm/loop.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/thread.h"

#define RETRY_MS 10

int loop_init(struct loop *loop)
{
	memset(loop, 0, sizeof(*loop));
	loop->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	return loop->wake_fd < 0 ? -errno : 0;
}

void loop_destroy(struct loop *loop)
{
	if (loop->wake_fd >= 0)
		close(loop->wake_fd);
	loop->wake_fd = -1;
	free(loop->fds);
	loop->fds = NULL;
}

int loop_add(struct loop *loop, struct loop_source source)
{
	if (loop->source_count == LOOP_SOURCES)
		return -ENOSPC;
	loop->sources[loop->source_count++] = source;
	return 0;
}

int loop_watch(struct loop *loop, int fd, short events)
{
	if (loop->fd_count == loop->fd_room) {
		const unsigned room = loop->fd_room ? loop->fd_room * 2 : 32;
		struct pollfd *grown = realloc(loop->fds, room * sizeof(*grown));

		if (!grown) {
			loop->failed = true;
			return -1;
		}
		loop->fds = grown;
		loop->fd_room = room;
	}
	loop->fds[loop->fd_count] = (struct pollfd){ .fd = fd, .events = events };
	return (int)loop->fd_count++;
}

void loop_timeout(struct loop *loop, int ms)
{
	if (ms >= 0 && (loop->timeout_ms < 0 || ms < loop->timeout_ms))
		loop->timeout_ms = ms;
}

short loop_revents(const struct loop *loop, int place)
{
	return place >= 0 && (unsigned)place < loop->fd_count ? loop->fds[place].revents : 0;
}

short loop_came(const struct loop *loop, int fd)
{
	short events = 0;

	for (unsigned i = 0; i < loop->fd_count; i++)
		if (loop->fds[i].fd == fd)
			events |= loop->fds[i].revents;
	return events;
}

static void round_run(struct loop *loop)
{
	u64 count;

	loop->fd_count = 0;
	loop->timeout_ms = -1;
	loop->failed = false;
	loop_watch(loop, loop->wake_fd, POLLIN);
	for (unsigned i = 0; i < loop->source_count; i++)
		loop->sources[i].prepare(loop->sources[i].owner, loop);
	if (loop->failed)
		loop_timeout(loop, RETRY_MS);
	if (poll(loop->fds, loop->fd_count, loop->timeout_ms) < 0)
		for (unsigned i = 0; i < loop->fd_count; i++)
			loop->fds[i].revents = 0;
	if (loop_came(loop, loop->wake_fd) && read(loop->wake_fd, &count, sizeof(count)) < 0)
		return;
	for (unsigned i = 0; i < loop->source_count; i++)
		loop->sources[i].dispatch(loop->sources[i].owner, loop);
}

static void *loop_thread(void *argument)
{
	struct loop *loop = argument;

	while (!atomic_load(&loop->stopped))
		round_run(loop);
	return NULL;
}

int loop_start(struct loop *loop)
{
	int r;

	atomic_store(&loop->stopped, false);
	r = thread_start(&loop->thread, loop_thread, loop);
	loop->started = r == 0;
	return -r;
}

void loop_stop(struct loop *loop)
{
	const u64 one = 1;

	if (!loop->started)
		return;
	atomic_store(&loop->stopped, true);
	while (write(loop->wake_fd, &one, sizeof(one)) < 0 && errno == EINTR)
		;
	pthread_join(loop->thread, NULL);
	loop->started = false;
}

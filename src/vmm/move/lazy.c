/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Memory of a snapshot that is read when it is used: the thread that serves it. */
#include "vmm/move/lazy.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/thread.h"

#ifndef UFFD_USER_MODE_ONLY
#define UFFD_USER_MODE_ONLY 1
#endif

#define CHUNK_PAGES 16u
#define CHUNK_BYTES (CHUNK_PAGES * PAGE_SIZE)
#define FIRST_MS    20	/* time for the machine to begin */
#define QUIET_MS    4	/* nobody wants anything: time to read ahead */
#define AHEAD	    32u /* chunks between two looks whether somebody does */

static bool bit_get(const _Atomic u64 *bits, u64 i)
{
	return atomic_load(&bits[i / 64]) >> i % 64 & 1;
}

static u64 chunk_bytes(const struct lazy *l, u64 chunk)
{
	const u64 at = chunk * CHUNK_BYTES;

	return l->ram->size - at < CHUNK_BYTES ? l->ram->size - at : CHUNK_BYTES;
}

static struct uffdio_range chunk_range(const struct lazy *l, u64 chunk)
{
	return (struct uffdio_range){ (uintptr_t)l->ram->host + chunk * CHUNK_BYTES,
				      chunk_bytes(l, chunk) };
}

static void chunk_wake(const struct lazy *l, u64 chunk)
{
	struct uffdio_range range = chunk_range(l, chunk);

	ioctl(l->fault_fd, UFFDIO_WAKE, &range);
}

/* A chunk from the file, checked. *@is_zero: it is one hole. */
static int chunk_read(struct lazy *l, u64 chunk, bool *is_zero, struct why *why)
{
	const u64 first = chunk * CHUNK_PAGES, count = chunk_bytes(l, chunk) >> PAGE_SHIFT;
	int r = 0;

	*is_zero = true;
	for (u64 page = 0, n; page < count && r == 0; page += n) {
		u8 *to = l->buffer + (page << PAGE_SHIFT);
		struct snapshot *file;
		bool is_hole;

		n = snapshot_run(l->snapshot, first + page, count - page, &file, &is_hole);
		r = snapshot_read(file, first + page, n, is_hole, to, why);
		if (is_hole)
			memset(to, 0, n << PAGE_SHIFT);
		*is_zero &= is_hole;
	}
	return r;
}

/* Make it appear. The calls may be broken off while the address space changes. */
static int chunk_place(const struct lazy *l, u64 chunk, bool is_zero, struct why *why)
{
	const struct uffdio_range range = chunk_range(l, chunk);
	u64 done = 0;

	while (done < range.len) {
		struct uffdio_zeropage zero = { .range = { range.start + done, range.len - done } };
		struct uffdio_copy copy = { .dst = range.start + done,
					    .src = (uintptr_t)l->buffer + done,
					    .len = range.len - done };
		const int r = is_zero ? ioctl(l->fault_fd, UFFDIO_ZEROPAGE, &zero)
				      : ioctl(l->fault_fd, UFFDIO_COPY, &copy);
		const s64 moved = is_zero ? zero.zeropage : copy.copy;

		if (r < 0 && errno != EAGAIN)
			return why_set(why, errno, "cannot fill memory from the snapshot: %s",
				       strerror(errno));
		if (moved > 0)
			done += (u64)moved;
	}
	return 0;
}

static void waiters_wake(struct lazy *l)
{
	pthread_mutex_lock(&l->lock);
	pthread_cond_broadcast(&l->changed);
	pthread_mutex_unlock(&l->lock);
}

/*
 * The machine ends. Who waits in a fault must come out of it, and no processor must see wrong memory: the chunk is made
 * inaccessible, and the engine takes the fault that follows as one of host memory. Before a processor has run, it is the board that
 * waits, which puts the state into the machine; it may see zeros, because nothing runs any more.
 */
static void chunk_lost(struct lazy *l, u64 chunk, const char *text)
{
	const struct uffdio_range range = chunk_range(l, chunk);
	struct why why;

	l->bad[chunk / 64] |= BIT_ULL(chunk % 64);
	if (!atomic_exchange(&l->is_lost, true))
		l->damaged(l->owner, text); /* from here on no processor begins to run */
	if (atomic_load(&l->is_running))
		mprotect(l->ram->host + chunk * CHUNK_BYTES, range.len, PROT_NONE);
	else
		chunk_place(l, chunk, true, &why);
	chunk_wake(l, chunk);
	waiters_wake(l);
}

/* @is_wanted: by somebody who waits; a hole that nobody wants stays missing. */
static void chunk_fill(struct lazy *l, u64 chunk, bool is_wanted)
{
	bool is_zero;
	struct why why;
	int r;

	if (bit_get(l->done, chunk) || l->bad[chunk / 64] >> chunk % 64 & 1) {
		chunk_wake(l, chunk);
		return;
	}
	r = chunk_read(l, chunk, &is_zero, &why);
	if (r == 0 && is_zero && !is_wanted)
		return;
	if (r == 0)
		r = chunk_place(l, chunk, is_zero, &why);
	if (r < 0) {
		chunk_lost(l, chunk, why.text);
		return;
	}
	atomic_fetch_or(&l->done[chunk / 64], BIT_ULL(chunk % 64));
	if (is_wanted)
		waiters_wake(l);
}

static void faults_serve(struct lazy *l)
{
	struct uffd_msg messages[16];
	ssize_t n;

	while ((n = read(l->fault_fd, messages, sizeof(messages))) > 0)
		for (size_t i = 0; i < (size_t)n / sizeof(*messages); i++)
			if (messages[i].event == UFFD_EVENT_PAGEFAULT)
				chunk_fill(l,
					   (messages[i].arg.pagefault.address -
					    (uintptr_t)l->ram->host) /
						   CHUNK_BYTES,
					   true);
}

static void wanted_serve(struct lazy *l)
{
	u64 count;

	if (read(l->wake_fd, &count, sizeof(count)) < 0)
		return;
	for (u64 word = 0; word <= l->chunks / 64; word++) {
		u64 bits = atomic_exchange(&l->wanted[word], 0);

		for (; bits; bits &= bits - 1)
			chunk_fill(l, word * 64 + (u64)__builtin_ctzll(bits), true);
	}
}

static void ahead_read(struct lazy *l)
{
	for (unsigned i = 0; i < AHEAD && l->next < l->chunks; i++, l->next++)
		if (!bit_get(l->done, l->next))
			chunk_fill(l, l->next, false);
}

/* All that is no hole is there, and the holes are what missing memory becomes by itself. */
static void all_done(struct lazy *l)
{
	struct uffdio_range range = { (uintptr_t)l->ram->host, l->ram->size };

	if (atomic_load(&l->is_lost))
		return;
	for (u64 word = 0; word <= l->chunks / 64; word++)
		atomic_store(&l->done[word], ~0ull);
	ioctl(l->fault_fd, UFFDIO_UNREGISTER, &range);
	waiters_wake(l);
}

static void *lazy_thread(void *argument)
{
	struct lazy *l = argument;
	struct pollfd fds[] = { { l->fault_fd, POLLIN, 0 }, { l->wake_fd, POLLIN, 0 } };
	int timeout = FIRST_MS;

	while (!atomic_load(&l->cancelled)) {
		const bool is_ahead = l->next < l->chunks;

		if (poll(fds, 2, is_ahead ? timeout : -1) > 0) {
			faults_serve(l);
			wanted_serve(l);
			timeout = QUIET_MS;
		} else if (is_ahead) {
			ahead_read(l);
			timeout = 0;
			if (l->next == l->chunks)
				all_done(l);
		}
	}
	return NULL;
}

static bool lazy_need(struct ram_source *source, u64 at, u64 len)
{
	struct lazy *l = container_of(source, struct lazy, source);
	const u64 one = 1;

	for (u64 chunk = at / CHUNK_BYTES; chunk <= (at + len - 1) / CHUNK_BYTES; chunk++) {
		if (bit_get(l->done, chunk))
			continue;
		pthread_mutex_lock(&l->lock);
		atomic_fetch_or(&l->wanted[chunk / 64], BIT_ULL(chunk % 64));
		/* It cannot fail; if it does, nobody comes. */
		if (write(l->wake_fd, &one, sizeof(one)) < 0)
			atomic_store(&l->is_lost, true);
		while (!bit_get(l->done, chunk) && !atomic_load(&l->is_lost))
			pthread_cond_wait(&l->changed, &l->lock);
		pthread_mutex_unlock(&l->lock);
	}
	return !atomic_load(&l->is_lost);
}

static const struct ram_source_ops ops = { lazy_need };

/* Faults of the host's kernel need a privilege that those of a process do not. */
static int faults_open(bool by_kernel)
{
	int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY);

	if (by_kernel || (fd < 0 && errno == EINVAL)) {
		if (fd >= 0)
			close(fd);
		fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	}
	return fd;
}

static int faults_begin(struct lazy *l, bool by_kernel, struct why *why)
{
	struct uffdio_api api = { .api = UFFD_API };
	struct uffdio_register reg = { .range = { (uintptr_t)l->ram->host, l->ram->size },
				       .mode = UFFDIO_REGISTER_MODE_MISSING };

	l->fault_fd = faults_open(by_kernel);
	if (l->fault_fd >= 0 && ioctl(l->fault_fd, UFFDIO_API, &api) == 0 &&
	    ioctl(l->fault_fd, UFFDIO_REGISTER, &reg) == 0)
		return 0;
	return why_set(why, ENOSYS, "no lazy restore here (userfaultfd: %s)", strerror(errno));
}

static int room_get(struct lazy *l, struct why *why)
{
	const u64 words = l->chunks / 64 + 1;

	l->done = calloc(words, sizeof(u64));
	l->wanted = calloc(words, sizeof(u64));
	l->bad = calloc(words, sizeof(u64));
	l->buffer = aligned_alloc(PAGE_SIZE, CHUNK_BYTES);
	l->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	return l->done && l->wanted && l->bad && l->buffer && l->wake_fd >= 0
		       ? 0
		       : why_set(why, ENOMEM, "no memory for a lazy restore");
}

static int server_start(struct lazy *l, struct why *why)
{
	int r;

	r = thread_start(&l->thread, lazy_thread, l);
	l->has_thread = r == 0;
	return r ? why_set(why, r, "cannot start a thread: %s", strerror(r)) : 0;
}

int lazy_begin(struct lazy *l, struct snapshot *snapshot, struct ram *ram, bool by_kernel,
	       void (*damaged)(void *owner, const char *text), void *owner, struct why *why)
{
	int r;

	*l = (struct lazy){ .source = { &ops },
			    .snapshot = snapshot,
			    .ram = ram,
			    .damaged = damaged,
			    .owner = owner,
			    .fault_fd = -1,
			    .wake_fd = -1,
			    .chunks = (ram->size + CHUNK_BYTES - 1) / CHUNK_BYTES };
	pthread_mutex_init(&l->lock, NULL);
	pthread_cond_init(&l->changed, NULL);
	r = room_get(l, why);
	if (r == 0)
		r = faults_begin(l, by_kernel, why);
	if (r == 0)
		r = server_start(l, why);
	if (r < 0)
		lazy_end(l);
	else
		ram->source = &l->source;
	return r;
}

void lazy_runs(struct lazy *l)
{
	atomic_store(&l->is_running, true);
}

void lazy_end(struct lazy *l)
{
	const u64 one = 1;

	if (!l->snapshot)
		return;
	atomic_store(&l->cancelled, true);
	if (l->has_thread && write(l->wake_fd, &one, sizeof(one)) == sizeof(one))
		pthread_join(l->thread, NULL);
	if (l->fault_fd >= 0)
		close(l->fault_fd);
	if (l->wake_fd >= 0)
		close(l->wake_fd);
	free((void *)l->done);
	free((void *)l->wanted);
	free(l->bad);
	free(l->buffer);
	pthread_cond_destroy(&l->changed);
	pthread_mutex_destroy(&l->lock);
	memset(l, 0, sizeof(*l));
}

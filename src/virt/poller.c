/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The thread that waits for descriptors: epoll, and a table that outlives the events under way. */
#define _GNU_SOURCE
#include "virt/poller.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/thread.h"
#include "engine/engine.h"

#define EVENTS	  16
#define TABLE_MIN 16
#define WAKE_ID	  (~0ull)

/*
 * epoll hands out events of a watch that has been removed meanwhile, so an event names no pointer but
 * an index and the generation of that entry, and both are compared under the lock.
 */
struct entry {
	struct poll_watch *watch; /* NULL: free */
	u32 generation;
};

struct poller {
	pthread_mutex_t lock;
	int epoll, wake;
	struct entry *table;
	u32 size;
	bool started, stop;
	pthread_t thread;
};

static u64 event_id(const struct poller *p, u32 index)
{
	return (u64)p->table[index].generation << 32 | index;
}

static void event_serve(struct poller *p, u64 id)
{
	u32 index = (u32)id;
	struct poll_watch *w;

	if (id == WAKE_ID)
		return;
	pthread_mutex_lock(&p->lock);
	w = event_id(p, index) == id ? p->table[index].watch : NULL;
	if (w)
		w->ready(w);
	pthread_mutex_unlock(&p->lock);
}

static void *poller_thread(void *arg)
{
	struct epoll_event events[EVENTS];
	struct poller *p = arg;

	engine_thread_prepare(); /* guest memory that is written by who is told may be gone */
	while (!__atomic_load_n(&p->stop, __ATOMIC_ACQUIRE)) {
		int n = epoll_wait(p->epoll, events, EVENTS, -1);

		for (int i = 0; i < n; i++)
			event_serve(p, events[i].data.u64);
	}
	return NULL;
}

/* No signal of the program may land in the helper thread. Under the lock. */
static int poller_start(struct poller *p)
{
	struct epoll_event e = { .events = EPOLLIN, .data.u64 = WAKE_ID };
	int err;

	if (epoll_ctl(p->epoll, EPOLL_CTL_ADD, p->wake, &e))
		return -errno;
	err = thread_start(&p->thread, poller_thread, p);
	if (err) {
		epoll_ctl(p->epoll, EPOLL_CTL_DEL, p->wake, NULL);
		return -err;
	}
	pthread_setname_np(p->thread, "anykvm-irqfd");
	p->started = true;
	return 0;
}

/* The descriptors are opened by the first watch: a VM without any has none of them. */
static int poller_open(struct poller *p)
{
	int r;

	if (p->started)
		return 0;
	p->epoll = epoll_create1(EPOLL_CLOEXEC);
	if (p->epoll < 0)
		return -errno;
	p->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	r = p->wake < 0 ? -errno : poller_start(p);
	if (!r)
		return 0;
	if (p->wake >= 0)
		close(p->wake);
	close(p->epoll);
	return r;
}

struct poller *poller_create(void)
{
	struct poller *p = calloc(1, sizeof(*p));

	if (p)
		pthread_mutex_init(&p->lock, NULL);
	return p;
}

void poller_destroy(struct poller *p)
{
	u64 one = 1;

	if (!p)
		return;
	if (p->started) {
		__atomic_store_n(&p->stop, true, __ATOMIC_RELEASE);
		while (write(p->wake, &one, sizeof(one)) < 0 && errno == EINTR)
			;
		pthread_join(p->thread, NULL);
		close(p->wake);
		close(p->epoll);
	}
	pthread_mutex_destroy(&p->lock);
	free(p->table);
	free(p);
}

/* A free entry: its index, or -ENOMEM. */
static s64 table_take(struct poller *p)
{
	u32 size = p->size ? p->size * 2 : TABLE_MIN, index;
	struct entry *table;

	for (index = 0; index < p->size; index++)
		if (!p->table[index].watch)
			return index;
	table = realloc(p->table, size * sizeof(*table));
	if (!table)
		return -ENOMEM;
	for (u32 i = p->size; i < size; i++)
		table[i] = (struct entry){ 0 };
	p->table = table;
	p->size = size;
	return index;
}

static int watch_start(struct poller *p, struct poll_watch *w)
{
	struct epoll_event e = { .events = EPOLLIN };
	int r = poller_open(p);
	s64 index;

	if (r)
		return r;
	index = table_take(p);
	if (index < 0)
		return index;
	w->index = index;
	p->table[index].watch = w;
	e.data.u64 = event_id(p, index);
	if (!epoll_ctl(p->epoll, EPOLL_CTL_ADD, w->fd, &e))
		return 0;
	r = -errno;
	p->table[index].watch = NULL;
	return r;
}

int poller_add(struct poller *p, struct poll_watch *w, int fd, void (*ready)(struct poll_watch *w))
{
	int r;

	*w = (struct poll_watch){ .owner = p, .ready = ready, .fd = fd };
	pthread_mutex_lock(&p->lock);
	r = watch_start(p, w);
	pthread_mutex_unlock(&p->lock);
	if (r)
		w->owner = NULL;
	return r;
}

void poller_remove(struct poll_watch *w)
{
	struct poller *p = w->owner;

	if (!p)
		return;
	pthread_mutex_lock(&p->lock);
	epoll_ctl(p->epoll, EPOLL_CTL_DEL, w->fd, NULL);
	p->table[w->index].watch = NULL;
	p->table[w->index].generation++;
	pthread_mutex_unlock(&p->lock);
	w->owner = NULL;
}

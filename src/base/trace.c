/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The ring and the counters between a traced process and 'anykvm trace'. */
#define _GNU_SOURCE
#include "base/trace.h"

#include <errno.h>
#include <linux/futex.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define SPINS	     200
#define WAIT_STEP_MS 50
#define WAIT_STEPS   100 /* then the reader is taken for dead */

static void futex_wait(u32 *word, u32 value, unsigned ms)
{
	const struct timespec t = { ms / 1000, ms % 1000 * 1000000l };

	syscall(SYS_futex, word, FUTEX_WAIT, value, &t, NULL, 0);
}

static void futex_wake(u32 *word)
{
	syscall(SYS_futex, word, FUTEX_WAKE, 1 << 30, NULL, NULL, 0);
}

/* False: this very thread has it (a handler that runs in the middle of a line). */
static bool lock(struct trace_area *a, u32 tid)
{
	for (unsigned n = 0;; n++) {
		u32 owner = 0;

		if (__atomic_compare_exchange_n(&a->lock, &owner, tid, false, __ATOMIC_ACQUIRE,
						__ATOMIC_RELAXED))
			return true;
		if (owner == tid)
			return false;
		if (n >= SPINS)
			futex_wait(&a->lock, owner, 1);
	}
}

static void unlock(struct trace_area *a, u32 tid)
{
	/* Not when the reader took it away from a thread that it believed dead. */
	__atomic_compare_exchange_n(&a->lock, &tid, 0, false, __ATOMIC_RELEASE, __ATOMIC_RELAXED);
}

static bool has_room(struct trace_area *a, size_t len)
{
	return a->head + len - __atomic_load_n(&a->tail, __ATOMIC_ACQUIRE) <= TRACE_ROOM;
}

static void reader_wake(struct trace_area *a)
{
	if (__atomic_load_n(&a->reader_sleeps, __ATOMIC_SEQ_CST) &&
	    __atomic_exchange_n(&a->reader_sleeps, 0, __ATOMIC_SEQ_CST))
		futex_wake(&a->reader_sleeps);
}

static bool room_wait(struct trace_area *a, size_t len)
{
	for (unsigned n = 0; !has_room(a, len); n++) {
		if (n >= WAIT_STEPS)
			__atomic_store_n(&a->closed, 1, __ATOMIC_RELAXED);
		if (__atomic_load_n(&a->closed, __ATOMIC_RELAXED))
			return false;
		reader_wake(a);
		futex_wait((u32 *)&a->tail, (u32)a->tail, WAIT_STEP_MS);
	}
	return true;
}

void trace_write(struct trace_area *a, u32 tid, const char *line, size_t len)
{
	size_t at, first;

	if (len > TRACE_LINE || __atomic_load_n(&a->closed, __ATOMIC_RELAXED) || !lock(a, tid))
		return;
	if (!room_wait(a, len)) {
		a->lost++;
		unlock(a, tid);
		return;
	}
	at = a->head % TRACE_ROOM;
	first = len < TRACE_ROOM - at ? len : TRACE_ROOM - at;
	memcpy(a->text + at, line, first);
	memcpy(a->text, line + first, len - first);
	__atomic_store_n(&a->head, a->head + len, __ATOMIC_SEQ_CST);
	unlock(a, tid);
	reader_wake(a);
}

/* A lock whose owner is dead would stop all others. */
static void lock_inspect(struct trace_area *a)
{
	u32 owner = __atomic_load_n(&a->lock, __ATOMIC_RELAXED);

	if (owner && kill((pid_t)owner, 0) < 0 && errno == ESRCH)
		__atomic_compare_exchange_n(&a->lock, &owner, 0, false, __ATOMIC_RELAXED,
					    __ATOMIC_RELAXED);
}

size_t trace_read(struct trace_area *a, char *buf, size_t room, unsigned ms)
{
	u64 head = __atomic_load_n(&a->head, __ATOMIC_ACQUIRE);
	size_t n = head - a->tail, at = a->tail % TRACE_ROOM;

	if (!n && ms) {
		__atomic_store_n(&a->reader_sleeps, 1, __ATOMIC_SEQ_CST);
		if (__atomic_load_n(&a->head, __ATOMIC_SEQ_CST) == a->tail)
			futex_wait(&a->reader_sleeps, 1, ms);
		__atomic_store_n(&a->reader_sleeps, 0, __ATOMIC_SEQ_CST);
		lock_inspect(a);
		return trace_read(a, buf, room, 0);
	}
	if (n > room)
		n = room;
	if (n > TRACE_ROOM - at)
		n = TRACE_ROOM - at;
	memcpy(buf, a->text + at, n);
	if (n) {
		__atomic_store_n(&a->tail, a->tail + n, __ATOMIC_RELEASE);
		futex_wake((u32 *)&a->tail);
	}
	return n;
}

struct trace_counter *trace_counter(struct trace_counter *rows, unsigned count, u32 key)
{
	for (unsigned i = 0, at = key * 2654435761u % count; i < count;
	     i++, at = (at + 1) % count) {
		u32 there = __atomic_load_n(&rows[at].key, __ATOMIC_RELAXED);

		if (there == key)
			return &rows[at];
		if (!there && (__atomic_compare_exchange_n(&rows[at].key, &there, key, false,
							   __ATOMIC_RELAXED, __ATOMIC_RELAXED) ||
			       there == key))
			return &rows[at];
	}
	return NULL;
}

void trace_count(struct trace_counter *c, bool is_error)
{
	__atomic_fetch_add(&c->calls, 1, __ATOMIC_RELAXED);
	if (is_error)
		__atomic_fetch_add(&c->errors, 1, __ATOMIC_RELAXED);
}

void trace_count_time(struct trace_counter *c, u64 ns)
{
	u64 max = __atomic_load_n(&c->ns_max, __ATOMIC_RELAXED);

	__atomic_fetch_add(&c->ns, ns, __ATOMIC_RELAXED);
	while (ns > max && !__atomic_compare_exchange_n(&c->ns_max, &max, ns, false,
							__ATOMIC_RELAXED, __ATOMIC_RELAXED))
		;
}

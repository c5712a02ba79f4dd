/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The gate that processors pass before they run guest code. */
#include "vmm/gate.h"

#include <errno.h>
#include <time.h>

void gate_init(struct gate *g)
{
	pthread_condattr_t monotonic;

	pthread_mutex_init(&g->lock, NULL);
	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_cond_init(&g->changed, &monotonic);
	pthread_condattr_destroy(&monotonic);
}

void gate_destroy(struct gate *g)
{
	pthread_cond_destroy(&g->changed);
	pthread_mutex_destroy(&g->lock);
}

static struct timespec after_us(u64 us)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	t.tv_sec += (time_t)(us / 1000000);
	t.tv_nsec += (long)(us % 1000000) * 1000;
	if (t.tv_nsec >= 1000000000l) {
		t.tv_sec++;
		t.tv_nsec -= 1000000000l;
	}
	return t;
}

static bool is_shut(struct gate *g, unsigned index)
{
	return (atomic_load(&g->closed) || atomic_load(&g->held) >> index & 1) &&
	       !atomic_load(&g->ended);
}

static void enter_locked(struct gate *g, unsigned index)
{
	while (is_shut(g, index))
		pthread_cond_wait(&g->changed, &g->lock);
	g->inside++;
}

static void leave_locked(struct gate *g)
{
	if (--g->inside == 0)
		pthread_cond_broadcast(&g->changed);
}

void gate_enter(struct gate *g, unsigned index)
{
	pthread_mutex_lock(&g->lock);
	enter_locked(g, index);
	pthread_mutex_unlock(&g->lock);
}

void gate_leave(struct gate *g)
{
	pthread_mutex_lock(&g->lock);
	leave_locked(g);
	pthread_mutex_unlock(&g->lock);
}

void gate_pass(struct gate *g, unsigned index)
{
	const struct timespec until = after_us(atomic_exchange(&g->naps[index], 0));
	int r = 0;

	pthread_mutex_lock(&g->lock);
	leave_locked(g);
	while (r != ETIMEDOUT && !atomic_load(&g->closed) && !atomic_load(&g->ended))
		r = pthread_cond_timedwait(&g->changed, &g->lock, &until);
	enter_locked(g, index);
	pthread_mutex_unlock(&g->lock);
}

static void broadcast(struct gate *g)
{
	pthread_mutex_lock(&g->lock);
	pthread_cond_broadcast(&g->changed);
	pthread_mutex_unlock(&g->lock);
}

void gate_close(struct gate *g, enum gate_reason reason)
{
	atomic_fetch_or(&g->closed, reason);
}

void gate_open(struct gate *g, enum gate_reason reason)
{
	if (atomic_fetch_and(&g->closed, ~(unsigned)reason) == (unsigned)reason)
		broadcast(g);
}

bool gate_wait_empty(struct gate *g, unsigned ms)
{
	const struct timespec until = after_us((u64)ms * 1000);
	bool is_empty;
	int r = 0;

	pthread_mutex_lock(&g->lock);
	while (g->inside && r != ETIMEDOUT)
		r = pthread_cond_timedwait(&g->changed, &g->lock, &until);
	is_empty = !g->inside;
	pthread_mutex_unlock(&g->lock);
	return is_empty;
}

void gate_hold(struct gate *g, u64 held)
{
	atomic_store(&g->held, held);
	broadcast(g);
}

void gate_nap(struct gate *g, unsigned index, unsigned us)
{
	atomic_store(&g->naps[index], us);
}

void gate_end(struct gate *g, bool ended)
{
	atomic_store(&g->ended, ended);
	if (ended)
		broadcast(g);
}

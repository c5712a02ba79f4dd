/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* KVM_IRQFD: eventfds whose signals are interrupts. */
#include "kvm/irqfds.h"

#include <errno.h>
#include <sched.h>
#include <stdlib.h>

#include "kvm/eventfd.h"
#include "kvm/file.h"
#include "kvm/kvm.h"

/*
 * KVM hooks into the wait queue of an eventfd. Here there are two ways:
 *
 *	writer outside (vhost, another process, io_uring)     the poller's thread wakes, drains, injects
 *	writer in this process, seen by the preload library   kvm_eventfd_written() injects, nothing is written
 *
 * The second finds the irqfd by descriptor number, without a lock; an irqfd is therefore reused and never given
 * back to libc, and a reader that lost a race finds out by looking at the number again.
 *
 * A level that a resampling irqfd raised belongs to the GSI, as in KVM: an EOI lowers it once for all of them and
 * then tells every owner, who raises it again if need be. A signal between the two is a new rise, so none is lost.
 *
 * DIFFERS: an irqfd whose last descriptor was closed in the program stays assigned until the VM is closed; KVM, which is told of it,
 * deassigns it. Nobody can signal it any more.
 */
struct irqfd {
	struct irqfd *next; /* of the VM, or of the unused */
	struct vm *vm;
	u32 gsi;
	bool resample;
	u32 generation; /* a child of fork() must not inject into its copy of the VM */
	u32 users;	/* 1 for the assignment, and writers under way; 0: unused. Atomic */
	struct eventfd event, told;
	struct poll_watch watch;
};

#define CHUNK_BITS 10
#define CHUNK_SIZE (1 << CHUNK_BITS)
#define CHUNKS	   1024

static pthread_mutex_t table_lock =
	PTHREAD_MUTEX_INITIALIZER; /* the table and the unused; a leaf */
static struct irqfd **chunks[CHUNKS];
static struct irqfd *unused;

static struct irqfd **number_slot(int number)
{
	struct irqfd **c;

	if (number < 0 || number >= CHUNKS * CHUNK_SIZE)
		return NULL;
	c = __atomic_load_n(&chunks[number >> CHUNK_BITS], __ATOMIC_ACQUIRE);
	return c ? &c[number & (CHUNK_SIZE - 1)] : NULL;
}

/* From now on writes to the number find @f. Without memory they go the long way. */
static void number_publish(struct irqfd *f)
{
	int number = f->event.number;
	struct irqfd **slot, **c;

	pthread_mutex_lock(&table_lock);
	if (number < CHUNKS * CHUNK_SIZE && !chunks[number >> CHUNK_BITS]) {
		c = calloc(CHUNK_SIZE, sizeof(struct irqfd *));
		__atomic_store_n(&chunks[number >> CHUNK_BITS], c, __ATOMIC_RELEASE);
	}
	slot = number_slot(number);
	if (slot && !*slot)
		__atomic_store_n(slot, f, __ATOMIC_SEQ_CST);
	pthread_mutex_unlock(&table_lock);
}

static void number_forget(const struct irqfd *f)
{
	struct irqfd **slot;

	pthread_mutex_lock(&table_lock);
	slot = number_slot(f->event.number);
	if (slot && *slot == f)
		__atomic_store_n(slot, NULL, __ATOMIC_SEQ_CST);
	pthread_mutex_unlock(&table_lock);
}

bool kvm_eventfd_is_known(int number)
{
	struct irqfd **slot = number_slot(number);

	return slot && __atomic_load_n(slot, __ATOMIC_RELAXED);
}

void kvm_eventfd_closed(unsigned first, unsigned last)
{
	struct irqfd **slot;

	if (last >= CHUNKS * CHUNK_SIZE)
		last = CHUNKS * CHUNK_SIZE - 1;
	for (u64 n = first; n <= last; n++) {
		slot = number_slot(n);
		if (!slot)
			n |= CHUNK_SIZE - 1;
		else if (__atomic_load_n(slot, __ATOMIC_RELAXED))
			__atomic_store_n(slot, NULL, __ATOMIC_SEQ_CST);
	}
}

static struct irqfd *irqfd_new(void)
{
	struct irqfd *f;

	pthread_mutex_lock(&table_lock);
	f = unused;
	if (f)
		unused = f->next;
	pthread_mutex_unlock(&table_lock);
	return f ? f : calloc(1, sizeof(*f));
}

/* Writers under way are waited for: none of them waits for anything. */
static void irqfd_free(struct irqfd *f)
{
	if (__atomic_sub_fetch(&f->users, 1, __ATOMIC_SEQ_CST))
		while (__atomic_load_n(&f->users, __ATOMIC_ACQUIRE))
			sched_yield();
	eventfd_drop(&f->event);
	eventfd_drop(&f->told);
	pthread_mutex_lock(&table_lock);
	f->next = unused;
	unused = f;
	pthread_mutex_unlock(&table_lock);
}

static int irqfd_inject(const struct irqfd *f, bool try)
{
	return irqchip_raise(f->vm->irqchip, f->gsi,
			     f->resample ? IRQ_SOURCE_RESAMPLE : IRQ_SOURCE_USER, f->resample, try);
}

static bool irqfd_use(struct irqfd *f)
{
	u32 n = __atomic_load_n(&f->users, __ATOMIC_RELAXED);

	while (n) {
		if (__atomic_compare_exchange_n(&f->users, &n, n + 1, true, __ATOMIC_SEQ_CST,
						__ATOMIC_RELAXED))
			return true;
	}
	return false;
}

#define TRIES 64

bool kvm_eventfd_written(int number)
{
	struct irqfd **slot = number_slot(number);
	struct irqfd *f = slot ? __atomic_load_n(slot, __ATOMIC_ACQUIRE) : NULL;
	bool done = false;

	if (likely(!f) || !irqfd_use(f))
		return false;
	if (__atomic_load_n(slot, __ATOMIC_SEQ_CST) == f && f->generation == file_generation()) {
		for (unsigned i = 0; i < TRIES && !done; i++)
			done = irqfd_inject(f, true) != -EAGAIN;
	}
	__atomic_sub_fetch(&f->users, 1, __ATOMIC_RELEASE);
	return done;
}

/* In the helper thread, and once from assign. */
static void irqfd_ready(struct poll_watch *w)
{
	struct irqfd *f = container_of(w, struct irqfd, watch);

	if (eventfd_drain(&f->event))
		irqfd_inject(f, false);
}

/* The last resampling irqfd of a GSI takes its level along. Under irqfds.lock, off the list already. */
static void level_drop(struct irqfds *fds, const struct irqfd *gone)
{
	__atomic_sub_fetch(&fds->resamplers, 1, __ATOMIC_RELAXED);
	for (const struct irqfd *f = fds->list; f; f = f->next)
		if (f->resample && f->gsi == gone->gsi)
			return;
	irqchip_set_line(gone->vm->irqchip, gone->gsi, 0, IRQ_SOURCE_RESAMPLE);
}

/* @f is off the list. */
static void irqfd_shutdown(struct irqfds *fds, struct irqfd *f)
{
	number_forget(f);
	poller_remove(&f->watch);
	if (f->resample)
		level_drop(fds, f);
	irqfd_free(f);
}

void irqfds_eoi(struct vm *vm, unsigned gsi)
{
	struct irqfds *fds = &vm->irqfds;
	bool lowered = false;

	if (likely(!__atomic_load_n(&fds->resamplers, __ATOMIC_SEQ_CST)))
		return;
	pthread_mutex_lock(&fds->lock);
	for (const struct irqfd *f = fds->list; f; f = f->next) {
		if (!f->resample || f->gsi != gsi)
			continue;
		if (!lowered)
			irqchip_set_line(vm->irqchip, gsi, 0, IRQ_SOURCE_RESAMPLE);
		lowered = true;
		eventfd_signal(&f->told);
	}
	pthread_mutex_unlock(&fds->lock);
}

/* 0, or -EBUSY: one eventfd is one irqfd. Under irqfds.lock. */
static int irqfd_enlist(struct irqfds *fds, struct irqfd *f)
{
	int r;

	for (const struct irqfd *other = fds->list; other; other = other->next)
		if (eventfd_is_same(&other->event, &f->event))
			return -EBUSY;
	f->users = 1;
	r = poller_add(fds->poller, &f->watch, f->event.fd, irqfd_ready);
	if (r)
		return r;
	f->next = fds->list;
	fds->list = f;
	if (f->resample)
		__atomic_add_fetch(&fds->resamplers, 1, __ATOMIC_SEQ_CST);
	return 0;
}

static int irqfd_hold(struct irqfd *f, const struct kvm_irqfd *args)
{
	int r = eventfd_hold(&f->event, args->fd);

	f->told.fd = -1;
	if (r || !f->resample)
		return r;
	r = eventfd_hold(&f->told, args->resamplefd);
	if (r)
		eventfd_drop(&f->event);
	return r;
}

static long irqfd_assign(struct vm *vm, const struct kvm_irqfd *args)
{
	bool resample = args->flags & KVM_IRQFD_FLAG_RESAMPLE;
	struct irqfd *f;
	int r;

	if (!vm->irqchip)
		return -EAGAIN;
	if (resample && vm->split)
		return -EINVAL;
	f = irqfd_new();
	if (!f)
		return -ENOMEM;
	f->vm = vm;
	f->gsi = args->gsi;
	f->resample = resample;
	f->generation = file_generation();
	r = irqfd_hold(f, args);
	if (!r) {
		pthread_mutex_lock(&vm->irqfds.lock);
		r = irqfd_enlist(&vm->irqfds, f);
		if (!r) {
			number_publish(f);
			irqfd_ready(&f->watch); /* signalled before it was assigned */
		}
		pthread_mutex_unlock(&vm->irqfds.lock);
	}
	if (r) {
		f->users = 1;
		irqfd_free(f);
	}
	return r;
}

static long irqfd_deassign(struct vm *vm, const struct kvm_irqfd *args)
{
	struct irqfds *fds = &vm->irqfds;
	struct irqfd **p, *f;
	struct eventfd e;
	int r = eventfd_hold(&e, args->fd);

	if (r)
		return r;
	pthread_mutex_lock(&fds->lock);
	for (p = &fds->list; (f = *p);) {
		if (f->gsi != args->gsi || !eventfd_is_same(&f->event, &e)) {
			p = &f->next;
			continue;
		}
		*p = f->next;
		irqfd_shutdown(fds, f);
	}
	pthread_mutex_unlock(&fds->lock);
	eventfd_drop(&e);
	return 0;
}

long irqfd_call(struct call *c)
{
	const struct kvm_irqfd *args = c->data;

	if (args->flags & ~(KVM_IRQFD_FLAG_DEASSIGN | KVM_IRQFD_FLAG_RESAMPLE))
		return -EINVAL;
	if (args->flags & KVM_IRQFD_FLAG_DEASSIGN)
		return irqfd_deassign(c->vm, args);
	return irqfd_assign(c->vm, args);
}

int irqfds_init(struct irqfds *fds)
{
	pthread_mutex_init(&fds->lock, NULL);
	fds->poller = poller_create();
	return fds->poller ? 0 : -ENOMEM;
}

void irqfds_release(struct irqfds *fds)
{
	struct irqfd *f;

	pthread_mutex_lock(&fds->lock);
	while ((f = fds->list)) {
		fds->list = f->next;
		irqfd_shutdown(fds, f);
	}
	pthread_mutex_unlock(&fds->lock);
}

void irqfds_destroy(struct irqfds *fds)
{
	irqfds_release(fds);
	poller_destroy(fds->poller);
	pthread_mutex_destroy(&fds->lock);
}

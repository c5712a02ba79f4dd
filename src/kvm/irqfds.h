/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* KVM_IRQFD: eventfds whose signals are interrupts. */
#ifndef KVM_IRQFDS_H
#define KVM_IRQFDS_H

#include <pthread.h>

#include "base/types.h"
#include "virt/poller.h"

struct irqfd;
struct vm;

/*
 * Lock order: irqfds.lock, the poller's, the chip's. The helper thread injects under the poller's lock and
 * never takes irqfds.lock, so deassign may wait for it here.
 */
struct irqfds {
	pthread_mutex_t lock;
	struct irqfd *list;
	u32 resamplers; /* how many of the list; atomic, read without the lock */
	struct poller *poller;
};

int irqfds_init(struct irqfds *fds);
void irqfds_release(
	struct irqfds *fds); /* the VM's descriptor is closed, or the VM goes: deassign all */
void irqfds_destroy(struct irqfds *fds);

/* The guest acknowledged @gsi: lower it for all resampling irqfds, then tell their owners. */
void irqfds_eoi(struct vm *vm, unsigned gsi);

/*
 * For whoever sees the program's own writes. kvm_eventfd_written(): a write of a counter to descriptor
 * @number is about to be made; returns whether it is an irqfd and the interrupt has been injected: then the counter
 * has been taken too, as KVM takes it, and the write must not be made. Safe in a signal handler; takes no lock that it would wait for.
 * kvm_eventfd_is_known(): whether asking that is worth it. kvm_eventfd_closed(): numbers from @first to @last are being
 * closed or replaced.
 */
bool kvm_eventfd_written(int number);
bool kvm_eventfd_is_known(int number);
void kvm_eventfd_closed(unsigned first, unsigned last);

#endif

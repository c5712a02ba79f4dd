/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Guest writes that are served before user space sees them: ioeventfds and coalesced zones. */
#ifndef KVM_IOBUSES_H
#define KVM_IOBUSES_H

#include <linux/kvm.h>
#include <pthread.h>
#include <sys/types.h>

#include "kvm/eventfd.h"

/* What is assigned to the third, that of s390 channels, never fires; it is accepted as KVM accepts it. */
enum iobus_kind { IOBUS_MMIO, IOBUS_PIO, IOBUS_CCW, IOBUS_KINDS };

struct vm;
struct vcpu;
struct iobus;
struct iodev;

/*
 * Lists are replaced whole, under the lock; a vCPU reads one without a lock between two changes of its
 * vcpu->on_bus, and who replaced a list waits for these before it frees what is gone.
 */
struct iobuses {
	pthread_mutex_t lock;
	struct iobus *bus[IOBUS_KINDS]; /* NULL: empty; atomic */
	pthread_mutex_t ring_lock;	/* a leaf: writers of the ring */
	struct kvm_coalesced_mmio_ring *ring;
};

int iobuses_init(struct iobuses *b);
void iobuses_destroy(struct iobuses *b);

/* A write of vCPU @v: whether it is served. In the vCPU's own thread. */
bool iobus_write(struct vcpu *v, enum iobus_kind kind, u64 addr, const void *data, unsigned size);

/* Map the ring over its page of a new mapping of a vCPU's descriptor that begins at @offset. 0 or -errno. */
int iobus_map_ring(struct vm *vm, void *addr, size_t length, int prot, off_t offset);

#endif

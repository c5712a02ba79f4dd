/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Between the files that make up the bus: its entries, and how a list is replaced. */
#ifndef KVM_IOBUS_PRIVATE_H
#define KVM_IOBUS_PRIVATE_H

#include "kvm/iobuses.h"

struct iodev {
	u64 addr;
	u32 length; /* 0: an ioeventfd that takes any */
	bool is_zone;
	bool any_data; /* ioeventfd without datamatch */
	u64 data;
	struct eventfd event;
};

struct iobus {
	u32 n, nzones;
	struct iobus_entry {
		struct iodev *dev;
		u64 end; /* greatest end of this and all entries before */
	} entry[];
};

/* Under the lock. Whoever removes also frees, after iobus_replace() has waited. */
int iobus_insert(struct vm *vm, enum iobus_kind kind, struct iodev *dev);
int iobus_remove(struct vm *vm, enum iobus_kind kind, const struct iodev *dev);
void iodev_free(struct iodev *dev);

/* coalesced.c: whether the ring had room. */
bool coalesced_write(struct iobuses *b, bool pio, u64 addr, const void *data, unsigned size);

#endif

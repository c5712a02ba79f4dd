/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The PCI devices of the board, as the configuration asks for them, and the thread that serves them. */
#ifndef VMM_DEVICES_H
#define VMM_DEVICES_H

#include "vmm/config.h"
#include "vmm/pci/pvpanic.h"
#include "vmm/virtio/blk.h"
#include "vmm/virtio/fs.h"
#include "vmm/virtio/net.h"
#include "vmm/virtio/ports.h"
#include "vmm/virtio/vsock.h"

/* Called by the device thread. */
struct devices_ops {
	void (*status)(void *owner, const u8 *text, size_t n); /* what a command's end is told by */
	void (*failed)(void *owner, int err); /* stdout or stderr cannot be written */
	void (*panicked)(void *owner);	      /* a vCPU's thread */
	void *owner;
};

struct devices {
	struct pci_bus pci;
	struct pvpanic pvpanic;
	struct loop loop;
	struct virtio_device *rng;
	struct blk *disks[VMM_MAX_DISKS];
	struct fs *shares[VMM_MAX_SHARES];
	struct net *nets[VMM_MAX_NETS];
	struct vsock *vsock;
	struct ports *ports;
	struct virtio_device *all[PCI_SLOTS]; /* in the order of their slots */
	unsigned count;
	bool is_created;
};

/*
 * Everything that can be wrong on the host is told here. 0, or -errno with the reason. @is_coming: another machine still has the
 * disks.
 */
int devices_create(struct devices *d, const struct vmm_devices *wanted, const struct ram *ram,
		   struct pci_host host, struct devices_ops ops, bool is_coming, struct why *why);
void devices_destroy(struct devices *d); /* also one that was never created */

int devices_start(struct devices *d); /* memory is there; 0 or -errno */

/* No device touches memory or moves after it, and nothing is in flight, until devices_thaw(). */
void devices_freeze(struct devices *d);
int devices_thaw(struct devices *d); /* 0 or -errno */

/* Of a machine that moves and stands, each disk: disk/disk.h. 0 or -errno with one line. */
void devices_flush(struct devices *d); /* also of one that runs: there will be less to settle */
int devices_settle(struct devices *d, struct why *why);
int devices_check_disks(struct devices *d, struct why *why);
void devices_release_disks(struct devices *d);
int devices_take_disks(struct devices *d, struct why *why);

/* All that is saved, bus first; returns how many, at most PCI_SLOTS + 2. */
unsigned devices_list(const struct devices *d, const struct device **out);

/* No device touches memory after it, and all are as at power-on. */
void devices_stop(struct devices *d);

#endif

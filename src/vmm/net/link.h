/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The other end of a guest's network device: Ethernet frames, in and out. */
/*
 * All of it is the device thread's, with the device's lock held. A link that has a frame for the guest gives it by receive();
 * it asks the host for more only while the device says that there is room.
 */
#ifndef VMM_NET_LINK_H
#define VMM_NET_LINK_H

#include "vmm/config.h"
#include "vmm/loop.h"
#include "vmm/why.h"

#define FRAME_MAX 1518u /* header, VLAN tag, 1500 bytes; no checksum */
#define FRAME_MIN 14u

struct net_link;

struct net_link_ops {
	void (*send)(struct net_link *l, const u8 *frame,
		     size_t n); /* FRAME_MIN to FRAME_MAX bytes */
	void (*prepare)(struct net_link *l, struct loop *loop, bool has_room);
	void (*dispatch)(struct net_link *l, struct loop *loop);
	void (*close)(struct net_link *l);
};

struct net_link {
	const struct net_link_ops *ops;
	void (*receive)(void *owner, const u8 *frame, size_t n); /* set by the device */
	void *owner;
};

/* A network of the process's own, NAT to the host's: libslirp. 0, or -errno with one line. */
int user_link_open(struct net_link **out, const struct net_config *config, struct why *why);

/* A tap device of the host. 0, or -errno with one line. */
int tap_link_open(struct net_link **out, const struct net_config *config, struct why *why);

#endif

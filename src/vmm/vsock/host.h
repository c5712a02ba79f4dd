/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The host's side of virtio-vsock: unix sockets, as Firecracker and Cloud Hypervisor lay them out. */
/*
 * The guest connects to port P of CID 2: a program of the host must listen at PATH_P. A program of the host connects to
 * PATH, sends "CONNECT P\n", and the bytes after the answer "OK Q\n" are the stream to the guest's port P.
 */
#ifndef VMM_VSOCK_HOST_H
#define VMM_VSOCK_HOST_H

#include "base/types.h"
#include "vmm/config.h"
#include "vmm/why.h"

/* A path and "_" and a port are still the name of a socket. */
#define VSOCK_PATH_MAX sizeof(((struct vsock_config *)0)->path)

/* Listen at @path, which only this user may use: a descriptor, or -errno with one line. A socket that nobody serves is replaced. */
int vsock_listen(const char *path, struct why *why);
void vsock_unlisten(int fd, const char *path);

/* Who waits there: a descriptor, or -1. */
int vsock_accept(int fd);
/* To PATH_PORT: a descriptor, or -1. Does not wait. */
int vsock_connect(const char *path, u32 port);

#define VSOCK_GREETING_MAX 19u /* "CONNECT ", ten digits, the end of the line */

struct vsock_greeting {
	char text[VSOCK_GREETING_MAX + 1];
	u32 size;
};

/* What the program has to say first, @g being what came so far. 1 and the port; 0: not all yet; -EPROTO: something else, or it is gone. */
int vsock_greeting_take(struct vsock_greeting *g, int fd, u32 *port);

#endif

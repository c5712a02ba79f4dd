/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The name of a VM and the places that belong to it: a socket, and a lock that says whether the name is taken. */
/*
 * Both lie in a folder of this user alone: $XDG_RUNTIME_DIR/anykvm, or /tmp/anykvm-UID. The lock is the kernel's and goes with
 * the process, so a socket whose lock is free is a leftover and is replaced.
 */
#ifndef VMM_MONITOR_NAME_H
#define VMM_MONITOR_NAME_H

#include <sys/un.h>

#include "base/types.h"
#include "vmm/why.h"

#define NAME_MAX_BYTES 48u

struct named {
	struct sockaddr_un address;
	char lock_path[sizeof(((struct sockaddr_un *)0)->sun_path)];
	int lock_fd; /* -1: not ours */
};

/* Letters, digits, '.', '_' and '-', no '.' or '-' first. 0 or -EINVAL. */
int name_check(const char *name, struct why *why);

/* Take it: -EBUSY when a VM has it. */
int name_take(struct named *n, const char *name, struct why *why);
void name_give_back(struct named *n);

/* Connect to the VM of that name: a descriptor, or -ENOENT when there is none. */
int name_connect(const char *name, struct why *why);

#endif

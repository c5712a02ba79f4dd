/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The initramfs of 'anykvm run' without --initrd: busybox, and an /init that is a shell or a demo. */
#ifndef VMM_INITRAMFS_H
#define VMM_INITRAMFS_H

#include "vmm/cpio.h"
#include "vmm/modules.h"
#include "vmm/why.h"

struct initramfs_request {
	const char *busybox;	/* path of a static busybox on the host */
	bool shell;		/* a shell on the console; otherwise the demo, and power-off */
	unsigned rows, columns; /* of the terminal; 0: unknown */
	const struct modules *modules; /* loaded first, in their order */
};

/* The first line that /init prints begins with this. */
#define INITRAMFS_MARKER "anykvm: /init reached"

/* 0 or -errno; the caller frees @out. */
int initramfs_make(struct cpio *out, const struct initramfs_request *request, struct why *why);

#endif

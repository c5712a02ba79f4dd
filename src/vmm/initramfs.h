/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The initramfs of 'anykvm run' without --initrd: busybox, and an /init that is a shell, a demo or one command. */
#ifndef VMM_INITRAMFS_H
#define VMM_INITRAMFS_H

#include <stdbool.h>

#include "vmm/cpio.h"
#include "vmm/modules.h"
#include "vmm/why.h"

#define INITRAMFS_ROOT_TAG   "anykvm-root"
#define INITRAMFS_FOLDER_TAG "anykvm-folder"

/* A program over the host's files: they are read, and changes stay in the guest, but for the current folder. */
struct initramfs_command {
	char *script;	   /* for /bin/sh of the host's files, in @folder */
	char folder[4096]; /* shared read-write, unless it is the root */
	bool is_terminal;  /* on the serial console; otherwise stdin, stdout and stderr by ports */
	unsigned uid, gid;
};

struct initramfs_request {
	const char *busybox;	/* path of a static busybox on the host */
	bool shell;		/* a shell on the console; otherwise the demo, and power-off */
	unsigned rows, columns; /* of the terminal; 0: unknown */
	const struct modules *modules;		 /* loaded first, in their order */
	const struct initramfs_command *command; /* instead of shell or demo; NULL: none */
	const char *const *tags;		 /* shares that are mounted below /mnt */
	unsigned tag_count;
	unsigned net_count; /* interfaces that are set up, by DHCP where it answers */
};

/* The first line that /init prints begins with this. */
#define INITRAMFS_MARKER "anykvm: /init reached"

/* 0 or -errno; the caller frees @out. */
int initramfs_make(struct cpio *out, const struct initramfs_request *request, struct why *why);

#endif

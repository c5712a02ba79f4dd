/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* anykvm run -- CMD: one program in a guest over the host's files. */
#ifndef CMD_COMMAND_H
#define CMD_COMMAND_H

#include "vmm/config.h"
#include "vmm/initramfs.h"

/*
 * @argv ends with NULL. Adds the shares and ports to @devices, and fills @guest with what /init does; its script is
 * the caller's to free. 0 or -errno.
 */
int command_prepare(struct vmm_devices *devices, struct initramfs_command *guest,
		    char *const argv[], struct why *why);

#endif

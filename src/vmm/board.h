/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The pc board: what a VM is made of, and running it to its end. */
#ifndef VMM_BOARD_H
#define VMM_BOARD_H

#include "base/types.h"
#include "vmm/why.h"

struct vmm_config {
	const char *kernel; /* path; needed unless flat is given */
	const u8 *initrd;   /* NULL: none */
	size_t initrd_size;
	const char *append;
	u64 memory; /* bytes */
	unsigned cpus;
	const char *cpu;    /* as --cpu */
	const char *device; /* as --device, NULL: ours */
	const char *flat;   /* image for real mode, NULL: boot a kernel */
	u32 flat_address;
	bool no_reboot, json, verbose;
};

/* Run until the VM ends; returns the exit status of the process. Says what is wrong on stderr. */
int board_run(const struct vmm_config *config);

/* The same for config->flat: exits and registers on stdout. */
int flat_run(const struct vmm_config *config);

#endif

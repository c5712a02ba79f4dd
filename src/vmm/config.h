/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* What a VM is to be made of. */
#ifndef VMM_CONFIG_H
#define VMM_CONFIG_H

#include "base/types.h"

#define VMM_MAX_CPUS 64u

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

#endif

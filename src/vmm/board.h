/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The pc board: what a VM is made of, and running it to its end. */
#ifndef VMM_BOARD_H
#define VMM_BOARD_H

#include "vmm/config.h"

/* Run until the VM ends; returns the exit status of the process. Says what is wrong on stderr. */
int board_run(const struct vmm_config *config);

/* The same for config->flat: exits and registers on stdout. */
int flat_run(const struct vmm_config *config);

#endif

/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The ways in which a guest resets a PC: port 0xcf9 and the pulse of the keyboard controller. */
#ifndef VMM_DEV_RESET_H
#define VMM_DEV_RESET_H

#include "vmm/dev/device.h"

/* The FADT tells the guest this register. */
#define RESET_PORT  0xcf9
#define RESET_VALUE 6

struct reset_control {
	struct device device;
	struct end_request end;
	u8 control;
};

void reset_control_init(struct reset_control *rc, struct end_request end);

#endif

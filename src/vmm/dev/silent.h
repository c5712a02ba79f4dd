/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Ports that a PC's firmware or kernel touches and that need no device. */
#ifndef VMM_DEV_SILENT_H
#define VMM_DEV_SILENT_H

#include "vmm/dev/device.h"

extern const struct device silent_device;

#endif

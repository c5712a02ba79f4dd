/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Options of 'anykvm run' that add a device: a name or path, then words after commas. */
#ifndef CMD_DEVICE_OPTIONS_H
#define CMD_DEVICE_OPTIONS_H

#include "vmm/config.h"
#include "vmm/modules.h"
#include "vmm/why.h"

/* Each adds one device to the struct vmm_devices at @field. 0 or -EINVAL. */
int parse_disk(const char *value, void *field, struct why *why);
int parse_share(const char *value, void *field, struct why *why);
int parse_net(const char *value, void *field, struct why *why);
int parse_vsock(const char *value, void *field, struct why *why);

/* The drivers that a kernel of modules needs for these devices, from the folder @root. */
int device_modules(struct modules *modules, const struct vmm_devices *devices, const char *root,
		   struct why *why);
bool devices_any(const struct vmm_devices *devices);

#endif

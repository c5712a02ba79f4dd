/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Saving and restoring a device by its table of fields: names and sizes go with the bytes. */
#ifndef VMM_DEV_STATE_H
#define VMM_DEV_STATE_H

#include "vmm/dev/device.h"
#include "vmm/why.h"

/* Bytes that device_save() writes. */
size_t device_state_size(const struct device *d);

/* The device does not run meanwhile. Returns the bytes written, 0 when @room is too small. */
size_t device_save(const struct device *d, void *out, size_t room);

/* All fields or none: 0, or -EINVAL with the field that is unknown, missing, doubled or of another size. */
int device_restore(const struct device *d, const void *in, size_t n, struct why *why);

#endif

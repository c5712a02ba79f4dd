/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Saving and restoring devices by their tables of fields: names, versions and sizes go with the bytes. */
/*
 * A machine's state is a list of sections, one per device, all numbers little endian:
 *
 *	section  name, instance, version, bytes of the fields, CRC-32C of all before it
 *	field    name, bytes of the value, the value
 *
 * and a name is one byte of length and the text. What is read came from outside: every section must name a device that is
 * here and has not had one, every field one of its rows, once and with its size; every row that the section's version has must
 * come, and so must every device. Until all of that holds nothing of any device is changed. So adding a field is a row with
 * DEVICE_FIELD_SINCE and a higher version; a removed or changed one is a new device name.
 */
#ifndef VMM_DEV_STATE_H
#define VMM_DEV_STATE_H

#include "vmm/dev/device.h"
#include "vmm/why.h"

/* Bytes that device_save() writes. */
size_t device_state_size(const struct device *d);

/* The device does not run meanwhile. Returns the bytes written, 0 when @room is too small. */
size_t device_save(const struct device *d, void *out, size_t room);

/* All fields or none: 0, or -EINVAL with the field that is unknown, missing, doubled or of another size. */
int device_restore(const struct device *d, u32 version, const void *in, size_t n, struct why *why);

struct state_set {
	const struct device *const *devices;
	unsigned count;
};

/* 0, or -EBUSY with the first device that cannot be saved, and why. */
int state_movable(const struct state_set *set, struct why *why);

size_t state_size(const struct state_set *set);
size_t state_save(const struct state_set *set, void *out, size_t room); /* as device_save() */

/* All devices or none: 0, or -EINVAL with the place (byte, device, field) and the reason. */
int state_restore(const struct state_set *set, const void *in, size_t n, struct why *why);

#endif

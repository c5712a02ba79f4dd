/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Saving and restoring a device: for each field one byte with the length of its name, the name, four bytes with its size, the bytes. */
#include "vmm/dev/state.h"

#include <errno.h>
#include <string.h>

#define FIELDS_MAX 160

size_t device_state_size(const struct device *d)
{
	size_t n = 0;

	for (unsigned i = 0; i < d->field_count; i++)
		n += 1 + strlen(d->fields[i].name) + 4 + d->fields[i].size;
	return n;
}

size_t device_save(const struct device *d, void *out, size_t room)
{
	u8 *p = out;

	if (room < device_state_size(d))
		return 0;
	for (unsigned i = 0; i < d->field_count; i++) {
		const struct device_field *f = &d->fields[i];
		const u32 size = (u32)f->size;

		*p++ = (u8)strlen(f->name);
		p = (u8 *)memcpy(p, f->name, strlen(f->name)) + strlen(f->name);
		p = (u8 *)memcpy(p, &size, 4) + 4;
		p = (u8 *)memcpy(p, (u8 *)d->self + f->offset, f->size) + f->size;
	}
	return (size_t)(p - (u8 *)out);
}

static int field_find(const struct device *d, const char *name, size_t n)
{
	for (unsigned i = 0; i < d->field_count; i++)
		if (strlen(d->fields[i].name) == n && !memcmp(d->fields[i].name, name, n))
			return (int)i;
	return -1;
}

/* Where each field's bytes are in @in. */
static int fields_locate(const struct device *d, const u8 *in, size_t n,
			 const u8 *places[FIELDS_MAX], struct why *why)
{
	const u8 *const end = in + n;

	while (in < end) {
		const size_t name = *in++;
		const char *text = (const char *)in;
		u32 size;
		int i;

		if ((size_t)(end - in) < name + 4)
			return why_set(why, EINVAL, "the state of %s is cut off", d->name);
		memcpy(&size, in + name, 4);
		in += name + 4;
		i = field_find(d, text, name);
		if (i < 0 || places[i] || size != d->fields[i].size)
			return why_set(why, EINVAL,
				       "the state of %s does not fit: field '%.*s' of %u bytes",
				       d->name, (int)name, text, size);
		if ((size_t)(end - in) < size)
			return why_set(why, EINVAL, "the state of %s is cut off", d->name);
		places[i] = in;
		in += size;
	}
	return 0;
}

int device_restore(const struct device *d, const void *in, size_t n, struct why *why)
{
	const u8 *places[FIELDS_MAX] = { NULL };
	int r = fields_locate(d, in, n, places, why);

	for (unsigned i = 0; i < d->field_count && r == 0; i++)
		if (!places[i])
			r = why_set(why, EINVAL, "the state of %s has no field '%s'", d->name,
				    d->fields[i].name);
	if (r < 0)
		return r;
	for (unsigned i = 0; i < d->field_count; i++)
		memcpy((u8 *)d->self + d->fields[i].offset, places[i], d->fields[i].size);
	if (d->restored)
		d->restored(d->self);
	return 0;
}

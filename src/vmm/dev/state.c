/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Saving and restoring devices by their tables of fields. */
#include "vmm/dev/state.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/crc32c.h"

#define SECTION_NUMBERS 12u /* instance, version, size */
#define CRC_BYTES	4u

struct section {
	const char *name; /* not terminated */
	size_t name_size;
	u32 instance, version, size;
	const u8 *body;
	const struct device *device;
};

static u8 *put(u8 *p, const void *data, size_t n)
{
	return (u8 *)memcpy(p, data, n) + n;
}

static u8 *put_name(u8 *p, const char *name)
{
	*p++ = (u8)strlen(name);
	return put(p, name, strlen(name));
}

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
	if (d->saving)
		d->saving(d->self);
	for (unsigned i = 0; i < d->field_count; i++) {
		const struct device_field *f = &d->fields[i];
		const u32 size = (u32)f->size;

		p = put_name(p, f->name);
		p = put(p, &size, 4);
		p = put(p, (u8 *)d->self + f->offset, f->size);
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

static int cut_off(const struct device *d, struct why *why)
{
	return why_set(why, EINVAL, "the state of %s %u is cut off", d->name, d->instance);
}

/* Where each field's bytes are in @in. */
static int fields_locate(const struct device *d, const u8 *in, size_t n, const u8 **places,
			 struct why *why)
{
	const u8 *const end = in + n;

	while (in < end) {
		const size_t name = *in++;
		const char *text = (const char *)in;
		u32 size;
		int i;

		if ((size_t)(end - in) < name + 4)
			return cut_off(d, why);
		memcpy(&size, in + name, 4);
		in += name + 4;
		i = field_find(d, text, name);
		if (i < 0 || places[i] || size != d->fields[i].size)
			return why_set(why, EINVAL,
				       "the state of %s %u does not fit: field '%.*s' of %u bytes "
				       "is %s here",
				       d->name, d->instance, (int)name, text, size,
				       i < 0	   ? "unknown"
				       : places[i] ? "doubled"
						   : "of another size");
		if ((size_t)(end - in) < size)
			return cut_off(d, why);
		places[i] = in;
		in += size;
	}
	return 0;
}

/* Places of all fields that @version has, in memory that the caller frees. */
static int fields_check(const struct device *d, u32 version, const void *in, size_t n,
			const u8 ***out, struct why *why)
{
	const u8 **places = calloc(d->field_count + 1, sizeof(*places));
	int r = places ? fields_locate(d, in, n, places, why)
		       : why_set(why, ENOMEM, "no memory for the state of %s", d->name);

	for (unsigned i = 0; i < d->field_count && r == 0; i++)
		if (!places[i] && d->fields[i].since <= version)
			r = why_set(why, EINVAL, "the state of %s %u has no field '%s'", d->name,
				    d->instance, d->fields[i].name);
	if (r == 0)
		*out = places;
	else
		free(places);
	return r;
}

static void fields_apply(const struct device *d, const u8 *const *places)
{
	for (unsigned i = 0; i < d->field_count; i++)
		if (places[i])
			memcpy((u8 *)d->self + d->fields[i].offset, places[i], d->fields[i].size);
	if (d->restored)
		d->restored(d->self);
}

int device_restore(const struct device *d, u32 version, const void *in, size_t n, struct why *why)
{
	const u8 **places;
	int r = fields_check(d, version, in, n, &places, why);

	if (r < 0)
		return r;
	fields_apply(d, places);
	free(places);
	return 0;
}

int state_movable(const struct state_set *set, struct why *why)
{
	for (unsigned i = 0; i < set->count; i++)
		if (set->devices[i]->unmovable)
			return why_set(why, EBUSY, "the device %s cannot be saved: %s",
				       set->devices[i]->name, set->devices[i]->unmovable);
	return 0;
}

static size_t section_size(const struct device *d)
{
	return 1 + strlen(d->name) + SECTION_NUMBERS + device_state_size(d) + CRC_BYTES;
}

size_t state_size(const struct state_set *set)
{
	size_t n = 0;

	for (unsigned i = 0; i < set->count; i++)
		n += section_size(set->devices[i]);
	return n;
}

size_t state_save(const struct state_set *set, void *out, size_t room)
{
	u8 *p = out;

	if (room < state_size(set))
		return 0;
	for (unsigned i = 0; i < set->count; i++) {
		const struct device *d = set->devices[i];
		const u32 numbers[3] = { d->instance, d->version, (u32)device_state_size(d) };
		u8 *const start = p;
		u32 crc;

		p = put_name(p, d->name);
		p = put(p, numbers, sizeof(numbers));
		p += device_save(d, p, numbers[2]);
		crc = crc32c(0, start, (size_t)(p - start));
		p = put(p, &crc, sizeof(crc));
	}
	return (size_t)(p - (u8 *)out);
}

/* The section at @at of @n bytes; returns its size, or -EINVAL. */
static s64 section_read(const u8 *in, size_t at, size_t n, struct section *s, struct why *why)
{
	const u8 *p = in + at;
	const size_t left = n - at;
	size_t size;
	u32 crc;

	s->name_size = p[0];
	s->name = (const char *)p + 1;
	if (left < 1 + s->name_size + SECTION_NUMBERS)
		return why_set(why, EINVAL, "the state is cut off at byte %zu of %zu", at, n);
	memcpy(&s->instance, p + 1 + s->name_size, 4);
	memcpy(&s->version, p + 5 + s->name_size, 4);
	memcpy(&s->size, p + 9 + s->name_size, 4);
	size = 1 + s->name_size + SECTION_NUMBERS + s->size;
	if (left < size + CRC_BYTES)
		return why_set(why, EINVAL,
			       "the state is cut off at byte %zu of %zu: a section of %u bytes", at,
			       n, s->size);
	memcpy(&crc, p + size, CRC_BYTES);
	if (crc != crc32c(0, p, size))
		return why_set(why, EINVAL,
			       "the state is damaged: checksum of the section at byte %zu", at);
	s->body = p + size - s->size;
	return (s64)(size + CRC_BYTES);
}

static int device_find(const struct state_set *set, const struct section *s)
{
	for (unsigned i = 0; i < set->count; i++) {
		const struct device *d = set->devices[i];

		if (strlen(d->name) == s->name_size && !memcmp(d->name, s->name, s->name_size) &&
		    d->instance == s->instance)
			return (int)i;
	}
	return -1;
}

static int section_check(const struct state_set *set, const struct section *s, size_t at,
			 const u8 ***places, struct why *why)
{
	const int i = device_find(set, s);
	const struct device *d = i < 0 ? NULL : set->devices[i];

	if (!d || places[i])
		return why_set(why, EINVAL,
			       "the state has a device '%.*s' %u at byte %zu, which is %s",
			       (int)s->name_size, s->name, s->instance, at,
			       d ? "there already" : "not part of this machine");
	if (s->version > d->version)
		return why_set(why, EINVAL,
			       "the state of %s %u has version %u, and this program knows versions "
			       "up to %u; use a newer one",
			       d->name, d->instance, s->version, d->version);
	return fields_check(d, s->version, s->body, s->size, &places[i], why);
}

static int sections_check(const struct state_set *set, const u8 *in, size_t n, const u8 ***places,
			  struct why *why)
{
	struct section s = { .size = 0 };
	int r;

	for (size_t at = 0; at < n;) {
		const s64 size = section_read(in, at, n, &s, why);

		if (size < 0)
			return (int)size;
		r = section_check(set, &s, at, places, why);
		if (r < 0)
			return r;
		at += (size_t)size;
	}
	for (unsigned i = 0; i < set->count; i++)
		if (!places[i])
			return why_set(why, EINVAL, "the state lacks the device %s %u",
				       set->devices[i]->name, set->devices[i]->instance);
	return 0;
}

int state_restore(const struct state_set *set, const void *in, size_t n, struct why *why)
{
	const u8 ***places = calloc(set->count + 1, sizeof(*places));
	int r = places ? sections_check(set, in, n, places, why)
		       : why_set(why, ENOMEM, "no memory for the state");

	for (unsigned i = 0; i < set->count && places; i++) {
		if (r == 0)
			fields_apply(set->devices[i], places[i]);
		free(places[i]);
	}
	free(places);
	return r;
}

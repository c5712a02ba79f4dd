/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Writing ACPI machine language, as the ACPI specification's chapter "ACPI Machine Language" encodes it. */
#include "vmm/aml.h"

#include <string.h>

enum {
	OP_ZERO = 0x00,
	OP_ONE = 0x01,
	OP_NAME = 0x08,
	OP_BYTE = 0x0a,
	OP_WORD = 0x0b,
	OP_DWORD = 0x0c,
	OP_STRING = 0x0d,
	OP_QWORD = 0x0e,
	OP_SCOPE = 0x10,
	OP_BUFFER = 0x11,
	OP_PACKAGE = 0x12,
	OP_EXT = 0x5b,
	OP_EXT_DEVICE = 0x82,
};

#define LENGTH_BYTES 2 /* always this form: up to 4095 bytes */

void aml_bytes(struct aml *a, const void *data, size_t n)
{
	if (n > a->room - a->size) {
		a->overflow = true;
		return;
	}
	memcpy(a->data + a->size, data, n);
	a->size += n;
}

void aml_byte(struct aml *a, u8 byte)
{
	aml_bytes(a, &byte, 1);
}

void aml_integer(struct aml *a, u64 value)
{
	if (value <= 1) {
		aml_byte(a, value ? OP_ONE : OP_ZERO);
		return;
	}
	/* Little endian: the low bytes come first. */
	if (value <= 0xff) {
		aml_byte(a, OP_BYTE);
		aml_bytes(a, &value, 1);
	} else if (value <= 0xffff) {
		aml_byte(a, OP_WORD);
		aml_bytes(a, &value, 2);
	} else if (value <= 0xffffffff) {
		aml_byte(a, OP_DWORD);
		aml_bytes(a, &value, 4);
	} else {
		aml_byte(a, OP_QWORD);
		aml_bytes(a, &value, 8);
	}
}

void aml_string(struct aml *a, const char *text)
{
	aml_byte(a, OP_STRING);
	aml_bytes(a, text, strlen(text) + 1);
}

static unsigned hex_digit(char c)
{
	return c <= '9' ? (unsigned)(c - '0') : (unsigned)(c - 'A' + 10);
}

/* Three letters of five bits, four hexadecimal digits, most significant byte first. */
void aml_eisa_id(struct aml *a, const char *id)
{
	const unsigned letters = (unsigned)(id[0] - '@') << 10 | (unsigned)(id[1] - '@') << 5 |
				 (unsigned)(id[2] - '@');
	const u8 bytes[4] = {
		(u8)(letters >> 8),
		(u8)letters,
		(u8)(hex_digit(id[3]) << 4 | hex_digit(id[4])),
		(u8)(hex_digit(id[5]) << 4 | hex_digit(id[6])),
	};

	aml_byte(a, OP_DWORD);
	aml_bytes(a, bytes, sizeof(bytes));
}

void aml_path(struct aml *a, const char *path)
{
	char segment[4] = { '_', '_', '_', '_' };
	size_t n;

	if (*path == '\\')
		aml_byte(a, (u8)*path++);
	n = strlen(path);
	memcpy(segment, path, n < 4 ? n : 4);
	aml_bytes(a, segment, 4);
}

void aml_name(struct aml *a, const char *name)
{
	aml_byte(a, OP_NAME);
	aml_path(a, name);
}

/* Room for the length, which aml_end() fills in. */
static size_t length_reserve(struct aml *a)
{
	const u8 room[LENGTH_BYTES] = { 0 };
	const size_t mark = a->size;

	aml_bytes(a, room, sizeof(room));
	return mark;
}

void aml_end(struct aml *a, size_t mark)
{
	const size_t n = a->size - mark;

	if (a->overflow || n > 0xfff) {
		a->overflow = true;
		return;
	}
	a->data[mark] = (u8)(0x40 | (n & 0x0f)); /* one more byte follows */
	a->data[mark + 1] = (u8)(n >> 4);
}

size_t aml_scope_begin(struct aml *a, const char *path)
{
	size_t mark;

	aml_byte(a, OP_SCOPE);
	mark = length_reserve(a);
	aml_path(a, path);
	return mark;
}

size_t aml_device_begin(struct aml *a, const char *name)
{
	size_t mark;

	aml_byte(a, OP_EXT);
	aml_byte(a, OP_EXT_DEVICE);
	mark = length_reserve(a);
	aml_path(a, name);
	return mark;
}

size_t aml_package_begin(struct aml *a, u8 elements)
{
	size_t mark;

	aml_byte(a, OP_PACKAGE);
	mark = length_reserve(a);
	aml_byte(a, elements);
	return mark;
}

void aml_resources(struct aml *a, const u8 *descriptors, size_t n)
{
	static const u8 end_tag[] = { 0x79, 0 };
	size_t mark;

	aml_byte(a, OP_BUFFER);
	mark = length_reserve(a);
	aml_integer(a, n + sizeof(end_tag));
	aml_bytes(a, descriptors, n);
	aml_bytes(a, end_tag, sizeof(end_tag));
	aml_end(a, mark);
}

size_t resource_io(u8 *out, u16 base, u8 count)
{
	const u8 bytes[] = { 0x47,     1 /* 16-bit decode */, (u8)base,		 (u8)(base >> 8),
			     (u8)base, (u8)(base >> 8),	      1 /* alignment */, count };

	memcpy(out, bytes, sizeof(bytes));
	return sizeof(bytes);
}

size_t resource_irq(u8 *out, unsigned irq)
{
	const u16 mask = (u16)BIT(irq);
	const u8 bytes[] = { 0x22, (u8)mask, (u8)(mask >> 8) }; /* edge, active high */

	memcpy(out, bytes, sizeof(bytes));
	return sizeof(bytes);
}

static size_t put(u8 *out, u64 value, unsigned bytes)
{
	memcpy(out, &value, bytes);
	return bytes;
}

/* "Word Address Space Descriptor": a range that a bridge passes on, both ends fixed. */
static size_t word_window(u8 *out, u8 type, u8 flags, u16 first, u16 last)
{
	const u8 head[] = { 0x88, 13, 0, type, 0x0c /* minimum and maximum are fixed */, flags };
	size_t n = sizeof(head);

	memcpy(out, head, sizeof(head));
	n += put(out + n, 0, 2); /* granularity */
	n += put(out + n, first, 2);
	n += put(out + n, last, 2);
	n += put(out + n, 0, 2); /* translation */
	return n + put(out + n, (u64)last - first + 1, 2);
}

size_t resource_bus(u8 *out, u8 first, u8 last)
{
	return word_window(out, 2, 0, first, last);
}

size_t resource_io_window(u8 *out, u16 first, u16 last)
{
	return word_window(out, 1, 3 /* the entire range */, first, last);
}

/* "DWord Address Space Descriptor" */
size_t resource_memory_window(u8 *out, u32 base, u32 size)
{
	const u8 head[] = { 0x87, 23, 0, 0, 0x0c, 1 /* read and write, not cacheable */ };
	size_t n = sizeof(head);

	memcpy(out, head, sizeof(head));
	n += put(out + n, 0, 4);
	n += put(out + n, base, 4);
	n += put(out + n, (u64)base + size - 1, 4);
	n += put(out + n, 0, 4);
	return n + put(out + n, size, 4);
}

size_t resource_memory(u8 *out, u32 base, u32 size)
{
	const u8 head[] = { 0x86, 9, 0, 1 /* may be written */ };
	size_t n = sizeof(head);

	memcpy(out, head, sizeof(head));
	n += put(out + n, base, 4);
	return n + put(out + n, size, 4);
}

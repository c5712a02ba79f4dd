/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* A line of the trace that is being written. */
#include "kvm/trace/line.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "cpu/x86/msr.h"

#define DATA_SHOWN 16

void line_add(struct line *l, const char *format, ...)
{
	va_list ap;
	int n;

	if (l->n >= l->room)
		return;
	va_start(ap, format);
	n = vsnprintf(l->text + l->n, l->room - l->n, format, ap);
	va_end(ap);
	if (n < 0 || l->n + (unsigned)n >= l->room) {
		l->n = l->room;
		memcpy(l->text + l->room - 4, "...", 4);
	} else {
		l->n += (unsigned)n;
	}
}

void line_hex(struct line *l, u64 value)
{
	line_add(l, value ? "%#llx" : "%llu", (unsigned long long)value);
}

void line_open(struct line *l)
{
	line_add(l, "{");
	l->gap = "";
}

void line_close(struct line *l)
{
	line_add(l, "}");
}

void line_field(struct line *l, const char *name)
{
	line_add(l, "%s%s=", l->gap, name);
	l->gap = ", ";
}

void line_user(struct line *l, u64 address)
{
	if (!address)
		line_add(l, "NULL");
	else if (l->is_plain)
		line_add(l, "ADDRESS");
	else
		line_hex(l, address);
}

void line_msr(struct line *l, u32 index)
{
	const char *name = x86_msr_name(index);

	if (name)
		line_add(l, "%s(%#x)", name, index);
	else
		line_hex(l, index);
}

void line_enum(struct line *l, const struct line_name *names, u64 value)
{
	for (; names->name; names++) {
		if (names->value == value) {
			line_add(l, "%s", names->name);
			return;
		}
	}
	line_hex(l, value);
}

void line_flags(struct line *l, const struct line_name *names, u64 value)
{
	const char *gap = "";

	for (; names->name; names++) {
		if (!(value & names->value))
			continue;
		line_add(l, "%s%s", gap, names->name);
		value &= ~names->value;
		gap = "|";
	}
	if (value || !*gap) {
		line_add(l, "%s", gap);
		line_hex(l, value);
	}
}

void line_data(struct line *l, const u8 *data, unsigned size)
{
	u64 number = 0;

	if (size <= sizeof(number)) {
		memcpy(&number, data, size);
		line_hex(l, number);
		if (size == 1 && number >= ' ' && number <= '~')
			line_add(l, " '%c'", (char)number);
		return;
	}
	for (unsigned i = 0; i < size && i < DATA_SHOWN; i++)
		line_add(l, "%02x", data[i]);
	if (size > DATA_SHOWN)
		line_add(l, "...");
}

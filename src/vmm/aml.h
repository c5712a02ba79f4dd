/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Writing ACPI machine language: one function per term. */
#ifndef VMM_AML_H
#define VMM_AML_H

#include "base/types.h"

struct aml {
	u8 *data;
	size_t size;
	size_t room;
	bool overflow; /* something did not fit: what is there is useless */
};

void aml_bytes(struct aml *a, const void *data, size_t n);
void aml_byte(struct aml *a, u8 byte);
void aml_integer(struct aml *a, u64 value);
void aml_string(struct aml *a, const char *text);
void aml_eisa_id(struct aml *a, const char *id); /* "PNP0501" */
void aml_path(struct aml *a, const char *path);	 /* one name, or "\\_SB": root and one name */
void aml_name(struct aml *a, const char *name);	 /* Name (name, the next term) */

/* Terms with a length: begin returns what end wants. */
size_t aml_scope_begin(struct aml *a, const char *path);
size_t aml_device_begin(struct aml *a, const char *name);
size_t aml_package_begin(struct aml *a, u8 elements);
void aml_end(struct aml *a, size_t mark);

/* Buffer with a resource template. */
void aml_resources(struct aml *a, const u8 *descriptors, size_t n);

/* Resource descriptors; each returns the bytes written to @out. */
size_t resource_io(u8 *out, u16 base, u8 count);
size_t resource_irq(u8 *out, unsigned irq);

/* Windows of a bridge: bus numbers, ports, memory below 4 GiB; and a fixed range of memory. */
size_t resource_bus(u8 *out, u8 first, u8 last);
size_t resource_io_window(u8 *out, u16 first, u16 last);
size_t resource_memory_window(u8 *out, u32 base, u32 size);
size_t resource_memory(u8 *out, u32 base, u32 size);

#endif

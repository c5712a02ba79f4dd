/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* A line of the trace that is being written. */
#ifndef KVM_TRACE_LINE_H
#define KVM_TRACE_LINE_H

#include "base/trace.h"
#include "base/types.h"

/* What is left for the result when a structure fills the line. */
#define LINE_TAIL 320

struct line {
	char *text; /* of TRACE_LINE bytes */
	unsigned n;
	unsigned room;	 /* what follows is cut off, with "..." */
	bool is_plain;	 /* no addresses of the process */
	const char *gap; /* before the next field */
};

struct line_name {
	u64 value;
	const char *name;
};

void line_add(struct line *l, const char *format, ...) __attribute__((format(printf, 2, 3)));
void line_hex(struct line *l, u64 value); /* 0 as "0" */
/* "{", fields with line_field(), "}". */
void line_open(struct line *l);
void line_close(struct line *l);
void line_field(struct line *l, const char *name); /* "name=" */
void line_user(struct line *l, u64 address);
void line_msr(struct line *l, u32 index); /* "TSC(0x10)" */
/* @names ends with a NULL name. */
void line_enum(struct line *l, const struct line_name *names, u64 value);
void line_flags(struct line *l, const struct line_name *names, u64 value);
/* Up to 16 bytes of a device access: as a number, and as a letter where it is one. */
void line_data(struct line *l, const u8 *data, unsigned size);

#endif

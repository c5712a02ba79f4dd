/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The trace of requests: 'anykvm trace' reads what is written here. */
#ifndef KVM_TRACE_TRACE_H
#define KVM_TRACE_TRACE_H

#include "kvm/file.h"
#include "kvm/trace/line.h"

struct vcpu;

/* One request under way. The first five are the caller's. */
struct trace_call {
	int fd;
	enum file_kind kind;
	struct vcpu *vcpu; /* NULL: of another kind */
	unsigned long request, arg;

	struct line line;
	struct trace_thread *thread;
	bool has_line;
	u64 start;
	char own[TRACE_LINE]; /* for threads without a row */
};

extern bool trace_on;

/* Look into the environment and map the area; 0, or -errno with *@why. Without a wish for a trace nothing happens. */
int trace_start(const char **why);

void trace_begin(struct trace_call *c);
void trace_end(struct trace_call *c, long result);

/* open() of the device and mmap() of a vCPU: a line with what was asked. @result: a descriptor, or -errno; an address. */
void trace_opened(long result);
void trace_mapped(int fd, size_t length, long offset, const void *result);

/* System calls that a thread's first line needs are made now: a filter is about to be installed. */
void trace_thread_prepare(void);

#endif

/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The memory between a traced process and 'anykvm trace': what is wanted, the lines, the counters. */
#ifndef BASE_TRACE_H
#define BASE_TRACE_H

#include "base/types.h"

/*
 * The reader makes the area, says in its head what it wants, and starts the program with ANYKVM_TRACE=path of the area. The
 * library maps it when /dev/kvm is opened first, so a traced process keeps no descriptor for it and makes no system call
 * for a line, unless the ring is full or the reader sleeps: a program's seccomp filter and closefrom() do not matter.
 *
 *	program's threads --lines--> ring of bytes --> reader --> file
 *	                 --counts--> rows by request and by exit
 *
 * Lines are published whole, under a lock that holds the number of its thread. A process that dies with the lock leaves
 * a line that was not published; the reader takes the lock away. What a thread is in the middle of stands in its own row.
 */
#define TRACE_ENV      "ANYKVM_TRACE"
#define TRACE_MAGIC    0x616b7472u
#define TRACE_VERSION  1
#define TRACE_LINE     1024	  /* bytes of a line, with its end */
#define TRACE_ROOM     (4u << 20) /* bytes of the ring */
#define TRACE_THREADS  256
#define TRACE_CHOICES  64
#define TRACE_REQUESTS 256
#define TRACE_EXITS    64

/* What the lines are restricted to: some of @value, or with @except all but these. */
struct trace_choice {
	u32 count, except;
	u32 value[TRACE_CHOICES];
};

struct trace_counter {
	u32 key; /* request, or exit reason + 1; 0: free */
	u32 unused;
	u64 calls, errors;
	u64 ns, ns_max; /* in the call; for an exit: until the next KVM_RUN of the thread */
	u64 guest_ns;	/* exits: in KVM_RUN before */
};

struct trace_thread {
	u32 tid;  /* 0: free */
	u32 busy; /* the line has begun, and its call has not ended */
	char line[TRACE_LINE];
};

struct trace_area {
	u32 magic, version, size;
	u32 closed; /* the reader has gone */

	/* By the reader, before the program starts. */
	u32 wants_lines, wants_counts;
	u32 is_plain; /* no times, thread numbers and addresses of the process */
	u32 only_failed;
	u64 slower_ns;
	u64 start_ns; /* of CLOCK_MONOTONIC */
	struct trace_choice requests, exits;

	u32 lock;	   /* tid of the writer */
	u32 reader_sleeps; /* futex: 1, a writer has something for it */
	u64 head, tail;	   /* bytes written and read since the beginning */
	u64 lost;	   /* lines, when nobody read for too long */

	struct trace_counter request_counts[TRACE_REQUESTS], exit_counts[TRACE_EXITS];
	struct trace_thread thread[TRACE_THREADS];
	char text[TRACE_ROOM];
};

/* Add a whole line (of thread @tid). Waits while the ring is full, at most a few seconds. */
void trace_write(struct trace_area *a, u32 tid, const char *line, size_t len);

/* The reader: up to @room bytes of published text; 0: there is none, after at most @ms of waiting. */
size_t trace_read(struct trace_area *a, char *buf, size_t room, unsigned ms);

/* The row of @key, made when it is new; NULL when the table is full. */
struct trace_counter *trace_counter(struct trace_counter *rows, unsigned count, u32 key);
void trace_count(struct trace_counter *c, bool is_error);
void trace_count_time(struct trace_counter *c, u64 ns);

#endif

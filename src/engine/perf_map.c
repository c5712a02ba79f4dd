/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Names of translated code for perf: /tmp/perf-PID.map. Full context. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "engine/vcpu.h"

/*
 * A line per block, in hexadecimal, "START SIZE NAME", as perf reads it: where the block lies in this process, and the guest's
 * linear address that it was first made for. The same block serves other mappings of its page under the first name. Code
 * that takes the place of other code has a line of its own behind the older one.
 */
static int map_fd = -1;

/* Whatever lies there under our name is removed, not followed; what is another user's stays, and is an error. */
int engine_perf_map_open(void)
{
	char path[40];

	snprintf(path, sizeof(path), "/tmp/perf-%d.map", (int)getpid());
	if (unlink(path) < 0 && errno != ENOENT)
		return -errno;
	map_fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_APPEND | O_NOFOLLOW | O_CLOEXEC, 0600);
	return map_fd < 0 ? -errno : 0;
}

/* In one write, so that lines of several threads stay whole. */
static void line_write(u64 start, u64 size, const char *kind, u64 address)
{
	char line[96];
	const int n =
		snprintf(line, sizeof(line), "%lx %lx guest_%s_%lx\n", start, size, kind, address);

	if (write(map_fd, line, (size_t)n) != n)
		return; /* a name is missing then */
}

void perf_map_block(const struct engine_vcpu *v, const struct block *b)
{
	const struct x86_cpu *cpu = &v->cpu;

	if (likely(map_fd < 0))
		return;
	line_write((u64)v->cache.code_w + v->cache.delta + b->code, b->code_len,
		   cpu->cpl == 3 ? "user" : "kernel", cpu->seg[SEG_CS].base + cpu->rip);
}

void perf_map_stubs(const struct engine_vcpu *v)
{
	if (map_fd >= 0)
		line_write((u64)v->cache.code_w + v->cache.delta, v->cache.stubs_end, "stubs", 0);
}

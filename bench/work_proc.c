// SPDX-License-Identifier: MIT OR Apache-2.0
/* Process workloads: fork, exec of this static program, exec of a dynamically linked one; its first and second start. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "gbench.h"

static char self[256], dynamic[256];

/* The other program lies beside this one. */
static void paths_find(void)
{
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
	char *slash;

	if (n < 0)
		bench_fail("/proc/self/exe");
	self[n] = 0;
	slash = strrchr(self, '/');
	snprintf(dynamic, sizeof(dynamic), "%.*s/%s", (int)(slash - self), self, DYN_NAME);
}

static uint64_t child_status(pid_t pid)
{
	int status = 0;

	if (pid < 0 || waitpid(pid, &status, 0) != pid)
		bench_fail("fork");
	return (uint64_t)status;
}

static uint64_t fork_run(unsigned long reps)
{
	uint64_t sum = 1;

	for (unsigned long n = 0; n < reps; n++) {
		pid_t pid = fork();

		if (!pid)
			_exit((int)(n & 0x7f));
		sum = mix(sum, child_status(pid));
	}
	return sum;
}

static uint64_t start(const char *path, unsigned long number)
{
	char text[16];
	pid_t pid;

	snprintf(text, sizeof(text), "%lu", number & 0x7f);
	pid = fork();
	if (!pid) {
		execl(path, path, EXEC_ARGUMENT, text, (char *)NULL);
		_exit(126);
	}
	return child_status(pid);
}

static uint64_t exec_run(unsigned long reps)
{
	uint64_t sum = 1;

	for (unsigned long n = 0; n < reps; n++)
		sum = mix(sum, start(self, n));
	return sum;
}

static uint64_t dynamic_run(unsigned long reps)
{
	uint64_t sum = 1;

	for (unsigned long n = 0; n < reps; n++)
		sum = mix(sum, start(dynamic, n));
	return sum;
}

static bool has_dynamic(void)
{
	paths_find();
	return !access(dynamic, X_OK);
}

/*
 * proc.first is of interest when it is the first in its machine: nothing of libc is in the page cache of the
 * processor or of an engine yet. run.py sees to that; proc.second is the start after it.
 */
const struct workload proc_works[] = {
	{ .name = "proc.first",
	  .run = dynamic_run,
	  .reps = 1,
	  .can = has_dynamic,
	  .flags = WORK_INFO },
	{ .name = "proc.second",
	  .run = dynamic_run,
	  .reps = 1,
	  .can = has_dynamic,
	  .flags = WORK_INFO },
	{ .name = "proc.fork", .run = fork_run, .reps = 2000 },
	{ .name = "proc.exec", .run = exec_run, .reps = 300, .prepare = paths_find },
	{ .name = "proc.dynamic", .run = dynamic_run, .reps = 200, .can = has_dynamic },
	{ 0 },
};

// SPDX-License-Identifier: MIT OR Apache-2.0
/* Messages between two processes: round trips through a pair of pipes. */
#include <sys/wait.h>
#include <unistd.h>

#include "gbench.h"

static void echo(int from, int to)
{
	uint64_t v;

	while (read(from, &v, sizeof(v)) == sizeof(v)) {
		v = mix(v, 1);
		if (write(to, &v, sizeof(v)) != sizeof(v))
			break;
	}
}

static uint64_t pipe_run(unsigned long reps)
{
	int there[2], back[2], status;
	uint64_t v = 1;
	pid_t pid;

	if (pipe(there) || pipe(back))
		bench_fail("pipe");
	pid = fork();
	if (pid < 0)
		bench_fail("fork");
	if (!pid) {
		close(there[1]);
		echo(there[0], back[1]);
		_exit(0);
	}
	for (unsigned long n = 0; n < reps; n++)
		if (write(there[1], &v, sizeof(v)) != sizeof(v) ||
		    read(back[0], &v, sizeof(v)) != sizeof(v))
			bench_fail("message");
	close(there[1]);
	waitpid(pid, &status, 0);
	return v;
}

const struct workload ipc_works[] = {
	{ .name = "ipc.pipe", .run = pipe_run, .reps = 40000, .flags = WORK_SMP },
	{ 0 },
};

// SPDX-License-Identifier: MIT OR Apache-2.0
/* Kernel-entry workloads: the shortest system call, the clock of the vDSO, a signal to oneself. */
#include <signal.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "gbench.h"

static uint64_t getpid_run(unsigned long reps)
{
	long pid = getpid();
	uint64_t same = 0;

	for (unsigned long n = 0; n < reps; n++)
		same += syscall(SYS_getpid) == pid;
	return same;
}

/* The checksum counts how often the clock did not go backward. */
static uint64_t clock_run(unsigned long reps)
{
	struct timespec last = { 0 }, now;
	uint64_t forward = 0;

	for (unsigned long n = 0; n < reps; n++) {
		clock_gettime(CLOCK_MONOTONIC, &now);
		forward += now.tv_sec > last.tv_sec ||
			   (now.tv_sec == last.tv_sec && now.tv_nsec >= last.tv_nsec);
		last = now;
	}
	return forward;
}

static volatile uint64_t caught;

static void on_signal(int number)
{
	caught += (unsigned)number;
}

static uint64_t signal_run(unsigned long reps)
{
	struct sigaction action = { .sa_handler = on_signal };
	pid_t pid = getpid();

	sigaction(SIGUSR1, &action, NULL);
	for (unsigned long n = 0; n < reps; n++)
		kill(pid, SIGUSR1);
	return caught;
}

const struct workload sys_works[] = {
	{ .name = "sys.getpid", .run = getpid_run, .reps = 1500000 },
	{ .name = "sys.clock", .run = clock_run, .reps = 6000000, .flags = WORK_SMP },
	{ .name = "sys.signal", .run = signal_run, .reps = 100000 },
	{ 0 },
};

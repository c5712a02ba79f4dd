// SPDX-License-Identifier: MIT OR Apache-2.0
/* The guest benchmark: runs workloads from the command line, or as a server on a pipe or a guest's console. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/resource.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include "gbench.h"

static const struct workload *const classes[] = {
	int_works, fp_works,   simd_works, mem_works,	 branch_works, sys_works,
	ipc_works, proc_works, mm_works,   thread_works, jit_works,
};

/* "gbench: " on a console, where the kernel writes too. */
static const char *prefix = "";

void bench_fail(const char *what)
{
	perror(what);
	exit(1);
}

void *area_alloc(size_t size, bool huge)
{
	void *area = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (area == MAP_FAILED)
		bench_fail("mmap");
	/* Hosts and guests have different defaults: ask for the same everywhere. */
	madvise(area, size, huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
	return area;
}

void area_free(void *area, size_t size)
{
	munmap(area, size);
}

static const struct workload *find(const char *name)
{
	for (size_t i = 0; i < sizeof(classes) / sizeof(classes[0]); i++)
		for (const struct workload *w = classes[i]; w->name; w++)
			if (!strcmp(w->name, name))
				return w;
	return NULL;
}

static double seconds_of(struct timeval t)
{
	return (double)t.tv_sec + (double)t.tv_usec * 1e-6;
}

/* Processor time of this process and of its children that have ended. */
static double cpu_seconds(void)
{
	struct rusage self, children;

	getrusage(RUSAGE_SELF, &self);
	getrusage(RUSAGE_CHILDREN, &children);
	return seconds_of(self.ru_utime) + seconds_of(self.ru_stime) +
	       seconds_of(children.ru_utime) + seconds_of(children.ru_stime);
}

/* One line "name seconds checksum cpu-seconds", written at once. */
static void measure(const struct workload *w, unsigned scale)
{
	unsigned long reps = w->reps * scale / 100;
	struct timespec start, end;
	char line[128];
	uint64_t sum;
	double cpu;
	int n;

	if (w->prepare)
		w->prepare();
	if (*prefix) {
		/* Whoever takes the processor time of the whole machine begins here. */
		n = snprintf(line, sizeof(line), "%s%s begins\n", prefix, w->name);
		if (write(1, line, (size_t)n) != n)
			_exit(1);
		tcdrain(1);
	}
	cpu = cpu_seconds();
	clock_gettime(CLOCK_MONOTONIC, &start);
	sum = w->run(reps ? reps : 1);
	clock_gettime(CLOCK_MONOTONIC, &end);
	cpu = cpu_seconds() - cpu;
	n = snprintf(line, sizeof(line), "%s%s %.6f %016llx %.6f\n", prefix, w->name,
		     (double)(end.tv_sec - start.tv_sec) +
			     (double)(end.tv_nsec - start.tv_nsec) * 1e-9,
		     (unsigned long long)sum, cpu);
	if (write(1, line, (size_t)n) != n)
		_exit(1);
}

/* In a child, so that a crash ends one workload only, and each begins with the same memory. */
static void run_apart(const char *name, unsigned scale)
{
	const struct workload *w = find(name);
	int status;
	pid_t pid;

	if (!w) {
		printf("%s%s unknown\n", prefix, name);
		return;
	}
	if (w->can && !w->can()) {
		printf("%s%s absent\n", prefix, name);
		return;
	}
	pid = fork();
	if (pid < 0)
		bench_fail("fork");
	if (!pid) {
		measure(w, scale);
		_exit(0);
	}
	waitpid(pid, &status, 0);
	if (WIFSIGNALED(status))
		printf("%s%s signal %d\n", prefix, name, WTERMSIG(status));
	else if (WEXITSTATUS(status))
		printf("%s%s status %d\n", prefix, name, WEXITSTATUS(status));
}

static void list_works(void)
{
	for (size_t i = 0; i < sizeof(classes) / sizeof(classes[0]); i++)
		for (const struct workload *w = classes[i]; w->name; w++)
			printf("%s %s %s\n", w->name, w->flags & WORK_SMP ? "smp" : "-",
			       w->flags & WORK_INFO ? "info" : "-");
}

static void read_word(const char *path, char *word, size_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, word, size - 1);

	word[n > 0 ? n : 0] = 0;
	word[strcspn(word, "\n")] = 0;
	for (char *c = word; *c; c++)
		if (*c == ' ')
			*c = ',';
	if (fd >= 0)
		close(fd);
}

/* The line that says that commands are welcome, and what this machine is. */
static void say_ready(void)
{
	char clock[64], thp[64];
	struct utsname u;

	uname(&u);
	read_word("/sys/devices/system/clocksource/clocksource0/current_clocksource", clock,
		  sizeof(clock));
	read_word("/sys/kernel/mm/transparent_hugepage/enabled", thp, sizeof(thp));
	printf("gbench: ready kernel=%s clocksource=%s thp=%s cpus=%ld\n", u.release, clock, thp,
	       sysconf(_SC_NPROCESSORS_ONLN));
}

/* Lines "NAME SCALE" until "quit" or the end. */
static void serve(void)
{
	char line[128], name[64];
	unsigned scale;

	setvbuf(stdout, NULL, _IOLBF, 0);
	prefix = "gbench: ";
	say_ready();
	while (fgets(line, sizeof(line), stdin) && strcmp(line, "quit\n"))
		if (sscanf(line, "%63s %u", name, &scale) == 2)
			run_apart(name, scale);
}

/* As the first process of a guest: what a distribution's scripts do, in a few lines. */
static void serve_as_init(void)
{
	struct termios t;

	mount("proc", "/proc", "proc", 0, NULL);
	mount("sys", "/sys", "sysfs", 0, NULL);
	mount("tmp", "/tmp", "tmpfs", 0, NULL);
	if (!tcgetattr(0, &t)) {
		t.c_lflag &= ~(tcflag_t)(ECHO | ISIG);
		t.c_oflag &= ~(tcflag_t)OPOST;
		tcsetattr(0, TCSANOW, &t);
	}
	serve();
	reboot(RB_POWER_OFF);
}

static int usage(void)
{
	fputs("usage: gbench list | serve | run NAME [SCALE]\n", stderr);
	return 2;
}

int main(int argc, char **argv)
{
	if (getpid() == 1) {
		serve_as_init();
		return 0;
	}
	if (argc == 3 && !strcmp(argv[1], EXEC_ARGUMENT))
		return atoi(argv[2]) & 0x7f;
	if (argc == 2 && !strcmp(argv[1], "list"))
		list_works();
	else if (argc == 2 && !strcmp(argv[1], "serve"))
		serve();
	else if (argc >= 3 && !strcmp(argv[1], "run"))
		run_apart(argv[2], argc > 3 ? (unsigned)atoi(argv[3]) : 100);
	else
		return usage();
	return 0;
}

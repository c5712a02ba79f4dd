/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The tests of one program: each in a child process with a deadline, in both forms or on a device; TAP. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "anykvm/anykvm.h"
#include "vm.h"

#define STATUS_FAILED 1
#define STATUS_SKIP   77
#define FAILURES_TOLD 8

static const struct vm_ops library = { anykvm_open, anykvm_ioctl, anykvm_mmap, anykvm_close };
static const struct vm_ops device = { (int (*)(const char *, int))open, ioctl, mmap, close };
const struct vm_ops *vm_ops = &library;
bool vm_on_device;
static int failures;

static void complain(const char *where, const char *format, va_list args)
{
	printf("# %s: ", where);
	vprintf(format, args);
	printf("\n");
	fflush(stdout);
}

void check_note(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	complain("note", format, args);
	va_end(args);
}

void check_failed(const char *where, const char *format, ...)
{
	va_list args;

	if (++failures > FAILURES_TOLD)
		return;
	va_start(args, format);
	complain(where, format, args);
	va_end(args);
}

void check_fatal(const char *where, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	complain(where, format, args);
	va_end(args);
	_exit(STATUS_FAILED);
}

void check_skip(const char *reason)
{
	printf("# skip: %s\n", reason);
	fflush(stdout);
	_exit(STATUS_SKIP);
}

uint64_t vm_seed(void)
{
	const char *s = getenv("ANYKVM_SEED");

	return s ? strtoull(s, NULL, 0) : 1;
}

uint64_t vm_random(uint64_t *state)
{
	uint64_t z = (*state += 0x9e3779b97f4a7c15ull);

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ z >> 27) * 0x94d049bb133111ebull;
	return z ^ z >> 31;
}

/* How often the time allowed is multiplied, for slow machines and sanitizers. */
static unsigned patience(void)
{
	const char *s = getenv("ANYKVM_PATIENCE");
	double d = s ? atof(s) : 1;

	return d < 1 ? 1 : d;
}

/* Wait with a deadline; the wait status, or -1 when the time is up. */
static int wait_for(pid_t pid, unsigned seconds)
{
	time_t end = time(NULL) + (time_t)seconds * patience();
	struct timespec nap = { .tv_nsec = 5000000 };
	int status;

	while (waitpid(pid, &status, WNOHANG) == 0) {
		if (time(NULL) > end) {
			kill(-pid, SIGKILL);
			waitpid(pid, &status, 0);
			return -1;
		}
		nanosleep(&nap, NULL);
	}
	return status;
}

static int run_child(const struct vm_test *t, const char *form)
{
	const char *more = getenv("ANYKVM_TEST_OPTIONS");
	char options[128];

	if (!vm_on_device) {
		snprintf(options, sizeof(options), "engine=%s,%s", form, more ? more : "");
		if (anykvm_configure(options))
			return STATUS_FAILED;
	}
	t->run();
	return failures ? STATUS_FAILED : 0;
}

static bool run_one(const struct vm_test *t, const char *form, unsigned number)
{
	unsigned seconds = t->seconds ? t->seconds : 20;
	const char *verdict = "ok", *why = "";
	char text[80];
	pid_t pid;
	int status;

	if (vm_on_device && t->library_only) {
		printf("ok %u - %s: %s # SKIP of the library only\n", number, form, t->name);
		return true;
	}
	fflush(stdout);
	pid = fork();
	if (!pid) {
		setpgid(0, 0);
		_exit(run_child(t, form));
	}
	setpgid(pid, pid);
	status = wait_for(pid, seconds);
	if (status == -1) {
		verdict = "not ok";
		snprintf(text, sizeof(text), "# did not end in %u s\n", seconds * patience());
		why = text;
	} else if (WIFSIGNALED(status)) {
		verdict = "not ok";
		snprintf(text, sizeof(text), "# ended by signal %d\n", WTERMSIG(status));
		why = text;
	} else if (WEXITSTATUS(status) && WEXITSTATUS(status) != STATUS_SKIP) {
		verdict = "not ok";
	}
	printf("%s %u - %s: %s%s\n%s", verdict, number, form, t->name,
	       WIFEXITED(status) && WEXITSTATUS(status) == STATUS_SKIP ? " # SKIP see above" : "",
	       why);
	return *verdict == 'o';
}

/* A KVM without VT-x or SVM emulates, which is no reference; ANYKVM_ANY_DEVICE takes it nevertheless. */
static const char *device_unfit(const char *path)
{
	FILE *f = fopen("/proc/cpuinfo", "r");
	char line[4096];
	bool fit = getenv("ANYKVM_ANY_DEVICE");

	while (f && !fit && fgets(line, sizeof(line), f))
		fit = !strncmp(line, "flags", 5) &&
		      (strstr(line, " vmx ") || strstr(line, " svm "));
	if (f)
		fclose(f);
	if (access(path, R_OK | W_OK))
		return "is not there, or not for this user";
	return fit ? NULL : "emulates: there is no VT-x or SVM";
}

static bool is_wanted(const char *name, int argc, char **argv)
{
	for (int i = 0; i < argc; i++)
		if (strstr(name, argv[i]))
			return true;
	return argc == 0;
}

/* usage: PROGRAM [--device DEVICE] [--form FORM] [PART-OF-A-NAME...] */
int main(int argc, char **argv)
{
	const char *forms[3] = { "checked", "fast", NULL };
	unsigned n = 0, failed = 0;
	int first = 1;

	if (argc > 2 && !strcmp(argv[1], "--device")) {
		const char *why = device_unfit(argv[2]);

		if (why) {
			printf("1..0 # SKIP %s %s\n", argv[2], why);
			return 0;
		}
		vm_ops = &device;
		vm_on_device = true;
		forms[0] = argv[2];
		forms[1] = NULL;
		first = 3;
	} else if (argc > 2 && !strcmp(argv[1], "--form")) {
		forms[0] = argv[2];
		forms[1] = NULL;
		first = 3;
	}
	for (const char **form = forms; *form; form++)
		for (unsigned i = 0; i < vm_ntests; i++)
			if (is_wanted(vm_tests[i].name, argc - first, argv + first))
				failed += !run_one(&vm_tests[i], *form, ++n);
	printf("1..%u\n", n);
	return failed ? 1 : 0;
}

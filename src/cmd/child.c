/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Running other programs and taking what they print. */
#define _GNU_SOURCE /* pipe2 */
#include "cmd/child.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static void stream_set(int fd, int to)
{
	int null;

	if (to == CHILD_INHERIT || to == fd)
		return;
	if (to >= 0) {
		dup2(to, fd);
		return;
	}
	null = open("/dev/null", O_RDWR | O_CLOEXEC);
	if (null >= 0)
		dup2(null, fd);
}

static _Noreturn void child_main(const char *const argv[], const char *directory, int in, int out,
				 int err, int report)
{
	sigset_t none;

	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	stream_set(STDIN_FILENO, in);
	stream_set(STDOUT_FILENO, out);
	stream_set(STDERR_FILENO, err);
	if (!directory || chdir(directory) == 0)
		execvp(argv[0], (char *const *)argv);
	if (write(report, &errno, sizeof(errno)) < 0)
		_exit(126);
	_exit(127);
}

int child_start(const char *const argv[], const char *directory, int in, int out, int err)
{
	int report[2], failure = 0;
	pid_t pid;

	if (pipe2(report, O_CLOEXEC) < 0)
		return -errno;
	pid = fork();
	if (pid == 0)
		child_main(argv, directory, in, out, err, report[1]);
	if (pid < 0)
		failure = errno;
	close(report[1]);
	/* End of file tells that exec() has happened. */
	while (pid > 0 && read(report[0], &failure, sizeof(failure)) < 0 && errno == EINTR)
		;
	close(report[0]);
	if (!failure)
		return pid;
	if (pid > 0)
		waitpid(pid, NULL, 0);
	return -failure;
}

int child_wait(int pid)
{
	int status;

	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return 127;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

int child_output(const char *const argv[], const char *directory, bool errors, char *out,
		 size_t room)
{
	size_t n = 0;
	int ends[2], pid;
	ssize_t r = 1;

	if (pipe2(ends, O_CLOEXEC) < 0)
		return -errno;
	pid = child_start(argv, directory, CHILD_NULL, ends[1], errors ? ends[1] : CHILD_NULL);
	close(ends[1]);
	while (pid > 0 && r != 0) {
		char rest[512];
		const size_t space = room - 1 - n;

		r = space ? read(ends[0], out + n, space) : read(ends[0], rest, sizeof(rest));
		if (r < 0 && errno != EINTR)
			break;
		if (r > 0 && space)
			n += (size_t)r;
	}
	close(ends[0]);
	out[n] = 0;
	return pid < 0 ? pid : child_wait(pid);
}

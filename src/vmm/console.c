/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The serial console on stdin and stdout, and the signals of the process: one loop in the main thread. */
/*
 * The vCPU only appends to a buffer. The first byte wakes the loop, which waits BATCH_MS for more and
 * writes all at once: a guest that prints byte by byte costs one wake-up and one write per batch. Everything that can
 * block is behind poll(), so that Ctrl-A x and signals work while nobody reads stdout.
 */
#include "vmm/console.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <time.h>
#include <unistd.h>

#include "vmm/say.h"
#include "vmm/terminal.h"

#define BUFFER	     65536u
#define CHUNK	     4096u /* PIPE_BUF: writable means that so much fits */
#define BATCH_MS     2
#define FULL_MS	     20	  /* look again whether the guest has taken its input */
#define DRAIN_MS     2000 /* for what is left when the VM has ended */
#define ESCAPE	     0x01 /* Ctrl-A */
#define ESCAPED_HELP "Ctrl-A x quits, Ctrl-A Ctrl-A sends Ctrl-A, Ctrl-A h shows this"

enum { AT_WAKE, AT_SIGNAL, AT_INPUT, AT_OUTPUT, AT_COUNT };

struct console {
	const struct console_ops *ops;
	void *owner;
	int wake_fd;
	int signal_fd;
	sigset_t old_mask;
	atomic_bool stopped;
	bool input_open;
	bool escaped;
	bool output_broken;
	int output_fd;
	s64 due_ms; /* when the batch is to be written; 0: nothing waits */

	pthread_mutex_t lock; /* the buffer */
	pthread_cond_t space;
	u8 buffer[BUFFER];
	unsigned at, count;
};

static s64 now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (s64)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static const int end_signals[] = { SIGTERM, SIGINT, SIGHUP, SIGQUIT };

static int signals_take(struct console *c)
{
	sigset_t set;

	sigemptyset(&set);
	for (size_t i = 0; i < ARRAY_SIZE(end_signals); i++)
		sigaddset(&set, end_signals[i]);
	sigaddset(&set, SIGTSTP);
	signal(SIGPIPE, SIG_IGN);
	pthread_sigmask(SIG_BLOCK, &set, &c->old_mask);
	return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

struct console *console_create(const struct console_ops *ops, void *owner)
{
	struct console *c = calloc(1, sizeof(*c));

	if (!c)
		return NULL;
	c->ops = ops;
	c->owner = owner;
	c->input_open = true;
	c->output_fd = STDOUT_FILENO;
	pthread_mutex_init(&c->lock, NULL);
	pthread_cond_init(&c->space, NULL);
	c->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	c->signal_fd = signals_take(c);
	if (c->wake_fd < 0 || c->signal_fd < 0) {
		console_destroy(c);
		return NULL;
	}
	return c;
}

void console_destroy(struct console *c)
{
	const int err = errno;

	if (c->wake_fd >= 0)
		close(c->wake_fd);
	if (c->signal_fd >= 0)
		close(c->signal_fd);
	pthread_sigmask(SIG_SETMASK, &c->old_mask, NULL);
	pthread_cond_destroy(&c->space);
	pthread_mutex_destroy(&c->lock);
	free(c);
	errno = err;
}

void console_detach(struct console *c, int fd)
{
	c->input_open = false;
	c->output_fd = fd;
	c->output_broken = fd < 0;
}

static void wake(struct console *c)
{
	const u64 one = 1;

	if (write(c->wake_fd, &one, sizeof(one)) < 0)
		return; /* the counter is full: it is awake */
}

void console_open(struct console *c)
{
	atomic_store(&c->stopped, false);
}

void console_stop(struct console *c)
{
	atomic_store(&c->stopped, true);
	pthread_mutex_lock(&c->lock);
	pthread_cond_broadcast(&c->space);
	pthread_mutex_unlock(&c->lock);
	wake(c);
}

void console_write(struct console *c, u8 byte)
{
	bool first;

	pthread_mutex_lock(&c->lock);
	while (c->count == BUFFER && !atomic_load(&c->stopped) && c->output_fd >= 0)
		pthread_cond_wait(&c->space, &c->lock);
	first = c->count == 0 && c->output_fd >= 0;
	if (c->count < BUFFER && c->output_fd >= 0)
		c->buffer[(c->at + c->count++) % BUFFER] = byte;
	pthread_mutex_unlock(&c->lock);
	if (first)
		wake(c);
}

static void output_failed(struct console *c, int err)
{
	c->output_broken = true;
	if (err == EPIPE)
		c->ops->signal(c->owner, SIGPIPE);
	else
		c->ops->failed(c->owner, err);
}

/* Write one chunk; the buffer is only read here, so it may be written without the lock. */
static void output_some(struct console *c)
{
	unsigned n, rest;
	ssize_t done;

	pthread_mutex_lock(&c->lock);
	n = c->count < CHUNK ? c->count : CHUNK;
	if (n > BUFFER - c->at)
		n = BUFFER - c->at;
	pthread_mutex_unlock(&c->lock);
	done = c->output_broken ? (ssize_t)n : write(c->output_fd, c->buffer + c->at, n);
	if (done < 0 && (errno == EINTR || errno == EAGAIN))
		return;
	if (done < 0) {
		output_failed(c, errno);
		done = n;
	}
	pthread_mutex_lock(&c->lock);
	c->at = (c->at + (unsigned)done) % BUFFER;
	c->count -= (unsigned)done;
	rest = c->count;
	pthread_cond_broadcast(&c->space);
	pthread_mutex_unlock(&c->lock);
	if (!rest)
		c->due_ms = 0;
}

/* Ctrl-A and what follows it; returns the bytes that are for the guest. */
static size_t escapes_take(struct console *c, u8 *data, size_t n)
{
	size_t kept = 0;

	for (size_t i = 0; i < n; i++) {
		const u8 byte = data[i];

		if (!c->escaped) {
			c->escaped = byte == ESCAPE;
			if (!c->escaped)
				data[kept++] = byte;
			continue;
		}
		c->escaped = false;
		if (byte == 'x' || byte == 'X')
			c->ops->quit(c->owner);
		else if (byte == 'h' || byte == '?')
			say(ESCAPED_HELP);
		else
			data[kept++] = byte; /* Ctrl-A Ctrl-A too */
	}
	return kept;
}

static void input_some(struct console *c)
{
	u8 data[1024];
	size_t room = c->ops->room(c->owner);
	ssize_t n = read(STDIN_FILENO, data, room < sizeof(data) ? room : sizeof(data));

	if (n < 0 && (errno == EINTR || errno == EAGAIN))
		return;
	if (n <= 0) {
		c->input_open = false; /* end of file: the guest runs on without input */
		return;
	}
	n = (ssize_t)escapes_take(c, data, (size_t)n);
	if (n)
		c->ops->input(c->owner, data, (size_t)n);
}

static void signal_serve(struct console *c)
{
	struct signalfd_siginfo info;

	if (read(c->signal_fd, &info, sizeof(info)) != sizeof(info))
		return;
	if (info.ssi_signo != SIGTSTP) {
		c->ops->signal(c->owner, (int)info.ssi_signo);
		return;
	}
	terminal_restore();
	raise(SIGSTOP);
	terminal_raw();
}

static void wake_serve(struct console *c)
{
	u64 count;

	if (read(c->wake_fd, &count, sizeof(count)) < 0)
		return;
	if (!c->due_ms)
		c->due_ms = now_ms() + BATCH_MS;
}

static unsigned pending(struct console *c)
{
	unsigned n;

	pthread_mutex_lock(&c->lock);
	n = c->count;
	pthread_mutex_unlock(&c->lock);
	if (!n)
		c->due_ms = 0;
	return n;
}

static void loop_once(struct console *c)
{
	struct pollfd fds[AT_COUNT] = { [AT_WAKE] = { c->wake_fd, POLLIN, 0 },
					[AT_SIGNAL] = { c->signal_fd, POLLIN, 0 },
					[AT_INPUT] = { -1, POLLIN, 0 },
					[AT_OUTPUT] = { -1, POLLOUT, 0 } };
	int timeout = -1;

	if (c->input_open && c->ops->room(c->owner))
		fds[AT_INPUT].fd = STDIN_FILENO;
	else if (c->input_open)
		timeout = FULL_MS;
	if (c->due_ms && pending(c)) {
		const s64 left = c->due_ms - now_ms();

		if (left <= 0)
			fds[AT_OUTPUT].fd = c->output_fd;
		else
			timeout = (int)left;
	}
	if (poll(fds, AT_COUNT, timeout) < 0)
		return;
	if (fds[AT_WAKE].revents)
		wake_serve(c);
	if (fds[AT_SIGNAL].revents)
		signal_serve(c);
	if (fds[AT_INPUT].revents)
		input_some(c);
	if (fds[AT_OUTPUT].revents)
		output_some(c);
}

/* The guest has ended: nobody adds to the buffer any more. */
static void drain(struct console *c)
{
	const s64 until = now_ms() + DRAIN_MS;
	struct pollfd out = { c->output_fd, POLLOUT, 0 };

	while (pending(c) && !c->output_broken && now_ms() < until)
		if (poll(&out, 1, 100) > 0)
			output_some(c);
}

void console_run(struct console *c)
{
	while (!atomic_load(&c->stopped))
		loop_once(c);
	drain(c);
}

/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The terminal on stdin: raw while a VM runs, restored on every way out. */
#include "vmm/terminal.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#include "base/types.h"
#include "vmm/say.h"

static struct termios saved;
static volatile sig_atomic_t is_raw;

/* Signals that end the process from inside; those from outside come through the console's loop. */
static const int fatal_signals[] = { SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT, SIGSYS, SIGXCPU };

void terminal_restore(void)
{
	if (!is_raw)
		return;
	is_raw = 0;
	tcsetattr(STDIN_FILENO, TCSANOW, &saved);
	say_set_raw(false);
}

static void fatal_signal(int signal)
{
	terminal_restore();
	raise(signal); /* SA_RESETHAND: the default action, when this handler returns */
}

static void handlers_install(void)
{
	struct sigaction action = { .sa_handler = fatal_signal,
				    .sa_flags = (int)SA_RESETHAND | SA_ONSTACK };

	sigemptyset(&action.sa_mask);
	for (size_t i = 0; i < ARRAY_SIZE(fatal_signals); i++)
		sigaction(fatal_signals[i], &action, NULL);
	atexit(terminal_restore);
}

void terminal_raw(void)
{
	static bool installed;
	struct termios raw;

	if (is_raw || tcgetattr(STDIN_FILENO, &raw) < 0)
		return;
	saved = raw;
	cfmakeraw(&raw);
	if (!installed)
		handlers_install();
	installed = true;
	is_raw = 1;
	tcsetattr(STDIN_FILENO, TCSANOW, &raw);
	say_set_raw(true);
}

bool terminal_size(unsigned *rows, unsigned *columns)
{
	struct winsize size;

	if (ioctl(STDIN_FILENO, TIOCGWINSZ, &size) < 0 || !size.ws_row || !size.ws_col)
		return false;
	*rows = size.ws_row;
	*columns = size.ws_col;
	return true;
}

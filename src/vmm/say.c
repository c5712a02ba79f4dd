/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The program's own lines on stderr, also while the terminal is raw. */
#include "vmm/say.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const char *vm_name;
static bool terminal_is_raw;

void say_set_name(const char *name)
{
	vm_name = name;
}

void say_set_raw(bool raw)
{
	terminal_is_raw = raw;
}

void say(const char *format, ...)
{
	char line[1200];
	const size_t room = sizeof(line) - 3; /* CR, LF, NUL */
	size_t n;
	va_list args;

	n = (size_t)snprintf(line, 200, vm_name ? "anykvm[%s]: " : "anykvm: ", vm_name);
	if (n > 199)
		n = 199;
	va_start(args, format);
	vsnprintf(line + n, room - n, format, args);
	va_end(args);
	n = strlen(line);
	if (terminal_is_raw)
		line[n++] = '\r';
	line[n++] = '\n';
	/* One write per line, so that lines of several threads do not mix. */
	if (write(STDERR_FILENO, line, n) < 0)
		return;
}

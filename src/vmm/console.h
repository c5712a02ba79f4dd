/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The serial console on stdin and stdout, and the signals of the process: one loop in the main thread. */
#ifndef VMM_CONSOLE_H
#define VMM_CONSOLE_H

#include "base/types.h"
#include "vmm/why.h"

struct console;

/* Called from console_run(). */
struct console_ops {
	size_t (*room)(void *owner);			      /* bytes that input() takes */
	void (*input)(void *owner, const u8 *data, size_t n); /* at most room() */
	void (*quit)(void *owner);			      /* Ctrl-A x */
	void (*signal)(void *owner, int signal); /* the process shall end; SIGPIPE: nobody reads */
	void (*failed)(void *owner, int err);	 /* stdout cannot be written */
};

/* Blocks the signals that end the process in the calling thread, and so in those it makes. NULL and errno. */
struct console *console_create(const struct console_ops *ops, void *owner);
void console_destroy(struct console *c);

/* Before it runs: no input, and output to @fd, or nowhere (-1). */
void console_detach(struct console *c, int fd);

/* From a vCPU: waits only while the buffer is full and the console runs. */
void console_write(struct console *c, u8 byte);

/* Before the vCPU starts: a stop from now on is not lost. */
void console_open(struct console *c);

/* Serve input, output and signals until console_stop(); then write what is left. */
void console_run(struct console *c);
void console_stop(struct console *c); /* any thread */

#endif

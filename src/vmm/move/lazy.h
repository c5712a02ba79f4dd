/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Memory of a snapshot that is read when it is used. */
/*
 * The host's memory stays missing (userfaultfd) until a chunk of the file was read and checked: so nothing is used before it is
 * known to be right. A processor that touches a missing chunk waits in its fault; devices and jobs, which may go through the host's
 * kernel, ask by ram_need(). One thread serves both, and reads the rest while nobody wants anything.
 */
#ifndef VMM_MOVE_LAZY_H
#define VMM_MOVE_LAZY_H

#include <pthread.h>
#include <stdatomic.h>

#include "vmm/move/snapshot.h"

struct lazy {
	struct ram_source source;
	struct snapshot *snapshot;
	const struct ram *ram;
	void (*damaged)(void *owner, const char *text);
	void *owner;
	int fault_fd, wake_fd;
	u8 *buffer;
	u64 chunks, next;	    /* all before .next are there */
	_Atomic u64 *done, *wanted; /* a bit per chunk */
	u64 *bad;		    /* the thread's: chunks that are damaged */
	atomic_bool cancelled, is_lost, is_running;
	pthread_mutex_t lock; /* for .changed */
	pthread_cond_t changed;
	pthread_t thread;
	bool has_thread;
};

/*
 * @ram: fresh, and not used before. damaged() is called from another thread, before anything of a wrong page is used.
 * @by_kernel: the host's kernel uses this memory in the processors' place. 0; -ENOSYS with one line when the host does not allow
 * it, and nothing has changed; or another -errno.
 */
int lazy_begin(struct lazy *l, struct snapshot *snapshot, struct ram *ram, bool by_kernel,
	       void (*damaged)(void *owner, const char *text), void *owner, struct why *why);
void lazy_runs(struct lazy *l); /* before the first processor runs; also one of zeros */
void lazy_end(struct lazy *l);	/* nobody uses the memory any more; also one of zeros */

#endif

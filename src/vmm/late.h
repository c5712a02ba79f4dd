/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Libraries that few runs need: loaded when one does, because each that is loaded costs every start a millisecond. */
#ifndef VMM_LATE_H
#define VMM_LATE_H

#include <pthread.h>

#include "base/types.h"
#include "vmm/why.h"

struct late {
	const char *file;    /* as the dynamic loader knows it */
	const char *package; /* Debian's, for the message */
	const char *const *names;
	void **functions; /* their addresses, once it is loaded */
	size_t count;
	pthread_mutex_t lock;
	bool is_loaded;
};

/* Call by a prototype that a header has: LATE(name, address)(arguments). */
#define LATE(name, address) ((__typeof__(&(name)))(address))

/* 0, also when it is there already; or -ENOENT with one line. Any thread. */
int late_load(struct late *l, struct why *why);

#endif

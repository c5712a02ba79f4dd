/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Counters of a KVM descriptor, as KVM_GET_STATS_FD gives them. */
#ifndef VMM_STATS_H
#define VMM_STATS_H

#include "base/types.h"

/* @fd: what KVM_GET_STATS_FD gave. @fn for each counter. */
void stats_visit(int fd, void (*fn)(void *arg, const char *name, unsigned long value), void *arg);

/* The counter @name; false: there is none. */
bool stats_read(int fd, const char *name, u64 *value);

#endif

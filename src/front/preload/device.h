/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The path /dev/kvm: what looking at it and opening it give. */
#ifndef FRONT_PRELOAD_DEVICE_H
#define FRONT_PRELOAD_DEVICE_H

#include <sys/stat.h>

#include "base/types.h"

struct statx; /* with _GNU_SOURCE only */

/* Whether the path names /dev/kvm and that is ours. @dir as in openat(). */
bool device_is(int dir, const char *path);

/* As the system calls; -1 and errno. */
int device_open(int flags);
int device_access(int mode);
int device_not_a_link(void); /* readlink() */
void device_stat(struct stat *st);
void device_statx(struct statx *stx);

#endif

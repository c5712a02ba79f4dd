/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Functions of libc that take a path: open, stat, access and readlink see our device at /dev/kvm. */
#ifndef FRONT_PRELOAD_PATHS_H
#define FRONT_PRELOAD_PATHS_H

#include <sys/types.h>

/* As openat(). */
int path_open(int dir, const char *path, int flags, mode_t mode);

/* As access(). */
int path_access(const char *path, int mode);

#endif

/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Files that were fetched once: ${XDG_CACHE_HOME:-~/.cache}/anykvm. */
#ifndef CMD_CACHE_H
#define CMD_CACHE_H

#include <limits.h>

#include "base/types.h"
#include "vmm/why.h"

#define CACHE_DEFAULT_KERNEL "linux-image-cloud-amd64"

/*
 * The kernel of a Debian package (a real one, or one that depends on it, as CACHE_DEFAULT_KERNEL does); fetched
 * by apt where it is not there or @refresh is set. 0 and the path, or -errno.
 */
int cache_kernel(const char *package, bool refresh, char path[PATH_MAX], struct why *why);

/* The program of busybox-static, or of busybox-static:ARCHITECTURE. 0 and the path, or -errno. */
int cache_program(const char *package, char path[PATH_MAX], struct why *why);

/* The folder with the modules of a kernel: in the cache, or the host's own. 0, or -ENOENT. */
int cache_modules(const char *version, char path[PATH_MAX], struct why *why);

/* A static busybox: the host's own, the cached one, or Debian's busybox-static. */
int cache_busybox(char path[PATH_MAX], struct why *why);

#endif

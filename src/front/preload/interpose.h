/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Functions that stand before libc's of the same name, declared where no header does. */
#ifndef FRONT_PRELOAD_INTERPOSE_H
#define FRONT_PRELOAD_INTERPOSE_H

#include <signal.h>
#include <sys/stat.h>
#include <sys/types.h>

/* Each has a line in the file "names", from which the exports are made. */
#define INTERPOSE __attribute__((visibility("default")))

struct stat64; /* with _GNU_SOURCE only */

int __open_2(const char *path, int flags);
int __open64_2(const char *path, int flags);
int __openat_2(int dir, const char *path, int flags);
int __openat64_2(int dir, const char *path, int flags);
int __xstat(int version, const char *path, struct stat *st);
int __xstat64(int version, const char *path, struct stat64 *st);
int __lxstat(int version, const char *path, struct stat *st);
int __lxstat64(int version, const char *path, struct stat64 *st);
int __fxstat(int version, int fd, struct stat *st);
int __fxstat64(int version, int fd, struct stat64 *st);
int __fxstatat(int version, int dir, const char *path, struct stat *st, int flags);
int __fxstatat64(int version, int dir, const char *path, struct stat64 *st, int flags);
ssize_t __readlink_chk(const char *path, char *buf, size_t size, size_t room);
ssize_t __readlinkat_chk(int dir, const char *path, char *buf, size_t size, size_t room);
__sighandler_t bsd_signal(int sig, __sighandler_t handler);
__sighandler_t sysv_signal(int sig, __sighandler_t handler);

#endif

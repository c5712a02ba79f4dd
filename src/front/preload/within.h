/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* What the library itself calls: the linker (--wrap) leads its references past our own functions to these. */
#ifndef FRONT_PRELOAD_WITHIN_H
#define FRONT_PRELOAD_WITHIN_H

#include <signal.h>
#include <sys/stat.h>
#include <sys/types.h>

int __wrap_open64(const char *path, int flags, ...);
int __wrap_fstat64(int fd, struct stat *st);
int __wrap_close(int fd);
ssize_t __wrap_write(int fd, const void *buf, size_t size);
int __wrap_fcntl64(int fd, int command, ...);
int __wrap_dup(int fd);
int __wrap_ioctl(int fd, unsigned long request, ...);
long __wrap_syscall(long number, ...);
void *__wrap_mmap64(void *addr, size_t length, int prot, int flags, int fd, off_t offset);
int __wrap_sigaction(int sig, const struct sigaction *act, struct sigaction *old);
int __wrap_prctl(int option, ...);
int __wrap_pthread_sigmask(int how, const sigset_t *set, sigset_t *old);

#endif

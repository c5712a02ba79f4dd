/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Functions of libc that close and duplicate descriptors: the table of ours follows. */
#ifndef FRONT_PRELOAD_DESCRIPTORS_H
#define FRONT_PRELOAD_DESCRIPTORS_H

/* As the system calls. */
int descriptor_close(int fd);
int descriptor_close_range(unsigned first, unsigned last, int flags);
int descriptor_dup(int fd);
int descriptor_dup2(int fd, int to);
int descriptor_dup3(int fd, int to, int flags);
int descriptor_fcntl(int fd, int command, unsigned long arg);

#endif

/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* write, writev and eventfd_write of libc: what goes to an eventfd of KVM_IRQFD is injected by the writer itself. */
#ifndef FRONT_PRELOAD_EVENTFDS_H
#define FRONT_PRELOAD_EVENTFDS_H

#include <sys/types.h>

struct iovec;

/* As the system calls; -1 and errno. */
ssize_t eventfds_write(int fd, const void *buf, size_t size);
ssize_t eventfds_writev(int fd, const struct iovec *iov, int n);

#endif

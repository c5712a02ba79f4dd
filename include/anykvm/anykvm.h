/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The KVM user API without virtualization hardware: what /dev/kvm does, as four functions. */
#ifndef ANYKVM_ANYKVM_H
#define ANYKVM_ANYKVM_H

#include <sys/types.h>

#ifdef __cplusplus
extern "C" {
#endif

/*
 * File descriptors returned here are real kernel descriptors (memfds): they may be mapped, duplicated and
 * polled. Numbers, structures and errno of every request are those of <linux/kvm.h> and of the
 * kernel document Documentation/virt/kvm/api.rst. All functions may be called from any thread; KVM_RUN
 * as in the kernel from one thread at a time per vCPU. In a child of fork() every request fails with EIO.
 */

/* @path: "/dev/kvm". @flags: as open(2); only O_CLOEXEC has an effect. Returns a descriptor, or -1 and errno (ENOENT, EMFILE, ENOMEM, ENOTSUP). */
int anykvm_open(const char *path, int flags);

/* As ioctl(2) on a descriptor of ours; at most one argument. -1 and errno on failure; ENOTTY for an unknown request, EBADF for a foreign descriptor. */
int anykvm_ioctl(int fd, unsigned long request, ...);

/* As mmap(2) on a vCPU descriptor: KVM_GET_VCPU_MMAP_SIZE bytes at offset 0. */
void *anykvm_mmap(void *addr, size_t length, int prot, int flags, int fd, off_t offset);

/* As close(2). A VM lives until its own descriptor and those of its vCPUs are closed. */
int anykvm_close(int fd);

/* Version of this library, "MAJOR.MINOR.PATCH". */
const char *anykvm_version(void);

#ifdef __cplusplus
}
#endif

#endif

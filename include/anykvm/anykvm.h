/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The KVM user API without virtualization hardware: what /dev/kvm does, as four functions. */
#ifndef ANYKVM_ANYKVM_H
#define ANYKVM_ANYKVM_H

#include <stdio.h>
#include <sys/types.h>

#ifdef __cplusplus
extern "C" {
#endif

#define ANYKVM_API __attribute__((visibility("default")))

/*
 * File descriptors returned here are real kernel descriptors (memfds): they may be mapped, duplicated and
 * polled. Numbers, structures and errno of every request are those of <linux/kvm.h> and of the
 * kernel document Documentation/virt/kvm/api.rst. All functions may be called from any thread; KVM_RUN
 * as in the kernel from one thread at a time per vCPU. In a child of fork() every request on a
 * descriptor of the parent fails with EIO; the child may open its own.
 *
 * Close descriptors with anykvm_close(), not with close(2). A guest address space is memory of the
 * caller: it must stay mapped while a memory slot names it.
 */

/*
 * @path: "/dev/kvm". @flags: as open(2); only O_CLOEXEC has an effect. Returns a descriptor, or -1 and errno:
 * ENOENT (other path), EINVAL (ANYKVM_OPTIONS; one line on stderr says what), EMFILE, ENFILE, ENOMEM,
 * ENOTSUP (the machine lacks something; one line on stderr).
 */
ANYKVM_API int anykvm_open(const char *path, int flags);

/*
 * As ioctl(2) on a descriptor of ours; at most one argument, a number or a pointer. A bad pointer gives EFAULT.
 * -1 and errno on failure. An unknown request fails as in the kernel: EINVAL on the system and on
 * vCPU descriptors, ENOTTY on a VM's. EBADF for a foreign descriptor.
 */
ANYKVM_API int anykvm_ioctl(int fd, unsigned long request, ...);

/* As mmap(2) on a vCPU descriptor: KVM_GET_VCPU_MMAP_SIZE bytes at offset 0. ENODEV for other kinds. */
ANYKVM_API void *anykvm_mmap(void *addr, size_t length, int prot, int flags, int fd, off_t offset);

/* As close(2). A VM lives until its own descriptor and those of its vCPUs are closed. EBADF: not ours. */
ANYKVM_API int anykvm_close(int fd);

/*
 * Choose what ANYKVM_OPTIONS would choose, for the whole process, before the first anykvm_open():
 * "engine=checked|fast,cpu-mask=none|x86-64-v2|x86-64-v3|x86-64-v4,counters=on|off,windows=on|off,beside=on|off,dirty=wp|pml,perf-map=on|off"; any part may be missing. The environment is ignored
 * then. 0, or -1 and errno: EINVAL (one line on stderr), EBUSY (already open).
 */
ANYKVM_API int anykvm_configure(const char *options);

/* Whether @fd is a descriptor of ours: 1 or 0. */
ANYKVM_API int anykvm_is_ours(int fd);

/*
 * Counters of a VM (all its vCPUs together) or of one vCPU, at any time: @fn is called for each, under a lock, and must not
 * call back. Names are for people and may change with a version. Values count up from creation, but for those that
 * say how much there is (cache_*, *_bytes, *_room, pages_*, blocking). -1 and errno: EBADF, EINVAL (neither VM nor vCPU), EIO.
 */
ANYKVM_API int anykvm_counters(int fd, void (*fn)(void *arg, const char *name, unsigned long value),
			       void *arg);

/* The same as lines "name value". */
ANYKVM_API int anykvm_print_counters(int fd, FILE *out);

/*
 * Where a vCPU is this moment, as a small number whose name anykvm_where_name() gives (NULL: past the last): "idle" (halted),
 * "outside" (not in KVM_RUN), "kvm" (between KVM_RUN and the processor), "guest" (translated code), "slow_path" (of a memory
 * access), "dispatch", "translate", "device", "engine", or "helper_NAME". Who asks often, at times that do not depend on the guest, learns
 * the shares of its time. It costs no system call, and the vCPU nothing. What is short counts as "guest" unless anykvm_watch()
 * has been called with 1 on the VM; that costs the guest a few percent until it is called with 0.
 * -1 and errno: EBADF, EINVAL (another kind), EIO.
 */
ANYKVM_API int anykvm_where(int vcpu_fd);
ANYKVM_API const char *anykvm_where_name(int where);
ANYKVM_API int anykvm_watch(int vm_fd, int on);

/*
 * As eventfd_write(3). When @fd is the number that KVM_IRQFD was called with, the interrupt is injected here and now,
 * where a plain write would wake a helper thread first. Deassign such an eventfd before its number is closed.
 * Safe in signal handlers. 0, or -1 and errno as of write(2).
 */
ANYKVM_API int anykvm_eventfd_write(int fd, unsigned long long value);

/* Version of this library, "MAJOR.MINOR.PATCH". */
ANYKVM_API const char *anykvm_version(void);

#ifdef __cplusplus
}
#endif

#endif

/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Copies from and to pointers that the program passed: a bad one gives -EFAULT, not a crash. */
#define _GNU_SOURCE
#include <errno.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "engine/engine.h"
#include "kvm/calling.h"
#include "kvm/file.h"
#include "kvm/usercopy.h"

/*
 * process_vm_readv() on the own process is always permitted by the kernel; where a seccomp filter
 * forbids it with an error, the bytes go through a memfd, whose write() and read() report a bad pointer likewise.
 * A filter that ends the process instead is known beforehand: there the copy is direct, and its fault is caught.
 */
static ssize_t through_memfd(void *ours, hva_t theirs, size_t len, bool is_write)
{
	int fd = syscall(SYS_memfd_create, "anykvm-copy", MFD_CLOEXEC);
	ssize_t n = -1;

	if (fd < 0)
		return -1;
	if (is_write) {
		if (pwrite(fd, ours, len, 0) == (ssize_t)len)
			n = pread(fd, (void *)theirs, len, 0);
	} else if (pwrite(fd, (const void *)theirs, len, 0) == (ssize_t)len) {
		n = pread(fd, ours, len, 0);
	}
	close(fd);
	return n;
}

static int copy(void *ours, hva_t theirs, size_t len, bool is_write)
{
	struct iovec a = { ours, len }, b = { (void *)theirs, len };
	ssize_t n;

	if (!len)
		return 0;
	if (calling_is_restricted(CALLING_DIRECT_COPY))
		return engine_probe_copy(is_write ? (void *)theirs : ours,
					 is_write ? ours : (const void *)theirs, len)
			       ? -EFAULT
			       : 0;
	n = is_write ? process_vm_writev(file_pid(), &a, 1, &b, 1, 0)
		     : process_vm_readv(file_pid(), &a, 1, &b, 1, 0);
	if (n < 0 && errno != EFAULT)
		n = through_memfd(ours, theirs, len, is_write);
	return n == (ssize_t)len ? 0 : -EFAULT;
}

int user_read(void *dst, hva_t src, size_t len)
{
	return copy(dst, src, len, false);
}

int user_write(hva_t dst, const void *src, size_t len)
{
	return copy((void *)src, dst, len, true);
}

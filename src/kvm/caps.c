/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* KVM_CHECK_EXTENSION, by caps.def. */
#define _GNU_SOURCE
#include <sched.h>
#include <unistd.h>

#include "kvm/kvm.h"

/* As the kernel: the processors that are online, at most what a VM may have. */
static int caps_online_cpus(void)
{
	long n = sysconf(_SC_NPROCESSORS_ONLN);

	return n < 1 ? 1 : n > VM_MAX_VCPUS ? VM_MAX_VCPUS : n;
}

int caps_check(const struct system *sys, const struct vm *vm, unsigned long cap)
{
	(void)vm; /* no capability differs by VM yet */
	switch (cap) {
#define KVM_CAP(name, value)                                                                       \
	case name:                                                                                 \
		return value;
#include "kvm/caps.def"
#undef KVM_CAP
	default:
		return 0;
	}
}

/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* ANYKVM=auto|force|off: whether /dev/kvm is ours. */
#define _GNU_SOURCE
#include "front/preload/mode.h"

#include <cpuid.h>
#include <errno.h>
#include <linux/kvm.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "front/preload/real.h"

enum { UNDECIDED, OURS, DEVICE };

#define CPUID_1_ECX_VMX	       BIT(5)
#define CPUID_80000001_ECX_SVM BIT(2)

/*
 * KVM without either (KVM_PVM) executes ordinary guests in the kernel's emulator, at half a microsecond
 * an instruction and without SSE: not what somebody means who asks for KVM.
 */
static bool processor_virtualizes(void)
{
	u32 a, b, c, d;

	return (__get_cpuid(1, &a, &b, &c, &d) && c & CPUID_1_ECX_VMX) ||
	       (__get_cpuid(0x80000001, &a, &b, &c, &d) && c & CPUID_80000001_ECX_SVM);
}

static bool device_works(void)
{
	int fd, version;

	if (!processor_virtualizes())
		return false;
	fd = real_open("/dev/kvm", O_RDWR | O_CLOEXEC, 0);
	if (fd < 0)
		return false;
	version = real_ioctl(fd, KVM_GET_API_VERSION, 0);
	real_close(fd);
	return version == KVM_API_VERSION;
}

static int decide(void)
{
	const char *text = getenv("ANYKVM");

	if (text && !strcmp(text, "force"))
		return OURS;
	if (text && !strcmp(text, "off"))
		return DEVICE;
	if (text && *text && strcmp(text, "auto"))
		dprintf(STDERR_FILENO,
			"anykvm: ANYKVM=%.40s is unknown; use auto, force or off; auto is taken "
			"(AK002)\n",
			text);
	return device_works() ? DEVICE : OURS;
}

bool mode_is_ours(void)
{
	static int decision;
	int d = __atomic_load_n(&decision, __ATOMIC_ACQUIRE), none = UNDECIDED, saved = errno;

	if (unlikely(d == UNDECIDED)) {
		d = decide();
		if (!__atomic_compare_exchange_n(&decision, &none, d, false, __ATOMIC_ACQ_REL,
						 __ATOMIC_ACQUIRE))
			d = none;
		errno = saved;
	}
	return d == OURS;
}

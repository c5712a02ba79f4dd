/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* USDT probes, named as the kernel's tracepoints of KVM: a NOP each, and a note that tells tools where it is. */
#ifndef BASE_PROBE_H
#define BASE_PROBE_H

/*
 * PROBE(kvm_entry, vcpu, rip): the rows of probes.def, whose numbers of arguments a test compares with the library's. Arguments
 * are values that are there anyway: whoever computes one for a probe pays for it without a tool too. Fine in leaf code.
 */
#if defined(__has_include) && !defined(ANYKVM_NO_PROBES) /* a test has it: as without the header */
#if __has_include(<sys/sdt.h>)
#define SDT_USE_VARIADIC
#include <sys/sdt.h>
#define PROBE(name, ...) STAP_PROBEV(kvm, name, __VA_ARGS__)
#endif
#endif

#ifndef PROBE
static inline void probe_nothing(int unused, ...)
{
	(void)unused;
}
#define PROBE(name, ...) probe_nothing(0, __VA_ARGS__)
#endif

#endif

/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* A small KVM program that knows nothing of anykvm: a VM with one vCPU in real mode, through libc's functions only. */
#ifndef TESTS_FRONT_PROGRAM_H
#define TESTS_FRONT_PROGRAM_H

#include <linux/kvm.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>

#define MEMORY_SIZE 0x10000
#define CODE_AT	    0x1000

struct machine {
	int kvm, vm, vcpu;
	struct kvm_run *run;
	unsigned char *memory;
};

/* Fail the test with the line. */
#define CHECK(x)                                                                                   \
	do {                                                                                       \
		if (!(x)) {                                                                        \
			fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #x);                    \
			exit(1);                                                                   \
		}                                                                                  \
	} while (0)

void machine_make(struct machine *m);
/* Put @code at CODE_AT and the vCPU before it. */
void machine_code(struct machine *m, const void *code, size_t size);
void machine_close(struct machine *m);

/* jmp . */
#define CODE_SPIN "\xeb\xfe"
/* again: out 0x10, al; jmp again */
#define CODE_OUT "\xe6\x10\xeb\xfc"

struct test {
	const char *name;
	void (*run)(void);
};
extern const struct test signal_tests[], seccomp_tests[], irqfd_tests[], storm_tests[],
	trace_tests[], uffd_tests[]; /* end with a NULL name */

#endif

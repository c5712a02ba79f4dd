/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Running one virtual processor: KVM_RUN, and a table of what follows from each exit. */
#ifndef VMM_EXITS_H
#define VMM_EXITS_H

#include <stdatomic.h>

#include "vmm/status.h"
#include "vmm/machine.h"

#define EXIT_REASONS 64

struct exits;

/* What a board does with an exit that asks something of it. */
struct exits_ops {
	void (*io)(void *owner, const struct kvm_run *run, u8 *data);
	void (*mmio)(void *owner, struct kvm_run *run);
	bool halt_ends; /* KVM_EXIT_HLT is the end and not a mistake */
};

struct exits {
	const struct exits_ops *ops;
	void *owner;
	struct processor *cpu;
	atomic_int end; /* enum vm_end */
	u64 counts[EXIT_REASONS];
	u64 signals; /* KVM_RUN was interrupted */
	int status;  /* of VM_FAILED */
	struct why why;
};

const char *exit_name(u32 reason); /* "io", or NULL */

/* Ask for the end, from a device or another thread; the first one counts. */
void exits_end(struct exits *x, enum vm_end how);

/* Fail with a status and a line. */
void exits_fail(struct exits *x, int status, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

/* Run until exits_end() has been called by anybody. */
void exits_run(struct exits *x);

#endif

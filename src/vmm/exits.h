/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Running one virtual processor: KVM_RUN, and a table of what follows from each exit. */
#ifndef VMM_EXITS_H
#define VMM_EXITS_H

#include <stdatomic.h>

#include "vmm/gate.h"
#include "vmm/machine.h"
#include "vmm/status.h"

#define EXIT_REASONS 64

struct exits;

/* How a VM ends: one for all its processors. */
struct ending {
	atomic_bool claimed; /* the first to set it says how */
	atomic_int end;	     /* enum vm_end; written last */
	int status;	     /* of VM_FAILED */
	struct why why;
};

/* What a board does with an exit that asks something of it. */
struct exits_ops {
	void (*io)(void *owner, const struct kvm_run *run, u8 *data);
	void (*mmio)(void *owner, struct kvm_run *run);
	void (*enters)(
		void *owner); /* before a processor runs for the first time; NULL: nobody asks */
	void (*debug)(void *owner, unsigned cpu, const struct kvm_run *run); /* NULL: none */
	bool halt_ends; /* KVM_EXIT_HLT is the end and not a mistake */
};

struct exits {
	const struct exits_ops *ops;
	void *owner;
	struct processor *cpu;
	struct ending *ending;
	struct gate *gate; /* NULL: it is never stopped */
	u64 counts[EXIT_REASONS];
	u64 signals; /* KVM_RUN was interrupted */
};

const char *exit_name(u32 reason); /* "io", or NULL */

/* Ask for the end, from a device, another thread or a signal handler; the first one counts. */
void ending_set(struct ending *e, enum vm_end how);
static inline enum vm_end ending_get(const struct ending *e)
{
	return (enum vm_end)atomic_load_explicit(&e->end, memory_order_acquire);
}

/* Fail with a status and a line. */
void ending_fail(struct ending *e, int status, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

/* Run until ending_set() has been called by anybody. The processor's thread. */
void exits_run(struct exits *x);

#endif

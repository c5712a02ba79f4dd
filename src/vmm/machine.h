/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* A virtual machine and its processors, as the KVM API makes them. */
#ifndef VMM_MACHINE_H
#define VMM_MACHINE_H

#include <linux/kvm.h>
#include <sys/mman.h>

#include "vmm/kvmdev.h"
#include "vmm/ram.h"

struct machine {
	const struct kvmdev *dev;
	const struct ram *ram;
	int fd;
	size_t run_size;
	bool has_irqchip;
};

struct processor {
	struct machine *machine;
	int fd;
	unsigned index;
	struct kvm_run *run;
	struct kvm_cpuid2
		*cpuid; /* as given to the device; does not change, so any thread may read it */
};

/* @with_irqchip: interrupt controllers and timer in the device; without, HLT is an exit. 0 or -errno. */
int machine_create(struct machine *vm, const struct kvmdev *dev, const struct ram *ram,
		   bool with_irqchip, struct why *why);
void machine_destroy(struct machine *vm); /* after its vCPUs */

/* The dirty log of all memory. 0 or -errno with one line. */
int machine_log_dirty(const struct machine *vm, bool on, struct why *why);

/* Take the log of slot 0 (below the hole) or 1 (above): a bit per page. 0 or -errno with one line. */
int machine_dirty_log(const struct machine *vm, u32 slot, u64 *bitmap, struct why *why);

int machine_irq_line(const struct machine *vm, unsigned gsi, int level);
int machine_msi(const struct machine *vm, u64 address, u32 data);

#define PROCESSOR_NONE                                                                             \
	(struct processor)                                                                         \
	{                                                                                          \
		.fd = -1, .run = MAP_FAILED                                                        \
	}

/* What CPUID shows: a model as --cpu gives it, or just this. */
struct processor_identity {
	const char *model;
	const struct kvm_cpuid2 *cpuid; /* NULL: of the model */
};

/* The registers are those of a reset. */
int processor_create(struct processor *cpu, struct machine *vm, unsigned index, unsigned count,
		     struct processor_identity identity, struct why *why);
void processor_destroy(struct processor *cpu);

struct boot_entry;

/* Ready to enter a kernel that boot_load() has put into memory. */
int processor_enter_kernel(struct processor *cpu, const struct boot_entry *entry, struct why *why);

/* Real mode at @address (below 1 MiB): CS = address >> 4, IP = address & 15, all else as small as it gets. */
int processor_enter_flat(struct processor *cpu, u32 address, struct why *why);

/* A request of a VM or vCPU descriptor that must succeed: @name goes into the line. */
int machine_request(const struct machine *vm, int fd, unsigned long request, const void *argument,
		    const char *name, struct why *why);

#endif

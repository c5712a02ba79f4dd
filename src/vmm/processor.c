/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* A virtual processor, as the KVM API makes it: CPUID, MSRs and the registers of the first instruction. */
#include "vmm/machine.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "vmm/boot/load.h"
#include "vmm/cpu_model.h"

#define CPUID_MAX    256
#define EMULATED_MAX 16

#define CR0_PE	     0x1ull
#define CR0_ET	     0x10ull
#define CR0_PG	     0x80000000ull
#define CR4_PAE	     0x20ull
#define CR4_LA57     0x1000ull
#define EFER_LME_LMA 0x500ull
#define RFLAGS_FIXED 2

#define MSR_MISC_ENABLE	  0x1a0
#define MSR_MTRR_DEF_TYPE 0x2ff
#define MSR_HWCR	  0xc0010015
#define HWCR_TSC_P0	  0x1000000ull /* the TSC counts at the nominal frequency */
#define MISC_FAST_STRING  1ull
#define MTRR_ENABLED_WB	  0x806ull

#define LAPIC_LVT_LINT0 0x350
#define LAPIC_LVT_LINT1 0x360
#define LVT_EXTINT	0x700u
#define LVT_NMI		0x400u

static int cpuid_check(const struct processor *cpu, const struct kvm_cpuid2 *cpuid, struct why *why)
{
	const unsigned bits = cpu_model_phys_bits(cpuid);
	const struct ram *ram = cpu->machine->ram;
	const u64 end = ram->high ? RAM_HIGH_START + ram->high : ram->low;

	if (bits < 64 && end > BIT_ULL(bits))
		return why_set(why, EINVAL,
			       "memory of %llu MiB is more than the %u address bits of this "
			       "processor reach; give a smaller --mem",
			       (unsigned long long)(ram->size >> 20), bits);
	return 0;
}

/* The supported list never has the bit, because it depends on the APIC in the VM, which this one has. */
static void deadline_timer_add(const struct machine *vm, struct kvm_cpuid2 *cpuid)
{
	if (kvmdev_ioctl(vm->dev, vm->dev->fd, KVM_CHECK_EXTENSION, KVM_CAP_TSC_DEADLINE_TIMER) <=
	    0)
		return;
	for (u32 i = 0; i < cpuid->nent; i++)
		if (cpuid->entries[i].function == 1)
			cpuid->entries[i].ecx |= BIT(24);
}

/* A table of its own with room for @nent entries; processor_destroy() frees it. */
static int cpuid_allocate(struct processor *cpu, u32 nent, struct why *why)
{
	cpu->cpuid = calloc(1, sizeof(*cpu->cpuid) + nent * sizeof(cpu->cpuid->entries[0]));
	if (!cpu->cpuid)
		return why_set(why, ENOMEM, "no memory for the CPUID table");
	cpu->cpuid->nent = nent;
	return 0;
}

static int cpuid_of_model(struct processor *cpu, unsigned count, const char *model, struct why *why)
{
	struct {
		struct kvm_cpuid2 head;
		struct kvm_cpuid_entry2 entries[EMULATED_MAX];
	} emulated = { .head.nent = EMULATED_MAX };
	struct machine *vm = cpu->machine;
	int r = cpuid_allocate(cpu, CPUID_MAX, why);

	if (r < 0)
		return r;
	r = machine_request(vm, vm->dev->fd, KVM_GET_SUPPORTED_CPUID, cpu->cpuid,
			    "KVM_GET_SUPPORTED_CPUID", why);
	if (r < 0)
		return r;
	deadline_timer_add(vm, cpu->cpuid);
	if (kvmdev_ioctl_ptr(vm->dev, vm->dev->fd, KVM_GET_EMULATED_CPUID, &emulated) < 0)
		emulated.head.nent = 0;
	return cpu_model_apply(cpu->cpuid, &emulated.head, model, cpu->index, count, why);
}

static int cpuid_copy(struct processor *cpu, const struct kvm_cpuid2 *from, struct why *why)
{
	int r = cpuid_allocate(cpu, from->nent, why);

	if (r == 0)
		memcpy(cpu->cpuid->entries, from->entries, from->nent * sizeof(from->entries[0]));
	return r;
}

static int cpuid_set(struct processor *cpu, unsigned count, struct processor_identity identity,
		     struct why *why)
{
	int r = identity.cpuid ? cpuid_copy(cpu, identity.cpuid, why)
			       : cpuid_of_model(cpu, count, identity.model, why);

	if (r >= 0)
		r = cpuid_check(cpu, cpu->cpuid, why);
	return r < 0 ? r
		     : machine_request(cpu->machine, cpu->fd, KVM_SET_CPUID2, cpu->cpuid,
				       "KVM_SET_CPUID2", why);
}

/* What firmware leaves behind; a device that does not know one of them is left as it is. */
static void msrs_set(struct processor *cpu)
{
	static const struct kvm_msr_entry firmware[] = {
		{ .index = MSR_MISC_ENABLE, .data = MISC_FAST_STRING },
		{ .index = MSR_MTRR_DEF_TYPE, .data = MTRR_ENABLED_WB },
		{ .index = MSR_HWCR, .data = HWCR_TSC_P0 },
	};

	for (size_t i = 0; i < ARRAY_SIZE(firmware); i++) {
		struct {
			struct kvm_msrs head;
			struct kvm_msr_entry entry;
		} one = { .head = { .nmsrs = 1 }, .entry = firmware[i] };

		kvmdev_ioctl_ptr(cpu->machine->dev, cpu->fd, KVM_SET_MSRS, &one);
	}
}

static int lapic_set(struct processor *cpu, struct why *why)
{
	struct machine *vm = cpu->machine;
	struct kvm_lapic_state lapic = { 0 };
	u32 lint0 = LVT_EXTINT, lint1 = LVT_NMI;
	int r = machine_request(vm, cpu->fd, KVM_GET_LAPIC, &lapic, "KVM_GET_LAPIC", why);

	if (r < 0)
		return r;
	/* The "virtual wire" of the MP specification: the 8259 reaches the first processor. */
	if (cpu->index == 0)
		memcpy(lapic.regs + LAPIC_LVT_LINT0, &lint0, 4);
	memcpy(lapic.regs + LAPIC_LVT_LINT1, &lint1, 4);
	return machine_request(vm, cpu->fd, KVM_SET_LAPIC, &lapic, "KVM_SET_LAPIC", why);
}

int processor_create(struct processor *cpu, struct machine *vm, unsigned index, unsigned count,
		     struct processor_identity identity, struct why *why)
{
	int r;

	*cpu = (struct processor){ .machine = vm, .fd = -1, .index = index, .run = MAP_FAILED };
	r = machine_request(vm, vm->fd, KVM_CREATE_VCPU, (void *)(uintptr_t)index,
			    "KVM_CREATE_VCPU", why);
	if (r < 0)
		return r;
	cpu->fd = r;
	cpu->run = vm->dev->ops->mmap(NULL, vm->run_size, PROT_READ | PROT_WRITE, MAP_SHARED,
				      cpu->fd, 0);
	if (cpu->run == MAP_FAILED)
		r = why_set(why, errno, "cannot map the run page of a processor: %s",
			    strerror(errno));
	else
		r = cpuid_set(cpu, count, identity, why);
	if (r >= 0)
		msrs_set(cpu);
	if (r >= 0 && vm->has_irqchip)
		r = lapic_set(cpu, why);
	if (r < 0)
		processor_destroy(cpu);
	return r < 0 ? r : 0;
}

void processor_destroy(struct processor *cpu)
{
	if (cpu->run != MAP_FAILED)
		munmap(cpu->run, cpu->machine->run_size);
	cpu->run = MAP_FAILED;
	if (cpu->fd >= 0)
		cpu->machine->dev->ops->close(cpu->fd);
	cpu->fd = -1;
	free(cpu->cpuid);
	cpu->cpuid = NULL;
}

static const struct kvm_segment flat_data = {
	.limit = 0xffffffff, .selector = 0x18, .type = 3, .present = 1, .db = 1, .s = 1, .g = 1
};

static void segments_flat(struct kvm_sregs *s, bool long_mode)
{
	s->cs = flat_data;
	s->cs.selector = 0x10;
	s->cs.type = 0xb;
	s->cs.db = !long_mode;
	s->cs.l = long_mode;
	s->ds = s->es = s->fs = s->gs = s->ss = flat_data;
	s->tr = (struct kvm_segment){ .limit = 0x67, .selector = 0x20, .type = 0xb, .present = 1 };
}

/* What the selectors name, should the kernel load them again before its own table is there. */
static void gdt_write(const struct ram *ram, struct kvm_sregs *s, bool long_mode)
{
	const u64 gdt[] = {
		0,
		0,
		long_mode ? 0x00af9b000000ffffull : 0x00cf9b000000ffffull,
		0x00cf93000000ffffull,
		0x00008b0000000067ull,
		0,
	};

	ram_write(ram, BOOT_GDT_AT, gdt, sizeof(gdt));
	s->gdt.base = BOOT_GDT_AT;
	s->gdt.limit = sizeof(gdt) - 1;
	s->idt.base = 0;
	s->idt.limit = 0;
}

static int registers_set(struct processor *cpu, const struct kvm_sregs *sregs,
			 const struct kvm_regs *regs, struct why *why)
{
	int r = machine_request(cpu->machine, cpu->fd, KVM_SET_SREGS, sregs, "KVM_SET_SREGS", why);

	return r < 0 ? r
		     : machine_request(cpu->machine, cpu->fd, KVM_SET_REGS, regs, "KVM_SET_REGS",
				       why);
}

int processor_enter_kernel(struct processor *cpu, const struct boot_entry *entry, struct why *why)
{
	const bool long_mode = entry->mode != BOOT_PVH;
	struct kvm_regs regs = { .rip = entry->rip, .rflags = RFLAGS_FIXED };
	struct kvm_sregs sregs = { 0 };
	int r = machine_request(cpu->machine, cpu->fd, KVM_GET_SREGS, &sregs, "KVM_GET_SREGS", why);

	if (r < 0)
		return r;
	segments_flat(&sregs, long_mode);
	gdt_write(cpu->machine->ram, &sregs, long_mode);
	sregs.cr0 = CR0_PE | CR0_ET;
	sregs.cr4 = 0;
	if (long_mode) {
		sregs.cr0 |= CR0_PG;
		sregs.cr3 = BOOT_PAGES_AT;
		sregs.cr4 = CR4_PAE | (entry->mode == BOOT_LONG57 ? CR4_LA57 : 0);
		sregs.efer = EFER_LME_LMA;
		regs.rsi = entry->argument;
	} else {
		regs.rbx = entry->argument;
	}
	return registers_set(cpu, &sregs, &regs, why);
}

int processor_enter_flat(struct processor *cpu, u32 address, struct why *why)
{
	const struct kvm_regs regs = { .rip = address & 15, .rflags = RFLAGS_FIXED };
	struct kvm_sregs sregs = { 0 };
	int r = machine_request(cpu->machine, cpu->fd, KVM_GET_SREGS, &sregs, "KVM_GET_SREGS", why);

	if (r < 0)
		return r;
	sregs.cs.selector = (u16)(address >> 4);
	sregs.cs.base = address & ~15u;
	return registers_set(cpu, &sregs, &regs, why);
}

/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The test VMM: creation, memory, registers, running, and what an exit was. */
#define _GNU_SOURCE
#include "vm.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

long vm_ioctl(struct vm *vm, int fd, unsigned long request, unsigned long arg)
{
	int r = vm->ops->ioctl(fd, request, arg);

	return r < 0 ? -errno : r;
}

static void must(struct vm *vm, int fd, unsigned long request, void *arg, const char *name)
{
	long r = vm_ioctl(vm, fd, request, (unsigned long)arg);

	if (r < 0)
		check_fatal(name, "%s", strerror(-r));
}

static int slot_set(struct vm *vm, unsigned id, unsigned flags, uint64_t gpa, uint64_t size,
		    void *hva)
{
	struct kvm_userspace_memory_region m = { .slot = id,
						 .flags = flags,
						 .guest_phys_addr = gpa,
						 .memory_size = size,
						 .userspace_addr = (uintptr_t)hva };

	return vm->ops->ioctl(vm->fd, KVM_SET_USER_MEMORY_REGION, &m);
}

void vm_slot(struct vm *vm, unsigned id, unsigned flags, uint64_t gpa, uint64_t size, void *hva)
{
	if (slot_set(vm, id, flags, gpa, size, hva))
		check_fatal("KVM_SET_USER_MEMORY_REGION", "%s", strerror(errno));
}

static int chips_make(struct vm *vm, unsigned flags)
{
	struct kvm_pit_config pit = { .flags = 0 };

	if (vm->ops->ioctl(vm->fd, KVM_SET_TSS_ADDR, 0xfffbd000ul))
		return -1;
	if (flags & VM_RING) {
		struct kvm_enable_cap c = { .cap = KVM_CAP_DIRTY_LOG_RING,
					    .args = { VM_RING_BYTES } };

		if (vm->ops->ioctl(vm->fd, KVM_ENABLE_CAP, &c))
			return -1;
	}
	if (flags & VM_IRQCHIP && vm->ops->ioctl(vm->fd, KVM_CREATE_IRQCHIP, 0ul))
		return -1;
	return flags & VM_PIT ? vm->ops->ioctl(vm->fd, KVM_CREATE_PIT2, &pit) : 0;
}

static int vcpu_make(struct vm *vm)
{
	int size = vm->ops->ioctl(vm->sys, KVM_GET_VCPU_MMAP_SIZE, 0ul);

	vm->vcpu = vm->ops->ioctl(vm->fd, KVM_CREATE_VCPU, 0ul);
	if (vm->vcpu < 0 || size < 0)
		return -1;
	vm->run_size = size;
	vm->run = vm->ops->mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, vm->vcpu, 0);
	return vm->run == MAP_FAILED ? -1 : 0;
}

int vm_try(struct vm *vm, unsigned flags)
{
	*vm = (struct vm){ .ops = vm_ops, .sys = -1, .fd = -1, .vcpu = -1, .run = MAP_FAILED };
	vm->ram = mmap(NULL, VM_SIZE, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (vm->ram == MAP_FAILED)
		return -1;
	vm->sys = vm->ops->open("/dev/kvm", O_RDWR | O_CLOEXEC);
	if (vm->sys < 0)
		return -1;
	vm->fd = vm->ops->ioctl(vm->sys, KVM_CREATE_VM, 0ul);
	if (vm->fd < 0 || chips_make(vm, flags) || vcpu_make(vm))
		return -1;
	if (slot_set(vm, 0, 0, 0, VM_HOLE, vm->ram))
		return -1;
	return slot_set(vm, 1, 0, VM_HOLE_END, VM_SIZE - VM_HOLE_END, vm->ram + VM_HOLE_END);
}

void vm_make(struct vm *vm, unsigned flags)
{
	if (vm_try(vm, flags))
		check_fatal("vm_make", "%s", strerror(errno));
	vm_set_cpuid(vm);
}

void vm_add_cpu(struct vm *cpu, const struct vm *first, unsigned i)
{
	*cpu = *first;
	cpu->vcpu = (int)vm_ioctl(cpu, cpu->fd, KVM_CREATE_VCPU, i);
	if (cpu->vcpu < 0)
		check_fatal("KVM_CREATE_VCPU", "%s", strerror(-cpu->vcpu));
	cpu->run = cpu->ops->mmap(NULL, cpu->run_size, PROT_READ | PROT_WRITE, MAP_SHARED,
				  cpu->vcpu, 0);
	if (cpu->run == MAP_FAILED)
		check_fatal("mmap", "%s", strerror(errno));
	vm_set_cpuid(cpu);
}

void vm_drop_cpu(struct vm *cpu)
{
	munmap(cpu->run, cpu->run_size);
	cpu->ops->close(cpu->vcpu);
}

void vm_gate(struct vm *vm, unsigned vector, uint64_t handler)
{
	uint64_t gate[2] = { (handler & 0xffff) | (uint64_t)SEL_CODE64 << 16 | 0x8eull << 40 |
				     (handler >> 16 & 0xffff) << 48,
			     handler >> 32 };

	vm_load(vm, VM_IDT + 16 * vector, gate, sizeof(gate));
}

void vm_destroy(struct vm *vm)
{
	if (vm->run != MAP_FAILED)
		munmap(vm->run, vm->run_size);
	if (vm->vcpu >= 0)
		vm->ops->close(vm->vcpu);
	if (vm->fd >= 0)
		vm->ops->close(vm->fd);
	if (vm->sys >= 0)
		vm->ops->close(vm->sys);
	if (vm->ram != MAP_FAILED)
		munmap(vm->ram, VM_SIZE);
}

/* What the processor supports, as it is told. */
static struct kvm_cpuid2 *cpuid_get(struct vm *vm)
{
	struct kvm_cpuid2 *c = calloc(1, sizeof(*c) + 256 * sizeof(c->entries[0]));

	if (!c)
		abort();
	c->nent = 256;
	must(vm, vm->sys, KVM_GET_SUPPORTED_CPUID, c, "KVM_GET_SUPPORTED_CPUID");
	return c;
}

void vm_set_cpuid(struct vm *vm)
{
	struct kvm_cpuid2 *c = cpuid_get(vm);

	/* The kernel leaves this bit to user space. */
	if (vm_ioctl(vm, vm->sys, KVM_CHECK_EXTENSION, KVM_CAP_TSC_DEADLINE_TIMER) > 0)
		for (unsigned i = 0; i < c->nent; i++)
			c->entries[i].ecx |= c->entries[i].function == 1 ? 1u << 24 : 0;
	must(vm, vm->vcpu, KVM_SET_CPUID2, c, "KVM_SET_CPUID2");
	free(c);
}

bool vm_has(struct vm *vm, uint32_t leaf, uint32_t index, unsigned reg, unsigned bit)
{
	struct kvm_cpuid2 *c = cpuid_get(vm);
	bool has = false;

	for (unsigned i = 0; i < c->nent; i++) {
		const struct kvm_cpuid_entry2 *e = &c->entries[i];
		const uint32_t value[4] = { e->eax, e->ebx, e->ecx, e->edx };

		if (e->function == leaf && e->index == index)
			has = value[reg] >> bit & 1;
	}
	free(c);
	return has;
}

void vm_msr(struct vm *vm, uint32_t index, uint64_t value)
{
	struct {
		struct kvm_msrs head;
		struct kvm_msr_entry entry;
	} m = { .head.nmsrs = 1, .entry = { .index = index, .data = value } };

	if (vm_ioctl(vm, vm->vcpu, KVM_SET_MSRS, (unsigned long)&m) != 1)
		check_fatal("KVM_SET_MSRS", "MSR %#x = %#lx is refused", index, value);
}

void vm_load(struct vm *vm, uint64_t gpa, const void *code, size_t len)
{
	memcpy(vm->ram + gpa, code, len);
}

struct kvm_regs vm_regs(struct vm *vm)
{
	struct kvm_regs r;

	must(vm, vm->vcpu, KVM_GET_REGS, &r, "KVM_GET_REGS");
	return r;
}

void vm_set_regs(struct vm *vm, const struct kvm_regs *regs)
{
	must(vm, vm->vcpu, KVM_SET_REGS, (void *)regs, "KVM_SET_REGS");
}

struct kvm_sregs vm_sregs(struct vm *vm)
{
	struct kvm_sregs s;

	must(vm, vm->vcpu, KVM_GET_SREGS, &s, "KVM_GET_SREGS");
	return s;
}

void vm_set_sregs(struct vm *vm, const struct kvm_sregs *sregs)
{
	must(vm, vm->vcpu, KVM_SET_SREGS, (void *)sregs, "KVM_SET_SREGS");
}

void vm_jump(struct vm *vm, uint64_t rip)
{
	struct kvm_regs r = vm_regs(vm);

	r.rip = rip;
	vm_set_regs(vm, &r);
}

uint64_t vm_peek(struct vm *vm, uint64_t gpa, unsigned size)
{
	uint64_t v = 0;

	memcpy(&v, vm->ram + gpa, size);
	return v;
}

void vm_poke(struct vm *vm, uint64_t gpa, uint64_t value, unsigned size)
{
	memcpy(vm->ram + gpa, &value, size);
}

int vm_run(struct vm *vm)
{
	long r = vm_ioctl(vm, vm->vcpu, KVM_RUN, 0);

	return r < 0 ? (int)r : (int)vm->run->exit_reason;
}

static bool is_stub_exit(struct vm *vm)
{
	return vm->run->exit_reason == KVM_EXIT_IO && vm->run->io.direction == KVM_EXIT_IO_OUT &&
	       vm->run->io.size == 1 && vm->run->io.port < 256;
}

static bool has_error_code(int vector)
{
	return vector == 8 || (vector >= 10 && vector <= 14) || vector == 17 || vector == 21;
}

struct vm_frame vm_frame(struct vm *vm)
{
	struct vm_frame f = { .vector = -1 };
	bool wide = vm->mode == VM_LONG || vm->mode == VM_COMPAT;
	unsigned size = vm->mode == VM_REAL ? 2 : wide ? 8 : 4;
	struct kvm_regs regs = vm_regs(vm);
	struct kvm_sregs sregs = vm_sregs(vm);
	uint64_t at = vm->mode == VM_REAL ? sregs.ss.base + (uint16_t)regs.rsp
		      : wide		  ? regs.rsp
					  : sregs.ss.base + (uint32_t)regs.rsp;
	uint64_t *to[] = { &f.error, &f.rip, &f.cs, &f.rflags, &f.rsp, &f.ss };

	if (!is_stub_exit(vm))
		return f;
	f.vector = vm->run->io.port;
	f.cr2 = sregs.cr2;
	for (unsigned i = vm->mode == VM_REAL || !has_error_code(f.vector); i < 6; i++, at += size)
		if (at + size <= VM_SIZE)
			*to[i] = vm_peek(vm, at, size);
	return f;
}

struct vm_frame vm_fault(struct vm *vm, int vector, const char *where)
{
	int reason = vm_run(vm);
	struct vm_frame f = { .vector = -1 };

	if (reason == KVM_EXIT_IO)
		f = vm_frame(vm);
	if (f.vector != vector)
		check_fatal(where, "expected exception %d, got %s", vector,
			    vm_exit_text(vm, reason));
	return f;
}

static const char *exit_name(int reason)
{
	static char number[32];

	switch (reason) {
	case KVM_EXIT_IO:
		return "IO";
	case KVM_EXIT_HLT:
		return "HLT";
	case KVM_EXIT_MMIO:
		return "MMIO";
	case KVM_EXIT_SHUTDOWN:
		return "SHUTDOWN";
	case KVM_EXIT_INTERNAL_ERROR:
		return "INTERNAL_ERROR";
	case KVM_EXIT_DEBUG:
		return "DEBUG";
	case KVM_EXIT_IRQ_WINDOW_OPEN:
		return "IRQ_WINDOW_OPEN";
	default:
		snprintf(number, sizeof(number), "%s %d", reason < 0 ? "errno" : "exit",
			 reason < 0 ? -reason : reason);
		return number;
	}
}

const char *vm_exit_text(struct vm *vm, int reason)
{
	static char text[400];
	struct kvm_regs r = vm_regs(vm);
	struct kvm_sregs s = vm_sregs(vm);
	int n = snprintf(text, sizeof(text), "%s at %x:%llx rflags %llx rsp %llx rax %llx cr2 %llx",
			 exit_name(reason), s.cs.selector, r.rip, r.rflags, r.rsp, r.rax, s.cr2);
	struct vm_frame f;

	if (reason == KVM_EXIT_MMIO)
		snprintf(text + n, sizeof(text) - n, ": %s %llx size %u",
			 vm->run->mmio.is_write ? "write" : "read", vm->run->mmio.phys_addr,
			 vm->run->mmio.len);
	if (reason != KVM_EXIT_IO)
		return text;
	f = vm_frame(vm);
	snprintf(text + n, sizeof(text) - n,
		 ": port %x size %u; as a frame: error %lx rip %lx:%lx rflags %lx",
		 vm->run->io.port, vm->run->io.size, f.error, f.cs, f.rip, f.rflags);
	return text;
}

void check_exit(struct vm *vm, int expected, const char *where)
{
	int reason = vm_run(vm);

	if (reason != expected)
		check_fatal(where, "expected %s, got %s", exit_name(expected),
			    vm_exit_text(vm, reason));
}

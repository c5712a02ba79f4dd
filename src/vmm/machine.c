/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* A virtual machine, as the KVM API makes it: memory slots and interrupt controllers. */
#include "vmm/machine.h"

#include <errno.h>
#include <string.h>

/* Above the RAM hole, below the firmware's place: three pages and one, which real hardware wants. */
#define TSS_ADDRESS	 0xfffbd000ul
#define IDENTITY_ADDRESS 0xfffbc000ull

int machine_request(const struct machine *vm, int fd, unsigned long request, const void *argument,
		    const char *name, struct why *why)
{
	int r = kvmdev_ioctl_ptr(vm->dev, fd, request, argument);

	if (r < 0)
		return why_set(why, -r, "the device %s refuses %s: %s", vm->dev->path, name,
			       strerror(-r));
	return r;
}

static int slot_set(const struct machine *vm, u32 slot, gpa_t gpa, u64 size, const u8 *host,
		    u32 flags, struct why *why)
{
	const struct kvm_userspace_memory_region region = {
		.slot = slot,
		.flags = flags,
		.guest_phys_addr = gpa,
		.memory_size = size,
		.userspace_addr = (uintptr_t)host,
	};
	int r;

	if (!size)
		return 0;
	r = kvmdev_ioctl_ptr(vm->dev, vm->fd, KVM_SET_USER_MEMORY_REGION, &region);
	if (r < 0)
		return why_set(why, -r,
			       "the device %s refuses %llu MiB of memory at 0x%llx: %s; give a "
			       "smaller --mem",
			       vm->dev->path, (unsigned long long)(size >> 20),
			       (unsigned long long)gpa, strerror(-r));
	return 0;
}

static int slots_set(const struct machine *vm, u32 flags, struct why *why)
{
	const struct ram *ram = vm->ram;
	int r = slot_set(vm, 0, 0, ram->low, ram->host, flags, why);

	return r < 0 ? r
		     : slot_set(vm, 1, RAM_HIGH_START, ram->high, ram->host + ram->low, flags, why);
}

int machine_log_dirty(const struct machine *vm, bool on, struct why *why)
{
	return slots_set(vm, on ? KVM_MEM_LOG_DIRTY_PAGES : 0, why);
}

int machine_dirty_log(const struct machine *vm, u32 slot, u64 *bitmap, struct why *why)
{
	const struct kvm_dirty_log log = { .slot = slot, .dirty_bitmap = bitmap };
	int r = machine_request(vm, vm->fd, KVM_GET_DIRTY_LOG, &log, "KVM_GET_DIRTY_LOG", why);

	return r < 0 ? r : 0;
}

static int irqchip_create(struct machine *vm, struct why *why)
{
	const struct kvm_pit_config pit = { .flags = KVM_PIT_SPEAKER_DUMMY };
	int r = machine_request(vm, vm->fd, KVM_CREATE_IRQCHIP, NULL, "KVM_CREATE_IRQCHIP", why);

	return r < 0 ? r
		     : machine_request(vm, vm->fd, KVM_CREATE_PIT2, &pit, "KVM_CREATE_PIT2", why);
}

static int machine_setup(struct machine *vm, struct why *why)
{
	const u64 identity = IDENTITY_ADDRESS;
	int r;

	r = machine_request(vm, vm->fd, KVM_SET_TSS_ADDR, (void *)TSS_ADDRESS, "KVM_SET_TSS_ADDR",
			    why);
	if (r == 0)
		r = machine_request(vm, vm->fd, KVM_SET_IDENTITY_MAP_ADDR, &identity,
				    "KVM_SET_IDENTITY_MAP_ADDR", why);
	if (r == 0 && vm->has_irqchip)
		r = irqchip_create(vm, why);
	return r < 0 ? r : slots_set(vm, 0, why);
}

int machine_create(struct machine *vm, const struct kvmdev *dev, const struct ram *ram,
		   bool with_irqchip, struct why *why)
{
	int r;

	*vm = (struct machine){ .dev = dev, .ram = ram, .fd = -1, .has_irqchip = with_irqchip };
	r = machine_request(vm, dev->fd, KVM_GET_VCPU_MMAP_SIZE, NULL, "KVM_GET_VCPU_MMAP_SIZE",
			    why);
	if (r < 0)
		return r;
	vm->run_size = (size_t)r;
	r = machine_request(vm, dev->fd, KVM_CREATE_VM, NULL, "KVM_CREATE_VM", why);
	if (r < 0)
		return r;
	vm->fd = r;
	r = machine_setup(vm, why);
	if (r < 0)
		machine_destroy(vm);
	return r;
}

void machine_destroy(struct machine *vm)
{
	if (vm->fd >= 0)
		vm->dev->ops->close(vm->fd);
	vm->fd = -1;
}

int machine_irq_line(const struct machine *vm, unsigned gsi, int level)
{
	const struct kvm_irq_level line = { .irq = gsi, .level = (u32)level };

	return kvmdev_ioctl_ptr(vm->dev, vm->fd, KVM_IRQ_LINE, &line);
}

int machine_msi(const struct machine *vm, u64 address, u32 data)
{
	const struct kvm_msi msi = { .address_lo = (u32)address,
				     .address_hi = (u32)(address >> 32),
				     .data = data };

	return kvmdev_ioctl_ptr(vm->dev, vm->fd, KVM_SIGNAL_MSI, &msi);
}

/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Cases of eventfds and of the bus: KVM_IRQFD, KVM_IOEVENTFD, coalesced MMIO and PIO. */
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "abi.h"

#define GSI	   5
#define ZONES_MAX  1000
#define IRQFD(...) (&(struct kvm_irqfd){ __VA_ARGS__ })

static void irqfd_wrong_cases(struct abi *a, int vm, int event, int file)
{
	abi_case(a, "IRQFD, bad pointer", -EFAULT, IOCTL(a, vm, KVM_IRQFD, abi_bad_pointer()));
	abi_case(a, "IRQFD, unknown flag", -EINVAL,
		 IOCTL(a, vm, KVM_IRQFD, IRQFD(.fd = event, .flags = 4)));
	abi_case(a, "IRQFD of no descriptor", -EBADF, IOCTL(a, vm, KVM_IRQFD, IRQFD(.fd = 9999)));
	abi_case(a, "IRQFD of a file", -EINVAL, IOCTL(a, vm, KVM_IRQFD, IRQFD(.fd = file)));
	abi_case(a, "IRQFD, no resamplefd", -EBADF,
		 IOCTL(a, vm, KVM_IRQFD,
		       IRQFD(.fd = event, .flags = KVM_IRQFD_FLAG_RESAMPLE, .resamplefd = 9999)));
	abi_case(a, "IRQFD, a file as resamplefd", -EINVAL,
		 IOCTL(a, vm, KVM_IRQFD,
		       IRQFD(.fd = event, .flags = KVM_IRQFD_FLAG_RESAMPLE, .resamplefd = file)));
	abi_case(a, "IRQFD deassign of no descriptor", -EBADF,
		 IOCTL(a, vm, KVM_IRQFD, IRQFD(.fd = 9999, .flags = KVM_IRQFD_FLAG_DEASSIGN)));
	abi_case(a, "IRQFD deassign of a file", -EINVAL,
		 IOCTL(a, vm, KVM_IRQFD, IRQFD(.fd = file, .flags = KVM_IRQFD_FLAG_DEASSIGN)));
	abi_case(a, "IRQFD deassign of what is not assigned", 0,
		 IOCTL(a, vm, KVM_IRQFD, IRQFD(.fd = event, .flags = KVM_IRQFD_FLAG_DEASSIGN)));
}

static void irqfd_cases(struct abi *a, int vm, int file)
{
	int event = eventfd(0, EFD_NONBLOCK), other = eventfd(0, EFD_NONBLOCK), copy = dup(event);
	struct kvm_irqfd gone = { .fd = event, .gsi = GSI, .flags = KVM_IRQFD_FLAG_DEASSIGN };

	irqfd_wrong_cases(a, vm, event, file);
	abi_case(a, "IRQFD", 0, IOCTL(a, vm, KVM_IRQFD, IRQFD(.fd = event, .gsi = GSI)));
	abi_case(a, "IRQFD twice", -EBUSY,
		 IOCTL(a, vm, KVM_IRQFD, IRQFD(.fd = event, .gsi = GSI + 1)));
	abi_case(a, "IRQFD of a duplicate", -EBUSY,
		 IOCTL(a, vm, KVM_IRQFD, IRQFD(.fd = copy, .gsi = GSI)));
	abi_case(a, "IRQFD of another eventfd", 0,
		 IOCTL(a, vm, KVM_IRQFD, IRQFD(.fd = other, .gsi = GSI)));
	gone.gsi = GSI + 1;
	abi_case(a, "IRQFD deassign, other GSI", 0, IOCTL(a, vm, KVM_IRQFD, &gone));
	abi_case(a, "IRQFD is still assigned", -EBUSY,
		 IOCTL(a, vm, KVM_IRQFD, IRQFD(.fd = event, .gsi = GSI)));
	gone.fd = copy;
	gone.gsi = GSI;
	abi_case(a, "IRQFD deassign by a duplicate", 0, IOCTL(a, vm, KVM_IRQFD, &gone));
	abi_case(a, "IRQFD again, resampling", 0,
		 IOCTL(a, vm, KVM_IRQFD,
		       IRQFD(.fd = event, .gsi = GSI, .flags = KVM_IRQFD_FLAG_RESAMPLE,
			     .resamplefd = other)));
	close(copy);
	close(event);
	close(other);
}

#define IOEVENT(...) (&(struct kvm_ioeventfd){ __VA_ARGS__ })

static void ioeventfd_wrong_cases(struct abi *a, int vm, int event, int file)
{
	abi_case(a, "IOEVENTFD, bad pointer", -EFAULT,
		 IOCTL(a, vm, KVM_IOEVENTFD, abi_bad_pointer()));
	abi_case(a, "IOEVENTFD, length 3", -EINVAL,
		 IOCTL(a, vm, KVM_IOEVENTFD, IOEVENT(.fd = event, .len = 3)));
	abi_case(a, "IOEVENTFD, length 16", -EINVAL,
		 IOCTL(a, vm, KVM_IOEVENTFD, IOEVENT(.fd = event, .len = 16)));
	abi_case(a, "IOEVENTFD past the end", -EINVAL,
		 IOCTL(a, vm, KVM_IOEVENTFD, IOEVENT(.fd = event, .addr = ~0ull, .len = 2)));
	abi_case(a, "IOEVENTFD, unknown flag", -EINVAL,
		 IOCTL(a, vm, KVM_IOEVENTFD, IOEVENT(.fd = event, .len = 4, .flags = 0x20)));
	abi_case(a, "IOEVENTFD, datamatch without length", -EINVAL,
		 IOCTL(a, vm, KVM_IOEVENTFD,
		       IOEVENT(.fd = event, .flags = KVM_IOEVENTFD_FLAG_DATAMATCH)));
	abi_case(a, "IOEVENTFD of no descriptor", -EBADF,
		 IOCTL(a, vm, KVM_IOEVENTFD, IOEVENT(.fd = -1, .len = 4)));
	abi_case(a, "IOEVENTFD of a file", -EINVAL,
		 IOCTL(a, vm, KVM_IOEVENTFD, IOEVENT(.fd = file, .len = 4)));
	abi_case(a, "IOEVENTFD deassign of nothing", -ENOENT,
		 IOCTL(a, vm, KVM_IOEVENTFD,
		       IOEVENT(.fd = event, .len = 4, .flags = KVM_IOEVENTFD_FLAG_DEASSIGN)));
	abi_case(a, "IOEVENTFD deassign of no descriptor", -EBADF,
		 IOCTL(a, vm, KVM_IOEVENTFD,
		       IOEVENT(.fd = 9999, .len = 4, .flags = KVM_IOEVENTFD_FLAG_DEASSIGN)));
}

/* Assigned in this order. */
static void ioeventfd_collisions(struct abi *a, int vm, int event)
{
	static const struct {
		const char *name;
		struct kvm_ioeventfd e;
		long expected;
	} rows[] = {
		{ "IOEVENTFD", { .addr = 0x1000, .len = 4 }, 0 },
		{ "IOEVENTFD, same place", { .addr = 0x1000, .len = 4 }, -EEXIST },
		{ "IOEVENTFD, same place with datamatch",
		  { .addr = 0x1000, .len = 4, .datamatch = 1, .flags = 1 },
		  -EEXIST },
		{ "IOEVENTFD, same place, other length", { .addr = 0x1000, .len = 2 }, 0 },
		{ "IOEVENTFD, same place, any length", { .addr = 0x1000 }, -EEXIST },
		{ "IOEVENTFD, same number of a port", { .addr = 0x1000, .len = 4, .flags = 2 }, 0 },
		{ "IOEVENTFD with datamatch",
		  { .addr = 0x2000, .len = 4, .datamatch = 1, .flags = 1 },
		  0 },
		{ "IOEVENTFD with other datamatch",
		  { .addr = 0x2000, .len = 4, .datamatch = 2, .flags = 1 },
		  0 },
		{ "IOEVENTFD with the same datamatch",
		  { .addr = 0x2000, .len = 4, .datamatch = 2, .flags = 1 },
		  -EEXIST },
		{ "IOEVENTFD of any length", { .addr = 0x3000 }, 0 },
		{ "IOEVENTFD below one of any length", { .addr = 0x3000, .len = 1 }, -EEXIST },
		{ "IOEVENTFD deassign, other datamatch",
		  { .addr = 0x2000, .len = 4, .datamatch = 3, .flags = 5 },
		  -ENOENT },
		{ "IOEVENTFD deassign, no datamatch",
		  { .addr = 0x2000, .len = 4, .flags = 4 },
		  -ENOENT },
		{ "IOEVENTFD deassign",
		  { .addr = 0x2000, .len = 4, .datamatch = 2, .flags = 5 },
		  0 },
		{ "IOEVENTFD deassign again",
		  { .addr = 0x2000, .len = 4, .datamatch = 2, .flags = 5 },
		  -ENOENT },
		{ "IOEVENTFD deassign, any length", { .addr = 0x3000, .flags = 4 }, 0 },
		{ "IOEVENTFD deassign of a port", { .addr = 0x1000, .len = 4, .flags = 6 }, 0 },
	};
	struct kvm_ioeventfd e;

	for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		e = rows[i].e;
		e.fd = event;
		abi_case(a, rows[i].name, rows[i].expected, IOCTL(a, vm, KVM_IOEVENTFD, &e));
	}
}

static void ioeventfd_cases(struct abi *a, int vm, int file)
{
	int event = eventfd(0, EFD_NONBLOCK), other = eventfd(0, EFD_NONBLOCK);

	ioeventfd_wrong_cases(a, vm, event, file);
	ioeventfd_collisions(a, vm, event);
	abi_case(a, "IOEVENTFD deassign by another eventfd", -ENOENT,
		 IOCTL(a, vm, KVM_IOEVENTFD,
		       IOEVENT(.fd = other, .addr = 0x1000, .len = 4,
			       .flags = KVM_IOEVENTFD_FLAG_DEASSIGN)));
	close(event);
	close(other);
}

static void coalesced_cases(struct abi *a, int vm)
{
	struct kvm_coalesced_mmio_zone z = { .addr = 0x10000000, .size = 0x1000, .pio = 2 };
	long r = 0;
	unsigned n;

	abi_case(a, "CAP_COALESCED_MMIO", 2,
		 IOCTL(a, a->sys, KVM_CHECK_EXTENSION, KVM_CAP_COALESCED_MMIO));
	abi_case(a, "REGISTER_COALESCED_MMIO, bad pointer", -EFAULT,
		 IOCTL(a, vm, KVM_REGISTER_COALESCED_MMIO, abi_bad_pointer()));
	abi_case(a, "UNREGISTER_COALESCED_MMIO, bad pointer", -EFAULT,
		 IOCTL(a, vm, KVM_UNREGISTER_COALESCED_MMIO, abi_bad_pointer()));
	abi_case(a, "REGISTER_COALESCED_MMIO, pio 2", -EINVAL,
		 IOCTL(a, vm, KVM_REGISTER_COALESCED_MMIO, &z));
	abi_case(a, "UNREGISTER_COALESCED_MMIO, pio 2", -EINVAL,
		 IOCTL(a, vm, KVM_UNREGISTER_COALESCED_MMIO, &z));
	z.pio = 0;
	abi_case(a, "UNREGISTER_COALESCED_MMIO of nothing", 0,
		 IOCTL(a, vm, KVM_UNREGISTER_COALESCED_MMIO, &z));
	for (n = 0; n <= ZONES_MAX && !r; n++)
		r = IOCTL(a, vm, KVM_REGISTER_COALESCED_MMIO, &z);
	abi_case(a, "REGISTER_COALESCED_MMIO, one too many", -ENOSPC, r);
	abi_case(a, "REGISTER_COALESCED_MMIO, with the IOAPIC a thousand", ZONES_MAX, n);
	z.size = 0x10;
	abi_case(a, "UNREGISTER_COALESCED_MMIO of a part takes the zones", 0,
		 IOCTL(a, vm, KVM_UNREGISTER_COALESCED_MMIO, &z));
	abi_case(a, "REGISTER_COALESCED_MMIO", 0, IOCTL(a, vm, KVM_REGISTER_COALESCED_MMIO, &z));
	z.pio = 1;
	abi_case(a, "REGISTER_COALESCED_MMIO of ports", 0,
		 IOCTL(a, vm, KVM_REGISTER_COALESCED_MMIO, &z));
}

/* The ring is one page, shown by the mapping of every vCPU, and by a mapping of its page alone. */
static void ring_cases(struct abi *a, int vm)
{
	int first = IOCTL(a, vm, KVM_CREATE_VCPU, 0), second = IOCTL(a, vm, KVM_CREATE_VCPU, 1);
	int size = IOCTL(a, a->sys, KVM_GET_VCPU_MMAP_SIZE, 0);
	uint8_t *x = (uint8_t *)abi_run_page(a, first), *y = (uint8_t *)abi_run_page(a, second), *z;

	z = a->ops->mmap(NULL, 4096, PROT_READ, MAP_SHARED, second, 2 * 4096);
	abi_case(a, "the ring's page alone can be mapped", 1, z != MAP_FAILED);
	x[2 * 4096 + 100] = 0x5a;
	abi_case(a, "the ring is the VM's", 0x5a, y[2 * 4096 + 100]);
	abi_case(a, "the ring's page alone shows it", 0x5a, z != MAP_FAILED ? z[100] : -1);
	y[2 * 4096 - 1] = 1;
	x[2 * 4096 - 1] = 2;
	abi_case(a, "the page before is the vCPU's", 1, y[2 * 4096 - 1]);
	munmap(x, size);
	munmap(y, size);
	munmap(z, 4096);
	abi_close(a, first);
	abi_close(a, second);
}

void abi_event_cases(struct abi *a)
{
	int file = open("/dev/null", O_RDWR), vm = abi_vm(a, NULL), event = eventfd(0, 0), vcpu;

	abi_case(a, "IRQFD without irqchip", -EAGAIN, IOCTL(a, vm, KVM_IRQFD, IRQFD(.fd = event)));
	abi_case(a, "IRQFD deassign without irqchip", 0,
		 IOCTL(a, vm, KVM_IRQFD, IRQFD(.fd = event, .flags = KVM_IRQFD_FLAG_DEASSIGN)));
	abi_case(a, "IOEVENTFD without irqchip", 0,
		 IOCTL(a, vm, KVM_IOEVENTFD, IOEVENT(.fd = event, .len = 4)));
	IOCTL(a, vm, KVM_IOEVENTFD,
	      IOEVENT(.fd = event, .len = 4, .flags = KVM_IOEVENTFD_FLAG_DEASSIGN));
	IOCTL(a, vm, KVM_CREATE_IRQCHIP, 0);
	irqfd_cases(a, vm, file);
	ioeventfd_cases(a, vm, file);
	coalesced_cases(a, vm);
	vcpu = IOCTL(a, vm, KVM_CREATE_VCPU, 5);
	abi_case(a, "IRQFD on a vCPU", -EINVAL, IOCTL(a, vcpu, KVM_IRQFD, IRQFD(.fd = event)));
	abi_case(a, "IOEVENTFD on the system", -EINVAL,
		 IOCTL(a, a->sys, KVM_IOEVENTFD, IOEVENT(.fd = event, .len = 4)));
	ring_cases(a, vm);
	abi_close(a, vcpu);
	abi_close(a, vm);
	close(event);
	close(file);
}

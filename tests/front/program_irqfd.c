/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Writes to an irqfd by libc's functions: the interrupt is there when the call returns, and bytes for others arrive. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "program.h"

#define LINE 4

static const struct machine none;

/* A VM with the interrupt controllers, whose line LINE is @fd's. */
static void assign(struct machine *m, int fd)
{
	struct kvm_irqfd irqfd = { .fd = fd, .gsi = LINE };

	*m = none;
	m->kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	m->vm = ioctl(m->kvm, KVM_CREATE_VM, 0);
	CHECK(m->vm >= 0 && !ioctl(m->vm, KVM_CREATE_IRQCHIP, 0));
	m->vcpu = ioctl(m->vm, KVM_CREATE_VCPU, 0);
	CHECK(m->vcpu >= 0 && !ioctl(m->vm, KVM_IRQFD, &irqfd));
}

/* Whether the line was raised since the last look: the PIC keeps an edge until it is told to forget. */
static bool raised(struct machine *m)
{
	struct kvm_irqchip chip = { .chip_id = KVM_IRQCHIP_PIC_MASTER };
	bool is;

	CHECK(!ioctl(m->vm, KVM_GET_IRQCHIP, &chip));
	is = chip.chip.pic.irr & 1 << LINE;
	chip.chip.pic.irr = chip.chip.pic.last_irr = 0;
	CHECK(!ioctl(m->vm, KVM_SET_IRQCHIP, &chip));
	return is;
}

/* Nobody else has run: one look right behind the call. */
static void test_writes(void)
{
	unsigned long one = 1, most = ~0ul;
	void *volatile nowhere = (void *)8;
	struct iovec part = { &one, sizeof(one) };
	int fd = eventfd(0, EFD_NONBLOCK);
	struct machine m;

	assign(&m, fd);
	CHECK(!raised(&m));
	for (unsigned n = 0; n < 200; n++) {
		CHECK(write(fd, &one, sizeof(one)) == sizeof(one) && raised(&m));
		CHECK(writev(fd, &part, 1) == sizeof(one) && raised(&m));
		CHECK(!eventfd_write(fd, 1) && raised(&m));
		CHECK(syscall(SYS_write, fd, &one, sizeof(one)) == sizeof(one) && raised(&m));
	}
	CHECK(read(fd, &one, sizeof(one)) < 0); /* the counter is taken each time */
	CHECK(write(fd, &most, sizeof(most)) < 0 && write(fd, &one, 4) < 0);
	CHECK(write(fd, nowhere, 8) < 0 && !raised(&m));
	machine_close(&m);
}

/* The number gets another owner: by dup2(), by close() and open(), in a child of vfork(), by a bare system call. */
static void test_numbers(void)
{
	unsigned long one = 0x31, got = 0;
	int fd = eventfd(0, EFD_NONBLOCK), ends[2], keep = dup(fd);
	struct machine m;
	pid_t child;
	long r;

	assign(&m, fd);
	CHECK(!pipe(ends));
	child = vfork();
	if (!child) {
		dup2(ends[1], fd);
		_exit(write(fd, &one, sizeof(one)) != sizeof(one));
	}
	CHECK(waitpid(child, NULL, 0) == child);
	CHECK(read(ends[0], &got, sizeof(got)) == sizeof(got) && got == one && !raised(&m));
	CHECK(write(fd, &one, sizeof(one)) == sizeof(one) &&
	      raised(&m)); /* the parent's is as before */
	__asm__ volatile("syscall"
			 : "=a"(r)
			 : "a"(SYS_dup2), "D"(ends[1]), "S"(fd)
			 : "rcx", "r11", "memory");
	CHECK(r == fd && write(fd, &one, sizeof(one)) == sizeof(one) && !raised(&m));
	CHECK(read(ends[0], &got, sizeof(got)) == sizeof(got));
	CHECK(dup2(keep, fd) == fd && !close(fd));
	CHECK(dup2(ends[1], fd) == fd && write(fd, &one, sizeof(one)) == sizeof(one));
	CHECK(read(ends[0], &got, sizeof(got)) == sizeof(got) && !raised(&m));
	machine_close(&m);
}

const struct test irqfd_tests[] = {
	{ "irqfd-writes", test_writes },
	{ "irqfd-numbers", test_numbers },
	{ NULL, NULL },
};

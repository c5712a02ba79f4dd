/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* A halted vCPU that looks before it sleeps: each interrupt arrives, and who forbids looking is obeyed. */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "vm.h"

#define VECTOR		 0x60
#define ROUNDS		 300
#define MSR_POLL_CONTROL 0x4b564d05u
#define NO_LIMIT	 0xffffffffull

/* Each interrupt is an exit of its stub; the EOI comes after it. */
GUEST(serve, 32,
      "movl $0x1ff, 0xfee000f0; out %al, $0xf0; 1: sti; hlt; cli; movl $0, 0xfee000b0; jmp 1b");

/* The counter @name of the vCPU, from the binary form that KVM_GET_STATS_FD gives. */
static uint64_t counter(struct vm *vm, const char *name)
{
	int fd = (int)vm_ioctl(vm, vm->vcpu, KVM_GET_STATS_FD, 0);
	struct kvm_stats_header h;
	uint64_t value = ~0ull;
	char d[sizeof(struct kvm_stats_desc) + 64];

	if (fd < 0 || read(fd, &h, sizeof(h)) != sizeof(h) || h.name_size > 64)
		check_fatal("KVM_GET_STATS_FD", "%d", fd);
	for (unsigned i = 0; i < h.num_desc; i++) {
		const struct kvm_stats_desc *row = (const void *)d;
		size_t size = sizeof(*row) + h.name_size;

		if (pread(fd, d, size, h.desc_offset + i * size) == (ssize_t)size &&
		    !strcmp(d + sizeof(*row), name) &&
		    pread(fd, &value, 8, h.data_offset + row->offset) != 8)
			check_failed(name, "no value");
	}
	vm->ops->close(fd);
	return value;
}

struct sender {
	struct vm *vm;
	unsigned served; /* by the vCPU; atomic */
};

/* One interrupt for each that was served, most of them when the vCPU has halted: a nap of every length up to 60 us. */
static void *send_all(void *arg)
{
	struct sender *s = arg;
	struct kvm_msi msi = { .address_lo = 0xfee00000, .data = VECTOR };

	for (unsigned n = 0; n < ROUNDS; n++) {
		struct timespec nap = { 0, n * 37 % 60000 };

		while (__atomic_load_n(&s->served, __ATOMIC_ACQUIRE) < n)
			sched_yield();
		if (n & 1)
			nanosleep(&nap, NULL);
		CHECK_EQ(vm_ioctl(s->vm, s->vm->fd, KVM_SIGNAL_MSI, (unsigned long)&msi), 1);
	}
	return NULL;
}

static void serve_all(struct vm *vm)
{
	struct sender s = { vm, 0 };
	pthread_t thread;

	vm_load(vm, VM_CODE, serve, serve_end - serve);
	vm_enter(vm, VM_PM32, 0);
	CHECK_EXIT(vm, KVM_EXIT_IO); /* the APIC is on */
	if (pthread_create(&thread, NULL, send_all, &s))
		check_fatal("pthread_create", "failed");
	for (unsigned n = 0; n < ROUNDS; n++) {
		CHECK_EXIT(vm, KVM_EXIT_IO);
		CHECK_EQ(vm->run->io.port, VECTOR);
		__atomic_store_n(&s.served, n + 1, __ATOMIC_RELEASE);
	}
	pthread_join(thread, NULL);
}

static void limit(struct vm *vm, uint64_t ns, long result)
{
	struct kvm_enable_cap e = { .cap = KVM_CAP_HALT_POLL, .args = { ns } };

	CHECK_EQ(vm_ioctl(vm, vm->fd, KVM_ENABLE_CAP, (unsigned long)&e), result);
}

/* How often it looked, and how often that was enough. */
static void looks(struct vm *vm, uint64_t *attempted, uint64_t *successful)
{
	*attempted = counter(vm, "halt_attempted_poll");
	*successful = counter(vm, "halt_successful_poll");
	if (*successful > *attempted)
		check_failed("counters", "%lu of %lu", *successful, *attempted);
}

/* How long it looks depends on how long it slept, so that only an absurd limit makes looking certain. */
static void it_looks(void)
{
	uint64_t attempted, successful;
	struct vm vm;

	vm_make(&vm, VM_IRQCHIP);
	limit(&vm, NO_LIMIT, 0);
	serve_all(&vm);
	looks(&vm, &attempted, &successful);
	if (!attempted)
		check_failed("halt_attempted_poll", "0");
	vm_destroy(&vm);
}

static void by_default(void)
{
	uint64_t attempted, successful;
	struct vm vm;

	vm_make(&vm, VM_IRQCHIP);
	serve_all(&vm);
	looks(&vm, &attempted, &successful);
	vm_destroy(&vm);
}

static void limit_of_zero(void)
{
	uint64_t attempted, successful;
	struct vm vm;

	vm_make(&vm, VM_IRQCHIP);
	limit(&vm, NO_LIMIT + 1, -EINVAL);
	limit(&vm, 0, 0);
	serve_all(&vm);
	looks(&vm, &attempted, &successful);
	CHECK_EQ(attempted, 0);
	vm_destroy(&vm);
}

/* MSR_KVM_POLL_CONTROL 0: the guest looks itself before it executes HLT. */
static void guest_looks(void)
{
	uint64_t attempted, successful;
	struct vm vm;

	vm_make(&vm, VM_IRQCHIP);
	limit(&vm, NO_LIMIT, 0);
	vm_msr(&vm, MSR_POLL_CONTROL, 0);
	serve_all(&vm);
	looks(&vm, &attempted, &successful);
	CHECK_EQ(attempted, 0);
	vm_destroy(&vm);
}

VM_TESTS({ .name = "halt, it looks before it sleeps", .run = it_looks, .seconds = 60 },
	 { .name = "halt, as long as that pays", .run = by_default, .seconds = 60 },
	 { .name = "halt, a limit of zero", .run = limit_of_zero, .seconds = 60 },
	 { .name = "halt, the guest looks itself", .run = guest_looks, .seconds = 60 });

/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Eventfds between devices and guest: irqfd from inside and outside the process, resampling, ioeventfd, coalesced writes. */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "anykvm/anykvm.h"
#include "vm.h"

#define GSI	    10
#define VECTOR	    0x60
#define VECTOR_MSI  0x61
#define NAP_MS	    20
#define DEVICE_RUNS 2000

/* 32-bit code without paging: LAPIC on, PIC off, and GSI 10 of the IOAPIC as a level with VECTOR. */
#define APIC_ON "movl $0x1ff, 0xfee000f0; movl $0x10000, 0xfee00350\n"
#define PIN_ON                                                                                     \
	"movl $0x24, 0xfec00000; movl $0x8060, 0xfec00010; movl $0x25, 0xfec00000; movl $0, "      \
	"0xfec00010\n"

/*
 * One write to a port tells that all is set up: what comes before is lost, as on any APIC that is off. Then every interrupt is
 * an exit of its stub; the EOI comes after, and none comes between the EOI and HLT.
 */
GUEST(ready_serve, 32,
      APIC_ON PIN_ON "out %al, $0xf0; 1: sti; hlt; cli; movl $0, 0xfee000b0; jmp 1b");
/* The same without ever sleeping. */
GUEST(ready_busy, 32, APIC_ON PIN_ON "out %al, $0xf0; sti; 1: movl $0, 0xfee000b0; pause; jmp 1b");

static int event(void)
{
	int fd = eventfd(0, EFD_NONBLOCK);

	if (fd < 0)
		check_fatal("eventfd", "%s", strerror(errno));
	return fd;
}

static uint64_t event_take(int fd)
{
	uint64_t n = 0;

	return read(fd, &n, sizeof(n)) == sizeof(n) ? n : 0;
}

static void event_set(int fd)
{
	uint64_t one = 1;

	if (write(fd, &one, sizeof(one)) != sizeof(one))
		check_failed("write", "%s", strerror(errno));
}

/* As a program's own write under the preload library. */
static void event_set_direct(int fd)
{
	if (vm_on_device)
		event_set(fd);
	else if (anykvm_eventfd_write(fd, 1))
		check_failed("anykvm_eventfd_write", "%s", strerror(errno));
}

static void irqfd(struct vm *vm, int fd, unsigned gsi, unsigned flags, int resample)
{
	struct kvm_irqfd e = { .fd = fd, .gsi = gsi, .flags = flags, .resamplefd = resample };

	CHECK_EQ(vm_ioctl(vm, vm->fd, KVM_IRQFD, (unsigned long)&e), 0);
}

static void route_msi(struct vm *vm)
{
	struct {
		struct kvm_irq_routing head;
		struct kvm_irq_routing_entry e[2];
	} r = { .head.nr = 2,
		.e = { { .gsi = GSI,
			 .type = KVM_IRQ_ROUTING_IRQCHIP,
			 .u.irqchip = { KVM_IRQCHIP_IOAPIC, GSI } },
		       { .gsi = 30,
			 .type = KVM_IRQ_ROUTING_MSI,
			 .u.msi = { .address_lo = 0xfee00000, .data = VECTOR_MSI } } } };

	CHECK_EQ(vm_ioctl(vm, vm->fd, KVM_SET_GSI_ROUTING, (unsigned long)&r), 0);
}

static void nap(unsigned ms)
{
	struct timespec t = { .tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000l };

	nanosleep(&t, NULL);
}

/* Ends a KVM_RUN that nothing else ends. */
static void on_alarm(int sig)
{
	(void)sig;
}

static struct vm *alarmed;

static void *stop_later(void *arg)
{
	nap(NAP_MS * 5);
	alarmed->run->immediate_exit = 1;
	pthread_kill(*(pthread_t *)arg, SIGUSR1);
	return NULL;
}

/* Run for a while, and expect that no interrupt comes. */
static void expect_silence(struct vm *vm, const char *where)
{
	struct sigaction sa = { .sa_handler = on_alarm };
	pthread_t self = pthread_self(), t;
	int r;

	sigaction(SIGUSR1, &sa, NULL);
	alarmed = vm;
	if (pthread_create(&t, NULL, stop_later, &self))
		check_fatal("thread", "not made");
	r = vm_run(vm);
	pthread_join(t, NULL);
	vm->run->immediate_exit = 0;
	if (r != -EINTR)
		check_failed(where, "%s", vm_exit_text(vm, r));
}

struct later {
	int fd;
	void (*set)(int fd);
};

static void *set_later(void *arg)
{
	struct later *l = arg;

	nap(NAP_MS);
	l->set(l->fd);
	return NULL;
}

static void expect_vector(struct vm *vm, int vector, const char *where)
{
	int r = vm_run(vm);

	if (r != KVM_EXIT_IO || vm->run->io.port != vector)
		check_failed(where, "no interrupt: %s", vm_exit_text(vm, r));
}

/* From another thread, from another process and from before the assignment; asleep and busy. */
static void edges_of(struct vm *vm, int fd, int vector)
{
	struct later l[] = { { fd, event_set }, { fd, event_set_direct } };
	pthread_t t;
	pid_t child;

	for (unsigned i = 0; i < 2; i++) {
		if (pthread_create(&t, NULL, set_later, &l[i]))
			check_fatal("thread", "not made");
		expect_vector(vm, vector, i ? "direct" : "thread");
		pthread_join(t, NULL);
		CHECK_EQ(event_take(fd), 0);
	}
	child = fork();
	if (!child) {
		set_later(&l[0]);
		_exit(0);
	}
	expect_vector(vm, vector, "process");
	waitpid(child, NULL, 0);
}

static void edges(void)
{
	int fd = event(), msi = event();
	struct vm vm;

	for (unsigned i = 0; i < 2; i++) {
		vm_make(&vm, VM_IRQCHIP);
		route_msi(&vm);
		vm_enter(&vm, VM_PM32, 0);
		if (i)
			VM_LOAD(&vm, VM_CODE, ready_busy);
		else
			VM_LOAD(&vm, VM_CODE, ready_serve);
		CHECK_EXIT(&vm, KVM_EXIT_IO);
		irqfd(&vm, msi, 30, 0, 0);
		edges_of(&vm, msi, VECTOR_MSI);
		irqfd(&vm, msi, 30, KVM_IRQFD_FLAG_DEASSIGN, 0);
		event_set(msi);
		event_set_direct(msi);
		expect_silence(&vm, "deassigned");
		CHECK_EQ(event_take(msi), 2);
		event_set(fd);
		irqfd(&vm, fd, 30, 0, 0);
		expect_vector(&vm, VECTOR_MSI, "signalled before it was assigned");
		vm_destroy(&vm);
	}
}

/* A child of fork() has a copy of the VM, into which its write must not go. */
static void forked_writer(void)
{
	int msi = event(), status = 0;
	struct vm vm;
	pid_t child;

	vm_make(&vm, VM_IRQCHIP);
	route_msi(&vm);
	VM_START(&vm, VM_PM32, 0, ready_serve);
	CHECK_EXIT(&vm, KVM_EXIT_IO);
	irqfd(&vm, msi, 30, 0, 0);
	child = fork();
	if (!child) {
		event_set_direct(msi);
		_exit(0);
	}
	expect_vector(&vm, VECTOR_MSI, "written by a child");
	waitpid(child, &status, 0);
	CHECK_EQ(status, 0);
	vm_destroy(&vm);
}

/* An edge on a pin that is a level rises and falls at once: nothing is left of it for an APIC that was busy. */
static void level_stays(void)
{
	int fd = event(), told = event();
	struct vm vm;

	vm_make(&vm, VM_IRQCHIP);
	VM_START(&vm, VM_PM32, 0, ready_serve);
	CHECK_EXIT(&vm, KVM_EXIT_IO);
	irqfd(&vm, fd, GSI, KVM_IRQFD_FLAG_RESAMPLE, told);
	event_set_direct(fd);
	expect_vector(&vm, VECTOR, "raised");
	CHECK_EQ(event_take(told), 0);
	expect_silence(&vm, "lowered by the EOI");
	CHECK_EQ(event_take(told), 1);
	/* Raised and not acknowledged: goes with the irqfd. */
	event_set_direct(fd);
	irqfd(&vm, fd, GSI, KVM_IRQFD_FLAG_DEASSIGN, 0);
	expect_vector(&vm, VECTOR, "was latched");
	expect_silence(&vm, "the level went with the irqfd");
	CHECK_EQ(event_take(told), 0);
	vm_destroy(&vm);
}

/* A device with an interrupt line of its own behaviour: works, raises, waits until it was served. */
struct device {
	int fd, told;
	uint32_t pending, served;
};

/* Raise until it is served; a resample with work left raises again. */
static void device_run(struct device *d, void (*set)(int fd))
{
	struct pollfd p = { .fd = d->told, .events = POLLIN };

	for (unsigned i = 0; i < DEVICE_RUNS; i++) {
		__atomic_store_n(&d->pending, 1, __ATOMIC_SEQ_CST);
		set(d->fd);
		while (__atomic_load_n(&d->pending, __ATOMIC_SEQ_CST)) {
			if (poll(&p, 1, -1) == 1 && event_take(d->told) &&
			    __atomic_load_n(&d->pending, __ATOMIC_SEQ_CST))
				set(d->fd);
		}
	}
}

static void *device_thread(void *arg)
{
	device_run(arg, event_set_direct);
	return NULL;
}

static void device_serve(struct device *d)
{
	if (__atomic_exchange_n(&d->pending, 0, __ATOMIC_SEQ_CST))
		d->served++;
}

/* Two devices on one line, one of them another process: no request is lost, and the line is low in the end. */
static void shared_line(void)
{
	struct device *d =
		mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	unsigned spurious = 0, before;
	struct vm vm;
	pthread_t t;
	pid_t child;

	vm_make(&vm, VM_IRQCHIP);
	VM_START(&vm, VM_PM32, 0, ready_serve);
	CHECK_EXIT(&vm, KVM_EXIT_IO);
	for (unsigned i = 0; i < 2; i++) {
		d[i].fd = event();
		d[i].told = event();
		irqfd(&vm, d[i].fd, GSI, KVM_IRQFD_FLAG_RESAMPLE, d[i].told);
	}
	child = fork();
	if (!child) {
		device_run(&d[1], event_set);
		_exit(0);
	}
	if (pthread_create(&t, NULL, device_thread, &d[0]))
		check_fatal("thread", "not made");
	while (d[0].served < DEVICE_RUNS || d[1].served < DEVICE_RUNS) {
		before = d[0].served + d[1].served;
		expect_vector(&vm, VECTOR, "shared line");
		device_serve(&d[0]);
		device_serve(&d[1]);
		spurious += d[0].served + d[1].served == before;
	}
	/* Both are told by the last EOI. */
	expect_silence(&vm, "at the end");
	pthread_join(t, NULL);
	waitpid(child, NULL, 0);
	check_note("%u requests of each device, %u interrupts found none", DEVICE_RUNS, spurious);
	vm_destroy(&vm);
}

static void *toggle_irqfds(void *arg)
{
	struct vm *vm = arg;
	int fd = event();

	for (unsigned i = 0; i < DEVICE_RUNS; i++) {
		irqfd(vm, fd, 30, 0, 0);
		event_set(fd);
		if (i & 1)
			event_set_direct(fd);
		irqfd(vm, fd, 30, KVM_IRQFD_FLAG_DEASSIGN, 0);
		event_take(fd);
	}
	event_set(fd);
	irqfd(vm, fd, 31, 0, 0);
	return NULL;
}

/* Assign and deassign while the helper thread and the guest are at work on it. */
static void races(void)
{
	struct {
		struct kvm_irq_routing head;
		struct kvm_irq_routing_entry e[2];
	} r = { .head.nr = 2 };
	struct vm vm;
	pthread_t t;

	for (unsigned i = 0; i < 2; i++) {
		r.e[i].gsi = 30 + i;
		r.e[i].type = KVM_IRQ_ROUTING_MSI;
		r.e[i].u.msi.address_lo = 0xfee00000;
		r.e[i].u.msi.data = VECTOR_MSI + i;
	}
	vm_make(&vm, VM_IRQCHIP);
	CHECK_EQ(vm_ioctl(&vm, vm.fd, KVM_SET_GSI_ROUTING, (unsigned long)&r), 0);
	VM_START(&vm, VM_PM32, 0, ready_serve);
	CHECK_EXIT(&vm, KVM_EXIT_IO);
	if (pthread_create(&t, NULL, toggle_irqfds, &vm))
		check_fatal("thread", "not made");
	do {
		if (vm_run(&vm) != KVM_EXIT_IO)
			check_fatal("races", "%s", vm_exit_text(&vm, vm.run->exit_reason));
	} while (vm.run->io.port != VECTOR_MSI + 1);
	pthread_join(t, NULL);
	vm_destroy(&vm);
}

/* Writes of every size, to places of which some are taken; the last one is nobody's. */
GUEST(doorbells, 64,
      "mov $0x10000000, %ebx; mov $7, %eax\n"
      "mov %al, (%rbx); mov %ax, (%rbx); mov %eax, (%rbx); mov %rax, (%rbx)\n"
      "mov %eax, 0x10(%rbx); mov %ax, 0x20(%rbx); mov %rax, 0x20(%rbx)\n"
      "mov $0x200, %edx; out %al, %dx; out %ax, %dx; out %eax, %dx\n"
      "mov $3, %ecx; mov $0x20000, %esi; cld; rep outsb\n"
      "mov $4, %ecx; mov $0x20000, %esi; lea 0x30(%rbx), %rdi; xor %eax, %eax; rep stosl\n"
      "mov $0x55, %al; out %al, $0xf0; hlt");

struct bell {
	struct kvm_ioeventfd e;
	uint64_t rings;
};

/* In the order of the code above: MMIO 7 by each size at 0, 4 bytes at 0x10, 2 and 8 at 0x20, ports, a string. */
static void ioeventfds(void)
{
	static const struct bell rows[] = {
		{ { .addr = 0x10000000, .len = 1 }, 1 },
		{ { .addr = 0x10000000, .len = 2, .datamatch = 7, .flags = 1 }, 1 },
		{ { .addr = 0x10000000, .len = 2, .datamatch = 8, .flags = 1 }, 0 },
		{ { .addr = 0x10000000, .len = 4 }, 1 },
		{ { .addr = 0x10000000, .len = 8 }, 1 },
		{ { .addr = 0x10000010, .len = 4, .datamatch = 7, .flags = 1 }, 1 },
		{ { .addr = 0x10000020 }, 2 },
		{ { .addr = 0x200, .flags = 2 }, 6 },
		{ { .addr = 0x10000030, .len = 4 }, 1 },
		{ { .addr = 0x10000034, .len = 4 }, 1 },
		{ { .addr = 0x10000038 }, 1 },
		{ { .addr = 0x1000003c, .len = 4, .datamatch = 0, .flags = 1 }, 1 },
	};
	int fd[sizeof(rows) / sizeof(rows[0])];
	struct kvm_ioeventfd e;
	struct vm vm;

	vm_make(&vm, 0);
	VM_START(&vm, VM_LONG, 0, doorbells);
	for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		e = rows[i].e;
		/* A blocking one too. */
		e.fd = fd[i] = eventfd(0, i & 1 ? EFD_NONBLOCK : 0);
		CHECK_EQ(vm_ioctl(&vm, vm.fd, KVM_IOEVENTFD, (unsigned long)&e), 0);
	}
	CHECK_EXIT(&vm, KVM_EXIT_IO);
	CHECK_EQ(vm.run->io.port, 0xf0);
	for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct pollfd p = { .fd = fd[i], .events = POLLIN };

		if ((poll(&p, 1, 0) == 1 ? event_take(fd[i]) : 0) != rows[i].rings)
			check_failed("ioeventfd", "row %u", i);
		e = rows[i].e;
		e.fd = fd[i];
		e.flags |= KVM_IOEVENTFD_FLAG_DEASSIGN;
		CHECK_EQ(vm_ioctl(&vm, vm.fd, KVM_IOEVENTFD, (unsigned long)&e), 0);
	}
	vm_jump(&vm, VM_CODE);
	CHECK_EXIT(&vm, KVM_EXIT_MMIO);
	CHECK_EQ(vm.run->mmio.phys_addr, 0x10000000);
	CHECK_EQ(vm.run->mmio.len, 1);
	vm_destroy(&vm);
}

/* A read, a write of another size and one of another value still go to user space. */
GUEST(missed_bells, 32,
      "mov $0x10000000, %ebx; mov $7, %eax; mov %eax, (%ebx); mov (%ebx), %ecx; mov %ax, (%ebx)\n"
      "inc %eax; mov %eax, (%ebx); hlt");

static void ioeventfd_missed(void)
{
	struct kvm_ioeventfd e = { .addr = 0x10000000,
				   .len = 4,
				   .datamatch = 7,
				   .flags = KVM_IOEVENTFD_FLAG_DATAMATCH,
				   .fd = event() };
	struct vm vm;

	vm_make(&vm, 0);
	VM_START(&vm, VM_PM32, 0, missed_bells);
	CHECK_EQ(vm_ioctl(&vm, vm.fd, KVM_IOEVENTFD, (unsigned long)&e), 0);
	CHECK_EXIT(&vm, KVM_EXIT_MMIO);
	CHECK_EQ(vm.run->mmio.is_write, 0);
	CHECK_EXIT(&vm, KVM_EXIT_MMIO);
	CHECK_EQ(vm.run->mmio.is_write, 1);
	CHECK_EQ(vm.run->mmio.len, 2);
	CHECK_EXIT(&vm, KVM_EXIT_MMIO);
	CHECK_EQ(vm.run->mmio.data[0], 8);
	CHECK_EXIT(&vm, KVM_EXIT_HLT);
	CHECK_EQ(event_take(e.fd), 1);
	vm_destroy(&vm);
}

/* A counter that is full is no reason to wait, nor to lose the write to user space. */
static void ioeventfd_full(void)
{
	struct kvm_ioeventfd e = { .addr = 0x10000000, .len = 4 };
	uint64_t full = ~0ull - 1;
	struct vm vm;

	for (unsigned i = 0; i < 2; i++) {
		e.fd = eventfd(0, i ? EFD_NONBLOCK : 0);
		CHECK_EQ(write(e.fd, &full, sizeof(full)), sizeof(full));
		vm_make(&vm, 0);
		VM_START(&vm, VM_PM32, 0, missed_bells);
		CHECK_EQ(vm_ioctl(&vm, vm.fd, KVM_IOEVENTFD, (unsigned long)&e), 0);
		CHECK_EXIT(&vm, KVM_EXIT_MMIO);
		CHECK_EQ(vm.run->mmio.is_write, 0);
		vm_destroy(&vm);
	}
}

GUEST(batch, 32,
      "mov $0x10000100, %ebx; mov $0x11223344, %eax; mov %al, (%ebx); mov %ax, 0xfe(%ebx)\n"
      "out %al, $0xe0; mov %eax, 0xfe(%ebx); mov (%ebx), %ecx; mov $200, %ecx\n"
      "1: mov %ecx, 4(%ebx); loop 1b; hlt");

static struct kvm_coalesced_mmio_ring *ring_of(struct vm *vm)
{
	return (void *)((uint8_t *)vm->run + 2 * 4096);
}

static void entry_check(const struct kvm_coalesced_mmio *e, uint64_t addr, unsigned len, bool pio,
			uint32_t data)
{
	CHECK_EQ(e->phys_addr, addr);
	CHECK_EQ(e->len, len);
	CHECK_EQ(e->pio, pio);
	CHECK_EQ(memcmp(e->data, &data, len), 0);
}

#define RING_MAX                                                                                   \
	((4096 - sizeof(struct kvm_coalesced_mmio_ring)) / sizeof(struct kvm_coalesced_mmio))

static void coalesced(void)
{
	struct kvm_coalesced_mmio_zone mmio = { .addr = 0x10000100, .size = 0x100 };
	struct kvm_coalesced_mmio_zone pio = { .addr = 0xe0, .size = 1, .pio = 1 };
	struct kvm_coalesced_mmio_ring *ring;
	struct vm vm;

	vm_make(&vm, 0);
	VM_START(&vm, VM_PM32, 0, batch);
	ring = ring_of(&vm);
	CHECK_EQ(vm_ioctl(&vm, vm.fd, KVM_REGISTER_COALESCED_MMIO, (unsigned long)&mmio), 0);
	CHECK_EQ(vm_ioctl(&vm, vm.fd, KVM_REGISTER_COALESCED_MMIO, (unsigned long)&pio), 0);
	/* The write that leaves the zone is an exit; so is the read. */
	CHECK_EXIT(&vm, KVM_EXIT_MMIO);
	CHECK_EQ(vm.run->mmio.phys_addr, 0x100001fe);
	CHECK_EQ(vm.run->mmio.len, 4);
	CHECK_EQ(ring->last, 3);
	entry_check(&ring->coalesced_mmio[0], 0x10000100, 1, false, 0x44);
	entry_check(&ring->coalesced_mmio[1], 0x100001fe, 2, false, 0x3344);
	entry_check(&ring->coalesced_mmio[2], 0xe0, 1, true, 0x44);
	CHECK_EXIT(&vm, KVM_EXIT_MMIO);
	CHECK_EQ(vm.run->mmio.is_write, 0);
	/* Nobody empties the ring: it takes what it has room for, and the next write is an exit. */
	CHECK_EXIT(&vm, KVM_EXIT_MMIO);
	CHECK_EQ(ring->last, RING_MAX - 1);
	CHECK_EQ(vm.run->mmio.data[0], 200 - (RING_MAX - 1 - 3));
	ring->first = ring->last;
	CHECK_EXIT(&vm, KVM_EXIT_HLT);
	CHECK_EQ(ring->last, (RING_MAX - 1 + 200 - (RING_MAX - 3)) % RING_MAX);
	/* An index that user space spoiled takes nothing. */
	ring->last = 0xfffffff0;
	vm_jump(&vm, VM_CODE);
	CHECK_EXIT(&vm, KVM_EXIT_MMIO);
	CHECK_EQ(vm.run->mmio.len, 1);
	ring->first = ring->last = 0;
	CHECK_EQ(vm_ioctl(&vm, vm.fd, KVM_UNREGISTER_COALESCED_MMIO, (unsigned long)&mmio), 0);
	CHECK_EXIT(&vm, KVM_EXIT_MMIO);
	CHECK_EQ(ring->last, 0);
	vm_destroy(&vm);
}

VM_TESTS({ .name = "irqfd, edges", .run = edges },
	 { .name = "irqfd, written by a child", .run = forked_writer },
	 { .name = "irqfd, a level stays until the EOI", .run = level_stays },
	 { .name = "irqfd, two devices on a line", .run = shared_line, .seconds = 60 },
	 { .name = "irqfd, assigned and deassigned at work", .run = races, .seconds = 60 },
	 { .name = "ioeventfd", .run = ioeventfds },
	 { .name = "ioeventfd, what does not match", .run = ioeventfd_missed },
	 { .name = "ioeventfd, a full counter", .run = ioeventfd_full },
	 { .name = "coalesced writes", .run = coalesced });

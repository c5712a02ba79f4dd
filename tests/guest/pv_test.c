/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Split interrupt controllers, task priority with user space, HLT without exit, PV EOI, steal time, TLB flushes, IPIs and kicks by hypercall. */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "vm.h"

#define VECTOR	       0x60
#define GSI	       5
#define MSR_STEAL_TIME 0x4b564d03u
#define MSR_PV_EOI     0x4b564d04u
#define CELL	       0x20000 /* VM_DATA */
#define APIC_ON	       "movl $0x1ff, 0xfee000f0; movl $0x10000, 0xfee00350\n"

static void cap(struct vm *vm, unsigned number, uint64_t arg)
{
	struct kvm_enable_cap e = { .cap = number, .args = { arg } };

	CHECK_EQ(vm_ioctl(vm, vm->fd, KVM_ENABLE_CAP, (unsigned long)&e), 0);
}

/* A VM with the capability before its first vCPU: vm_make() makes that too, so a second VM takes its place. */
static void vm_make_split(struct vm *vm)
{
	struct vm old;

	vm_make(vm, 0);
	old = *vm;
	vm->fd = (int)vm_ioctl(vm, vm->sys, KVM_CREATE_VM, 0);
	cap(vm, KVM_CAP_SPLIT_IRQCHIP, 24);
	vm->vcpu = (int)vm_ioctl(vm, vm->fd, KVM_CREATE_VCPU, 0);
	vm->run = vm->ops->mmap(NULL, vm->run_size, 3, 1 /* shared */, vm->vcpu, 0);
	vm_slot(vm, 0, 0, 0, VM_SIZE, vm->ram);
	vm_set_cpuid(vm);
	old.ops->close(old.vcpu);
	old.ops->close(old.fd);
}

static void route_level(struct vm *vm, unsigned gsi, bool level)
{
	struct {
		struct kvm_irq_routing head;
		struct kvm_irq_routing_entry e;
	} r = { .head.nr = 1,
		.e = { .gsi = gsi,
		       .type = KVM_IRQ_ROUTING_MSI,
		       .u.msi = { .address_lo = 0xfee00000,
				  .data = VECTOR | (level ? 0x8000 : 0) } } };

	CHECK_EQ(vm_ioctl(vm, vm->fd, KVM_SET_GSI_ROUTING, (unsigned long)&r), 0);
}

static void raise_gsi(struct vm *vm, unsigned gsi)
{
	struct kvm_irq_level l = { .irq = gsi, .level = 1 };

	CHECK_EQ(vm_ioctl(vm, vm->fd, KVM_IRQ_LINE, (unsigned long)&l), 0);
}

GUEST(ready_serve, 32,
      APIC_ON "out %al, $0xf0; 1: sti; hlt; cli; movl $0, 0xfee000b0; out %al, $0xf1; jmp 1b");

/* A level of user space's IOAPIC is an exit when it ends; an edge, and a GSI above the pins, are none. */
static void split_eoi(void)
{
	struct vm vm;

	vm_make_split(&vm);
	VM_START(&vm, VM_PM32, 0, ready_serve);
	CHECK_EXIT(&vm, KVM_EXIT_IO);
	CHECK_EQ(vm.run->io.port, 0xf0);
	for (unsigned i = 0; i < 3; i++) {
		unsigned gsi = i == 2 ? 30 : GSI;

		route_level(&vm, gsi, i != 1);
		raise_gsi(&vm, gsi);
		VM_FAULT(&vm, VECTOR);
		if (!i) {
			CHECK_EXIT(&vm, KVM_EXIT_IOAPIC_EOI);
			CHECK_EQ(vm.run->eoi.vector, VECTOR);
		}
		CHECK_EXIT(&vm, KVM_EXIT_IO);
		CHECK_EQ(vm.run->io.port, 0xf1);
	}
	vm_destroy(&vm);
}

/* The PIC is user space's: its vector comes by KVM_INTERRUPT, through LINT0 and only when that lets it. */
GUEST(extint, 32,
      "movl $0x1ff, 0xfee000f0; movl $0x700, 0xfee00350; out %al, $0xf0; sti; 1: jmp 1b");

static void split_extint(void)
{
	struct kvm_interrupt irq = { .irq = 0x33 };
	struct vm vm;

	vm_make_split(&vm);
	VM_START(&vm, VM_PM32, 0, extint);
	CHECK_EXIT(&vm, KVM_EXIT_IO);
	CHECK_EQ(vm.run->ready_for_interrupt_injection, 0);
	vm.run->request_interrupt_window = 1;
	CHECK_EXIT(&vm, KVM_EXIT_IRQ_WINDOW_OPEN);
	CHECK_EQ(vm.run->ready_for_interrupt_injection, 1);
	vm.run->request_interrupt_window = 0;
	CHECK_EQ(vm_ioctl(&vm, vm.vcpu, KVM_INTERRUPT, (unsigned long)&irq), 0);
	VM_FAULT(&vm, 0x33);
	CHECK_EQ(vm_ioctl(&vm, vm.vcpu, KVM_INTERRUPT, (unsigned long)&irq), 0);
	vm_destroy(&vm);
}

/* Without an APIC in the VM: only a CR8 that falls is told. */
GUEST(lower_cr8, 64,
      "mov $5, %eax; mov %rax, %cr8; mov %rax, %cr8; mov $3, %eax; mov %rax, %cr8; inc %ebx; hlt");

static void set_tpr(void)
{
	struct kvm_regs r;
	struct vm vm;

	vm_make(&vm, 0);
	VM_START(&vm, VM_LONG, 0, lower_cr8);
	CHECK_EXIT(&vm, KVM_EXIT_SET_TPR);
	CHECK_EQ(vm.run->cr8, 3);
	r = vm_regs(&vm);
	CHECK_EQ(r.rbx, 0);
	CHECK_EXIT(&vm, KVM_EXIT_HLT);
	vm_destroy(&vm);
}

GUEST(tpr_accesses, 32,
      "mov 0xfee00080, %eax; movl $0x20, 0xfee00080; mov 0xfee00020, %eax; out %al, $0xf0; hlt");

static void tpr_reports(void)
{
	struct kvm_tpr_access_ctl tac = { .enabled = 1 };
	struct vm vm;

	vm_make(&vm, VM_IRQCHIP);
	VM_START(&vm, VM_PM32, 0, tpr_accesses);
	CHECK_EQ(vm_ioctl(&vm, vm.vcpu, KVM_TPR_ACCESS_REPORTING, (unsigned long)&tac), 0);
	CHECK_EXIT(&vm, KVM_EXIT_TPR_ACCESS);
	CHECK_EQ(vm.run->tpr_access.rip, VM_CODE);
	CHECK_EQ(vm.run->tpr_access.is_write, 0);
	CHECK_EXIT(&vm, KVM_EXIT_TPR_ACCESS);
	CHECK_EQ(vm.run->tpr_access.rip, VM_CODE + 5);
	CHECK_EQ(vm.run->tpr_access.is_write, 1);
	CHECK_EXIT(&vm, KVM_EXIT_IO);
	vm_destroy(&vm);
}

/* The guest lowers its priority in memory, and a hypercall lets the interrupt through. */
GUEST(vapic_code, 32,
      APIC_ON "movl $0xf0, 0xfee00080; sti; out %al, $0xf0; mov 0x20000, %ebx; movb $0, 0x20000\n"
	      "mov $1, %eax; vmmcall; 1: jmp 1b");

static void vapic(void)
{
	struct kvm_vapic_addr va = { .vapic_addr = CELL };
	struct vm vm;

	vm_make(&vm, VM_IRQCHIP);
	route_level(&vm, 30, false);
	VM_START(&vm, VM_PM32, 0, vapic_code);
	CHECK_EXIT(&vm, KVM_EXIT_IO);
	CHECK_EQ(vm_ioctl(&vm, vm.vcpu, KVM_SET_VAPIC_ADDR, (unsigned long)&va), 0);
	raise_gsi(&vm, 30);
	VM_FAULT(&vm, VECTOR);
	/* TPR, nothing in service, the request. */
	CHECK_EQ(vm_regs(&vm).rbx, VECTOR << 24 | 0xf0);
	vm_destroy(&vm);
}

static void on_signal(int sig)
{
	(void)sig;
}

static void *stop_later(void *arg)
{
	struct timespec t = { .tv_nsec = 50000000 };
	struct vm *vm = arg;

	nanosleep(&t, NULL);
	vm->run->immediate_exit = 1;
	kill(getpid(), SIGUSR1);
	return NULL;
}

GUEST(halt_in_guest, 32, "sti; hlt; inc %eax; hlt");

static void hlt_stays(void)
{
	struct sigaction sa = { .sa_handler = on_signal };
	struct kvm_interrupt irq = { .irq = 0x95 };
	struct vm vm;
	pthread_t t;

	sigaction(SIGUSR1, &sa, NULL);
	vm_make(&vm, 0);
	cap(&vm, KVM_CAP_X86_DISABLE_EXITS, KVM_X86_DISABLE_EXITS_HLT);
	VM_START(&vm, VM_PM32, 0, halt_in_guest);
	for (unsigned i = 0; i < 2; i++) {
		if (pthread_create(&t, NULL, stop_later, &vm))
			check_fatal("thread", "not made");
		CHECK_EQ(vm_run(&vm), -EINTR);
		pthread_join(t, NULL);
		vm.run->immediate_exit = 0;
		CHECK_EQ(vm_regs(&vm).rax, 0);
	}
	vm.run->request_interrupt_window = 1;
	CHECK_EXIT(&vm, KVM_EXIT_IRQ_WINDOW_OPEN);
	vm.run->request_interrupt_window = 0;
	CHECK_EQ(vm_ioctl(&vm, vm.vcpu, KVM_INTERRUPT, (unsigned long)&irq), 0);
	VM_FAULT(&vm, 0x95);
	vm_destroy(&vm);
}

/*
 * The handler of the first interrupt is this code itself: it ends it by the bit where that is set and by the register where
 * not, and counts both in EBX and ECX.
 */
GUEST(pv_eoi, 32,
      APIC_ON "out %al, $0xf0; 1: sti; hlt; cli; btrl $0, 0x20000; jc 2f\n"
	      "movl $0, 0xfee000b0; inc %ecx; jmp 3f; 2: inc %ebx; 3: out %al, $0xf1; jmp 1b");

static void pv_eoi_rounds(struct vm *vm, unsigned rounds)
{
	struct kvm_regs r = vm_regs(vm);

	r.rbx = r.rcx = 0;
	vm_set_regs(vm, &r);
	for (unsigned i = 0; i < rounds; i++) {
		raise_gsi(vm, 30);
		VM_FAULT(vm, VECTOR);
		CHECK_EXIT(vm, KVM_EXIT_IO);
		CHECK_EQ(vm->run->io.port, 0xf1);
	}
}

static void pv_eoi_bit(void)
{
	struct vm vm;

	vm_make(&vm, VM_IRQCHIP);
	route_level(&vm, 30, false);
	VM_START(&vm, VM_PM32, 0, pv_eoi);
	CHECK_EXIT(&vm, KVM_EXIT_IO);
	vm_msr(&vm, MSR_PV_EOI, CELL | 1);
	pv_eoi_rounds(&vm, 50);
	CHECK_EQ(vm_regs(&vm).rbx, 50);
	CHECK_EQ(vm_regs(&vm).rcx, 0);
	vm_msr(&vm, MSR_PV_EOI, 0);
	pv_eoi_rounds(&vm, 5);
	CHECK_EQ(vm_regs(&vm).rbx, 0);
	CHECK_EQ(vm_regs(&vm).rcx, 5);
	vm_destroy(&vm);
}

struct steal {
	uint64_t steal;
	uint32_t version, flags;
	uint8_t preempted;
};

static volatile bool burning = true;

static void *burn(void *arg)
{
	while (burning)
		;
	return arg;
}

GUEST(spin_out, 32, "mov $3000000, %ecx; 1: loop 1b; out %al, $0xf0; hlt");

/* A thread beside ours on one CPU takes time away, and the guest is told how much. */
static void steal_time(void)
{
	struct steal *s;
	struct vm vm;
	cpu_set_t one;
	uint64_t first;
	pthread_t t;

	CPU_ZERO(&one);
	CPU_SET(sched_getcpu(), &one);
	if (sched_setaffinity(0, sizeof(one), &one))
		check_skip("no affinity");
	vm_make(&vm, VM_IRQCHIP);
	VM_START(&vm, VM_PM32, 0, spin_out);
	s = (struct steal *)(vm.ram + CELL);
	*s = (struct steal){ .version = 7, .preempted = 1 };
	vm_msr(&vm, MSR_STEAL_TIME, CELL | 1);
	CHECK_EXIT(&vm, KVM_EXIT_IO);
	CHECK_EQ(s->version & 1, 0);
	CHECK_EQ(s->preempted, 0);
	first = s->steal;
	if (pthread_create(&t, NULL, burn, NULL))
		check_fatal("thread", "not made");
	for (unsigned i = 0; i < 100 && s->steal - first < 20000000; i++) {
		vm_jump(&vm, VM_CODE);
		CHECK_EXIT(&vm, KVM_EXIT_IO);
	}
	burning = false;
	pthread_join(t, NULL);
	CHECK(s->steal - first >= 20000000);
	vm_destroy(&vm);
}

/* The user page 0x30000 is read, then again after an exit. */
GUEST(read_twice, 64,
      "1: mov 0x30000, %ebx; out %al, $0xf0; mov 0x30000, %ecx; out %al, $0xf1; jmp 1b");

/* While a vCPU is marked as preempted, another may leave its flush in the mark. */
static void pv_tlb_flush(void)
{
	struct steal *s;
	struct vm vm;

	vm_make(&vm, VM_IRQCHIP);
	VM_START(&vm, VM_LONG, 0, read_twice);
	vm_msr(&vm, MSR_STEAL_TIME, CELL | 1);
	s = (struct steal *)(vm.ram + CELL);
	vm_poke(&vm, 0x40000, 1, 4);
	vm_poke(&vm, 0x41000, 2, 4);
	*vm_pte(&vm, 0x30000) = 0x40067;
	CHECK_EXIT(&vm, KVM_EXIT_IO);
	CHECK_EQ(s->preempted, 0); /* an exit is no preemption */
	*vm_pte(&vm, 0x30000) = 0x41067;
	s->preempted = 1 | 2;
	CHECK_EXIT(&vm, KVM_EXIT_IO);
	CHECK_EQ(vm_regs(&vm).rbx, 1);
	CHECK_EQ(vm_regs(&vm).rcx, 2);
	CHECK_EQ(s->preempted, 0);
	vm_destroy(&vm);
}

/* A hypercall by RAX, RBX, RCX, RDX, RSI as the test sets them, again and again. */
GUEST(calls32, 32, APIC_ON "1: out %al, $0xf0; vmmcall; out %al, $0xf1; jmp 1b");
GUEST(calls, 32, "1: out %al, $0xf0; vmmcall; out %al, $0xf1; jmp 1b");
GUEST(calls64, 64, "1: out %al, $0xf0; vmmcall; out %al, $0xf1; jmp 1b");
GUEST(sleeper, 32,
      APIC_ON "1: out %al, $0xf0; sti; hlt; cli; movl $0, 0xfee000b0; out %al, $0xf1; jmp 1b");
GUEST(sleeper64, 64,
      "mov $0x1b, %ecx; rdmsr; or $0xc00, %eax; wrmsr; mov $0x80f, %ecx; mov $0x1ff, %eax; xor "
      "%edx, %edx; wrmsr\n"
      "1: out %al, $0xf0; sti; hlt; cli; out %al, $0xf1; jmp 1b");
GUEST(sleeper_cli, 32, APIC_ON "1: out %al, $0xf0; cli; hlt; out %al, $0xf1; jmp 1b");

static void expect_port(struct vm *vm, unsigned port, const char *where)
{
	check_exit(vm, KVM_EXIT_IO, where);
	if (vm->run->io.port != port)
		check_failed(where, "port %x, expected %x", vm->run->io.port, port);
}

static int64_t hypercall(struct vm *vm, uint64_t nr, uint64_t b, uint64_t c, uint64_t d, uint64_t s)
{
	struct kvm_regs r;

	expect_port(vm, 0xf0, VM_HERE);
	r = vm_regs(vm);
	r.rax = nr;
	r.rbx = b;
	r.rcx = c;
	r.rdx = d;
	r.rsi = s;
	vm_set_regs(vm, &r);
	expect_port(vm, 0xf1, VM_HERE);
	r = vm_regs(vm);
	return vm->mode == VM_LONG ? (int64_t)r.rax : (int32_t)r.rax;
}

#define HC_KICK	     5
#define HC_IPI	     10
#define OTHER	     40 /* APIC ID of the second vCPU: in the second bitmap of 32-bit code */
#define ENOSYS_GUEST 1000

/* Two vCPUs in @mode, the second one about to sleep. */
static void two_start(struct vm *vm, struct vm *other, enum vm_mode mode, const uint8_t *code,
		      size_t size, const uint8_t *sleeping, size_t sleeping_size)
{
	struct kvm_mp_state running = { KVM_MP_STATE_RUNNABLE };

	vm_make(vm, VM_IRQCHIP);
	vm_add_cpu(other, vm, OTHER);
	vm_enter(vm, mode, 0);
	vm_cpu_enter(other, mode, 0);
	other->mode = mode;
	vm_load(vm, VM_CODE, code, size);
	vm_load(vm, VM_CODE + 0x1000, sleeping, sleeping_size);
	vm_jump(other, VM_CODE + 0x1000);
	vm_ioctl(other, other->vcpu, KVM_SET_MP_STATE, (unsigned long)&running);
	expect_port(other, 0xf0, VM_HERE); /* its APIC is on */
}
#define TWO_START(vm, other, mode, code, sleeping)                                                 \
	two_start(vm, other, mode, code, code##_end - code, sleeping, sleeping##_end - sleeping)

static void two_end(struct vm *vm, struct vm *other)
{
	vm_drop_cpu(other);
	vm_destroy(vm);
}

static void pv_ipi_32(void)
{
	struct vm vm, other;

	TWO_START(&vm, &other, VM_PM32, calls32, sleeper);
	/* The second bitmap begins 32 IDs behind the first. */
	CHECK_EQ(hypercall(&vm, HC_IPI, 0, 1u << (OTHER - 32), 0, VECTOR), 1);
	expect_port(&other, VECTOR, VM_HERE);
	expect_port(&other, 0xf1, VM_HERE);
	expect_port(&other, 0xf0, VM_HERE);
	CHECK_EQ(hypercall(&vm, HC_IPI, 1u << 3, 0, OTHER - 3, VECTOR + 1), 1);
	expect_port(&other, VECTOR + 1, VM_HERE);
	CHECK_EQ(hypercall(&vm, HC_IPI, 1u << 4, 1, OTHER, VECTOR), 0);
	CHECK_EQ(hypercall(&vm, HC_IPI, ~0u, ~0u, ~0u, VECTOR), 0);
	CHECK_EQ(hypercall(&vm, HC_IPI, 1, 0, OTHER, VECTOR | 0x800), -EINVAL);
	CHECK_EQ(hypercall(&vm, HC_IPI, 1, 0, OTHER, VECTOR | 0x40000), -EINVAL);
	two_end(&vm, &other);
}

static void pv_ipi_64(void)
{
	struct vm vm, other;

	TWO_START(&vm, &other, VM_LONG, calls64, sleeper64);
	CHECK_EQ(hypercall(&vm, HC_IPI, 1ull << OTHER, 0, 0, VECTOR), 1);
	expect_port(&other, VECTOR, VM_HERE);
	CHECK_EQ(hypercall(&vm, HC_IPI, 0, 1ull << OTHER, 0, VECTOR), 0);
	two_end(&vm, &other);
}

/* What CPUID does not offer is no hypercall, once user space says that CPUID counts. */
static void pv_enforced(void)
{
	struct kvm_enable_cap e = { .cap = KVM_CAP_ENFORCE_PV_FEATURE_CPUID, .args = { 1 } };
	struct kvm_cpuid2 none = { .nent = 0 };
	struct vm vm;

	vm_make(&vm, VM_IRQCHIP);
	CHECK_EQ(vm_ioctl(&vm, vm.vcpu, KVM_ENABLE_CAP, (unsigned long)&e), 0);
	CHECK_EQ(vm_ioctl(&vm, vm.vcpu, KVM_SET_CPUID2, (unsigned long)&none), 0);
	VM_START(&vm, VM_PM32, 0, calls);
	CHECK_EQ(hypercall(&vm, HC_IPI, 1, 0, 0, VECTOR), -ENOSYS_GUEST);
	CHECK_EQ(hypercall(&vm, HC_KICK, 0, 0, 0, 0), -ENOSYS_GUEST);
	vm_destroy(&vm);
}

/* A kick ends HLT without an interrupt; one that comes before is kept. */
static void pv_kick(void)
{
	struct vm vm, other;

	TWO_START(&vm, &other, VM_PM32, calls32, sleeper_cli);
	CHECK_EQ(hypercall(&vm, HC_KICK, 0, OTHER, 0, 0), 0);
	expect_port(&other, 0xf1, VM_HERE);
	expect_port(&other, 0xf0, VM_HERE);
	CHECK_EQ(hypercall(&vm, HC_KICK, 0, OTHER + 1, 0, 0), 0); /* nobody: no error */
	CHECK_EQ(hypercall(&vm, HC_KICK, 0, OTHER, 0, 0), 0);
	expect_port(&other, 0xf1, VM_HERE);
	two_end(&vm, &other);
}

VM_TESTS({ .name = "split, EOI exits", .run = split_eoi },
	 { .name = "split, user space's PIC", .run = split_extint },
	 { .name = "CR8 lowered without APIC", .run = set_tpr },
	 { .name = "TPR access reports", .run = tpr_reports },
	 { .name = "APIC page in memory", .run = vapic },
	 { .name = "HLT without exit", .run = hlt_stays }, { .name = "PV EOI", .run = pv_eoi_bit },
	 { .name = "steal time", .run = steal_time, .seconds = 40 },
	 { .name = "PV TLB flush", .run = pv_tlb_flush },
	 { .name = "IPIs by hypercall, 32-bit", .run = pv_ipi_32 },
	 { .name = "IPIs by hypercall, 64-bit", .run = pv_ipi_64 },
	 { .name = "hypercalls that CPUID does not offer", .run = pv_enforced },
	 { .name = "kick by hypercall", .run = pv_kick });

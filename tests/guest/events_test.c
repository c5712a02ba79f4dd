/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Interrupts, NMI, shadows, sleeping and waking, signals: when they come and what they interrupt. */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "vm.h"

#define VECTOR_PIC   0x50 /* no port of a device in the kernel */
#define VECTOR_TIMER 0x91
#define VECTOR_SELF  0x92

/* 32-bit code without paging, which reaches the APIC. */
#define APIC_ON	  "movl $0x1ff, 0xfee000f0\n"
#define SELF_IPI  "movl $0x44092, 0xfee00300\n"
#define LABEL_OUT "mov $0x1, %al; out %al, $0xf0\n"

static uint64_t since(const struct timespec *t)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (now.tv_sec - t->tv_sec) * 1000000ull + (now.tv_nsec - t->tv_nsec) / 1000;
}

static struct timespec now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t;
}

/* A pending interrupt is taken one instruction behind STI; MOV SS behind STI moves it one further. */
GUEST(sti_shadow, 32, APIC_ON "cli\n" SELF_IPI "sti; inc %eax; inc %eax; hlt");
GUEST(popf_none, 32, APIC_ON "pushf; orl $0x200, (%esp); cli\n" SELF_IPI "popf; inc %eax; hlt");
GUEST(sti_twice, 32, APIC_ON "sti; cli\n" SELF_IPI "sti; sti; inc %eax; hlt");
GUEST(sti_cli, 32, APIC_ON "cli\n" SELF_IPI "sti; cli; inc %eax; inc %eax; out %al, $0xf0; hlt");
GUEST(sti_hlt, 32, APIC_ON "cli\n" SELF_IPI "sti; hlt; inc %eax; hlt");
/* The TPR holds it back; its write lets it through. */
GUEST(tpr_holds, 32,
      APIC_ON "sti; movl $0xf0, 0xfee00080\n" SELF_IPI
	      "inc %eax; inc %eax; movl $0, 0xfee00080; inc %eax; hlt");

struct shadow_row {
	const char *name;
	const uint8_t *code, *end;
	int vector;
	unsigned eax;  /* at the interrupt */
	uint64_t tail; /* bytes from the interrupted instruction to the end */
};
#define ROW(name, vector, eax, tail)                                                               \
	{                                                                                          \
#name, name, name##_end, vector, eax, tail                                         \
	}

static const struct shadow_row shadow_rows[] = {
	ROW(sti_shadow, VECTOR_SELF, 1, 2), ROW(popf_none, VECTOR_SELF, 0, 2),
	ROW(sti_twice, VECTOR_SELF, 0, 2),  ROW(sti_cli, 0xf0, 2, 0),
	ROW(sti_hlt, VECTOR_SELF, 0, 2),    ROW(tpr_holds, VECTOR_SELF, 2, 2),
};

static void shadows(void)
{
	struct vm vm;

	for (unsigned i = 0; i < sizeof(shadow_rows) / sizeof(shadow_rows[0]); i++) {
		const struct shadow_row *r = &shadow_rows[i];
		struct vm_frame f;

		vm_make(&vm, VM_IRQCHIP);
		vm_enter(&vm, VM_PM32, 0);
		vm_load(&vm, VM_CODE, r->code, r->end - r->code);
		f = vm_fault(&vm, r->vector, r->name);
		if (vm_regs(&vm).rax != r->eax)
			check_failed(r->name, "eax %llu, expected %u", vm_regs(&vm).rax, r->eax);
		if (r->vector == VECTOR_SELF &&
		    f.rip + r->tail != (uint64_t)(VM_CODE + (r->end - r->code)))
			check_failed(r->name, "interrupted at %lx of %lx", f.rip,
				     VM_CODE + (r->end - r->code));
		vm_destroy(&vm);
	}
}

/* Behind MOV SS and POP SS: an interrupt or NMI asked for in between waits for one instruction. */
GUEST(ss_shadow, 32, "sti; mov %ss, %ecx; mov %ecx, %ss; mov 0x10000000, %eax; inc %eax; hlt");
GUEST(pop_ss_shadow, 32, "sti; nop; push %ss; pop %ss; mov 0x10000000, %eax; inc %eax; hlt");

static void ss_shadow_one(struct vm *vm, const uint8_t *code, const uint8_t *end, bool use_nmi)
{
	struct kvm_vcpu_events e;

	vm_enter(vm, VM_PM32, 0);
	vm_load(vm, VM_CODE, code, end - code);
	vm->run->request_interrupt_window = 0;
	CHECK_EXIT(vm, KVM_EXIT_MMIO);
	CHECK_EQ(vm_ioctl(vm, vm->vcpu, KVM_GET_VCPU_EVENTS, (unsigned long)&e), 0);
	CHECK_EQ(e.interrupt.shadow, KVM_X86_SHADOW_INT_MOV_SS);
	if (use_nmi) {
		vm_ioctl(vm, vm->vcpu, KVM_NMI, 0);
		CHECK_EQ(VM_FAULT(vm, 2).rip + 2, (uint64_t)(VM_CODE + (end - code)));
		return;
	}
	vm->run->request_interrupt_window = 1;
	CHECK_EXIT(vm, KVM_EXIT_IRQ_WINDOW_OPEN);
	CHECK_EQ(vm_regs(vm).rip + 2, (uint64_t)(VM_CODE + (end - code)));
}

static void ss_shadows(void)
{
	struct vm vm;

	for (unsigned i = 0; i < 4; i++) {
		vm_make(&vm, 0);
		if (i & 1)
			ss_shadow_one(&vm, ss_shadow, ss_shadow_end, i & 2);
		else
			ss_shadow_one(&vm, pop_ss_shadow, pop_ss_shadow_end, i & 2);
		vm_destroy(&vm);
	}
}

/*
 * HLT and the LAPIC timer: one-shot, periodic, TSC deadline. The EOI is not the handler's, so interrupts are
 * off from HLT on: one that came between EOI and HLT would leave the guest asleep with its vector in service.
 */
GUEST(oneshot, 32,
      APIC_ON "movl $0xb, 0xfee003e0; movl $0x91, 0xfee00320; movl $20000000, 0xfee00380; sti; "
	      "hlt; inc %eax; jmp .");
GUEST(periodic, 32,
      APIC_ON "movl $0xb, 0xfee003e0; movl $0x20091, 0xfee00320; movl $2000000, 0xfee00380\n"
	      "1: sti; hlt; cli; inc %eax; movl $0, 0xfee000b0; jmp 1b");
GUEST(deadline, 32,
      APIC_ON "movl $0x40091, 0xfee00320; rdtsc; add $20000000, %eax; adc $0, %edx; mov $0x6e0, "
	      "%ecx; wrmsr\n"
	      "sti; hlt; inc %eax; jmp .");

static void timer_oneshot(void)
{
	struct timespec t;
	struct vm vm;
	uint64_t us;

	vm_make(&vm, VM_IRQCHIP);
	VM_START(&vm, VM_PM32, 0, oneshot);
	t = now();
	VM_FAULT(&vm, VECTOR_TIMER);
	us = since(&t);
	/* 20,000,000 ticks of 1 ns. */
	CHECK(us >= 20000 && us < 2000000);
	vm_destroy(&vm);
}

static void timer_periodic(void)
{
	struct timespec t;
	struct vm vm;
	uint64_t us;

	vm_make(&vm, VM_IRQCHIP);
	VM_START(&vm, VM_PM32, 0, periodic);
	t = now();
	for (unsigned i = 0; i < 20; i++)
		VM_FAULT(&vm, VECTOR_TIMER);
	us = since(&t);
	CHECK(us >= 39000 && us < 2000000);
	vm_destroy(&vm);
}

static void timer_deadline(void)
{
	struct timespec t;
	struct vm vm;
	uint64_t us;

	vm_make(&vm, VM_IRQCHIP);
	if (!vm_has(&vm, 1, 0, 2, 24) &&
	    vm_ioctl(&vm, vm.sys, KVM_CHECK_EXTENSION, KVM_CAP_TSC_DEADLINE_TIMER) <= 0)
		check_skip("no TSC deadline timer");
	/* User space is who sets the bit. */
	VM_START(&vm, VM_PM32, 0, deadline);
	{
		struct {
			struct kvm_cpuid2 head;
			struct kvm_cpuid_entry2 e[256];
		} c = { .head.nent = 256 };

		vm_ioctl(&vm, vm.sys, KVM_GET_SUPPORTED_CPUID, (unsigned long)&c);
		for (unsigned i = 0; i < c.head.nent; i++)
			if (c.e[i].function == 1)
				c.e[i].ecx |= 1u << 24;
		CHECK_EQ(vm_ioctl(&vm, vm.vcpu, KVM_SET_CPUID2, (unsigned long)&c), 0);
	}
	t = now();
	VM_FAULT(&vm, VECTOR_TIMER);
	us = since(&t);
	CHECK(us > 500 && us < 2000000);
	vm_destroy(&vm);
}

/* The 8254 through the 8259, waking HLT. */
GUEST(pit, 32,
      "mov $0x11, %al; out %al, $0x20; mov $0x50, %al; out %al, $0x21; mov $4, %al; out %al, "
      "$0x21\n"
      "mov $1, %al; out %al, $0x21; mov $0xfe, %al; out %al, $0x21\n"
      "mov $0x34, %al; out %al, $0x43; mov $0xa9, %al; out %al, $0x40; mov $4, %al; out %al, "
      "$0x40\n"
      "1: sti; hlt; cli; mov $0x20, %al; out %al, $0x20; jmp 1b");

static void pit_wakes(void)
{
	struct timespec t;
	struct vm vm;
	uint64_t us;

	vm_make(&vm, VM_IRQCHIP | VM_PIT);
	VM_START(&vm, VM_PM32, 0, pit);
	t = now();
	for (unsigned i = 0; i < 20; i++)
		VM_FAULT(&vm, VECTOR_PIC);
	us = since(&t);
	/* 1193 ticks are a millisecond. */
	CHECK(us >= 18000 && us < 2000000);
	vm_destroy(&vm);
}

/* A timer interrupt in a loop that never exits by itself. */
GUEST(busy, 32,
      APIC_ON "movl $0xb, 0xfee003e0; movl $0x20091, 0xfee00320; movl $2000000, 0xfee00380\n"
	      "sti\n 1: inc %ecx; movl $0, 0xfee000b0; jmp 1b");
GUEST(busy_plain, 32,
      APIC_ON
      "movl $0xb, 0xfee003e0; movl $0x91, 0xfee00320; movl $2000000, 0xfee00380; sti\n 1: jmp 1b");

static void timer_interrupts_loop(void)
{
	struct vm vm;

	vm_make(&vm, VM_IRQCHIP);
	VM_START(&vm, VM_PM32, 0, busy_plain);
	VM_FAULT(&vm, VECTOR_TIMER);
	VM_START(&vm, VM_PM32, 0, busy);
	for (unsigned i = 0; i < 10; i++)
		VM_FAULT(&vm, VECTOR_TIMER);
	vm_destroy(&vm);
}

/* NMI: in a loop, in HLT with IF clear, blocked until IRET, one latched. */
GUEST(loop32, 32, "1: inc %ecx; jmp 1b");
GUEST(cli_hlt, 32, "cli; hlt; inc %eax; out %al, $0xf0; jmp .");

struct sender {
	struct vm *vm;
	pthread_t thread, target;
	int signal;
};

static void *send_nmi(void *arg)
{
	struct sender *s = arg;

	usleep(30000);
	if (s->signal)
		pthread_kill(s->target, s->signal);
	else
		vm_ioctl(s->vm, s->vm->vcpu, KVM_NMI, 0);
	return NULL;
}

static void send_later(struct vm *vm, struct sender *s, int sig)
{
	*s = (struct sender){ .vm = vm, .target = pthread_self(), .signal = sig };
	if (pthread_create(&s->thread, NULL, send_nmi, s))
		check_fatal("thread", "not made");
}

static void nmi(void)
{
	struct vm vm;
	struct vm_frame f;

	vm_make(&vm, VM_IRQCHIP);
	VM_START(&vm, VM_PM32, 0, loop32);
	CHECK_EQ(vm_ioctl(&vm, vm.vcpu, KVM_NMI, 0), 0);
	f = VM_FAULT(&vm, 2);
	CHECK(f.rip == VM_CODE || f.rip == VM_CODE + 1);
	/* Two more while the first is being handled: one is taken behind IRET, at once. */
	vm_ioctl(&vm, vm.vcpu, KVM_NMI, 0);
	vm_ioctl(&vm, vm.vcpu, KVM_NMI, 0);
	f = VM_FAULT(&vm, 2);
	CHECK(f.rip == VM_CODE || f.rip == VM_CODE + 1);
	vm.run->immediate_exit = 0;
	vm_destroy(&vm);
	/* Wakes HLT with IF clear. The vCPU's own ioctl waits for KVM_RUN, so it is queued before. */
	vm_make(&vm, VM_IRQCHIP);
	VM_START(&vm, VM_PM32, 0, cli_hlt);
	vm_ioctl(&vm, vm.vcpu, KVM_NMI, 0);
	VM_FAULT(&vm, 2);
	vm_destroy(&vm);
}

/* KVM_INTERRUPT, without interrupt controllers in the kernel. */
GUEST(window, 32,
      "inc %eax; inc %eax; out %al, $0xf0; sti; inc %eax; inc %eax; cli; inc %eax; out %al, $0xf1; "
      "hlt");

static void user_interrupts(void)
{
	struct kvm_interrupt irq = { .irq = 0x93 };
	struct vm_frame f;
	struct vm vm;

	vm_make(&vm, 0);
	VM_START(&vm, VM_PM32, 0, window);
	vm.run->request_interrupt_window = 1;
	CHECK_EXIT(&vm, KVM_EXIT_IO);
	CHECK_EQ(vm.run->io.port, 0xf0);
	CHECK_EQ(vm.run->if_flag, 0);
	CHECK_EQ(vm.run->ready_for_interrupt_injection, 0);
	CHECK_EXIT(&vm, KVM_EXIT_IRQ_WINDOW_OPEN);
	CHECK_EQ(vm.run->if_flag, 1);
	CHECK_EQ(vm.run->ready_for_interrupt_injection, 1);
	CHECK_EQ(vm_regs(&vm).rax, 3); /* one instruction behind STI */
	CHECK_EQ(vm_ioctl(&vm, vm.vcpu, KVM_INTERRUPT, (unsigned long)&irq), 0);
	vm.run->request_interrupt_window = 0;
	f = VM_FAULT(&vm, 0x93);
	CHECK_EQ(f.rip, VM_CODE + 6);
	CHECK_EQ(vm_regs(&vm).rax, 3);
	/* Back, and on to the end. */
	CHECK_EXIT(&vm, KVM_EXIT_IO);
	CHECK_EQ(vm.run->io.port, 0xf1);
	CHECK_EQ(vm_regs(&vm).rax, 5);
	CHECK_EXIT(&vm, KVM_EXIT_HLT);
	vm_destroy(&vm);
}

GUEST(window_loop, 32, "sti\n 1: inc %eax; jmp 1b");

/* The window opens in a loop without exits; many interrupts in a row. */
static void window_in_loop(void)
{
	struct kvm_interrupt irq = { .irq = 0x94 };
	struct vm vm;

	vm_make(&vm, 0);
	VM_START(&vm, VM_PM32, 0, window_loop);
	for (unsigned i = 0; i < 100; i++) {
		vm.run->request_interrupt_window = 1;
		CHECK_EXIT(&vm, KVM_EXIT_IRQ_WINDOW_OPEN);
		vm_ioctl(&vm, vm.vcpu, KVM_INTERRUPT, (unsigned long)&irq);
		VM_FAULT(&vm, 0x94);
	}
	vm_destroy(&vm);
}

static void immediate_exit(void)
{
	struct vm vm;

	vm_make(&vm, 0);
	VM_START(&vm, VM_PM32, 0, loop32);
	vm.run->immediate_exit = 1;
	CHECK_EQ(vm_run(&vm), -EINTR);
	CHECK_EQ(vm_regs(&vm).rip, VM_CODE);
	CHECK_EQ(vm_regs(&vm).rcx, 0);
	vm_destroy(&vm);
}

/* KVM_SET_SIGNAL_MASK: a signal blocked outside and open inside ends KVM_RUN and stays pending. */
static void mask_set(struct vm *vm, uint64_t set)
{
	struct {
		struct kvm_signal_mask head;
		uint64_t set;
	} __attribute__((packed)) m = { .head.len = 8, .set = set };

	CHECK_EQ(vm_ioctl(vm, vm->vcpu, KVM_SET_SIGNAL_MASK, (unsigned long)&m), 0);
}

static bool is_pending(int sig)
{
	sigset_t s;

	sigpending(&s);
	return sigismember(&s, sig) == 1;
}

static void signal_ends(struct vm *vm, const char *what)
{
	struct sender s;
	sigset_t set;
	int r;

	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	sigprocmask(SIG_BLOCK, &set, NULL);
	mask_set(vm, 0);
	send_later(vm, &s, SIGUSR1);
	r = vm_run(vm);
	pthread_join(s.thread, NULL);
	if (r != -EINTR)
		check_failed(what, "%s", vm_exit_text(vm, r));
	if (vm->run->exit_reason != KVM_EXIT_INTR)
		check_failed(what, "exit reason %u", vm->run->exit_reason);
	if (!is_pending(SIGUSR1))
		check_failed(what, "the signal is gone");
	/* Still pending: at once again. */
	if (vm_run(vm) != -EINTR)
		check_failed(what, "the second KVM_RUN did not end");
	sigwaitinfo(&set, NULL);
	/* Blocked inside too: it does not end KVM_RUN. */
	mask_set(vm, 1ull << (SIGUSR1 - 1));
	raise(SIGUSR1);
	vm->run->immediate_exit = 0;
}

GUEST(forever_hlt, 32, "cli\n 1: hlt; jmp 1b");
GUEST(one_out, 32, "out %al, $0xf0; jmp .");

static void signal_mask(void)
{
	struct vm vm;

	vm_make(&vm, 0);
	VM_START(&vm, VM_PM32, 0, loop32);
	signal_ends(&vm, "in a loop");
	VM_START(&vm, VM_PM32, 0, one_out);
	CHECK_EXIT(&vm, KVM_EXIT_IO); /* in spite of the pending signal */
	CHECK(is_pending(SIGUSR1));
	vm_destroy(&vm);
}

static void signal_mask_asleep(void)
{
	struct vm vm;

	vm_make(&vm, VM_IRQCHIP);
	VM_START(&vm, VM_PM32, 0, forever_hlt);
	signal_ends(&vm, "asleep");
	vm_destroy(&vm);
}

/* A line of the interrupt controllers raised by another thread wakes HLT. */
static void *raise_line(void *arg)
{
	struct vm *vm = arg;
	struct kvm_irq_level l = { .irq = 0, .level = 1 };

	usleep(30000);
	vm_ioctl(vm, vm->fd, KVM_IRQ_LINE, (unsigned long)&l);
	l.level = 0;
	vm_ioctl(vm, vm->fd, KVM_IRQ_LINE, (unsigned long)&l);
	return NULL;
}

GUEST(pic_hlt, 32,
      "mov $0x11, %al; out %al, $0x20; mov $0x50, %al; out %al, $0x21; mov $4, %al; out %al, "
      "$0x21\n"
      "mov $1, %al; out %al, $0x21; mov $0xfe, %al; out %al, $0x21; sti; hlt; jmp .");
GUEST(pic_loop, 32,
      "mov $0x11, %al; out %al, $0x20; mov $0x50, %al; out %al, $0x21; mov $4, %al; out %al, "
      "$0x21\n"
      "mov $1, %al; out %al, $0x21; mov $0xfe, %al; out %al, $0x21; sti; jmp .");

static void line_wakes(void)
{
	struct vm vm;
	pthread_t t;

	for (unsigned i = 0; i < 2; i++) {
		vm_make(&vm, VM_IRQCHIP);
		vm_enter(&vm, VM_PM32, 0);
		if (i)
			VM_LOAD(&vm, VM_CODE, pic_loop);
		else
			VM_LOAD(&vm, VM_CODE, pic_hlt);
		if (pthread_create(&t, NULL, raise_line, &vm))
			check_fatal("thread", "not made");
		VM_FAULT(&vm, VECTOR_PIC);
		pthread_join(t, NULL);
		vm_destroy(&vm);
	}
}

/* Interrupts at every CPL and width push the right frame. */
GUEST(user_loop, 64, "1: jmp 1b");

static void frames(void)
{
	struct kvm_interrupt irq = { .irq = 0x95 };
	struct kvm_regs r;
	struct vm_frame f;
	struct vm vm;

	vm_make(&vm, 0);
	for (enum vm_mode m = 0; m < VM_MODES; m++)
		for (unsigned cpl = 0; cpl < 4; cpl += 3) {
			if ((m == VM_REAL && cpl) || (m == VM_V86 && !cpl))
				continue;
			VM_START(&vm, m, cpl, user_loop);
			r = vm_regs(&vm);
			r.rflags |= 0x200;
			vm_set_regs(&vm, &r);
			CHECK_EQ(vm_ioctl(&vm, vm.vcpu, KVM_INTERRUPT, (unsigned long)&irq), 0);
			f = vm_fault(&vm, 0x95, vm_mode_names[m]);
			CHECK_EQ(f.rip, VM_CODE);
			CHECK_EQ(f.rflags & 0x202, 0x202);
			if (m == VM_LONG || m == VM_COMPAT || cpl)
				CHECK_EQ(f.rsp, r.rsp);
			if (m != VM_REAL && m != VM_V86)
				CHECK_EQ(f.cs & 3, cpl);
			CHECK_EQ(vm_regs(&vm).rflags & 0x200, 0);
		}
	vm_destroy(&vm);
}

VM_TESTS({ .name = "shadow of STI, TPR", .run = shadows },
	 { .name = "shadow of MOV SS", .run = ss_shadows },
	 { .name = "LAPIC timer, one shot", .run = timer_oneshot },
	 { .name = "LAPIC timer, periodic", .run = timer_periodic },
	 { .name = "LAPIC timer, TSC deadline", .run = timer_deadline },
	 { .name = "PIT", .run = pit_wakes },
	 { .name = "a timer interrupts a loop", .run = timer_interrupts_loop },
	 { .name = "NMI", .run = nmi }, { .name = "KVM_INTERRUPT", .run = user_interrupts },
	 { .name = "the interrupt window in a loop", .run = window_in_loop },
	 { .name = "immediate_exit", .run = immediate_exit },
	 { .name = "KVM_SET_SIGNAL_MASK", .run = signal_mask },
	 { .name = "KVM_SET_SIGNAL_MASK, asleep", .run = signal_mask_asleep },
	 { .name = "a line wakes", .run = line_wakes }, { .name = "frames", .run = frames });

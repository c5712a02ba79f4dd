/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Cases of KVM_RUN: every exit that real-mode code of a few bytes can cause. */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <unistd.h>

#include "abi.h"

static void hlt_case(struct abi *a)
{
	struct abi_guest g;

	ABI_START(a, &g, false, 0xf4); /* hlt */
	abi_case(a, "hlt", 0, abi_run(a, &g));
	abi_case(a, "hlt: exit reason", KVM_EXIT_HLT, g.run->exit_reason);
	abi_case(a, "hlt: rip is behind it", 0x101, (long)abi_regs(a, &g).rip);
	abi_case(a, "hlt: IF", 0, g.run->if_flag);
	abi_case(a, "hlt: ready for injection", 0, g.run->ready_for_interrupt_injection);
	abi_case(a, "hlt: apic_base", 0xfee00900l, (long)g.run->apic_base);
	g.run->immediate_exit = 1;
	abi_case(a, "immediate_exit", -EINTR, abi_run(a, &g));
	g.run->immediate_exit = 0;
	g.run->cr8 = 16;
	abi_case(a, "cr8 out of range", -EINVAL, abi_run(a, &g));
	abi_stop(a, &g);
}

static void io_case(struct abi *a)
{
	struct abi_guest g;

	/* mov al, 0x41; out 0x10, al; in ax, 0x20; hlt */
	ABI_START(a, &g, false, 0xb0, 0x41, 0xe6, 0x10, 0xe5, 0x20, 0xf4);
	abi_case(a, "out", 0, abi_run(a, &g));
	abi_case(a, "out: exit reason", KVM_EXIT_IO, g.run->exit_reason);
	abi_case(a, "out: direction", KVM_EXIT_IO_OUT, g.run->io.direction);
	abi_case(a, "out: port", 0x10, g.run->io.port);
	abi_case(a, "out: size", 1, g.run->io.size);
	abi_case(a, "out: count", 1, g.run->io.count);
	abi_case(a, "out: data offset", 4096, (long)g.run->io.data_offset);
	abi_case(a, "out: data", 0x41, *((uint8_t *)g.run + g.run->io.data_offset));
	abi_case(a, "in", 0, abi_run(a, &g));
	abi_case(a, "in: direction", KVM_EXIT_IO_IN, g.run->io.direction);
	abi_case(a, "in: size", 2, g.run->io.size);
	memcpy((uint8_t *)g.run + g.run->io.data_offset, "\x34\x12", 2);
	abi_case(a, "in: then hlt", 0, abi_run(a, &g));
	abi_case(a, "in: then hlt, exit reason", KVM_EXIT_HLT, g.run->exit_reason);
	abi_case(a, "in: what was read", 0x1234, (long)abi_regs(a, &g).rax);
	abi_stop(a, &g);
}

static void mmio_case(struct abi *a)
{
	struct abi_guest g;

	/* mov al, 0x5a; mov [0x3000], al; mov ax, [0x3004]; hlt */
	ABI_START(a, &g, false, 0xb0, 0x5a, 0xa2, 0x00, 0x30, 0xa1, 0x04, 0x30, 0xf4);
	abi_case(a, "mmio write", 0, abi_run(a, &g));
	abi_case(a, "mmio write: exit reason", KVM_EXIT_MMIO, g.run->exit_reason);
	abi_case(a, "mmio write: is write", 1, g.run->mmio.is_write);
	abi_case(a, "mmio write: address", 0x3000, (long)g.run->mmio.phys_addr);
	abi_case(a, "mmio write: length", 1, g.run->mmio.len);
	abi_case(a, "mmio write: data", 0x5a, g.run->mmio.data[0]);
	abi_case(a, "mmio read", 0, abi_run(a, &g));
	abi_case(a, "mmio read: is write", 0, g.run->mmio.is_write);
	abi_case(a, "mmio read: address", 0x3004, (long)g.run->mmio.phys_addr);
	abi_case(a, "mmio read: length", 2, g.run->mmio.len);
	memcpy(g.run->mmio.data, "\x78\x56", 2);
	abi_case(a, "mmio read: then hlt", 0, abi_run(a, &g));
	abi_case(a, "mmio read: then hlt, exit reason", KVM_EXIT_HLT, g.run->exit_reason);
	abi_case(a, "mmio read: what was read", 0x5678, (long)abi_regs(a, &g).rax);
	abi_stop(a, &g);
}

/* immediate_exit after a device read completes the instruction and begins no other. */
static void complete_case(struct abi *a)
{
	struct abi_guest g;

	/* in ax, 0x20; mov al, 0x11; hlt */
	ABI_START(a, &g, false, 0xe5, 0x20, 0xb0, 0x11, 0xf4);
	abi_run(a, &g);
	memcpy((uint8_t *)g.run + g.run->io.data_offset, "\x34\x12", 2);
	g.run->immediate_exit = 1;
	abi_case(a, "completion", -EINTR, abi_run(a, &g));
	abi_case(a, "completion: what was read", 0x1234, (long)abi_regs(a, &g).rax);
	abi_case(a, "completion: rip", 0x102, (long)abi_regs(a, &g).rip);
	g.run->immediate_exit = 0;
	abi_run(a, &g);
	abi_case(a, "completion: then goes on", 0x1211, (long)abi_regs(a, &g).rax);
	abi_stop(a, &g);
}

/* rep outsb: as many exits or counts as the backend likes, all bytes in order. */
static void string_case(struct abi *a)
{
	struct kvm_regs r;
	struct abi_guest g;
	char got[16] = "";
	unsigned n = 0;

	ABI_START(a, &g, false, 0xf3, 0x6e, 0xf4); /* rep outsb; hlt */
	memcpy(g.page + 0x300, "hello", 5);
	IOCTL(a, g.vcpu, KVM_GET_REGS, &r);
	r.rcx = 5;
	r.rsi = 0x300;
	r.rdx = 0x3f8;
	IOCTL(a, g.vcpu, KVM_SET_REGS, &r);
	while (!abi_run(a, &g) && g.run->exit_reason == KVM_EXIT_IO &&
	       n + g.run->io.count < sizeof(got)) {
		memcpy(got + n, (uint8_t *)g.run + g.run->io.data_offset, g.run->io.count);
		n += g.run->io.count;
	}
	abi_case(a, "rep outsb: bytes", 0, memcmp(got, "hello", 6));
	abi_case(a, "rep outsb: then hlt", KVM_EXIT_HLT, g.run->exit_reason);
	IOCTL(a, g.vcpu, KVM_GET_REGS, &r);
	abi_case(a, "rep outsb: rcx", 0, (long)r.rcx);
	abi_case(a, "rep outsb: rsi", 0x305, (long)r.rsi);
	abi_stop(a, &g);
}

/* Vector 0x20 of the real-mode table goes to 0x200: mov al, 0x99; hlt. */
static void handler_make(struct abi_guest *g)
{
	memcpy(g->page + 0x20 * 4, "\x00\x02\x00\x00", 4);
	memcpy(g->page + 0x200, "\xb0\x99\xf4", 3);
}

static void interrupt_case(struct abi *a)
{
	struct kvm_interrupt irq = { .irq = 0x20 };
	struct abi_guest g;

	ABI_START(a, &g, false, 0xfb, 0x90, 0xeb, 0xfd); /* sti; 1: nop; jmp 1b */
	handler_make(&g);
	g.run->request_interrupt_window = 1;
	abi_case(a, "interrupt window", 0, abi_run(a, &g));
	abi_case(a, "interrupt window: exit reason", KVM_EXIT_IRQ_WINDOW_OPEN, g.run->exit_reason);
	abi_case(a, "interrupt window: ready", 1, g.run->ready_for_interrupt_injection);
	abi_case(a, "interrupt window: IF", 1, g.run->if_flag);
	g.run->request_interrupt_window = 0;
	abi_case(a, "INTERRUPT", 0, IOCTL(a, g.vcpu, KVM_INTERRUPT, &irq));
	abi_case(a, "interrupt: handler halts", 0, abi_run(a, &g));
	abi_case(a, "interrupt: exit reason", KVM_EXIT_HLT, g.run->exit_reason);
	abi_case(a, "interrupt: handler ran", 0x99, (long)abi_regs(a, &g).rax & 0xff);
	abi_case(a, "interrupt: stack", 0x7fa, ({
			 struct kvm_regs r;

			 IOCTL(a, g.vcpu, KVM_GET_REGS, &r);
			 (long)r.rsp;
		 }));
	abi_stop(a, &g);
}

static void nmi_case(struct abi *a)
{
	struct kvm_vcpu_events e;
	struct abi_guest g;

	ABI_START(a, &g, false, 0xeb, 0xfe); /* 1: jmp 1b */
	memcpy(g.page + 2 * 4, "\x00\x02\x00\x00", 4);
	memcpy(g.page + 0x200, "\xb0\x99\xf4", 3);
	IOCTL(a, g.vcpu, KVM_NMI, 0);
	abi_case(a, "NMI: handler halts", 0, abi_run(a, &g));
	abi_case(a, "NMI: exit reason", KVM_EXIT_HLT, g.run->exit_reason);
	IOCTL(a, g.vcpu, KVM_GET_VCPU_EVENTS, &e);
	abi_case(a, "NMI: blocked until iret", 1, e.nmi.masked);
	abi_stop(a, &g);
}

static void shutdown_case(struct abi *a)
{
	struct kvm_sregs s;
	struct abi_guest g;

	ABI_START(a, &g, false, 0xcd, 0x30); /* int 0x30 */
	IOCTL(a, g.vcpu, KVM_GET_SREGS, &s);
	s.idt.limit = 0;
	IOCTL(a, g.vcpu, KVM_SET_SREGS, &s);
	abi_case(a, "triple fault", 0, abi_run(a, &g));
	abi_case(a, "triple fault: exit reason", KVM_EXIT_SHUTDOWN, g.run->exit_reason);
	abi_stop(a, &g);
}

static void nowhere_case(struct abi *a)
{
	struct abi_guest g;

	ABI_START(a, &g, false, 0xe9, 0xfd, 0x7e); /* jmp 0x8000: no memory there */
	abi_case(a, "fetch from nowhere", 0, abi_run(a, &g));
	abi_case(a, "fetch from nowhere: exit reason", KVM_EXIT_INTERNAL_ERROR, g.run->exit_reason);
	abi_case(a, "fetch from nowhere: suberror", KVM_INTERNAL_ERROR_EMULATION,
		 g.run->internal.suberror);
	abi_stop(a, &g);
}

static struct kvm_run *volatile signalled_run;

static void on_alarm(int sig)
{
	(void)sig;
	if (signalled_run)
		signalled_run->immediate_exit = 1;
}

static void alarm_in(unsigned msec, struct kvm_run *run)
{
	struct itimerval t = { .it_value.tv_usec = msec * 1000 };
	struct sigaction sa = { .sa_handler = on_alarm, .sa_flags = SA_RESTART };

	signalled_run = run;
	sigaction(SIGALRM, &sa, NULL);
	setitimer(ITIMER_REAL, &t, NULL);
}

static void signal_case(struct abi *a)
{
	struct abi_guest g;

	ABI_START(a, &g, false, 0xeb, 0xfe); /* 1: jmp 1b */
	alarm_in(30, g.run);
	abi_case(a, "signal in a loop", -EINTR, abi_run(a, &g));
	abi_case(a, "signal in a loop: exit reason", KVM_EXIT_INTR, g.run->exit_reason);
	abi_stop(a, &g);
	ABI_START(a, &g, true, 0xf4, 0xeb, 0xfd); /* 1: hlt; jmp 1b */
	alarm_in(30, g.run);
	abi_case(a, "signal in hlt", -EINTR, abi_run(a, &g));
	abi_case(a, "signal in hlt: exit reason", KVM_EXIT_INTR, g.run->exit_reason);
	g.run->immediate_exit = 0;
	alarm_in(30, NULL);
	abi_case(a, "signal in hlt, handler does nothing", -EINTR, abi_run(a, &g));
	abi_stop(a, &g);
}

/* A blocked signal that the mask of KVM_RUN does not block: EINTR, no handler, still pending. */
static void sigmask_case(struct abi *a)
{
	struct {
		struct kvm_signal_mask head;
		__u64 set;
	} m = { .head.len = 8 };
	sigset_t alarm_set, pending;
	struct abi_guest g;
	int sig;

	sigemptyset(&alarm_set);
	sigaddset(&alarm_set, SIGALRM);
	sigprocmask(SIG_BLOCK, &alarm_set, NULL);
	ABI_START(a, &g, false, 0xeb, 0xfe);
	IOCTL(a, g.vcpu, KVM_SET_SIGNAL_MASK, &m);
	alarm_in(30, NULL);
	abi_case(a, "signal mask", -EINTR, abi_run(a, &g));
	sigpending(&pending);
	abi_case(a, "signal mask: still pending", 1, sigismember(&pending, SIGALRM));
	sigwait(&alarm_set, &sig);
	sigprocmask(SIG_UNBLOCK, &alarm_set, NULL);
	abi_stop(a, &g);
}

static void sync_regs_case(struct abi *a)
{
	struct abi_guest g;

	ABI_START(a, &g, false, 0xf4, 0xf4);
	g.run->kvm_valid_regs = KVM_SYNC_X86_REGS | KVM_SYNC_X86_SREGS;
	abi_case(a, "sync regs", 0, abi_run(a, &g));
	abi_case(a, "sync regs: rip", 0x101, (long)g.run->s.regs.regs.rip);
	g.run->s.regs.regs.rbx = 77;
	g.run->kvm_dirty_regs = KVM_SYNC_X86_REGS;
	abi_run(a, &g);
	abi_case(a, "sync regs: rbx came in", 77, (long)g.run->s.regs.regs.rbx);
	abi_case(a, "sync regs: dirty is cleared", 0, (long)g.run->kvm_dirty_regs);
	g.run->kvm_valid_regs = 1 << 10;
	abi_case(a, "sync regs: unknown", -EINVAL, abi_run(a, &g));
	abi_stop(a, &g);
}

/* An interrupt through PIC and LAPIC wakes a halted processor. */
static void irqchip_case(struct abi *a)
{
	struct kvm_irqchip c = { .chip_id = KVM_IRQCHIP_PIC_MASTER };
	struct kvm_irq_level line = { .irq = 4, .level = 1 };
	struct abi_guest g;

	/* sti; 1: hlt; jmp 1b */
	ABI_START(a, &g, true, 0xfb, 0xf4, 0xeb, 0xfd);
	memcpy(g.page + 0x24 * 4, "\x00\x02\x00\x00", 4);
	memcpy(g.page + 0x200, "\xe6\x10", 2); /* out 0x10, al */
	IOCTL(a, g.vm, KVM_GET_IRQCHIP, &c);
	c.chip.pic.irq_base = 0x20;
	c.chip.pic.imr = 0;
	IOCTL(a, g.vm, KVM_SET_IRQCHIP, &c);
	IOCTL(a, g.vm, KVM_IRQ_LINE, &line);
	abi_case(a, "interrupt by PIC", 0, abi_run(a, &g));
	abi_case(a, "interrupt by PIC: handler's exit", KVM_EXIT_IO, g.run->exit_reason);
	abi_case(a, "interrupt by PIC: ready", 1, g.run->ready_for_interrupt_injection);
	abi_stop(a, &g);
}

struct canceled {
	struct abi *a;
	int vcpu;
};

static void *run_until_canceled(void *argument)
{
	struct canceled *c = argument;

	pthread_setcanceltype(PTHREAD_CANCEL_ASYNCHRONOUS, NULL);
	for (;;)
		IOCTL(c->a, c->vcpu, KVM_RUN, 0);
	return NULL;
}

/* A thread that is cancelled in KVM_RUN, in guest code or halted, leaves the vCPU to others. */
static void cancel_case(struct abi *a, const char *name, bool irqchip, const uint8_t *code)
{
	struct kvm_userspace_memory_region m = { 0 };
	struct canceled c = { .a = a };
	struct abi_guest g;
	void *how = NULL;
	pthread_t thread;

	abi_start(a, &g, irqchip, code, 2);
	c.vcpu = g.vcpu;
	if (pthread_create(&thread, NULL, run_until_canceled, &c))
		return;
	usleep(20000);
	pthread_cancel(thread);
	pthread_join(thread, &how);
	abi_case(a, name, 1, how == PTHREAD_CANCELED);
	abi_case(a, "and its memory can be taken away", 0,
		 IOCTL(a, g.vm, KVM_SET_USER_MEMORY_REGION, &m));
	abi_case(a, "and its vCPU has a lock that is free", ABI_OK, (long)abi_regs(a, &g).rip);
	abi_stop(a, &g);
}

static void cancel_cases(struct abi *a)
{
	cancel_case(a, "cancelled in guest code", false, ABI_CODE(0xeb, 0xfe));
	cancel_case(a, "cancelled while halted", true, ABI_CODE(0xf4, 0x90));
}

void abi_run_cases(struct abi *a)
{
	hlt_case(a);
	io_case(a);
	mmio_case(a);
	complete_case(a);
	string_case(a);
	interrupt_case(a);
	nmi_case(a);
	shutdown_case(a);
	nowhere_case(a);
	signal_case(a);
	sigmask_case(a);
	sync_regs_case(a);
	irqchip_case(a);
	cancel_cases(a);
}

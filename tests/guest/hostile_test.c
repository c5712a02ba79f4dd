/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Guests that go wrong end in a clear exit; and 1,000 machines leave nothing behind. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <unistd.h>

#include "vm.h"

#define MODES(m) for (enum vm_mode m = 0; m < VM_MODES; m++)

/* Where there is no memory, in every mode. */
static void jump_into_nothing(void)
{
	struct vm vm;

	vm_make(&vm, 0);
	MODES(m)
	{
		vm_enter(&vm, m, 0);
		vm_jump(&vm, m == VM_REAL || m == VM_PM16 || m == VM_V86 ? 0x8000 : VM_DEVICE);
		if (m == VM_REAL || m == VM_PM16 || m == VM_V86) {
			struct kvm_sregs s = vm_sregs(&vm);

			s.cs.base = VM_HOLE;
			vm_set_sregs(&vm, &s);
		}
		CHECK_EXIT(&vm, KVM_EXIT_INTERNAL_ERROR);
		CHECK_EQ(vm.run->internal.suberror, KVM_INTERNAL_ERROR_EMULATION);
		/* Again: the same. */
		CHECK_EXIT(&vm, KVM_EXIT_INTERNAL_ERROR);
	}
	vm_destroy(&vm);
}

/* An instruction that begins in memory and goes on where there is none. */
static void run_off_the_end(void)
{
	struct vm vm;

	vm_make(&vm, 0);
	for (unsigned i = 0; i < 2; i++) {
		vm_enter(&vm, VM_LONG, 0);
		vm_load(&vm, VM_HOLE - 3, i ? "\xb8\x01\x00" : "\x90\x90\x90", 3);
		vm_jump(&vm, VM_HOLE - 3);
		CHECK_EXIT(&vm, KVM_EXIT_INTERNAL_ERROR);
		CHECK_EQ(vm_regs(&vm).rip, i ? VM_HOLE - 3 : VM_HOLE);
	}
	vm_destroy(&vm);
}

GUEST(touch_nothing, 64, "mov 0, %rax; hlt");
GUEST(ud, 64, "ud2");
GUEST(big_stack, 64, "1: push %rax; jmp 1b");

/* No IDT, a bad IDT, a stack that is not there: triple faults. */
static void triple_fault(void)
{
	struct vm vm;
	struct kvm_sregs s;

	vm_make(&vm, 0);
	MODES(m)
	{
		vm_enter(&vm, m, 0);
		vm_load(&vm, VM_CODE, "\x0f\x0b", 2);
		s = vm_sregs(&vm);
		s.idt.limit = 0;
		vm_set_sregs(&vm, &s);
		CHECK_EXIT(&vm, KVM_EXIT_SHUTDOWN);
		CHECK_EXIT(&vm, KVM_EXIT_SHUTDOWN);
	}
	/* #PF whose handler's stack faults, whose #DF's stack faults. */
	VM_START(&vm, VM_LONG, 0, touch_nothing);
	*vm_pte(&vm, 0) = 0;
	*vm_pte(&vm, VM_STACK - 8) = 0;
	CHECK_EXIT(&vm, KVM_EXIT_SHUTDOWN);
	/* The IDT is not mapped. */
	VM_START(&vm, VM_LONG, 0, ud);
	*vm_pte(&vm, VM_IDT) = 0;
	CHECK_EXIT(&vm, KVM_EXIT_SHUTDOWN);
	/* Paging with tables where there is no memory. */
	VM_START(&vm, VM_LONG, 0, ud);
	s = vm_sregs(&vm);
	s.cr3 = 0xfffff000;
	vm_set_sregs(&vm, &s);
	CHECK_EXIT(&vm, KVM_EXIT_SHUTDOWN);
	/* The stack grows over everything down to the code and tables. */
	VM_START(&vm, VM_LONG, 0, big_stack);
	{
		int r = vm_run(&vm);

		CHECK(r == KVM_EXIT_SHUTDOWN || r == KVM_EXIT_IO || r == KVM_EXIT_INTERNAL_ERROR);
	}
	vm_destroy(&vm);
}

/* #PF for ever: the handler's page is not there, and IST saves the stack. KVM_RUN can be ended. */
static struct kvm_run *alarmed;

static void on_alarm(int sig)
{
	(void)sig;
	__atomic_store_n(&alarmed->immediate_exit, 1, __ATOMIC_RELAXED);
}

static int run_for(struct vm *vm, unsigned ms)
{
	struct itimerval t = { .it_value.tv_usec = ms * 1000 };
	int r;

	alarmed = vm->run;
	vm->run->immediate_exit = 0;
	signal(SIGALRM, on_alarm);
	setitimer(ITIMER_REAL, &t, NULL);
	r = vm_run(vm);
	vm->run->immediate_exit = 0;
	return r;
}

GUEST(spin64, 64, "1: jmp 1b");
GUEST(spin16, 16, "1: jmp 1b");
GUEST(rep64, 64,
      "mov $-1, %rcx; mov $0x20000, %esi; mov %esi, %edi; xor %eax, %eax; cld; rep lodsb; hlt");
GUEST(fault_loop, 64, "1: mov 0, %rax; jmp 1b");

static void endless(void)
{
	struct vm vm;
	static const struct {
		const uint8_t *code, *end;
		enum vm_mode mode;
	} rows[] = {
		{ spin64, spin64_end, VM_LONG },
		{ spin64, spin64_end, VM_PM32 },
		{ spin16, spin16_end, VM_REAL },
		{ rep64, rep64_end, VM_LONG },
	};

	vm_make(&vm, 0);
	for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		vm_enter(&vm, rows[i].mode, 0);
		vm_load(&vm, VM_CODE, rows[i].code, rows[i].end - rows[i].code);
		/* The string runs into the hole, where it is a device's. */
		CHECK_EQ(run_for(&vm, 30), i == 3 ? KVM_EXIT_MMIO : -EINTR);
	}
	/* The #PF handler is the faulting instruction itself. */
	VM_START(&vm, VM_LONG, 0, fault_loop);
	*vm_pte(&vm, 0) = 0;
	vm_poke(&vm, VM_IDT + 16 * 14, VM_CODE | SEL_CODE64 << 16, 4);
	vm_poke(&vm, VM_IDT + 16 * 14 + 4, 0x8e01, 2); /* IST 1 */
	CHECK_EQ(run_for(&vm, 30), -EINTR);
	vm_destroy(&vm);
}

GUEST(read_nothing, 64,
      "mov $0x10000000, %ebx; mov 4(%rbx), %eax; mov %al, 9(%rbx); mov 0xa0000, %cx; hlt");

static void unmapped_memory(void)
{
	struct vm vm;

	vm_make(&vm, 0);
	VM_START(&vm, VM_LONG, 0, read_nothing);
	CHECK_EXIT(&vm, KVM_EXIT_MMIO);
	CHECK_EQ(vm.run->mmio.phys_addr, VM_DEVICE + 4);
	CHECK_EQ(vm.run->mmio.len, 4);
	CHECK_EQ(vm.run->mmio.is_write, 0);
	memcpy(vm.run->mmio.data, "\x78\x56\x34\x12", 4);
	CHECK_EXIT(&vm, KVM_EXIT_MMIO);
	CHECK_EQ(vm.run->mmio.phys_addr, VM_DEVICE + 9);
	CHECK_EQ(vm.run->mmio.len, 1);
	CHECK_EQ(vm.run->mmio.is_write, 1);
	CHECK_EQ(vm.run->mmio.data[0], 0x78);
	CHECK_EXIT(&vm, KVM_EXIT_MMIO);
	CHECK_EQ(vm.run->mmio.phys_addr, VM_HOLE);
	CHECK_EQ(vm.run->mmio.len, 2);
	CHECK_EXIT(&vm, KVM_EXIT_HLT);
	CHECK_EQ(vm_regs(&vm).rax, 0x12345678);
	vm_destroy(&vm);
}

/* What a process has: descriptors, threads, mappings, address space, bytes of malloc. */
struct usage {
	long fds, threads, maps, pages, bytes;
};

static long entries(const char *path)
{
	DIR *d = opendir(path);
	long n = 0;

	while (d && readdir(d))
		n++;
	if (d)
		closedir(d);
	return n;
}

static struct usage usage_now(void)
{
	struct mallinfo2 m;
	struct usage u = { .fds = entries("/proc/self/fd"), .threads = entries("/proc/self/task") };
	FILE *f = fopen("/proc/self/maps", "r");
	int c;

	while (f && (c = getc(f)) != EOF)
		u.maps += c == '\n';
	if (f)
		fclose(f);
	f = fopen("/proc/self/statm", "r");
	if (f) {
		if (fscanf(f, "%ld", &u.pages) != 1)
			u.pages = -1;
		fclose(f);
	}
	m = mallinfo2();
	u.bytes = m.uordblks + m.hblkhd;
	return u;
}

GUEST(short_life, 64,
      "mov $1000, %ecx; 1: mov %rcx, 0x20000(,%rcx,8); dec %ecx; jnz 1b; fld1; hlt");

static void one_life(unsigned i)
{
	struct vm vm;

	vm_make(&vm, i % 3 ? VM_IRQCHIP | VM_PIT : 0);
	VM_START(&vm, i & 1 ? VM_LONG : VM_PAE, 0, short_life);
	if (!(i & 1))
		vm_load(&vm, VM_CODE, "\x40\xf4", 2);
	if (i % 3) { /* HLT would sleep */
		vm_load(&vm, VM_CODE + (i & 1 ? short_life_end - short_life - 1 : 1), "\xe6\x80",
			2);
		CHECK_EXIT(&vm, KVM_EXIT_IO);
	} else {
		CHECK_EXIT(&vm, KVM_EXIT_HLT);
	}
	vm_destroy(&vm);
}

static void thousand_lives(void)
{
	struct usage before, after;

	for (unsigned i = 0; i < 30; i++)
		one_life(i);
	usleep(100000);
	(void)usage_now(); /* what stdio allocates */
	before = usage_now();
	for (unsigned i = 0; i < 1000; i++)
		one_life(i);
	/* A thread that has been joined may still be listed. */
	for (unsigned i = 0; i < 50; i++) {
		usleep(20000);
		after = usage_now();
		if (after.threads == before.threads)
			break;
	}
	CHECK_EQ(after.fds, before.fds);
	CHECK_EQ(after.threads, before.threads);
	CHECK_EQ(after.maps, before.maps);
	CHECK_EQ(after.pages, before.pages);
	CHECK_EQ(after.bytes, before.bytes);
}

/* Closed in every order, halfway made, and with the page still mapped. */
static void odd_ends(void)
{
	struct usage before = { 0 }, after;
	struct vm vm;

	for (unsigned i = 0; i < 220; i++) {
		if (i == 20)
			before = usage_now();
		vm_make(&vm, i & 1 ? VM_IRQCHIP : 0);
		if (i & 2) {
			vm.ops->close(vm.fd);
			vm.fd = -1;
		}
		if (i & 4) {
			vm.ops->close(vm.sys);
			vm.sys = -1;
		}
		/* The vCPU works without the VM's descriptor. */
		vm_enter(&vm, VM_LONG, 0);
		vm_load(&vm, VM_CODE, "\xe6\x80", 2);
		CHECK_EXIT(&vm, KVM_EXIT_IO);
		vm_destroy(&vm);
	}
	after = usage_now();
	CHECK_EQ(after.fds, before.fds);
	CHECK_EQ(after.maps, before.maps);
	CHECK_EQ(after.threads, before.threads);
}

VM_TESTS({ .name = "jump into nothing", .run = jump_into_nothing },
	 { .name = "an instruction that runs off memory", .run = run_off_the_end },
	 { .name = "triple faults", .run = triple_fault },
	 { .name = "endless guests", .run = endless },
	 { .name = "unmapped memory", .run = unmapped_memory },
	 { .name = "1,000 machines leave nothing", .run = thousand_lives, .seconds = 120 },
	 { .name = "odd ends", .run = odd_ends, .seconds = 60 });

/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Guests of random bytes in every mode, under a filter that traps every system call that KVM_RUN does not need. */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "vm.h"

#define RUNS	   250
#define EXITS_MAX  40
#define CODE_BYTES 512
#define STUCK_NAPS 400 /* of 20 ms */

/* What the filtered process tells: it cannot print. */
struct told {
	volatile long nr;
	void *volatile from;
	volatile uint64_t runs, exceptions, exits;
	volatile uint64_t seed;
	char volatile what[128];
	volatile bool done;
};
static struct told *told;
static volatile bool stop;

static void trapped(int sig, siginfo_t *info, void *context)
{
	(void)sig;
	(void)context;
	told->nr = info->si_syscall;
	told->from = info->si_call_addr;
	syscall(SYS_exit_group, 3);
}

/* Where libc's code is: nothing else may make a system call. Both ends lie in one 4 GiB. */
static void libc_find(uint64_t range[2])
{
	uint64_t lo, hi, here = (uint64_t)(uintptr_t)&getppid;
	char line[512];
	FILE *f = fopen("/proc/self/maps", "r");

	range[0] = range[1] = 0;
	while (f && fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%lx-%lx", &lo, &hi) == 2 && lo <= here && here < hi) {
			range[0] = lo;
			range[1] = hi;
		}
	}
	if (f)
		fclose(f);
}

#define LOAD(field, more)                                                                          \
	BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, field) + (more))
#define JUMP(what, value, yes, no) BPF_JUMP(BPF_JMP | (what) | BPF_K, value, yes, no)

/*
 * In this thread only: the threads that keep timers and the deadline go on. NEWFSTATAT is how the
 * library knows its descriptors, PROCESS_VM_* how it copies the structures of requests, WRITE how it logs.
 */
static void filter_install(void)
{
	static const int allowed[] = { SYS_futex,      SYS_rt_sigreturn,     SYS_exit_group,
				       SYS_madvise,    SYS_rt_sigprocmask,   SYS_arch_prctl,
				       SYS_newfstatat, SYS_process_vm_readv, SYS_process_vm_writev,
				       SYS_write };
	enum { N = sizeof(allowed) / sizeof(allowed[0]), HEAD = 6 };
	uint64_t libc[2];
	struct sock_filter f[HEAD + N + 2];
	struct sock_fprog prog = { .len = HEAD + N + 2, .filter = f };
	struct sigaction sa = { .sa_sigaction = trapped, .sa_flags = SA_SIGINFO };

	libc_find(libc);
	memcpy(f,
	       (struct sock_filter[HEAD]){
		       LOAD(instruction_pointer, 4),
		       JUMP(BPF_JEQ, libc[0] >> 32, 0, HEAD + N - 2),
		       LOAD(instruction_pointer, 0),
		       JUMP(BPF_JGE, (uint32_t)libc[0], 0, HEAD + N - 4),
		       JUMP(BPF_JGE, (uint32_t)libc[1], HEAD + N - 5, 0),
		       LOAD(nr, 0),
	       },
	       HEAD * sizeof(f[0]));
	for (unsigned i = 0; i < N; i++)
		f[HEAD + i] = (struct sock_filter)JUMP(BPF_JEQ, allowed[i], N - i, 0);
	f[HEAD + N] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP);
	f[HEAD + N + 1] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
	sigaction(SIGSYS, &sa, NULL);
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) ||
	    prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog))
		_exit(77);
}

/* A run that does not end by itself is ended. */
static void *deadline(void *arg)
{
	struct kvm_run *run = arg;
	struct timespec nap = { .tv_nsec = 1000000 };

	while (!stop) {
		nanosleep(&nap, NULL);
		__atomic_store_n(&run->immediate_exit, 1, __ATOMIC_RELAXED);
	}
	return NULL;
}

/* Addresses where something may go wrong. */
static uint64_t address_random(uint64_t *seed)
{
	static const uint64_t places[] = {
		0,	    VM_CODE,	   VM_DATA,    VM_TABLES,   VM_GDT,
		VM_IDT,	    VM_STACK,	   VM_HOLE,    VM_HOLE_END, VM_SIZE,
		VM_DEVICE,  0x7fffffff,	   0xffffffff, 0xffff,	    0x7fffffffffffull,
		1ull << 63, ~0ull,	   0xfee00000, 0x200000,    0xffff800000000000ull,
		0x40000000, VM_USER_STACK,
	};
	uint64_t r = vm_random(seed);

	if (r % 8 == 0)
		return vm_random(seed);
	return places[(r >> 8) % (sizeof(places) / sizeof(places[0]))] + (int8_t)(r >> 32);
}

/* Bytes that reach deeper than noise does: prefixes, escapes and operands that hit memory. */
static unsigned insn_random(uint64_t *seed, uint8_t *p)
{
	static const uint8_t prefix[] = { 0x66, 0x67, 0xf0, 0xf2, 0xf3, 0x26, 0x2e, 0x36,
					  0x3e, 0x64, 0x65, 0x48, 0x4c, 0x41, 0x49, 0x40 };
	static const uint8_t escape[][3] = { { 0x0f },
					     { 0x0f, 0x38 },
					     { 0x0f, 0x3a },
					     { 0xc5, 0xf8 },
					     { 0xc4, 0xe2, 0x79 },
					     { 0xc5, 0xfd },
					     { 0x0f, 0x01 },
					     { 0x0f, 0xae },
					     { 0x0f, 0xc7 },
					     { 0x62, 0xf1, 0x7c } };
	uint64_t r = vm_random(seed);
	unsigned n = 0;

	while ((r & 3) == 0 && n < 4) {
		p[n++] = prefix[r >> 8 & 15];
		r = vm_random(seed);
	}
	if (r & 4) {
		const uint8_t *e = escape[(r >> 8) % 10];

		for (unsigned i = 0; i < 3 && e[i]; i++)
			p[n++] = e[i];
		if (e[0] == 0x62)
			p[n++] = 0x48;
	}
	for (unsigned i = r >> 16 & 7; i; i--, r = vm_random(seed))
		p[n++] = r >> 24;
	return n;
}

static void code_random(uint64_t *seed, uint8_t *p, unsigned size)
{
	unsigned n = 0;

	if (vm_random(seed) % 3 == 0) {
		while (n < size)
			p[n++] = vm_random(seed);
		return;
	}
	while (n + 16 < size)
		n += insn_random(seed, p + n);
}

static void registers_random(struct vm *vm, uint64_t *seed)
{
	struct kvm_regs r = vm_regs(vm);
	uint64_t *gpr = (uint64_t *)&r;

	for (unsigned i = 0; i < 16; i++)
		gpr[i] = address_random(seed);
	if (vm_random(seed) & 3)
		r.rcx &= 0x3ff;
	if (vm_random(seed) & 7)
		r.rsp = VM_STACK - (vm_random(seed) & 0xff8);
	r.rflags = (r.rflags & 0x20002) | (vm_random(seed) & 0x7cd5 & ~0x4000);
	vm_set_regs(vm, &r);
}

/* Answer devices with noise; step over what faults. Returns whether the guest may go on. */
static bool answer(struct vm *vm, int reason, uint64_t *seed)
{
	uint64_t r = vm_random(seed);
	struct kvm_run *run = vm->run;

	if (reason == KVM_EXIT_MMIO) {
		memcpy(run->mmio.data, &r, 8);
	} else if (reason == KVM_EXIT_IO && run->io.direction == KVM_EXIT_IO_IN) {
		for (unsigned i = 0; i < run->io.size * run->io.count && i < 4096; i++)
			((uint8_t *)run)[run->io.data_offset + i] = r >> (i & 7);
	} else if (reason == KVM_EXIT_IO) {
		struct kvm_regs regs = vm_regs(vm);
		uint64_t at = regs.rsp & (VM_SIZE - 1);

		/* The frame's RIP lies on top, or behind an error code. */
		told->exceptions++;
		for (unsigned i = 0; i < 2; i++, at += 8)
			if (at < VM_HOLE - 8)
				vm_poke(vm, at, vm_peek(vm, at, 8) + 1, 8);
	}
	return reason == KVM_EXIT_MMIO || reason == KVM_EXIT_IO || reason == KVM_EXIT_HLT;
}

/* Nothing of the guest's may be left in the registers of the host's floating point, nor in DF. */
static bool host_is_sound(void)
{
	uint16_t fcw, fsw;
	uint32_t mxcsr;
	uint64_t flags;

	__asm__ volatile("fnstcw %0; fnstsw %1; stmxcsr %2; pushfq; pop %3"
			 : "=m"(fcw), "=m"(fsw), "=m"(mxcsr), "=r"(flags));
	return fcw == 0x37f && (mxcsr & ~0x3fu) == 0x1f80 && !(flags & 0x400) && !(fsw & 0x3f80);
}

static void complain(const char *what)
{
	for (unsigned i = 0; i < sizeof(told->what) - 1 && what[i]; i++)
		told->what[i] = what[i];
	syscall(SYS_exit_group, 4);
}

static void run_one(struct vm *vm, enum vm_mode mode, unsigned cpl, uint64_t seed)
{
	told->seed = seed;
	vm_enter(vm, mode, cpl);
	memset(vm->ram + VM_CODE, 0xf4, 0x4000);
	code_random(&seed, vm->ram + VM_CODE, CODE_BYTES);
	registers_random(vm, &seed);
	for (unsigned i = 0; i < EXITS_MAX; i++) {
		int reason;

		__atomic_store_n(&vm->run->immediate_exit, 0, __ATOMIC_RELAXED);
		reason = vm_run(vm);
		told->exits++;
		if (!host_is_sound())
			complain("the host's floating point state or DF changed");
		if (!answer(vm, reason, &seed))
			break;
	}
	for (unsigned i = VM_HOLE; i < VM_HOLE_END; i++)
		if (vm->ram[i])
			complain("memory outside every slot was written");
	told->runs++;
}

static unsigned runs_wanted(void)
{
	const char *s = getenv("ANYKVM_RUNS");

	return s ? strtoul(s, NULL, 0) : RUNS;
}

static void filtered(enum vm_mode mode, unsigned cpl)
{
	unsigned n = runs_wanted();
	struct vm vm;
	pthread_t t;

	vm_make(&vm, 0);
	vm_enter(&vm, mode, cpl);
	vm.ram[VM_CODE] = 0xf4;
	if (!freopen("/dev/null", "w", stderr)) /* the log of unknown instructions */
		_exit(77);
	setvbuf(stderr, NULL, _IONBF, 0);
	vm_run(&vm); /* whatever is made at first use */
	pthread_create(&t, NULL, deadline, vm.run);
	filter_install();
	if (getenv("ANYKVM_RUN_SEED")) /* one run again */
		run_one(&vm, mode, cpl, strtoull(getenv("ANYKVM_RUN_SEED"), NULL, 0));
	for (unsigned i = 0; i < n && !getenv("ANYKVM_RUN_SEED"); i++)
		run_one(&vm, mode, cpl, vm_seed() * 1000003 + i * 16 + mode * 2 + (cpl == 3));
	told->done = true;
	syscall(SYS_exit_group, 0);
}

/* Wait for the end, or for a run that takes too long; the wait status. */
static int watch(pid_t pid)
{
	struct timespec nap = { .tv_nsec = 20000000 };
	uint64_t exits = ~0ull;
	unsigned same = 0;
	int status;

	while (!waitpid(pid, &status, WNOHANG)) {
		same = told->exits == exits ? same + 1 : 0;
		exits = told->exits;
		if (same == STUCK_NAPS) {
			check_failed("guest", "KVM_RUN does not end");
			kill(pid, SIGKILL);
		}
		nanosleep(&nap, NULL);
	}
	return status;
}

static void in_mode(enum vm_mode mode, unsigned cpl)
{
	int status;
	pid_t pid;

	told = mmap(NULL, sizeof(*told), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	pid = fork();
	if (!pid)
		filtered(mode, cpl);
	status = watch(pid);
	if (WIFEXITED(status) && WEXITSTATUS(status) == 77)
		check_skip("no seccomp filters here");
	if (told->nr || told->from)
		check_failed("guest", "system call %ld from %p", told->nr, told->from);
	if (told->what[0])
		check_failed("guest", "%s", (char *)told->what);
	if (WIFSIGNALED(status))
		check_failed("guest", "signal %d", WTERMSIG(status));
	if (!told->done)
		check_failed("guest",
			     "%s CPL %u, ANYKVM_RUN_SEED=%lu (of ANYKVM_SEED=%lu), run %lu",
			     vm_mode_names[mode], cpl, told->seed, vm_seed(), told->runs);
	check_note("%s CPL %u: %lu runs, %lu exits, %lu exceptions and OUT", vm_mode_names[mode],
		   cpl, told->runs, told->exits, told->exceptions);
}

#define IN_MODE(name, mode, cpl)                                                                   \
	static void name(void)                                                                     \
	{                                                                                          \
		in_mode(mode, cpl);                                                                \
	}
IN_MODE(in_real, VM_REAL, 0)
IN_MODE(in_pm16, VM_PM16, 0)
IN_MODE(in_pm16_user, VM_PM16, 3)
IN_MODE(in_pm32, VM_PM32, 0)
IN_MODE(in_pm32_user, VM_PM32, 3)
IN_MODE(in_paged, VM_PAGED32, 0)
IN_MODE(in_paged_user, VM_PAGED32, 3)
IN_MODE(in_pae, VM_PAE, 0)
IN_MODE(in_pae_user, VM_PAE, 3)
IN_MODE(in_compat, VM_COMPAT, 0)
IN_MODE(in_compat_user, VM_COMPAT, 3)
IN_MODE(in_long, VM_LONG, 0)
IN_MODE(in_long_user, VM_LONG, 3)
IN_MODE(in_v86, VM_V86, 3)

/* An allowed number, from outside libc, as a guest would make it. */
static void call_from_here(void)
{
	long nr = SYS_madvise;

	__asm__ volatile("syscall" : "+a"(nr) : "D"(0), "S"(0), "d"(0) : "rcx", "r11", "memory");
}

static void call_getppid(void)
{
	syscall(SYS_getppid);
}

static void expect_trap(void (*call)(void), long nr)
{
	int status;
	pid_t pid;

	told = mmap(NULL, sizeof(*told), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	pid = fork();
	if (!pid) {
		filter_install();
		call();
		syscall(SYS_exit_group, 0);
	}
	waitpid(pid, &status, 0);
	if (WIFEXITED(status) && WEXITSTATUS(status) == 77)
		check_skip("no seccomp filters here");
	CHECK_EQ(WEXITSTATUS(status), 3);
	CHECK_EQ(told->nr, nr);
}

/* The trap itself works: by number, and by where the call is. */
static void trap_works(void)
{
	expect_trap(call_getppid, SYS_getppid);
	expect_trap(call_from_here, SYS_madvise);
}

#define ROW(text, function)                                                                        \
	{                                                                                          \
		.name = text, .run = function, .seconds = 60, .library_only = true                 \
	}
VM_TESTS(ROW("the filter traps", trap_works), ROW("real mode", in_real),
	 ROW("16-bit, CPL 0", in_pm16), ROW("16-bit, CPL 3", in_pm16_user),
	 ROW("32-bit, CPL 0", in_pm32), ROW("32-bit, CPL 3", in_pm32_user),
	 ROW("paged, CPL 0", in_paged), ROW("paged, CPL 3", in_paged_user),
	 ROW("PAE, CPL 0", in_pae), ROW("PAE, CPL 3", in_pae_user),
	 ROW("compatibility, CPL 0", in_compat), ROW("compatibility, CPL 3", in_compat_user),
	 ROW("64-bit, CPL 0", in_long), ROW("64-bit, CPL 3", in_long_user),
	 ROW("virtual-86", in_v86));

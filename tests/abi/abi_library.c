/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Cases that only the library has: descriptors, fork, options, nothing left behind. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <malloc.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "abi.h"
#include "anykvm/anykvm.h"

/* Freed memory stays in the quarantine of a sanitizer, whose run-time also makes system calls of its own. */
#ifdef __SANITIZE_ADDRESS__
#define GROWTH_KIB	   (512 * 1024)
#define ALL_CALLS_ARE_OURS 0
#else
#define GROWTH_KIB	   1024
#define ALL_CALLS_ARE_OURS 1
#endif

static unsigned entries(const char *path)
{
	DIR *d = opendir(path);
	unsigned n = 0;

	while (d && readdir(d))
		n++;
	if (d)
		closedir(d);
	return n;
}

static long resident_kib(void)
{
	long pages = 0;
	FILE *f = fopen("/proc/self/statm", "r");

	if (f && fscanf(f, "%*d %ld", &pages) != 1)
		pages = 0;
	if (f)
		fclose(f);
	return pages * 4;
}

static long exit_of_child(pid_t pid)
{
	int status = -1;

	waitpid(pid, &status, 0);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void fork_cases(struct abi *a)
{
	int vcpu, vm = abi_vm(a, &vcpu);
	struct kvm_regs r;
	pid_t pid = fork();

	if (!pid) {
		bool eio = IOCTL(a, vcpu, KVM_GET_REGS, &r) == -EIO &&
			   IOCTL(a, vcpu, KVM_RUN, 0) == -EIO &&
			   IOCTL(a, vm, KVM_CREATE_VCPU, 1) == -EIO;
		int own = anykvm_open("/dev/kvm", O_CLOEXEC);

		_exit(eio && own >= 0 && IOCTL(a, own, KVM_GET_API_VERSION, 0) == 12 &&
				      !anykvm_close(vcpu) && !anykvm_close(vm)
			      ? 0
			      : 1);
	}
	abi_case(a, "in a child EIO, and its own open works", 0, exit_of_child(pid));
	abi_case(a, "the parent goes on", 0, IOCTL(a, vcpu, KVM_GET_REGS, &r));
	anykvm_close(vcpu);
	anykvm_close(vm);
}

static void descriptor_cases(struct abi *a)
{
	int vcpu, vm = abi_vm(a, &vcpu), copy = dup(vcpu), file;
	struct kvm_regs r;

	abi_case(a, "dup works", 0, IOCTL(a, copy, KVM_GET_REGS, &r));
	abi_case(a, "close of the original", 0, anykvm_close(vcpu));
	abi_case(a, "dup still works", 0, IOCTL(a, copy, KVM_GET_REGS, &r));
	abi_case(a, "closed number", -EBADF, IOCTL(a, vcpu, KVM_GET_REGS, &r));
	vcpu = dup(copy);
	anykvm_close(copy);
	abi_case(a, "dup that was never used", 0, IOCTL(a, vcpu, KVM_GET_REGS, &r));
	anykvm_close(vm);
	abi_case(a, "vCPU outlives the VM's descriptor", 0, IOCTL(a, vcpu, KVM_GET_REGS, &r));
	file = open("/dev/null", O_RDWR);
	dup2(file, vcpu);
	close(file);
	abi_case(a, "number given away behind our back: mmap", -EBADF,
		 anykvm_mmap(NULL, 4096, PROT_READ, MAP_SHARED, vcpu, 0) == MAP_FAILED ? -errno
										       : 0);
	abi_case(a, "then it is known", -EBADF, IOCTL(a, vcpu, KVM_GET_REGS, &r));
	close(vcpu);
	abi_case(a, "foreign descriptor", -EBADF, IOCTL(a, 0, KVM_GET_API_VERSION, 0));
	abi_case(a, "foreign close", -1, anykvm_close(0));
	abi_case(a, "is ours", 1, anykvm_is_ours(a->sys));
	abi_case(a, "mmap of a system descriptor", 1,
		 anykvm_mmap(NULL, 4096, PROT_READ, MAP_SHARED, a->sys, 0) == MAP_FAILED);
	abi_case(a, "other path", -ENOENT, anykvm_open("/dev/null", 0) < 0 ? -errno : 0);
	abi_case(a, "FIOCLEX", 0, fcntl(a->sys, F_GETFD) == FD_CLOEXEC ? 0 : -1);
}

#define MANY 40

/* Closed in batches: one that has a duplicate which nobody has used lives on, and at the end nothing is left. */
static void many_cases(struct abi *a)
{
	int fd[MANY], vm = abi_vm(a, &fd[0]), copy;
	unsigned before = entries("/proc/self/task");
	bool good = true;
	struct kvm_regs r;

	for (unsigned i = 1; i < MANY; i++)
		fd[i] = IOCTL(a, vm, KVM_CREATE_VCPU, i);
	copy = dup(fd[3]);
	for (unsigned i = 0; i < MANY; i++)
		good = !anykvm_close(fd[i]) && IOCTL(a, fd[i], KVM_GET_REGS, &r) == -EBADF && good;
	abi_case(a, "many vCPUs are closed, each at once", 1, good);
	abi_case(a, "a duplicate that was not seen", 0, IOCTL(a, copy, KVM_GET_REGS, &r));
	anykvm_close(vm);
	abi_case(a, "it keeps the VM", before, entries("/proc/self/task"));
	anykvm_close(copy);
	abi_case(a, "the last takes it away", 1, entries("/proc/self/task") < before);
}

/* One system call ends the process, but for the ends of a signal handler and of the process. */
static bool filter_all(void)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_rt_sigreturn, 1, 0),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_exit_group, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
	};
	struct sock_fprog prog = { sizeof(code) / sizeof(code[0]), code };

	return !prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) &&
	       !prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog);
}

/* HLT, an interrupt, IRET, port and device accesses, round after round. */
static bool filter_rounds(struct abi *a, int vcpu, const struct kvm_run *run)
{
	static const unsigned reason[] = { KVM_EXIT_IO, KVM_EXIT_IO, KVM_EXIT_MMIO, KVM_EXIT_MMIO,
					   KVM_EXIT_HLT };
	struct kvm_interrupt irq = { .irq = 0x20 };
	bool good = true;

	for (unsigned i = 0; i < 1000 && good; i++) {
		if (i && i % 5 == 0)
			good = !IOCTL(a, vcpu, KVM_INTERRUPT, &irq);
		good = good && !IOCTL(a, vcpu, KVM_RUN, 0) && run->exit_reason == reason[i % 5];
	}
	return good;
}

/* Ends with 0 when all is right, and by SIGSYS at a system call. */
static void filter_child(struct abi *a)
{
	/* sti; 1: out 0x10, al; in al, 0x10; mov [si], al; mov al, [si]; hlt; jmp 1b */
	static const unsigned char code[] = { 0xfb, 0xe6, 0x10, 0xe4, 0x10, 0x88,
					      0x04, 0x8a, 0x04, 0xf4, 0xeb, 0xf5 };
	static const unsigned char vector[] = { 0x00, 0x03, 0, 0 }, iret = 0xcf;
	struct kvm_regs r = { .rip = 0x400, .rsp = 0x800, .rsi = 0x1000, .rflags = 2 };
	unsigned char *memory =
		mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct kvm_userspace_memory_region slot = { .memory_size = 4096,
						    .userspace_addr = (uintptr_t)memory };
	struct kvm_sregs s;
	struct kvm_run *run;
	int vm, vcpu;
	bool good;

	a->sys = anykvm_open("/dev/kvm", O_CLOEXEC);
	vm = abi_vm(a, &vcpu);
	run = anykvm_mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu, 0);
	memcpy(memory + 0x400, code, sizeof(code));
	memcpy(memory + 4 * 0x20, vector, sizeof(vector));
	memory[0x300] = iret;
	good = !IOCTL(a, vm, KVM_SET_USER_MEMORY_REGION, &slot) &&
	       !IOCTL(a, vcpu, KVM_GET_SREGS, &s);
	s.cs.base = s.cs.selector = 0;
	good = good && !IOCTL(a, vcpu, KVM_SET_SREGS, &s) && !IOCTL(a, vcpu, KVM_SET_REGS, &r) &&
	       filter_rounds(a, vcpu, run) && filter_all() && filter_rounds(a, vcpu, run) &&
	       !IOCTL(a, vcpu, KVM_GET_REGS, &r) && r.rsi == 0x1000 &&
	       !IOCTL(a, vcpu, KVM_SET_REGS, &r) && !IOCTL(a, vcpu, KVM_GET_SREGS, &s) &&
	       IOCTL(a, vcpu, KVM_GET_REGS, abi_bad_pointer()) == -EFAULT &&
	       IOCTL(a, vcpu, KVM_SET_REGS, abi_bad_pointer()) == -EFAULT;
	_exit(!good);
}

/*
 * The paths that a VMM takes all the time make no system call, and find bad pointers without one. Once in 10 ms a
 * KVM_RUN may arm the tick of the VM, which wakes a thread when it is late: then another child tries.
 */
static void filter_cases(struct abi *a)
{
	int status = -1;

	for (unsigned i = 0; i < 20; i++) {
		pid_t pid = fork();

		if (!pid)
			filter_child(a);
		waitpid(pid, &status, 0);
		if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGSYS)
			break;
	}
	abi_case(a, "no system call on the short paths", 0, status);
}

static int open_with(const char *options)
{
	pid_t pid = fork();

	if (!pid) {
		setenv("ANYKVM_OPTIONS", options, 1);
		freopen("/dev/null", "w", stderr);
		execl("/proc/self/exe", "abi", "--open-only", (char *)NULL);
		_exit(99);
	}
	return exit_of_child(pid);
}

static void option_cases(struct abi *a)
{
	abi_case(a, "options: checked", 0, open_with("engine=checked"));
	abi_case(a, "options: cpu-mask", 0, open_with("cpu-mask=x86-64-v2,engine=checked"));
	abi_case(a, "options: unknown key", EINVAL, open_with("speed=9"));
	abi_case(a, "options: unknown value", EINVAL, open_with("engine=warp"));
	abi_case(a, "options: no value", EINVAL, open_with("engine"));
}

static void make_and_close(struct abi *a)
{
	int vm = abi_vm(a, NULL), vcpu;
	struct kvm_pit_config config = { 0 };

	IOCTL(a, vm, KVM_CREATE_IRQCHIP, 0);
	IOCTL(a, vm, KVM_CREATE_PIT2, &config);
	vcpu = IOCTL(a, vm, KVM_CREATE_VCPU, 0);
	anykvm_close(vcpu);
	anykvm_close(vm);
}

static void leftover_cases(struct abi *a)
{
	unsigned fds, threads;
	long resident;

	for (int i = 0; i < 50; i++)
		make_and_close(a);
	malloc_trim(0);
	fds = entries("/proc/self/fd");
	threads = entries("/proc/self/task");
	resident = resident_kib();
	for (int i = 0; i < 1000; i++)
		make_and_close(a);
	malloc_trim(0);
	abi_case(a, "1000 VMs: descriptors", fds, entries("/proc/self/fd"));
	abi_case(a, "1000 VMs: threads", threads, entries("/proc/self/task"));
	abi_case(a, "1000 VMs: memory", 1, resident_kib() - resident < GROWTH_KIB);
}

void abi_library_cases(struct abi *a)
{
	a->sys = a->ops->open("/dev/kvm", O_CLOEXEC);
	descriptor_cases(a);
	many_cases(a);
	fork_cases(a);
	if (ALL_CALLS_ARE_OURS)
		filter_cases(a);
	option_cases(a);
	leftover_cases(a);
	a->ops->close(a->sys);
}

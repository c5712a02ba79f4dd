/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Filters of system calls that a KVM program installs in a vCPU's thread before KVM_RUN. */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "program.h"

#define ALLOW(nr)                                                                                  \
	BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, nr, 0, 1), BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)

/* As tight as a VMM's filter gets: all else ends the process. */
static struct sock_filter allow_list[] = {
	BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
	ALLOW(SYS_futex),
	ALLOW(SYS_ioctl),
	ALLOW(SYS_write),
	ALLOW(SYS_exit),
	ALLOW(SYS_exit_group),
	BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
};

static void filter_install(bool by_syscall)
{
	struct sock_fprog program = { sizeof(allow_list) / sizeof(allow_list[0]), allow_list };

	CHECK(!prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
	if (by_syscall)
		CHECK(!syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program));
	else
		CHECK(!prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program));
}

static void *run_filtered(void *arg)
{
	struct machine *m = arg;
	struct kvm_regs regs;

	filter_install(false);
	for (int i = 0; i < 1000; i++)
		CHECK(!ioctl(m->vcpu, KVM_RUN, 0) && m->run->exit_reason == KVM_EXIT_IO);
	CHECK(!ioctl(m->vcpu, KVM_GET_REGS, &regs) && regs.rip >= CODE_AT &&
	      regs.rip < CODE_AT + 4);
	write(2, "done\n", 5);
	syscall(SYS_exit, 0); /* pthread_exit() takes more */
	return NULL;
}

static void test_allow_list(void)
{
	struct machine m;
	pthread_t t;

	machine_make(&m);
	machine_code(&m, CODE_OUT, 4);
	CHECK(!pthread_create(&t, NULL, run_filtered, &m));
	CHECK(!pthread_join(t, NULL));
	machine_close(&m);
}

/* In the main thread, by the system call itself. */
static void test_allow_list_main(void)
{
	struct machine m;

	machine_make(&m);
	machine_code(&m, CODE_OUT, 4);
	filter_install(true);
	for (int i = 0; i < 1000; i++)
		CHECK(!ioctl(m.vcpu, KVM_RUN, 0));
	_exit(0);
}

/* Questions and mistakes change nothing. */
static void test_questions(void)
{
	struct machine m;

	machine_make(&m);
	machine_code(&m, CODE_OUT, 4);
	CHECK(syscall(SYS_seccomp, SECCOMP_SET_MODE_STRICT, 1, NULL) < 0 && errno == EINVAL);
	CHECK(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, NULL) < 0 && errno == EFAULT);
	CHECK(prctl(PR_SET_SECCOMP, 77, 0) < 0 && errno == EINVAL);
	CHECK(!ioctl(m.vcpu, KVM_RUN, 0) && m.run->exit_reason == KVM_EXIT_IO);
	machine_close(&m);
}

const struct test seccomp_tests[] = {
	{ "allow-list", test_allow_list },
	{ "allow-list-main", test_allow_list_main },
	{ "seccomp-questions", test_questions },
	{ NULL, NULL },
};

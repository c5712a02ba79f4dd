/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* What a trace is looked at for: requests with structures, failures, exits with answers, threads, a call that never ends. */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "program.h"

static void requests(const struct machine *m)
{
	struct {
		struct kvm_msrs head;
		struct kvm_msr_entry entry[2];
	} msrs = { .head.nmsrs = 2, .entry = { { .index = 0x10 }, { .index = 0xc0000082 } } };
	struct kvm_userspace_memory_region region = { .slot = 1,
						      .flags = KVM_MEM_READONLY,
						      .guest_phys_addr = 0x100000,
						      .memory_size = 0x1000,
						      .userspace_addr = (unsigned long)m->memory };
	struct kvm_mp_state state = { .mp_state = 99 };
	struct kvm_enable_cap cap = { .cap = KVM_CAP_EXCEPTION_PAYLOAD, .args = { 1 } };
	struct kvm_regs regs;

	CHECK(!ioctl(m->vm, KVM_SET_USER_MEMORY_REGION, &region));
	CHECK(ioctl(m->kvm, KVM_CHECK_EXTENSION, KVM_CAP_IRQCHIP) == 1);
	CHECK(!ioctl(m->vm, KVM_ENABLE_CAP, &cap));
	msrs.entry[1].data = 0x1234;
	CHECK(ioctl(m->vcpu, KVM_SET_MSRS, &msrs) == 2);
	CHECK(ioctl(m->vcpu, KVM_SET_MP_STATE, &state) < 0 && errno == EINVAL);
	CHECK(ioctl(m->vcpu, KVM_GET_REGS, 16) < 0 && errno == EFAULT);
	CHECK(!ioctl(m->vcpu, KVM_GET_REGS, &regs));
	CHECK(ioctl(m->vm, KVM_CREATE_DEVICE, 0) < 0);
	CHECK(ioctl(m->vm, 0xae00 | 0xff, 5) < 0);
}

/* in al, 0x60; out 0x10, al; mov [0xa0:0], al; hlt */
static void exits(struct machine *m)
{
	static const unsigned char code[] = { 0xe4, 0x60, 0xe6, 0x10, 0x68, 0x00, 0xa0, 0x1f,
					      0xa2, 0x00, 0x00, 0xa0, 0x00, 0x00, 0xf4 };

	machine_code(m, code, sizeof(code));
	m->memory[0x8000] = 0;
	CHECK(!ioctl(m->vcpu, KVM_RUN, 0) && m->run->exit_reason == KVM_EXIT_IO);
	((char *)m->run)[m->run->io.data_offset] = 'a';
	CHECK(!ioctl(m->vcpu, KVM_RUN, 0) && m->run->exit_reason == KVM_EXIT_IO);
	CHECK(!ioctl(m->vcpu, KVM_RUN, 0) && m->run->exit_reason == KVM_EXIT_MMIO);
	CHECK(!ioctl(m->vcpu, KVM_RUN, 0) && m->run->exit_reason == KVM_EXIT_MMIO);
	((char *)m->run->mmio.data)[0] = 'b';
	CHECK(!ioctl(m->vcpu, KVM_RUN, 0) && m->run->exit_reason == KVM_EXIT_HLT);
	m->run->immediate_exit = 1;
	CHECK(ioctl(m->vcpu, KVM_RUN, 0) < 0 && errno == EINTR);
}

static void test_traced(void)
{
	struct machine m;

	machine_make(&m);
	requests(&m);
	exits(&m);
	machine_close(&m);
}

#define CALLS 20000

static void *ask(void *arg)
{
	const int fd = *(const int *)arg;

	for (int i = 0; i < CALLS; i++)
		CHECK(ioctl(fd, KVM_CHECK_EXTENSION, i) >= 0);
	return NULL;
}

/* More lines than the ring holds, from four threads and a child. */
static void test_traced_threads(void)
{
	struct machine m;
	pthread_t t[4];
	int status;
	pid_t pid;

	machine_make(&m);
	pid = fork();
	if (!pid) {
		CHECK(ioctl(m.kvm, KVM_CHECK_EXTENSION, 0) < 0 && errno == EIO);
		_exit(0);
	}
	CHECK(waitpid(pid, &status, 0) == pid && !status);
	for (int i = 0; i < 4; i++)
		CHECK(!pthread_create(&t[i], NULL, ask, &m.kvm));
	for (int i = 0; i < 4; i++)
		CHECK(!pthread_join(t[i], NULL));
	machine_close(&m);
}

/* Killed in guest code. */
static void test_traced_killed(void)
{
	struct machine m;

	machine_make(&m);
	machine_code(&m, CODE_SPIN, 2);
	signal(SIGALRM, SIG_DFL);
	alarm(1);
	ioctl(m.vcpu, KVM_RUN, 0);
}

const struct test trace_tests[] = {
	{ "traced", test_traced },
	{ "traced-threads", test_traced_threads },
	{ "traced-killed", test_traced_killed },
	{ NULL, NULL },
};

/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Signals of a KVM program: handlers run at the boundary of KVM_RUN, with what the kernel would give them. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include "program.h"

static volatile sig_atomic_t count, value, masked, on_stack;
static struct kvm_run *run_page;
static char stack[65536];

static void count_it(int sig)
{
	(void)sig;
	count++;
}

/* What QEMU's handler does. */
static void ask_exit(int sig)
{
	(void)sig;
	count++;
	run_page->immediate_exit = 1;
}

static void look(int sig, siginfo_t *info, void *context)
{
	char here;
	sigset_t now;

	(void)context;
	pthread_sigmask(SIG_BLOCK, NULL, &now);
	masked = sigismember(&now, SIGUSR2) == 1 && sigismember(&now, sig) == 1;
	on_stack = &here >= stack && &here < stack + sizeof(stack);
	value = info->si_code == SI_QUEUE ? info->si_value.sival_int : -1;
	count++;
}

static void install(int sig, void (*fn)(int), int flags)
{
	struct sigaction sa = { .sa_handler = fn, .sa_flags = flags };

	CHECK(!sigaction(sig, &sa, NULL));
}

static void after_ms(int ms, bool again)
{
	struct itimerval t = { .it_value = { .tv_usec = ms * 1000 } };

	if (again)
		t.it_interval = t.it_value;
	CHECK(!setitimer(ITIMER_REAL, &t, NULL));
}

static void spin_machine(struct machine *m)
{
	machine_make(m);
	run_page = m->run;
	machine_code(m, CODE_SPIN, 2);
}

static void expect_eintr(struct machine *m)
{
	CHECK(ioctl(m->vcpu, KVM_RUN, 0) < 0 && errno == EINTR);
	CHECK(m->run->exit_reason == KVM_EXIT_INTR);
}

/* A handler that was there before the VM, and one that came after; with SA_RESTART too. */
static void test_interrupts(void)
{
	struct sigaction old;
	struct machine m;

	install(SIGALRM, count_it, 0);
	spin_machine(&m);
	after_ms(20, false);
	expect_eintr(&m);
	CHECK(count == 1);
	install(SIGALRM, count_it, SA_RESTART);
	CHECK(!sigaction(SIGALRM, NULL, &old) && old.sa_handler == count_it &&
	      old.sa_flags & SA_RESTART);
	after_ms(20, false);
	expect_eintr(&m);
	CHECK(count == 2);
	CHECK(signal(SIGALRM, ask_exit) == count_it);
	after_ms(20, false);
	expect_eintr(&m);
	CHECK(count == 3 && m.run->immediate_exit);
	expect_eintr(&m); /* before the guest is entered */
	machine_close(&m);
}

/* A halted vCPU that waits for an interrupt is woken as well. */
static void test_halted(void)
{
	struct machine m;
	struct kvm_userspace_memory_region region = { .memory_size = MEMORY_SIZE };

	install(SIGALRM, count_it, 0);
	m.kvm = open("/dev/kvm", 2);
	m.vm = ioctl(m.kvm, KVM_CREATE_VM, 0);
	CHECK(m.vm >= 0 && !ioctl(m.vm, KVM_CREATE_IRQCHIP, 0));
	m.memory =
		mmap(NULL, MEMORY_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	region.userspace_addr = (unsigned long)m.memory;
	CHECK(!ioctl(m.vm, KVM_SET_USER_MEMORY_REGION, &region));
	m.vcpu = ioctl(m.vm, KVM_CREATE_VCPU, 0);
	m.run = mmap(NULL, ioctl(m.kvm, KVM_GET_VCPU_MMAP_SIZE, 0), PROT_READ | PROT_WRITE,
		     MAP_SHARED, m.vcpu, 0);
	machine_code(&m, "\xf4", 1);
	for (int i = 1; i <= 5; i++) {
		after_ms(20, false);
		expect_eintr(&m);
		CHECK(count == i);
	}
	machine_close(&m);
}

/* Mask, stack, siginfo and SA_RESETHAND as asked. */
static void test_chains(void)
{
	struct sigaction sa = { .sa_sigaction = look,
				.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESETHAND };
	stack_t ss = { .ss_sp = stack, .ss_size = sizeof(stack) };
	union sigval v = { .sival_int = 77 };
	struct machine m;

	spin_machine(&m);
	CHECK(!sigaltstack(&ss, NULL));
	sigaddset(&sa.sa_mask, SIGUSR2);
	CHECK(!sigaction(SIGUSR1, &sa, NULL));
	CHECK(!sigqueue(getpid(), SIGUSR1, v));
	CHECK(count == 1 && value == 77 && masked && on_stack);
	CHECK(!sigaction(SIGUSR1, NULL, &sa) && sa.sa_handler == SIG_DFL);
	machine_close(&m);
}

struct sender {
	pthread_t target;
	int sig;
};

static void *send_queued(void *arg)
{
	const struct sender *s = arg;
	union sigval v = { .sival_int = 42 };

	usleep(20000);
	pthread_sigqueue(s->target, s->sig, v);
	return NULL;
}

/* The value that was queued comes along when the signal is put back. */
static void test_keeps_info(void)
{
	struct sigaction sa = { .sa_sigaction = look, .sa_flags = SA_SIGINFO };
	struct sender s = { pthread_self(), SIGUSR1 };
	struct machine m;
	pthread_t t;

	spin_machine(&m);
	CHECK(!sigaction(SIGUSR1, &sa, NULL));
	CHECK(!pthread_create(&t, NULL, send_queued, &s));
	expect_eintr(&m);
	CHECK(count == 1 && value == 42);
	CHECK(!pthread_join(t, NULL));
	machine_close(&m);
}

static sigjmp_buf away;

static void jump(int sig)
{
	(void)sig;
	count++;
	siglongjmp(away, 1);
}

/* Out of the handler, past KVM_RUN: the vCPU is as good as before. */
static void test_longjmp(void)
{
	struct machine m;

	spin_machine(&m);
	install(SIGALRM, jump, 0);
	for (int i = 0; i < 50; i++) {
		if (!sigsetjmp(away, 1)) {
			after_ms(2, false);
			ioctl(m.vcpu, KVM_RUN, 0);
			CHECK(false);
		}
	}
	CHECK(count == 50);
	machine_code(&m, CODE_OUT, 4);
	CHECK(!ioctl(m.vcpu, KVM_RUN, 0) && m.run->exit_reason == KVM_EXIT_IO);
	machine_close(&m);
}

/* KVM_SET_SIGNAL_MASK: blocked in the thread, let through by KVM_RUN, left for sigwait(). */
static void test_sigwait(void)
{
	struct {
		struct kvm_signal_mask head;
		unsigned char set[8];
	} mask = { .head.len = 8 };
	sigset_t usr1, pending;
	struct machine m;
	int sig;

	install(SIGUSR1, count_it, 0);
	spin_machine(&m);
	sigemptyset(&usr1);
	sigaddset(&usr1, SIGUSR1);
	CHECK(!pthread_sigmask(SIG_BLOCK, &usr1, NULL));
	CHECK(!ioctl(m.vcpu, KVM_SET_SIGNAL_MASK, &mask));
	for (int i = 0; i < 20; i++) {
		struct sender s = { pthread_self(), SIGUSR1 };
		pthread_t t;

		CHECK(!pthread_create(&t, NULL, send_queued, &s));
		expect_eintr(&m);
		CHECK(!sigpending(&pending) && sigismember(&pending, SIGUSR1) == 1);
		CHECK(!sigwait(&usr1, &sig) && sig == SIGUSR1 && !count);
		CHECK(!pthread_join(t, NULL));
	}
	machine_close(&m);
}

static volatile char *guarded;

static void heal(int sig, siginfo_t *info, void *context)
{
	(void)sig;
	(void)context;
	CHECK(info->si_addr == guarded);
	count++;
	CHECK(!mprotect((void *)guarded, 4096, PROT_READ | PROT_WRITE));
}

/* The program's own faults, with a handler that was there before and one that came after. */
static void test_own_faults(void)
{
	struct sigaction sa = { .sa_sigaction = heal, .sa_flags = SA_SIGINFO }, old;
	struct machine m;
	int status;
	pid_t pid;

	guarded = mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	CHECK(!sigaction(SIGSEGV, &sa, NULL));
	spin_machine(&m);
	*guarded = 1;
	CHECK(count == 1);
	CHECK(!mprotect((void *)guarded, 4096, PROT_NONE));
	CHECK(!sigaction(SIGSEGV, &sa, &old) && old.sa_sigaction == heal);
	*guarded = 2;
	CHECK(count == 2 && *guarded == 2);
	pid = fork();
	if (!pid) {
		signal(SIGSEGV, SIG_DFL);
		CHECK(!mprotect((void *)guarded, 4096, PROT_NONE));
		*guarded = 3;
		_exit(0);
	}
	CHECK(waitpid(pid, &status, 0) == pid && WIFSIGNALED(status) &&
	      WTERMSIG(status) == SIGSEGV);
	machine_close(&m);
}

/* All signals blocked by the program: guest exceptions still work, and the program sees what it asked for. */
static void test_blocked_faults(void)
{
	/* xor cx, cx; div cx; the vector 0 handler at 0x2000: out 0x10, al */
	static const unsigned char divide[] = { 0x31, 0xc9, 0xf7, 0xf1 };
	sigset_t all, now;
	struct machine m;

	machine_make(&m);
	sigfillset(&all);
	CHECK(!pthread_sigmask(SIG_SETMASK, &all, NULL));
	machine_code(&m, divide, sizeof(divide));
	memcpy(m.memory, "\x00\x20\x00\x00", 4);
	memcpy(m.memory + 0x2000, "\xe6\x10", 2);
	CHECK(!ioctl(m.vcpu, KVM_RUN, 0) && m.run->exit_reason == KVM_EXIT_IO);
	CHECK(!pthread_sigmask(SIG_BLOCK, NULL, &now) && sigismember(&now, SIGFPE) == 1);
	raise(SIGFPE); /* stays pending, as asked */
	machine_close(&m);
}

const struct test signal_tests[] = {
	{ "interrupts", test_interrupts },
	{ "halted", test_halted },
	{ "chains", test_chains },
	{ "keeps-info", test_keeps_info },
	{ "longjmp", test_longjmp },
	{ "sigwait", test_sigwait },
	{ "own-faults", test_own_faults },
	{ "blocked-faults", test_blocked_faults },
	{ NULL, NULL },
};

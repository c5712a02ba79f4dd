/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Tests that run inside a KVM program under the preload library: "program TEST" runs one, "program" lists them. */
#define _GNU_SOURCE
#include "program.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

int __open_2(const char *path, int flags);
int __open64_2(const char *path, int flags);

void machine_make(struct machine *m)
{
	struct kvm_userspace_memory_region region = { .memory_size = MEMORY_SIZE };
	int size;

	m->kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	CHECK(m->kvm >= 0);
	CHECK(ioctl(m->kvm, KVM_GET_API_VERSION, 0) == KVM_API_VERSION);
	m->vm = ioctl(m->kvm, KVM_CREATE_VM, 0);
	CHECK(m->vm >= 0);
	m->memory =
		mmap(NULL, MEMORY_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	region.userspace_addr = (unsigned long)m->memory;
	CHECK(!ioctl(m->vm, KVM_SET_USER_MEMORY_REGION, &region));
	m->vcpu = ioctl(m->vm, KVM_CREATE_VCPU, 0);
	CHECK(m->vcpu >= 0);
	size = ioctl(m->kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
	m->run = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, m->vcpu, 0);
	CHECK(m->run != MAP_FAILED);
}

void machine_code(struct machine *m, const void *code, size_t size)
{
	struct kvm_regs regs = { .rip = CODE_AT, .rflags = 2 };
	struct kvm_sregs sregs;

	memcpy(m->memory + CODE_AT, code, size);
	CHECK(!ioctl(m->vcpu, KVM_GET_SREGS, &sregs));
	sregs.cs.base = sregs.cs.selector = 0;
	CHECK(!ioctl(m->vcpu, KVM_SET_SREGS, &sregs));
	CHECK(!ioctl(m->vcpu, KVM_SET_REGS, &regs));
}

void machine_close(struct machine *m)
{
	CHECK(!close(m->vcpu) && !close(m->vm) && !close(m->kvm));
}

static void run_pio(struct machine *m)
{
	CHECK(!ioctl(m->vcpu, KVM_RUN, 0));
	CHECK(m->run->exit_reason == KVM_EXIT_IO && m->run->io.port == 0x10);
}

static void test_looks(void)
{
	struct statx stx;
	struct stat st, opened;
	char text[16];
	int fd;

	CHECK(!stat("/dev/kvm", &st) && S_ISCHR(st.st_mode) && st.st_rdev == makedev(10, 232));
	CHECK(!lstat("/dev/kvm", &st) && S_ISCHR(st.st_mode));
	CHECK(!fstatat(AT_FDCWD, "/dev/kvm", &st, 0) && S_ISCHR(st.st_mode));
	CHECK(!statx(AT_FDCWD, "/dev/kvm", 0, STATX_BASIC_STATS, &stx) &&
	      stx.stx_rdev_minor == 232);
	CHECK(!access("/dev/kvm", R_OK | W_OK) && !access("/dev/kvm", F_OK));
	CHECK(access("/dev/kvm", X_OK) && errno == EACCES);
	CHECK(!faccessat(AT_FDCWD, "/dev/kvm", R_OK, AT_EACCESS) && !eaccess("/dev/kvm", W_OK));
	CHECK(readlink("/dev/kvm", text, sizeof(text)) < 0 && errno == EINVAL);
	fd = open("/dev/kvm", O_RDWR);
	CHECK(fd >= 0 && !fstat(fd, &opened) && S_ISCHR(opened.st_mode));
	CHECK(!close(fd));
	CHECK(fstat(fd, &opened) && errno == EBADF);
	CHECK(open("/dev/kvm", O_RDWR | O_CREAT | O_EXCL, 0600) < 0 && errno == EEXIST);
	CHECK(open("/dev/kvm", O_RDONLY | O_DIRECTORY) < 0 && errno == ENOTDIR);
	CHECK(open("/dev/kvm/x", O_RDWR) < 0 && (errno == ENOTDIR || errno == ENOENT));
}

static void answers(int fd)
{
	CHECK(fd >= 0 && ioctl(fd, KVM_GET_API_VERSION, 0) == 12);
	CHECK(syscall(SYS_ioctl, fd, KVM_GET_API_VERSION, 0) == 12);
	CHECK(!syscall(SYS_close, fd));
	CHECK(ioctl(fd, KVM_GET_API_VERSION, 0) < 0 && errno == EBADF);
}

static void test_opens(void)
{
	int dev = open("/dev", O_RDONLY | O_DIRECTORY), tmp = open("/tmp", O_RDONLY | O_DIRECTORY);

	answers(open64("/dev/kvm", O_RDWR));
	answers(openat(AT_FDCWD, "/dev/kvm", O_RDWR));
	answers(openat64(dev, "kvm", O_RDWR));
	answers(openat(tmp, "/dev/kvm", O_RDWR));
	answers(__open_2("/dev/kvm", O_RDWR));
	answers(__open64_2("/dev/kvm", O_RDWR));
	answers(syscall(SYS_openat, AT_FDCWD, "/dev/kvm", O_RDWR));
	CHECK(openat(tmp, "kvm", O_RDWR) < 0 && errno == ENOENT);
	CHECK(!close(dev) && !close(tmp));
}

static void test_runs(void)
{
	struct machine m;

	machine_make(&m);
	machine_code(&m, CODE_OUT, 4);
	run_pio(&m);
	run_pio(&m);
	machine_close(&m);
}

static void test_duplicates(void)
{
	struct kvm_regs regs;
	struct machine m;
	int copy, at;

	machine_make(&m);
	machine_code(&m, CODE_OUT, 4);
	copy = dup(m.vcpu);
	CHECK(copy >= 0 && !close(m.vcpu));
	CHECK(!ioctl(copy, KVM_GET_REGS, &regs) && regs.rip == CODE_AT);
	m.vcpu = fcntl(copy, F_DUPFD_CLOEXEC, 100);
	CHECK(m.vcpu >= 100 && !close(copy));
	run_pio(&m);
	at = open("/dev/null", O_RDWR);
	CHECK(dup2(m.vcpu, at) == at && !ioctl(at, KVM_GET_REGS, &regs));
	CHECK(dup3(at, 200, O_CLOEXEC) == 200 && !ioctl(200, KVM_GET_REGS, &regs));
	CHECK(!close(at) && !close(200));
	/* A number that was ours and is /dev/null now. */
	at = dup(m.vcpu);
	copy = open("/dev/null", O_RDWR);
	CHECK(dup2(copy, at) == at);
	CHECK(ioctl(at, KVM_GET_REGS, &regs) < 0 && errno == ENOTTY);
	CHECK(write(at, "x", 1) == 1);
	/* A duplicate that no function of ours has seen, and its end. */
	copy = syscall(SYS_pidfd_getfd, syscall(SYS_pidfd_open, getpid(), 0), m.vcpu, 0);
	CHECK(copy < 0 || (!ioctl(copy, KVM_GET_REGS, &regs) && !close(copy)));
	run_pio(&m);
	machine_close(&m);
}

static void test_close_range(void)
{
	struct kvm_regs regs;
	struct machine m;

	machine_make(&m);
	CHECK(fcntl(m.vcpu, F_DUPFD, 300) == 300);
	CHECK(!close_range(m.kvm, 299, 0));
	CHECK(ioctl(m.vcpu, KVM_GET_REGS, &regs) < 0 && errno == EBADF);
	CHECK(!ioctl(300, KVM_GET_REGS, &regs));
	closefrom(300);
	CHECK(ioctl(300, KVM_GET_REGS, &regs) < 0 && errno == EBADF);
}

static void test_fork(void)
{
	struct kvm_regs regs;
	struct machine m;
	int status;
	pid_t pid;

	machine_make(&m);
	machine_code(&m, CODE_OUT, 4);
	pid = fork();
	if (!pid) {
		bool eio = ioctl(m.vcpu, KVM_GET_REGS, &regs) < 0 && errno == EIO;
		bool own = ioctl(open("/dev/kvm", O_RDWR), KVM_CREATE_VM, 0) >= 0;

		_exit(eio && own && !close(m.vcpu) ? 0 : 1);
	}
	CHECK(waitpid(pid, &status, 0) == pid && status == 0);
	/* vfork(): the child closes in a table of its own, but in this memory. */
	pid = vfork();
	if (!pid) {
		close(m.vcpu);
		close_range(3, ~0u, 0);
		_exit(0);
	}
	CHECK(waitpid(pid, &status, 0) == pid && status == 0);
	run_pio(&m);
	machine_close(&m);
}

static void test_exec(void)
{
	char *const argv[] = { "/proc/self/exe", "looks", NULL };
	int status;
	pid_t pid = fork();

	if (!pid) {
		execv(argv[0], argv);
		_exit(2);
	}
	CHECK(waitpid(pid, &status, 0) == pid && status == 0);
}

static void test_bad_pointers(void)
{
	struct machine m;

	machine_make(&m);
	CHECK(ioctl(m.vcpu, KVM_GET_REGS, 16) < 0 && errno == EFAULT);
	CHECK(mmap(NULL, 4096, PROT_READ, MAP_SHARED, m.vm, 0) == MAP_FAILED && errno == ENODEV);
	CHECK(ioctl(m.vm, 0x1234, 0) < 0 && errno == ENOTTY);
	CHECK(ioctl(m.kvm, 0x1234, 0) < 0 && errno == EINVAL);
	machine_close(&m);
}

/* Nanoseconds of an exit, for measurements: nothing is judged. */
static void test_measure(void)
{
	const int rounds = 200000;
	struct timespec a, b;
	struct machine m;

	machine_make(&m);
	machine_code(&m, CODE_OUT, 4);
	run_pio(&m);
	clock_gettime(CLOCK_MONOTONIC, &a);
	for (int i = 0; i < rounds; i++)
		ioctl(m.vcpu, KVM_RUN, 0);
	clock_gettime(CLOCK_MONOTONIC, &b);
	printf("%.1f\n", ((b.tv_sec - a.tv_sec) * 1e9 + (b.tv_nsec - a.tv_nsec)) / rounds);
	machine_close(&m);
}

/* Many exits in a row, for strace to count system calls. */
static void test_exits(void)
{
	struct machine m;

	machine_make(&m);
	machine_code(&m, CODE_OUT, 4);
	run_pio(&m);
	write(2, "BEGIN\n", 6);
	for (int i = 0; i < 1000; i++)
		ioctl(m.vcpu, KVM_RUN, 0);
	write(2, "END\n", 4);
	machine_close(&m);
}

static const struct test tests[] = {
	{ "looks", test_looks },
	{ "opens", test_opens },
	{ "runs", test_runs },
	{ "duplicates", test_duplicates },
	{ "close-range", test_close_range },
	{ "fork", test_fork },
	{ "exec", test_exec },
	{ "bad-pointers", test_bad_pointers },
	{ "exits", test_exits },
	{ "measure", test_measure },
	{ NULL, NULL },
};

static const struct test *const lists[] = { tests,	 signal_tests, seccomp_tests, irqfd_tests,
					    storm_tests, trace_tests,  uffd_tests };

int main(int argc, char **argv)
{
	for (unsigned i = 0; i < sizeof(lists) / sizeof(lists[0]); i++) {
		for (const struct test *t = lists[i]; t->name; t++) {
			if (argc < 2) {
				puts(t->name);
			} else if (!strcmp(argv[1], t->name)) {
				t->run();
				return 0;
			}
		}
	}
	return argc < 2 ? 0 : 2;
}

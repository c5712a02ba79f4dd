/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Memory of userfaultfd that is served by the very thread that is in the request: as with the kernel, the request says EFAULT. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "program.h"

#define PAGE 4096ul

static int uffd_on(void *memory, size_t size)
{
	struct uffdio_api api = { .api = UFFD_API, .features = UFFD_FEATURE_SIGBUS };
	struct uffdio_register r = { .range = { (unsigned long)memory, size },
				     .mode = UFFDIO_REGISTER_MODE_MISSING };
	int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | UFFD_USER_MODE_ONLY);

	if (fd < 0 && (errno == ENOSYS || errno == EPERM)) {
		puts("no userfaultfd here");
		exit(0);
	}
	CHECK(fd >= 0 && !ioctl(fd, UFFDIO_API, &api) && !ioctl(fd, UFFDIO_REGISTER, &r));
	return fd;
}

static void serve(int uffd, void *page, const void *content)
{
	struct uffdio_copy c = { .dst = (unsigned long)page,
				 .src = (unsigned long)content,
				 .len = PAGE };

	CHECK(!ioctl(uffd, UFFDIO_COPY, &c) && c.copy == (long)PAGE);
}

/* Code, data and stack of the guest, each absent first: the state after EFAULT is that before the instruction. */
static void test_uffd_run(void)
{
	/* mov [0x2000], ax; add ax, [0x3000]; push ax; out 0x10, ax */
	static const unsigned char code[] = { 0xa3, 0x00, 0x20, 0x03, 0x06,
					      0x00, 0x30, 0x50, 0xe7, 0x10 };
	static unsigned char content[PAGE] __attribute__((aligned(4096)));
	static const unsigned long order[] = { 0x1000, 0x2000, 0x3000, 0x4000 };
	struct kvm_regs regs = { .rip = CODE_AT, .rsp = 0x5000, .rax = 0x1111, .rflags = 2 };
	struct kvm_sregs sregs;
	struct machine m;
	int uffd;

	machine_make(&m);
	CHECK(!ioctl(m.vcpu, KVM_GET_SREGS, &sregs));
	sregs.cs.base = sregs.cs.selector = 0;
	CHECK(!ioctl(m.vcpu, KVM_SET_SREGS, &sregs) && !ioctl(m.vcpu, KVM_SET_REGS, &regs));
	uffd = uffd_on(m.memory, MEMORY_SIZE);
	for (unsigned i = 0; i < 4; i++) {
		CHECK(ioctl(m.vcpu, KVM_RUN, 0) < 0 && errno == EFAULT);
		memset(content, 0, sizeof(content));
		if (order[i] == 0x1000)
			memcpy(content, code, sizeof(code));
		if (order[i] == 0x3000)
			content[0] = 0x22;
		serve(uffd, m.memory + order[i], content);
	}
	CHECK(!ioctl(m.vcpu, KVM_RUN, 0) && m.run->exit_reason == KVM_EXIT_IO);
	CHECK(!ioctl(m.vcpu, KVM_GET_REGS, &regs) && (regs.rax & 0xffff) == 0x1133 &&
	      regs.rsp == 0x4ffe);
	CHECK(!memcmp(m.memory + 0x2000, "\x11\x11", 2) &&
	      !memcmp(m.memory + 0x4ffe, "\x33\x11", 2));
	close(uffd);
	machine_close(&m);
}

/* A structure of a request in such memory. */
static void test_uffd_argument(void)
{
	static unsigned char content[PAGE] __attribute__((aligned(4096)));
	struct kvm_regs *regs =
		mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct machine m;
	int uffd;

	machine_make(&m);
	uffd = uffd_on(regs, PAGE);
	CHECK(ioctl(m.vcpu, KVM_SET_REGS, regs) < 0 && errno == EFAULT);
	CHECK(ioctl(m.vcpu, KVM_GET_REGS, regs) < 0 && errno == EFAULT);
	serve(uffd, regs, content);
	regs->rip = 0x1234;
	regs->rflags = 2;
	CHECK(!ioctl(m.vcpu, KVM_SET_REGS, regs));
	regs->rip = 0;
	CHECK(!ioctl(m.vcpu, KVM_GET_REGS, regs) && regs->rip == 0x1234);
	close(uffd);
	machine_close(&m);
}

const struct test uffd_tests[] = {
	{ "uffd-run", test_uffd_run },
	{ "uffd-argument", test_uffd_argument },
	{ NULL, NULL },
};

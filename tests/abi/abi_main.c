/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Runs every case on the library and, with --device PATH, on a real device, and prints the differences. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "abi.h"
#include "anykvm/anykvm.h"

static struct {
	char name[80];
	long expected;
} cases[2048];
static unsigned failures, ncases;
static const char *device = "/dev/kvm";

static int ours_open(const char *path, int flags)
{
	(void)path;
	return anykvm_open("/dev/kvm", flags);
}

static int device_open(const char *path, int flags)
{
	(void)path;
	return open(device, O_RDWR | flags);
}

static const struct abi_ops ours = { "library", ours_open, anykvm_ioctl, anykvm_mmap,
				     anykvm_close };
static const struct abi_ops theirs = { "device", device_open, ioctl, mmap, close };

static const char *answer(long r)
{
	static char text[2][32];
	static int turn;
	const char *name = r < 0 ? strerrorname_np(-r) : NULL;

	turn = !turn;
	if (r == ABI_OK)
		return "success";
	if (name)
		return name;
	snprintf(text[turn], sizeof(text[turn]), "%ld", r);
	return text[turn];
}

void abi_case(struct abi *a, const char *name, long expected, long got)
{
	unsigned i = a->n++;

	if (i >= sizeof(cases) / sizeof(cases[0]))
		abort();
	a->got[i] = got;
	if (a->ops != &ours)
		return;
	ncases = a->n;
	snprintf(cases[i].name, sizeof(cases[i].name), "%s: %s", a->group, name);
	cases[i].expected = expected;
	if (expected == got || (expected == ABI_OK && got >= 0)) {
		printf("ok %u - %s\n", i + 1, cases[i].name);
	} else {
		failures++;
		printf("not ok %u - %s\n# expected %s, got %s\n", i + 1, cases[i].name,
		       answer(expected), answer(got));
	}
}

long abi_ioctl(struct abi *a, int fd, unsigned long request, unsigned long arg)
{
	int r = a->ops->ioctl(fd, request, arg);
	long answer = r < 0 ? -errno : r;

	if (a->ops == &ours)
		abi_table_note(fd, request, answer);
	return answer;
}

void *abi_bad_pointer(void)
{
	static void *p;

	/* Kept, so that nothing else comes to lie there. */
	if (!p)
		p = mmap(NULL, 65536, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	return p;
}

void abi_must(bool good, const char *what)
{
	if (good)
		return;
	printf("Bail out! %s: %s\n", what, strerror(errno));
	exit(1);
}

int abi_vm(struct abi *a, int *vcpu)
{
	int vm = (int)IOCTL(a, a->sys, KVM_CREATE_VM, 0);

	abi_must(vm >= 0, "KVM_CREATE_VM");
	if (vcpu) {
		*vcpu = (int)IOCTL(a, vm, KVM_CREATE_VCPU, 0);
		abi_must(*vcpu >= 0, "KVM_CREATE_VCPU");
	}
	return vm;
}

void abi_close(struct abi *a, int fd)
{
	a->ops->close(fd);
}

struct kvm_run *abi_run_page(struct abi *a, int vcpu)
{
	int size = (int)IOCTL(a, a->sys, KVM_GET_VCPU_MMAP_SIZE, 0);
	void *p = a->ops->mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu, 0);

	abi_must(p != MAP_FAILED, "mmap of the vCPU");
	return p;
}

uint8_t *abi_code(struct abi *a, int vm, int vcpu, const void *code, size_t len)
{
	uint8_t *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	struct kvm_userspace_memory_region m = { .memory_size = 4096,
						 .userspace_addr = (uintptr_t)page };
	struct kvm_regs regs = { .rip = 0x100, .rsp = 0x800, .rflags = 2 };
	struct kvm_sregs sregs;

	abi_must(page != MAP_FAILED, "memory");
	memcpy(page + 0x100, code, len);
	abi_must(!IOCTL(a, vm, KVM_SET_USER_MEMORY_REGION, &m), "KVM_SET_USER_MEMORY_REGION");
	abi_must(!IOCTL(a, vcpu, KVM_GET_SREGS, &sregs), "KVM_GET_SREGS");
	sregs.cs.base = sregs.cs.selector = 0;
	abi_must(!IOCTL(a, vcpu, KVM_SET_SREGS, &sregs), "KVM_SET_SREGS");
	abi_must(!IOCTL(a, vcpu, KVM_SET_REGS, &regs), "KVM_SET_REGS");
	return page;
}

static void run_all(struct abi *a)
{
	static const struct {
		const char *group;
		void (*run)(struct abi *a);
	} groups[] = {
		{ "system", abi_system_cases },	  { "vm", abi_vm_cases },
		{ "memory", abi_memory_cases },	  { "vcpu", abi_vcpu_cases },
		{ "state", abi_state_cases },	  { "chips", abi_chip_cases },
		{ "events", abi_event_cases },	  { "split", abi_split_cases },
		{ "run", abi_run_cases },	  { "x86", abi_x86_cases },
		{ "hyperv", abi_hyperv_cases },	  { "xen", abi_xen_cases },
		{ "dirty log", abi_dirty_cases }, { "table", abi_table_cases },
		{ "errno", abi_errno_cases },	  { "gone", abi_gone_cases },
	};

	a->sys = a->ops->open("/dev/kvm", O_CLOEXEC);
	abi_must(a->sys >= 0, a->ops->name);
	if (a->ops == &ours)
		abi_table_system(a->sys);
	for (unsigned i = 0; i < sizeof(groups) / sizeof(groups[0]); i++) {
		a->group = groups[i].group;
		groups[i].run(a);
	}
	a->ops->close(a->sys);
}

/* Differences are told, not failed: kernels differ, and the expectation is the kernel source's. */
static void compare(const struct abi *a, const struct abi *b)
{
	unsigned n = 0;

	for (unsigned i = 0; i < a->n && i < b->n; i++) {
		bool both_fine = cases[i].expected == ABI_OK && a->got[i] >= 0 && b->got[i] >= 0;

		if (a->got[i] == b->got[i] || both_fine)
			continue;
		printf("# differs: %s: library %s, device %s\n", cases[i].name, answer(a->got[i]),
		       answer(b->got[i]));
		n++;
	}
	printf("# %u of %u answers differ from %s\n", n, a->n, device);
}

int main(int argc, char **argv)
{
	static struct abi library = { .ops = &ours }, real = { .ops = &theirs };
	bool want_device = false, want_table = false;

	setvbuf(stdout, NULL, _IOLBF, 0);
	for (int i = 1; i < argc; i++) {
		if (!strcmp(argv[i], "--device")) {
			want_device = true;
			if (i + 1 < argc)
				device = argv[++i];
		} else if (!strcmp(argv[i], "--coverage")) {
			want_table = true;
		} else if (!strcmp(argv[i], "--open-only")) {
			return anykvm_open("/dev/kvm", 0) < 0 ? errno : 0;
		} else {
			fprintf(stderr, "usage: %s [--device [PATH]] [--coverage]\n", argv[0]);
			return 2;
		}
	}
	run_all(&library);
	if (want_device && access(device, R_OK | W_OK)) {
		printf("# no comparison: %s: %s\n", device, strerror(errno));
	} else if (want_device) {
		run_all(&real);
		compare(&library, &real);
	}
	library.group = "library";
	abi_library_cases(&library);
	abi_case(&library, "rows of kvm.def of which something documented was not seen", 0,
		 abi_table_report(want_table));
	printf("1..%u\n", ncases);
	return failures ? 1 : 0;
}

// SPDX-License-Identifier: MIT OR Apache-2.0
/* Round trips through KVM_RUN: nanoseconds of each kind of exit, in a real-mode and in a 64-bit guest. */
#include <anykvm/anykvm.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

/* The library, or the kernel's device: the same calls. */
struct device {
	const char *name;
	int (*open)(const char *path, int flags);
	int (*ioctl)(int fd, unsigned long request, ...);
	void *(*mmap)(void *addr, size_t length, int prot, int flags, int fd, off_t offset);
};

static int system_open(const char *path, int flags)
{
	return open(path, flags);
}

static const struct device library = { "anykvm", anykvm_open, anykvm_ioctl, anykvm_mmap };
static struct device kernel_device = { "/dev/kvm", system_open, ioctl, mmap };

/*
 * Guest memory is 2 MiB at 0, so that an access at 2 MiB (by way of the second entry of the page directory) or, in
 * real mode, in the hole that the slot leaves at 0x8000 is MMIO.
 */
enum {
	MEMORY = 2 << 20,
	HOLE = 0x8000,	  /* real mode: the memory ends here */
	CODE = 0x1000,	  /* entered here */
	HANDLER = 0x1800, /* of vector VECTOR */
	STACK = 0x7000,
	TABLES = 0x10000, /* PML4, PDPT, page directory */
	IDT = 0x13000,
	VECTOR = 0x20,
	PORT = 0x10,
	SPIN = 1000, /* rounds of the loop between two exits */
	BATCH = 500,
	BATCHES = 41,
};

struct guest {
	const struct device *dev;
	int sys, vm, vcpu;
	struct kvm_run *run;
	uint8_t *memory;
};

struct row {
	const char *name;
	uint8_t code[32]; /* loops over one exit */
	uint32_t reason;
	bool injects;		       /* an interrupt before each entry */
	void (*make)(struct guest *g); /* the mode */
};

_Noreturn static void fail(const char *what)
{
	perror(what);
	exit(1);
}

#define IOCTL(g, fd, request, arg)                                                                 \
	do {                                                                                       \
		if ((g)->dev->ioctl((fd), (request), (arg)) < 0)                                   \
			fail(#request);                                                            \
	} while (0)

static uint64_t now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void memory_make(struct guest *g, size_t size)
{
	struct kvm_userspace_memory_region slot = { .memory_size = size };

	g->memory = mmap(NULL, MEMORY, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (g->memory == MAP_FAILED)
		fail("mmap");
	slot.userspace_addr = (uintptr_t)g->memory;
	IOCTL(g, g->vm, KVM_SET_USER_MEMORY_REGION, &slot);
}

static void real_make(struct guest *g)
{
	static const uint8_t iret[] = { 0xcf };
	static const uint8_t vector[] = { HANDLER & 0xff, HANDLER >> 8, 0, 0 };
	struct kvm_sregs s;

	memory_make(g, HOLE);
	memcpy(g->memory + 4 * VECTOR, vector, sizeof(vector));
	memcpy(g->memory + HANDLER, iret, sizeof(iret));
	IOCTL(g, g->vcpu, KVM_GET_SREGS, &s);
	s.cs.base = 0;
	s.cs.selector = 0;
	IOCTL(g, g->vcpu, KVM_SET_SREGS, &s);
}

static void entry_put(struct guest *g, unsigned at, uint64_t value)
{
	memcpy(g->memory + at, &value, 8);
}

/* For "anykvm exec": the same calls of libc's, but answered by the preload library. */
static const struct device *device_choose(void)
{
	const char *preload = getenv("LD_PRELOAD");

	if (preload && strstr(preload, "libanykvm-preload"))
		kernel_device.name = "preload";
	return &kernel_device;
}

/* Flat 64-bit mode in ring 0, two large pages mapped one to one, one interrupt gate. */
static void long_make(struct guest *g)
{
	static const uint8_t iretq[] = { 0x48, 0xcf };
	struct kvm_segment code = {
		.limit = ~0u, .selector = 8, .type = 11, .present = 1, .s = 1, .l = 1, .g = 1
	};
	struct kvm_segment data = {
		.limit = ~0u, .selector = 16, .type = 3, .present = 1, .s = 1, .db = 1, .g = 1
	};
	struct kvm_sregs s;

	memory_make(g, MEMORY);
	entry_put(g, TABLES, (TABLES + 0x1000) | 3);
	entry_put(g, TABLES + 0x1000, (TABLES + 0x2000) | 3);
	entry_put(g, TABLES + 0x2000, 0x83);
	entry_put(g, TABLES + 0x2008, MEMORY | 0x83);
	entry_put(g, IDT + 16 * VECTOR, 0x8e0000080000u + HANDLER);
	memcpy(g->memory + HANDLER, iretq, sizeof(iretq));
	/* The descriptors that IRET loads again. */
	entry_put(g, 0x508, 0x00af9b000000ffffu);
	entry_put(g, 0x510, 0x00cf93000000ffffu);
	IOCTL(g, g->vcpu, KVM_GET_SREGS, &s);
	s.cs = code;
	s.ss = s.ds = s.es = s.fs = s.gs = data;
	s.gdt.base = 0x500;
	s.gdt.limit = 0x17;
	s.idt.base = IDT;
	s.idt.limit = 0xfff;
	s.cr0 = 0x80000031;
	s.cr3 = TABLES;
	s.cr4 = 0x620; /* PAE, OSFXSR, OSXMMEXCPT */
	s.efer = 0x500;
	IOCTL(g, g->vcpu, KVM_SET_SREGS, &s);
}

static const struct row rows[] = {
	/* out PORT, al; jmp */
	{ "real: PIO out", { 0xe6, PORT, 0xeb, 0xfc }, KVM_EXIT_IO, false, real_make },
	{ "real: PIO in", { 0xe4, PORT, 0xeb, 0xfc }, KVM_EXIT_IO, false, real_make },
	/* mov [si], al; jmp */
	{ "real: MMIO write", { 0x88, 0x04, 0xeb, 0xfc }, KVM_EXIT_MMIO, false, real_make },
	{ "real: MMIO read", { 0x8a, 0x04, 0xeb, 0xfc }, KVM_EXIT_MMIO, false, real_make },
	/* hlt; jmp */
	{ "real: HLT", { 0xf4, 0xeb, 0xfd }, KVM_EXIT_HLT, false, real_make },
	{ "real: HLT, INTERRUPT, IRET", { 0xf4, 0xeb, 0xfd }, KVM_EXIT_HLT, true, real_make },
	/* mov cx, SPIN; 1: dec cx; jnz 1b; out PORT, al; jmp */
	{ "real: 2000 instructions, out",
	  { 0xb9, SPIN & 0xff, SPIN >> 8, 0x49, 0x75, 0xfd, 0xe6, PORT, 0xeb, 0xf6 },
	  KVM_EXIT_IO,
	  false,
	  real_make },
	{ "64-bit: PIO out", { 0xe6, PORT, 0xeb, 0xfc }, KVM_EXIT_IO, false, long_make },
	{ "64-bit: PIO in", { 0xe4, PORT, 0xeb, 0xfc }, KVM_EXIT_IO, false, long_make },
	/* mov [rsi], eax; jmp */
	{ "64-bit: MMIO write", { 0x89, 0x06, 0xeb, 0xfc }, KVM_EXIT_MMIO, false, long_make },
	{ "64-bit: MMIO read", { 0x8b, 0x06, 0xeb, 0xfc }, KVM_EXIT_MMIO, false, long_make },
	/* movd xmm0, eax; out PORT, al; jmp: vector state is switched */
	{ "64-bit: SSE, PIO out",
	  { 0x66, 0x0f, 0x6e, 0xc0, 0xe6, PORT, 0xeb, 0xf8 },
	  KVM_EXIT_IO,
	  false,
	  long_make },
	{ "64-bit: HLT", { 0xf4, 0xeb, 0xfd }, KVM_EXIT_HLT, false, long_make },
	{ "64-bit: HLT, INTERRUPT, IRET", { 0xf4, 0xeb, 0xfd }, KVM_EXIT_HLT, true, long_make },
	/* mov ecx, SPIN; 1: dec ecx; jnz 1b; out PORT, al; jmp */
	{ "64-bit: 2000 instructions, out",
	  { 0xb9, SPIN & 0xff, SPIN >> 8, 0, 0, 0xff, 0xc9, 0x75, 0xfc, 0xe6, PORT, 0xeb, 0xf3 },
	  KVM_EXIT_IO,
	  false,
	  long_make },
};

static int compare(const void *a, const void *b)
{
	double d = *(const double *)a - *(const double *)b;

	return (d > 0) - (d < 0);
}

static void print(const struct device *dev, bool json, const char *name, double *ns)
{
	qsort(ns, BATCHES, sizeof(ns[0]), compare);
	if (json)
		printf("{\"device\": \"%s\", \"case\": \"%s\", \"median_ns\": %.1f, \"min_ns\": "
		       "%.1f, \"max_ns\": %.1f}\n",
		       dev->name, name, ns[BATCHES / 2], ns[0], ns[BATCHES - 1]);
	else
		printf("%-10s %-32s %10.0f ns (%.0f to %.0f)\n", dev->name, name, ns[BATCHES / 2],
		       ns[0], ns[BATCHES - 1]);
	fflush(stdout);
}

static void guest_open(struct guest *g, const struct device *dev)
{
	int size;

	g->dev = dev;
	g->sys = dev->open("/dev/kvm", O_RDWR | O_CLOEXEC);
	if (g->sys < 0)
		fail("/dev/kvm");
	g->vm = dev->ioctl(g->sys, KVM_CREATE_VM, 0ul);
	if (g->vm < 0)
		fail("KVM_CREATE_VM");
	g->vcpu = dev->ioctl(g->vm, KVM_CREATE_VCPU, 0ul);
	size = dev->ioctl(g->sys, KVM_GET_VCPU_MMAP_SIZE, 0ul);
	if (g->vcpu < 0 || size < 0)
		fail("KVM_CREATE_VCPU");
	g->run = dev->mmap(NULL, (size_t)size, PROT_READ | PROT_WRITE, MAP_SHARED, g->vcpu, 0);
	if (g->run == MAP_FAILED)
		fail("mmap of the vCPU");
}

/* Long mode needs what CPUID says. */
static void cpuid_give(struct guest *g)
{
	static struct {
		struct kvm_cpuid2 head;
		struct kvm_cpuid_entry2 entries[256];
	} c;

	c.head.nent = 256;
	IOCTL(g, g->sys, KVM_GET_SUPPORTED_CPUID, &c);
	IOCTL(g, g->vcpu, KVM_SET_CPUID2, &c);
}

static void enter(struct guest *g, const struct row *row)
{
	struct kvm_interrupt irq = { .irq = VECTOR };

	if (row->injects)
		IOCTL(g, g->vcpu, KVM_INTERRUPT, &irq);
	IOCTL(g, g->vcpu, KVM_RUN, 0ul);
	if (g->run->exit_reason != row->reason) {
		fprintf(stderr, "bench/exits: %s: exit reason %u, expected %u\n", row->name,
			g->run->exit_reason, row->reason);
		exit(1);
	}
}

static void row_measure(const struct device *dev, const struct row *row, bool json)
{
	struct kvm_regs regs = { .rflags = 0x202, .rip = CODE, .rsp = STACK };
	double ns[BATCHES];
	struct guest g;

	guest_open(&g, dev);
	cpuid_give(&g);
	row->make(&g);
	memcpy(g.memory + CODE, row->code, sizeof(row->code));
	regs.rsi = row->make == real_make ? HOLE : MEMORY;
	IOCTL(&g, g.vcpu, KVM_SET_REGS, &regs);
	/* The first entry meets no HLT to wake from. */
	IOCTL(&g, g.vcpu, KVM_RUN, 0ul);
	for (unsigned i = 0; i < BATCHES; i++) {
		uint64_t start = now();

		for (unsigned n = 0; n < BATCH; n++)
			enter(&g, row);
		ns[i] = (double)(now() - start) / BATCH;
	}
	print(dev, json, row->name, ns);
}

/* A request that does nothing, on the system descriptor; and one that copies the registers. */
static void ioctl_measure(const struct device *dev, bool json)
{
	struct kvm_regs regs;
	double ns[BATCHES];
	struct guest g;

	guest_open(&g, dev);
	for (unsigned i = 0; i < BATCHES; i++) {
		uint64_t start = now();

		for (unsigned n = 0; n < BATCH; n++)
			IOCTL(&g, g.sys, KVM_GET_API_VERSION, 0ul);
		ns[i] = (double)(now() - start) / BATCH;
	}
	print(dev, json, "ioctl: GET_API_VERSION", ns);
	for (unsigned i = 0; i < BATCHES; i++) {
		uint64_t start = now();

		for (unsigned n = 0; n < BATCH; n++)
			IOCTL(&g, g.vcpu, KVM_GET_REGS, &regs);
		ns[i] = (double)(now() - start) / BATCH;
	}
	print(dev, json, "ioctl: GET_REGS", ns);
}

int main(int argc, char **argv)
{
	const struct device *dev = &library;
	const char *only = "";
	bool json = false;

	for (int i = 1; i < argc; i++) {
		if (!strcmp(argv[i], "--json")) {
			json = true;
		} else if (!strcmp(argv[i], "--device")) {
			dev = device_choose();
		} else if (argv[i][0] != '-') {
			only = argv[i];
		} else {
			fputs("usage: exits [--json] [--device] [PART-OF-A-NAME]\n", stderr);
			return 2;
		}
	}
	if (!*only)
		ioctl_measure(dev, json);
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		if (strstr(rows[i].name, only))
			row_measure(dev, &rows[i], json);
	return 0;
}

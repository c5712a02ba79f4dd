// SPDX-License-Identifier: MIT OR Apache-2.0
/* Dirty logging in numbers: 64 GiB of guest memory over what is touched of it, one vCPU, by a collector. */
#define _GNU_SOURCE
#include <anykvm/anykvm.h>
#include <linux/kvm.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#define LOW	 (2ul << 20)  /* slot 0: tables and code */
#define AT	 (64ul << 30) /* slot 1: what is logged */
#define SIZE	 (64ul << 30)
#define PAGES	 (SIZE >> 12)
#define CODE	 0x1000ul
#define STACK	 0x8000ul
#define PML4	 0x10000ul
#define PDPT	 0x11000ul
#define PDS	 0x20000ul /* 64 page directories, of 2 MiB pages */
#define RESIDENT 16384ul   /* pages that the loops write: four times the TLB */
#define HOT	 20000000ul
#define TRIES	 9

static int sys, vm, vcpu;
static struct kvm_run *run;
static uint8_t *low, *memory;
static uint64_t *bitmap;
static bool json;

static void fail(const char *what)
{
	perror(what);
	exit(1);
}

static void call(int fd, unsigned long request, unsigned long arg, const char *what)
{
	if (anykvm_ioctl(fd, request, arg) < 0)
		fail(what);
}
#define IOCTL(fd, request, arg) call(fd, request, (unsigned long)(arg), #request)

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1e9 + ts.tv_nsec;
}

static void *pages(size_t n)
{
	void *p = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
		       -1, 0);

	if (p == MAP_FAILED)
		fail("mmap");
	return p;
}

static void slot(unsigned id, unsigned flags, uint64_t gpa, uint64_t size, void *hva)
{
	struct kvm_userspace_memory_region r = { id, flags, gpa, size, (uintptr_t)hva };

	IOCTL(vm, KVM_SET_USER_MEMORY_REGION, &r);
}

/* Time of switching the log, ns. */
static double log_set(bool on)
{
	double start = now();

	slot(1, on ? KVM_MEM_LOG_DIRTY_PAGES : 0, AT, SIZE, memory);
	return now() - start;
}

static double log_get(void)
{
	struct kvm_dirty_log d = { .slot = 1, .dirty_bitmap = bitmap };
	double start = now();

	IOCTL(vm, KVM_GET_DIRTY_LOG, &d);
	return now() - start;
}

static uint64_t bits_set(void)
{
	uint64_t n = 0;

	for (uint64_t i = 0; i < PAGES / 64; i++)
		n += __builtin_popcountll(bitmap[i]);
	return n;
}

/* Linear addresses are guest-physical: 2 MiB at 0, and the logged slot. */
static void tables_make(void)
{
	uint64_t *pml4 = (void *)(low + PML4), *pdpt = (void *)(low + PDPT);
	uint64_t *pd = (void *)(low + PDS), *first = (void *)(low + PDPT + 0x1000);

	pml4[0] = PDPT | 3;
	pdpt[0] = (PDPT + 0x1000) | 3;
	first[0] = 0x83;
	for (uint64_t g = 0; g < 64; g++)
		pdpt[64 + g] = (PDS + g * 4096) | 3;
	for (uint64_t i = 0; i < 64 * 512; i++)
		pd[i] = (AT + (i << 21)) | 0xe3;
}

/* Without CPUID a processor has 36 bits of physical address. */
static void cpuid_give(void)
{
	struct {
		struct kvm_cpuid2 head;
		struct kvm_cpuid_entry2 entry[256];
	} c = { .head.nent = 256 };

	IOCTL(sys, KVM_GET_SUPPORTED_CPUID, &c);
	IOCTL(vcpu, KVM_SET_CPUID2, &c);
}

static void vcpu_make(void)
{
	struct kvm_segment code = {
		.limit = ~0u, .type = 11, .present = 1, .s = 1, .l = 1, .g = 1, .selector = 8
	};
	struct kvm_segment data = {
		.limit = ~0u, .type = 3, .present = 1, .s = 1, .db = 1, .g = 1, .selector = 16
	};
	struct kvm_sregs s;

	IOCTL(vcpu, KVM_GET_SREGS, &s);
	s.cs = code;
	s.ds = s.es = s.fs = s.gs = s.ss = data;
	s.cr0 = 0x80050033;
	s.cr3 = PML4;
	s.cr4 = 0x20;
	s.efer = 0x500;
	IOCTL(vcpu, KVM_SET_SREGS, &s);
}

/* mov [rbx], rcx; add rbx, rdx; dec rcx; jnz; hlt */
static const uint8_t stores[] = { 0x48, 0x89, 0x0b, 0x48, 0x01, 0xd3,
				  0x48, 0xff, 0xc9, 0x75, 0xf5, 0xf4 };

/* @n stores from @from on, @step bytes apart: ns each. */
static double stores_run(uint64_t from, uint64_t step, uint64_t n)
{
	struct kvm_regs r = {
		.rip = CODE, .rsp = STACK, .rflags = 2, .rbx = from, .rdx = step, .rcx = n
	};
	double start;

	IOCTL(vcpu, KVM_SET_REGS, &r);
	start = now();
	IOCTL(vcpu, KVM_RUN, 0);
	if (run->exit_reason != KVM_EXIT_HLT) {
		fprintf(stderr, "the guest ends with exit %u\n", run->exit_reason);
		exit(1);
	}
	return (now() - start) / n;
}

static void machine_make(void)
{
	sys = anykvm_open("/dev/kvm", 0);
	if (sys < 0)
		fail("anykvm_open");
	vm = anykvm_ioctl(sys, KVM_CREATE_VM, 0ul);
	vcpu = anykvm_ioctl(vm, KVM_CREATE_VCPU, 0ul);
	run = anykvm_mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu, 0);
	if (vm < 0 || vcpu < 0 || run == MAP_FAILED)
		fail("VM");
	low = pages(LOW);
	/* As a VMM does it: aligned, so that large pages are possible. */
	memory = pages(SIZE + (1ul << 30));
	memory += -(uintptr_t)memory & ((1ul << 30) - 1);
	bitmap = pages(PAGES / 8);
	memset(bitmap, 1, PAGES / 8);
	tables_make();
	memcpy(low + CODE, stores, sizeof(stores));
	slot(0, 0, 0, LOW, low);
	slot(1, 0, AT, SIZE, memory);
	cpuid_give();
	vcpu_make();
}

static void print(const char *name, double value, const char *unit, const char *target)
{
	if (json)
		printf("{\"bench\": \"dirty\", \"name\": \"%s\", \"value\": %.2f, \"unit\": "
		       "\"%s\"}\n",
		       name, value, unit);
	else
		printf("%-46s %10.2f %-3s %s\n", name, value, unit, target);
}

static double least(double a, double b)
{
	return b < a ? b : a;
}

static double counter(const char *name)
{
	char text[65536] = "", key[64], *at;
	FILE *f = fmemopen(text, sizeof(text) - 1, "w");

	anykvm_print_counters(vm, f);
	fclose(f);
	snprintf(key, sizeof(key), "%s ", name);
	at = strstr(text, key);
	return at ? strtod(at + strlen(key), NULL) : -1;
}

static void harvest_measure(void)
{
	double clean = 1e18, sparse = 1e18, many = 1e18;

	for (unsigned i = 0; i < TRIES; i++) {
		clean = least(clean, log_get());
		stores_run(AT, 64ul << 20, 1024);
		sparse = least(sparse, log_get());
		if (bits_set() != 1024)
			fail("sparse");
		stores_run(AT, 4096, RESIDENT);
		many = least(many, log_get());
		if (bits_set() != RESIDENT)
			fail("many");
	}
	print("GET, nothing dirty", clean / 1e6, "ms", "<= 2");
	print("GET, 1024 pages, one in 64 MiB", sparse / 1e6, "ms", "<= 2");
	print("GET, per dirty page of 16384", (many - clean) / RESIDENT, "ns", "<= 100");
}

static void write_measure(void)
{
	double off = 1e18, first = 1e18, again = 1e18, same = 1e18;

	for (unsigned i = 0; i < TRIES; i++) {
		log_set(false);
		off = least(off, stores_run(AT, 4096, RESIDENT));
		log_set(true);
		first = least(first, stores_run(AT, 4096, RESIDENT));
		same = least(same, stores_run(AT, 4096, RESIDENT));
		log_get();
		again = least(again, stores_run(AT, 4096, RESIDENT));
	}
	print("write to a page that missed the TLB, not logged", off, "ns", "");
	print("  logged and dirty already", same, "ns", "");
	print("  first since logging began, splits included", first, "ns", "<= 1000");
	print("  first since a harvest", again, "ns", "<= 100 more than the first line");
}

static void switch_measure(void)
{
	double on = 1e18, off = 1e18;

	log_set(false);
	for (unsigned i = 0; i < TRIES; i++) {
		stores_run(AT, 2ul << 20, SIZE >> 21); /* all of it is mapped, in large pages */
		on = least(on, log_set(true));
		stores_run(AT, 64ul << 20, 1024); /* every GiB is split */
		off = least(off, log_set(false));
	}
	print("enable", on / 1e6, "ms", "<= 1");
	print("disable, every GiB split", off / 1e6, "ms", "<= 1");
}

static void hot_measure(void)
{
	double off = 1e18, on = 1e18, blocks, bytes;

	log_set(false);
	stores_run(AT, 0, HOT);
	blocks = counter("blocks");
	bytes = counter("code_bytes");
	for (unsigned i = 0; i < TRIES; i++) {
		log_set(true);
		on = least(on, stores_run(AT, 0, HOT));
		log_set(false);
		off = least(off, stores_run(AT, 0, HOT));
	}
	print("store to one page, not logged", off, "ns", "");
	print("  logged", on, "ns", "<= 1 more");
	print("blocks translated anew by on and off", counter("blocks") - blocks, "", "0");
	print("bytes of code translated anew", counter("code_bytes") - bytes, "", "0");
}

int main(int argc, char **argv)
{
	const char *collector = "wp";
	char options[32];

	for (int i = 1; i < argc; i++) {
		if (!strcmp(argv[i], "--json")) {
			json = true;
		} else if (!strcmp(argv[i], "wp") || !strcmp(argv[i], "pml")) {
			collector = argv[i];
		} else {
			fputs("usage: dirty [--json] [wp|pml]\n", stderr);
			return 2;
		}
	}
	snprintf(options, sizeof(options), "dirty=%s", collector);
	if (anykvm_configure(options))
		return 1;
	machine_make();
	if (!json)
		printf("Dirty logging, 64 GiB, collector %s; minimum of %u\n", collector, TRIES);
	stores_run(AT, 2ul << 20, SIZE >> 21); /* touched before anything is timed */
	hot_measure();
	write_measure();
	switch_measure();
	log_set(true);
	harvest_measure();
	print("harvests that asked nobody", counter("dirty_harvests_empty"), "", "");
	return 0;
}

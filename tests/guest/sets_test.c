/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Dirty logs page by page against a model: every mode, 1 to 4 vCPUs, and what may happen to a slot between harvests. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "log.h"
#include "vm.h"

/*
 * Each round lets every vCPU write pages that a generator chooses, and asks for the log. The model knows which pages these
 * are, so both collectors must give the same set, and no page more. Rounds per mode and number of vCPUs: ANYKVM_ROUNDS;
 * 42000 make a million over all of them and both collectors.
 */
#define LOG	 KVM_MEM_LOG_DIRTY_PAGES
#define AT	 0x8000000ul
#define AT2	 0x9000000ul
#define SLOT	 5
#define PAGES	 1100u /* no multiple of 64; more than a page modification log holds */
#define WORDS	 ((PAGES + 63) / 64)
#define CPUS_MAX 4
#define FEW	 24u
#define ROUNDS	 1500ul

enum mode { LEGACY, MANUAL, INITIALLY_SET, RING, MODES };
static const char *const mode_names[MODES] = { "legacy", "manual", "initially set", "ring" };

struct cpu {
	int fd;
	struct kvm_run *run;
	struct kvm_dirty_gfn *ring;
	uint32_t fetched;
};

struct state {
	struct vm vm;
	struct cpu cpu[CPUS_MAX];
	unsigned n;
	enum mode mode;
	uint8_t *memory;
	uint64_t at, seed;
	uint64_t want[WORDS]; /* the model's log */
	uint64_t got[WORDS];
	unsigned long twice; /* entries of rings for pages that were there already */
};

/* RSI base, R8 generator, RCX how many: page (R8 >> 16) % PAGES. */
GUEST(sets_writer, 64,
      "mov %rcx, %r9; 1: imul $0x19660d, %r8d, %r8d; add $0x3c6ef35f, %r8d; mov %r8d, %eax; shr "
      "$16, "
      "%eax; xor %edx, %edx; mov $1100, %ecx; div %ecx; shl $12, %edx; mov %r8d, 16(%rsi,%rdx); "
      "dec "
      "%r9; jnz 1b; hlt");

static void model_write(struct state *t, uint32_t x, unsigned count)
{
	for (; count; count--) {
		unsigned page;

		x = x * 0x19660du + 0x3c6ef35fu;
		page = (x >> 16) % PAGES;
		t->want[page / 64] |= 1ull << page % 64;
	}
}

static void all_set(uint64_t *bits)
{
	memset(bits, 0xff, WORDS * sizeof(*bits));
	bits[WORDS - 1] = (1ull << PAGES % 64) - 1;
}

static void ring_take(struct state *t, struct cpu *c)
{
	const unsigned size = VM_RING_BYTES / sizeof(*c->ring);
	long n = 0;

	for (;; c->fetched++, n++) {
		struct kvm_dirty_gfn *e = &c->ring[c->fetched % size];

		if (!(__atomic_load_n(&e->flags, __ATOMIC_ACQUIRE) & KVM_DIRTY_GFN_F_DIRTY))
			break;
		if (e->slot != SLOT || e->offset >= PAGES)
			check_fatal("ring", "slot %u, offset %#llx", e->slot, e->offset);
		t->twice += t->got[e->offset / 64] >> e->offset % 64 & 1;
		t->got[e->offset / 64] |= 1ull << e->offset % 64;
		__atomic_store_n(&e->flags, KVM_DIRTY_GFN_F_RESET, __ATOMIC_RELEASE);
	}
	if (vm_ioctl(&t->vm, t->vm.fd, KVM_RESET_DIRTY_RINGS, 0) != n)
		check_fatal("KVM_RESET_DIRTY_RINGS", "not %ld entries", n);
}

static void write_some(struct state *t, unsigned i)
{
	const uint32_t x = (uint32_t)vm_random(&t->seed);
	const unsigned count = vm_random(&t->seed) % 64 ? 1 + x % FEW : 3000;
	struct kvm_regs r = {
		.rip = VM_CODE, .rsp = 0x38000, .rflags = 2, .rsi = t->at, .r8 = x, .rcx = count
	};
	struct cpu *c = &t->cpu[i];

	t->vm.vcpu = c->fd;
	vm_set_regs(&t->vm, &r);
	for (;;) {
		long end = vm_ioctl(&t->vm, c->fd, KVM_RUN, 0);

		if (end || c->run->exit_reason != KVM_EXIT_DIRTY_RING_FULL)
			break;
		ring_take(t, c);
	}
	if (c->run->exit_reason != KVM_EXIT_HLT)
		check_fatal("writer", "exit %u", c->run->exit_reason);
	model_write(t, x, count);
}

static void slot_set(struct state *t, uint64_t at, unsigned flags, bool there)
{
	vm_slot(&t->vm, SLOT, flags, at, there ? PAGES << 12 : 0, t->memory);
	t->at = at;
}

static void log_begins(struct state *t)
{
	if (t->mode == INITIALLY_SET)
		all_set(t->want);
	else
		memset(t->want, 0, sizeof(t->want));
}

static void get(struct state *t)
{
	struct kvm_dirty_log d = { .slot = SLOT, .dirty_bitmap = t->got };

	memset(t->got, 0xa5, sizeof(t->got));
	if (vm_ioctl(&t->vm, t->vm.fd, KVM_GET_DIRTY_LOG, (unsigned long)&d))
		check_fatal("KVM_GET_DIRTY_LOG", "failed");
}

/* Clear a part, by a mask that also names pages that are clean. */
static void clear_some(struct state *t)
{
	unsigned first = vm_random(&t->seed) % WORDS, n = 1 + vm_random(&t->seed) % (WORDS - first);
	uint64_t mask[WORDS];
	struct kvm_clear_dirty_log d = { .slot = SLOT,
					 .first_page = first * 64,
					 .dirty_bitmap = mask };

	d.num_pages = first + n == WORDS ? PAGES - first * 64 : n * 64;
	for (unsigned i = 0; i < n; i++) {
		mask[i] = vm_random(&t->seed) | vm_random(&t->seed);
		t->want[first + i] &= ~mask[i];
	}
	if (vm_ioctl(&t->vm, t->vm.fd, KVM_CLEAR_DIRTY_LOG, (unsigned long)&d))
		check_fatal("KVM_CLEAR_DIRTY_LOG", "failed");
}

static void compare(struct state *t, unsigned long round)
{
	for (unsigned i = 0; i < PAGES; i++)
		if ((t->got[i / 64] ^ t->want[i / 64]) >> i % 64 & 1)
			check_failed(mode_names[t->mode],
				     "round %lu, %u vCPUs: page %u is %s the log", round, t->n, i,
				     t->got[i / 64] >> i % 64 & 1 ? "in" : "not in");
}

static void harvest(struct state *t, unsigned long round)
{
	if (t->mode == RING) {
		for (unsigned i = 0; i < t->n; i++)
			ring_take(t, &t->cpu[i]);
	} else {
		get(t);
	}
	compare(t, round);
	if (t->mode == MANUAL || t->mode == INITIALLY_SET) {
		clear_some(t);
		return;
	}
	memset(t->want, 0, sizeof(t->want));
	memset(t->got, 0, sizeof(t->got));
}

/* What may happen to the slot. After it the log is as the model says. */
static void toggle(struct state *t)
{
	switch (vm_random(&t->seed) % 16) {
	case 0: /* off, writes that nobody asks for, on */
		slot_set(t, t->at, 0, true);
		write_some(t, 0);
		slot_set(t, t->at, LOG, true);
		log_begins(t);
		break;
	case 1: /* it moves, and the log goes along */
		slot_set(t, t->at == AT ? AT2 : AT, LOG, true);
		break;
	case 2:
		slot_set(t, t->at, 0, false);
		slot_set(t, t->at, LOG, true);
		log_begins(t);
		break;
	case 3: /* the same again */
		slot_set(t, t->at, LOG, true);
		break;
	default:
		break;
	}
}

static void cpu_make(struct state *t, unsigned i)
{
	struct cpu *c = &t->cpu[i];

	if (i) {
		t->vm.vcpu = (int)vm_ioctl(&t->vm, t->vm.fd, KVM_CREATE_VCPU, i);
		vm_set_cpuid(&t->vm);
	}
	c->fd = t->vm.vcpu;
	c->run =
		t->vm.ops->mmap(NULL, t->vm.run_size, PROT_READ | PROT_WRITE, MAP_SHARED, c->fd, 0);
	if (t->mode == RING)
		c->ring = t->vm.ops->mmap(NULL, VM_RING_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED,
					  c->fd, KVM_DIRTY_LOG_PAGE_OFFSET * 4096l);
	if (c->fd < 0 || c->run == MAP_FAILED || c->ring == MAP_FAILED)
		check_fatal("vCPU", "%u", i);
	vm_cpu_enter(&t->vm, VM_LONG, 0);
}

/* What the collector says that it did: none of it is 0, or something was not tested. */
static void counters_check(struct state *t)
{
	static const char *const names[] = { "pml_entries", "pml_full_drains", "pml_exit_drains" };
	const char *options = getenv("ANYKVM_TEST_OPTIONS");
	const bool pml = options && strstr(options, "pml") && t->mode != RING;
	char line[256] = "";

	for (unsigned i = 0; i < 3; i++) {
		double n = log_counter(&t->vm, names[i]);

		snprintf(line + strlen(line), sizeof(line) - strlen(line), " %s %.0f", names[i], n);
		if (pml ? n <= 0 : n != 0)
			check_failed(mode_names[t->mode], "%s is %.0f", names[i], n);
	}
	if (pml)
		check_note("%s, %u vCPUs:%s", mode_names[t->mode], t->n, line);
	CHECK_EQ(log_counter(&t->vm, "slots_logged"), 1);
}

/* A harvest of nothing asks nobody: it is counted as such, and no vCPU has been sent a request. */
static void nothing_check(struct state *t)
{
	double empty, requests;

	if (t->mode != RING)
		get(t); /* and with manual protect what is left is cleared */
	if (t->mode == MANUAL || t->mode == INITIALLY_SET)
		log_clear(&t->vm, SLOT, PAGES, t->got);
	empty = log_counter(&t->vm, "dirty_harvests_empty");
	requests = log_counter(&t->vm, "requests");
	if (t->mode == RING)
		CHECK_EQ(vm_ioctl(&t->vm, t->vm.fd, KVM_RESET_DIRTY_RINGS, 0), 0);
	else
		get(t);
	if (t->mode == MANUAL || t->mode == INITIALLY_SET)
		log_clear(&t->vm, SLOT, PAGES, t->got);
	CHECK(log_counter(&t->vm, "dirty_harvests_empty") > empty);
	CHECK(requests > 0); /* those before found something */
	CHECK_EQ(log_counter(&t->vm, "requests"), requests);
}

static unsigned long rounds_wanted(void)
{
	const char *s = getenv("ANYKVM_ROUNDS");

	return s ? strtoul(s, NULL, 0) : ROUNDS;
}

static void run_mode(enum mode mode, unsigned n)
{
	struct kvm_enable_cap cap = { .cap = KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2,
				      .args = { mode == MANUAL ? 1 : 3 } };
	struct state t = { .n = n, .mode = mode, .at = AT, .seed = vm_seed() * 16 + mode * 4 + n };
	unsigned long rounds = rounds_wanted();

	vm_make(&t.vm, mode == RING ? VM_RING : 0);
	if ((mode == MANUAL || mode == INITIALLY_SET) &&
	    vm_ioctl(&t.vm, t.vm.fd, KVM_ENABLE_CAP, (unsigned long)&cap))
		check_fatal("KVM_ENABLE_CAP", "manual protect");
	t.memory =
		mmap(NULL, PAGES << 12, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	vm_enter(&t.vm, VM_LONG, 0);
	VM_LOAD(&t.vm, VM_CODE, sets_writer);
	for (unsigned i = 0; i < n; i++)
		cpu_make(&t, i);
	slot_set(&t, AT, LOG, true);
	log_begins(&t);
	for (unsigned long round = 0; round < rounds; round++) {
		for (unsigned i = 0; i < n; i++)
			write_some(&t, i);
		harvest(&t, round);
		toggle(&t);
		/* What a ring holds goes with its slot only when it is fetched. */
		if (mode == RING) {
			for (unsigned i = 0; i < n; i++)
				ring_take(&t, &t.cpu[i]);
			memset(t.got, 0, sizeof(t.got));
			memset(t.want, 0, sizeof(t.want));
		}
	}
	counters_check(&t);
	nothing_check(&t);
	slot_set(&t, t.at, 0, false);
	CHECK_EQ(log_counter(&t.vm, "slots_logged"), 0);
	vm_destroy(&t.vm);
}

static void run_modes(enum mode mode)
{
	for (unsigned n = 1; n <= CPUS_MAX; n *= 2)
		run_mode(mode, n);
	check_note("%s: %lu rounds", mode_names[mode], 3 * rounds_wanted());
}

static void legacy(void)
{
	run_modes(LEGACY);
}

static void manual(void)
{
	run_modes(MANUAL);
}

static void initially_set(void)
{
	run_modes(INITIALLY_SET);
}

static void ring(void)
{
	run_modes(RING);
}

#define MINUTES(n) (60u * (n))
VM_TESTS({ .name = "legacy", .run = legacy, .seconds = MINUTES(30), .library_only = true },
	 { .name = "manual", .run = manual, .seconds = MINUTES(30), .library_only = true },
	 { .name = "initially set",
	   .run = initially_set,
	   .seconds = MINUTES(30),
	   .library_only = true },
	 { .name = "ring", .run = ring, .seconds = MINUTES(30), .library_only = true });

/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Litmus of dirty logs: each kind of store against each kind of harvest, in each state of a vCPU; nothing may be lost. */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "log.h"
#include "vm.h"

/*
 * Memory that is rebuilt from copies of the pages that were reported must equal memory in the end. What waits in a fault of the
 * host's is in stuck_test.c; devices of the VMM are in tests/unit/ram_test.c.
 */
#define LOG	  KVM_MEM_LOG_DIRTY_PAGES
#define AT	  0x8000000ul /* a slot of its own, mapped by the page tables */
#define AT2	  0x9000000ul
#define SLOT	  5
#define PAGES	  96u
#define WORDS	  ((PAGES + 63) / 64)
#define CPUS_MAX  4
#define STACK(i)  (0x30000ul + 0x1000 * (i))
#define STOP_FLAG 0x28000ul
#define VECTOR	  0x60

/* --- Writers. RDI number, RSI base; R8 a counter that makes values; 96 pages in a scattered order: RBX is where to. */

#define NEXT_PLACE                                                                                 \
	"imul $0x19660d, %r8d, %r8d; add $0x3c6ef35f, %r8d; mov %r8d, %eax; shr $8, %eax; xor "    \
	"%edx, %edx; mov $96, %ecx; div %ecx; shl $12, %edx; lea (%rsi,%rdx), %rbx; lea "          \
	"(%rbx,%rdi,8), %rbx; "
#define START "mov $0x1234567, %r8d; add %rdi, %r8; "
/*
 * The one that sleeps: local APIC on, as x2APIC; then every interrupt writes a frame, its handler writes, and so does whoever
 * was woken. Interrupts come between STI and CLI only, so that all of them share the registers.
 */
#define APIC_ON                                                                                    \
	"mov $0x1b, %ecx; rdmsr; or $0xc00, %eax; wrmsr; mov $0x80f, %ecx; mov $0x1ff, %eax; xor " \
	"%edx, %edx; wrmsr; "
#define EOI "mov $0x80b, %ecx; xor %eax, %eax; xor %edx, %edx; wrmsr; "
#define WRITER(name, text)                                                                         \
	GUEST(name, 64, START "1: " NEXT_PLACE text "; cmpl $0, 0x28000; je 1b; hlt");             \
	GUEST(name##_woken, 64,                                                                    \
	      START APIC_ON "1: sti; hlt; cli; " NEXT_PLACE text                                   \
			    "; cmpl $0, 0x28000; je 1b; out %al, $0xf0; .globl " #name             \
			    "_handler; " #name "_handler: " NEXT_PLACE text "; " EOI "iretq");     \
	extern const uint8_t name##_handler[]
WRITER(w_plain, "mov %r8, (%rbx)");
WRITER(w_lock, "lock xadd %r8d, 0x100(%rbx)");
WRITER(w_nt, "movnti %r8, 0x200(%rbx)");
WRITER(w_rep, "mov %rsi, %r9; mov %rdi, %r10; lea 0x300(%rbx), %rdi; mov %r8d, %eax; mov $1, %ecx; "
	      "cld; rep stosq; mov %r9, %rsi; mov %r10, %rdi");
WRITER(w_push, "mov %rsp, %r9; lea 0x408(%rbx), %rsp; push %r8; mov %r9, %rsp");
WRITER(w_helper,
       "mov %r8d, %eax; and $0x7f, %eax; lea 0x500(%rbx), %r9; sgdt (%r9); mov %r8, (%r9)");

#define ROW(text, name)                                                                            \
	{                                                                                          \
		text, name, name##_end, name##_woken, name##_woken_end, name##_handler             \
	}
static const struct writer {
	const char *name;
	const uint8_t *code, *end, *woken, *woken_end, *handler;
} writers[] = {
	ROW("plain", w_plain), ROW("locked", w_lock), ROW("non-temporal", w_nt),
	ROW("REP", w_rep),     ROW("PUSH", w_push),   ROW("helper", w_helper),
};
#define WRITERS (sizeof(writers) / sizeof(writers[0]))

/* --- States of vCPUs. */

struct state {
	const char *name;
	unsigned cpus, millis;
	bool preempted; /* all threads on one processor: whenever a harvest runs, no vCPU does, and most are in guest code */
	bool sleeps; /* in HLT, woken by interrupts that the harvesting thread sends just before */
};

struct race {
	const struct state *state;
	struct vm vm, cpu[CPUS_MAX];
	pthread_t thread[CPUS_MAX];
	unsigned n;
	struct kvm_dirty_gfn *ring[CPUS_MAX];
	uint32_t fetched[CPUS_MAX];
	uint8_t *memory, *copy;
	unsigned long pages, rounds;
};

enum how { GET, CLEAR, RESET, FLAGS, MOVE, DELETE, HOWS };
static const char *const how_names[HOWS] = { "GET", "CLEAR", "RESET", "flags", "move", "delete" };

static void *race_thread(void *arg)
{
	struct vm *c = arg;
	int end;

	do {
		end = vm_run(c);
		if (end == KVM_EXIT_DIRTY_RING_FULL)
			usleep(100);
	} while (end == -EINTR || end == KVM_EXIT_DIRTY_RING_FULL || end == KVM_EXIT_MMIO);
	if (end != KVM_EXIT_HLT && end != KVM_EXIT_IO)
		check_failed("writer", "%s", vm_exit_text(c, end));
	return NULL;
}

static void interrupt(struct race *r, unsigned i)
{
	struct kvm_msi msi = { .address_lo = 0xfee00000u | i << 12, .data = VECTOR };

	vm_ioctl(&r->vm, r->vm.fd, KVM_SIGNAL_MSI, (unsigned long)&msi);
}

/* A stack in the slot has frames of interrupts in the log; not where the slot goes away. */
static void race_cpu(struct race *r, unsigned i, const struct writer *w, enum how how)
{
	const bool sleeps = r->state->sleeps;
	struct kvm_mp_state runnable = { KVM_MP_STATE_RUNNABLE };
	struct vm *c = &r->cpu[i];
	struct kvm_regs regs;

	*c = r->vm;
	if (i)
		vm_add_cpu(c, &r->vm, i);
	if (sleeps && vm_ioctl(c, c->vcpu, KVM_SET_MP_STATE, (unsigned long)&runnable))
		check_fatal("KVM_SET_MP_STATE", "failed");
	vm_cpu_enter(c, VM_LONG, 0);
	if (sleeps)
		vm_load(c, VM_CODE + 0x1000 * i, w->woken, w->woken_end - w->woken);
	else
		vm_load(c, VM_CODE + 0x1000 * i, w->code, w->end - w->code);
	regs = vm_regs(c);
	regs.rip = VM_CODE + 0x1000 * i;
	regs.rsp = (sleeps && how < MOVE ? AT + 0x1000 * i : STACK(i)) + 0xff0;
	regs.rdi = i;
	regs.rsi = AT;
	vm_set_regs(c, &regs);
}

static void race_slot(struct race *r, unsigned flags)
{
	vm_slot(&r->vm, SLOT, flags, AT, PAGES << 12, r->memory);
}

/* Copy what was reported; what was not must not differ from the copy of before the harvest. */
static void race_take(struct race *r, const uint64_t *got)
{
	for (unsigned i = 0; i < PAGES; i++) {
		if (!(got[i / 64] >> i % 64 & 1))
			continue;
		memcpy(r->copy + (i << 12), r->memory + (i << 12), 4096);
		r->pages++;
	}
	r->rounds++;
}

static void race_reset(struct race *r)
{
	uint64_t got[WORDS] = { 0 };
	long n = 0;

	for (unsigned i = 0; i < r->n; i++)
		n += ring_fetch(r->ring[i], &r->fetched[i], SLOT, got, PAGES);
	CHECK_EQ(vm_ioctl(&r->vm, r->vm.fd, KVM_RESET_DIRTY_RINGS, 0), n);
	race_take(r, got);
}

static void race_take_all(struct race *r)
{
	uint64_t all[WORDS];

	memset(all, 0xff, sizeof(all));
	race_take(r, all);
}

/* What happens to the slot now and then besides being harvested. */
static void race_disturb(struct race *r, enum how how)
{
	if (how == MOVE) { /* the log goes along */
		vm_slot(&r->vm, SLOT, LOG, AT2, PAGES << 12, r->memory);
		race_slot(r, LOG);
		return;
	}
	/* What is written between is not in the log, so all is copied. */
	vm_slot(&r->vm, SLOT, 0, AT, how == DELETE ? 0 : PAGES << 12, r->memory);
	race_slot(r, LOG);
	race_take_all(r);
}

static void race_round(struct race *r, enum how how)
{
	uint64_t got[WORDS] = { 0 };

	if (how == RESET) {
		race_reset(r);
		return;
	}
	if (log_get(&r->vm, SLOT, got))
		check_fatal("KVM_GET_DIRTY_LOG", "failed");
	if (how == CLEAR && log_clear(&r->vm, SLOT, PAGES, got))
		check_fatal("KVM_CLEAR_DIRTY_LOG", "failed");
	race_take(r, got);
	if (how >= FLAGS && r->rounds % 4 == 0)
		race_disturb(r, how);
}

static long elapsed(const struct timespec *start)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (now.tv_sec - start->tv_sec) * 1000 + (now.tv_nsec - start->tv_nsec) / 1000000;
}

static unsigned long race_differ(const struct race *r)
{
	unsigned long n = 0;

	for (unsigned i = 0; i < PAGES; i++)
		n += memcmp(r->copy + (i << 12), r->memory + (i << 12), 4096) != 0;
	return n;
}

static void race_tell(const struct race *r)
{
	const uint64_t *copy = (void *)r->copy, *memory = (void *)r->memory;

	for (unsigned i = 0; i < PAGES * 512; i++)
		if (copy[i] != memory[i])
			check_note("page %u, offset %#x: %#lx, copied %#lx", i / 512, i % 512 * 8,
				   memory[i], copy[i]);
}

static void race_make(struct race *r, const struct state *state, const struct writer *w,
		      enum how how)
{
	*r = (struct race){ .state = state, .n = state->cpus };
	vm_make(&r->vm, (how == RESET ? VM_RING : 0) | (state->sleeps ? VM_IRQCHIP : 0));
	vm_enter(&r->vm, VM_LONG, 0);
	if (state->sleeps)
		vm_gate(&r->vm, VECTOR, VM_CODE + (w->handler - w->woken));
	if (how == CLEAR)
		log_manual(&r->vm, 1);
	r->memory =
		mmap(NULL, PAGES << 12, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	r->copy = calloc(PAGES, 4096);
	if (r->memory == MAP_FAILED || !r->copy)
		check_fatal("race", "no memory");
	race_slot(r, 0);
	for (unsigned i = 0; i < r->n; i++)
		race_cpu(r, i, w, how);
	for (unsigned i = 0; i < r->n && how == RESET; i++)
		r->ring[i] = ring_map(&r->cpu[i]);
}

static void race_free(struct race *r)
{
	for (unsigned i = 0; i < r->n; i++) {
		if (r->ring[i])
			munmap(r->ring[i], VM_RING_BYTES);
		if (i)
			vm_drop_cpu(&r->cpu[i]);
	}
	vm_destroy(&r->vm);
	munmap(r->memory, PAGES << 12);
	free(r->copy);
}

/* New threads inherit where this one may run. */
static void race_start(struct race *r)
{
	cpu_set_t one;

	CPU_ZERO(&one);
	CPU_SET((unsigned)sched_getcpu(), &one);
	if (r->state->preempted && sched_setaffinity(0, sizeof(one), &one))
		check_fatal("sched_setaffinity", "%s", strerror(errno));
	for (unsigned i = 0; i < r->n; i++)
		if (pthread_create(&r->thread[i], NULL, race_thread, &r->cpu[i]))
			check_fatal("pthread_create", "failed");
}

/* Every other time the vCPU has gone to sleep again before the harvest. */
static void race_wake(struct race *r)
{
	interrupt(r, r->rounds % r->n);
	if (r->rounds / r->n % 2)
		usleep(50);
}

/* An interrupt that comes before the guest has its APIC on is lost: on a busy machine that may be late. */
static void race_stop(struct race *r)
{
	__atomic_store_n(&r->vm.ram[STOP_FLAG], 1, __ATOMIC_SEQ_CST);
	for (unsigned i = 0; i < r->n; i++) {
		while (r->state->sleeps && pthread_tryjoin_np(r->thread[i], NULL)) {
			interrupt(r, i);
			usleep(1000);
		}
		if (!r->state->sleeps)
			pthread_join(r->thread[i], NULL);
	}
}

static void race(const struct state *state, const struct writer *w, enum how how)
{
	const long millis = state->millis;
	struct timespec start;
	struct race r;

	race_make(&r, state, w, how);
	race_start(&r);
	race_slot(&r, LOG);
	memcpy(r.copy, r.memory, PAGES << 12);
	clock_gettime(CLOCK_MONOTONIC, &start);
	/* On a busy machine a round waits for time slices of vCPUs. */
	while (elapsed(&start) < millis || (r.pages <= PAGES && elapsed(&start) < 100 * millis)) {
		if (state->sleeps)
			race_wake(&r);
		race_round(&r, how);
	}
	race_stop(&r);
	race_round(&r, how >= FLAGS ? GET : how);
	if (race_differ(&r)) {
		check_failed(w->name, "%s, %s: %lu pages lost in %lu rounds", how_names[how],
			     state->name, race_differ(&r), r.rounds);
		race_tell(&r);
	}
	if (r.pages <= PAGES || r.rounds <= 2)
		check_failed(w->name, "%s, %s: %lu pages in %lu rounds", how_names[how],
			     state->name, r.pages, r.rounds);
	race_free(&r);
}

static const struct state states[] = {
	{ "1 running", 1, 30, false, false }, { "2 running", 2, 30, false, false },
	{ "4 running", 4, 30, false, false }, { "preempted", 2, 30, true, false },
	{ "1 in HLT", 1, 15, false, true },   { "2 in HLT", 2, 15, false, true },
};

static void race_all(const struct state *s)
{
	cpu_set_t before;

	sched_getaffinity(0, sizeof(before), &before);
	for (enum how how = 0; how < HOWS; how++)
		for (unsigned kind = 0; kind < WRITERS; kind++) {
			race(s, &writers[kind], how);
			sched_setaffinity(0, sizeof(before), &before);
		}
}

static void running_1(void)
{
	race_all(&states[0]);
}

static void running_2(void)
{
	race_all(&states[1]);
}

static void running_4(void)
{
	race_all(&states[2]);
}

static void preempted(void)
{
	race_all(&states[3]);
}

static void in_hlt_1(void)
{
	race_all(&states[4]);
}

static void in_hlt_2(void)
{
	race_all(&states[5]);
}

/* --- Non-temporal stores by themselves. */

/*
 * RSI a page: a store that stays in a buffer of the processor's unless somebody drains it; right behind it the only poll, and
 * then a while without a store. What is seen of the page before a harvest is in the copy of the harvest before, or reported now.
 */
GUEST(nt_tight, 64,
      "1: inc %r8; .rept 60; pause; .endr; movnti %r8, (%rsi); cmpl $0, 0x28000; je 1b; hlt");
/* The same and then outside. */
GUEST(nt_exits, 64, "1: inc %r8; movnti %r8, (%rsi); out %al, $0xf1; cmpl $0, 0x28000; je 1b; hlt");

static const struct state tight = { "tight", 1, 0, false, false };
static const struct writer tight_writers[] = {
	{ "in guest code", nt_tight, nt_tight_end, NULL, NULL, NULL },
	{ "going out", nt_exits, nt_exits_end, NULL, NULL, NULL },
};

static void *tight_thread(void *arg)
{
	struct vm *c = arg;
	int end;

	do
		end = vm_run(c);
	while (end == -EINTR || (end == KVM_EXIT_IO && c->run->io.port == 0xf1));
	if (end != KVM_EXIT_HLT)
		check_failed("writer", "%s", vm_exit_text(c, end));
	return NULL;
}

/* Harvests that find the page. */
static unsigned long tight_rounds(void)
{
	const char *s = getenv("ANYKVM_ROUNDS");

	return s ? strtoul(s, NULL, 0) : 10000;
}

#define TIGHT_MILLIS 5000

static void nt_race(const struct writer *w)
{
	unsigned long lost = 0, taken = 0;
	struct timespec start;
	uint64_t copy, seen;
	struct race r;

	race_make(&r, &tight, w, GET);
	race_slot(&r, LOG);
	copy = *(volatile uint64_t *)r.memory;
	if (pthread_create(&r.thread[0], NULL, tight_thread, &r.cpu[0]))
		check_fatal("pthread_create", "failed");
	clock_gettime(CLOCK_MONOTONIC, &start);
	while (taken < tight_rounds() && elapsed(&start) < TIGHT_MILLIS) {
		uint64_t got[WORDS] = { 0 };

		seen = *(volatile uint64_t *)r.memory;
		if (log_get(&r.vm, SLOT, got))
			check_fatal("KVM_GET_DIRTY_LOG", "failed");
		lost += seen != copy && !(got[0] & 1);
		if (got[0] & 1 || seen != copy)
			copy = *(volatile uint64_t *)r.memory;
		taken += got[0] & 1;
	}
	race_stop(&r);
	if (lost)
		check_failed(w->name, "%lu pages lost in %lu harvests", lost, taken);
	if (taken < 10)
		check_failed(w->name, "%lu harvests that found something", taken);
	race_free(&r);
}

static void nt_races(void)
{
	for (unsigned i = 0; i < 2; i++)
		nt_race(&tight_writers[i]);
}

VM_TESTS({ .name = "1 running", .run = running_1, .seconds = 60 },
	 { .name = "2 running", .run = running_2, .seconds = 60 },
	 { .name = "4 running", .run = running_4, .seconds = 60 },
	 { .name = "preempted", .run = preempted, .seconds = 60 },
	 { .name = "1 in HLT", .run = in_hlt_1, .seconds = 60 },
	 { .name = "2 in HLT", .run = in_hlt_2, .seconds = 60 },
	 { .name = "non-temporal and tight", .run = nt_races, .seconds = 60 });

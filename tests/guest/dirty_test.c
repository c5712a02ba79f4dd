/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Dirty logs under running guests: each kind of write, and writers against harvests of every kind. */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "vm.h"

#define LOG	  KVM_MEM_LOG_DIRTY_PAGES
#define RAM_PAGES (VM_HOLE >> 12) /* slot 0: it holds tables, stacks, code and data */
#define AT	  0x8000000ul	  /* a slot of its own, mapped by the page tables */
#define AT2	  0x9000000ul
#define SLOT	  5

static void log_set(struct vm *vm, bool on)
{
	vm_slot(vm, 0, on ? LOG : 0, 0, VM_HOLE, vm->ram);
}

static long log_get(struct vm *vm, unsigned slot, uint64_t *bits)
{
	struct kvm_dirty_log d = { .slot = slot, .dirty_bitmap = bits };

	return vm_ioctl(vm, vm->fd, KVM_GET_DIRTY_LOG, (unsigned long)&d);
}

static long log_clear(struct vm *vm, unsigned slot, uint32_t n, uint64_t *bits)
{
	struct kvm_clear_dirty_log d = { .slot = slot, .num_pages = n, .dirty_bitmap = bits };

	return vm_ioctl(vm, vm->fd, KVM_CLEAR_DIRTY_LOG, (unsigned long)&d);
}

static void manual(struct vm *vm, uint64_t options)
{
	struct kvm_enable_cap c = { .cap = KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2, .args = { options } };

	if (vm_ioctl(vm, vm->fd, KVM_ENABLE_CAP, (unsigned long)&c))
		check_fatal("KVM_ENABLE_CAP", "manual protect");
}

/* --- Each kind of write. The guest runs to HLT with memory unlogged, then again with a clean log. */

#define BITMAP ((RAM_PAGES + 63) / 64)
static uint64_t bits[BITMAP];

static bool is_dirty(uint64_t gpa)
{
	return bits[gpa >> 18] >> (gpa >> 12 & 63) & 1;
}

static unsigned count(void)
{
	unsigned n = 0;

	for (unsigned i = 0; i < BITMAP; i++)
		n += __builtin_popcountll(bits[i]);
	return n;
}

struct kind {
	const char *name;
	const uint8_t *code, *end;
	uint64_t pages[4];	 /* that it writes, and no others; 0 ends them */
	unsigned leaf, reg, bit; /* CPUID that it needs; leaf 0: none */
};

/* R15 = 0x40000: data; RSP = 0x38000, so that a push goes to 0x37000. */
#define PROLOGUE	 "mov $0x40000, %r15d; mov $0x38000, %esp;"
#define KIND(name, text) GUEST(name, 64, PROLOGUE text "; hlt")
KIND(k_mov, "movb $1, (%r15); mov %rax, 0x1ff8(%r15)");
KIND(k_cross, "mov %rax, 0xffc(%r15)");
KIND(k_lock, "lock incq (%r15)");
KIND(k_lock_cross, "lock addq $1, 0xffc(%r15)");
KIND(k_cmpxchg_fails, "xor %eax, %eax; movq $7, %rcx; lock cmpxchg %rcx, 0x2008(%r15)");
KIND(k_cmpxchg16b, "lock cmpxchg16b (%r15)");
KIND(k_nt, "mov $9, %eax; movnti %rax, (%r15); movnti %rax, 0x1000(%r15); sfence");
KIND(k_nt_vector, "movntdq %xmm1, (%r15); movups %xmm1, 0x1ff8(%r15)");
KIND(k_rep_stos, "cld; mov $0x40800, %edi; mov $0x1000, %ecx; rep stosb");
KIND(k_rep_movs, "cld; mov $0x40ff8, %edi; mov $0x20000, %esi; mov $2, %ecx; rep movsq");
KIND(k_movs_down, "std; mov $0x41000, %edi; mov $0x20ff8, %esi; mov $2, %ecx; rep movsq; cld");
KIND(k_push, "push %rax; pushf");
KIND(k_call, "call 1f; 1:");
KIND(k_interrupt, "int $0x80; nop");
KIND(k_enter, "mov $0x38000, %ebp; enter $16, $3");
KIND(k_fxsave, "fxsave64 0xf00(%r15)");
KIND(k_xsave, "mov $3, %eax; xor %edx, %edx; xsave64 0x40(%r15)");
KIND(k_fnstenv, "fnstenv 0xff8(%r15)");
KIND(k_sgdt, "sgdt (%r15)");
KIND(k_bts, "mov $0x8000, %eax; btsq %rax, (%r15)");
KIND(k_mask_all, "vpcmpeqd %ymm0, %ymm0, %ymm0; vmaskmovps %ymm1, %ymm0, 0xff0(%r15)");
KIND(k_setcc, "setc (%r15)");
KIND(k_pop, "mov $0x20000, %esp; pop 0x1000(%r15)");
KIND(k_xchg, "xchg %eax, (%r15)");
KIND(k_own_code, "movb $0x90, 1f(%rip); 1: nop");

#define ROW(name, ...)                                                                             \
	{                                                                                          \
#name, name, name##_end, { __VA_ARGS__ }, 0, 0, 0                                  \
	}
#define ROW_IF(name, l, r, b, ...)                                                                 \
	{                                                                                          \
#name, name, name##_end, { __VA_ARGS__ }, l, r, b                                  \
	}
static const struct kind kinds[] = {
	ROW(k_mov, 0x40000, 0x41000),
	ROW(k_cross, 0x40000, 0x41000),
	ROW(k_lock, 0x40000),
	ROW(k_lock_cross, 0x40000, 0x41000),
	ROW(k_cmpxchg_fails, 0x42000),
	ROW_IF(k_cmpxchg16b, 1, 2, 13, 0x40000),
	ROW(k_nt, 0x40000, 0x41000),
	ROW(k_nt_vector, 0x40000, 0x41000, 0x42000),
	ROW(k_rep_stos, 0x40000, 0x41000),
	ROW(k_rep_movs, 0x40000, 0x41000),
	ROW(k_movs_down, 0x40000, 0x41000),
	ROW(k_push, 0x37000),
	ROW(k_call, 0x37000),
	ROW(k_enter, 0x37000),
	ROW(k_fxsave, 0x40000, 0x41000),
	ROW_IF(k_xsave, 1, 2, 27, 0x40000),
	ROW(k_fnstenv, 0x40000, 0x41000),
	ROW(k_sgdt, 0x40000),
	ROW(k_bts, 0x41000),
	ROW_IF(k_mask_all, 7, 1, 5, 0x40000, 0x41000),
	ROW(k_setcc, 0x40000),
	ROW(k_pop, 0x41000),
	ROW(k_xchg, 0x40000),
	ROW(k_own_code, VM_CODE),
};

static void expect_pages(const char *name, const uint64_t *pages)
{
	unsigned n = 0;

	for (; n < 4 && pages[n]; n++)
		if (!is_dirty(pages[n]))
			check_failed(name, "page %#lx is not in the log", pages[n]);
	if (count() != n)
		for (unsigned i = 0; i < RAM_PAGES; i++)
			if (is_dirty(i << 12))
				check_failed(name, "%u pages in the log, among them %#x", count(),
					     i << 12);
}

static void enable_vectors(struct vm *vm)
{
	struct kvm_xcrs x = { .nr_xcrs = 1, .xcrs = { { .xcr = 0, .value = 7 } } };
	struct kvm_sregs s = vm_sregs(vm);

	s.cr0 = (s.cr0 | 2) & ~0xcul; /* MP, no EM, no TS */
	s.cr4 |= 3 << 9;
	if (vm_has(vm, 1, 0, 2, 26))
		s.cr4 |= 1 << 18;
	vm_set_sregs(vm, &s);
	if (s.cr4 & 1 << 18)
		vm_ioctl(vm, vm->vcpu, KVM_SET_XCRS, (unsigned long)&x);
}

/* Twice: first the marks of tables and tags are set, then a harvest has cleaned all. */
static void kind_run(const struct kind *k)
{
	struct vm vm;

	vm_make(&vm, 0);
	if (k->leaf && !vm_has(&vm, k->leaf, 0, k->reg, k->bit)) {
		vm_destroy(&vm);
		return;
	}
	for (unsigned round = 0; round < 3; round++) {
		if (!round)
			vm_enter(&vm, VM_LONG, 0);
		else
			vm_cpu_enter(&vm, VM_LONG, 0);
		enable_vectors(&vm);
		vm_load(&vm, VM_CODE, k->code, k->end - k->code);
		if (round == 1)
			log_set(&vm, true);
		CHECK_EXIT(&vm, KVM_EXIT_HLT);
		if (round)
			CHECK_EQ(log_get(&vm, 0, bits), 0);
		if (round)
			expect_pages(k->name, k->pages);
	}
	vm_destroy(&vm);
}

static void every_kind(void)
{
	for (unsigned i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
		kind_run(&kinds[i]);
}

/* --- Writes of the processor itself. */

static void cpu_start(struct vm *vm, const uint8_t *code, const uint8_t *end)
{
	vm_make(vm, 0);
	vm_enter(vm, VM_LONG, 0);
	vm_load(vm, VM_CODE, code, end - code);
}
#define START(vm, name) cpu_start(vm, name, name##_end)

static void harvest(struct vm *vm, const char *name, const uint64_t *pages)
{
	CHECK_EQ(log_get(vm, 0, bits), 0);
	expect_pages(name, pages);
}

/* A and D of page tables: a read sets A, a write D too. */
KIND(read_page, "mov (%r15), %eax");
KIND(write_page, "movb $1, (%r15)");

static void table_bits(void)
{
	struct vm vm;

	START(&vm, read_page);
	CHECK_EXIT(&vm, KVM_EXIT_HLT);
	*vm_pte(&vm, 0x40000) &= ~0x60ul;
	vm_cpu_enter(&vm, VM_LONG, 0);
	log_set(&vm, true);
	CHECK_EXIT(&vm, KVM_EXIT_HLT);
	harvest(&vm, "A", (uint64_t[4]){ VM_PT });
	VM_LOAD(&vm, VM_CODE, write_page);
	vm_cpu_enter(&vm, VM_LONG, 0);
	CHECK_EXIT(&vm, KVM_EXIT_HLT);
	harvest(&vm, "D", (uint64_t[4]){ VM_PT, 0x40000 });
	vm_destroy(&vm);
}

/* CR0.WP = 0: a supervisor writes a read-only page. */
KIND(wp_off, "mov %cr0, %rax; btr $16, %rax; mov %rax, %cr0; movb $1, (%r15)");

static void wp_clear(void)
{
	struct vm vm;

	START(&vm, wp_off);
	*vm_pte(&vm, 0x40000) &= ~2ul;
	*vm_pte(&vm, 0x40000) |= 0x60;
	CHECK_EXIT(&vm, KVM_EXIT_HLT);
	log_set(&vm, true);
	vm_cpu_enter(&vm, VM_LONG, 0);
	CHECK_EXIT(&vm, KVM_EXIT_HLT);
	harvest(&vm, "WP", (uint64_t[4]){ 0x40000 });
	vm_destroy(&vm);
}

/* The accessed bit of a descriptor, the busy bit of a TSS: both in the GDT. */
KIND(load_ds, "mov $0x10, %eax; mov %eax, %ds");
KIND(load_tr, "mov $0x58, %eax; ltr %ax");

static void descriptors(void)
{
	struct vm vm;

	START(&vm, load_ds);
	*(uint64_t *)(vm.ram + VM_GDT + SEL_DATA) &= ~(1ull << 40);
	log_set(&vm, true);
	CHECK_EXIT(&vm, KVM_EXIT_HLT);
	CHECK_EQ(log_get(&vm, 0, bits), 0);
	CHECK(is_dirty(VM_GDT));
	vm_cpu_enter(&vm, VM_LONG, 0);
	CHECK_EXIT(&vm, KVM_EXIT_HLT);
	CHECK_EQ(log_get(&vm, 0, bits), 0);
	CHECK(!is_dirty(VM_GDT)); /* set already */
	VM_LOAD(&vm, VM_CODE, load_tr);
	vm_cpu_enter(&vm, VM_LONG, 0);
	*(uint64_t *)(vm.ram + VM_GDT + SEL_TSS) &= ~(1ull << 41);
	CHECK_EXIT(&vm, KVM_EXIT_HLT);
	CHECK_EQ(log_get(&vm, 0, bits), 0);
	CHECK(is_dirty(VM_GDT));
	vm_destroy(&vm);
}

/* The frame of an exception, on the stack of the TSS. */
KIND(divide, "xor %ecx, %ecx; div %ecx");

static void frames(void)
{
	struct vm vm;

	START(&vm, divide);
	CHECK_EXIT(&vm, KVM_EXIT_IO);
	vm_cpu_enter(&vm, VM_LONG, 0);
	log_set(&vm, true);
	CHECK_EXIT(&vm, KVM_EXIT_IO);
	CHECK_EQ(log_get(&vm, 0, bits), 0);
	CHECK(is_dirty(vm_regs(&vm).rsp));
	vm_destroy(&vm);
}

/* Our own writes: the time page is the guest's memory too. Stores of the VMM are not logged. */
KIND(nothing, "nop");
#define MSR_SYSTEM_TIME 0x4b564d01

static void own_writes(void)
{
	struct kvm_clock_data clock = { .clock = 1000 };
	struct vm vm;

	START(&vm, nothing);
	log_set(&vm, true);
	vm_msr(&vm, MSR_SYSTEM_TIME, 0x50000 | 1);
	vm.ram[0x60000] = 1;
	CHECK_EXIT(&vm, KVM_EXIT_HLT);
	CHECK_EQ(log_get(&vm, 0, bits), 0);
	CHECK(is_dirty(0x50000));
	CHECK(!is_dirty(0x60000));
	vm_cpu_enter(&vm, VM_LONG, 0);
	vm_ioctl(&vm, vm.fd, KVM_SET_CLOCK, (unsigned long)&clock);
	CHECK_EXIT(&vm, KVM_EXIT_HLT);
	CHECK_EQ(log_get(&vm, 0, bits), 0);
	CHECK(is_dirty(0x50000));
	vm_destroy(&vm);
}

/* --- Writers against a harvester. Memory rebuilt from copies of reported pages must equal memory in the end. */

#define PAGES	  96u
#define WORDS	  ((PAGES + 63) / 64)
#define CPUS_MAX  4
#define MILLIS	  80
#define STACK(i)  (0x30000ul + 0x1000 * (i))
#define STOP_FLAG 0x28000ul

struct race {
	struct vm vm, cpu[CPUS_MAX];
	pthread_t thread[CPUS_MAX];
	unsigned n;
	struct kvm_dirty_gfn *ring[CPUS_MAX];
	uint32_t fetched[CPUS_MAX];
	uint8_t *memory, *copy;
	unsigned long pages, rounds, lost;
};

/* RDI number, RSI base; R8 a counter that makes values; 96 pages in a scattered order. */
#define WRITER(name, text)                                                                         \
	GUEST(name, 64,                                                                            \
	      "mov $0x1234567, %r8d; add %rdi, %r8; 1: imul $0x19660d, %r8d, %r8d; add "           \
	      "$0x3c6ef35f, %r8d;"                                                                 \
	      "mov %r8d, %eax; shr $8, %eax; xor %edx, %edx; mov $96, %ecx; div %ecx; shl $12, "   \
	      "%edx;"                                                                              \
	      "lea (%rsi,%rdx), %rbx; lea (%rbx,%rdi,8), %rbx;" text                               \
	      "; cmpl $0, 0x28000; je 1b; hlt")
WRITER(w_plain, "mov %r8, (%rbx)");
WRITER(w_lock, "lock xadd %r8d, 0x100(%rbx)");
WRITER(w_nt, "movnti %r8, 0x200(%rbx)");
WRITER(w_rep, "mov %rsi, %r9; mov %rdi, %r10; lea 0x300(%rbx), %rdi; mov %r8d, %eax; mov $1, %ecx; "
	      "cld; rep stosq; mov %r9, %rsi; mov %r10, %rdi");
WRITER(w_push, "mov %rsp, %r9; lea 0x408(%rbx), %rsp; push %r8; mov %r9, %rsp");
WRITER(w_helper,
       "mov %r8d, %eax; and $0x7f, %eax; lea 0x500(%rbx), %r9; sgdt (%r9); mov %r8, (%r9)");

static const struct {
	const char *name;
	const uint8_t *code, *end;
} writers[] = {
	{ "plain", w_plain, w_plain_end },  { "locked", w_lock, w_lock_end },
	{ "non-temporal", w_nt, w_nt_end }, { "REP", w_rep, w_rep_end },
	{ "PUSH", w_push, w_push_end },	    { "helper", w_helper, w_helper_end },
};

static void *race_thread(void *arg)
{
	struct vm *c = arg;
	int end;

	do {
		end = vm_run(c);
		if (end == KVM_EXIT_DIRTY_RING_FULL)
			usleep(100);
	} while (end == -EINTR || end == KVM_EXIT_DIRTY_RING_FULL || end == KVM_EXIT_MMIO);
	if (end != KVM_EXIT_HLT)
		check_failed("writer", "%s", vm_exit_text(c, end));
	return NULL;
}

static void race_cpu(struct race *r, unsigned i, const uint8_t *code, const uint8_t *end)
{
	struct vm *c = &r->cpu[i];
	struct kvm_regs regs;

	*c = r->vm;
	if (i) {
		c->vcpu = (int)vm_ioctl(c, c->fd, KVM_CREATE_VCPU, i);
		c->run = c->ops->mmap(NULL, c->run_size, PROT_READ | PROT_WRITE, MAP_SHARED,
				      c->vcpu, 0);
		if (c->vcpu < 0 || c->run == MAP_FAILED)
			check_fatal("vCPU", "%u", i);
		vm_set_cpuid(c);
	}
	vm_cpu_enter(c, VM_LONG, 0);
	c->mode = VM_LONG;
	vm_load(c, VM_CODE + 0x1000 * i, code, end - code);
	regs = vm_regs(c);
	regs.rip = VM_CODE + 0x1000 * i;
	regs.rsp = STACK(i) + 0xff0;
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

enum how { GET, CLEAR, RESET, FLAGS, MOVE, DELETE, HOWS };
static const char *const how_names[HOWS] = { "GET", "CLEAR", "RESET", "flags", "move", "delete" };

#define RING_ENTRIES (VM_RING_BYTES / sizeof(struct kvm_dirty_gfn))

static struct kvm_dirty_gfn *ring_map(struct vm *c)
{
	void *p = c->ops->mmap(NULL, VM_RING_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, c->vcpu,
			       KVM_DIRTY_LOG_PAGE_OFFSET * 4096l);

	if (p == MAP_FAILED)
		check_fatal("mmap of the ring", "%s", strerror(errno));
	return p;
}

/* Harvest one ring in order; the slot's pages into @got. Returns entries. */
static unsigned ring_fetch(struct kvm_dirty_gfn *ring, uint32_t *fetched, uint64_t *got,
			   uint64_t pages)
{
	unsigned n = 0;

	for (;; (*fetched)++, n++) {
		struct kvm_dirty_gfn *e = &ring[*fetched % RING_ENTRIES];

		if (!(__atomic_load_n(&e->flags, __ATOMIC_ACQUIRE) & KVM_DIRTY_GFN_F_DIRTY))
			return n;
		if (e->slot == SLOT && e->offset < pages)
			got[e->offset / 64] |= 1ull << e->offset % 64;
		__atomic_store_n(&e->flags, KVM_DIRTY_GFN_F_RESET, __ATOMIC_RELEASE);
	}
}

static void race_reset(struct race *r)
{
	uint64_t got[WORDS] = { 0 };
	long n = 0;

	for (unsigned i = 0; i < r->n; i++)
		n += ring_fetch(r->ring[i], &r->fetched[i], got, PAGES);
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

static void race_make(struct race *r, unsigned cpus, unsigned kind, enum how how)
{
	memset(r, 0, sizeof(*r));
	vm_make(&r->vm, how == RESET ? VM_RING : 0);
	vm_enter(&r->vm, VM_LONG, 0);
	if (how == CLEAR)
		manual(&r->vm, 1);
	r->n = cpus;
	r->memory =
		mmap(NULL, PAGES << 12, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	r->copy = calloc(PAGES, 4096);
	if (r->memory == MAP_FAILED || !r->copy)
		check_fatal("race", "no memory");
	race_slot(r, 0);
	for (unsigned i = 0; i < cpus; i++)
		race_cpu(r, i, writers[kind].code, writers[kind].end);
	for (unsigned i = 0; i < cpus && how == RESET; i++)
		r->ring[i] = ring_map(&r->cpu[i]);
}

static void race_free(struct race *r)
{
	for (unsigned i = 1; i < r->n; i++) {
		munmap(r->cpu[i].run, r->cpu[i].run_size);
		r->cpu[i].ops->close(r->cpu[i].vcpu);
	}
	vm_destroy(&r->vm);
	munmap(r->memory, PAGES << 12);
	free(r->copy);
}

static void race(unsigned cpus, unsigned kind, enum how how, unsigned millis)
{
	struct timespec start;
	struct race r;

	race_make(&r, cpus, kind, how);
	for (unsigned i = 0; i < cpus; i++)
		if (pthread_create(&r.thread[i], NULL, race_thread, &r.cpu[i]))
			check_fatal("pthread_create", "failed");
	race_slot(&r, LOG);
	memcpy(r.copy, r.memory, PAGES << 12);
	clock_gettime(CLOCK_MONOTONIC, &start);
	/* On a busy machine a round waits for time slices of vCPUs. */
	while (elapsed(&start) < millis || (r.pages <= PAGES && elapsed(&start) < 20 * millis))
		race_round(&r, how);
	r.vm.ram[STOP_FLAG] = 1;
	for (unsigned i = 0; i < cpus; i++)
		pthread_join(r.thread[i], NULL);
	race_round(&r, how >= FLAGS ? GET : how);
	if (race_differ(&r)) {
		check_failed(writers[kind].name, "%s, %u vCPUs: %lu pages lost in %lu rounds",
			     how_names[how], cpus, race_differ(&r), r.rounds);
		race_tell(&r);
	}
	CHECK(r.pages > PAGES && r.rounds > 2);
	race_free(&r);
}

/* --- The ring by itself: exits before it is full, no progress until it is reset, no entry lost. */

#define MANY 3000u
GUEST(store_many, 64,
      "mov $0x8000000, %ebx; mov $3000, %ecx; 1: mov %rcx, (%rbx); add $4096, %rbx; dec %ecx; jnz "
      "1b; hlt");

static void ring_full(void)
{
	static uint64_t got[(MANY + 63) / 64];
	struct kvm_dirty_gfn *ring;
	uint32_t fetched = 0;
	unsigned total = 0, exits = 0, n;
	struct vm vm;
	void *p =
		mmap(NULL, MANY << 12, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	vm_make(&vm, VM_RING);
	VM_START(&vm, VM_LONG, 0, store_many);
	vm_slot(&vm, SLOT, LOG, AT, MANY << 12, p);
	ring = ring_map(&vm);
	while (vm_run(&vm) == KVM_EXIT_DIRTY_RING_FULL) {
		uint64_t rip = vm_regs(&vm).rip, rcx = vm_regs(&vm).rcx;

		exits++;
		CHECK_EQ(vm_run(&vm), KVM_EXIT_DIRTY_RING_FULL);
		CHECK_EQ(vm_regs(&vm).rip, rip);
		CHECK_EQ(vm_regs(&vm).rcx, rcx);
		CHECK_EQ(vm_ioctl(&vm, vm.fd, KVM_RESET_DIRTY_RINGS, 0), 0); /* nothing harvested */
		n = ring_fetch(ring, &fetched, got, MANY);
		CHECK(n >= RING_ENTRIES - 64 && n < RING_ENTRIES);
		total += n;
		/* What the program makes of slot and offset afterwards does no harm. */
		ring[(fetched - 1) % RING_ENTRIES].slot = 0xffffffff;
		ring[(fetched - 2) % RING_ENTRIES].offset = ~0ull;
		CHECK_EQ(vm_ioctl(&vm, vm.fd, KVM_RESET_DIRTY_RINGS, 0), n);
	}
	CHECK_EQ(vm.run->exit_reason, KVM_EXIT_HLT);
	total += ring_fetch(ring, &fetched, got, MANY);
	CHECK_EQ(total, MANY);
	CHECK(exits >= MANY / RING_ENTRIES);
	for (unsigned i = 0; i < MANY; i++)
		CHECK(got[i / 64] >> i % 64 & 1);
	/* Flags of entries that were never published move nothing. */
	for (unsigned i = 0; i < RING_ENTRIES; i++)
		ring[i].flags = KVM_DIRTY_GFN_F_RESET;
	CHECK(vm_ioctl(&vm, vm.fd, KVM_RESET_DIRTY_RINGS, 0) < (long)RING_ENTRIES);
	CHECK_EQ(vm_ioctl(&vm, vm.fd, KVM_RESET_DIRTY_RINGS, 0), 0);
	munmap(ring, VM_RING_BYTES);
	vm_destroy(&vm);
	munmap(p, MANY << 12);
}

static void race_all(unsigned cpus)
{
	for (enum how how = 0; how < HOWS; how++)
		for (unsigned kind = 0; kind < sizeof(writers) / sizeof(writers[0]); kind++)
			race(cpus, kind, how, MILLIS);
}

static void race_1(void)
{
	race_all(1);
}

static void race_2(void)
{
	race_all(2);
}

static void race_4(void)
{
	race_all(4);
}

VM_TESTS({ .name = "every kind of write", .run = every_kind },
	 { .name = "accessed and dirty bits of page tables", .run = table_bits },
	 { .name = "CR0.WP clear", .run = wp_clear },
	 { .name = "accessed and busy bits of descriptors", .run = descriptors },
	 { .name = "frames of exceptions", .run = frames },
	 { .name = "time page, and stores of the VMM", .run = own_writes },
	 { .name = "ring", .run = ring_full },
	 { .name = "1 writer against harvests", .run = race_1, .seconds = 60 },
	 { .name = "2 writers against harvests", .run = race_2, .seconds = 60 },
	 { .name = "4 writers against harvests", .run = race_4, .seconds = 60 });

/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Dirty logs under running guests: each kind of write, writes of the processor itself, the ring. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "log.h"
#include "vm.h"

#define LOG	  KVM_MEM_LOG_DIRTY_PAGES
#define RAM_PAGES (VM_HOLE >> 12) /* slot 0: it holds tables, stacks, code and data */
#define AT	  0x8000000ul	  /* a slot of its own, mapped by the page tables */
#define SLOT	  5

static void log_set(struct vm *vm, bool on)
{
	vm_slot(vm, 0, on ? LOG : 0, 0, VM_HOLE, vm->ram);
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
		n = ring_fetch(ring, &fetched, SLOT, got, MANY);
		CHECK(n >= RING_ENTRIES - 64 && n < RING_ENTRIES);
		total += n;
		/* What the program makes of slot and offset afterwards does no harm. */
		ring[(fetched - 1) % RING_ENTRIES].slot = 0xffffffff;
		ring[(fetched - 2) % RING_ENTRIES].offset = ~0ull;
		CHECK_EQ(vm_ioctl(&vm, vm.fd, KVM_RESET_DIRTY_RINGS, 0), n);
	}
	CHECK_EQ(vm.run->exit_reason, KVM_EXIT_HLT);
	total += ring_fetch(ring, &fetched, SLOT, got, MANY);
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

VM_TESTS({ .name = "every kind of write", .run = every_kind },
	 { .name = "accessed and dirty bits of page tables", .run = table_bits },
	 { .name = "CR0.WP clear", .run = wp_clear },
	 { .name = "accessed and busy bits of descriptors", .run = descriptors },
	 { .name = "frames of exceptions", .run = frames },
	 { .name = "time page, and stores of the VMM", .run = own_writes },
	 { .name = "ring", .run = ring_full });

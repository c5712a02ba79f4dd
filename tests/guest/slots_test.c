/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Memory slots as a guest sees them: read-only, moved, deleted and made again while data and code are cached. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "vm.h"

#define SLOT 5
#define AT   0x8000000ul /* above VM_SIZE, mapped by the page tables */
#define AT2  0x9000000ul

static uint8_t *pages(size_t n)
{
	uint8_t *p =
		mmap(NULL, n << 12, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		check_fatal("mmap", "no memory");
	return p;
}

static void expect_mmio(struct vm *vm, uint64_t at, unsigned len, bool write, uint64_t data,
			const char *where)
{
	uint64_t got = 0;

	check_exit(vm, KVM_EXIT_MMIO, where);
	memcpy(&got, vm->run->mmio.data, len);
	if (vm->run->mmio.phys_addr != at || vm->run->mmio.len != len ||
	    vm->run->mmio.is_write != write || (write && got != data))
		check_failed(where, "%s of %llx, %u bytes, %lx",
			     vm->run->mmio.is_write ? "write" : "read", vm->run->mmio.phys_addr,
			     vm->run->mmio.len, got);
}
#define EXPECT_WRITE(vm, at, len, data) expect_mmio(vm, at, len, true, data, VM_HERE)
#define EXPECT_READ(vm, at, len)	expect_mmio(vm, at, len, false, 0, VM_HERE)

/* A read-only slot is memory to loads and code, a device to stores. */
GUEST(rom, 64,
      "mov $0x8000000, %ebx; mov (%rbx), %rax; movl $7, 8(%rbx); mov 8(%rbx), %rdx; addl $1, "
      "8(%rbx); incb 16(%rbx)\n"
      "lea 0x100(%rbx), %rcx; call *%rcx; movups %xmm0, 0x20(%rbx); hlt");

static void read_only(void)
{
	uint8_t *p = pages(1);
	struct vm vm;

	vm_make(&vm, 0);
	if (vm_ioctl(&vm, vm.sys, KVM_CHECK_EXTENSION, KVM_CAP_READONLY_MEM) <= 0)
		check_skip("no KVM_CAP_READONLY_MEM");
	memcpy(p, "\x11\x22\x33\x44\x55\x66\x77\x08\x05\0\0\0\0\0\0\0\xff", 17);
	memcpy(p + 0x100, "\xbe\x2a\0\0\0\xc3", 6); /* mov $42, %esi; ret */
	VM_START(&vm, VM_LONG, 0, rom);
	vm_slot(&vm, SLOT, KVM_MEM_READONLY, AT, 4096, p);
	EXPECT_WRITE(&vm, AT + 8, 4, 7);
	EXPECT_WRITE(&vm, AT + 8, 4, 6);
	EXPECT_WRITE(&vm, AT + 16, 1, 0);
	EXPECT_WRITE(&vm, AT + 0x20, 8, 0);
	EXPECT_WRITE(&vm, AT + 0x28, 8, 0);
	CHECK_EXIT(&vm, KVM_EXIT_HLT);
	CHECK_EQ(vm_regs(&vm).rax, 0x0877665544332211);
	CHECK_EQ(vm_regs(&vm).rdx, 5);
	CHECK_EQ(vm_regs(&vm).rsi, 42);
	CHECK_EQ(p[16], 0xff);
	vm_destroy(&vm);
}

/* Writable and hot, then read-only: the slot is deleted and made again. */
GUEST(hot, 64,
      "mov $100, %ecx; mov $0x8000000, %ebx\n 1: mov %ecx, (%rbx); loop 1b; hlt; movl $9, (%rbx); "
      "mov (%rbx), %eax; hlt");

static void becomes_read_only(void)
{
	uint8_t *p = pages(1);
	struct vm vm;

	vm_make(&vm, 0);
	VM_START(&vm, VM_LONG, 0, hot);
	vm_slot(&vm, SLOT, 0, AT, 4096, p);
	CHECK_EXIT(&vm, KVM_EXIT_HLT);
	CHECK_EQ(p[0], 1);
	vm_slot(&vm, SLOT, 0, AT, 0, p);
	vm_slot(&vm, SLOT, KVM_MEM_READONLY, AT, 4096, p);
	EXPECT_WRITE(&vm, AT, 4, 9);
	CHECK_EXIT(&vm, KVM_EXIT_HLT);
	CHECK_EQ(p[0], 1);
	CHECK_EQ(vm_regs(&vm).rax, 1);
	vm_destroy(&vm);
}

/* Data and code of a slot that is moved, deleted and replaced. */
GUEST(use_both, 64, "1: mov $0x8000000, %ebx; mov 0x800(%rbx), %edi; call *%rbx; hlt; jmp 1b");

static void code_put(uint8_t *page, uint32_t value)
{
	memcpy(page, "\xbe\0\0\0\0\xc3", 6); /* mov $value, %esi; ret */
	memcpy(page + 1, &value, 4);
	memcpy(page + 0x800, &value, 4);
}

static void replaced(void)
{
	uint8_t *p[4];
	struct vm vm;

	vm_make(&vm, 0);
	VM_START(&vm, VM_LONG, 0, use_both);
	for (unsigned i = 0; i < 40; i++) {
		if (i < 4) {
			p[i] = pages(1);
			code_put(p[i], i + 10);
		}
		vm_slot(&vm, SLOT, 0, AT, 4096, p[i & 3]);
		CHECK_EXIT(&vm, KVM_EXIT_HLT);
		CHECK_EQ(vm_regs(&vm).rdi, (i & 3) + 10);
		CHECK_EQ(vm_regs(&vm).rsi, (i & 3) + 10);
		vm_slot(&vm, SLOT, 0, AT, 0, p[i & 3]);
	}
	/* Gone: the load is a device's, the call goes nowhere. */
	EXPECT_READ(&vm, AT + 0x800, 4);
	CHECK_EXIT(&vm, KVM_EXIT_INTERNAL_ERROR);
	vm_destroy(&vm);
}

static void moved(void)
{
	uint8_t *p = pages(1);
	struct kvm_regs r;
	struct vm vm;

	vm_make(&vm, 0);
	VM_START(&vm, VM_LONG, 0, use_both);
	code_put(p, 77);
	vm_slot(&vm, SLOT, 0, AT, 4096, p);
	CHECK_EXIT(&vm, KVM_EXIT_HLT);
	CHECK_EQ(vm_regs(&vm).rsi, 77);
	vm_slot(&vm, SLOT, 0, AT2, 4096, p);
	EXPECT_READ(&vm, AT + 0x800, 4);
	CHECK_EXIT(&vm, KVM_EXIT_INTERNAL_ERROR);
	/* At the new place, with the same code, changed meanwhile. */
	code_put(p, 78);
	vm_poke(&vm, VM_CODE + 1, AT2, 4);
	r = vm_regs(&vm);
	r.rip = VM_CODE;
	vm_set_regs(&vm, &r);
	CHECK_EXIT(&vm, KVM_EXIT_HLT);
	CHECK_EQ(vm_regs(&vm).rsi, 78);
	CHECK_EQ(vm_regs(&vm).rdi, 78);
	vm_destroy(&vm);
}

/* The slot that the guest runs in is deleted during an exit. */
GUEST(in_slot, 64, "mov $0x8000000, %ebx; jmp *%rbx");
GUEST(in_slot_code, 64, "out %al, $0xf0; mov $1, %eax; hlt");

static void own_code_deleted(void)
{
	uint8_t *p = pages(1);
	struct vm vm;

	vm_make(&vm, 0);
	VM_START(&vm, VM_LONG, 0, in_slot);
	memcpy(p, in_slot_code, in_slot_code_end - in_slot_code);
	vm_slot(&vm, SLOT, 0, AT, 4096, p);
	CHECK_EXIT(&vm, KVM_EXIT_IO);
	vm_slot(&vm, SLOT, 0, AT, 0, p);
	CHECK_EXIT(&vm, KVM_EXIT_INTERNAL_ERROR);
	vm_destroy(&vm);
}

/* The page tables' own slot is replaced by a copy that maps something else. */
GUEST(read_twice, 64,
      "mov 0x20000, %rax; hlt; mov %cr3, %rcx; mov %rcx, %cr3; mov 0x20000, %rax; hlt");

static void tables_replaced(void)
{
	uint8_t *tables = pages(4);
	struct vm vm;

	vm_make(&vm, 0);
	VM_START(&vm, VM_LONG, 0, read_twice);
	vm_poke(&vm, 0x20000, 1, 8);
	vm_poke(&vm, 0x21000, 2, 8);
	CHECK_EXIT(&vm, KVM_EXIT_HLT);
	CHECK_EQ(vm_regs(&vm).rax, 1);
	memcpy(tables, vm.ram + VM_TABLES, 4 * 4096);
	((uint64_t *)(tables + 0x3000))[0x20] = 0x21067;
	/* Slot 0 in three pieces. */
	vm_slot(&vm, 0, 0, 0, 0, vm.ram);
	vm_slot(&vm, 0, 0, 0, VM_TABLES, vm.ram);
	vm_slot(&vm, SLOT, 0, VM_TABLES, 0x4000, tables);
	vm_slot(&vm, SLOT + 1, 0, VM_TABLES + 0x4000, VM_HOLE - VM_TABLES - 0x4000,
		vm.ram + VM_TABLES + 0x4000);
	CHECK_EXIT(&vm, KVM_EXIT_HLT);
	CHECK_EQ(vm_regs(&vm).rax, 2);
	vm_destroy(&vm);
}

/* Many slots of one page each, in shuffled order of memory; accesses across their borders. */
#define MANY 1500
GUEST(sum_many, 64,
      "mov $0x8000000, %ebx; mov $1500, %ecx; xor %eax, %eax\n"
      "1: add (%rbx), %eax; incl 4(%rbx); add $4096, %ebx; dec %ecx; jnz 1b; hlt");
GUEST(cross_many, 64,
      "mov $0x8000ffc, %ebx; mov $1499, %ecx; xor %eax, %eax\n"
      "1: mov (%rbx), %rdx; incq (%rbx); shr $32, %rdx; add %edx, %eax; add $4096, %ebx; dec %ecx; "
      "jnz 1b; hlt");

static void many_slots(void)
{
	uint8_t *p = pages(MANY);
	unsigned sum = 0;
	struct vm vm;

	vm_make(&vm, 0);
	VM_START(&vm, VM_LONG, 0, sum_many);
	for (unsigned i = 0; i < MANY; i++) {
		/* 701 and 1500 have no common factor. */
		uint8_t *page = p + (i * 701ul % MANY) * 4096;

		vm_slot(&vm, 10 + i, 0, AT + i * 4096ul, 4096, page);
		memcpy(page, &i, 4);
		sum += i;
	}
	CHECK_EXIT(&vm, KVM_EXIT_HLT);
	CHECK_EQ((uint32_t)vm_regs(&vm).rax, sum);
	for (unsigned i = 0; i < MANY; i++)
		CHECK_EQ(p[4096ul * i + 4], 1);
	VM_START(&vm, VM_LONG, 0, cross_many);
	CHECK_EXIT(&vm, KVM_EXIT_HLT);
	CHECK_EQ((uint32_t)vm_regs(&vm).rax, sum);
	/* Every other one goes; the guest finds the holes. */
	for (unsigned i = 1; i < MANY; i += 2)
		vm_slot(&vm, 10 + i, 0, AT + i * 4096ul, 0, p);
	VM_START(&vm, VM_LONG, 0, sum_many);
	EXPECT_READ(&vm, AT + 4096, 4);
	vm_destroy(&vm);
}

/* Overlaps and bad arguments change nothing. */
static long slot_try(struct vm *vm, unsigned id, uint64_t gpa, uint64_t size, uint8_t *hva)
{
	struct kvm_userspace_memory_region m = { .slot = id,
						 .guest_phys_addr = gpa,
						 .memory_size = size,
						 .userspace_addr = (uintptr_t)hva };

	return vm_ioctl(vm, vm->fd, KVM_SET_USER_MEMORY_REGION, (unsigned long)&m);
}

static void refused(void)
{
	uint8_t *p = pages(4);
	struct vm vm;

	vm_make(&vm, 0);
	VM_START(&vm, VM_LONG, 0, use_both);
	code_put(p, 5);
	vm_slot(&vm, SLOT, 0, AT, 0x2000, p);
	CHECK_EQ(slot_try(&vm, SLOT + 1, AT + 0x1000, 0x1000, p), -EEXIST);
	CHECK_EQ(slot_try(&vm, SLOT, AT, 0x3000, p), -EINVAL);
	CHECK_EQ(slot_try(&vm, SLOT, AT, 0x2000, p + 0x1000), -EINVAL);
	CHECK_EQ(slot_try(&vm, SLOT, AT, 0x1800, p), -EINVAL);
	CHECK_EQ(slot_try(&vm, SLOT + 1, AT2 + 1, 0x1000, p), -EINVAL);
	CHECK_EXIT(&vm, KVM_EXIT_HLT);
	CHECK_EQ(vm_regs(&vm).rsi, 5);
	CHECK_EQ(vm_regs(&vm).rdi, 5);
	vm_destroy(&vm);
}

/* EFAULT, and which page it was: KVM_EXIT_MEMORY_FAULT, whose numbers headers of this age do not have. */
static void expect_fault(struct vm *vm, uint64_t gpa)
{
	const uint64_t *fault = (const uint64_t *)&vm->run->hw; /* flags, address, size */
	int r;

	vm->run->exit_reason = 0;
	r = vm_run(vm);
	if (r != -EFAULT || vm->run->exit_reason != 39 || fault[0] || fault[1] != gpa ||
	    fault[2] != 4096)
		check_failed(VM_HERE, "%s, reason %u: %#lx %#lx %#lx", vm_exit_text(vm, r),
			     vm->run->exit_reason, fault[0], fault[1], fault[2]);
}

/* Memory of the slot that the process itself may not write: an error exit, no crash. */
GUEST(store_there, 64, "mov $0x8000000, %ebx; mov (%rbx), %eax; mov %eax, (%rbx); hlt");

static void protected_memory(void)
{
	static const int prots[] = { PROT_NONE, PROT_READ };
	uint8_t *p = pages(1);
	struct vm vm;

	for (unsigned i = 0; i < 2; i++) {
		vm_make(&vm, 0);
		mprotect(p, 4096, prots[i]);
		VM_START(&vm, VM_LONG, 0, store_there);
		vm_slot(&vm, SLOT, 0, AT, 4096, p);
		expect_fault(&vm, AT);
		/* And with code there. */
		vm_jump(&vm, AT);
		if (i == 0)
			expect_fault(&vm, AT);
		vm_destroy(&vm);
	}
}

/* Page tables in memory that the process may not read. */
static void protected_tables(void)
{
	uint8_t *p = pages(1);
	struct kvm_sregs s;
	struct vm vm;

	vm_make(&vm, 0);
	VM_START(&vm, VM_LONG, 0, store_there);
	mprotect(p, 4096, PROT_NONE);
	vm_slot(&vm, SLOT, 0, AT, 4096, p);
	s = vm_sregs(&vm);
	s.cr3 = AT;
	vm_set_sregs(&vm, &s);
	expect_fault(&vm, AT);
	vm_destroy(&vm);
}

/* Expect EFAULT, twice; then give access, and the guest goes on as if nothing had been. */
static void expect_fault_then(struct vm *vm, uint8_t *p)
{
	for (unsigned i = 0; i < 2; i++)
		expect_fault(vm, AT);
	mprotect(p, 4096, PROT_READ | PROT_WRITE);
}

GUEST(trap_there, 64, "mov $0x8000800, %esp; mov $7, %eax; int3; hlt");
GUEST(push_there, 64,
      "mov $0x8000800, %esp; mov $7, %eax; pushf; push $5; pop %rbx; inc %eax; hlt");
GUEST(nmi_there, 64, "mov $0x8000800, %esp; mov $1, %ecx; out %al, $0x80; inc %ecx; hlt");

/* Frames that a helper pushes, in leaf context. */
static void protected_stack(void)
{
	uint8_t *p = pages(1);
	struct vm vm;

	vm_make(&vm, 0);
	vm_slot(&vm, SLOT, 0, AT, 4096, p);
	mprotect(p, 4096, PROT_NONE);
	VM_START(&vm, VM_LONG, 0, trap_there);
	expect_fault_then(&vm, p);
	CHECK_EQ(VM_FAULT(&vm, 3).vector, 3);
	CHECK_EQ(*(uint64_t *)(p + 0x7f0), AT + 0x800); /* RSP in the frame */

	mprotect(p, 4096, PROT_NONE);
	VM_START(&vm, VM_LONG, 0, push_there);
	expect_fault_then(&vm, p);
	CHECK_EXIT(&vm, KVM_EXIT_HLT);
	CHECK_EQ(vm_regs(&vm).rax, 8);
	CHECK_EQ(vm_regs(&vm).rbx, 5);
	CHECK_EQ(vm_regs(&vm).rsp, AT + 0x7f8);
	vm_destroy(&vm);
}

/* The frame of an NMI, which KVM_RUN pushes before it enters the guest. */
static void protected_event(void)
{
	uint8_t *p = pages(1);
	struct vm vm;

	vm_make(&vm, 0);
	vm_slot(&vm, SLOT, 0, AT, 4096, p);
	mprotect(p, 4096, PROT_NONE);
	VM_START(&vm, VM_LONG, 0, nmi_there);
	CHECK_EXIT(&vm, KVM_EXIT_IO);
	vm_ioctl(&vm, vm.vcpu, KVM_NMI, 0);
	expect_fault_then(&vm, p);
	CHECK_EQ(VM_FAULT(&vm, 2).vector, 2);
	CHECK_EQ(*(uint64_t *)(p + 0x7f0), AT + 0x800);
	CHECK_EQ(vm_regs(&vm).rcx, 1);
	vm_destroy(&vm);
}

GUEST(clocks_there, 64,
      "mov $0x4b564d00, %ecx; mov $0x8000000, %eax; xor %edx, %edx; wrmsr\n"
      "inc %ecx; mov $0x8000101, %eax; wrmsr; wrmsr; hlt; wrmsr; mov 0x8000120 - 8, %ebx; hlt");

/* Wall clock and time page in memory without access: no time, no end, and the VM's clock is not locked for ever. */
static void protected_clocks(void)
{
	struct kvm_clock_data data;
	uint8_t *p = pages(1);
	struct vm vm;

	vm_make(&vm, 0);
	vm_slot(&vm, SLOT, 0, AT, 4096, p);
	mprotect(p, 4096, PROT_NONE);
	VM_START(&vm, VM_LONG, 0, clocks_there);
	CHECK_EXIT(&vm, KVM_EXIT_HLT);
	CHECK_EQ(vm_ioctl(&vm, vm.fd, KVM_GET_CLOCK, (unsigned long)&data), 0);
	mprotect(p, 4096, PROT_READ | PROT_WRITE);
	CHECK_EXIT(&vm, KVM_EXIT_HLT);
	if (!(uint32_t)vm_regs(&vm).rbx)
		check_failed(VM_HERE, "no time where memory is again");
	vm_destroy(&vm);
}

VM_TESTS({ .name = "read-only", .run = read_only },
	 { .name = "writable, then read-only", .run = becomes_read_only },
	 { .name = "replaced", .run = replaced }, { .name = "moved", .run = moved },
	 { .name = "the running slot deleted", .run = own_code_deleted },
	 { .name = "page tables replaced", .run = tables_replaced },
	 { .name = "1,500 slots", .run = many_slots }, { .name = "refused", .run = refused },
	 { .name = "memory without access", .run = protected_memory },
	 { .name = "page tables without access", .run = protected_tables },
	 { .name = "a stack without access", .run = protected_stack },
	 { .name = "the stack of an NMI without access", .run = protected_event },
	 { .name = "clocks without access", .run = protected_clocks });

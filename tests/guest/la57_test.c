/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Five-level paging: into it and out of it as kernels go, addresses of 57 bits, and what is refused. */
#include <stdlib.h>
#include <string.h>

#include "vm.h"

#define CR4_LA57    (1ull << 12)
#define EFER_LMA    (1ull << 10)
#define PWU	    7ull
#define PML5	    0x18000ul
#define PROBE_AT    0x9000ul
#define LOW57	    (1ull << 48 | VM_DATA)	      /* not canonical in 48 bits */
#define HIGH57	    (0xff00000000000000ull | VM_DATA) /* likewise */
#define ABSENT57    (2ull << 48 | VM_DATA)
#define BEYOND57    (1ull << 56 | VM_DATA) /* not canonical in 57 bits */
#define BEYOND58    (1ull << 57 | VM_DATA)
#define MSR_LSTAR   0xc0000082u
#define MSR_KGSBASE 0xc0000102u

/* Compatibility mode, paging off, CR4.LA57 by @what and CR3, paging on, 64-bit mode. */
#define SWITCH(what, cr3)                                                                          \
	"push $0x18; lea 1f(%rip), %rax; push %rax; lretq\n"                                       \
	".code32\n"                                                                                \
	"1: mov %cr0, %eax; btr $31, %eax; mov %eax, %cr0\n"                                       \
	"mov %cr4, %eax; " what " $12, %eax; mov %eax, %cr4\n"                                     \
	"mov $" cr3 ", %eax; mov %eax, %cr3\n"                                                     \
	"mov %cr0, %eax; bts $31, %eax; mov %eax, %cr0\n"                                          \
	"push $0x08; call 2f\n"                                                                    \
	"2: addl $3f - 2b, (%esp); lret\n"                                                         \
	".code64\n"                                                                                \
	"3: hlt\n"

GUEST(to_five, 64, SWITCH("bts", "0x18000"));
GUEST(to_four, 64, SWITCH("btr", "0x10000"));
GUEST(load, 64, "mov (%rbx), %rcx; hlt");
GUEST(store, 64, "mov %rcx, (%rbx); hlt");
GUEST(jump, 64, "jmp *%rbx");
GUEST(set_cr4, 64, "mov %rcx, %cr4; hlt");
GUEST(set_cr4_32, 32, "mov %cr4, %eax; bts $12, %eax; mov %eax, %cr4; hlt");
GUEST(set_msr, 64,
      "mov %rbx, %rax; mov %rbx, %rdx; shr $32, %rdx; wrmsr; xor %eax, %eax; rdmsr; hlt");
GUEST(cpuid7, 64, "mov $7, %eax; xor %ecx, %ecx; cpuid; hlt");

/* The supported CPUID with or without the feature: a guest's processor is what user space says. */
static void cpuid_set(struct vm *vm, bool has)
{
	struct kvm_cpuid2 *c = calloc(1, sizeof(*c) + 256 * sizeof(c->entries[0]));

	if (!c)
		abort();
	c->nent = 256;
	CHECK_EQ(vm_ioctl(vm, vm->sys, KVM_GET_SUPPORTED_CPUID, (unsigned long)c), 0);
	for (unsigned i = 0; i < c->nent; i++) {
		struct kvm_cpuid_entry2 *e = &c->entries[i];

		if (e->function == 7 && !e->index)
			e->ecx = (e->ecx & ~(1u << 16)) | (unsigned)has << 16;
		if (e->function == 0x80000008) /* width of linear addresses */
			e->eax = (e->eax & ~0xff00u) | (has ? 57 : 48) << 8;
	}
	CHECK_EQ(vm_ioctl(vm, vm->vcpu, KVM_SET_CPUID2, (unsigned long)c), 0);
	free(c);
}

static void make(struct vm *vm)
{
	vm_make(vm, 0);
	if (vm_on_device && !vm_has(vm, 7, 0, 2, 16))
		check_skip("the device's processor has no five levels");
	cpuid_set(vm, true);
	vm_enter(vm, VM_LONG, 0);
	memset(vm->ram + PML5, 0, 4096);
	for (unsigned i = 0; i < 3; i++) /* 0, LOW57, HIGH57: all the same memory */
		vm_poke(vm, PML5 + 8 * (const unsigned[]){ 0, 1, 256 }[i], VM_TABLES | PWU, 8);
}

static void run_at(struct vm *vm, uint64_t at, const uint8_t *code, const uint8_t *end,
		   uint64_t rbx, uint64_t rcx)
{
	struct kvm_regs r = vm_regs(vm);

	vm_load(vm, at, code, end - code);
	r.rip = at;
	r.rbx = rbx;
	r.rcx = rcx;
	r.rsp = VM_STACK;
	vm_set_regs(vm, &r);
}
#define RUN(vm, name, rbx, rcx) run_at(vm, PROBE_AT, name, name##_end, rbx, rcx)

static void levels(struct vm *vm, unsigned n)
{
	if (n == 5)
		run_at(vm, VM_CODE, to_five, to_five_end, 0, 0);
	else
		run_at(vm, VM_CODE, to_four, to_four_end, 0, 0);
	CHECK_EXIT(vm, KVM_EXIT_HLT);
	CHECK_EQ(vm_sregs(vm).cr4 & CR4_LA57, n == 5 ? CR4_LA57 : 0);
	CHECK_EQ(vm_sregs(vm).efer & EFER_LMA, EFER_LMA);
	CHECK_EQ(vm_sregs(vm).cs.l, 1);
}

static uint64_t load_at(struct vm *vm, uint64_t address)
{
	RUN(vm, load, address, 0);
	CHECK_EXIT(vm, KVM_EXIT_HLT);
	return vm_regs(vm).rcx;
}

static void refused(struct vm *vm, uint64_t address, int vector, const char *where)
{
	struct vm_frame f;

	RUN(vm, load, address, 0);
	f = vm_fault(vm, vector, where);
	if (f.error)
		check_failed(where, "error code %lx", f.error);
	if (vector == 14 && f.cr2 != address)
		check_failed(where, "CR2 %lx", f.cr2);
}

static void addresses(void)
{
	struct vm vm;

	make(&vm);
	vm_poke(&vm, VM_DATA, 0x1122334455667788, 8);
	refused(&vm, LOW57, 13, VM_HERE); /* four levels: not canonical */
	refused(&vm, HIGH57, 13, VM_HERE);
	levels(&vm, 5);
	CHECK_EQ(load_at(&vm, VM_DATA), 0x1122334455667788);
	CHECK_EQ(load_at(&vm, LOW57), 0x1122334455667788);
	CHECK_EQ(load_at(&vm, HIGH57), 0x1122334455667788);
	RUN(&vm, store, LOW57, 0x99);
	CHECK_EXIT(&vm, KVM_EXIT_HLT);
	CHECK_EQ(vm_peek(&vm, VM_DATA, 8), 0x99);
	refused(&vm, ABSENT57, 14, VM_HERE);
	refused(&vm, BEYOND57, 13, VM_HERE);
	refused(&vm, BEYOND58, 13, VM_HERE);
	vm_load(&vm, VM_DATA, load, load_end - load);
	RUN(&vm, jump, LOW57, 0); /* code runs there; it loads its own first bytes */
	CHECK_EXIT(&vm, KVM_EXIT_HLT);
	CHECK_EQ(vm_regs(&vm).rip, LOW57 + (load_end - load));
	vm_destroy(&vm);
}

/* Out of it and in again: what was cached of one depth is not used in the other. */
static void there_and_back(void)
{
	struct vm vm;

	make(&vm);
	vm_poke(&vm, VM_DATA, 7, 8);
	for (unsigned i = 0; i < 3; i++) {
		levels(&vm, 5);
		CHECK_EQ(load_at(&vm, LOW57), 7);
		CHECK_EQ(load_at(&vm, VM_DATA), 7);
		levels(&vm, 4);
		CHECK_EQ(load_at(&vm, VM_DATA), 7);
		refused(&vm, LOW57, 13, VM_HERE);
	}
	vm_destroy(&vm);
}

/* CR4.LA57 does not change in long mode, and not without CPUID. */
static void control(void)
{
	struct vm vm;

	make(&vm);
	RUN(&vm, set_cr4, 0, vm_sregs(&vm).cr4 | CR4_LA57);
	CHECK_EQ(VM_FAULT(&vm, 13).error, 0);
	levels(&vm, 5);
	RUN(&vm, set_cr4, 0, vm_sregs(&vm).cr4 & ~CR4_LA57);
	CHECK_EQ(VM_FAULT(&vm, 13).error, 0);
	CHECK_EQ(vm_sregs(&vm).cr4 & CR4_LA57, CR4_LA57);
	RUN(&vm, set_cr4, 0, vm_sregs(&vm).cr4); /* the same value is no change */
	CHECK_EXIT(&vm, KVM_EXIT_HLT);
	vm_destroy(&vm);

	vm_make(&vm, 0);
	cpuid_set(&vm, false);
	vm_enter(&vm, VM_PM32, 0);
	run_at(&vm, VM_CODE, set_cr4_32, set_cr4_32_end, 0, 0);
	CHECK_EQ(VM_FAULT(&vm, 13).error, 0);
	vm_destroy(&vm);

	vm_make(&vm, 0); /* CPUID does not change once a vCPU has run */
	cpuid_set(&vm, true);
	vm_enter(&vm, VM_PM32, 0);
	run_at(&vm, VM_CODE, set_cr4_32, set_cr4_32_end, 0, 0);
	CHECK_EXIT(&vm, KVM_EXIT_HLT);
	CHECK_EQ(vm_sregs(&vm).cr4 & CR4_LA57, CR4_LA57);
	vm_destroy(&vm);
}

/* What an MSR takes as an address follows the width that CPUID names. */
static void registers(void)
{
	static const uint32_t msrs[] = { MSR_LSTAR, MSR_KGSBASE };
	struct vm vm;

	make(&vm);
	levels(&vm, 5);
	for (unsigned i = 0; i < 2; i++) {
		RUN(&vm, set_msr, HIGH57, msrs[i]);
		CHECK_EXIT(&vm, KVM_EXIT_HLT);
		CHECK_EQ(vm_regs(&vm).rax | vm_regs(&vm).rdx << 32, HIGH57);
		RUN(&vm, set_msr, BEYOND57, msrs[i]);
		CHECK_EQ(VM_FAULT(&vm, 13).error, 0);
	}
	RUN(&vm, cpuid7, 0, 0);
	CHECK_EXIT(&vm, KVM_EXIT_HLT);
	CHECK(vm_regs(&vm).rcx >> 16 & 1);
	vm_destroy(&vm);
}

VM_TESTS({ .name = "57-bit addresses", .run = addresses },
	 { .name = "between four levels and five", .run = there_and_back },
	 { .name = "CR4.LA57", .run = control }, { .name = "MSRs and CPUID", .run = registers });

/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Upper halves of registers while 64-bit mode is left and entered again: what is written there has 32 bits, the rest is kept. */
#include "vm.h"

#define POISON 0xfeedface00000000ull

/* From a mode with 32-bit stack back to 64-bit code. */
#define BACK                                                                                       \
	"pushl $0x08; calll 2f\n"                                                                  \
	"2: addl $3f - 2b, (%esp); lretl\n"                                                        \
	".code64\n"                                                                                \
	"3: hlt\n"
#define WRITES "mov %cr3, %ecx; incl %ebx; movw $0x1234, %dx; movb $0x56, %dh\n"

GUEST(by_compat32, 64,
      "push $0x18; lea 1f(%rip), %rax; push %rax; lretq\n"
      ".code32\n"
      "1: " WRITES BACK);
GUEST(by_compat16, 64,
      "push $0x38; lea 1f(%rip), %rax; push %rax; lretq\n"
      ".code16\n"
      "1: " WRITES BACK);
/* Out of long mode as well. */
GUEST(by_legacy, 64,
      "push $0x18; lea 1f(%rip), %rax; push %rax; lretq\n"
      ".code32\n"
      "1: mov %cr0, %eax; btr $31, %eax; mov %eax, %cr0\n" WRITES
      "mov %cr0, %eax; bts $31, %eax; mov %eax, %cr0\n" BACK);

static void check_register(const char *name, uint64_t got, uint64_t expected)
{
	/* The manuals leave open what becomes of upper halves; a real processor is held to the rest. */
	if (vm_on_device ? (uint32_t)got != (uint32_t)expected : got != expected)
		check_failed(VM_HERE, "%s is %#lx, expected %#lx", name, got, expected);
}

static void round_trip(const char *what, const uint8_t *code, const uint8_t *end)
{
	struct kvm_regs r, out;
	struct vm vm;

	check_note("by %s", what);
	vm_make(&vm, 0);
	vm_enter(&vm, VM_LONG, 0);
	vm_load(&vm, VM_CODE, code, end - code);
	r = vm_regs(&vm);
	r.rcx = r.rbx = r.rdx = r.rsi = r.rdi = r.rbp = POISON | 0x11112222;
	r.r8 = r.r9 = r.r10 = r.r11 = r.r12 = r.r13 = r.r14 = r.r15 = POISON | 0x33334444;
	vm_set_regs(&vm, &r);
	CHECK_EXIT(&vm, KVM_EXIT_HLT);
	out = vm_regs(&vm);
	check_register("rcx", out.rcx, (uint32_t)vm_sregs(&vm).cr3);
	check_register("rbx", out.rbx, 0x11112223);
	check_register("rdx", out.rdx, POISON | 0x11115634);
	check_register("rsi", out.rsi, r.rsi);
	check_register("rdi", out.rdi, r.rdi);
	check_register("rbp", out.rbp, r.rbp);
	check_register("rsp", out.rsp, r.rsp);
	check_register("r8", out.r8, r.r8);
	check_register("r12", out.r12, r.r12);
	check_register("r13", out.r13, r.r13);
	check_register("r15", out.r15, r.r15);
	vm_destroy(&vm);
}

static void round_trips(void)
{
	round_trip("compatibility mode", by_compat32, by_compat32_end);
	round_trip("16-bit compatibility mode", by_compat16, by_compat16_end);
	round_trip("protected mode without paging", by_legacy, by_legacy_end);
}

VM_TESTS({ .name = "there and back", .run = round_trips });

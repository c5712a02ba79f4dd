/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Stack instructions in a row: what a block keeps from one to the next must not outlive a helper between them. */
#include "vm.h"

/* POP m between POPs, as in the epilogue of EDK II's exception handler: the helper in the middle used up a scratch register. */
GUEST(pops, 64,
      "lea 0x200(%rbx), %rsp; lea 0x100(%rbx), %rbp\n"
      "mov $1, %eax; push %rax; inc %eax; push %rax; inc %eax; push %rax; inc %eax; push %rax\n"
      "pop %rdi; pop %rsi; pop 0x30(%rbp); pop %rdx; mov 0x30(%rbp), %rax; hlt");

static void pop_between(void)
{
	struct vm vm;
	struct kvm_regs regs;

	vm_make(&vm, 0);
	VM_START(&vm, VM_LONG, 0, pops);
	regs = vm_regs(&vm);
	regs.rbx = VM_DATA;
	vm_set_regs(&vm, &regs);
	CHECK_EXIT(&vm, KVM_EXIT_HLT);
	regs = vm_regs(&vm);
	CHECK_EQ(regs.rdi, 4);
	CHECK_EQ(regs.rsi, 3);
	CHECK_EQ(regs.rax, 2);
	CHECK_EQ(regs.rdx, 1);
	CHECK_EQ(regs.rsp, VM_DATA + 0x200);
	vm_destroy(&vm);
}

/* Pushes across the end of a page, which C does, of what another segment has: the stack's segment is not the operand's. */
GUEST(push_gs, 64,
      "mov $0xc0000101, %ecx; mov $0x21000, %eax; xor %edx, %edx; wrmsr; mov $0x100, %ebx\n"
      "mov $0x30004, %esp; push %gs:(%rbx); mov (%rsp), %rsi\n"
      "lea 1f(%rip), %rdx; mov %rdx, %gs:8(%rbx); mov $0x30004, %esp; call *%gs:8(%rbx); 2: hlt\n"
      "1: lea 2b(%rip), %rdx; mov (%rsp), %rdi; sub %rdx, %rdi; hlt");

static void push_by_segment(void)
{
	struct vm vm;
	struct kvm_regs regs;

	vm_make(&vm, 0);
	VM_START(&vm, VM_LONG, 0, push_gs);
	vm_poke(&vm, 0x21100, 0x1111, 8);
	vm_poke(&vm, 0x100, 0x2222, 8);
	vm_poke(&vm, 0x108, VM_CODE, 8);
	CHECK_EXIT(&vm, KVM_EXIT_HLT);
	regs = vm_regs(&vm);
	CHECK_EQ(regs.rsi, 0x1111);
	CHECK_EQ(regs.rdi, 0);
	CHECK_EQ(regs.rsp, 0x2fffc);
	vm_destroy(&vm);
}

VM_TESTS({ .name = "POP to memory between POPs", .run = pop_between },
	 { .name = "PUSH and CALL of another segment across pages", .run = push_by_segment });

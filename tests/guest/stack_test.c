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

VM_TESTS({ .name = "POP to memory between POPs", .run = pop_between });

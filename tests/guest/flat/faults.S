/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* 64-bit mode: a page fault whose handler returns to it, for ever. */
#include "flat.inc"

	long_mode
	putc $'s'
	movq $handler, %rax
	movw %ax, idt + 14 * 16
	movw $8, idt + 14 * 16 + 2
	movl $0x8e00, idt + 14 * 16 + 4
	movq $0, idt + 14 * 16 + 8
	lidt idt_pointer
	movq $0x40001238, %rbx
	movl (%rbx), %eax
	putc $'!'
	hlt
handler:
	addq $8, %rsp
	iretq
idt_pointer:
	.word 15 * 16 - 1
	.quad idt
	.set idt, 0xc000

/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* 64-bit mode: registers, a page fault's address, and SSE. */
#include "flat.inc"

	long_mode
	movq $0x123456789abcdef0, %rax
	movq %rax, %r15
	bswapq %r15
	movabsq $0xf0debc9a78563412, %rcx
	cmpq %rcx, %r15
	jne 9f
	putc $'r'
	movq %cr0, %rax
	andq $~4, %rax
	orq $2, %rax
	movq %rax, %cr0
	movq %cr4, %rax
	orq $0x600, %rax
	movq %rax, %cr4
	movl $3, %eax
	cvtsi2sdq %rax, %xmm3
	mulsd %xmm3, %xmm3
	cvttsd2siq %xmm3, %rax
	cmpq $9, %rax
	jne 9f
	putc $'f'
	movq $handler, %rax
	movw %ax, idt + 14 * 16
	movw $8, idt + 14 * 16 + 2
	movl $0x8e00, idt + 14 * 16 + 4
	movq $0, idt + 14 * 16 + 8
	lidt idt_pointer
	movq $0x40001238, %rbx
	movl (%rbx), %eax
9:
	putc $'!'
	hlt
handler:
	popq %rax
	testq %rax, %rax
	jnz 9b
	movq %cr2, %rax
	cmpq %rbx, %rax
	jne 9b
	putc $'p'
	hlt
idt_pointer:
	.word 15 * 16 - 1
	.quad idt
	.set idt, 0xc000

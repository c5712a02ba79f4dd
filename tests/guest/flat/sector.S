/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* A boot sector through the old modes: real, 16-bit and 32-bit protected, a task switch, v8086, unreal; one letter each. */
#include "flat.inc"

	.set tss1, 0x8000
	.set tss2, 0x8100
	.set idt, 0x8200
	.set stack2, 0x9000

	entry
	putc $'r'
	lgdt pointer
	movl %cr0, %eax
	orb $1, %al
	movl %eax, %cr0
	ljmpw $0x08, $protected16

protected16:
	movw $0x18, %ax
	movw %ax, %ds
	movw %ax, %es
	movw %ax, %ss
	putc $'p'
	/* Two tasks: this one, and one that answers and returns by IRET. */
	movw $tss1, %di
	xorw %ax, %ax
	movw $0x80, %cx
	rep stosw
	movl $task, tss2 + 0x20
	movl $0x2, tss2 + 0x24
	movl $stack2, tss2 + 0x38
	movw $0x18, tss2 + 0x48
	movw $0x10, tss2 + 0x4c
	movw $0x18, tss2 + 0x50
	movw $0x18, tss2 + 0x54
	movw $0x20, %ax
	ltr %ax
	ljmpl $0x10, $protected32

	.code32
protected32:
	movl $0x18, %eax
	movl %eax, %ss
	movl $FLAT_ADDRESS, %esp
	putc $'q'
	lcall $0x28, $0
	putc $'b'
	/* #GP by INT in v8086 mode comes to a gate of this level: the stack of the first TSS. */
	movl $FLAT_ADDRESS, tss1 + 4
	movl $0x18, tss1 + 8
	movl $idt, %edi
	movl $(0x10 << 16), 13 * 8(%edi)
	movw $monitor, 13 * 8(%edi)
	movl $0x8e00, 13 * 8 + 4(%edi)
	lidt idt_pointer
	movl $0, %eax
	pushl %eax
	pushl %eax
	pushl %eax
	pushl %eax
	pushl %eax
	pushl $stack2
	pushl $0x20002
	pushl %eax
	pushl $virtual
	iretl

task:
	putc $'t'
	iretl

monitor:
	movl $0x18, %eax
	movl %eax, %ds
	testl $0x20000, 12(%esp)
	jz 8f
	cmpl $virtual_int, 4(%esp)
	jne 8f
	putc $'m'
	/* To real mode with segments of 4 GiB left behind. */
	movl $0x18, %eax
	movl %eax, %es
	ljmpw $0x08, $leaving
8:
	putc $'!'
	hlt

	.code16
virtual:
	movw %sp, %ax
	cmpw $stack2, %ax
	jne 9f
virtual_int:
	int $0x21
9:
	hlt
leaving:
	movl %cr0, %eax
	andb $0xfe, %al
	movl %eax, %cr0
	ljmpw $0, $unreal
unreal:
	xorw %ax, %ax
	movw %ax, %ds
	movw %ax, %ss
	movw $FLAT_ADDRESS, %sp
	movl $0x200000, %ebx
	movl $0x55667788, %es:(%ebx)
	cmpl $0x55667788, %es:(%ebx)
	jne 9b
	putc $'u'
	hlt

	.balign 8
gdt:
	.quad 0
	.quad 0x00009b000000ffff /* 08: 16-bit code */
	.quad 0x00cf9b000000ffff /* 10: 32-bit code */
	.quad 0x00cf93000000ffff /* 18: data */
	.quad 0x0000890080000067 /* 20: first task */
	.quad 0x0000890081000067 /* 28: second task */
pointer:
	.word pointer - gdt - 1
	.long gdt
idt_pointer:
	.word 14 * 8 - 1
	.long idt
	.org 510
	.word 0xaa55

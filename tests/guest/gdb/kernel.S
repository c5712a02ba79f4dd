/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* A kernel for the debugger's test: it enters 64-bit mode and counts until `finish` is set, then resets the machine. */
	.section .note.Xen, "a", @note
	.align 4
	.long 4, 4, 18 /* XEN_ELFNOTE_PHYS32_ENTRY */
	.asciz "Xen"
	.long start

	.text
	.code32
	.globl start
start:
	mov $stack, %esp
	mov %cr4, %eax
	or $0x220, %eax /* PAE, OSFXSR */
	mov %eax, %cr4
	mov $pml4, %eax
	mov %eax, %cr3
	mov $0xc0000080, %ecx
	rdmsr
	or $0x100, %eax
	wrmsr
	mov %cr0, %eax
	or $0x80000000, %eax
	mov %eax, %cr0
	lgdt gdt_place
	ljmp $8, $long_mode

	.code64
	.globl long_mode
long_mode:
	xor %ecx, %ecx
	call work
	cmpl $0, finish
	je long_mode
	mov $0xfe, %al
	out %al, $0x64
1:	hlt
	jmp 1b

	.globl work, loaded, counted
work:
	movabs $0x1122334455667788, %rax
loaded:
	incl counter
counted:
	mov counter, %ebx
	movq %rax, %xmm1
	ret

	.data
	.globl counter, finish
counter:
	.long 0
finish:
	.long 0
	.align 8
gdt:
	.quad 0, 0x00af9b000000ffff, 0x00cf93000000ffff
gdt_place:
	.word 23
	.long gdt
	.align 4096
pml4:
	.quad pdpt + 3
	.fill 511, 8, 0
pdpt:
	.quad pages + 3
	.fill 511, 8, 0
pages:
	.set at, 0
	.rept 32
	.quad at + 0x83
	.set at, at + 0x200000
	.endr
	.fill 480, 8, 0
	.fill 4096, 1, 0
stack:
	.section .note.GNU-stack, "", @progbits

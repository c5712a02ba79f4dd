/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Reads and writes where there is no memory: exits with the address, all ones come back. */
#include "flat.inc"

	long_mode
	movl $0x200000, %ebx
	movq 8(%rbx), %rax
	incq %rax
	jnz 2f
	putc $'1'
2:
	movw $0x1234, 0x10(%rbx)
	movl $5, %eax
	addl %eax, 0x20(%rbx)
	movl $0x1ffffe, %esi
	movl (%rsi), %ecx
	hlt

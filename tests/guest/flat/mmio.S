/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Reads memory that nobody backs: all ones. */
#include "flat.inc"

	entry
	movw $0xd000, %ax
	movw %ax, %ds
	movl 0x10, %ebx
	incl %ebx
	jnz 2f
	putc $'1'
2:
	movl %ebx, 0x20
	poweroff

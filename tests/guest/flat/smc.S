/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Self-modifying code: the store to the next instruction counts, also on the second pass of a loop. */
#include "flat.inc"

	entry
	movw $3, %cx
2:
	incb 3f+1
3:
	movb $'a', %al
	movw $UART, %dx
	outb %al, %dx
	loop 2b
	movb $'x', 4f+1
4:
	movb $'y', %al
	outb %al, %dx
	hlt

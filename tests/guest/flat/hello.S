/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Real mode: prints a word and halts. */
#include "flat.inc"

	entry
	movw $text, %si
	movw $UART, %dx
2:
	lodsb
	testb %al, %al
	jz 3f
	outb %al, %dx
	jmp 2b
3:
	hlt
text:
	.asciz "hello\n"

/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* A jump to where there is no memory. */
#include "flat.inc"

	long_mode
	putc $'n'
	movl $0x200000, %ebx
	jmpq *%rbx

/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* A reset through port 0xcf9. */
#include "flat.inc"

	entry
	movw $RESET, %dx
	movb $6, %al
	outb %al, %dx
	hlt

/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* A reset by the pulse of the keyboard controller. */
#include "flat.inc"

	entry
	movb $0xfe, %al
	outb %al, $0x64
	hlt

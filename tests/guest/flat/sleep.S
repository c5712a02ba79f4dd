/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Halts with interrupts off: nothing can wake it. */
#include "flat.inc"

	entry
	putc $'s'
2:
	hlt
	jmp 2b

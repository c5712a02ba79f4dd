/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* An endless loop with interrupts off. */
#include "flat.inc"

	entry
	putc $'s'
2:
	jmp 2b

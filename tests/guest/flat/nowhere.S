/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* A jump to where there is no memory. */
#include "flat.inc"

	entry
	putc $'n'
	ljmpw $0xd000, $0

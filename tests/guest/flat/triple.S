/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* An interrupt without a table: triple fault. */
#include "flat.inc"

	entry
	lidt empty
	int3
	hlt
empty:
	.word 0
	.long 0

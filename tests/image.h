/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* XSAVE images of tests: what must be done before two of them can be compared. */
#ifndef TESTS_IMAGE_H
#define TESTS_IMAGE_H

#include <string.h>

#include "cpu/x86/xstate.h"

/* A component that the header calls initial may hold anything: give it its initial value. */
static inline void image_complete(u8 *x, u64 components)
{
	const struct xstate_layout *l = xstate_layout();
	u64 bv;

	memcpy(&bv, x + XS_BV, 8);
	if (!(bv & XC_X87)) {
		memset(x, 0, XS_MXCSR);
		memset(x + XS_ST, 0, 128);
		x[0] = FCW_INIT & 0xff;
		x[1] = FCW_INIT >> 8;
	}
	if (!(bv & XC_SSE))
		memset(x + XS_XMM, 0, 256);
	for (unsigned i = 2; i < XC_COUNT; i++)
		if (components >> i & 1 && !(bv >> i & 1))
			memset(x + l->offset[i], 0, l->size[i]);
}

#endif

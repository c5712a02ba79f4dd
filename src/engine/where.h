/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Where a vCPU's time goes: one word per vCPU, which anybody may read at any time. */
/*
 * What runs in full context or takes a microsecond (translation) writes the word always. The short calls out of translated
 * code do not: while a VM is watched, each vCPU points the calls of its own stubs to the functions of watch.c, which
 * write it and then do the same. Unwatched code is byte for byte what it was, so watching costs nothing while it is off.
 */
#ifndef ENGINE_WHERE_H
#define ENGINE_WHERE_H

#include "cpu/x86/ops.h"
#include "engine/engine.h"

enum engine_where {
	WHERE_GUEST,	 /* translated code, or the word of an unwatched VM */
	WHERE_SLOW,	 /* the slow path of a memory access */
	WHERE_DISPATCH,	 /* looking for the next block */
	WHERE_TRANSLATE, /* making it */
	WHERE_DEVICE,	 /* an access to a device, across pages, or under a mask that faults */
	WHERE_ENGINE,	 /* exceptions, requests of other vCPUs, the rest */
	WHERE_OP,	 /* and more: a helper, by its number in ops.def */
	WHERE_COUNT = WHERE_OP + X86_OP_COUNT,
};

/* Calls out of the stubs that are redirected: functions of slow.c and dispatch.c. Which of them a site calls is found by its address. */
#define WATCH_SITES 24
struct watch_sites {
	u8 *at[WATCH_SITES]; /* the 64-bit address that is called, where it can be written */
	u32 n;
};

#endif

/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* What was decoded before, so that most instructions need no decoder. Of one vCPU, for 64-bit mode. */
#ifndef ENGINE_X86_MEMO_H
#define ENGINE_X86_MEMO_H

#include "engine/x86/decode.h"

#define MEMO_BITS 12

struct memo_entry {
	u64 key;
	struct decoded d; /* .insn.len is 0 when the entry is empty */
};

struct memo {
	struct memo_entry e[BIT(MEMO_BITS)];
};

/* What decode() would say of the @n bytes (1-15) in 64-bit mode; false when only that can tell. Leaf. */
bool memo_find(const struct memo *m, const u8 *bytes, unsigned n, struct decoded *out);
/* Remember what decode() said in 64-bit mode, with status 0. Leaf. */
void memo_keep(struct memo *m, const struct decoded *d);

#endif

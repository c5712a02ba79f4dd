/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* SHA-256 of all memory: --verify compares it on both sides. */
#ifndef VMM_MOVE_DIGEST_H
#define VMM_MOVE_DIGEST_H

#include "vmm/ram.h"

int ram_digest(const struct ram *ram, u8 digest[32], struct why *why); /* 0 or -errno */
void digest_text(const u8 digest[32], char text[65]);

#endif

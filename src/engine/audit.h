/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The option "audit": what is cached is compared with the tables of now. */
#ifndef ENGINE_AUDIT_H
#define ENGINE_AUDIT_H

#include "engine/vcpu.h"

/*
 * Called from translated code behind a hit of @insn, every options.audit-th time: compare all that is cached for the current
 * space (TLB, register cache, execute tags; of the branch cache a part) with the guest's tables and the memory slots, and
 * count what is not mapped any more, and what is mapped otherwise. A guest may have changed its tables and not flushed yet: Linux
 * does so for what it unmaps, and flushes before it maps something else there. 0: to be left with v->reason, because options.audit_strict says so. Leaf.
 */
u64 engine_audit(struct engine_vcpu *v, const struct x86_insn *insn);

#endif

/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The helpers of ops.def: numbers and prototypes. */
#ifndef CPU_X86_OPS_H
#define CPU_X86_OPS_H

#include "cpu/x86/insn.h"

enum x86_op {
	X86_OP_NONE,
#define X86_OP(name, context) X86_OP_##name,
#include "cpu/x86/ops.def"
#undef X86_OP
	X86_OP_COUNT,
};

/*
 * Contract of every helper: cpu->rip is the instruction, cpu->next_rip the one after (cut to the mode).
 * X86_OK: done; control transfers have written cpu->next_rip. Any other status: registers and memory are
 * as before, except what the architecture says is kept (REP strings: registers after whole elements).
 * A REP string may return X86_OK with cpu->next_rip = cpu->rip to be continued (poll between chunks).
 */
#define X86_OP(name, context)                                                                      \
	enum x86_status x86_op_##name(struct x86_cpu *cpu, const struct x86_insn *insn);
#include "cpu/x86/ops.def"
#undef X86_OP

#endif

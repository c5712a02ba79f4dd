/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Pieces of far transfers: stacks that are not loaded yet, checked code segments, the stacks of a TSS. */
#ifndef CPU_X86_FRAME_H
#define CPU_X86_FRAME_H

#include "cpu/x86/segment.h"

/* A stack to push to or pop from before the registers change. */
struct x86_stack {
	struct x86_seg seg;
	u64 sp;
	u64 mask;	 /* of the stack pointer: 16, 32 or 64 bits */
	unsigned access; /* ACC_SYSTEM, or 0 for the rights of the current CPL */
	bool wide;	 /* 64-bit mode: no segmentation */
	bool fresh;	 /* selected by this very instruction: #SS carries the selector */
};

/* The current stack. */
void x86_stack_current(const struct x86_cpu *cpu, struct x86_stack *s);
/* Push @n values of @size bytes, v[0] first (to the highest address); nothing is written when one cannot be. */
enum x86_status x86_stack_push(struct x86_cpu *cpu, struct x86_stack *s, const u64 *v, unsigned n,
			       unsigned size);
/* Pop @n values, v[0] from the top. */
enum x86_status x86_stack_pop(struct x86_cpu *cpu, struct x86_stack *s, u64 *v, unsigned n,
			      unsigned size);
/* Make @s the current stack's pointer (the segment is the caller's). */
void x86_stack_commit(struct x86_cpu *cpu, const struct x86_stack *s);

/* The stack that the TSS names for @dpl (32- and 16-bit TSS), all checks made: #TS, #SS. */
enum x86_status x86_stack_from_tss(struct x86_cpu *cpu, unsigned dpl, struct x86_stack *s);
/* RSPn (@index 0-2) or ISTn (@index 4-10: 3 + n) of a 64-bit TSS. */
enum x86_status x86_rsp_from_tss(struct x86_cpu *cpu, unsigned index, u64 *rsp);

/*
 * Read and check the code segment that a gate names for a handler at DPL <= CPL: #GP, #NP. The new CPL is in
 * *cpl (the current one for conforming segments). @d is marked accessed.
 */
enum x86_status x86_gate_code(struct x86_cpu *cpu, u16 sel, struct x86_desc *d, unsigned *cpl);
/* Whether @rip may be the next instruction's address in @cs, else #GP(0). */
enum x86_status x86_check_target(struct x86_cpu *cpu, const struct x86_seg *cs, u64 rip);
/* Load CS with RPL = @cpl. */
void x86_load_code(struct x86_cpu *cpu, const struct x86_desc *d, u16 sel, unsigned cpl);

/* A far return in protected mode: what was checked and is to be loaded. */
struct x86_return {
	struct x86_desc cs;
	struct x86_seg ss;
	u16 cs_sel;
	unsigned cpl; /* new: RPL of CS */
	u64 rip, sp;
};
/* Check CS and RIP: #GP, #NP. */
enum x86_status x86_return_code(struct x86_cpu *cpu, u16 sel, u64 rip, struct x86_return *r);
/* Check SS against the new CPL: #GP, #SS. */
enum x86_status x86_return_stack(struct x86_cpu *cpu, u16 sel, u64 sp, struct x86_return *r);
/* Load CS, SS and RSP; with a less privileged CPL make data segments null that it may not use. */
void x86_return_outer(struct x86_cpu *cpu, const struct x86_return *r);

/* task.c */
enum x86_task_switch { TASK_CALL, TASK_JMP, TASK_IRET, TASK_GATE /* by an event */ };
/* Switch to the task of TSS selector @sel; cpu->next_rip is the new EIP. @rip is saved in the old TSS. */
enum x86_status x86_task_switch(struct x86_cpu *cpu, u16 sel, enum x86_task_switch why, u64 rip,
				bool has_error, u32 error);
/* IRET with NT set: back to the task that the current one is linked to. */
enum x86_status x86_task_return(struct x86_cpu *cpu, u64 rip);

#endif

/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Events, and what enters and leaves a kernel: gates, frames, double and triple faults, IRET, SYSCALL, far calls, tasks. */
#include "x86_guest.h"

#define HANDLER 0x12340u

static u64 frame(struct guest *g, unsigned index)
{
	return guest_get(g, g->cpu->gpr[RSP] + 8 * index, 8);
}

static u32 frame32(struct guest *g, unsigned index)
{
	return (u32)guest_get(g, g->cpu->gpr[RSP] + 4 * index, 4);
}

static void test_reset(void **state)
{
	struct guest *g = *state;
	struct x86_cpu *cpu = g->cpu;

	cpu->cr0 = CR0_PE | CR0_PG | CR0_NW;
	cpu->pat = 1;
	cpu->gpr[RAX] = 5;
	x86_reset(cpu, true);
	assert_int_equal(cpu->cr0, CR0_ET | CR0_NW);
	assert_int_equal(cpu->pat, 1);
	assert_int_equal(cpu->gpr[RAX], 0);
	x86_reset(cpu, false);
	assert_int_equal(cpu->cr0, 0x60000010);
	assert_int_equal(cpu->pat, 0x0007040600070406);
	assert_int_equal(cpu->rip, 0xfff0);
	assert_int_equal(cpu->seg[SEG_CS].base, 0xffff0000);
	assert_int_equal(cpu->seg[SEG_CS].sel, 0xf000);
	assert_int_equal(cpu->idt.limit, 0xffff);
	assert_int_equal(cpu->dr6, 0xffff0ff0);
	assert_int_equal(cpu->dr7, 0x400);
	assert_int_equal(x86_rflags(cpu), 2);
	assert_int_equal(cpu->mode, 0);
	assert_true(cpu->flush.all);
}

static void test_real(void **state)
{
	struct guest *g = *state;
	struct x86_cpu *cpu = g->cpu;
	struct x86_insn insn = guest_insn(2);

	guest_put(g, 0x21 * 4, 0x20001234, 4);
	cpu->seg[SEG_CS].base = 0x10000;
	cpu->seg[SEG_CS].sel = 0x1000;
	cpu->gpr[RSP] = 0x8000;
	cpu->rip = 0x100;
	cpu->next_rip = 0x102;
	cpu->f.intr = 1;
	insn.imm = 0x21;
	assert_int_equal(x86_op_int_n(cpu, &insn), X86_OK);
	assert_int_equal(cpu->next_rip, 0x1234);
	assert_int_equal(cpu->seg[SEG_CS].base, 0x20000);
	assert_false(cpu->f.intr);
	assert_int_equal(cpu->gpr[RSP], 0x7ffa);
	assert_int_equal(guest_get(g, 0x7ffa, 2), 0x102);
	assert_int_equal(guest_get(g, 0x7ffc, 2), 0x1000);
	assert_int_equal(guest_get(g, 0x7ffe, 2), FL_IF | 2);
	assert_int_equal(x86_op_iret(cpu, &insn), X86_OK);
	assert_int_equal(cpu->next_rip, 0x102);
	assert_int_equal(cpu->seg[SEG_CS].base, 0x10000);
	assert_true(cpu->f.intr);
	/* SP 2: the frame wraps around the end of the segment. */
	cpu->gpr[RSP] = 2;
	assert_int_equal(x86_op_int_n(cpu, &insn), X86_OK);
	assert_int_equal(cpu->gpr[RSP], 0xfffc);
	assert_int_equal(guest_get(g, 0, 2), FL_IF | 2);
	assert_int_equal(guest_get(g, 0xfffe, 2), 0x1000);
	assert_int_equal(x86_op_iret(cpu, &insn), X86_OK);
	assert_int_equal(cpu->gpr[RSP], 2);
	/* No table: shutdown. */
	cpu->idt.limit = 0;
	x86_raise_ud(cpu);
	assert_int_equal(x86_deliver_exception(cpu), X86_EXIT);
	assert_int_equal(cpu->exit.reason, X86_EXIT_SHUTDOWN);
}

static void test_long_same(void **state)
{
	struct guest *g = *state;
	struct x86_cpu *cpu = g->cpu;
	struct x86_insn insn = guest_insn(8);

	guest_long(g, 0);
	guest_gate64(g, 14, SEL_CODE0, 0x200000 + HANDLER, 0x8e, 0);
	cpu->gpr[RSP] = AT_STACK - 4; /* aligned down by the entry */
	cpu->rip = 0x5000;
	cpu->f.intr = 1;
	cpu->f.tf = 1;
	x86_raise_pf(cpu, PF_W, 0xdead000);
	assert_int_equal(x86_deliver_exception(cpu), X86_OK);
	assert_int_equal(cpu->rip, 0x200000 + HANDLER);
	assert_int_equal(cpu->cr2, 0xdead000);
	assert_int_equal(cpu->gpr[RSP], AT_STACK - 16 - 48);
	assert_int_equal(frame(g, 0), PF_W);
	assert_int_equal(frame(g, 1), 0x5000);
	assert_int_equal(frame(g, 2), SEL_CODE0);
	assert_int_equal(frame(g, 3), FL_RF | FL_TF | FL_IF | 2);
	assert_int_equal(frame(g, 4), AT_STACK - 4);
	assert_int_equal(frame(g, 5), SEL_DATA0);
	assert_false(cpu->f.intr || cpu->f.tf);
	assert_int_equal(cpu->seg[SEG_SS].sel, SEL_DATA0);
	cpu->gpr[RSP] += 8;
	assert_int_equal(x86_op_iret(cpu, &insn), X86_OK);
	assert_int_equal(cpu->next_rip, 0x5000);
	assert_int_equal(cpu->gpr[RSP], AT_STACK - 4);
	assert_int_equal(x86_rflags(cpu), FL_RF | FL_TF | FL_IF | 2);
}

static void test_long_outer(void **state)
{
	struct guest *g = *state;
	struct x86_cpu *cpu = g->cpu;
	struct x86_insn insn = guest_insn(8);

	guest_long(g, 3);
	guest_gate64(g, 0x20, SEL_CODE0, 0xffffffff80000000, 0x8e, 0);
	guest_gate64(g, 0x80, SEL_CODE0, HANDLER, 0xef, 0);
	guest_gate64(g, 2, SEL_CODE0, HANDLER, 0x8e, 1);
	cpu->rip = 0x7000;
	cpu->f.intr = 1;
	cpu->seg[SEG_FS].base = 0x7777; /* null selector: kept on the way out */
	assert_int_equal(x86_deliver(cpu, EVENT_INTERRUPT, 0x20), X86_OK);
	assert_int_equal(cpu->rip, 0xffffffff80000000);
	assert_int_equal(cpu->cpl, 0);
	assert_int_equal(cpu->seg[SEG_SS].sel, 0);
	assert_int_equal(cpu->gpr[RSP], AT_RSP0 - 40);
	assert_int_equal(frame(g, 0), 0x7000);
	assert_int_equal(frame(g, 1), SEL_CODE3);
	assert_int_equal(frame(g, 2), FL_IF | 2);
	assert_int_equal(frame(g, 3), AT_STACK);
	assert_int_equal(frame(g, 4), SEL_DATA3);
	/* NMI on top: IST 1; a second one is blocked until IRET. */
	assert_int_equal(x86_deliver(cpu, EVENT_NMI, 2), X86_OK);
	assert_int_equal(cpu->gpr[RSP], AT_IST1 - 40);
	assert_true(cpu->event.nmi_blocked);
	cpu->irq_waiting = true;
	assert_int_equal(x86_op_iret(cpu, &insn), X86_OK);
	assert_false(cpu->event.nmi_blocked);
	assert_int_equal(cpu->kick, 1);
	cpu->kick = 0;
	cpu->irq_waiting = false;
	assert_int_equal(cpu->gpr[RSP], AT_RSP0 - 40);
	assert_int_equal(cpu->seg[SEG_SS].sel, 0);
	cpu->irq_waiting = true;
	assert_int_equal(x86_op_iret(cpu, &insn), X86_OK);
	assert_int_equal(cpu->cpl, 3);
	assert_int_equal(cpu->next_rip, 0x7000);
	assert_int_equal(cpu->kick, 1);
	assert_int_equal(cpu->seg[SEG_FS].base, 0x7777);
	assert_int_equal(cpu->seg[SEG_SS].sel, SEL_DATA3);
	/* INT n asks for the gate's DPL; INT 0x80 is open and a trap gate. */
	insn.imm = 0x20;
	guest_fault(g, x86_op_int_n(cpu, &insn), VEC_GP, 0x20 * 8 + 2);
	insn.imm = 0x80;
	cpu->next_rip = 0x7002;
	assert_int_equal(x86_op_int_n(cpu, &insn), X86_OK);
	assert_int_equal(cpu->next_rip, HANDLER);
	assert_true(cpu->f.intr);
	assert_int_equal(frame(g, 0), 0x7002);
}

static void test_double_fault(void **state)
{
	struct guest *g = *state;
	struct x86_cpu *cpu = g->cpu;

	guest_long(g, 3);
	guest_gate64(g, 8, SEL_CODE0, HANDLER, 0x8e, 1);
	guest_gate64(g, 14, SEL_CODE0, HANDLER, 0x8e, 0);
	cpu->rip = 0x7000;
	/* #UD has no gate: #GP, which has none either: double fault. */
	x86_raise_ud(cpu);
	assert_int_equal(x86_deliver_exception(cpu), X86_OK);
	assert_int_equal(cpu->rip, HANDLER);
	assert_int_equal(cpu->gpr[RSP], AT_IST1 - 48);
	assert_int_equal(frame(g, 0), 0);
	assert_int_equal(frame(g, 1), 0x7000);

	/* Interrupt without a gate: #GP with EXT, alone. */
	guest_gate64(g, 13, SEL_CODE0, HANDLER + 16, 0x8e, 0);
	guest_cpl(g, 3);
	cpu->gpr[RSP] = AT_STACK;
	cpu->rip = 0x7000;
	assert_int_equal(x86_deliver(cpu, EVENT_INTERRUPT, 0x33), X86_OK);
	assert_int_equal(cpu->rip, HANDLER + 16);
	assert_int_equal(frame(g, 0), 0x33 * 8 + 3);
	assert_false(cpu->event.interrupt || cpu->event.exception);

	/* A page fault on a stack that is not there: double fault on IST 1, CR2 of the second. */
	guest_put(g, AT_TSS + 4, 0x40000000, 8);
	guest_cpl(g, 3);
	cpu->rip = 0x7000;
	x86_raise_pf(cpu, 0, 0x1234);
	assert_int_equal(x86_deliver_exception(cpu), X86_OK);
	assert_int_equal(cpu->gpr[RSP], AT_IST1 - 48);
	assert_int_equal(cpu->cr2, 0x40000000 - 48);

	/* ... and nowhere to go from there: triple fault. */
	guest_put(g, AT_TSS + 0x24, 0x40000000, 8);
	guest_cpl(g, 3);
	x86_raise_pf(cpu, 0, 0x1234);
	assert_int_equal(x86_deliver_exception(cpu), X86_EXIT);
	assert_int_equal(cpu->exit.reason, X86_EXIT_SHUTDOWN);
	assert_false(cpu->event.exception);
}

/* The stack lies in a device: the delivery waits for full context, then for user space, and resumes. */
static void test_device_stack(void **state)
{
	struct guest *g = *state;
	struct x86_cpu *cpu = g->cpu;
	unsigned i;

	guest_protected(g, 0);
	guest_gate32(g, 6, SEL_CODE0, HANDLER, 0x8e);
	cpu->gpr[RSP] = GUEST_HOLE + 0x100;
	cpu->rip = 0x500;
	x86_raise_ud(cpu);
	assert_int_equal(x86_deliver_exception(cpu), X86_FULL);
	assert_true(cpu->event.exception);
	cpu->full = true;
	for (i = 0; i < 2; i++) {
		assert_int_equal(x86_deliver_pending(cpu), X86_EXIT);
		assert_int_equal(cpu->exit.reason, X86_EXIT_MMIO);
		assert_int_equal(cpu->exit.gpa, GUEST_HOLE + 0x100 - 12 + 8 * i);
		assert_int_equal(cpu->exit.size, i ? 4 : 8);
		assert_int_equal(cpu->gpr[RSP], GUEST_HOLE + 0x100);
	}
	assert_int_equal(x86_deliver_pending(cpu), X86_OK);
	assert_int_equal(cpu->rip, HANDLER);
	assert_int_equal(cpu->gpr[RSP], GUEST_HOLE + 0x100 - 12);
	assert_false(cpu->event.exception);
	assert_int_equal(cpu->replay.n, 0);
}

static void test_protected(void **state)
{
	struct guest *g = *state;
	struct x86_cpu *cpu = g->cpu;
	struct x86_insn insn = guest_insn(4);

	guest_protected(g, 3);
	guest_gate32(g, 13, SEL_CODE0, HANDLER, 0x8e);
	guest_gate32(g, 0x40, SEL_CODE0, HANDLER, 0x86); /* 16-bit */
	cpu->rip = 0x7000;
	x86_raise_gp(cpu, 0x1234);
	assert_int_equal(x86_deliver_exception(cpu), X86_OK);
	assert_int_equal(cpu->rip, HANDLER);
	assert_int_equal(cpu->cpl, 0);
	assert_int_equal(cpu->gpr[RSP], AT_RSP0 - 24);
	assert_int_equal(frame32(g, 0), 0x1234);
	assert_int_equal(frame32(g, 1), 0x7000);
	assert_int_equal(frame32(g, 2), SEL_CODE3);
	assert_int_equal(frame32(g, 3), FL_RF | 2);
	assert_int_equal(frame32(g, 4), AT_STACK);
	assert_int_equal(frame32(g, 5), SEL_DATA3);
	/* Back: a kernel data segment does not survive. */
	assert_int_equal(x86_load_segment(cpu, SEG_ES, SEL_DATA0), X86_OK);
	cpu->gpr[RSP] += 4;
	assert_int_equal(x86_op_iret(cpu, &insn), X86_OK);
	assert_int_equal(cpu->cpl, 3);
	assert_int_equal(cpu->gpr[RSP], AT_STACK);
	assert_true(cpu->seg[SEG_ES].attr & SA_UNUSABLE);
	assert_int_equal(cpu->seg[SEG_DS].sel, SEL_DATA3);
	/* 16-bit gate at the same level. */
	guest_cpl(g, 0);
	cpu->gpr[RSP] = AT_STACK;
	cpu->rip = 0x7000;
	assert_int_equal(x86_deliver(cpu, EVENT_INTERRUPT, 0x40), X86_OK);
	assert_int_equal(cpu->gpr[RSP], AT_STACK - 6);
	assert_int_equal(cpu->rip, HANDLER & 0xffff);
	insn.opsize = 2;
	assert_int_equal(x86_op_iret(cpu, &insn), X86_OK);
	assert_int_equal(cpu->next_rip, 0x7000);
	/* The TSS names a bad stack: #TS with its selector, EXT. */
	guest_cpl(g, 3);
	guest_put(g, AT_TSS + 8, SEL_RO, 4);
	guest_gate32(g, 10, SEL_CODE0, HANDLER, 0x8e);
	cpu->gpr[RSP] = AT_STACK;
	guest_gate32(g, 8, 0, 0, 0);
	assert_int_equal(x86_deliver(cpu, EVENT_INTERRUPT, 0x40), X86_EXIT);
	assert_int_equal(cpu->exit.reason, X86_EXIT_SHUTDOWN);
}

static void test_v8086(void **state)
{
	struct guest *g = *state;
	struct x86_cpu *cpu = g->cpu;
	struct x86_insn insn = guest_insn(4);
	const u32 image[9] = { 0x100, 0x1000, FL_VM | FL_IF | 2, 0x8000, 0x2000, 1, 2, 3, 4 };

	guest_protected(g, 0);
	guest_gate32(g, 13, SEL_CODE0, HANDLER, 0x8e);
	memcpy(g->ram + AT_STACK, image, sizeof(image));
	assert_int_equal(x86_op_iret(cpu, &insn), X86_OK);
	assert_true(cpu->f.vm);
	assert_int_equal(cpu->cpl, 3);
	assert_true(cpu->mode & MODE_VM);
	assert_int_equal(cpu->seg[SEG_CS].base, 0x10000);
	assert_int_equal(cpu->seg[SEG_SS].base, 0x20000);
	assert_int_equal(cpu->seg[SEG_GS].base, 0x40);
	assert_int_equal(cpu->next_rip, 0x100);
	assert_int_equal(x86_stack_size(cpu), 2);
	cpu->rip = cpu->next_rip;
	/* Sensitive instructions fault, and the monitor finds everything on its stack. */
	guest_fault(g, x86_op_cli(cpu, &insn), VEC_GP, 0);
	insn.imm = 0x21;
	guest_fault(g, x86_op_int_n(cpu, &insn), VEC_GP, 0);
	assert_int_equal(x86_deliver_exception(cpu), X86_OK);
	assert_false(cpu->f.vm);
	assert_int_equal(cpu->cpl, 0);
	assert_int_equal(cpu->gpr[RSP], AT_RSP0 - 40);
	assert_int_equal(frame32(g, 1), 0x100);
	assert_int_equal(frame32(g, 2), 0x1000);
	assert_int_equal(frame32(g, 3), FL_VM | FL_RF | FL_IF | 2);
	assert_int_equal(frame32(g, 5), 0x2000);
	assert_int_equal(frame32(g, 6), 1);
	assert_int_equal(frame32(g, 9), 4);
	assert_true(cpu->seg[SEG_DS].attr & SA_UNUSABLE);
	cpu->gpr[RSP] += 4;
	assert_int_equal(x86_op_iret(cpu, &insn), X86_OK);
	assert_true(cpu->f.vm && cpu->f.rf);
	assert_int_equal(cpu->gpr[RSP], 0x8000);
	/* VME: vector 0x21 is the program's own, VIF stands for IF. */
	cpu->cr4 |= CR4_VME;
	guest_put(g, AT_TSS + 102, 136, 2);
	guest_put(g, 0x21 * 4, 0x30004321, 4);
	cpu->f.vif = 1;
	cpu->next_rip = 0x102;
	assert_int_equal(x86_op_int_n(cpu, &insn), X86_OK);
	assert_true(cpu->f.vm);
	assert_int_equal(cpu->next_rip, 0x4321);
	assert_int_equal(cpu->seg[SEG_CS].base, 0x30000);
	assert_int_equal(guest_get(g, 0x20000 + 0x7ffe, 2), FL_IOPL | FL_IF | 2);
	assert_false(cpu->f.vif);
	insn.opsize = 2;
	assert_int_equal(x86_op_iret(cpu, &insn), X86_OK);
	assert_true(cpu->f.vif);
	assert_int_equal(cpu->next_rip, 0x102);
}

static void test_syscall(void **state)
{
	struct guest *g = *state;
	struct x86_cpu *cpu = g->cpu;
	struct x86_insn insn = guest_insn(8);

	guest_long(g, 3);
	cpu->star = (u64)SEL_CODE0 << 32 | (u64)(SEL_CODE0 + 3) << 48;
	cpu->lstar = 0xffffffff81000000;
	cpu->cstar = 0x1000;
	cpu->sfmask = FL_IF | FL_TF | FL_DF;
	cpu->next_rip = 0x7002;
	cpu->f.intr = 1;
	cpu->f.df = 1;
	assert_int_equal(x86_op_syscall(cpu, &insn), X86_OK);
	assert_int_equal(cpu->next_rip, 0xffffffff81000000);
	assert_int_equal(cpu->gpr[RCX], 0x7002);
	assert_int_equal(cpu->gpr[R11], FL_IF | FL_DF | 2);
	assert_int_equal(cpu->cpl, 0);
	assert_true(x86_is_64(cpu));
	assert_false(cpu->f.intr || cpu->f.df);
	assert_int_equal(cpu->seg[SEG_CS].sel, SEL_CODE0);
	assert_int_equal(cpu->seg[SEG_SS].sel, SEL_CODE0 + 8);
	assert_int_equal(x86_op_sysret(cpu, &insn), X86_OK);
	assert_int_equal(cpu->next_rip, 0x7002);
	assert_int_equal(cpu->cpl, 3);
	assert_true(cpu->f.intr && cpu->f.df);
	assert_int_equal(cpu->seg[SEG_CS].sel, (SEL_CODE0 + 3 + 16) | 3);
	guest_fault(g, x86_op_sysret(cpu, &insn), VEC_GP, 0);
	/* A non-canonical return address: Intel faults in the kernel, AMD afterwards. */
	guest_cpl(g, 0);
	cpu->gpr[RCX] = 0x800000000000;
	cpu->intel = true;
	guest_fault(g, x86_op_sysret(cpu, &insn), VEC_GP, 0);
	cpu->intel = false;
	assert_int_equal(x86_op_sysret(cpu, &insn), X86_OK);
	/* To compatibility mode and from there. */
	guest_cpl(g, 0);
	insn.opsize = 4;
	cpu->gpr[RCX] = 0xffffffff00007000;
	assert_int_equal(x86_op_sysret(cpu, &insn), X86_OK);
	assert_int_equal(cpu->next_rip, 0x7000);
	assert_false(x86_is_64(cpu));
	assert_true(cpu->mode & MODE_32);
	cpu->intel = true;
	guest_fault(g, x86_op_syscall(cpu, &insn), VEC_UD, 0);
	cpu->intel = false;
	assert_int_equal(x86_op_syscall(cpu, &insn), X86_OK);
	assert_int_equal(cpu->next_rip, 0x1000);
	cpu->efer &= ~EFER_SCE;
	guest_fault(g, x86_op_syscall(cpu, &insn), VEC_UD, 0);
}

static void test_sysenter(void **state)
{
	struct guest *g = *state;
	struct x86_cpu *cpu = g->cpu;
	struct x86_insn insn = guest_insn(4);

	guest_protected(g, 3);
	guest_fault(g, x86_op_sysenter(cpu, &insn), VEC_GP, 0);
	cpu->sysenter_cs = SEL_CODE0;
	cpu->sysenter_esp = AT_RSP0;
	cpu->sysenter_eip = HANDLER;
	cpu->f.intr = 1;
	assert_int_equal(x86_op_sysenter(cpu, &insn), X86_OK);
	assert_int_equal(cpu->next_rip, HANDLER);
	assert_int_equal(cpu->gpr[RSP], AT_RSP0);
	assert_int_equal(cpu->cpl, 0);
	assert_false(cpu->f.intr);
	cpu->gpr[RDX] = 0x7002;
	cpu->gpr[RCX] = AT_STACK;
	assert_int_equal(x86_op_sysexit(cpu, &insn), X86_OK);
	assert_int_equal(cpu->cpl, 3);
	assert_int_equal(cpu->seg[SEG_CS].sel, SEL_CODE0 + 16 + 3);
	assert_int_equal(cpu->seg[SEG_SS].sel, SEL_CODE0 + 24 + 3);
	assert_int_equal(cpu->next_rip, 0x7002);
	guest_long(g, 3);
	guest_fault(g, x86_op_sysenter(cpu, &insn), VEC_UD, 0); /* AMD */
}

static void test_far(void **state)
{
	struct guest *g = *state;
	struct x86_cpu *cpu = g->cpu;
	struct x86_insn insn = guest_insn(4), ret = guest_insn(4);

	guest_protected(g, 0);
	cpu->next_rip = 0x7007;
	insn.imm = 0x1234;
	insn.imm2 = SEL_CODE16;
	assert_int_equal(x86_op_call_far(cpu, &insn), X86_OK);
	assert_int_equal(cpu->next_rip, 0x1234);
	assert_int_equal(cpu->seg[SEG_CS].base, 0x10000);
	assert_false(cpu->mode & MODE_32);
	ret.opcode = 0xcb;
	assert_int_equal(x86_op_ret_far(cpu, &ret), X86_OK);
	assert_int_equal(cpu->next_rip, 0x7007);
	assert_int_equal(cpu->gpr[RSP], AT_STACK);
	assert_true(cpu->mode & MODE_32);
	insn.imm = 0x10000;
	guest_fault(g, x86_op_jmp_far(cpu, &insn), VEC_GP, 0); /* beyond the limit */
	insn.imm2 = SEL_DATA0;
	guest_fault(g, x86_op_jmp_far(cpu, &insn), VEC_GP, SEL_DATA0);

	/* A call gate from CPL 3 with two parameters, and back with RET 8. */
	guest_cpl(g, 3);
	guest_put(g, AT_GDT + SEL_GATE, (u32)SEL_CODE0 << 16 | (HANDLER & 0xffff), 4);
	guest_put(g, AT_GDT + SEL_GATE + 4, (HANDLER & 0xffff0000) | 0xec00 | 2, 4);
	guest_put(g, AT_STACK - 8, 0x2222222211111111, 8);
	cpu->gpr[RSP] = AT_STACK - 8;
	cpu->next_rip = 0x7007;
	insn.imm2 = SEL_GATE | 3;
	guest_fault(g, x86_op_jmp_far(cpu, &insn), VEC_GP, SEL_CODE0);
	assert_int_equal(x86_op_call_far(cpu, &insn), X86_OK);
	assert_int_equal(cpu->cpl, 0);
	assert_int_equal(cpu->next_rip, HANDLER);
	assert_int_equal(cpu->gpr[RSP], AT_RSP0 - 24);
	assert_int_equal(frame32(g, 0), 0x7007);
	assert_int_equal(frame32(g, 1), SEL_CODE3);
	assert_int_equal(frame32(g, 2), 0x11111111);
	assert_int_equal(frame32(g, 3), 0x22222222);
	assert_int_equal(frame32(g, 4), AT_STACK - 8);
	assert_int_equal(frame32(g, 5), SEL_DATA3);
	ret.opcode = 0xca;
	ret.imm = 8;
	assert_int_equal(x86_op_ret_far(cpu, &ret), X86_OK);
	assert_int_equal(cpu->cpl, 3);
	assert_int_equal(cpu->next_rip, 0x7007);
	assert_int_equal(cpu->gpr[RSP], AT_STACK);
	/* RET cannot go inward. */
	guest_put(g, AT_STACK - 8, (u64)SEL_CODE0 << 32 | 0x7000, 8);
	cpu->gpr[RSP] = AT_STACK - 8;
	guest_fault(g, x86_op_ret_far(cpu, &ret), VEC_GP, SEL_CODE0);
}

static void test_task(void **state)
{
	struct guest *g = *state;
	struct x86_cpu *cpu = g->cpu;
	struct x86_insn insn = guest_insn(4);
	u32 *tss2 = (u32 *)(void *)(g->ram + AT_TSS2);

	guest_protected(g, 0);
	guest_desc(g, SEL_TSS, AT_TSS, 0x7ff, 0x8b); /* the current task is busy */
	tss2[8] = HANDLER;
	tss2[9] = FL_IF | 2;
	tss2[10] = 0xaaaa;
	tss2[14] = AT_IST1;
	tss2[18] = tss2[21] = SEL_DATA3;
	tss2[19] = SEL_CODE3;
	tss2[20] = SEL_DATA3;
	cpu->next_rip = 0x7007;
	cpu->gpr[RCX] = 0xcccc;
	insn.imm2 = SEL_TSS2;
	assert_int_equal(x86_op_call_far(cpu, &insn), X86_OK);
	assert_int_equal(cpu->next_rip, HANDLER);
	assert_int_equal(cpu->gpr[RAX], 0xaaaa);
	assert_int_equal(cpu->gpr[RSP], AT_IST1);
	assert_int_equal(cpu->cpl, 3);
	assert_int_equal(x86_rflags(cpu), FL_NT | FL_IF | 2);
	assert_int_equal(cpu->seg[SEG_TR].sel, SEL_TSS2);
	assert_true(cpu->cr0 & CR0_TS);
	assert_int_equal(guest_get(g, AT_TSS + 0x20, 4), 0x7007);
	assert_int_equal(guest_get(g, AT_TSS + 0x2c, 4), 0xcccc);
	assert_int_equal(guest_get(g, AT_TSS2, 2), SEL_TSS);
	assert_int_equal(guest_get(g, AT_GDT + SEL_TSS2 + 5, 1), 0x8b);
	assert_int_equal(guest_get(g, AT_GDT + SEL_TSS + 5, 1), 0x8b);
	/* IRET with NT goes back and leaves the task available. */
	cpu->next_rip = HANDLER + 1;
	assert_int_equal(x86_op_iret(cpu, &insn), X86_OK);
	assert_int_equal(cpu->next_rip, 0x7007);
	assert_int_equal(cpu->cpl, 0);
	assert_int_equal(cpu->gpr[RCX], 0xcccc);
	assert_int_equal(cpu->seg[SEG_TR].sel, SEL_TSS);
	assert_int_equal(guest_get(g, AT_GDT + SEL_TSS2 + 5, 1), 0x89);
	assert_int_equal(guest_get(g, AT_TSS2 + 0x24, 4), FL_IF | 2);
	/* A double fault through a task gate, with its error code on the new stack. */
	guest_gate32(g, 8, SEL_TSS2, 0, 0x85);
	cpu->gpr[RSP] = 0x40000000; /* no matter */
	cpu->rip = 0x9999;
	x86_raise_error(cpu, VEC_DF, 0);
	assert_int_equal(x86_deliver_exception(cpu), X86_OK);
	assert_int_equal(cpu->rip, HANDLER + 1);
	assert_int_equal(cpu->gpr[RSP], AT_IST1 - 4);
	assert_int_equal(guest_get(g, AT_TSS + 0x20, 4), 0x9999);
	/* A busy task cannot be called. */
	guest_cpl(g, 0);
	insn.imm2 = SEL_TSS2;
	guest_fault(g, x86_op_jmp_far(cpu, &insn), VEC_GP, SEL_TSS2);
}

static void test_debug(void **state)
{
	struct guest *g = *state;
	struct x86_cpu *cpu = g->cpu;
	struct x86_insn insn = guest_insn(4);

	guest_long(g, 0);
	guest_gate64(g, 1, SEL_CODE0, HANDLER, 0x8e, 0);
	guest_gate64(g, 3, SEL_CODE0, HANDLER, 0x8e, 0);
	cpu->dr6 = 0xffff0ff1;
	cpu->dr7 |= BIT(13) | 1;
	cpu->rip = 0x7000;
	cpu->shadow = 1;
	x86_raise_db(cpu, BIT(14));
	assert_int_equal(x86_deliver_exception(cpu), X86_OK);
	assert_int_equal(cpu->dr6, 0xffff4ff0);
	assert_int_equal(cpu->dr7, 0x401);
	assert_int_equal(cpu->shadow, 0);
	assert_int_equal(frame(g, 2), 2); /* no RF */
	cpu->next_rip = 0x7001;
	assert_int_equal(x86_op_int1(cpu, &insn), X86_OK);
	assert_int_equal(frame(g, 0), 0x7001);
	assert_int_equal(x86_op_int3(cpu, &insn), X86_OK);
	guest_cpl(g, 3);
	guest_fault(g, x86_op_int3(cpu, &insn), VEC_GP, 3 * 8 + 2);
	assert_int_equal(x86_op_int1(cpu, &insn), X86_OK); /* no check of DPL */
	guest_fault(g, x86_op_into(cpu, &insn), VEC_UD, 0);
}

/* IRET in 64-bit mode: a table of bad frames. */
static void test_iret_faults(void **state)
{
	struct guest *g = *state;
	struct x86_cpu *cpu = g->cpu;
	struct x86_insn insn = guest_insn(8);
	struct row {
		u64 rip;
		u16 cs, ss;
		unsigned vector;
		u32 error;
	} rows[] = {
		{ 0x1000, 0, SEL_DATA0, VEC_GP, 0 },
		{ 0x1000, SEL_DATA0, SEL_DATA0, VEC_GP, SEL_DATA0 },
		{ 0x1000, SEL_CODE0 | 3, SEL_DATA3, VEC_GP, SEL_CODE0 },
		{ 0x800000000000, SEL_CODE0, SEL_DATA0, VEC_GP, 0 },
		{ 0x1000, SEL_CODE3, SEL_DATA0, VEC_GP, SEL_DATA0 },
		{ 0x1000, SEL_CODE3, 3, VEC_GP, 0 },
		{ 0x1000, SEL_CODE3, SEL_RO | 3, VEC_GP, SEL_RO },
		{ 0x1000, SEL_CODE0, SEL_ABSENT, VEC_SS, SEL_ABSENT },
	};
	unsigned i;

	guest_long(g, 0);
	for (i = 0; i < ARRAY_SIZE(rows); i++) {
		u64 v[5] = { rows[i].rip, rows[i].cs, FL_IF, 0x5000, rows[i].ss };

		memcpy(g->ram + AT_STACK, v, sizeof(v));
		guest_fault(g, x86_op_iret(cpu, &insn), rows[i].vector, rows[i].error);
		assert_int_equal(cpu->gpr[RSP], AT_STACK);
		assert_int_equal(cpu->seg[SEG_CS].sel, SEL_CODE0);
		assert_false(cpu->f.intr);
	}
	cpu->f.nt = 1;
	guest_fault(g, x86_op_iret(cpu, &insn), VEC_GP, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		guest_test(test_reset),	       guest_test(test_real),
		guest_test(test_long_same),    guest_test(test_long_outer),
		guest_test(test_double_fault), guest_test(test_device_stack),
		guest_test(test_protected),    guest_test(test_v8086),
		guest_test(test_syscall),      guest_test(test_sysenter),
		guest_test(test_far),	       guest_test(test_task),
		guest_test(test_debug),	       guest_test(test_iret_faults),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

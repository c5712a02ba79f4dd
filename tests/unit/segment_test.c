/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Segment loads with their error codes, limit and type checks, descriptor tables, LAR and kin, FS and GS bases. */
#include "x86_guest.h"

/* A row: load @sel into @sreg at @cpl; vector 0 means it works. */
struct load {
	unsigned sreg;
	u16 sel;
	unsigned cpl;
	unsigned vector;
	u32 error;
};

static const struct load loads[] = {
	{ SEG_DS, SEL_DATA0, 0, 0, 0 },
	{ SEG_DS, SEL_DATA3, 0, 0, 0 },
	{ SEG_DS, SEL_DATA3, 3, 0, 0 },
	{ SEG_DS, SEL_DATA0, 3, VEC_GP, SEL_DATA0 },
	{ SEG_DS, SEL_DATA0 | 3, 0, VEC_GP, SEL_DATA0 },
	{ SEG_ES, SEL_RO | 3, 3, 0, 0 },
	{ SEG_ES, SEL_CODE3, 3, 0, 0 }, /* readable code */
	{ SEG_ES, SEL_XO, 0, VEC_GP, SEL_XO },
	{ SEG_ES, SEL_CONF | 3, 3, 0, 0 }, /* conforming: any privilege */
	{ SEG_DS, SEL_ABSENT, 0, VEC_NP, SEL_ABSENT },
	{ SEG_DS, SEL_TSS, 0, VEC_GP, SEL_TSS },
	{ SEG_DS, 0, 0, 0, 0 },
	{ SEG_FS, 3, 3, 0, 0 },
	{ SEG_DS, 0x100, 0, VEC_GP, 0x100 }, /* outside the GDT */
	{ SEG_DS, 0x0c, 0, VEC_GP, 0x0c },   /* no LDT */
	{ SEG_SS, SEL_DATA0, 0, 0, 0 },
	{ SEG_SS, SEL_DATA3, 0, VEC_GP, SEL_DATA3 & ~3 },
	{ SEG_SS, SEL_DATA3, 3, 0, 0 },
	{ SEG_SS, SEL_DATA0 | 3, 0, VEC_GP, SEL_DATA0 },
	{ SEG_SS, SEL_CODE0, 0, VEC_GP, SEL_CODE0 },
	{ SEG_SS, SEL_RO | 3, 3, VEC_GP, SEL_RO },
	{ SEG_SS, SEL_ABSENT, 0, VEC_SS, SEL_ABSENT },
	{ SEG_SS, 0, 0, VEC_GP, 0 },
};

static void test_load(void **state)
{
	struct guest *g = *state;
	unsigned i;

	for (i = 0; i < ARRAY_SIZE(loads); i++) {
		const struct load *l = &loads[i];
		enum x86_status st;

		guest_protected(g, l->cpl);
		st = x86_load_segment(g->cpu, l->sreg, l->sel);
		if (st != (l->vector ? X86_FAULT : X86_OK))
			print_error("row %u\n", i);
		if (l->vector) {
			guest_fault(g, st, l->vector, l->error);
			continue;
		}
		assert_int_equal(st, X86_OK);
		assert_int_equal(g->cpu->seg[l->sreg].sel, l->sel);
		if (!(l->sel & ~3)) {
			assert_true(g->cpu->seg[l->sreg].attr & SA_UNUSABLE);
			continue;
		}
		assert_int_equal(g->cpu->seg[l->sreg].limit, 0xffffffffu);
		/* Accessed, in memory too. */
		assert_true(g->cpu->seg[l->sreg].attr & 1);
		assert_true(guest_get(g, AT_GDT + (l->sel & ~7u) + 5, 1) & 1);
	}
}

static void test_load_long(void **state)
{
	struct guest *g = *state;

	guest_long(g, 0);
	assert_int_equal(x86_load_segment(g->cpu, SEG_SS, 0), X86_OK);
	guest_long(g, 3);
	guest_fault(g, x86_load_segment(g->cpu, SEG_SS, 3), VEC_GP, 0);
	g->cpu->seg[SEG_FS].base = 0x123456789ab;
	guest_desc(g, SEL_DATA3, 0x12345678, 0xfffff, 0xc0f2);
	assert_int_equal(x86_load_segment(g->cpu, SEG_FS, SEL_DATA3), X86_OK);
	assert_int_equal(g->cpu->seg[SEG_FS].base, 0x12345678);
	assert_int_equal(x86_load_segment(g->cpu, SEG_FS, 0), X86_OK);
	assert_int_equal(g->cpu->seg[SEG_FS].base, 0);
}

static void test_load_real(void **state)
{
	struct guest *g = *state;

	assert_int_equal(x86_load_segment(g->cpu, SEG_DS, 0x1234), X86_OK);
	assert_int_equal(g->cpu->seg[SEG_DS].base, 0x12340);
	/* "Unreal mode": a limit loaded in protected mode stays. */
	g->cpu->seg[SEG_DS].limit = 0xffffffffu;
	assert_int_equal(x86_load_segment(g->cpu, SEG_DS, 0x5678), X86_OK);
	assert_int_equal(g->cpu->seg[SEG_DS].limit, 0xffffffffu);
}

/* Address checks: a row is a segment, an access, and the fault it gives. */
struct check {
	u32 limit;
	u16 attr;
	u64 ea;
	unsigned size, access, seg, vector;
};

#define DATA (SA_P | SA_S | 2)
static const struct check checks[] = {
	{ 0xffff, DATA, 0xfffc, 4, ACC_WRITE, SEG_DS, 0 },
	{ 0xffff, DATA, 0xfffd, 4, ACC_READ, SEG_DS, VEC_GP },
	{ 0xffff, DATA, 0xfffd, 4, ACC_READ, SEG_SS, VEC_SS },
	{ 0xffff, DATA & ~2, 0, 4, ACC_READ, SEG_DS, 0 },
	{ 0xffff, DATA & ~2, 0, 4, ACC_WRITE, SEG_DS, VEC_GP },
	{ 0xffff, DATA | 8, 0, 4, ACC_READ, SEG_CS, 0 },
	{ 0xffff, DATA | 8, 0, 4, ACC_WRITE, SEG_CS, VEC_GP },
	{ 0xffff, SA_P | SA_S | 8, 0, 4, ACC_READ, SEG_CS, VEC_GP },
	{ 0xffff, SA_UNUSABLE, 0, 4, ACC_READ, SEG_ES, VEC_GP },
	{ 0xfff, DATA | 4, 0xfff, 1, ACC_READ, SEG_DS, VEC_GP },
	{ 0xfff, DATA | 4, 0x1000, 4, ACC_READ, SEG_DS, 0 },
	{ 0xfff, DATA | 4, 0xfffe, 4, ACC_READ, SEG_DS, VEC_GP },
	{ 0xfff, DATA | 4 | SA_DB, 0xfffe, 4, ACC_READ, SEG_DS, 0 },
	{ 0xfff, DATA | 4 | SA_DB, 0xfffffffe, 4, ACC_READ, SEG_DS, VEC_GP },
	{ 0xffffffff, DATA, 0xfffffffe, 4, ACC_READ, SEG_DS, 0 }, /* wraps */
};

static void test_linear(void **state)
{
	struct guest *g = *state;
	unsigned i;
	gva_t lin;

	guest_protected(g, 0);
	for (i = 0; i < ARRAY_SIZE(checks); i++) {
		const struct check *c = &checks[i];
		enum x86_status st;

		guest_segment(g, c->seg, 8, 0x1000, c->limit, c->attr);
		st = x86_linear(g->cpu, c->seg, c->ea, c->size, c->access, &lin);
		if (st != (c->vector ? X86_FAULT : X86_OK))
			print_error("row %u\n", i);
		if (c->vector) {
			guest_fault(g, st, c->vector, 0);
			continue;
		}
		assert_int_equal(st, X86_OK);
		assert_int_equal(lin, (u32)(0x1000 + c->ea));
	}
}

static void test_linear_long(void **state)
{
	struct guest *g = *state;
	struct x86_cpu *cpu = g->cpu;
	gva_t lin;

	guest_long(g, 3);
	cpu->seg[SEG_DS] = (struct x86_seg){ .base = 0x1000, .attr = SA_UNUSABLE };
	cpu->seg[SEG_GS].base = 0xffff800000000000;
	assert_int_equal(x86_linear(cpu, SEG_DS, 0x7fffffffeff8, 8, ACC_WRITE, &lin), X86_OK);
	assert_int_equal(lin, 0x7fffffffeff8);
	guest_fault(g, x86_linear(cpu, SEG_DS, 0x7ffffffffffc, 8, ACC_READ, &lin), VEC_GP, 0);
	guest_fault(g, x86_linear(cpu, SEG_SS, 0x800000000000, 1, ACC_READ, &lin), VEC_SS, 0);
	assert_int_equal(x86_linear(cpu, SEG_GS, 0x10, 8, ACC_READ, &lin), X86_OK);
	assert_int_equal(lin, 0xffff800000000010);
	cpu->cr4 |= CR4_LA57;
	assert_int_equal(x86_linear(cpu, SEG_DS, 0x800000000000, 8, ACC_READ, &lin), X86_OK);
}

static void test_effective(void **state)
{
	struct guest *g = *state;
	struct x86_insn insn = guest_insn_mem(8, 0x10);

	guest_long(g, 0);
	g->cpu->gpr[RBX] = 0xffffffff00001000;
	g->cpu->gpr[R9] = 0x200;
	g->cpu->rip = 0x7000;
	insn.base = RBX;
	insn.index = R9;
	insn.scale = 4;
	assert_int_equal(x86_effective(g->cpu, &insn), 0xffffffff00001810);
	insn.adsize = 4;
	assert_int_equal(x86_effective(g->cpu, &insn), 0x1810);
	insn = guest_insn_mem(8, (u64)-0x10);
	insn.base = INSN_RIP;
	insn.len = 7;
	assert_int_equal(x86_effective(g->cpu, &insn), 0x6ff7);
}

static void test_moves(void **state)
{
	struct guest *g = *state;
	struct x86_cpu *cpu = g->cpu;
	struct x86_insn insn = guest_insn(4);

	guest_protected(g, 0);
	insn.modrm = 0xd0; /* MOV SS, AX */
	cpu->gpr[RAX] = SEL_DATA0;
	assert_int_equal(x86_op_mov_to_sreg(cpu, &insn), X86_OK);
	assert_int_equal(cpu->shadow, 2);
	assert_true(cpu->mode & MODE_STEP);
	cpu->irq_waiting = true;
	x86_shadow_end(cpu);
	assert_false(cpu->mode & MODE_STEP);
	assert_int_equal(cpu->kick, 1);
	insn.modrm = 0xc8; /* CS */
	guest_fault(g, x86_op_mov_to_sreg(cpu, &insn), VEC_UD, 0);
	cpu->gpr[RAX] = 0xffffffff;
	assert_int_equal(x86_op_mov_from_sreg(cpu, &insn), X86_OK);
	assert_int_equal(cpu->gpr[RAX], SEL_CODE0);
	insn.opcode = 0x1e; /* PUSH DS */
	guest_put(g, AT_STACK - 4, 0xeeeeeeee, 4);
	assert_int_equal(x86_op_push_sreg(cpu, &insn), X86_OK);
	assert_int_equal(cpu->gpr[RSP], AT_STACK - 4);
	assert_int_equal(guest_get(g, AT_STACK - 4, 4), 0xeeee0000 | SEL_DATA3);
	insn.opcode = 0x17; /* POP SS: wrong privilege, the stack pointer stays */
	guest_fault(g, x86_op_pop_sreg(cpu, &insn), VEC_GP, SEL_DATA3 & ~3);
	assert_int_equal(cpu->gpr[RSP], AT_STACK - 4);
	insn.opcode = 0xa9; /* POP GS */
	assert_int_equal(x86_op_pop_sreg(cpu, &insn), X86_OK);
	assert_int_equal(cpu->seg[SEG_GS].sel, SEL_DATA3);
	assert_int_equal(cpu->gpr[RSP], AT_STACK);
	insn = guest_insn_mem(4, 0x8000);
	insn.opcode = 0xc4; /* LES ECX */
	insn.reg = RCX;
	guest_put(g, 0x8000, 0x12345678, 4);
	guest_put(g, 0x8004, SEL_DATA0, 2);
	assert_int_equal(x86_op_load_far(cpu, &insn), X86_OK);
	assert_int_equal(cpu->gpr[RCX], 0x12345678);
	assert_int_equal(cpu->seg[SEG_ES].sel, SEL_DATA0);
}

static void test_tables(void **state)
{
	struct guest *g = *state;
	struct x86_cpu *cpu = g->cpu;
	struct x86_insn insn = guest_insn_mem(8, 0x8000);
	struct x86_insn reg = guest_insn(4);

	guest_long(g, 0);
	guest_put(g, 0x8000, 0x7ff, 2);
	guest_put(g, 0x8002, 0xffff800000001000, 8);
	assert_int_equal(x86_op_lidt(cpu, &insn), X86_OK);
	assert_int_equal(cpu->idt.limit, 0x7ff);
	assert_int_equal(cpu->idt.base, 0xffff800000001000);
	insn.disp = 0x8010;
	assert_int_equal(x86_op_sidt(cpu, &insn), X86_OK);
	assert_memory_equal(g->ram + 0x8000, g->ram + 0x8010, 10);
	guest_put(g, 0x8008, 0x1234, 2);
	insn.disp = 0x8000;
	guest_fault(g, x86_op_lgdt(cpu, &insn), VEC_GP, 0);
	/* LTR: busy afterwards, so a second one fails. */
	reg.rm = RAX;
	cpu->gpr[RAX] = SEL_TSS2;
	assert_int_equal(x86_op_ltr(cpu, &reg), X86_OK);
	assert_int_equal(cpu->seg[SEG_TR].base, AT_TSS2);
	assert_int_equal(cpu->seg[SEG_TR].attr, 0x8b);
	assert_int_equal(guest_get(g, AT_GDT + SEL_TSS2 + 5, 1), 0x8b);
	guest_fault(g, x86_op_ltr(cpu, &reg), VEC_GP, SEL_TSS2);
	cpu->gpr[RAX] = SEL_LDT;
	assert_int_equal(x86_op_lldt(cpu, &reg), X86_OK);
	assert_int_equal(cpu->seg[SEG_LDTR].limit, GDT_LIMIT);
	assert_int_equal(x86_load_segment(cpu, SEG_DS, SEL_DATA0 | 4), X86_OK);
	cpu->gpr[RAX] = ~0ull;
	assert_int_equal(x86_op_sldt(cpu, &reg), X86_OK);
	assert_int_equal(cpu->gpr[RAX], SEL_LDT);
	guest_cpl(g, 3);
	guest_fault(g, x86_op_ltr(cpu, &reg), VEC_GP, 0);
	assert_int_equal(x86_op_str(cpu, &reg), X86_OK);
	cpu->cr4 |= CR4_UMIP;
	guest_fault(g, x86_op_str(cpu, &reg), VEC_GP, 0);
	guest_fault(g, x86_op_sgdt(cpu, &insn), VEC_GP, 0);
}

static bool zf(struct guest *g)
{
	return g->cpu->aflags & AF_ZF;
}

static void test_verify(void **state)
{
	struct guest *g = *state;
	struct x86_cpu *cpu = g->cpu;
	struct x86_insn insn = guest_insn(4);
	struct row {
		u16 sel;
		bool lar, lsl, verr, verw;
	} rows[] = {
		{ 0, 0, 0, 0, 0 },	{ SEL_DATA3, 1, 1, 1, 1 }, { SEL_DATA0, 0, 0, 0, 0 },
		{ SEL_RO, 1, 1, 1, 0 }, { SEL_CONF, 1, 1, 1, 0 },  { SEL_TSS, 0, 0, 0, 0 },
		{ 0x200, 0, 0, 0, 0 },
	};
	unsigned i;

	guest_protected(g, 3);
	insn.rm = RAX;
	insn.reg = RCX;
	for (i = 0; i < ARRAY_SIZE(rows); i++) {
		cpu->gpr[RAX] = rows[i].sel;
		assert_int_equal(x86_op_lar(cpu, &insn), X86_OK);
		assert_int_equal(zf(g), rows[i].lar);
		assert_int_equal(x86_op_lsl(cpu, &insn), X86_OK);
		assert_int_equal(zf(g), rows[i].lsl);
		assert_int_equal(x86_op_verr(cpu, &insn), X86_OK);
		assert_int_equal(zf(g), rows[i].verr);
		assert_int_equal(x86_op_verw(cpu, &insn), X86_OK);
		assert_int_equal(zf(g), rows[i].verw);
	}
	guest_cpl(g, 0);
	cpu->gpr[RAX] = SEL_DATA0;
	assert_int_equal(x86_op_lar(cpu, &insn), X86_OK);
	assert_int_equal(cpu->gpr[RCX], 0xc09200);
	assert_int_equal(x86_op_lsl(cpu, &insn), X86_OK);
	assert_int_equal(cpu->gpr[RCX], 0xffffffff);
	cpu->gpr[RAX] = SEL_DATA0;
	cpu->gpr[RCX] = 3;
	assert_int_equal(x86_op_arpl(cpu, &insn), X86_OK);
	assert_true(zf(g));
	assert_int_equal(cpu->gpr[RAX], SEL_DATA0 | 3);
	cpu->cr0 = CR0_ET;
	x86_mode_update(cpu);
	guest_fault(g, x86_op_lar(cpu, &insn), VEC_UD, 0);
}

static void test_bases(void **state)
{
	struct guest *g = *state;
	struct x86_cpu *cpu = g->cpu;
	struct x86_insn insn = guest_insn(8);

	guest_long(g, 0);
	cpu->seg[SEG_GS].base = 1;
	cpu->kernel_gs_base = 2;
	assert_int_equal(x86_op_swapgs(cpu, &insn), X86_OK);
	assert_int_equal(cpu->seg[SEG_GS].base, 2);
	assert_int_equal(cpu->kernel_gs_base, 1);
	insn.rm = RDI;
	guest_fault(g, x86_op_rdfsbase(cpu, &insn), VEC_UD, 0);
	cpu->cr4 |= CR4_FSGSBASE;
	guest_cpl(g, 3);
	cpu->gpr[RDI] = 0x7fff12345678;
	insn.prefixes |= INSN_REX | INSN_REX_W;
	assert_int_equal(x86_op_wrfsbase(cpu, &insn), X86_OK);
	assert_int_equal(cpu->seg[SEG_FS].base, 0x7fff12345678);
	cpu->gpr[RDI] = 0x800000000000;
	guest_fault(g, x86_op_wrgsbase(cpu, &insn), VEC_GP, 0);
	insn.opsize = 4;
	insn.prefixes &= ~INSN_REX_W;
	assert_int_equal(x86_op_rdfsbase(cpu, &insn), X86_OK);
	assert_int_equal(cpu->gpr[RDI], 0x12345678);
	guest_fault(g, x86_op_swapgs(cpu, &insn), VEC_GP, 0);
}

static void test_stack(void **state)
{
	struct guest *g = *state;
	struct x86_cpu *cpu = g->cpu;
	u64 v;

	/* Real mode: a 16-bit stack pointer, the upper half stays. */
	cpu->gpr[RSP] = 0xabcd0002;
	cpu->seg[SEG_SS].base = 0x20000;
	assert_int_equal(x86_push(cpu, 0x1122, 2), X86_OK);
	assert_int_equal(x86_push(cpu, 0x3344, 2), X86_OK);
	assert_int_equal(cpu->gpr[RSP], 0xabcdfffe);
	assert_int_equal(guest_get(g, 0x2fffe, 2), 0x3344);
	assert_int_equal(x86_pop(cpu, &v, 2), X86_OK);
	assert_int_equal(v, 0x3344);
	assert_int_equal(x86_pop(cpu, &v, 2), X86_OK);
	assert_int_equal(v, 0x1122);
	assert_int_equal(cpu->gpr[RSP], 0xabcd0002);
	cpu->gpr[RSP] = 1;
	guest_fault(g, x86_push(cpu, 1, 2), VEC_SS, 0);
	assert_int_equal(cpu->gpr[RSP], 1);
}

static void test_flags(void **state)
{
	struct guest *g = *state;
	struct x86_cpu *cpu = g->cpu;
	struct x86_insn insn = guest_insn(4);
	u64 all = FL_ARITH | FL_TF | FL_IF | FL_DF | FL_IOPL | FL_NT | FL_RF | FL_AC | FL_VIF |
		  FL_VIP | FL_ID | 2;

	guest_protected(g, 0);
	x86_rflags_set(cpu, all);
	assert_int_equal(x86_rflags(cpu), all);
	assert_true(cpu->mode & MODE_STEP);
	x86_rflags_set(cpu, 2);
	assert_int_equal(x86_rflags(cpu), 2);
	assert_false(cpu->mode & MODE_STEP);

	/* POPF at CPL 0, at CPL 3 with IOPL 0 and 3. */
	assert_int_equal(x86_push(cpu, 0xffffffff, 4), X86_OK);
	assert_int_equal(x86_op_popf(cpu, &insn), X86_OK);
	assert_int_equal(x86_rflags(cpu), all & ~(u64)(FL_RF | FL_VIF | FL_VIP));
	x86_rflags_set(cpu, 2);
	guest_cpl(g, 3);
	assert_int_equal(x86_push(cpu, 0xffffffff, 4), X86_OK);
	assert_int_equal(x86_op_popf(cpu, &insn), X86_OK);
	assert_int_equal(x86_rflags(cpu), FL_ARITH | FL_TF | FL_DF | FL_NT | FL_AC | FL_ID | 2);
	guest_fault(g, x86_op_cli(cpu, &insn), VEC_GP, 0);
	guest_fault(g, x86_op_hlt(cpu, &insn), VEC_GP, 0);
	guest_fault(g, x86_op_stac(cpu, &insn), VEC_UD, 0);
	cpu->cr4 |= CR4_PVI;
	assert_int_equal(x86_op_sti(cpu, &insn), X86_OK);
	assert_true(cpu->f.vif && !cpu->f.intr);
	x86_rflags_set(cpu, FL_IOPL | 2);
	cpu->irq_waiting = true;
	assert_int_equal(x86_op_sti(cpu, &insn), X86_OK);
	assert_true(cpu->f.intr && cpu->shadow == 1 && cpu->kick);
	assert_false(x86_interruptible(cpu));
	x86_shadow_end(cpu);
	assert_true(x86_interruptible(cpu));
	x86_rflags_set(cpu, FL_RF | FL_IF | 2);
	assert_int_equal(x86_op_pushf(cpu, &insn), X86_OK);
	assert_int_equal(guest_get(g, cpu->gpr[RSP], 4), FL_IF | 2);
	guest_cpl(g, 0);
	cpu->rip = 0x100;
	cpu->next_rip = 0x101;
	assert_int_equal(x86_op_hlt(cpu, &insn), X86_EXIT);
	assert_int_equal(cpu->exit.reason, X86_EXIT_HLT);
	assert_int_equal(cpu->rip, 0x101);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		guest_test(test_load),	 guest_test(test_load_long),   guest_test(test_load_real),
		guest_test(test_linear), guest_test(test_linear_long), guest_test(test_effective),
		guest_test(test_moves),	 guest_test(test_tables),      guest_test(test_verify),
		guest_test(test_bases),	 guest_test(test_stack),       guest_test(test_flags),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Rare integer instructions, the stack and near branches; the decimal ones against the host in compatibility mode. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/mman.h>

#include <cmocka.h>

#include "cpu/x86/event.h"
#include "guest_fixture.h"

#define HOST_CS32 0x23 /* Linux: __USER32_CS */

/* --- decimal adjustment --- */

struct low_page {
	u8 stub[64], code[64];
	struct {
		u32 offset;
		u16 sel;
	} far;
	u64 rsp;
	u8 stack[2048];
};

static u8 *emit(u8 *p, const void *bytes, unsigned n)
{
	memcpy(p, bytes, n);
	return p + n;
}

static u8 *emit32(u8 *p, const void *address)
{
	u32 v = (u32)(uintptr_t)address;

	return emit(p, &v, 4);
}

/* A 64-bit stub below 4 GiB that calls 32-bit code: push edx; popf; INSN; pushf; pop edx; lret. */
static struct low_page *low_make(void)
{
	struct low_page *l = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC,
				  MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
	u8 *p;

	assert_ptr_not_equal(l, MAP_FAILED);
	p = emit32(emit(l->stub, "\x48\x89\x24\x25", 4), &l->rsp);
	p = emit32(emit(p, "\xbc", 1), l->stack + sizeof(l->stack) - 64);
	p = emit32(emit(p, "\xff\x1c\x25", 3), &l->far);
	p = emit32(emit(p, "\x48\x8b\x24\x25", 4), &l->rsp);
	emit(p, "\xc3", 1);
	l->far.offset = (u32)(uintptr_t)l->code;
	l->far.sel = HOST_CS32;
	return l;
}

static void host_execute(struct low_page *l, u32 *eax, u32 *flags)
{
	__asm__ volatile("sub $128, %%rsp; call *%2; add $128, %%rsp"
			 : "+a"(*eax), "+d"(*flags)
			 : "r"(l->stub)
			 : "memory", "cc");
}

static sigjmp_buf no_32bit;

static void refused(int sig)
{
	(void)sig;
	siglongjmp(no_32bit, 1);
}

/* Some hypervisors leave their guests no 32-bit code segment: the far call then faults. */
static bool host_has_32bit(struct low_page *l)
{
	struct sigaction sa = { .sa_handler = refused, .sa_flags = SA_ONSTACK }, segv, ill, bus;
	static u8 alternate[65536];
	stack_t ss = { .ss_sp = alternate, .ss_size = sizeof(alternate) }, before;
	u32 eax = 0, flags = 0x202;
	bool has = false;

	sigaltstack(&ss, &before); /* the stub has a stack of its own */
	sigaction(SIGSEGV, &sa, &segv);
	sigaction(SIGILL, &sa, &ill);
	sigaction(SIGBUS, &sa, &bus);
	l->code[0] = 0xcb; /* lret */
	if (!sigsetjmp(no_32bit, 1)) {
		host_execute(l, &eax, &flags);
		has = true;
	}
	sigaction(SIGSEGV, &segv, NULL);
	sigaction(SIGILL, &ill, NULL);
	sigaction(SIGBUS, &bus, NULL);
	sigaltstack(&before, NULL);
	return has;
}

static u16 af_of(u32 fl)
{
	return (u8)fl << 8 | (fl & FL_OF ? AF_OF : 0);
}

static void test_decimal(void **state)
{
	static const struct {
		u8 bytes[2], len;
		enum x86_status (*op)(struct x86_cpu *, const struct x86_insn *);
		u16 defined;
		bool wide; /* AH matters */
	} rows[] = {
		{ { 0x27 }, 1, x86_op_daa, AF_SF | AF_ZF | AF_AF | AF_PF | AF_CF, false },
		{ { 0x2f }, 1, x86_op_das, AF_SF | AF_ZF | AF_AF | AF_PF | AF_CF, false },
		{ { 0x37 }, 1, x86_op_aaa, AF_AF | AF_CF, true },
		{ { 0x3f }, 1, x86_op_aas, AF_AF | AF_CF, true },
		{ { 0xd4, 10 }, 2, x86_op_aam, AF_SF | AF_ZF | AF_PF, false },
		{ { 0xd4, 0xf3 }, 2, x86_op_aam, AF_SF | AF_ZF | AF_PF, false },
		{ { 0xd5, 10 }, 2, x86_op_aad, AF_SF | AF_ZF | AF_PF, true },
		{ { 0xd5, 0xf3 }, 2, x86_op_aad, AF_SF | AF_ZF | AF_PF, true },
		{ { 0xd6 }, 1, x86_op_salc, AF_SF | AF_ZF | AF_AF | AF_PF | AF_CF | AF_OF, false },
	};
	struct low_page *l = low_make();
	struct guest g = guest_create(32);

	(void)state;
	if (!host_has_32bit(l)) {
		munmap(l, 4096);
		guest_destroy(&g);
		print_message("# the host runs no 32-bit code: nothing to compare DAA and its "
			      "family with\n");
		skip();
	}
	for (unsigned k = 0; k < ARRAY_SIZE(rows); k++) {
		struct x86_insn insn = guest_insn(&g, 4, 4);
		u8 *p = emit(l->code, "\x52\x9d", 2);

		p = emit(p, rows[k].bytes, rows[k].len);
		emit(p, "\x9c\x5a\xcb", 3);
		insn.imm = rows[k].bytes[1];
		for (u32 i = 0; i < (rows[k].wide ? 65536u : 256u) * 4; i++) {
			u32 eax = 0xabcd0000 | i >> 2, fl = 0x202;

			fl |= (i & 1 ? FL_CF : 0) | (i & 2 ? FL_AF : 0);
			g.cpu->gpr[RAX] = eax;
			g.cpu->aflags = af_of(fl);
			assert_int_equal(guest_run(&g, &insn, rows[k].op), X86_OK);
			host_execute(l, &eax, &fl);
			assert_int_equal(g.cpu->gpr[RAX], eax);
			assert_int_equal(g.cpu->aflags & rows[k].defined,
					 af_of(fl) & rows[k].defined);
		}
	}
	munmap(l, 4096);
	guest_destroy(&g);
}

static void test_divide_by_zero(void **state)
{
	struct guest g = guest_create(32);
	struct x86_insn insn = guest_insn(&g, 4, 4);

	(void)state;
	assert_int_equal(guest_run(&g, &insn, x86_op_aam), X86_FAULT);
	assert_int_equal(g.cpu->exc.vector, VEC_DE);
	guest_destroy(&g);
}

static void test_bound_xlat(void **state)
{
	struct guest g = guest_create(32);
	struct x86_insn insn = guest_insn(&g, 2, 4);

	(void)state;
	insn.has_mem = true;
	insn.disp = 0x1ffe; /* across pages */
	insn.reg = RCX;
	*(s16 *)(g.ram + 0x1ffe) = -5;
	*(s16 *)(g.ram + 0x2000) = 7;
	for (s32 i = -10; i < 10; i++) {
		bool inside = i >= -5 && i <= 7;

		g.cpu->gpr[RCX] = 0x10000 | (u16)i;
		assert_int_equal(guest_run(&g, &insn, x86_op_bound), inside ? X86_OK : X86_FAULT);
		if (!inside)
			assert_int_equal(g.cpu->exc.vector, VEC_BR);
	}
	g.cpu->gpr[RBX] = 0x3000;
	g.cpu->gpr[RAX] = 0xaabbccff;
	g.ram[0x30ff] = 0x42;
	assert_int_equal(guest_run(&g, &insn, x86_op_xlat), X86_OK);
	assert_int_equal(g.cpu->gpr[RAX], 0xaabbcc42);
	memset(g.ram + 0x1000, 0xff, 256);
	g.cpu->gpr[RAX] = 0x1077;
	assert_int_equal(guest_run(&g, &insn, x86_op_clzero), X86_OK);
	assert_int_equal(g.ram[0x103f], 0xff);
	assert_int_equal(g.ram[0x1040] | g.ram[0x107f], 0);
	assert_int_equal(g.ram[0x1080], 0xff);
	guest_destroy(&g);
}

/* --- stack --- */

static struct x86_insn opcode(const struct guest *g, u8 op, u16 prefixes)
{
	struct x86_insn insn = guest_insn(g, 4, g->bits / 8);

	insn.opcode = op;
	insn.prefixes = prefixes;
	return insn;
}

static void test_push_pop(void **state)
{
	struct guest g = guest_create(64);
	struct x86_cpu *cpu = g.cpu;
	struct x86_insn insn = opcode(&g, 0x54, 0);

	(void)state;
	cpu->gpr[RSP] = 0x2000;
	insn.reg = RSP;
	assert_int_equal(guest_run(&g, &insn, x86_op_push), X86_OK); /* pushes the old value */
	assert_int_equal(cpu->gpr[RSP], 0x1ff8);
	assert_int_equal(*(u64 *)(g.ram + 0x1ff8), 0x2000);
	insn = opcode(&g, 0x6a, INSN_OPSIZE);
	insn.imm = (u64)-2;
	assert_int_equal(guest_run(&g, &insn, x86_op_push), X86_OK);
	assert_int_equal(cpu->gpr[RSP], 0x1ff6);
	assert_int_equal(*(u16 *)(g.ram + 0x1ff6), 0xfffe);
	cpu->gpr[RSP] = 0x1ff8;
	insn = opcode(&g, 0x8f,
		      0); /* pop qword [rsp + 8]: the address is taken after the increment */
	insn.has_mem = true;
	insn.base = RSP;
	insn.seg = SEG_SS;
	insn.disp = 8;
	assert_int_equal(guest_run(&g, &insn, x86_op_pop), X86_OK);
	assert_int_equal(cpu->gpr[RSP], 0x2000);
	assert_int_equal(*(u64 *)(g.ram + 0x2008), 0x2000);
	insn = opcode(&g, 0x5c, 0);
	insn.reg = RSP;
	*(u64 *)(g.ram + 0x2000) = 0x1234567890;
	assert_int_equal(guest_run(&g, &insn, x86_op_pop), X86_OK);
	assert_int_equal(cpu->gpr[RSP], 0x1234567890);
	/* A destination that faults leaves the stack pointer alone. */
	cpu->gpr[RSP] = 0x2000;
	insn = opcode(&g, 0x8f, 0);
	insn.has_mem = true;
	insn.disp = (s64)0x8000000000000000;
	assert_int_equal(guest_run(&g, &insn, x86_op_pop), X86_FAULT);
	assert_int_equal(cpu->exc.vector, VEC_GP);
	assert_int_equal(cpu->gpr[RSP], 0x2000);
	cpu->gpr[RSP] = 0x800000000000;
	insn = opcode(&g, 0x50, 0);
	cpu->gpr[RSP] += 16;
	assert_int_equal(guest_run(&g, &insn, x86_op_push), X86_FAULT);
	assert_int_equal(cpu->exc.vector, VEC_SS);
	guest_destroy(&g);
}

static void test_pusha(void **state)
{
	struct guest g = guest_create(16);
	struct x86_cpu *cpu = g.cpu;
	struct x86_insn insn = opcode(&g, 0x60, INSN_OPSIZE);

	(void)state;
	for (unsigned i = 0; i < 8; i++)
		cpu->gpr[i] = 0x11111111 * (i + 1);
	cpu->gpr[RSP] = 0x8; /* wraps inside the segment */
	assert_int_equal(guest_run(&g, &insn, x86_op_pusha), X86_OK);
	assert_int_equal(cpu->gpr[RSP], 0xffe8);
	assert_int_equal(*(u32 *)(g.ram + 4), 0x11111111);
	assert_int_equal(*(u32 *)(g.ram + 0xfff4), 8);
	assert_int_equal(*(u32 *)(g.ram + 0xffe8), 0x88888888);
	for (unsigned i = 0; i < 8; i++)
		cpu->gpr[i] = i == RSP ? cpu->gpr[i] : 0;
	assert_int_equal(guest_run(&g, &insn, x86_op_popa), X86_OK);
	for (unsigned i = 0; i < 8; i++)
		assert_int_equal(cpu->gpr[i], i == RSP ? 8 : 0x11111111 * (i + 1));
	/* An odd stack pointer: one element does not fit and nothing changes. */
	memset(g.ram, 0, GUEST_RAM);
	cpu->gpr[RSP] = 0x7;
	insn.prefixes = 0;
	assert_int_equal(guest_run(&g, &insn, x86_op_pusha), X86_FAULT);
	assert_int_equal(cpu->exc.vector, VEC_SS);
	assert_int_equal(cpu->gpr[RSP], 7);
	assert_int_equal(g.ram[5], 0);
	guest_destroy(&g);
}

static void test_enter_leave(void **state)
{
	struct guest g = guest_create(32);
	struct x86_cpu *cpu = g.cpu;
	struct x86_insn insn = opcode(&g, 0xc8, 0);
	u32 *stack = (u32 *)(g.ram + 0x2000);

	(void)state;
	cpu->gpr[RSP] = 0x2000;
	cpu->gpr[RBP] = 0x3000;
	*(u32 *)(g.ram + 0x2ffc) = 0xaaaa;
	*(u32 *)(g.ram + 0x2ff8) = 0xbbbb;
	insn.imm = 0x20;
	insn.imm2 = 0x23; /* level 3 */
	assert_int_equal(guest_run(&g, &insn, x86_op_enter), X86_OK);
	assert_int_equal(cpu->gpr[RBP], 0x1ffc);
	assert_int_equal(cpu->gpr[RSP], 0x2000 - 16 - 0x20);
	assert_int_equal(stack[-1], 0x3000);
	assert_int_equal(stack[-2], 0xaaaa);
	assert_int_equal(stack[-3], 0xbbbb);
	assert_int_equal(stack[-4], 0x1ffc);
	insn = opcode(&g, 0xc9, 0);
	assert_int_equal(guest_run(&g, &insn, x86_op_leave), X86_OK);
	assert_int_equal(cpu->gpr[RSP], 0x2000);
	assert_int_equal(cpu->gpr[RBP], 0x3000);
	/* The final stack pointer must be writable. */
	cpu->seg[SEG_SS].attr = SA_P | SA_S | 0x7 | SA_DB; /* expand down: above the limit */
	cpu->seg[SEG_SS].limit = 0x1f00;
	insn = opcode(&g, 0xc8, 0);
	insn.imm = 0x200;
	assert_int_equal(guest_run(&g, &insn, x86_op_enter), X86_FAULT);
	assert_int_equal(cpu->exc.vector, VEC_SS);
	assert_int_equal(cpu->gpr[RSP], 0x2000);
	guest_destroy(&g);
}

/* --- near branches --- */

static void test_branches(void **state)
{
	struct guest g = guest_create(64);
	struct x86_cpu *cpu = g.cpu;
	struct x86_insn insn = opcode(&g, 0xe8, 0);

	(void)state;
	insn.len = 5;
	insn.imm = (u64)-0x20;
	cpu->gpr[RSP] = 0x2000;
	assert_int_equal(guest_run(&g, &insn, x86_op_call_near), X86_OK);
	assert_int_equal(cpu->next_rip, 0xe5);
	assert_int_equal(*(u64 *)(g.ram + 0x1ff8), 0x105);
	insn = opcode(&g, 0xc2, 0);
	insn.imm = 0x10;
	assert_int_equal(guest_run(&g, &insn, x86_op_ret_near), X86_OK);
	assert_int_equal(cpu->next_rip, 0x105);
	assert_int_equal(cpu->gpr[RSP], 0x2010);
	insn = opcode(&g, 0xff, 0);
	insn.rm = RBX;
	cpu->gpr[RBX] = 0x800000000000;
	assert_int_equal(guest_run(&g, &insn, x86_op_call_near), X86_FAULT);
	assert_int_equal(cpu->exc.vector, VEC_GP);
	assert_int_equal(cpu->gpr[RSP], 0x2010);
	*(u64 *)(g.ram + 0x2010) = 0x900000000000;
	insn = opcode(&g, 0xc3, 0);
	assert_int_equal(guest_run(&g, &insn, x86_op_ret_near), X86_FAULT);
	assert_int_equal(cpu->gpr[RSP], 0x2010);
	guest_destroy(&g);

	g = guest_create(32);
	insn = opcode(&g, 0xeb, INSN_OPSIZE); /* cuts EIP to 16 bits */
	insn.imm = (u64)-0x200;
	assert_int_equal(guest_run(&g, &insn, x86_op_jmp_near), X86_OK);
	assert_int_equal(g.cpu->next_rip, 0xff02);
	g.cpu->seg[SEG_CS].limit = 0xff01;
	assert_int_equal(guest_run(&g, &insn, x86_op_jmp_near), X86_FAULT);
	assert_int_equal(g.cpu->exc.vector, VEC_GP);
	insn = opcode(&g, 0xff, 0);
	insn.has_mem = true;
	insn.disp = 0x3000;
	*(u32 *)(g.ram + 0x3000) = 0x1234;
	assert_int_equal(guest_run(&g, &insn, x86_op_jmp_near), X86_OK);
	assert_int_equal(g.cpu->next_rip, 0x1234);
	guest_destroy(&g);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_decimal),	   cmocka_unit_test(test_divide_by_zero),
		cmocka_unit_test(test_bound_xlat), cmocka_unit_test(test_push_pop),
		cmocka_unit_test(test_pusha),	   cmocka_unit_test(test_enter_leave),
		cmocka_unit_test(test_branches),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

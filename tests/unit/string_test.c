/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* String instructions and port instructions: against the host's own, against a model element by element, faults and devices. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/mman.h>

#include <cmocka.h>

#include "cpu/x86/event.h"
#include "guest_fixture.h"

typedef enum x86_status helper(struct x86_cpu *cpu, const struct x86_insn *insn);

static const struct {
	u8 opcode; /* of the byte form */
	helper *op;
	bool src, dst, compares;
} ops[] = {
	{ 0xa4, x86_op_movs, true, true, false },  { 0xa6, x86_op_cmps, true, true, true },
	{ 0xaa, x86_op_stos, false, true, false }, { 0xac, x86_op_lods, true, false, false },
	{ 0xae, x86_op_scas, false, true, true },
};

static u64 seed = 1;

static u64 rnd(u64 below)
{
	seed = seed * 6364136223846793005ull + 1442695040888963407ull;
	return (seed >> 33) % below;
}

struct regs {
	u64 rax, rcx, rsi, rdi;
	u16 flags;
};

/* One instruction on the host: [std] prefix 66 48 opcode cld lahf;seto ret */
static void host_execute(u8 *code, u8 opcode, unsigned size, unsigned prefixes, bool down,
			 struct regs *r)
{
	u8 *p = code;
	u64 rax = r->rax;
	u16 flags;

	if (down)
		*p++ = 0xfd;
	if (prefixes & INSN_REP)
		*p++ = 0xf3;
	if (prefixes & INSN_REPNE)
		*p++ = 0xf2;
	if (size == 2)
		*p++ = 0x66;
	if (size == 8)
		*p++ = 0x48;
	*p++ = opcode + (size > 1);
	*p++ = 0xfc;
	*p++ = 0xc3;
	__asm__ volatile("sub $128, %%rsp\n\tcall *%[code]\n\tmov %%rax, %[rax]\n\tlahf\n\t"
			 "seto %%al\n\tmov %%ax, %[flags]\n\tadd $128, %%rsp"
			 : "+a"(r->rax), "+c"(r->rcx), "+S"(r->rsi),
			   "+D"(r->rdi), [rax] "=&r"(rax), [flags] "=&r"(flags)
			 : [code] "r"(code)
			 : "memory", "cc");
	r->rax = rax;
	r->flags = flags;
}

static void fill(struct guest *g, u8 *copy, bool dull)
{
	for (unsigned i = 0; i < GUEST_RAM; i++)
		g->ram[i] = dull && rnd(500) ? 0x55 : rnd(256);
	memcpy(copy, g->ram, GUEST_RAM);
}

static void test_host(void **state)
{
	u8 *code = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS,
			-1, 0);
	u8 *copy = aligned_alloc(4096, GUEST_RAM);
	struct guest g = guest_create(64);
	struct x86_cpu *cpu = g.cpu;

	(void)state;
	assert_ptr_not_equal(code, MAP_FAILED);
	for (unsigned i = 0; i < 4000; i++) {
		unsigned k = rnd(ARRAY_SIZE(ops)), size = 1u << rnd(4), n = rnd(1u << rnd(14));
		unsigned prefix = rnd(4) == 0 ? 0 : rnd(2) ? INSN_REP : INSN_REPNE;
		struct x86_insn insn = guest_insn(&g, size, 8);
		struct regs r = { .rax = rnd(2) ? 0x5555555555555555ull : rnd(1u << 30) };
		u64 limit;

		if (i % 16 == 0)
			fill(&g, copy, rnd(2));
		if (n * size > GUEST_RAM / 4)
			n = GUEST_RAM / 4 / size;
		limit = GUEST_RAM - (n + 1) * size;
		cpu->f.df = rnd(2);
		r.rcx = n;
		r.rsi = rnd(limit);
		r.rdi = rnd(3) ? rnd(limit) : (r.rsi + rnd(64)) % limit; /* overlaps, too */
		if (cpu->f.df) {
			r.rsi += n * size;
			r.rdi += n * size;
		}
		cpu->gpr[RAX] = r.rax;
		cpu->gpr[RCX] = r.rcx;
		cpu->gpr[RSI] = r.rsi;
		cpu->gpr[RDI] = r.rdi;
		insn.prefixes = prefix;
		assert_int_equal(guest_run(&g, &insn, ops[k].op), X86_OK);
		r.rsi += (u64)copy;
		r.rdi += (u64)copy;
		host_execute(code, ops[k].opcode, size, prefix, cpu->f.df, &r);
		assert_int_equal(cpu->gpr[RSI], r.rsi - (u64)copy);
		assert_int_equal(cpu->gpr[RDI], r.rdi - (u64)copy);
		assert_int_equal(cpu->gpr[RCX], r.rcx);
		assert_int_equal(cpu->gpr[RAX], r.rax);
		if (ops[k].compares && (n || !prefix))
			assert_int_equal(cpu->aflags, r.flags);
		assert_memory_equal(g.ram, copy, GUEST_RAM);
	}
	munmap(code, 4096);
	free(copy);
	guest_destroy(&g);
}

/* MOVS, STOS and LODS by the book, one element at a time, with wrap in 16- and 32-bit addresses. */
static void model(struct guest *g, u8 *ram, unsigned k, const struct x86_insn *insn, struct regs *r)
{
	u64 mask = insn->adsize == 8 ? ~0ull : insn->adsize == 4 ? ~0u : 0xffff;
	u64 step = g->cpu->f.df ? -(u64)insn->opsize : insn->opsize;

	while (r->rcx & mask) {
		u64 v = r->rax;

		if (ops[k].src)
			memcpy(&v, ram + g->cpu->seg[insn->seg].base + (r->rsi & mask),
			       insn->opsize);
		if (ops[k].dst)
			memcpy(ram + g->cpu->seg[SEG_ES].base + (r->rdi & mask), &v, insn->opsize);
		else
			memcpy(&r->rax, &v, insn->opsize);
		if (ops[k].src)
			r->rsi = (r->rsi & ~mask) | ((r->rsi + step) & mask);
		if (ops[k].dst)
			r->rdi = (r->rdi & ~mask) | ((r->rdi + step) & mask);
		r->rcx = (r->rcx & ~mask) | ((r->rcx - 1) & mask);
	}
}

static void test_wrap(void **state)
{
	static const unsigned which[] = { 0, 2, 3 };
	u8 *copy = aligned_alloc(4096, GUEST_RAM);
	struct guest g = guest_create(16);
	struct x86_cpu *cpu = g.cpu;

	(void)state;
	fill(&g, copy, false);
	for (unsigned i = 0; i < 1000; i++) {
		unsigned k = which[rnd(3)], size = 1u << rnd(3);
		struct x86_insn insn = guest_insn(&g, size, 2);
		struct regs r = { .rax = rnd(1u << 30), .rcx = 0xabcd0000 | rnd(3000) };

		/* Aligned elements: one that crosses the limit would fault, as it must. */
		r.rsi = 0x10000 | (rnd(0x10000) & ~3ull);
		r.rdi = 0x20000 | (rnd(0x10000) & ~3ull);
		cpu->f.df = rnd(2);
		insn.prefixes = INSN_REP;
		insn.seg_override = rnd(2);
		insn.seg = insn.seg_override ? SEG_FS : SEG_DS;
		cpu->gpr[RAX] = r.rax;
		cpu->gpr[RCX] = r.rcx;
		cpu->gpr[RSI] = r.rsi;
		cpu->gpr[RDI] = r.rdi;
		assert_int_equal(guest_run(&g, &insn, ops[k].op), X86_OK);
		model(&g, copy, k, &insn, &r);
		assert_int_equal(cpu->gpr[RCX], r.rcx);
		assert_int_equal(cpu->gpr[RSI], r.rsi);
		assert_int_equal(cpu->gpr[RDI], r.rdi);
		assert_int_equal(cpu->gpr[RAX], r.rax);
		assert_memory_equal(g.ram, copy, GUEST_RAM);
	}
	free(copy);
	guest_destroy(&g);
}

/* A segment that ends in the middle: registers stand at the element that does not fit. */
static void test_limit(void **state)
{
	struct guest g = guest_create(32);
	struct x86_insn insn = guest_insn(&g, 4, 4);
	struct x86_cpu *cpu = g.cpu;

	(void)state;
	cpu->seg[SEG_ES].limit = 0x2fff + 2;
	cpu->gpr[RAX] = 0x11223344;
	cpu->gpr[RCX] = 0x1000;
	cpu->gpr[RDI] = 0x1000;
	insn.prefixes = INSN_REP;
	assert_int_equal(guest_run(&g, &insn, x86_op_stos), X86_FAULT);
	assert_int_equal(cpu->exc.vector, VEC_GP);
	assert_int_equal(cpu->gpr[RDI], 0x3000);
	assert_int_equal(cpu->gpr[RCX], 0x800);
	assert_int_equal(*(u32 *)(g.ram + 0x2ffc), 0x11223344);
	assert_int_equal(g.ram[0x3000], 0);
	cpu->gpr[RCX] = 0; /* no element, no fault */
	assert_int_equal(guest_run(&g, &insn, x86_op_stos), X86_OK);
	/* The address-size prefix: the upper halves are cleared by a count that moves. */
	guest_destroy(&g);
	g = guest_create(64);
	insn = guest_insn(&g, 1, 4);
	insn.prefixes = INSN_REP;
	g.cpu->gpr[RDI] = 0x900001000;
	g.cpu->gpr[RCX] = 0x100000005;
	assert_int_equal(guest_run(&g, &insn, x86_op_stos), X86_OK);
	assert_int_equal(g.cpu->gpr[RDI], 0x1005);
	assert_int_equal(g.cpu->gpr[RCX], 0);
	guest_destroy(&g);
}

/* From RAM into a device, four elements, each an exit; leaf context asks for the full one. */
static void test_device(void **state)
{
	struct guest g = guest_create(64);
	struct x86_insn insn = guest_insn(&g, 2, 8);
	struct x86_cpu *cpu = g.cpu;
	unsigned exits = 0;

	(void)state;
	for (unsigned i = 0; i < 8; i++)
		g.ram[0x1000 + i] = i + 1;
	cpu->gpr[RSI] = 0x1000;
	cpu->gpr[RDI] = GUEST_RAM;
	cpu->gpr[RCX] = 4;
	insn.prefixes = INSN_REP;
	cpu->full = false;
	assert_int_equal(guest_run(&g, &insn, x86_op_movs), X86_FULL);
	assert_int_equal(cpu->gpr[RCX], 4);
	cpu->full = true;
	while (guest_run(&g, &insn, x86_op_movs) == X86_EXIT) {
		assert_int_equal(cpu->exit.reason, X86_EXIT_MMIO);
		assert_int_equal(cpu->exit.gpa, GUEST_RAM + 2 * exits);
		assert_int_equal(cpu->exit.data[0], 2 * exits + 1);
		assert_true(cpu->exit.is_write);
		exits++;
	}
	assert_int_equal(exits, 4);
	assert_int_equal(cpu->gpr[RCX], 0);
	assert_int_equal(cpu->gpr[RDI], GUEST_RAM + 8);
	/* And back: what user space answers arrives in RAM. */
	cpu->gpr[RSI] = GUEST_RAM;
	cpu->gpr[RDI] = 0x2ffd; /* one element crosses pages */
	cpu->gpr[RCX] = 3;
	exits = 0;
	while (guest_run(&g, &insn, x86_op_movs) == X86_EXIT) {
		cpu->exit.data[0] = cpu->exit.data[1] = ++exits;
	}
	assert_int_equal(exits, 3);
	assert_memory_equal(g.ram + 0x2ffd, "\1\1\2\2\3\3", 6);
	guest_destroy(&g);
}

static u32 read32(const struct guest *g, unsigned at)
{
	u32 v;

	memcpy(&v, g->ram + at, 4);
	return v;
}

static u32 port_value;

static int port_access(void *owner, u16 port, void *data, unsigned size, bool is_write)
{
	(void)owner;
	if (port != 0x60)
		return 1;
	if (is_write)
		memcpy(&port_value, data, size);
	else
		memcpy(data, &port_value, size);
	port_value++;
	return 0;
}

static void test_ports(void **state)
{
	static const struct x86_platform platform = { .io = port_access };
	struct guest g = guest_create(32);
	struct x86_insn insn = guest_insn(&g, 1, 4);
	struct x86_cpu *cpu = g.cpu;

	(void)state;
	cpu->platform = &platform;
	port_value = 0x80;
	insn.opcode = 0xe4;
	insn.imm = 0x60;
	cpu->gpr[RAX] = 0x11111111;
	assert_int_equal(guest_run(&g, &insn, x86_op_in), X86_OK);
	assert_int_equal(cpu->gpr[RAX], 0x11111180);
	insn.opcode = 0xed;
	insn.opsize = 4;
	cpu->gpr[RDX] = 0xabc00060;
	assert_int_equal(guest_run(&g, &insn, x86_op_in), X86_OK);
	assert_int_equal(cpu->gpr[RAX], 0x81);
	insn.prefixes = INSN_REP;
	cpu->gpr[RCX] = 600;
	cpu->gpr[RDI] = 0xffe;
	port_value = 7;
	assert_int_equal(guest_run(&g, &insn, x86_op_ins), X86_OK);
	assert_int_equal(cpu->gpr[RCX], 0);
	for (unsigned i = 0; i < 600; i++)
		assert_int_equal(read32(&g, 0xffe + 4 * i), 7 + i);
	/* A port of user space. */
	cpu->gpr[RDX] = 0x3f8;
	cpu->gpr[RSI] = 0xffe;
	cpu->gpr[RCX] = 2;
	assert_int_equal(guest_run(&g, &insn, x86_op_outs), X86_EXIT);
	assert_int_equal(cpu->exit.port, 0x3f8);
	assert_int_equal(cpu->exit.data[0], 7);
	assert_int_equal(guest_run(&g, &insn, x86_op_outs), X86_EXIT);
	assert_int_equal(cpu->exit.data[0], 8);
	assert_int_equal(guest_run(&g, &insn, x86_op_outs), X86_OK);
	assert_int_equal(cpu->gpr[RSI], 0x1006);
	guest_destroy(&g);
}

/* CPL 3 and IOPL 0: the bitmap of the TSS decides. */
static void test_permission(void **state)
{
	struct guest g = guest_create(32);
	struct x86_insn insn = guest_insn(&g, 2, 4);
	struct x86_cpu *cpu = g.cpu;

	(void)state;
	insn.opcode = 0xef;
	cpu->seg[SEG_CS].attr |= 3 << SA_DPL_SHIFT;
	cpu->seg[SEG_SS].attr |= 3 << SA_DPL_SHIFT;
	x86_mode_update(cpu);
	assert_int_equal(cpu->cpl, 3);
	cpu->seg[SEG_TR] = (struct x86_seg){ .base = 0x4000, .limit = 0x80, .attr = SA_P | 0xb };
	*(u16 *)(g.ram + 0x4066) = 0x68;
	g.ram[0x4068] = 0x18; /* ports 3 and 4 are forbidden */
	for (unsigned port = 0; port < 8; port++) {
		bool allowed = port != 2 && port != 3 && port != 4;

		cpu->gpr[RDX] = port;
		assert_int_equal(guest_run(&g, &insn, x86_op_out), allowed ? X86_EXIT : X86_FAULT);
		x86_replay_forget(cpu);
		if (!allowed)
			assert_int_equal(cpu->exc.vector, VEC_GP);
	}
	cpu->gpr[RDX] = 8 * 0x18; /* its second byte is beyond the limit */
	assert_int_equal(guest_run(&g, &insn, x86_op_out), X86_FAULT);
	cpu->gpr[RDX] = 8 * 0x17;
	assert_int_equal(guest_run(&g, &insn, x86_op_out), X86_EXIT);
	x86_replay_forget(cpu);
	cpu->gpr[RDX] = 3;
	cpu->f.iopl = 3;
	assert_int_equal(guest_run(&g, &insn, x86_op_out), X86_EXIT);
	guest_destroy(&g);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_host),  cmocka_unit_test(test_wrap),
		cmocka_unit_test(test_limit), cmocka_unit_test(test_device),
		cmocka_unit_test(test_ports), cmocka_unit_test(test_permission),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Vector registers in the saved state, gather and scatter against the host, MASKMOV, active bytes, bounce copies. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "cpu/x86/align.h"
#include "cpu/x86/bounce.h"
#include "cpu/x86/event.h"
#include "cpu/x86/ops.h"
#include "cpu/x86/vector.h"
#include "guest_fixture.h"

static u64 seed = 7;

static u64 rnd(void)
{
	seed = seed * 6364136223846793005ull + 1442695040888963407ull;
	return seed ^ seed >> 29;
}

static bool host_has_avx512(void)
{
	return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
	       __builtin_cpu_supports("avx512vl");
}

static void reg_set(struct x86_cpu *cpu, unsigned reg, const u8 v[64])
{
	for (unsigned i = 0; i < 64; i += 16)
		x86_vector_write(cpu, reg, i, v + i, 16);
}

static void reg_get(struct x86_cpu *cpu, unsigned reg, u8 v[64])
{
	for (unsigned i = 0; i < 64; i += 16)
		x86_vector_read(cpu, reg, i, v + i, 16);
}

#define HOST __attribute__((noinline, target("avx512f,avx512bw,avx512vl,avx2")))

/* What XSAVE stores is what the accessors read. */
HOST static void test_layout(void **state)
{
	static u8 in[3][64] __attribute__((aligned(64))), out[64];
	struct guest g = guest_create(64);
	u64 k = 0x123456789abcdef0;

	(void)state;
	if (!host_has_avx512())
		skip();
	for (unsigned i = 0; i < sizeof(in); i++)
		((u8 *)in)[i] = i * 11 + 3;
	__asm__ volatile("vmovdqu64 (%0), %%zmm1\n\tvmovdqu64 64(%0), %%zmm15\n\t"
			 "vmovdqu64 128(%0), %%zmm30\n\tkmovq %1, %%k5\n\txsave64 %2"
			 :
			 : "r"(in), "r"(k), "m"(*(u8(*)[4096])g.cpu->xsave), "a"(0xe7), "d"(0)
			 : "xmm1", "xmm15", "xmm30", "k5", "memory");
	reg_get(g.cpu, 1, out);
	assert_memory_equal(out, in[0], 64);
	reg_get(g.cpu, 15, out);
	assert_memory_equal(out, in[1], 64);
	reg_get(g.cpu, 30, out);
	assert_memory_equal(out, in[2], 64);
	assert_int_equal(x86_opmask_read(g.cpu, 5), k);
	guest_destroy(&g);
}

/* A component that is not in use is 0, whatever lies in its memory. */
static void test_init_state(void **state)
{
	struct guest g = guest_create(64);
	u64 v = 1;

	(void)state;
	memset(g.cpu->xsave, 0xee, 512);
	x86_vector_read(g.cpu, 3, 8, &v, 8);
	assert_int_equal(v, 0);
	v = 5;
	x86_vector_write(g.cpu, 3, 8, &v, 8);
	x86_vector_read(g.cpu, 3, 0, &v, 8);
	assert_int_equal(v, 0);
	x86_vector_read(g.cpu, 3, 8, &v, 8);
	assert_int_equal(v, 5);
	guest_destroy(&g);
}

/* --- gather and scatter: register 1 is data, 2 the index, 3 or k1 the mask, RSI the base --- */

struct vectors {
	u8 reg[3][64];
	u64 k;
};

typedef void host_fn(struct vectors *v, u8 *ram);

#define FORM(name, text)                                                                           \
	HOST static void host_##name(struct vectors *v, u8 *ram)                                   \
	{                                                                                          \
		__asm__ volatile("vmovdqu64 (%0), %%zmm1\n\tvmovdqu64 64(%0), %%zmm2\n\t"          \
				 "vmovdqu64 128(%0), %%zmm3\n\tkmovq 192(%0), %%k1\n\t" text       \
				 "\n\tvmovdqu64 %%zmm1, (%0)\n\tvmovdqu64 %%zmm3, 128(%0)\n\t"     \
				 "kmovq %%k1, 192(%0)"                                             \
				 :                                                                 \
				 : "r"(v), "S"(ram)                                                \
				 : "xmm1", "xmm2", "xmm3", "k1", "memory");                        \
	}

FORM(dd_x, "vpgatherdd %%xmm3, (%%rsi,%%xmm2,4), %%xmm1")
FORM(dd_y, "vpgatherdd %%ymm3, (%%rsi,%%ymm2,4), %%ymm1")
FORM(dq_y, "vpgatherdq %%ymm3, (%%rsi,%%xmm2,8), %%ymm1")
FORM(qd_x, "vpgatherqd %%xmm3, (%%rsi,%%xmm2,4), %%xmm1")
FORM(qd_y, "vgatherqps %%xmm3, (%%rsi,%%ymm2,4), %%xmm1")
FORM(qq_y, "vgatherqpd %%ymm3, (%%rsi,%%ymm2,8), %%ymm1")
FORM(dd_z, "vpgatherdd (%%rsi,%%zmm2,4), %%zmm1%{%%k1%}")
FORM(dq_z, "vpgatherdq (%%rsi,%%ymm2,8), %%zmm1%{%%k1%}")
FORM(qd_z, "vpgatherqd (%%rsi,%%zmm2,4), %%ymm1%{%%k1%}")
FORM(qq_k, "vpgatherqq (%%rsi,%%xmm2,8), %%xmm1%{%%k1%}")
FORM(sdd, "vpscatterdd %%zmm1, (%%rsi,%%zmm2,4)%{%%k1%}")
FORM(sdq, "vpscatterdq %%ymm1, (%%rsi,%%xmm2,8)%{%%k1%}")
FORM(sqd, "vpscatterqd %%ymm1, (%%rsi,%%zmm2,4)%{%%k1%}")
FORM(sqq, "vpscatterqq %%zmm1, (%%rsi,%%zmm2,8)%{%%k1%}")

static const struct form {
	host_fn *host;
	u8 opcode, elem, vlen, first;
} forms[] = {
	{ host_dd_x, 0x90, 4, 16, 0xc4 }, { host_dd_y, 0x90, 4, 32, 0xc4 },
	{ host_dq_y, 0x90, 8, 32, 0xc4 }, { host_qd_x, 0x91, 4, 16, 0xc4 },
	{ host_qd_y, 0x93, 4, 32, 0xc4 }, { host_qq_y, 0x93, 8, 32, 0xc4 },
	{ host_dd_z, 0x90, 4, 64, 0x62 }, { host_dq_z, 0x90, 8, 64, 0x62 },
	{ host_qd_z, 0x91, 4, 64, 0x62 }, { host_qq_k, 0x91, 8, 16, 0x62 },
	{ host_sdd, 0xa0, 4, 64, 0x62 },  { host_sdq, 0xa0, 8, 32, 0x62 },
	{ host_sqd, 0xa1, 4, 64, 0x62 },  { host_sqq, 0xa1, 8, 64, 0x62 },
};

static struct x86_insn form_insn(const struct guest *g, const struct form *f)
{
	struct x86_insn insn = guest_insn(g, f->elem, 8);

	insn.bytes[0] = f->first;
	insn.opcode = f->opcode;
	insn.elem = insn.memsize = insn.scale = f->elem;
	insn.vlen = f->vlen;
	insn.reg = 1;
	insn.index = 2;
	insn.vvvv = f->first == 0xc4 ? 3 : 0;
	insn.mask = f->first == 0xc4 ? 0 : 1;
	insn.base = RSI;
	insn.has_mem = true;
	return insn;
}

static void vectors_random(struct vectors *v, const struct form *f)
{
	u64 *q = (u64 *)v;

	for (unsigned i = 0; i < sizeof(*v) / 8; i++)
		q[i] = rnd();
	/* Indices of both signs, near and far, some equal. */
	for (unsigned i = 0; i < 64; i += f->opcode & 1 ? 8 : 4) {
		s64 index = rnd() & 1 ? (s64)(rnd() % 8000) - 4000 : (s64)(rnd() % 16);

		memcpy(v->reg[1] + i, &index, f->opcode & 1 ? 8 : 4);
	}
}

static void vectors_load(struct x86_cpu *cpu, const struct vectors *v)
{
	for (unsigned i = 0; i < 3; i++)
		reg_set(cpu, i + 1, v->reg[i]);
	x86_opmask_write(cpu, 1, v->k);
}

static void vectors_store(struct x86_cpu *cpu, struct vectors *v)
{
	for (unsigned i = 0; i < 3; i++)
		reg_get(cpu, i + 1, v->reg[i]);
	v->k = x86_opmask_read(cpu, 1);
}

static void test_gather_scatter(void **state)
{
	struct guest g = guest_create(64);
	u8 *copy = malloc(GUEST_RAM);
	struct vectors a, b;

	(void)state;
	if (!host_has_avx512())
		skip();
	for (unsigned i = 0; i < GUEST_RAM; i++)
		copy[i] = g.ram[i] = rnd();
	g.cpu->gpr[RSI] = GUEST_RAM / 2 + 1;
	for (unsigned i = 0; i < 200 * ARRAY_SIZE(forms); i++) {
		const struct form *f = &forms[i % ARRAY_SIZE(forms)];
		struct x86_insn insn = form_insn(&g, f);

		vectors_random(&a, f);
		vectors_load(g.cpu, &a);
		assert_int_equal(
			guest_run(&g, &insn, f->opcode >= 0xa0 ? x86_op_scatter : x86_op_gather),
			X86_OK);
		vectors_store(g.cpu, &b);
		f->host(&a, copy + GUEST_RAM / 2 + 1);
		assert_memory_equal(&a, &b, sizeof(a));
		assert_memory_equal(g.ram, copy, GUEST_RAM);
	}
	free(copy);
	guest_destroy(&g);
}

/* Element 2 faults: elements 0 and 1 are done and their mask bits gone. */
static void test_gather_partial(void **state)
{
	static const u32 index[16] = { 0, 1, 0x10000000, 3 };
	struct form f = { .opcode = 0x90, .elem = 4, .vlen = 64, .first = 0x62 };
	struct guest g = guest_create(64);
	struct x86_insn insn = form_insn(&g, &f);
	u8 out[64], zero[64] = { 0 };

	(void)state;
	insn.scale = 8;
	g.cpu->gpr[RSI] = 0x7fff80000000; /* not canonical with element 2 */
	g.cpu->full = false;
	assert_int_equal(guest_run(&g, &insn, x86_op_gather), X86_FULL);
	g.cpu->full = true;
	reg_set(g.cpu, 1, zero);
	reg_set(g.cpu, 2, (const u8 *)index);
	x86_opmask_write(g.cpu, 1, 0x800f);
	insn.base = RDI;
	insn.disp = 0x7fff80000000;
	for (u64 expect = 0x800f; expect != 0x800c; expect &= expect - 1) {
		/* The first two elements lie in a device. */
		assert_int_equal(guest_run(&g, &insn, x86_op_gather), X86_EXIT);
		assert_int_equal(x86_opmask_read(g.cpu, 1), expect);
		g.cpu->exit.data[0] = 0x42;
	}
	assert_int_equal(guest_run(&g, &insn, x86_op_gather), X86_FAULT);
	assert_int_equal(g.cpu->exc.vector, VEC_GP);
	assert_int_equal(x86_opmask_read(g.cpu, 1), 0x800c);
	reg_get(g.cpu, 1, out);
	assert_int_equal(out[0], 0x42);
	assert_int_equal(out[4], 0x42);
	insn.index = 1; /* destination = index */
	assert_int_equal(guest_run(&g, &insn, x86_op_gather), X86_FAULT);
	assert_int_equal(g.cpu->exc.vector, VEC_UD);
	guest_destroy(&g);
}

static void test_maskmov(void **state)
{
	struct guest g = guest_create(64);
	struct x86_insn insn = guest_insn(&g, 4, 8);
	u8 data[16], mask[16];
	u16 *fsw = (u16 *)(g.cpu->xsave + 2);

	(void)state;
	memcpy(insn.bytes, "\xc4\x41\x79\xf7\xca", 5); /* vmaskmovdqu xmm9, xmm10 */
	insn.len = 5;
	insn.reg = 9;
	insn.rm = 2;
	for (unsigned i = 0; i < 16; i++) {
		data[i] = i + 1;
		mask[i] = i % 3 ? 0x80 : 0x7f;
	}
	x86_vector_write(g.cpu, 9, 0, data, 16);
	x86_vector_write(g.cpu, 10, 0, mask, 16);
	g.cpu->gpr[RDI] = 0x1ff8; /* across pages */
	assert_int_equal(guest_run(&g, &insn, x86_op_maskmov), X86_OK);
	for (unsigned i = 0; i < 16; i++)
		assert_int_equal(g.ram[0x1ff8 + i], i % 3 ? i + 1 : 0);
	/* maskmovq mm1, mm2 with TOP = 3: MM1 is ST6, MM2 is ST7. */
	memcpy(insn.bytes, "\x0f\xf7\xca", 3);
	insn.len = 3;
	insn.reg = 1;
	g.cpu->xsave[512] |= 1;
	*fsw = 3 << 11;
	memcpy(g.cpu->xsave + 32 + 16 * 6, data, 8);
	memcpy(g.cpu->xsave + 32 + 16 * 7, mask, 8);
	g.cpu->gpr[RDI] = 0x3000;
	assert_int_equal(guest_run(&g, &insn, x86_op_maskmov), X86_OK);
	for (unsigned i = 0; i < 8; i++)
		assert_int_equal(g.ram[0x3000 + i], i % 3 ? i + 1 : 0);
	assert_int_equal(*fsw, 0);
	assert_memory_equal(g.cpu->xsave + 32 + 16, data, 8);
	assert_int_equal(g.cpu->xsave[4], 0xff);
	/* All bytes masked out: nothing is written, but the operand is looked at. */
	memset(g.cpu->xsave + 32 + 32, 0, 8);
	memset(g.ram + 0x3000, 0x5a, 8);
	assert_int_equal(guest_run(&g, &insn, x86_op_maskmov), X86_OK);
	for (unsigned i = 0; i < 8; i++)
		assert_int_equal(g.ram[0x3000 + i], 0x5a);
	g.cpu->gpr[RDI] = 0x800000000000;
	assert_int_equal(guest_run(&g, &insn, x86_op_maskmov), X86_FAULT);
	assert_int_equal(g.cpu->exc.vector, VEC_GP);
	guest_destroy(&g);
}

static void test_active_bytes(void **state)
{
	static const struct {
		u8 kind, mask, elem, memsize, vlen;
		u64 k, bytes;
	} rows[] = {
		{ INSN_MASK_NONE, 0, 4, 16, 16, 0, 0xffff },
		{ INSN_MASK_K, 0, 4, 16, 16, 0, 0xffff }, /* k0: no mask */
		{ INSN_MASK_K, 1, 4, 16, 16, 0xf5, 0x0f0f },
		{ INSN_MASK_K, 1, 1, 64, 64, 0x8000000000000001, 0x8000000000000001 },
		{ INSN_MASK_K, 1, 8, 64, 64, 0x82, 0xff0000000000ff00 },
		{ INSN_MASK_K, 1, 4, 4, 16, 0xfe, 0 }, /* scalar: bit 0 only */
		{ INSN_MASK_K_PACKED, 1, 2, 64, 64, 0x80100001, 0x3f },
		{ INSN_MASK_K_PACKED, 1, 4, 16, 16, 0xf1, 0xf },
		{ INSN_MASK_BROADCAST, 1, 4, 4, 64, 0x8000, 0xf },
		{ INSN_MASK_BROADCAST, 1, 4, 4, 16, 0xfff0, 0 },
		{ INSN_MASK_BROADCAST, 1, 4, 16, 64, 0x2010, 0x00ff },
		{ INSN_MASK_VEC, 3, 4, 16, 16, 0, 0xf00f },
	};
	struct guest g = guest_create(64);
	u32 signs[4] = { 0x80000000, 0x7fffffff, 1, 0xffffffff };

	(void)state;
	x86_vector_write(g.cpu, 3, 0, signs, 16);
	for (unsigned i = 0; i < ARRAY_SIZE(rows); i++) {
		struct x86_insn insn = guest_insn(&g, 4, 8);
		u64 bytes;

		insn.mask_kind = rows[i].kind;
		insn.mask = rows[i].mask;
		insn.elem = rows[i].elem;
		insn.memsize = rows[i].memsize;
		insn.vlen = rows[i].vlen;
		insn.access = INSN_READ;
		x86_opmask_write(g.cpu, 1, rows[i].k);
		x86_active_bytes(g.cpu, &insn, &bytes);
		assert_int_equal(bytes, rows[i].bytes);
	}
	guest_destroy(&g);
}

static void test_bounce(void **state)
{
	struct guest g = guest_create(64);
	struct x86_insn insn = guest_insn(&g, 8, 8);
	gva_t end = GUEST_RAM - 8;
	u8 buf[64];

	(void)state;
	/* Half of the operand is beyond the RAM, and masked out. */
	insn.mask_kind = INSN_MASK_K;
	insn.mask = 1;
	insn.elem = 4;
	insn.memsize = 16;
	insn.vlen = 16;
	insn.access = INSN_READ | INSN_WRITE;
	x86_opmask_write(g.cpu, 1, 0x2);
	memset(g.ram + end, 0x11, 8);
	assert_int_equal(x86_bounce_in(g.cpu, &insn, end, 16, ACC_WRITE, buf), X86_OK);
	assert_memory_equal(buf, "\0\0\0\0\x11\x11\x11\x11\0\0\0\0\0\0\0", 16);
	memset(buf, 0x22, 16);
	assert_int_equal(x86_bounce_out(g.cpu, &insn, end, 16, ACC_WRITE, buf), X86_OK);
	assert_memory_equal(g.ram + end, "\x11\x11\x11\x11\x22\x22\x22\x22", 8);
	g.cpu->full = false;
	assert_int_equal(x86_bounce_in(g.cpu, &insn, end, 16, ACC_WRITE, buf), X86_FULL);
	/* Without a mask: across two pages in leaf context. */
	insn.mask_kind = INSN_MASK_NONE;
	g.ram[0x1fff] = 1;
	g.ram[0x2000] = 2;
	assert_int_equal(x86_bounce_in(g.cpu, &insn, 0x1fff, 2, ACC_WRITE, buf), X86_OK);
	assert_memory_equal(buf, "\1\2", 2);
	buf[0] = 3;
	assert_int_equal(x86_bounce_out(g.cpu, &insn, 0x1fff, 2, ACC_WRITE, buf), X86_OK);
	assert_memory_equal(g.ram + 0x1fff, "\3\2", 2);
	insn.access = INSN_READ;
	assert_int_equal(x86_bounce_in(g.cpu, &insn, GUEST_RAM, 8, ACC_READ, buf), X86_FULL);
	guest_destroy(&g);
}

/* What #AC asks of vectors: of elements under a mask, of nothing when none is named. */
static void test_align(void **state)
{
	static const struct {
		u8 kind, elem, memsize, align;
		u16 op;
		u64 k;
		gva_t lin;
		bool raises;
	} rows[] = {
		{ INSN_MASK_NONE, 4, 16, 0, 0, 0, 0x1008, true },
		{ INSN_MASK_NONE, 4, 64, 0, 0, 0, 0x1010, false },
		{ INSN_MASK_NONE, 4, 16, 16, 0, 0, 0x1008, false }, /* #GP instead */
		{ INSN_MASK_K, 4, 16, 0, 0, 0xf, 0x1004, false },
		{ INSN_MASK_K, 4, 16, 0, 0, 0x8, 0x1002, true },
		{ INSN_MASK_K, 4, 16, 0, 0, 0xf0, 0x1002, false }, /* beyond the elements */
		{ INSN_MASK_K, 1, 16, 0, 0, 0xf, 0x1001, false },
		{ INSN_MASK_K_PACKED, 2, 16, 0, 0, 0x80, 0x1001, true },
		{ INSN_MASK_BROADCAST, 8, 8, 0, 0, 0x1, 0x1004, true },
		{ INSN_MASK_K, 4, 16, 0, 0, 0x1, BIT_ULL(47) + 1, false }, /* #GP instead */
		{ INSN_MASK_VEC, 4, 16, 0, 0, 0xf, 0x1001, false },
		{ INSN_MASK_NONE, 4, 4, 0, X86_OP_gather, 0, 0x1001, false },
		{ INSN_MASK_NONE, 0, 16, 0, X86_OP_maskmov, 0, 0x1008, false },
		{ INSN_MASK_NONE, 0, 16, 0, X86_OP_maskmov, 0, 0x1004, true },
	};
	struct guest g = guest_create(64);

	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(rows); i++) {
		struct x86_insn insn = guest_insn(&g, 4, 8);

		insn.mask_kind = rows[i].kind;
		insn.mask = 1;
		insn.elem = rows[i].elem;
		insn.memsize = insn.vlen = rows[i].memsize;
		insn.align = rows[i].align;
		insn.op = rows[i].op;
		insn.access = INSN_READ;
		x86_opmask_write(g.cpu, 1, rows[i].k);
		g.cpu->mode &= ~MODE_AC;
		assert_int_equal(x86_align_operand(g.cpu, &insn, rows[i].lin), X86_OK);
		g.cpu->mode |= MODE_AC;
		assert_int_equal(x86_align_operand(g.cpu, &insn, rows[i].lin),
				 rows[i].raises ? X86_FAULT : X86_OK);
		if (!rows[i].raises || rows[i].kind == INSN_MASK_NONE)
			continue;
		assert_int_equal(g.cpu->exc.vector, VEC_AC);
		g.cpu->full = false; /* masks cannot be read */
		assert_int_equal(x86_align_operand(g.cpu, &insn, rows[i].lin), X86_FULL);
		g.cpu->full = true;
	}
	guest_destroy(&g);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_layout),	       cmocka_unit_test(test_init_state),
		cmocka_unit_test(test_gather_scatter), cmocka_unit_test(test_gather_partial),
		cmocka_unit_test(test_maskmov),	       cmocka_unit_test(test_active_bytes),
		cmocka_unit_test(test_bounce),	       cmocka_unit_test(test_align),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

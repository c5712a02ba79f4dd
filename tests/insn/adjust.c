/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* States in which single instructions do more than fault. */
#include <string.h>

#include "cpu/x86/xstate.h"
#include "insn.h"

/* Selectors that mean the same on the host and in the guest: null, Linux's own, privileged, beyond the limit. */
static const u16 selectors[] = { 0, 3, 0x2b, 0x2b, 0x33, 0x23, 0x10, 0x18, 0xfff8, 0x1003, 0x2004 };
#define USER_CS 0x33
#define USER_SS 0x2b

static u16 random_selector(struct rng *r)
{
	return selectors[rng_below(r, ARRAY_SIZE(selectors))];
}

static unsigned gpr_of(const ZydisDecodedOperand *op)
{
	ZydisRegister wide =
		ZydisRegisterGetLargestEnclosing(ZYDIS_MACHINE_MODE_LONG_64, op->reg.value);

	return ZydisRegisterGetId(wide);
}

static bool is_gpr(const ZydisDecodedOperand *op)
{
	return op->type == ZYDIS_OPERAND_TYPE_REGISTER && op->reg.value >= ZYDIS_REGISTER_AL &&
	       op->reg.value <= ZYDIS_REGISTER_R15;
}

static bool is_address(const struct testcase *c, unsigned reg)
{
	for (unsigned i = 0; i < c->zi.operand_count; i++)
		if (c->ops[i].type == ZYDIS_OPERAND_TYPE_MEMORY) {
			if (c->ops[i].mem.base >= ZYDIS_REGISTER_EAX &&
			    gpr_of(&(ZydisDecodedOperand){ .reg.value = c->ops[i].mem.base }) ==
				    reg)
				return true;
			if (c->ops[i].mem.index >= ZYDIS_REGISTER_EAX &&
			    c->ops[i].mem.index <= ZYDIS_REGISTER_R15 &&
			    gpr_of(&(ZydisDecodedOperand){ .reg.value = c->ops[i].mem.index }) ==
				    reg)
				return true;
		}
	return false;
}

/* A divisor of any size succeeds only when the upper half is small. */
static void for_divide(struct start *s, const struct testcase *c, struct rng *r)
{
	if (rng_chance(r, 70) && !is_address(c, RDX))
		s->st.gpr[RDX] = rng_chance(r, 70) ? 0 : ~0ull;
	if (rng_chance(r, 40) && !is_address(c, RAX))
		s->st.gpr[RAX] = rng_next(r) & 0x7f;
}

static void for_bit(struct start *s, const struct testcase *c, struct rng *r)
{
	unsigned reg;

	if (c->ops[0].type != ZYDIS_OPERAND_TYPE_MEMORY || !is_gpr(&c->ops[1]))
		return;
	reg = gpr_of(&c->ops[1]);
	if (!is_address(c, reg))
		s->st.gpr[reg] = (s64)rng_below(r, 4096) - 2048;
}

static unsigned operands_in_memory(const struct testcase *c)
{
	unsigned n = 0;

	for (unsigned i = 0; i < c->zi.operand_count; i++)
		n += c->ops[i].type == ZYDIS_OPERAND_TYPE_MEMORY;
	return n;
}

/* One pointer of a repeated string a few elements before a hole, the other one far from any. */
static void to_the_edge(struct start *s, const struct testcase *c, struct rng *r)
{
	unsigned first = rng_below(r, 2);

	for (unsigned i = 0, n = 0; i < c->zi.operand_count; i++) {
		const ZydisDecodedOperand *op = &c->ops[i];
		unsigned size = op->size / 8;
		u64 off = rng_below(r, 12 * size), base;

		if (op->type != ZYDIS_OPERAND_TYPE_MEMORY)
			continue;
		if (n++ == first || (first && operands_in_memory(c) == 1))
			off = s->st.rflags & FL_DF ? off : DATA_SIZE - size - off;
		else
			off = DATA_SIZE / 2 + off;
		base = op->mem.segment == ZYDIS_REGISTER_FS   ? c->fs_base
		       : op->mem.segment == ZYDIS_REGISTER_GS ? c->gs_base
							      : 0;
		s->st.gpr[ZydisRegisterGetId(op->mem.base)] =
			ARENA + DATA_OFF + off - base +
			(c->zi.address_width == 32 ? rng_next(r) << 32 : 0);
	}
}

static void for_repeat(struct start *s, const struct testcase *c, struct rng *r)
{
	if (c->zi.attributes &
	    (ZYDIS_ATTRIB_HAS_REP | ZYDIS_ATTRIB_HAS_REPE | ZYDIS_ATTRIB_HAS_REPNE))
		s->st.gpr[RCX] =
			rng_below(r, 24) | (c->zi.address_width == 32 ? rng_next(r) << 32 : 0);
	if (rng_chance(r, 50))
		s->st.rflags |= FL_DF;
	if (rng_chance(r, 30))
		to_the_edge(s, c, r);
}

static void for_lock(struct start *s, const struct testcase *c, struct rng *r)
{
	(void)s;
	(void)c;
	(void)r;
}

static void for_selector(struct start *s, const struct testcase *c, struct rng *r)
{
	if (is_gpr(&c->ops[1]))
		s->st.gpr[gpr_of(&c->ops[1])] = random_selector(r);
	if (is_gpr(&c->ops[0]) && !is_address(c, gpr_of(&c->ops[0])))
		s->st.gpr[gpr_of(&c->ops[0])] = random_selector(r);
}

static void for_mov(struct start *s, const struct testcase *c, struct rng *r)
{
	if (c->ops[0].type == ZYDIS_OPERAND_TYPE_REGISTER &&
	    ZydisRegisterGetClass(c->ops[0].reg.value) == ZYDIS_REGCLASS_SEGMENT)
		for_selector(s, c, r);
}

static void for_branch(struct start *s, const struct testcase *c, struct rng *r)
{
	if (is_gpr(&c->ops[0]))
		s->st.gpr[gpr_of(&c->ops[0])] = c->tail[rng_below(r, TAILS)];
}

/* The order in which a far frame is looked at is the processor's choice: no hole in it. */
static void for_frame(struct start *s, const struct testcase *c, struct rng *r)
{
	if (c->zi.meta.branch_type == ZYDIS_BRANCH_TYPE_FAR)
		s->st.gpr[RSP] = ARENA + STACK_OFF + 0x400 + (rng_below(r, 0x1000) & ~7u);
}

static void for_loop(struct start *s, const struct testcase *c, struct rng *r)
{
	(void)c;
	if (rng_chance(r, 60))
		s->st.gpr[RCX] = rng_below(r, 3) | (rng_chance(r, 50) ? rng_next(r) << 32 : 0);
}

/* Index vectors with small elements; VEX forms: some sign bits in the mask. */
static void for_vsib(struct start *s, const struct testcase *c, struct rng *r)
{
	const char *name = ZydisMnemonicGetString(c->zi.mnemonic);
	const struct xstate_layout *l = xstate_layout();
	bool narrow = strstr(name, "gatherd") || strstr(name, "scatterd");
	unsigned n = narrow ? 4 : 8, reg = 0;

	for (unsigned i = 0; i < c->zi.operand_count_visible; i++)
		if (c->ops[i].type == ZYDIS_OPERAND_TYPE_MEMORY)
			reg = ZydisRegisterGetId(c->ops[i].mem.index);
	for (unsigned i = 0; i < 64; i += n) {
		s64 v = (s64)rng_below(r, 128) - 64;
		u8 *x = s->st.xsave;

		if (reg >= 16)
			x += l->offset[7] + 64 * (reg - 16) + i;
		else if (i < 16)
			x += XS_XMM + 16 * reg + i;
		else if (i < 32)
			x += l->offset[2] + 16 * reg + i - 16;
		else
			x += l->offset[6] + 32 * reg + i - 32;
		if (i < 16 || state_mask & (i < 32 && reg < 16 ? BIT(2) : BIT(6)))
			memcpy(x, &v, n);
	}
}

static void for_xsave(struct start *s, const struct testcase *c, struct rng *r)
{
	if (!is_address(c, RAX))
		s->st.gpr[RAX] = rng_next(r) & state_mask;
	if (!is_address(c, RDX))
		s->st.gpr[RDX] = 0;
}

static void for_enter(struct start *s, const struct testcase *c, struct rng *r)
{
	(void)c;
	s->st.gpr[RSP] = ARENA + STACK_OFF + 0x800 + (rng_below(r, 0x1000) & ~7u);
	s->st.gpr[RBP] = ARENA + STACK_OFF + 0x400 + (rng_below(r, 0x1000) & ~7u);
}

static void for_clzero(struct start *s, const struct testcase *c, struct rng *r)
{
	(void)c;
	s->st.gpr[RAX] = ARENA + DATA_OFF + 0x800 + rng_below(r, 0x2000);
}

static void for_lahf(struct start *s, const struct testcase *c, struct rng *r)
{
	(void)c;
	s->st.gpr[RCX] = rng_below(r, 3); /* XGETBV, RDPMC: an index */
}

static const struct {
	u16 mnemonic;
	void (*fn)(struct start *s, const struct testcase *c, struct rng *r);
} registers[] = {
	{ ZYDIS_MNEMONIC_DIV, for_divide },	  { ZYDIS_MNEMONIC_IDIV, for_divide },
	{ ZYDIS_MNEMONIC_BT, for_bit },		  { ZYDIS_MNEMONIC_BTS, for_bit },
	{ ZYDIS_MNEMONIC_BTR, for_bit },	  { ZYDIS_MNEMONIC_BTC, for_bit },
	{ ZYDIS_MNEMONIC_XADD, for_lock },	  { ZYDIS_MNEMONIC_LAR, for_selector },
	{ ZYDIS_MNEMONIC_LSL, for_selector },	  { ZYDIS_MNEMONIC_VERR, for_selector },
	{ ZYDIS_MNEMONIC_VERW, for_selector },	  { ZYDIS_MNEMONIC_MOV, for_mov },
	{ ZYDIS_MNEMONIC_JMP, for_branch },	  { ZYDIS_MNEMONIC_CALL, for_branch },
	{ ZYDIS_MNEMONIC_LOOP, for_loop },	  { ZYDIS_MNEMONIC_LOOPE, for_loop },
	{ ZYDIS_MNEMONIC_LOOPNE, for_loop },	  { ZYDIS_MNEMONIC_JRCXZ, for_loop },
	{ ZYDIS_MNEMONIC_JECXZ, for_loop },	  { ZYDIS_MNEMONIC_XSAVE, for_xsave },
	{ ZYDIS_MNEMONIC_XSAVE64, for_xsave },	  { ZYDIS_MNEMONIC_XSAVEC, for_xsave },
	{ ZYDIS_MNEMONIC_XSAVEC64, for_xsave },	  { ZYDIS_MNEMONIC_XSAVEOPT, for_xsave },
	{ ZYDIS_MNEMONIC_XSAVEOPT64, for_xsave }, { ZYDIS_MNEMONIC_XRSTOR, for_xsave },
	{ ZYDIS_MNEMONIC_XRSTOR64, for_xsave },	  { ZYDIS_MNEMONIC_ENTER, for_enter },
	{ ZYDIS_MNEMONIC_CLZERO, for_clzero },	  { ZYDIS_MNEMONIC_XGETBV, for_lahf },
	{ ZYDIS_MNEMONIC_CALL, for_frame },	  { ZYDIS_MNEMONIC_RET, for_frame },
	{ ZYDIS_MNEMONIC_IRET, for_frame },	  { ZYDIS_MNEMONIC_IRETD, for_frame },
	{ ZYDIS_MNEMONIC_IRETQ, for_frame },	  { ZYDIS_MNEMONIC_RDPMC, for_lahf },
};

void adjust_registers(struct start *s, const struct testcase *c, struct rng *r)
{
	for (unsigned i = 0; i < ARRAY_SIZE(registers); i++)
		if (registers[i].mnemonic == c->zi.mnemonic)
			registers[i].fn(s, c, r);
	for (unsigned i = 0; i < c->zi.operand_count; i++)
		if (c->ops[i].type == ZYDIS_OPERAND_TYPE_MEMORY &&
		    c->ops[i].mem.type == ZYDIS_MEMOP_TYPE_VSIB)
			for_vsib(s, c, r);
	if (c->zi.meta.category == ZYDIS_CATEGORY_STRINGOP)
		for_repeat(s, c, r);
}

static u8 *explicit_memory(const struct start *s, const struct testcase *c, unsigned n)
{
	for (unsigned i = 0; i < c->zi.operand_count_visible; i++)
		if (c->ops[i].type == ZYDIS_OPERAND_TYPE_MEMORY)
			return image_at(operand_address(&s->st, c, &c->ops[i]), n);
	return NULL;
}

/* An image of another state, with some components missing. */
static void mem_xrstor(struct start *s, const struct testcase *c, struct rng *r)
{
	u8 *p = explicit_memory(s, c, 64);
	const struct xstate_layout *l = xstate_layout();
	u64 bv = rng_next(r) & state_mask;
	unsigned size = XS_EXTENDED;

	for (unsigned i = 2; i < XC_COUNT; i++)
		if (state_mask >> i & 1 && l->offset[i] + l->size[i] > size)
			size = l->offset[i] + l->size[i];
	p = explicit_memory(s, c, size);
	if (!p || rng_chance(r, 10))
		return;
	memcpy(p, s->st.xsave, size);
	for (unsigned i = XS_XMM; i < size; i += 97)
		if (i < XS_LEGACY || i >= XS_EXTENDED)
			p[i] ^= rng_next(r);
	memset(p + XS_HEADER, 0, 64);
	memcpy(p + XS_BV, &bv, 8);
}

static void mem_mxcsr(struct start *s, const struct testcase *c, struct rng *r)
{
	u8 *p = explicit_memory(s, c, 4);
	u32 v = 0x1f80 | (rng_next(r) & 0x603f);

	if (p && rng_chance(r, 80))
		memcpy(p, &v, 4);
}

static void mem_branch(struct start *s, const struct testcase *c, struct rng *r)
{
	u8 *p = explicit_memory(s, c, 16);
	u64 target = c->tail[rng_below(r, TAILS)];
	u16 sel = rng_chance(r, 70) ? USER_CS : 0xfff8;
	unsigned n = c->zi.operand_width / 8;

	if (!p)
		return;
	memcpy(p, &target, 8);
	if (c->zi.meta.branch_type == ZYDIS_BRANCH_TYPE_FAR)
		memcpy(p + n, &sel, 2);
}

static void mem_ret(struct start *s, const struct testcase *c, struct rng *r)
{
	unsigned n = c->zi.operand_width / 8;
	u8 *p = image_at(s->st.gpr[RSP], 40);
	u64 frame[5] = { c->tail[rng_below(r, TAILS)], rng_chance(r, 80) ? USER_CS : 0xfff8 | 3,
			 0x202 | (rng_next(r) & (FL_ARITH | FL_DF | FL_ID)), s->st.gpr[RSP] + 64,
			 USER_SS };

	for (unsigned i = 0; p && i < 5; i++)
		memcpy(p + i * n, &frame[i], n);
}

/* Flags that no processor in user mode trips over: TF is left out. */
static void mem_popf(struct start *s, const struct testcase *c, struct rng *r)
{
	unsigned n = c->zi.operand_width / 8;
	u8 *p = image_at(s->st.gpr[RSP], n);
	u64 v = rng_next(r) & ~(u64)(FL_TF | (rng_chance(r, 70) ? FL_AC : 0));

	if (p)
		memcpy(p, &v, n);
}

static void mem_selector(struct start *s, const struct testcase *c, struct rng *r)
{
	u16 sel = random_selector(r);
	u8 *p = explicit_memory(s, c, 2);

	if (p)
		memcpy(p, &sel, 2);
}

static void mem_pop(struct start *s, const struct testcase *c, struct rng *r)
{
	u16 sel = random_selector(r);
	u8 *p = image_at(s->st.gpr[RSP], 8);

	if (p && c->ops[0].type == ZYDIS_OPERAND_TYPE_REGISTER &&
	    ZydisRegisterGetClass(c->ops[0].reg.value) == ZYDIS_REGCLASS_SEGMENT)
		memcpy(p, &sel, 2);
}

static void mem_far(struct start *s, const struct testcase *c, struct rng *r)
{
	u16 sel = random_selector(r);
	u8 *p = explicit_memory(s, c, 10);

	if (p)
		memcpy(p + c->zi.operand_width / 8, &sel, 2);
}

/* Compare and exchange: equal in every second state. */
static void mem_cmpxchg(struct start *s, const struct testcase *c, struct rng *r)
{
	u8 *p = explicit_memory(s, c, 16);
	unsigned n = c->zi.mnemonic == ZYDIS_MNEMONIC_CMPXCHG16B  ? 8
		     : c->zi.mnemonic == ZYDIS_MNEMONIC_CMPXCHG8B ? 4
								  : 0;

	if (!p || rng_chance(r, 50))
		return;
	memcpy(p, &s->st.gpr[RAX], 8);
	if (n)
		memcpy(p + n, &s->st.gpr[RDX], n);
}

static const struct {
	u16 mnemonic;
	void (*fn)(struct start *s, const struct testcase *c, struct rng *r);
} memories[] = {
	{ ZYDIS_MNEMONIC_XRSTOR, mem_xrstor },
	{ ZYDIS_MNEMONIC_XRSTOR64, mem_xrstor },
	{ ZYDIS_MNEMONIC_FXRSTOR, mem_xrstor },
	{ ZYDIS_MNEMONIC_FXRSTOR64, mem_xrstor },
	{ ZYDIS_MNEMONIC_LDMXCSR, mem_mxcsr },
	{ ZYDIS_MNEMONIC_VLDMXCSR, mem_mxcsr },
	{ ZYDIS_MNEMONIC_JMP, mem_branch },
	{ ZYDIS_MNEMONIC_CALL, mem_branch },
	{ ZYDIS_MNEMONIC_RET, mem_ret },
	{ ZYDIS_MNEMONIC_IRET, mem_ret },
	{ ZYDIS_MNEMONIC_IRETD, mem_ret },
	{ ZYDIS_MNEMONIC_IRETQ, mem_ret },
	{ ZYDIS_MNEMONIC_POPF, mem_popf },
	{ ZYDIS_MNEMONIC_POPFQ, mem_popf },
	{ ZYDIS_MNEMONIC_POP, mem_pop },
	{ ZYDIS_MNEMONIC_LSS, mem_far },
	{ ZYDIS_MNEMONIC_LFS, mem_far },
	{ ZYDIS_MNEMONIC_LGS, mem_far },
	{ ZYDIS_MNEMONIC_LAR, mem_selector },
	{ ZYDIS_MNEMONIC_LSL, mem_selector },
	{ ZYDIS_MNEMONIC_VERR, mem_selector },
	{ ZYDIS_MNEMONIC_VERW, mem_selector },
	{ ZYDIS_MNEMONIC_CMPXCHG, mem_cmpxchg },
	{ ZYDIS_MNEMONIC_CMPXCHG8B, mem_cmpxchg },
	{ ZYDIS_MNEMONIC_CMPXCHG16B, mem_cmpxchg },
};

void adjust_memory(struct start *s, const struct testcase *c, struct rng *r)
{
	const ZydisDecodedOperand *op = &c->ops[0];

	for (unsigned i = 0; i < ARRAY_SIZE(memories); i++)
		if (memories[i].mnemonic == c->zi.mnemonic)
			memories[i].fn(s, c, r);
	if (c->zi.mnemonic == ZYDIS_MNEMONIC_MOV && op->type == ZYDIS_OPERAND_TYPE_REGISTER &&
	    ZydisRegisterGetClass(op->reg.value) == ZYDIS_REGCLASS_SEGMENT)
		mem_selector(s, c, r);
}

/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Which instructions there are: every opcode of every map is tried, Zydis says what it is. */
#include <stdlib.h>
#include <string.h>

#include "insn.h"

/* Rows that cannot be compared with the host in user mode, and why. */
static const struct {
	u16 mnemonic;
	const char *reason;
} excused[] = {
#define MODE32 "does not exist in 64-bit mode"
#define KERNEL "the host's kernel or hypervisor answers it"
	{ ZYDIS_MNEMONIC_SYSCALL, KERNEL },
	{ ZYDIS_MNEMONIC_SYSENTER, KERNEL },
	{ ZYDIS_MNEMONIC_VMCALL, KERNEL },
	{ ZYDIS_MNEMONIC_VMMCALL, KERNEL },
	{ ZYDIS_MNEMONIC_SGDT, KERNEL },
	{ ZYDIS_MNEMONIC_SIDT, KERNEL },
	{ ZYDIS_MNEMONIC_SLDT, KERNEL },
	{ ZYDIS_MNEMONIC_STR, KERNEL },
	{ ZYDIS_MNEMONIC_SMSW, KERNEL },
	{ ZYDIS_MNEMONIC_SYSEXIT, "privileged; AMD and Intel differ" },
	{ ZYDIS_MNEMONIC_PUSHA, MODE32 },
	{ ZYDIS_MNEMONIC_PUSHAD, MODE32 },
	{ ZYDIS_MNEMONIC_POPA, MODE32 },
	{ ZYDIS_MNEMONIC_POPAD, MODE32 },
	{ ZYDIS_MNEMONIC_PUSHFD, MODE32 },
	{ ZYDIS_MNEMONIC_POPFD, MODE32 },
	{ ZYDIS_MNEMONIC_JCXZ, MODE32 },
	{ ZYDIS_MNEMONIC_INTO, MODE32 },
	{ ZYDIS_MNEMONIC_LDS, MODE32 },
	{ ZYDIS_MNEMONIC_LES, MODE32 },
	{ ZYDIS_MNEMONIC_ARPL, MODE32 },
	{ ZYDIS_MNEMONIC_DAA, MODE32 },
	{ ZYDIS_MNEMONIC_DAS, MODE32 },
	{ ZYDIS_MNEMONIC_AAA, MODE32 },
	{ ZYDIS_MNEMONIC_AAS, MODE32 },
	{ ZYDIS_MNEMONIC_AAM, MODE32 },
	{ ZYDIS_MNEMONIC_AAD, MODE32 },
	{ ZYDIS_MNEMONIC_SALC, MODE32 },
	{ ZYDIS_MNEMONIC_BOUND, MODE32 },
};

static const struct {
	const char *name;
	u16 mnemonic, isa;
} row_table[] = {
#define INSN(name, class, op) { #name, ZYDIS_MNEMONIC_##name, 0 },
#define ISA(set, state)	      { "ISA " #set, 0, ZYDIS_ISA_SET_##set },
#include "engine/x86/insn.def"
#undef INSN
#undef ISA
};

struct form *forms;
unsigned nforms;
struct row *rows;
unsigned nrows = ARRAY_SIZE(row_table);

static u16 row_of_mnemonic[ZYDIS_MNEMONIC_MAX_VALUE + 1]; /* plus one */
static u16 row_of_isa[ZYDIS_ISA_SET_MAX_VALUE + 1];

#define KEY_HASH 65536
static u32 key_hash[KEY_HASH]; /* index plus one */

static ZydisDecoder decoder;
static bool is_amd;

static const u16 fsgsbase[] = { ZYDIS_MNEMONIC_RDFSBASE, ZYDIS_MNEMONIC_RDGSBASE,
				ZYDIS_MNEMONIC_WRFSBASE, ZYDIS_MNEMONIC_WRGSBASE };

static void rows_make(void)
{
	rows = calloc(nrows, sizeof(*rows));
	for (unsigned i = 0; i < nrows; i++) {
		rows[i].name = row_table[i].name;
		if (row_table[i].mnemonic)
			row_of_mnemonic[row_table[i].mnemonic] = i + 1;
		else
			row_of_isa[row_table[i].isa] = i + 1;
	}
	for (unsigned i = 0; i < ARRAY_SIZE(excused); i++)
		if (row_of_mnemonic[excused[i].mnemonic])
			rows[row_of_mnemonic[excused[i].mnemonic] - 1].reason = excused[i].reason;
	for (unsigned i = 0; !host_has_fsgsbase() && i < ARRAY_SIZE(fsgsbase); i++)
		rows[row_of_mnemonic[fsgsbase[i]] - 1].reason =
			"the host's kernel does not enable FSGSBASE for user mode";
	ZydisDecoderInit(&decoder, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
	__builtin_cpu_init();
	is_amd = __builtin_cpu_is("amd");
}

bool host_is_amd(void)
{
	return is_amd;
}

bool insn_decode(const u8 *bytes, ZydisDecodedInstruction *zi, ZydisDecodedOperand *ops)
{
	return ZYAN_SUCCESS(ZydisDecoderDecodeFull(&decoder, bytes, 15, zi, ops));
}

static void mix(u64 *h, u64 v)
{
	*h = (*h ^ v) * 0x9e3779b97f4a7c15ull;
	*h ^= *h >> 29;
}

static unsigned reg_kind(ZydisRegister reg)
{
	bool high = reg >= ZYDIS_REGISTER_AH && reg <= ZYDIS_REGISTER_BH;

	return ZydisRegisterGetClass(reg) | high << 8;
}

u64 form_key(const struct template *t, const ZydisDecodedInstruction *zi,
	     const ZydisDecodedOperand *ops)
{
	u64 h = 1;

	mix(&h, zi->mnemonic | zi->encoding << 16 | t->map << 20 | (u64)zi->opcode << 24);
	mix(&h, zi->avx.mask.mode | zi->avx.broadcast.mode << 4 | !!zi->avx.rounding.mode << 10 |
			!!zi->avx.has_sae << 11 | zi->avx.vector_length << 16);
	mix(&h, zi->attributes & (ZYDIS_ATTRIB_HAS_LOCK | ZYDIS_ATTRIB_HAS_REP |
				  ZYDIS_ATTRIB_HAS_REPE | ZYDIS_ATTRIB_HAS_REPNE));
	mix(&h, zi->operand_width);
	for (unsigned i = 0; i < zi->operand_count_visible; i++) {
		const ZydisDecodedOperand *op = &ops[i];

		mix(&h, op->type | op->size << 4 | op->encoding << 20);
		if (op->type == ZYDIS_OPERAND_TYPE_REGISTER)
			mix(&h, reg_kind(op->reg.value));
		if (op->type == ZYDIS_OPERAND_TYPE_MEMORY)
			mix(&h, op->mem.type);
	}
	return h;
}

static bool key_is_new(u64 key)
{
	unsigned i = key % KEY_HASH;

	while (key_hash[i]) {
		if (forms[key_hash[i] - 1].key == key)
			return false;
		i = (i + 1) % KEY_HASH;
	}
	key_hash[i] = nforms + 1;
	return true;
}

static void try(const struct template *t)
{
	ZydisDecodedInstruction zi;
	ZydisDecodedOperand ops[ZYDIS_MAX_OPERAND_COUNT];
	u8 bytes[15];
	u64 key;
	u16 row;

	encode_plain(t, bytes);
	if (!insn_decode(bytes, &zi, ops))
		return;
	row = row_of_mnemonic[zi.mnemonic] ? row_of_mnemonic[zi.mnemonic]
					   : row_of_isa[zi.meta.isa_set];
	/* String MOVSD and CMPSD share their names with SSE2. */
	if (zi.meta.category == ZYDIS_CATEGORY_STRINGOP && zi.mnemonic == ZYDIS_MNEMONIC_MOVSD)
		row = row_of_mnemonic[ZYDIS_MNEMONIC_MOVSQ];
	if (zi.meta.category == ZYDIS_CATEGORY_STRINGOP && zi.mnemonic == ZYDIS_MNEMONIC_CMPSD)
		row = row_of_mnemonic[ZYDIS_MNEMONIC_CMPSQ];
	if (!row)
		return;
	/* DIFFERS: 66h on a near branch. AMD cuts the target to 16 bits; Intel and we ignore it. */
	if (is_amd && t->p66 && zi.meta.branch_type != ZYDIS_BRANCH_TYPE_NONE &&
	    zi.meta.branch_type != ZYDIS_BRANCH_TYPE_FAR)
		return;
	key = form_key(t, &zi, ops);
	if (!key_is_new(key))
		return;
	if (!(nforms & (nforms - 1)))
		forms = realloc(forms, (nforms ? 2 * nforms : 1) * sizeof(*forms));
	forms[nforms++] = (struct form){ *t, key, zi.mnemonic, zi.meta.isa_set, row - 1 };
	rows[row - 1].forms++;
}

/* All ModRM forms of one opcode: registers, then memory. */
static void try_modrm(struct template t)
{
	for (t.reg = 0; t.reg < 8; t.reg++) {
		t.mem = t.vsib = false;
		for (t.rm = 0; t.rm < 8; t.rm++)
			try(&t);
		t.rm = 0;
		t.mem = true;
		try(&t);
		if (t.encoding != LEGACY) {
			t.vsib = true;
			try(&t);
		}
	}
}

/* Bytes that are no opcode: escapes, prefixes, VEX and EVEX. */
static bool is_opcode(unsigned map, unsigned op)
{
	if (map == 1)
		return op != 0x38 && op != 0x3a;
	if (map > 1)
		return true;
	return op != 0x0f && (op & 0xf0) != 0x40 && (op & 0xe7) != 0x26 &&
	       (op < 0x64 || op > 0x67) && op != 0xf0 && op != 0xf2 && op != 0xf3 && op != 0xc4 &&
	       op != 0xc5 && op != 0x62;
}

static void find_legacy(void)
{
	static const struct {
		bool p66, pf3, pf2, lock;
	} prefixes[] = {
		{ 0 },
		{ .p66 = true },
		{ .pf3 = true },
		{ .pf2 = true },
		{ .p66 = true, .pf2 = true },
		{ .p66 = true, .pf3 = true },
		{ .lock = true },
		{ .p66 = true, .lock = true },
	};

	for (unsigned map = 0; map < 4; map++)
		for (unsigned p = 0; p < ARRAY_SIZE(prefixes); p++)
			for (unsigned w = 0; w < 3; w++)
				for (unsigned op = 0; op < 256; op++) {
					struct template t = {
						.encoding = LEGACY,
						.map = map,
						.opcode = op,
						.p66 = prefixes[p].p66,
						.pf3 = prefixes[p].pf3,
						.pf2 = prefixes[p].pf2,
						.lock = prefixes[p].lock,
						.w = w == 2,
						.rex = w > 0,
					};

					if (!is_opcode(map, op))
						continue;
					try_modrm(t);
					t.p67 = !map && (op & 0xfc) == 0xe0; /* JECXZ */
					if (t.p67)
						try_modrm(t);
				}
}

static void find_vex(void)
{
	for (unsigned map = 1; map < 4; map++)
		for (unsigned k = 0; k < 16; k++)
			for (unsigned op = 0; op < 256; op++)
				try_modrm((struct template){ .encoding = VEX,
							     .map = map,
							     .opcode = op,
							     .pp = k & 3,
							     .w = k & 4,
							     .l = !!(k & 8) });
}

static void find_evex(void)
{
	static const u8 maps[] = { 1, 2, 3, 5, 6 };

	for (unsigned m = 0; m < ARRAY_SIZE(maps); m++)
		for (unsigned k = 0; k < 256; k++)
			for (unsigned op = 0; op < 256; op++)
				try_modrm((struct template){ .encoding = EVEX,
							     .map = maps[m],
							     .opcode = op,
							     .pp = k & 3,
							     .w = k & 4,
							     .l = k >> 3 & 3,
							     .b = k & 32,
							     .z = k & 64,
							     .aaa = k & 128 ? 1 : 0 });
}

void forms_find(void)
{
	rows_make();
	find_legacy();
	find_vex();
	find_evex();
}

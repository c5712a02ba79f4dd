/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Runs by group of instructions, by prefix and by how they ended: the tables of docs/EXACTNESS.md. */
#include "insn.h"

static struct group {
	u64 forms, runs, faults;
} groups[ZYDIS_CATEGORY_MAX_VALUE + 1 + ZYDIS_ISA_EXT_MAX_VALUE + 1];

/* The instructions that there were always by category, what came later by its extension. */
static unsigned group_of(const struct testcase *c)
{
	ZydisISAExt ext = c->zi.meta.isa_ext;

	if (ext == ZYDIS_ISA_EXT_BASE || ext == ZYDIS_ISA_EXT_LONGMODE)
		return c->zi.meta.category;
	return ZYDIS_CATEGORY_MAX_VALUE + 1 + ext;
}

static const char *group_name(unsigned i)
{
	return i <= ZYDIS_CATEGORY_MAX_VALUE
		       ? ZydisCategoryGetString(i)
		       : ZydisISAExtGetString(i - ZYDIS_CATEGORY_MAX_VALUE - 1);
}

/* --- prefixes --- */

static bool has_byte(const struct testcase *c, u8 a, u8 b)
{
	for (unsigned i = 0; i < c->zi.raw.prefix_count; i++)
		if (c->zi.raw.prefixes[i].value == a || c->zi.raw.prefixes[i].value == b)
			return true;
	return false;
}

static bool has_66(const struct testcase *c)
{
	return has_byte(c, 0x66, 0x66);
}

static bool has_67(const struct testcase *c)
{
	return has_byte(c, 0x67, 0x67);
}

static bool has_rep(const struct testcase *c)
{
	return has_byte(c, 0xf2, 0xf3);
}

static bool has_lock(const struct testcase *c)
{
	return has_byte(c, 0xf0, 0xf0);
}

static bool has_fs_gs(const struct testcase *c)
{
	return has_byte(c, 0x64, 0x65);
}

static bool has_other_segment(const struct testcase *c)
{
	return has_byte(c, 0x26, 0x2e) || has_byte(c, 0x36, 0x3e);
}

static bool has_rex(const struct testcase *c)
{
	return c->zi.attributes & ZYDIS_ATTRIB_HAS_REX && !c->zi.raw.rex.W;
}

static bool has_rex_w(const struct testcase *c)
{
	return c->zi.attributes & ZYDIS_ATTRIB_HAS_REX && c->zi.raw.rex.W;
}

static bool has_vex(const struct testcase *c)
{
	return c->zi.encoding == ZYDIS_INSTRUCTION_ENCODING_VEX;
}

static bool has_evex(const struct testcase *c)
{
	return c->zi.encoding == ZYDIS_INSTRUCTION_ENCODING_EVEX;
}

static bool has_none(const struct testcase *c)
{
	return !c->zi.raw.prefix_count && c->zi.encoding == ZYDIS_INSTRUCTION_ENCODING_LEGACY;
}

static struct prefix {
	const char *name;
	bool (*has)(const struct testcase *c);
	u64 runs, faults;
} prefixes[] = {
	{ "none", has_none, 0, 0 },
	{ "66", has_66, 0, 0 },
	{ "67", has_67, 0, 0 },
	{ "F2, F3", has_rep, 0, 0 },
	{ "LOCK", has_lock, 0, 0 },
	{ "FS, GS", has_fs_gs, 0, 0 },
	{ "ES, CS, SS, DS", has_other_segment, 0, 0 },
	{ "REX without W", has_rex, 0, 0 },
	{ "REX.W", has_rex_w, 0, 0 },
	{ "VEX", has_vex, 0, 0 },
	{ "EVEX", has_evex, 0, 0 },
};

/* --- ends --- */

static const struct {
	int vector;
	const char *name;
} ends[] = {
	{ -1, "done" },	       { VEC_DE, "#DE" }, { VEC_DB, "#DB" }, { VEC_BP, "#BP" },
	{ VEC_UD, "#UD" },     { VEC_NP, "#NP" }, { VEC_SS, "#SS" }, { VEC_GP, "#GP" },
	{ VEC_PF, "#PF" },     { VEC_MF, "#MF" }, { VEC_AC, "#AC" }, { VEC_XM, "#XM" },
	{ -3, "another one" },
};
static u64 ended[ARRAY_SIZE(ends)];

static unsigned end_of(int vector)
{
	unsigned i = 0;

	while (i < ARRAY_SIZE(ends) - 1 && ends[i].vector != vector)
		i++;
	return i;
}

/* --- notes and tables --- */

void summary_form(const struct testcase *c)
{
	groups[group_of(c)].forms++;
}

void summary_note(const struct testcase *c, const struct outcome *native)
{
	bool fault = native->vector != -1;
	struct group *g = &groups[group_of(c)];

	g->runs++;
	g->faults += fault;
	for (unsigned i = 0; i < ARRAY_SIZE(prefixes); i++)
		if (prefixes[i].has(c)) {
			prefixes[i].runs++;
			prefixes[i].faults += fault;
		}
	ended[end_of(native->vector)]++;
}

void summary_print(void)
{
	printf("\n| group | forms | runs | of them end in a fault |\n|---|---|---|---|\n");
	for (unsigned i = 0; i < ARRAY_SIZE(groups); i++)
		if (groups[i].forms)
			printf("| %s | %lu | %lu | %lu |\n", group_name(i), groups[i].forms,
			       groups[i].runs, groups[i].faults);
	printf("\n| prefix | runs | of them end in a fault |\n|---|---|---|\n");
	for (unsigned i = 0; i < ARRAY_SIZE(prefixes); i++)
		printf("| %s | %lu | %lu |\n", prefixes[i].name, prefixes[i].runs,
		       prefixes[i].faults);
	printf("\n| end | runs |\n|---|---|\n");
	for (unsigned i = 0; i < ARRAY_SIZE(ends); i++)
		printf("| %s | %lu |\n", ends[i].name, ended[i]);
}

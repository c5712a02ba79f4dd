/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Classes of faults that an engine gets wrong first: how often each came up, and a failure for one that never did. */
#include "cpu/x86/xstate.h"
#include "insn.h"

/* How a run of a class ended. */
enum kind {
	K_DONE,	      /* no fault, all of it there */
	K_FAULT,      /* a fault before anything was done */
	K_PART,	      /* a fault after a part was done, which stays */
	K_SUPPRESSED, /* what is not there, or not aligned, was left out by the mask: no fault */
	KINDS
};
#define K_NONE KINDS
static const char *const kind_names[KINDS] = { "done", "faults", "faults in part", "suppressed" };

struct run {
	const struct testcase *c;
	const struct start *s;
	const struct outcome *native;
	const ZydisDecodedOperand *mem; /* explicit, or NULL */
	u64 at;				/* its linear address, and bytes */
	unsigned size;
};

/* --- what a run touches --- */

static bool is_there(u64 a, bool write)
{
	static const struct window areas[] = { { CODE_OFF, CODE_SIZE },
					       { DATA_OFF, DATA_SIZE },
					       { STACK_OFF, STACK_SIZE },
					       { RO_OFF, RO_SIZE } };

	for (unsigned i = 0; i < ARRAY_SIZE(areas) - write; i++)
		if (a - ARENA - areas[i].off < areas[i].len)
			return true;
	return false;
}

static bool is_write(const struct run *r)
{
	return r->mem->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE;
}

static bool first_is_there(const struct run *r)
{
	return is_there(r->at, is_write(r));
}

static bool last_is_there(const struct run *r)
{
	return is_there(r->at + r->size - 1, is_write(r));
}

static bool crosses(const struct run *r)
{
	return r->mem && r->size > 1 && r->mem->mem.type == ZYDIS_MEMOP_TYPE_MEM &&
	       (r->at & ~PAGE_MASK) + r->size > PAGE_SIZE;
}

/* A page or general protection fault of the operand's address. */
static bool faulted(const struct run *r)
{
	int v = r->native->vector;

	return (v == VEC_PF || v == VEC_GP || v == VEC_SS) && r->native->rip == r->c->at;
}

static unsigned done_or_fault(const struct run *r)
{
	return faulted(r) ? K_FAULT : r->native->vector == -1 ? K_DONE : K_NONE;
}

/* Where the operand may lie outside what is there without a fault. */
static unsigned masked(const struct run *r)
{
	if (r->native->vector == -1 && !(first_is_there(r) && last_is_there(r)))
		return K_SUPPRESSED;
	return done_or_fault(r);
}

/* --- masks --- */

static bool is_under_mask(const struct run *r)
{
	return r->c->zi.encoding == ZYDIS_INSTRUCTION_ENCODING_EVEX && r->mem &&
	       r->c->zi.avx.mask.reg > ZYDIS_REGISTER_K0 &&
	       r->mem->mem.type == ZYDIS_MEMOP_TYPE_MEM;
}

/* Whether the mask names no element. */
static bool is_zero_mask(const struct run *r)
{
	unsigned k = r->c->zi.avx.mask.reg - ZYDIS_REGISTER_K0;
	const ZydisDecodedOperand *v = r->c->zi.avx.broadcast.mode ? &r->c->ops[0] : r->mem;
	u64 mask;

	__builtin_memcpy(&mask, r->s->st.xsave + xstate_layout()->offset[5] + 8 * k, 8);
	return !(mask & (v->element_count < 64 ? BIT_ULL(v->element_count) - 1 : ~0ull));
}

static bool is_vsib(const struct run *r, bool write)
{
	return r->mem && r->mem->mem.type == ZYDIS_MEMOP_TYPE_VSIB && is_write(r) == write;
}

/* The mask that tells what is done: an opmask, or the mask vector of a VEX gather. */
static const u8 *progress(const struct run *r, const struct state *st, unsigned *n)
{
	unsigned reg = r->c->zi.avx.mask.reg;

	if (r->c->zi.encoding == ZYDIS_INSTRUCTION_ENCODING_EVEX) {
		*n = 8;
		return st->xsave + xstate_layout()->offset[5] + 8 * (reg - ZYDIS_REGISTER_K0);
	}
	*n = 16; /* the lower half says enough */
	return st->xsave + XS_XMM + 16 * ZydisRegisterGetId(r->c->ops[2].reg.value);
}

static unsigned element_wise(const struct run *r)
{
	unsigned n;
	const u8 *in = progress(r, &r->s->st, &n), *out = progress(r, &r->native->st, &n);

	if (faulted(r))
		return __builtin_memcmp(in, out, n) ? K_PART : K_FAULT;
	return r->native->vector == -1 ? K_DONE : K_NONE;
}

/* --- the classes --- */

static unsigned of_bit_test(const struct run *r)
{
	u64 plain;

	if (r->c->zi.meta.category != ZYDIS_CATEGORY_BITBYTE || !r->mem ||
	    r->c->ops[1].type != ZYDIS_OPERAND_TYPE_REGISTER)
		return K_NONE;
	plain = r->at - operand_bias(&r->s->st, r->c);
	if (plain == r->at || !is_there(plain, is_write(r)))
		return K_NONE;
	return done_or_fault(r);
}

static unsigned of_vector_mask(const struct run *r)
{
	switch (r->c->zi.mnemonic) {
	case ZYDIS_MNEMONIC_VMASKMOVPS:
	case ZYDIS_MNEMONIC_VMASKMOVPD:
	case ZYDIS_MNEMONIC_VPMASKMOVD:
	case ZYDIS_MNEMONIC_VPMASKMOVQ:
		return r->mem ? masked(r) : K_NONE;
	default:
		return K_NONE;
	}
}

/* The operand is hidden. */
static unsigned of_byte_mask(const struct run *r)
{
	struct run hidden = *r;

	if (r->c->zi.mnemonic != ZYDIS_MNEMONIC_MASKMOVQ &&
	    r->c->zi.mnemonic != ZYDIS_MNEMONIC_MASKMOVDQU &&
	    r->c->zi.mnemonic != ZYDIS_MNEMONIC_VMASKMOVDQU)
		return K_NONE;
	for (unsigned i = 0; i < r->c->zi.operand_count; i++)
		if (r->c->ops[i].type == ZYDIS_OPERAND_TYPE_MEMORY)
			hidden.mem = &r->c->ops[i];
	hidden.at = operand_address(&r->s->st, r->c, hidden.mem);
	hidden.size = hidden.mem->size / 8;
	return masked(&hidden);
}

static unsigned of_opmask(const struct run *r)
{
	return is_under_mask(r) && !is_zero_mask(r) ? masked(r) : K_NONE;
}

static unsigned of_zero_mask(const struct run *r)
{
	return is_under_mask(r) && is_zero_mask(r) ? masked(r) : K_NONE;
}

/* Aligned moves of nothing to odd addresses, across pages: the slow way must not ask for what the fast one does not. */
static unsigned of_zero_mask_odd(const struct run *r)
{
	if (!is_under_mask(r) || !is_zero_mask(r) || !crosses(r) ||
	    r->c->zi.meta.exception_class != ZYDIS_EXCEPTION_CLASS_E1)
		return K_NONE;
	return r->native->vector == -1 ? K_SUPPRESSED : done_or_fault(r);
}

static unsigned of_gather(const struct run *r)
{
	return is_vsib(r, false) ? element_wise(r) : K_NONE;
}

static unsigned of_scatter(const struct run *r)
{
	return is_vsib(r, true) ? element_wise(r) : K_NONE;
}

static unsigned of_non_temporal(const struct run *r)
{
	switch (r->c->zi.mnemonic) {
	case ZYDIS_MNEMONIC_MOVNTI:
	case ZYDIS_MNEMONIC_MOVNTQ:
	case ZYDIS_MNEMONIC_MOVNTDQ:
	case ZYDIS_MNEMONIC_MOVNTPS:
	case ZYDIS_MNEMONIC_MOVNTPD:
	case ZYDIS_MNEMONIC_VMOVNTDQ:
	case ZYDIS_MNEMONIC_VMOVNTPS:
	case ZYDIS_MNEMONIC_VMOVNTPD:
	case ZYDIS_MNEMONIC_MOVNTSS:
	case ZYDIS_MNEMONIC_MOVNTSD:
		return done_or_fault(r);
	default:
		return K_NONE;
	}
}

static unsigned of_string(const struct run *r, bool down)
{
	if (r->c->zi.meta.category != ZYDIS_CATEGORY_STRINGOP || !(r->s->st.rflags & FL_DF) == down)
		return K_NONE;
	if (faulted(r) && r->s->st.gpr[RCX] != r->native->st.gpr[RCX])
		return K_PART;
	return done_or_fault(r);
}

static unsigned of_string_up(const struct run *r)
{
	return of_string(r, false);
}

static unsigned of_string_down(const struct run *r)
{
	return of_string(r, true);
}

static unsigned of_lock(const struct run *r)
{
	bool is_locked = r->c->zi.attributes & ZYDIS_ATTRIB_HAS_LOCK ||
			 r->c->zi.mnemonic == ZYDIS_MNEMONIC_XCHG;

	return is_locked && crosses(r) ? done_or_fault(r) : K_NONE;
}

static bool is_env_load(const u8 *bytes)
{
	return (bytes[0] == 0xd9 || bytes[0] == 0xdd) && (bytes[1] & 0x38) == 0x20 &&
	       bytes[1] < 0xc0;
}

/* What raised it, behind the instruction that is tried; NULL: another fault, or another place. */
static const u8 *deferred(const struct run *r)
{
	u64 off = r->native->rip - r->c->at - r->c->zi.length;

	return r->native->vector == VEC_MF && off < r->c->nbehind ? r->c->behind + off : NULL;
}

static unsigned of_deferred(const struct run *r)
{
	return deferred(r) ? K_FAULT : K_NONE;
}

/* FLDENV and FRSTOR are functions of ours: they must find what the host's processor has pending. */
static unsigned of_deferred_helper(const struct run *r)
{
	const u8 *by = deferred(r);

	if (by && is_env_load(by))
		return K_FAULT;
	return r->native->vector == VEC_MF && r->native->rip == r->c->at &&
			       (r->c->zi.mnemonic == ZYDIS_MNEMONIC_FLDENV ||
				r->c->zi.mnemonic == ZYDIS_MNEMONIC_FRSTOR)
		       ? K_FAULT
		       : K_NONE;
}

/* A function of ours that is no x87 instruction stands between, and must not be hit. */
static unsigned of_deferred_past(const struct run *r)
{
	const u8 *by = deferred(r);

	return by && r->c->past_helper && by >= r->c->behind + r->c->past_helper ? K_FAULT : K_NONE;
}

static unsigned of_alignment(const struct run *r)
{
	if (!r->mem || !r->size || r->native->vector != VEC_GP || !first_is_there(r) ||
	    !last_is_there(r) || !(r->at & 63))
		return K_NONE;
	return K_FAULT;
}

static bool is_checked(const struct run *r)
{
	return r->s->st.rflags & FL_AC && r->mem && r->mem->mem.type == ZYDIS_MEMOP_TYPE_MEM;
}

static bool is_ac(const struct run *r)
{
	return r->native->vector == VEC_AC && r->native->rip == r->c->at;
}

/* What is there, aligned to less than its size: some operands are not asked for, or for less. */
static unsigned of_ac(const struct run *r)
{
	if (!is_checked(r) || !first_is_there(r) || !last_is_there(r))
		return K_NONE;
	if (is_ac(r))
		return K_FAULT;
	return r->native->vector == -1 && r->size && r->at % r->size ? K_DONE : K_NONE;
}

static unsigned of_ac_not_there(const struct run *r)
{
	return is_checked(r) && is_ac(r) && !(first_is_there(r) && last_is_there(r)) ? K_FAULT
										     : K_NONE;
}

static unsigned of_ac_hidden(const struct run *r)
{
	return r->s->st.rflags & FL_AC && !r->mem && is_ac(r) ? K_FAULT : K_NONE;
}

static unsigned of_ac_masked(const struct run *r)
{
	if (!is_checked(r) || !is_under_mask(r) || !(r->at & 1))
		return K_NONE;
	if (is_ac(r))
		return K_FAULT;
	return r->native->vector == -1 && is_zero_mask(r) ? K_SUPPRESSED : K_NONE;
}

static unsigned of_ac_elements(const struct run *r)
{
	if (!(r->s->st.rflags & FL_AC) || !(is_vsib(r, false) || is_vsib(r, true)) || !(r->at & 1))
		return K_NONE;
	return is_ac(r) ? K_FAULT : r->native->vector == -1 ? K_DONE : K_NONE;
}

static unsigned of_first_page(const struct run *r)
{
	if (!crosses(r) || first_is_there(r) || !last_is_there(r))
		return K_NONE;
	return faulted(r) ? K_FAULT : K_NONE;
}

static unsigned of_second_page(const struct run *r)
{
	if (!crosses(r) || !first_is_there(r))
		return K_NONE;
	if (!last_is_there(r))
		return faulted(r) ? K_FAULT : K_NONE;
	return done_or_fault(r) == K_DONE ? K_DONE : K_NONE;
}

static unsigned of_code_page(const struct run *r)
{
	u64 end = r->c->at + r->c->zi.length - 1;

	return (r->c->at ^ end) & PAGE_MASK ? done_or_fault(r) : K_NONE;
}

static struct class
{
	const char *name;
	unsigned (*of)(const struct run *r);
	u64 needs; /* state components */
	unsigned wanted;
	u64 n[KINDS];
} classes[] = {
#define DONE	   BIT(K_DONE)
#define FAULT	   BIT(K_FAULT)
#define PART	   BIT(K_PART)
#define SUPPRESSED BIT(K_SUPPRESSED)
#define AVX	   BIT(2)
#define AVX512	   (BIT(5) | BIT(6) | BIT(7))
	{ "bit tests beyond their operand", of_bit_test, 0, DONE | FAULT, {} },
	{ "MASKMOVQ, MASKMOVDQU", of_byte_mask, 0, DONE | FAULT, {} }, /* nothing is suppressed */
	{ "VMASKMOV, VPMASKMOV", of_vector_mask, AVX, DONE | FAULT | SUPPRESSED, {} },
	{ "vectors under an opmask", of_opmask, AVX512, DONE | FAULT | SUPPRESSED, {} },
	{ "vectors under an opmask of zeros", of_zero_mask, AVX512, DONE | SUPPRESSED, {} },
	{ "aligned moves of nothing to odd addresses across pages",
	  of_zero_mask_odd,
	  AVX512,
	  SUPPRESSED,
	  {} },
	{ "gathers", of_gather, AVX, DONE | FAULT | PART, {} },
	{ "scatters", of_scatter, AVX512, DONE | FAULT | PART, {} },
	{ "non-temporal stores", of_non_temporal, 0, DONE | FAULT, {} },
	{ "strings, upwards", of_string_up, 0, DONE | FAULT | PART, {} },
	{ "strings with DF=1", of_string_down, 0, DONE | FAULT | PART, {} },
	{ "LOCK across pages", of_lock, 0, DONE | FAULT, {} },
	{ "#MF at the next waiting instruction", of_deferred, 0, FAULT, {} },
	{ "#MF deferred into FLDENV or FRSTOR", of_deferred_helper, 0, FAULT, {} },
	{ "#MF deferred past another helper", of_deferred_past, 0, FAULT, {} },
	{ "#GP of operands that must be aligned", of_alignment, 0, FAULT, {} },
	{ "#AC of misaligned operands", of_ac, 0, DONE | FAULT, {} },
	{ "#AC before what is not there or not writable", of_ac_not_there, 0, FAULT, {} },
	{ "#AC of stack and strings", of_ac_hidden, 0, FAULT, {} },
	{ "#AC of vectors under an opmask", of_ac_masked, AVX512, FAULT | SUPPRESSED, {} },
	{ "no #AC of gathers and scatters", of_ac_elements, AVX, DONE, {} },
	{ "operands across pages, the first not there", of_first_page, 0, FAULT, {} },
	{ "operands across pages, the second not there", of_second_page, 0, DONE | FAULT, {} },
	{ "instructions across pages", of_code_page, 0, DONE | FAULT, {} },
};

void classes_note(const struct testcase *c, const struct start *s, const struct outcome *native)
{
	struct run r = { .c = c, .s = s, .native = native };

	for (unsigned i = 0; i < c->zi.operand_count_visible; i++)
		if (c->ops[i].type == ZYDIS_OPERAND_TYPE_MEMORY &&
		    c->ops[i].mem.type != ZYDIS_MEMOP_TYPE_AGEN) {
			r.mem = &c->ops[i];
			r.at = operand_address(&s->st, c, r.mem);
			r.size = r.mem->size / 8;
		}
	for (unsigned i = 0; i < ARRAY_SIZE(classes); i++) {
		unsigned kind = classes[i].of(&r);

		if (kind < KINDS)
			classes[i].n[kind]++;
	}
}

static bool is_missed(const struct class *k)
{
	bool has = (state_mask & k->needs) == k->needs;

	for (unsigned v = 0; has && v < KINDS; v++)
		if (k->wanted >> v & 1 && !k->n[v])
			return true;
	return false;
}

/* Take each kind of each class away: somebody must miss it. */
static bool prove(unsigned number)
{
	unsigned kinds = 0, unseen = 0;

	for (unsigned i = 0; i < ARRAY_SIZE(classes); i++)
		for (unsigned v = 0; v < KINDS; v++) {
			struct class *k = &classes[i];
			u64 n = k->n[v];

			if (!(k->wanted >> v & 1) || (state_mask & k->needs) != k->needs)
				continue;
			k->n[v] = 0;
			kinds++;
			unseen += !is_missed(k);
			k->n[v] = n;
		}
	printf("%sok %u - %u fault classes, each of their %u kinds is missed when it does not come "
	       "up\n",
	       unseen || !kinds ? "not " : "", number, (unsigned)ARRAY_SIZE(classes), kinds);
	return !unseen && kinds;
}

bool classes_print(unsigned *number, bool all)
{
	bool ok = true;

	for (unsigned i = 0; i < ARRAY_SIZE(classes); i++) {
		const struct class *k = &classes[i];
		bool has = (state_mask & k->needs) == k->needs, bad = all && is_missed(k);

		printf("%sok %u - fault class %s:", bad ? "not " : "", ++*number, k->name);
		for (unsigned v = 0; v < KINDS; v++)
			if (k->wanted >> v & 1 || k->n[v])
				printf(" %lu %s%s", k->n[v], kind_names[v],
				       v + 1 < KINDS ? "," : "");
		printf(has ? "\n" : " # SKIP the host has no such vectors\n");
		ok &= !bad;
	}
	return all ? prove(++*number) && ok : ok;
}

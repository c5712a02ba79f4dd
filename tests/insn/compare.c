/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* What must be equal, and what the manuals leave open. */
#include <string.h>

#include "cpu/x86/xstate.h"
#include "../image.h"
#include "insn.h"

#define ALL_GPR		0xffffu
#define LOOSE_RIP	0x01 /* address of the fault or trap */
#define LOOSE_CR2	0x02 /* any address of the operand */
#define LOOSE_CR2_PAGE	0x04 /* any address in the same page */
#define LOOSE_X87_FAULT 0x08 /* x87 state after a fault */
#define LOOSE_CF	0x10
#define LOOSE_PENDING	0x20 /* whether a pending x87 exception comes before a fault of the address */

/* Results that need not agree, and why. */
static const struct loose {
	u16 mnemonic;
	u16 gpr; /* registers that are not compared */
	u8 what; /* LOOSE_* */
	const char *reason;
} loose_table[] = {
	{ ZYDIS_MNEMONIC_RDTSC, BIT(RAX) | BIT(RDX), 0, "time" },
	{ ZYDIS_MNEMONIC_RDTSCP, BIT(RAX) | BIT(RDX) | BIT(RCX), 0, "time" },
	{ ZYDIS_MNEMONIC_CPUID, BIT(RAX) | BIT(RBX) | BIT(RCX) | BIT(RDX), 0,
	  "the guest's CPUID is its own" },
	{ ZYDIS_MNEMONIC_XGETBV, BIT(RAX) | BIT(RDX), 0, "the guest's XCR0 is its own" },
	{ ZYDIS_MNEMONIC_RDPID, ALL_GPR, 0, "the guest's TSC_AUX is its own" },
	{ ZYDIS_MNEMONIC_RDRAND, ALL_GPR, LOOSE_CF, "random, and it may fail" },
	{ ZYDIS_MNEMONIC_RDSEED, ALL_GPR, LOOSE_CF, "random, and it may fail" },
	{ ZYDIS_MNEMONIC_LAR, ALL_GPR, 0, "bits 16-19 are undefined; unit tests look at the rest" },
	{ ZYDIS_MNEMONIC_INT1, 0, LOOSE_RIP, "hypervisors differ" },
	{ ZYDIS_MNEMONIC_MASKMOVQ, 0, LOOSE_X87_FAULT,
	  "AMD's processors have entered MMX state when it faults, and for no other instruction" },
	{ ZYDIS_MNEMONIC_XSAVE, 0, LOOSE_CR2, "order of the parts of an image" },
	{ ZYDIS_MNEMONIC_XSAVE64, 0, LOOSE_CR2, "order of the parts of an image" },
	{ ZYDIS_MNEMONIC_XSAVEC, 0, LOOSE_CR2, "order of the parts of an image" },
	{ ZYDIS_MNEMONIC_XSAVEC64, 0, LOOSE_CR2, "order of the parts of an image" },
	{ ZYDIS_MNEMONIC_XSAVEOPT, 0, LOOSE_CR2, "order of the parts of an image" },
	{ ZYDIS_MNEMONIC_XSAVEOPT64, 0, LOOSE_CR2, "order of the parts of an image" },
	{ ZYDIS_MNEMONIC_XRSTOR, 0, LOOSE_CR2, "order of the parts of an image" },
	{ ZYDIS_MNEMONIC_XRSTOR64, 0, LOOSE_CR2, "order of the parts of an image" },
	{ ZYDIS_MNEMONIC_FNSTENV, 0, LOOSE_CR2, "order of the parts of an image" },
	{ ZYDIS_MNEMONIC_FLDENV, 0, LOOSE_CR2, "order of the parts of an image" },
	{ ZYDIS_MNEMONIC_FNSAVE, 0, LOOSE_CR2, "order of the parts of an image" },
	{ ZYDIS_MNEMONIC_FRSTOR, 0, LOOSE_CR2, "order of the parts of an image" },
	{ ZYDIS_MNEMONIC_CVTPD2PI, 0, LOOSE_PENDING,
	  "an SSE instruction that writes an MMX register" },
	{ ZYDIS_MNEMONIC_CVTTPD2PI, 0, LOOSE_PENDING,
	  "an SSE instruction that writes an MMX register" },
	{ ZYDIS_MNEMONIC_CVTPS2PI, 0, LOOSE_PENDING,
	  "an SSE instruction that writes an MMX register" },
	{ ZYDIS_MNEMONIC_CVTTPS2PI, 0, LOOSE_PENDING,
	  "an SSE instruction that writes an MMX register" },
	{ ZYDIS_MNEMONIC_CALL, 0, LOOSE_CR2, "order of the words of a far frame" },
	{ ZYDIS_MNEMONIC_RET, 0, LOOSE_CR2, "order of the words of a far frame" },
	{ ZYDIS_MNEMONIC_IRET, 0, LOOSE_CR2, "order of the words of a frame" },
	{ ZYDIS_MNEMONIC_IRETD, 0, LOOSE_CR2, "order of the words of a frame" },
	{ ZYDIS_MNEMONIC_IRETQ, 0, LOOSE_CR2, "order of the words of a frame" },
};

/*
 * Instructions of whose undefined flags some are what they were before, on some processors. The fast form has lost those where nobody
 * may read them (translate.c); the checked form keeps them and is compared in every flag, as is the fast form after all others: the
 * host makes undefined flags for the guest as for itself.
 */
static const struct kept {
	u16 mnemonic;
	bool amd; /* measured on AMD's Zen 5 to keep some; the rest may on other processors and does not there */
} kept_table[] = {
	{ ZYDIS_MNEMONIC_MUL, true },	{ ZYDIS_MNEMONIC_IMUL, true },
	{ ZYDIS_MNEMONIC_DIV, true },	{ ZYDIS_MNEMONIC_IDIV, true },
	{ ZYDIS_MNEMONIC_LZCNT, true }, { ZYDIS_MNEMONIC_TZCNT, true },
	{ ZYDIS_MNEMONIC_BSF, false },	{ ZYDIS_MNEMONIC_BSR, false },
	{ ZYDIS_MNEMONIC_BT, false },	{ ZYDIS_MNEMONIC_BTS, false },
	{ ZYDIS_MNEMONIC_BTR, false },	{ ZYDIS_MNEMONIC_BTC, false },
	{ ZYDIS_MNEMONIC_SHL, false },	{ ZYDIS_MNEMONIC_SHR, false },
	{ ZYDIS_MNEMONIC_SAR, false },	{ ZYDIS_MNEMONIC_ROL, false },
	{ ZYDIS_MNEMONIC_ROR, false },	{ ZYDIS_MNEMONIC_RCL, false },
	{ ZYDIS_MNEMONIC_RCR, false },	{ ZYDIS_MNEMONIC_SHLD, false },
	{ ZYDIS_MNEMONIC_SHRD, false },
};

static bool may_keep_undefined(const struct testcase *c)
{
	for (unsigned i = 0; i < ARRAY_SIZE(kept_table); i++)
		if (kept_table[i].mnemonic == c->zi.mnemonic)
			return kept_table[i].amd || !host_is_amd();
	return false;
}

static const struct loose *loose_find(const struct testcase *c)
{
	for (unsigned i = 0; i < ARRAY_SIZE(loose_table); i++)
		if (loose_table[i].mnemonic == c->zi.mnemonic)
			return &loose_table[i];
	return NULL;
}

static bool is_loose(const struct testcase *c, unsigned what)
{
	const struct loose *l = loose_find(c);

	/* With REP processors move more than one element at a time. */
	if (what == LOOSE_CR2_PAGE && c->zi.meta.category == ZYDIS_CATEGORY_STRINGOP)
		return true;
	return l && l->what & what;
}

static bool differ(FILE *f, const char *what, u64 native, u64 guest)
{
	if (native == guest)
		return false;
	if (f)
		fprintf(f, "#     %-10s host %016lx guest %016lx\n", what, native, guest);
	return true;
}

static bool gprs_differ(const struct testcase *c, const struct outcome *a, const struct outcome *b,
			FILE *f)
{
	static const char *const names[16] = { "rax", "rcx", "rdx", "rbx", "rsp", "rbp",
					       "rsi", "rdi", "r8",  "r9",  "r10", "r11",
					       "r12", "r13", "r14", "r15" };
	const struct loose *l = loose_find(c);
	bool bad = false;

	for (unsigned i = 0; i < 16; i++)
		if (!l || !(l->gpr >> i & 1))
			bad |= differ(f, names[i], a->st.gpr[i], b->st.gpr[i]);
	return bad;
}

static u64 get(const u8 *p, unsigned n)
{
	u64 v = 0;

	memcpy(&v, p, n);
	return v;
}

static bool x87_differs(const u8 *a, const u8 *b, FILE *f)
{
	bool bad = differ(f, "fcw", get(a + XS_FCW, 2), get(b + XS_FCW, 2));
	unsigned top = get(a + XS_FSW, 2) >> 11 & 7;
	char name[16];

	bad |= differ(f, "fsw", get(a + XS_FSW, 2), get(b + XS_FSW, 2));
	bad |= differ(f, "ftw", a[XS_FTW], b[XS_FTW]);
	for (unsigned i = 0; i < 8; i++) {
		const u8 *p = a + XS_ST + 16 * i, *q = b + XS_ST + 16 * i;

		if (!(a[XS_FTW] >> ((top + i) & 7) & 1))
			continue;
		snprintf(name, sizeof(name), "st%u", i);
		bad |= differ(f, name, get(p, 8), get(q, 8));
		snprintf(name, sizeof(name), "st%u.exp", i);
		bad |= differ(f, name, get(p + 8, 2), get(q + 8, 2));
	}
	return bad;
}

static bool component_differs(const u8 *a, const u8 *b, const char *what, unsigned unit,
			      unsigned off, unsigned size, FILE *f)
{
	bool bad = false;
	char name[24];

	if (!memcmp(a + off, b + off, size))
		return false;
	for (unsigned i = 0; i < size; i += 8) {
		snprintf(name, sizeof(name), "%s%u+%u", what, i / unit, i % unit);
		bad |= differ(f, name, get(a + off + i, 8), get(b + off + i, 8));
	}
	return bad;
}

/* A gather that is cut off: whether what is above the vector is zero already. */
static bool is_gather(const struct testcase *c)
{
	for (unsigned i = 0; i < c->zi.operand_count_visible; i++)
		if (c->ops[i].type == ZYDIS_OPERAND_TYPE_MEMORY &&
		    c->ops[i].mem.type == ZYDIS_MEMOP_TYPE_VSIB)
			return true;
	return false;
}

static bool vectors_differ(const struct outcome *native, const struct outcome *guest, bool x87,
			   bool upper, FILE *f)
{
	static const char *const names[XC_COUNT] = {
		"", "", "ymmh", "", "", "k", "zmmh", "zmm16+"
	};
	static const u8 units[XC_COUNT] = { 1, 1, 16, 1, 1, 8, 32, 64 };
	const struct xstate_layout *l = xstate_layout();
	static u8 a[XSAVE_AREA], b[XSAVE_AREA];
	bool bad;

	memcpy(a, native->st.xsave, 2816);
	memcpy(b, guest->st.xsave, 2816);
	image_complete(a, state_mask);
	image_complete(b, state_mask);
	bad = x87 && x87_differs(a, b, f);
	bad |= differ(f, "mxcsr", get(a + XS_MXCSR, 4), get(b + XS_MXCSR, 4));
	bad |= component_differs(a, b, "xmm", 16, XS_XMM, 256, f);
	for (unsigned i = 2; i < XC_COUNT; i++)
		if (state_mask >> i & 1 && (upper || i == 5))
			bad |= component_differs(a, b, names[i], units[i], l->offset[i], l->size[i],
						 f);
	return bad;
}

/* Exceptions whose error code the host's kernel shows as hardware gave it. */
static bool has_error(int vector)
{
	return vector == VEC_PF || vector == VEC_GP || vector == VEC_SS || vector == VEC_NP ||
	       vector == VEC_TS;
}

/* Flags that the instructions from @rip on overwrite before they are read. */
static u64 dead_flags(const struct testcase *c, u64 rip)
{
	ZydisDecodedInstruction zi;
	ZydisDecodedOperand ops[ZYDIS_MAX_OPERAND_COUNT];
	u8 code[16 + CODE_MAX + 16] = { 0 };
	unsigned n = c->zi.length + c->nbehind;
	u64 dead = 0, live = 0;

	memcpy(code, c->bytes, c->zi.length);
	memcpy(code + c->zi.length, c->behind, c->nbehind);
	for (unsigned at = rip - c->at; at < n && insn_decode(code + at, &zi, ops);
	     at += zi.length) {
		const ZydisAccessedFlags *f = zi.cpu_flags;

		if (!f)
			continue;
		live |= f->tested & ~dead;
		dead |= (f->modified | f->set_0 | f->set_1 | f->undefined) & ~live;
	}
	return dead & FL_ARITH;
}

/* The fast form loses flags that would be overwritten unread after a fault: the instruction runs again from its start. */
static u64 flags_compared(const struct testcase *c, const struct outcome *native,
			  const struct outcome *guest)
{
	const ZydisAccessedFlags *f = c->zi.cpu_flags;
	u64 flags = FL_ARITH | FL_DF | FL_ID | FL_NT | FL_IF | FL_IOPL | FL_AC;

	if (f && native->rip != c->at && guest->is_fast && may_keep_undefined(c))
		flags &= ~(u64)f->undefined;
	if (is_loose(c, LOOSE_CF))
		flags &= ~(u64)FL_CF;
	if (guest->is_fast && native->vector >= 0)
		flags &= ~dead_flags(c, native->rip);
	return flags;
}

static bool is_canonical(u64 a)
{
	return (s64)(a << 16) >> 16 == (s64)a;
}

bool outcome_ignored(const struct testcase *c, const struct outcome *native,
		     const struct outcome *guest)
{
	bool near = c->zi.meta.branch_type == ZYDIS_BRANCH_TYPE_NEAR;

	/* An instruction that the host does not have: ours looks at the memory operand first. */
	if (native->vector == VEC_UD && (guest->vector == VEC_PF || guest->vector == VEC_GP ||
					 guest->vector == VEC_SS || guest->vector == VEC_AC))
		return true;
	/* DIFFERS: the fast form arrives at an address that is not canonical, and faults there. */
	if (guest->is_fast && near && native->vector == VEC_GP && guest->vector == VEC_GP &&
	    !is_canonical(guest->rip))
		return true;
	/* Two faults of one CALL, of the push and of the target. */
	if (near && native->vector >= 0 && guest->vector == VEC_GP &&
	    c->zi.mnemonic == ZYDIS_MNEMONIC_CALL)
		return true;
	return false;
}

/* Kernels make one null selector of the four. */
static u16 selector_of(u16 sel)
{
	return sel < 4 ? 0 : sel;
}

bool outcome_differs(const struct testcase *c, const struct start *s, const struct outcome *native,
		     const struct outcome *guest, FILE *f)
{
	const u64 flags = flags_compared(c, native, guest);
	/* The host has pages of its own outside the arena. */
	bool elsewhere = native->cr2 - ARENA >= ARENA_SIZE;
	u64 present = native->vector == VEC_PF && elsewhere ? PF_P : 0;
	u64 offset = is_loose(c, LOOSE_CR2_PAGE) ? PAGE_SIZE - 1 : 0;
	bool bad = false;

	(void)s;
	/* Of an image whose two pages both fault, one not there and one read-only, either may be told. */
	if (is_loose(c, LOOSE_CR2) && (native->cr2 ^ guest->cr2) & PAGE_MASK)
		present |= PF_P;
	/* POPF took TF from a page that crosses: both are trapped one instruction later, each by its own handler. */
	if (native->vector == VEC_DB && guest->vector == VEC_DB)
		return false;
	if (native->vector == VEC_MF && is_loose(c, LOOSE_PENDING))
		return false;
	bad |= differ(f, "vector", native->vector, guest->vector);
	if (!is_loose(c, LOOSE_RIP))
		bad |= differ(f, "rip", native->rip, guest->rip);
	if (guest->vector == -2) {
		differ(f, "exit", 0, guest->error);
		return true;
	}
	if (has_error(native->vector))
		bad |= differ(f, "error", native->error & ~present, guest->error & ~present);
	if (native->vector == VEC_PF && !is_loose(c, LOOSE_CR2))
		bad |= differ(f, "cr2", native->cr2 & ~offset, guest->cr2 & ~offset);
	bad |= gprs_differ(c, native, guest, f);
	bad |= differ(f, "rflags", native->st.rflags & flags, guest->st.rflags & flags);
	bad |= differ(f, "fs base", native->st.fs_base, guest->st.fs_base);
	bad |= differ(f, "gs base", native->st.gs_base, guest->st.gs_base);
	for (unsigned i = 0; i < 6; i++)
		bad |= differ(f, "selector", selector_of(native->st.sel[i]),
			      selector_of(guest->st.sel[i]));
	return bad |
	       vectors_differ(native, guest, native->vector < 0 || !is_loose(c, LOOSE_X87_FAULT),
			      native->vector < 0 || !is_gather(c), f);
}

/*
 * Fields of images in memory that show where the program is: the host's processor stores its own,
 * ours stores zero. Offset and length; compared with zero.
 */
static const struct pointers {
	u16 mnemonic;
	u8 width; /* operand width in bits, 0: any */
	u8 n;
	u8 at[3][2];
} pointer_table[] = {
	{ ZYDIS_MNEMONIC_FXSAVE, 0, 1, { { 6, 18 } } },
	{ ZYDIS_MNEMONIC_FXSAVE64, 0, 1, { { 6, 18 } } },
	{ ZYDIS_MNEMONIC_XSAVE, 0, 1, { { 6, 18 } } },
	{ ZYDIS_MNEMONIC_XSAVE64, 0, 1, { { 6, 18 } } },
	{ ZYDIS_MNEMONIC_XSAVEC, 0, 1, { { 6, 18 } } },
	{ ZYDIS_MNEMONIC_XSAVEC64, 0, 1, { { 6, 18 } } },
	{ ZYDIS_MNEMONIC_XSAVEOPT, 0, 1, { { 6, 18 } } },
	{ ZYDIS_MNEMONIC_XSAVEOPT64, 0, 1, { { 6, 18 } } },
	{ ZYDIS_MNEMONIC_FNSTENV, 16, 1, { { 6, 8 } } },
	{ ZYDIS_MNEMONIC_FNSAVE, 16, 1, { { 6, 8 } } },
	{ ZYDIS_MNEMONIC_FNSTENV, 0, 1, { { 12, 14 } } },
	{ ZYDIS_MNEMONIC_FNSAVE, 0, 1, { { 12, 14 } } },
};

static const struct pointers *pointers_find(const struct testcase *c)
{
	for (unsigned i = 0; i < ARRAY_SIZE(pointer_table); i++)
		if (pointer_table[i].mnemonic == c->zi.mnemonic &&
		    (!pointer_table[i].width || pointer_table[i].width == c->zi.operand_width))
			return &pointer_table[i];
	return NULL;
}

/* Check that the pointers of the guest's image at @off are zero, and take the host's for the comparison. */
static bool pointers_leak(const struct testcase *c, const struct pointers *p, u32 off, FILE *f)
{
	bool bad = false;

	(void)c;
	for (unsigned i = 0; i < p->n; i++)
		for (unsigned k = 0; k < p->at[i][1]; k++) {
			u32 at = off + p->at[i][0] + k;

			if (guest_arena[at] && guest_arena[at] != image[at])
				bad |= differ(f, "pointer", 0, guest_arena[at]);
			guest_arena[at] = native_arena[at];
		}
	return bad;
}

bool testcase_is_loose(const struct testcase *c)
{
	const struct loose *l = loose_find(c);

	return l && l->gpr;
}

/* Undefined flags of all forms of @mnemonic, by the manuals. */
static u64 undefined_flags(u16 mnemonic)
{
	ZydisDecodedInstruction zi;
	ZydisDecodedOperand ops[ZYDIS_MAX_OPERAND_COUNT];
	u64 flags = 0;
	u8 bytes[15];

	for (unsigned i = 0; i < nforms; i++) {
		if (forms[i].mnemonic != mnemonic)
			continue;
		encode_plain(&forms[i].t, bytes);
		if (insn_decode(bytes, &zi, ops) && zi.cpu_flags)
			flags |= zi.cpu_flags->undefined;
	}
	return flags;
}

static void print_undefined(const struct kept *k)
{
	static const char *const names[12] = { "CF", "",   "PF", "", "AF", "",
					       "ZF", "SF", "",	 "", "",   "OF" };
	u64 flags = undefined_flags(k->mnemonic);

	printf("| %s | fast |", ZydisMnemonicGetString(k->mnemonic));
	for (unsigned i = 0; i < ARRAY_SIZE(names); i++)
		if (flags >> i & 1)
			printf(" %s", names[i]);
	printf(" undefined; the host keeps some of them, the fast form loses what nobody may read "
	       "|\n");
}

static void print_loose(const struct loose *l)
{
	static const struct {
		u8 what;
		const char *name;
	} names[] = {
		{ LOOSE_RIP, "RIP" },
		{ LOOSE_CR2, "CR2" },
		{ LOOSE_X87_FAULT, "x87 state after a fault" },
		{ LOOSE_CF, "CF" },
		{ LOOSE_PENDING, "whether #MF or the page fault comes first" },
	};

	printf("| %s | both |", ZydisMnemonicGetString(l->mnemonic));
	printf(l->gpr ? " registers that it writes;" : "");
	for (unsigned i = 0; i < ARRAY_SIZE(names); i++)
		if (l->what & names[i].what)
			printf(" %s;", names[i].name);
	printf(" %s |\n", l->reason);
}

void loose_print(void)
{
	printf("\n| instruction | form | what is not compared, and why |\n|---|---|---|\n");
	for (unsigned i = 0; i < ARRAY_SIZE(kept_table); i++)
		if (kept_table[i].amd || !host_is_amd())
			print_undefined(&kept_table[i]);
	for (unsigned i = 0; i < ARRAY_SIZE(loose_table); i++)
		print_loose(&loose_table[i]);
	printf("| strings | both | CR2 within its page; with REP processors move more than one "
	       "element at a time |\n");
}

bool memory_differs(const struct testcase *c, const struct start *s, const struct outcome *native,
		    FILE *f)
{
	const struct pointers *p = native->vector == -1 ? pointers_find(c) : NULL;
	bool bad = false;
	char name[24];

	if (p) {
		u64 at = operand_address(&s->st, c, &c->ops[0]);

		if (image_at(at, 32))
			bad |= pointers_leak(c, p, at - ARENA, f);
	}
	for (unsigned i = 0; i < s->nwin; i++) {
		const u8 *a = native_arena + s->win[i].off, *b = guest_arena + s->win[i].off;

		if (!memcmp(a, b, s->win[i].len))
			continue;
		for (unsigned k = 0; k < s->win[i].len; k += 8) {
			snprintf(name, sizeof(name), "[%llx]", ARENA + s->win[i].off + k);
			bad |= differ(f, name, get(a + k, 8), get(b + k, 8));
			if (f && get(a + k, 8) != get(b + k, 8))
				fprintf(f, "#     before it  %016lx\n",
					get(image + s->win[i].off + k, 8));
		}
	}
	return bad;
}

bool arena_differs(FILE *f)
{
	static const struct window areas[] = { { DATA_OFF, DATA_SIZE },
					       { RO_OFF, RO_SIZE },
					       { STACK_OFF, STACK_SIZE } };
	bool bad = false;

	for (unsigned i = 0; i < ARRAY_SIZE(areas); i++)
		if (memcmp(native_arena + areas[i].off, guest_arena + areas[i].off, areas[i].len)) {
			bad = true;
			if (f)
				fprintf(f, "#     memory outside the windows differs\n");
		}
	return bad;
}

/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Rule x mode x prefix x poison: the vocabulary of the rule table and of the machine that it is tried on. */
#ifndef TESTS_MODES_MODES_H
#define TESTS_MODES_MODES_H

#include <stdio.h>

#include "cpu/x86/state.h"

/* --- random numbers --- */

u64 rng_next(void);
unsigned rng_below(unsigned n);
static inline bool rng_chance(unsigned percent)
{
	return rng_below(100) < percent;
}

/* --- modes --- */

enum mode_id {
	M_REAL,
	M_UNREAL, /* real mode with 4 GiB data segments */
	M_V86,
	M_PM16,
	M_PM32,
	M_PM32_USER,
	M_PG32, /* 32-bit paging with 4 MiB pages */
	M_PAE,
	M_COMPAT16,
	M_COMPAT32,
	M_COMPAT32_USER,
	M_LONG,
	M_LONG_USER,
	M_LONG57, /* five levels */
	MODES
};
#define MODE(m)	 BIT(M_##m)
#define ALL	 (BIT(MODES) - 1)
#define LONG64	 (MODE(LONG) | MODE(LONG_USER) | MODE(LONG57))
#define COMPAT	 (MODE(COMPAT16) | MODE(COMPAT32) | MODE(COMPAT32_USER))
#define REALLIKE (MODE(REAL) | MODE(UNREAL) | MODE(V86))
#define USER	 (MODE(V86) | MODE(PM32_USER) | MODE(COMPAT32_USER) | MODE(LONG_USER))
#define LONGMODE (COMPAT | LONG64)

struct mode {
	const char *name;
	u8 bits;      /* of code: 16, 32, 64 */
	u8 data_bits; /* segment limits: 16 or 32 */
	bool user, pe, vm, lma;
	u64 cr0, cr4, cr3;
};
extern const struct mode modes[MODES];

/* --- the world that an instruction can change --- */

#define SEL_SPARE_TSS 0x50 /* available; TR's own is another one */
#define TSS_AVAILABLE 0x89
#define TSS_BUSY      0x8b

#define DATA_AT	  0xa000u
#define DATA_SIZE 0x200u

struct world {
	u64 gpr[16];
	u64 cr0, cr2, cr3, cr4, cr8, xcr0, efer;
	u64 dr[4], dr6, dr7;
	u64 star, lstar, kernel_gs_base, sysenter_eip, tsc_aux, pat;
	struct x86_dtable gdt, idt;
	u64 fs_base, gs_base;
	u16 flags; /* arithmetic, AF_* */
	u16 tr;
	u8 tss; /* type byte of the descriptor SEL_SPARE_TSS */
	u8 df, phys_bits;
	u8 data[DATA_SIZE];
	/* What happened. */
	int vector; /* -1: the instruction was completed */
	u32 error;
	u64 hypercall[5]; /* number and arguments, when one arrived */
	bool has_hypercall;
	u16 any_low; /* registers whose low halves the rule leaves open */
};

/* --- cells and rules --- */

enum prefix { P_NONE, P_66, P_67, P_66_67, P_REX, P_REX_W, P_66_REX, P_67_REX_W, PREFIXES };
extern const char *const prefix_names[PREFIXES];

struct rule;
struct cell {
	const struct rule *rule;
	unsigned number; /* of the rule, among those that are tried */
	const struct mode *mode;
	enum mode_id id;
	enum prefix prefix;
	bool poisoned;
	bool p66, p67, rex, rex_w;
	/* The encoding, made by rule->encode(): what its model wants to know. */
	u8 code[15];
	unsigned len;
	u8 reg, rm;	       /* registers that the encoding names */
	u8 base, index, scale; /* NO_REG: none */
	s32 disp;
	u8 seg; /* of the memory operand */
	bool mem, lock;
	u64 imm;
};
#define NO_REG 0xff

struct rule {
	const char *name;
	u32 exists;	 /* modes; elsewhere #UD */
	bool privileged; /* #GP(0) at CPL 3 (in v8086 mode always) */
	/* Write c->code from the prefixes on; false: no such encoding. */
	bool (*encode)(struct cell *c);
	/* Registers and memory from which the instruction does more than fault. May be NULL. */
	void (*prepare)(const struct cell *c, struct world *w);
	/* The rule: what the processor makes of @w. For #UD and #GP by the two fields above it is not called. */
	void (*apply)(const struct cell *c, struct world *w);
};

/* The rules, by file. */
extern const struct rule rules_control[], rules_msr[], rules_address[], rules_string[];
extern const unsigned nrules_control, nrules_msr, nrules_address, nrules_string;

/* cells.c */
#define RULES_MAX 64
bool cell_is_possible(const struct cell *c);
/* One case, on @bad guests not as the rule has it; returns how many of its rule and mode were by now. */
unsigned cell_note(const struct cell *c, bool faulted, unsigned bad);
/* One TAP line each; false: a rule that was broken or never tried, a cell that is neither tried nor impossible. */
bool cells_print_rule(const struct rule *rule, unsigned number);
bool cells_are_complete(const struct rule *const *rules, unsigned n);
void cells_print_tables(const struct rule *const *rules, unsigned n);

/* nested.c: rows whose guests do not exist yet. */
void nested_print(void);

static inline bool is_64(const struct cell *c)
{
	return c->mode->bits == 64;
}

/* Effective sizes, by the book. */
static inline unsigned opsize_of(const struct cell *c)
{
	if (c->rex_w)
		return 8;
	if (c->mode->bits == 16)
		return c->p66 ? 4 : 2;
	return c->p66 ? 2 : 4;
}

static inline unsigned adsize_of(const struct cell *c)
{
	if (c->mode->bits == 64)
		return c->p67 ? 4 : 8;
	return (c->mode->bits == 32) != c->p67 ? 4 : 2;
}

static inline u64 cut(u64 v, unsigned size)
{
	return size == 8 ? v : size == 4 ? (u32)v : size == 2 ? (u16)v : (u8)v;
}

static inline void fault(struct world *w, int vector, u32 error)
{
	w->vector = vector;
	w->error = error;
}

/* A register write of @size bytes. */
static inline void put(struct world *w, unsigned r, u64 v, unsigned size)
{
	w->gpr[r] = size >= 4 ? cut(v, size) : (w->gpr[r] & ~cut(~0ull, size)) | cut(v, size);
}

/* encode.c */
void code_prefixes(struct cell *c);
void code_byte(struct cell *c, u8 b);
/* ModRM of two registers; REX bits are set in the prefix that code_prefixes() left. */
void code_modrm(struct cell *c, unsigned reg, unsigned rm, unsigned mod);
/* ModRM of memory for the address size, base, index and displacement at random. */
void code_memory(struct cell *c, unsigned reg);
/* An instruction without operands. */
bool code_fixed(struct cell *c, const u8 *bytes, unsigned n);
#define CODE_FIXED(name, ...)                                                                      \
	static bool encode_##name(struct cell *c)                                                  \
	{                                                                                          \
		static const u8 bytes[] = { __VA_ARGS__ };                                         \
		return code_fixed(c, bytes, sizeof(bytes));                                        \
	}
/* Random register, one of 16 where REX allows. */
unsigned pick_register(const struct cell *c, bool extended);
/* The effective address by the rule: sum, cut to the address size. */
u64 effective(const struct cell *c, const struct world *w);
/* Change base and index so that the effective address is @ea; upper halves stay as poisoned as they are. */
void aim(const struct cell *c, struct world *w, u64 ea);
/* The same, at a linear address in the data as a rule, and sometimes at one that is not canonical. */
void aim_data(const struct cell *c, struct world *w);
/* Linear address of @ea through the segment; false: a fault was put into @w. */
bool linear(const struct cell *c, struct world *w, u64 ea, unsigned size, bool write, u64 *lin);

/* machine.c */
#define GUESTS	   2
#define GUESTS_MAX 3 /* the third is the fast form with the option "exact" */
extern const char *const guest_names[GUESTS_MAX];
const char *machine_init(unsigned guests); /* a reason to skip, or NULL */
void machine_exit(void);
void machine_code(const struct cell *c);
/* A start that all rules accept; registers are not poisoned. */
void world_make(const struct cell *c, struct world *w);
void machine_run(unsigned which, const struct cell *c, const struct world *in, struct world *out);
/* Segment state of the mode: base and limit as linear() wants them. */
u64 segment_base(const struct cell *c, unsigned seg);
u32 segment_limit(const struct cell *c, unsigned seg);
/* CPUID as the guest has it: leaf and subleaf to EAX..EDX. */
bool cpuid_expect(u32 leaf, u32 out[4]); /* false: the guest has no such leaf */
extern bool is_intel;			 /* whose rules the guest follows */
extern bool has_alt_cr8;		 /* AMD: LOCK MOV CR0 means CR8 */

#endif

/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Instruction tests: the same instruction from the same state on the host's processor and in a guest. */
#ifndef TESTS_INSN_INSN_H
#define TESTS_INSN_INSN_H

#include <stdio.h>

#include <Zydis/Zydis.h>

#include "cpu/x86/state.h"

/*
 * Memory, at the same linear addresses on the host and in the guest:
 *
 *	code	2 pages: what is tested, tails behind it
 *	data	4 pages with a hole below and above
 *	ro	1 page, not writable
 *	stack	2 pages with a hole below and above
 *
 * The kernel of the guest and the save area of the native runner lie elsewhere.
 */
#define ARENA	   0x10000000ull
#define ARENA_SIZE 0x12000u
#define CODE_OFF   0x0u
#define CODE_SIZE  0x2000u
#define DATA_OFF   0x5000u
#define DATA_SIZE  0x4000u
#define RO_OFF	   0xb000u
#define RO_SIZE	   0x1000u
#define STACK_OFF  0xe000u
#define STACK_SIZE 0x2000u

#define XSAVE_AREA 4096

struct rng {
	u64 s;
};

u64 rng_next(struct rng *r);
unsigned rng_below(struct rng *r, unsigned n);
/* True in @percent of 100 calls. */
bool rng_chance(struct rng *r, unsigned percent);
/* Numbers as instructions like them: small, at a boundary, or anything. */
u64 rng_number(struct rng *r);

enum encoding { LEGACY, VEX, EVEX };

/* What two encodings of one form have in common. */
struct template
{
	u8 encoding, map, opcode;
	u8 pp; /* VEX, EVEX; legacy: see below */
	bool p66, p67, pf3, pf2, lock, w;
	u8 l; /* vector length field */
	bool b, z;
	u8 aaa;
	u8 reg, rm; /* of ModRM */
	bool mem, vsib, rex;
};

struct form {
	struct template t;
	u64 key;
	u16 mnemonic, isa;
	u16 row; /* index of the row of insn.def */
};

struct row {
	const char *name;
	const char *reason; /* why it cannot be compared with the host, or NULL */
	unsigned forms, host_ud, runs, faults, bad;
};

/* enumerate.c: all forms that a row of insn.def allows, found by trying all encodings. */
extern struct form *forms;
extern unsigned nforms;
extern struct row *rows;
extern unsigned nrows;
void forms_find(void);
u64 form_key(const struct template *t, const ZydisDecodedInstruction *zi,
	     const ZydisDecodedOperand *ops);
bool host_is_amd(void);
bool insn_decode(const u8 *bytes, ZydisDecodedInstruction *zi, ZydisDecodedOperand *ops);

/* encode.c */
void encode_plain(const struct template *t, u8 bytes[15]);

enum tail { TAIL_BEHIND, TAIL_FORWARD, TAIL_BACKWARD, TAIL_FAR, TAILS };
#define CODE_MAX 96

struct testcase {
	const struct form *form;
	u8 bytes[15];
	ZydisDecodedInstruction zi;
	ZydisDecodedOperand ops[ZYDIS_MAX_OPERAND_COUNT];
	u64 at;	   /* address of the instruction */
	u64 start; /* of what is before it */
	u64 tail[TAILS];
	u8 before[CODE_MAX], behind[CODE_MAX];
	unsigned nbefore, nbehind;
	unsigned past_helper; /* offset in .behind, past a helper of the engine; 0: none */
	u64 fs_base, gs_base;
	u64 target; /* of an operand whose address is fixed by the encoding */
};

/* One encoding of @form at random, with what surrounds it. */
void testcase_make(struct testcase *c, const struct form *form, struct rng *r);

struct state {
	u64 gpr[16];
	u64 rflags;
	u64 fs_base, gs_base;
	u16 sel[6];					   /* results only */
	u8 xsave[XSAVE_AREA] __attribute__((aligned(64))); /* standard format */
};

struct window { /* bytes of the arena that a run may change */
	u32 off, len;
};
#define WINDOWS 4

struct start {
	struct state st;
	struct window win[WINDOWS];
	unsigned nwin;
};

struct outcome {
	struct state st;
	int vector; /* -1: a tail was reached; -2: the engine gave up, see .error */
	u32 error;
	u64 rip, cr2;
	bool is_fast;
};

/* state.c: a state at random; fills its windows in the image. */
void start_make(struct start *s, const struct testcase *c, struct rng *r);
void state_init(void); /* layout of the XSAVE area */
extern u64 state_mask; /* components */

/* adjust.c: what single instructions need to do more than fault; before and after the windows are filled. */
void adjust_registers(struct start *s, const struct testcase *c, struct rng *r);
void adjust_memory(struct start *s, const struct testcase *c, struct rng *r);
/* Linear address of operand @op, BT's register offset included. */
u64 operand_address(const struct state *st, const struct testcase *c,
		    const ZydisDecodedOperand *op);
/* Bytes by which a register bit offset moves the operand of BT, BTS, BTR, BTC; 0 for others. */
u64 operand_bias(const struct state *st, const struct testcase *c);
u8 *image_at(u64 address, unsigned n); /* NULL: outside what is mapped and writable */

/* native.c */
bool host_has_fsgsbase(void); /* for user mode */
extern u8 *const native_arena;
const char *native_init(void); /* a reason to skip, or NULL */
void native_code(const struct testcase *c);
/* Whether an operand lies in memory of the process that no guest has: such a state cannot be compared. */
bool native_is_stray(const struct testcase *c, const struct state *st);
void native_run(const struct testcase *c, const struct state *in, struct outcome *out);

/* guest.c */
#define GUESTS	   2
#define GUESTS_MAX 3 /* the third is the fast form with the option "exact" */
extern const char *const guest_names[GUESTS_MAX];
extern u8 *guest_arena;
const char *guest_init(unsigned guests);
void guest_exit(void);
void guest_code(const struct testcase *c);
void guest_run(unsigned which, const struct testcase *c, const struct state *in,
	       struct outcome *out);

extern u8 image[ARENA_SIZE]; /* content of the arena at the start */

/* compare.c: what the manuals or docs/CAVEATS.md leave open as a whole. */
bool outcome_ignored(const struct testcase *c, const struct outcome *native,
		     const struct outcome *guest);
/* Differences are printed to @f (may be NULL). Returns whether there are any. */
bool outcome_differs(const struct testcase *c, const struct start *s, const struct outcome *native,
		     const struct outcome *guest, FILE *f);
bool memory_differs(const struct testcase *c, const struct start *s, const struct outcome *native,
		    FILE *f);
bool arena_differs(FILE *f);
/* Whether some registers are not compared: nothing behind the instruction may use them. */
bool testcase_is_loose(const struct testcase *c);

/* classes.c: note a run that was compared on all sides. */
void classes_note(const struct testcase *c, const struct start *s, const struct outcome *native);
/* One TAP line each, numbers from @number on; @all: a class that never came up has failed, and that this is so is proved. */
bool classes_print(unsigned *number, bool all);

/* summary.c: runs by group, prefix and end */
void summary_form(const struct testcase *c);
void summary_note(const struct testcase *c, const struct outcome *native);
void summary_print(void);
/* compare.c: what is not compared, and why. */
void loose_print(void);

#endif

/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* State of one translation, shared by the files of the translator. */
#ifndef ENGINE_X86_TRANSLATE_H
#define ENGINE_X86_TRANSLATE_H

#include "engine/vcpu.h"
#include "engine/x86/decode.h"
#include "engine/x86/emit.h"
#include "engine/x86/patch.h"
#include "engine/x86/regs.h"

#define GS(field) ((u32)offsetof(struct engine_vcpu, field))
#define GS_GPR(r) ((u32)(offsetof(struct engine_vcpu, cpu.gpr) + 8 * (r)))
#define GS_SEG_BASE(s)                                                                             \
	((u32)(offsetof(struct engine_vcpu, cpu.seg) + (s) * sizeof(struct x86_seg) +              \
	       offsetof(struct x86_seg, base)))
#define GS_AFLAGS GS(cpu.aflags)
/* A field of an entry of the register cache. */
#define RC(table, field, i)                                                                        \
	((u32)(GS(rc[0]) + (table) * sizeof(struct regcache) + offsetof(struct regcache, field) +  \
	       8 * (i)))

#define BLOCK_MAX  64 /* instructions */
#define IN_MEMORY  0xff
#define AHEAD_MAX  8   /* instructions */
#define AHEAD_SPAN 512 /* bytes that a block and what was looked at lie in */

/* Where the guest's arithmetic flags are at this point of the code. */
enum flags_place {
	FLAGS_HOST,  /* in the host's; what cpu.aflags holds is old */
	FLAGS_SAVED, /* in cpu.aflags; the host's are garbage */
	FLAGS_DEAD,  /* nowhere: the next instruction that touches them overwrites them all */
};

struct slow_path {
	u8 *site; /* displacement of the jump that leads here */
	u8 *back; /* where the fast path goes on */
	u8 *audit,
		*audited; /* displacement of the jump to an audit, and where that comes back; NULL: none */
	u8 *call;	  /* displacement of the call of a stub that is still to be made */
	u64 rec;
	enum miss_kind kind;
	bool write;
	s8 size_class; /* log2 of the size; -1: not by the register cache */
	u8 table;
	u16 index; /* register cache entry */
	u8 insn;
};

/* Operands of a loop whose address moves by the same in each round, behind the same registers (loop.c). */
struct loop_group {
	u8 base, index, scale; /* as in struct x86_insn */
	u8 reg;		       /* holds what makes host addresses of theirs */
	bool write;
	s64 lo, hi; /* what they access, from the address that the registers give at the loop's head */
	s64 stride;
	u16 entry; /* of the register cache */
	u8 table;
};

#define LOOP_GROUPS 8
/* What serves an operand, else than a group. */
#define LOOP_CHECKED 0xfe
#define LOOP_FAR     0xfd

struct loop {
	bool on;
	u8 slot;  /* of the vCPU's counters */
	u8 mover; /* a register that each round moves by .step */
	s64 step;
	u16 lent;    /* bits: guest registers that are in cpu.gpr[] meanwhile */
	u16 stored;  /* bits: in memory otherwise, and written in the loop */
	u8 home[16]; /* host registers of guest registers */
	unsigned ngroups;
	struct loop_group group[LOOP_GROUPS];
	u8 of[BLOCK_MAX];    /* group of an instruction's operand, or LOOP_* */
	s64 at[BLOCK_MAX];   /* of an operand with a group, as lo and hi */
	u8 *body[BLOCK_MAX]; /* where the instructions begin in the block's first body */
	u8 *branch;	     /* and its conditional jump */
};

/* While valid, T0 is host - linear address for [lo, hi) around what @base was when the window was made. */
struct window {
	bool valid, write;
	u8 base;
	s32 lo, hi;
	s32 moved; /* what has been added to the register since */
};

/* An operand in host memory: [base + index + disp], the index PATCH_KEEP for none (disp is 0 then). */
struct mem_ref {
	u8 base, index;
	s32 disp;
};

struct tr {
	struct emit e;
	struct engine_vcpu *v;
	struct cache *c;
	struct block *b;
	u8 *meta, *meta_end; /* what is left of the block's own memory */
	enum block_form form;
	x86_mode_t mode;
	u64 leave_at; /* dispatch stub of this form, flags in the host */
	u64 leave_at_saved;
	enum flags_place flags;
	bool full; /* there is no more memory: give up */
	bool straddles;
	bool before_straddler; /* the next instruction goes on in the next page */
	gpa_t second;
	bool windows;
	struct window window;
	struct loop loop;
	unsigned n;
	struct decoded d[BLOCK_MAX];
	u16 off[BLOCK_MAX];	    /* offset in the page */
	u16 live_in[BLOCK_MAX + 1]; /* FL_*: flags that are needed at the start of instruction i */
	unsigned nahead;
	struct ahead { /* instructions that say which flags the block must leave behind */
		u16 off;
		u8 len, bytes[15];
	} ahead[AHEAD_MAX];
	u16 from, to; /* see struct block */
	unsigned npc;
	struct pc_entry pc[BLOCK_MAX * 4 + 8];
	unsigned nslow;
	struct slow_path slow[BLOCK_MAX * 3];
	unsigned nexits;
};

/* Host register of a guest register, or IN_MEMORY. */
extern const u8 host_of[16];

/* translate.c: memory that is kept as long as the block; NULL when there is none. */
void *tr_alloc(struct tr *t, size_t n);

/* memory.c */
/* A record that outlives the translation, for C; 0 when the cache is full. */
struct x86_insn *tr_record(struct tr *t, unsigned i);
struct mem_site *tr_site(struct tr *t, unsigned i);
/* T0 = effective address of operand @i with its segment base; clobbers T1 and flags (saved by the caller when needed). */
void tr_linear(struct tr *t, unsigned i);
void tr_effective(struct tr *t, unsigned i);
/* T0 = linear address: make it the host address for @size bytes, or leave the block. */
/* What the operand's address depends on most, for tr_translate(). */
static inline unsigned tr_base(const struct x86_insn *insn)
{
	return insn->seg >= SEG_FS ? INSN_NO_REG : insn->base;
}

void tr_translate(struct tr *t, unsigned i, struct x86_insn *rec, unsigned base, unsigned size,
		  bool write);
/* The explicit operand, by the form of the block. Its registers stay as they are until the instruction has used it. */
struct mem_ref tr_operand(struct tr *t, unsigned i);
void tr_ref_op(struct tr *t, bool wide, u8 op, unsigned reg, const struct mem_ref *ref);

/* miss.c */
void tr_slow_paths(struct tr *t);
/* The stubs that they call and that were not there yet, by @e: behind the block, since others call them too. */
void tr_new_stubs(struct tr *t, struct emit *e);
/* Whether the register cache serves operands of @size bytes. */
bool tr_size_fits(unsigned size);
/* T1 = linear address, which becomes the host address; T0 is not touched. */
void tr_translate_t1(struct tr *t, unsigned i, struct x86_insn *rec, unsigned base, unsigned size,
		     bool write);
/* T1 = linear address; T0 = host - linear address. @window: that @size does not fit a page goes to site->narrow. */
void tr_translate_delta(struct tr *t, unsigned i, struct mem_site *site, unsigned base,
			unsigned size, bool write, bool window);

/* The first check that was emitted for instruction @i, or NULL. */
const struct slow_path *tr_check_of(const struct tr *t, unsigned i);
/*
 * T1 = linear address, by the register cache: T1 = host address; or (@far) T0 = linear address, by the TLB: T0 = host
 * address. What is not there leaves the loop. Flags are clobbered.
 */
void tr_translate_loop(struct tr *t, unsigned i, bool far);

/* loop.c */
/* The instructions are known: whether they are a loop, and how. */
void tr_loop_plan(struct tr *t);
/* Instruction @i of the first body comes next. */
void tr_loop_at(struct tr *t, unsigned i);
/* The conditional jump back was not taken out: the next round. Returns false when nothing was emitted. */
bool tr_loop_back(struct tr *t);
/* From the second body, with nothing of instruction @i done, to its place in the first. */
void tr_loop_leave(struct tr *t, unsigned i);

/* window.c */
bool tr_window_eligible(const struct tr *t, const struct x86_insn *insn);
/* The operand [base + disp], checked or in the window. @as: memsize and access when they are those of the stack. */
struct mem_ref tr_window(struct tr *t, unsigned i, unsigned base, s32 disp, unsigned size,
			 bool write, const struct x86_insn *as);
/* Register @base was moved. */
void tr_window_moved(struct tr *t, unsigned base, s64 add);
/* What an instruction does to register @base: false if that is more than adding *add. */
bool tr_moves_by_constant(const struct decoded *d, unsigned base, s64 *add);
/* Instruction @i has been emitted: follow what it did to registers. */
void tr_window_after(struct tr *t, unsigned i);

/* Before the flags are clobbered at instruction @i: save them when they are needed. */
void tr_flags_spill(struct tr *t, unsigned i);
/* Bring the flags into the host. @tmp is clobbered. */
void tr_flags_need(struct tr *t, unsigned tmp);
void tr_gpr_load(struct tr *t, unsigned host, unsigned guest);
void tr_gpr_store(struct tr *t, unsigned guest, unsigned host);
void tr_pc(struct tr *t, unsigned i, u8 lent);
/* The same in front of an access to guest memory, from where the instruction may start over. */
void tr_pc_access(struct tr *t, unsigned i, u8 lent);

/* native.c */
void tr_native(struct tr *t, unsigned i);
void tr_lea(struct tr *t, unsigned i);

/* branch.c: return whether the block has been left on every path */
void tr_helper(struct tr *t, unsigned i);
void tr_raise(struct tr *t, unsigned i, unsigned vector, bool unknown);
bool tr_stack(struct tr *t, unsigned i);
/* T0 = host address of the 8 bytes below RSP, for a push by instruction @i. */
void tr_stack_push_address(struct tr *t, unsigned i);
/* system.c: returns whether it was emitted; otherwise the caller takes the helper. */
bool tr_system(struct tr *t, unsigned i);
void tr_branch(struct tr *t, unsigned i);
/* Go on at the instruction behind the last one. */
void tr_fallthrough(struct tr *t);

#endif

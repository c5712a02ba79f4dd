/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* What one virtual processor is inside the engine, and the stubs that connect C and translated code. */
#ifndef ENGINE_VCPU_H
#define ENGINE_VCPU_H

#include <pthread.h>
#include <sys/types.h>

#include "cpu/x86/access.h"
#include "cpu/x86/host.h"
#include "cpu/x86/mode.h"
#include "cpu/x86/ops.h"
#include "engine/cache.h"
#include "engine/engine.h"
#include "engine/where.h"

/*
 * Translated code runs with
 *	guest RAX RCX RDX RBX RBP RSI RDI R8-R12		in the registers of the same name
 *	guest RSP						in host R13 (x86/regs.h)
 *	guest R13 R14 R15					in cpu.gpr[]
 *	host R14 R15						scratch of the translator, T0 and T1
 *	host RSP						the caller's stack, never the guest's
 *	%gs							struct engine_vcpu
 *	the six arithmetic flags, x87, SSE, AVX, AVX-512	the guest's own
 * DF and the other flags of the guest are bytes in cpu.f; the host's are always 0.
 */

#define TLB_BITS 12
#define TLB_SIZE BIT(TLB_BITS)

struct tlb_entry {	  /* 32 bytes: half a cache line */
	u64 tag_r, tag_w; /* page address when it may be read, written inline; else tlb_no_tag() */
	u64 page;	  /* host address of the page */
	u64 info; /* range: bytes around the page that are linear in guest and host, a power of two; and TLB_* */
};
#define TLB_GLOBAL 1ull
#define TLB_LISTED 2ull /* on the list of filled entries */
#define TLB_USER_PAGE                                                                              \
	4ull /* the page is the user's: in supervisor mode good only while AC is set */
#define TLB_LARGE      8ull /* fragment of a guest page larger than 4 KiB: bits 4-5 say which */
#define TLB_SPAN_SHIFT 4
#define TLB_BESIDE                                                                                 \
	0x40ull /* may be written, but holds code of this vCPU: what the code map leaves free */
#define TLB_RANGE (~0xfffull)

struct decoded;

struct lin_range {
	gva_t lo, hi; /* empty: lo > hi */
};

static inline void lin_range_add(struct lin_range *r, gva_t lo, gva_t hi)
{
	r->lo = lo < r->lo ? lo : r->lo;
	r->hi = hi > r->hi ? hi : r->hi;
}

static inline bool lin_range_has(const struct lin_range *r, gva_t lin)
{
	return lin >= r->lo && lin <= r->hi;
}

/* Bit in exec_map of the 2 MiB region of @lin. */
static inline unsigned exec_bit(gva_t lin)
{
	return (lin >> 21) * 0x9e3779b97f4a7c15ull >> 54;
}

/* What no address that maps to entry @i can match: another index. A fixed value could be reached by a guest. */
static inline u64 tlb_no_tag(unsigned i)
{
	return (u64)(~i & (TLB_SIZE - 1)) << PAGE_SHIFT;
}

enum tlb_context { TLB_KERNEL, TLB_KERNEL_AC, TLB_USER, TLB_CONTEXTS };

/*
 * What is cached is kept for several PCIDs at a time: a context switch that says so (CR3 bit 63) finds its
 * translations again. Without PCIDs there is one space, of PCID 0.
 */
#define SPACE_BITS 3
#define SPACES	   BIT(SPACE_BITS)

struct tlb {
	struct tlb_entry e[TLB_SIZE];
	u16 filled[TLB_SIZE]; /* indices of entries that were filled since the last flush */
	u32 nfilled;
	gva_t large_lo, large_hi; /* range that holds entries of large guest pages */
};

/*
 * Before the TLB: the last range that was accessed through each base register, for reads and for
 * writes. It is off the address's dependency chain, unlike the TLB, and small enough to be forgotten whole
 * at every flush. One for supervisor, one for user code, since a block knows which it is. Entries are chosen
 * by the translator from base register, kind of access, and a hash of the instruction.
 */
#define RC_CLASS    128 /* entries; three classes, for accesses of up to 8, 64 and 256 bytes */
#define RC_SIZE	    (3 * RC_CLASS)
#define RC_SPAN_MAX 256
struct regcache {
	u64 limit[RC_SIZE]; /* offsets below it hit; 0: empty */
	u64 tag[RC_SIZE];
	u64 delta[RC_SIZE]; /* host address - linear address */
	u64 host[RC_SIZE];  /* host address of the range */
};
#define LOOP_SLOTS    64
#define RC_STUB_SIZES 9 /* 1, 2, 4 ... 256 */

/* limit = range - room: no access that hits can cross the end. */
static inline unsigned rc_room(unsigned i)
{
	return i < RC_CLASS ? 7 : i < 2 * RC_CLASS ? 63 : RC_SPAN_MAX - 1;
}

/* Which entries are for writes: rc_index() in x86/miss.c chooses them. */
static inline bool rc_is_write(unsigned i)
{
	return i >> 2 & 1;
}

/* How a check hands over the address and takes the answer: see x86/miss.c. */
enum miss_kind { MISS_HOST0, MISS_DELTA, MISS_WINDOW, MISS_HOST1, MISS_LOOP, MISS_KINDS };

/* What is kept of a checked operand. */
struct mem_site {
	struct x86_insn insn; /* first */
	u64 narrow;	      /* code that runs it where its window crosses the end of the page */
};

#define ITLB_SIZE	 256
#define ITLB_NO_TAG	 (~0ull)
#define ITLB_USER	 1ull
#define ITLB_SPACE_SHIFT 1
#define ITLB_GLOBAL	 0x10ull
struct itlb_entry { /* execute tags */
	u64 tag; /* linear page | ITLB_USER | space << 1, or ITLB_GLOBAL instead of the space; ITLB_NO_TAG */
	gpa_t gpa; /* with the address space */
	u8 *host;
	u64 span;      /* of the guest page */
	bool writable; /* the mapping allows stores */
};

#define IBTC_BITS 13
#define IBTC_SIZE BIT(IBTC_BITS)
struct ibtc_entry { /* branch cache: where translated code of a RIP is */
	u64 rip;    /* ibtc_no_rip() when empty */
	u64 code;   /* 0: not on the list of filled entries */
};

/*
 * User code: the space is mixed into the index, so that a RIP found under it was put there under it.
 * Supervisor code is the same everywhere as long as its pages are global.
 */
#define IBTC_SALT_SHIFT (IBTC_BITS - SPACE_BITS)
static inline unsigned ibtc_index(u64 rip, unsigned salt)
{
	return ((rip ^ rip >> IBTC_BITS) ^ salt) & (IBTC_SIZE - 1);
}

/* Where the entry goes that lost its place to another: in the same line of the host's cache. */
static inline unsigned ibtc_near(unsigned i)
{
	return i ^ 1;
}

/* What no RIP that is looked for in entry @i can be: that would take a salt of all ones, but for the bit of ibtc_near(). */
static inline u64 ibtc_no_rip(unsigned i)
{
	return ~i & (IBTC_SIZE - 1);
}

/* One table for each mode that was seen since the last reset of the cache, at a fixed place: blocks address theirs. */
#define IBTC_MODES 16
struct ibtc {
	struct ibtc_entry e[IBTC_SIZE];
	u16 filled[IBTC_SIZE];
	u32 nfilled;
	u32 mode;
	bool used;
	bool user;	    /* salted */
	bool has_nonglobal; /* supervisor: an entry is not from a global page */
	u64 lo, hi;	    /* all RIPs lie between */
};

enum leave_reason {
	LEAVE_NONE,
	LEAVE_KICK,
	LEAVE_TRANSLATE, /* no block for cpu.rip */
	LEAVE_FULL,	 /* v->insn must run in full context */
	LEAVE_BOUNCE,	 /* v->insn accesses a device, crosses a page, or faults under a mask */
	LEAVE_FAULT,	 /* cpu.exc is to be delivered in full context */
	LEAVE_EXIT,	 /* cpu.exit is filled */
	LEAVE_MODES,	 /* no branch cache is left for this mode */
	LEAVE_PROTECT,	 /* stores to v->protect_page must be reported before its code may run */
	LEAVE_STEP,	 /* MODE_STEP: one instruction at a time */
	LEAVE_DONE,	 /* the bounce block has run to its end */
};

/* Executable addresses of the stubs (x86/stubs.c). */
struct stubs {
	u64 enter; /* C function: void enter(struct engine_vcpu *, u64 code) */
	u64 leave; /* all guest state is in cpu, T0 T1 free: save vectors, back to enter's caller */
	u64 fault; /* as leave, from a signal handler */
	u64 mem_slow;	    /* T0 linear address, T1 record: T0 host address or does not return */
	u64 mem_slow_delta; /* the same: T0 host - linear address */
	u64 mem_slow_t1;    /* the same: T1 host address, T0 = stub_t0 */
	u64 narrow;	    /* T1 struct mem_site: go on in a block without windows */
	u64 mem_call;	    /* T1 record: as above, the address is computed in C */
	u64 op; /* T1 record, flags saved: runs a helper; returns with flags in cpu.aflags, or not at all */
	u64 dispatch;	    /* T0 target RIP, flags live */
	u64 dispatch_saved; /* T0 target RIP, flags in cpu.aflags */
	u64 dispatch_c;	    /* T0 target RIP, flags live: no branch cache */
	u64 dispatch_c_saved;
	u64 near; /* T0 target RIP, T1 offset of its entry in the branch cache, which was of another; flags in cpu.aflags */
	u64 link; /* T1 = struct exit_link *, flags live */
	u64 link_saved; /* the same, flags in cpu.aflags */
	u64 kick;	/* T0 target RIP, flags live: a poll fired */
	u64 dead;	/* called by the entry of a killed block, flags in cpu.aflags */
	u64 audit; /* T1 record, flags saved or dead: engine_audit(); every register but T1 is kept */
	u64 done; /* end of a bounce block, flags live */
	struct watch_sites watch;
};

/*
 * Requests from other threads. The owner serves them at polls, in engine_dispatch(), and when it
 * comes IN. Whoever asks sets .wanted, then cpu.request, then may wait until the owner is OUT or
 * .acked has reached the .epoch that asking gave. OUT means: holds no pointer into a slot and will
 * look at .wanted before it uses any tag. A waiter is OUT itself (or no vCPU): nobody waits for a waiter.
 */
enum request {
	REQUEST_DROP_WRITE = BIT(0), /* all write tags, those of logged pages too */
	REQUEST_FLUSH = BIT(1),	     /* all translations of addresses */
	REQUEST_WRITTEN = BIT(2),    /* code was stored to: .written[] */
	REQUEST_STOP = BIT(3),	     /* be OUT while engine.exclusive is set */
	REQUEST_WATCH = BIT(4),	     /* engine.watched has changed */
};

#define WRITTEN_MAX 32
struct written_range {
	gpa_t gpa; /* with the address space */
	u32 len;
};

struct requests {
	u32 lock;	  /* spin; guards written[] and nwritten; held for a few stores */
	u32 wanted;	  /* enum request */
	u64 epoch, acked; /* requests in all */
	bool in;	  /* the owner is IN */
	bool serving;	  /* the owner is about to acknowledge */
	u32 nwritten;	  /* > WRITTEN_MAX: too many, verify all pages */
	struct written_range written[WRITTEN_MAX];
};

#define BESIDE_SIZE  64
#define BESIDE_QUIET 16 /* stores */

enum step_state { STEP_NONE, STEP_ARMED, STEP_RUNNING };

struct engine_stats {
	u64 audits, audit_gone, audit_stale;
	u64 enters, dispatches, ibtc_fills, links, mem_slow, mem_calls, ops, ops_left, full_ops,
		bounces, faults, tlb_fills, tlb_flushes, itlb_fills, code_writes, steps;
};

struct engine_vcpu {
	struct x86_cpu cpu; /* first: cpu.gpr at gs:0 */

	struct engine_vcpu *self; /* its own address, for the stubs */
	u64 rip_page;		  /* RIP of the first byte of the page that runs */
	u64 host_rsp;		  /* of translated code, between the stubs enter and leave */
	u64 host_gs, guest_gs;
	u64 target;				   /* of an indirect call through memory */
	u64 stub_rax, stub_rcx, stub_t0, stub_lin; /* kept by the stubs of the register cache */
	u64 lent[3];	/* guest RSI, RDI, RBP while a translated instruction borrows them */
	u32 audit_left; /* hits until engine_audit() */
	u32 audit_next; /* of the branch cache */
	u64 audit_t1;
	u64 inline_hits; /* verbose only: memory operands served inline */
	u64 chained,
		cached; /* verbose only: block exits by a linked jump, by the branch cache; the rest are dispatches */
	struct regcache rc[2]; /* supervisor, user */
	/* Loops (x86/loop.c): rounds that are sure, less one; the value of the register at which they end. */
	u64 loop_more, loop_bound;
	/* By a hash of the loop: rounds until the next try; the same register at the last start and end. */
	u8 loop_wait[LOOP_SLOTS];
	u64 loop_start[LOOP_SLOTS], loop_last[LOOP_SLOTS];
	struct tlb_entry *tlb;		      /* of the context of the current mode */
	struct tlb_entry *tlb_ac, *tlb_no_ac; /* what it is with AC set, and clear */
	u64 rare_flags;			      /* RFLAGS but for the arithmetic flags, IF and AC */
	u64 ibtc_salt;			      /* of the current space: now << IBTC_SALT_SHIFT */
	u64 salt_now;			      /* the same for user code, 0 for supervisor code */
	struct ibtc
		*ibtc; /* of the current mode; NULL: there are too many, the cache must be reset */
	u32 mxcsr_host;
	u16 fcw_host;
	/*
	 * Components of the vector state that some block touches: entry and leave restore and save these. The others stay in
	 * cpu.xsave, and the host's registers stay the host's. Grows, in full context only: see translate().
	 */
	u64 xmask;
	u8 bounce[192] __attribute__((aligned(64)));
	u8 undo[X86_XSAVE_MAX];	     /* vector state before a bounced store */
	u64 bounce_ptr;		     /* what the bounce form uses as the operand's address */
	u32 reason;		     /* enum leave_reason */
	const struct x86_insn *insn; /* with LEAVE_FULL, LEAVE_BOUNCE */
	struct x86_insn
		again; /* asked a device in user space: runs first when engine_run() is called again */
	bool has_again;
	bool unshadow;	    /* a FORM_SINGLE block runs the instruction in a shadow */
	bool unrf;	    /* RF was set for the instruction that runs */
	bool linking;	    /* engine_link() wants the block, not just its code */
	bool linking_exact; /* and an exact one */
	struct beside {	    /* code of the pages whose TLB entries say TLB_BESIDE */
		u64 page;   /* host address */
		struct code_page *code;
	} beside[BESIDE_SIZE];
	bool narrow;   /* the next block is to be one without windows */
	bool single;   /* the next instruction runs as FORM_SINGLE */
	bool gs_taken; /* a thread has %gs for it, where the kernel sets that */
	bool hold_kick; /* no kick before the next instruction is done: it has device answers to take */
	bool smc;	/* cache_written() killed something since the last look, in smc_page */
	gpa_t smc_page;
	u8 step;	      /* enum step_state */
	bool step_tf;	      /* TF at the start of the instruction that is stepped */
	struct block *found;  /* by the last engine_dispatch() */
	enum block_form want; /* with LEAVE_TRANSLATE */
	gpa_t want_gpa;
	gpa_t protect_page;
	u8 *want_host;

	/* Where C code in full context goes on when memory of a slot cannot be accessed: signal.c. */
	void *guard[5];
	bool guarded;
	bool holds_lock; /* engine.lock */

	struct engine *engine;
	struct cache cache;
	struct stubs stubs;
	u32 rc_stub[2][RC_SIZE][MISS_KINDS]
		   [RC_STUB_SIZES]; /* code offset; 0: not made since the last reset */
	struct tr *tr_room;	    /* the translator's working state, too large for a stack */
	struct memo *memo;	    /* what was decoded */
	/* decode(), which leaf code must not know by name: called in full context only */
	int (*decode)(const struct x86_host *host, x86_mode_t mode, const u8 *bytes, unsigned n,
		      struct decoded *out);
	struct requests requests;
	u32 where; /* enum engine_where; own thread */
	u16 stale; /* write tags were dropped in the middle of a block, whose windows (x86/window.c) are none now */
	pid_t thread; /* that was IN last */
	u32 npending; /* stores to code that the others must be told of */
	struct written_range pending[4];
	struct slot *fetch_hint;
	x86_mode_t mode_seen; /* mode that ibtc belongs to */

	struct engine_stats stats;
	u64 op_calls[X86_OP_COUNT];
	struct space {
		u16 pcid;
		bool used;
		struct tlb *context[TLB_CONTEXTS]; /* made at first use */
	} spaces[SPACES];
	/* So that INVLPG of another address looks no further: where global pages are. */
	struct lin_range global_range;
	u64 exec_map[16]; /* which 2 MiB regions, hashed, execute tags may be of */
	u64 exec_span;	  /* the largest page that an execute tag was of since all were dropped */
	unsigned now;	  /* the current space */
	unsigned victim;
	bool found_global; /* the pages of the last block that find() has found are */
	bool fetch_global; /* the page of the last engine_fetch() is global */
	bool exact;	   /* the next block found or made is to be an exact one */
	bool fetch_writable;
	struct itlb_entry itlb[ITLB_SIZE];
	struct ibtc ibtcs[IBTC_MODES];
	struct engine_vcpu *next;
};

struct engine {
	struct engine_options options;
	struct x86_host host;
	struct mem *mem;
	pthread_mutex_t lock; /* list of vCPUs; a first translation of a page. Taken while OUT. */
	struct engine_vcpu *vcpus; /* changed under lock; members are published by release */
	u32 nvcpus;
	bool watched;		       /* engine_watch() */
	struct engine_vcpu *exclusive; /* runs alone; the others are OUT and do not come IN */
	u32 stopped; /* how many wait for that: they go on before the next section begins */
};

/* slow.c: called by the stubs, in leaf context. */
void engine_fault(struct engine_vcpu *v); /* deliver cpu.exc */
/* cpu.exc is not delivered: it is a #DB for a debugger, v->reason is LEAVE_EXIT. */
bool engine_debug_fault(struct engine_vcpu *v);
void *engine_mem_slow(struct engine_vcpu *v, const struct x86_insn *insn, gva_t lin);
void *engine_mem_call(struct engine_vcpu *v, const struct x86_insn *insn);
u64 engine_op(struct engine_vcpu *v,
	      const struct x86_insn *insn); /* 1: continue behind it; 0: engine_resume() next */
/* dispatch.c: likewise. */
u64 engine_resume(struct engine_vcpu *v); /* code to run at cpu.rip, or 0: leave */
u64 engine_dispatch(struct engine_vcpu *v, u64 rip);
u64 engine_dead(struct engine_vcpu *v, u64 pc); /* @pc: behind the call in a killed block */
u64 engine_link(struct engine_vcpu *v, struct exit_link *l);
u64 engine_narrow(struct engine_vcpu *v, struct mem_site *site);
/* Whether code of the page that runs was killed. */
bool engine_smc_is_near(const struct engine_vcpu *v);
/* The execute translation of @rip: X86_OK with *gpa (address space included) and *host. */
enum x86_status engine_fetch(struct engine_vcpu *v, u64 rip, gpa_t *gpa, u8 **host);

/* Run the helper of @insn, in whatever context the caller is. */
enum x86_status engine_op_call(struct engine_vcpu *v, const struct x86_insn *insn);
/* Linear address of the explicit operand, BT's register offset included. */
/* After a fault of the address: whether the operand is misaligned as well; then that #GP takes its place. */
bool engine_misaligned(struct engine_vcpu *v, const struct x86_insn *insn);
enum x86_status engine_linear(struct engine_vcpu *v, const struct x86_insn *insn, gva_t *lin);
/* Finish or abandon an instruction whose helper returned @status. Returns whether the next may run. */
bool engine_commit(struct engine_vcpu *v, const struct x86_insn *insn, enum x86_status status);

/* request.c: leaf but for those that wait. */
void requests_serve(struct engine_vcpu *v);
/* From a signal handler in C code of @v that may be waiting for host memory: have write tags dropped, if nothing else is asked. */
void requests_serve_stuck(struct engine_vcpu *v);
void requests_post_written(struct engine_vcpu *v);
void requests_verify_later(
	struct engine_vcpu *v); /* all code of @v against memory, before it runs again */
void requests_note_written(struct engine_vcpu *v, gpa_t key, u32 len);
/* Ask every vCPU but @self (may be NULL) and wait. The caller is OUT or no vCPU. Full context. */
void requests_ask_all(struct engine *e, struct engine_vcpu *self, u32 what);
void requests_post_all(struct engine *e, u32 what); /* and do not wait */
/* Have all vCPUs, or only those that were granted writes while they were logged, drop all their write tags. */
void requests_drop_writes(struct engine *e, bool granted_only);
void vcpu_in(struct engine_vcpu *v);
void vcpu_out(struct engine_vcpu *v);
/*
 * From the one to the other no other vCPU is inside an instruction: for locked instructions that the host cannot
 * make atomic. Called IN, with no lock held; between them engine.lock must not be taken (a waiter may hold it).
 */
void exclusive_begin(struct engine_vcpu *v);
void exclusive_end(struct engine_vcpu *v);

/* tlb.c: leaf. */
void tlb_drop_all_writes(struct engine_vcpu *v);
void tlb_select(struct engine_vcpu *v); /* follow cpu.mode, CPL, AC */
/* @range: see struct tlb_entry. */
void tlb_fill(struct engine_vcpu *v, gva_t lin, u8 *host, bool write, const struct x86_xlate *xl,
	      u64 range);
void rc_flush(struct engine_vcpu *v);
/* As tlb_fill() for reading, and remember that stores are allowed which hit no code. */
void tlb_fill_beside(struct engine_vcpu *v, gva_t lin, u8 *host, const struct x86_xlate *xl,
		     u64 range, struct code_page *code);
/*
 * The host address for a store of @insn to a page with code, if that touches no chunk of it; else NULL. Where no block
 * was made for a while, the range around it that holds no code goes to the register cache, until there is one.
 */
u8 *tlb_beside(struct engine_vcpu *v, const struct x86_insn *insn, gva_t lin);
void tlb_flush(struct engine_vcpu *v); /* serve cpu.flush */
void tlb_flush_all(struct engine_vcpu *v);
void tlb_drop_write(struct engine_vcpu *v, const u8 *host_page);
void ibtc_flush(struct engine_vcpu *v);
void itlb_flush_all(struct engine_vcpu *v);
/* create.c: NULL when there is no memory. */
struct tlb *tlb_new(void);

/* The mode as the key of a block. */
static inline u32 engine_mode_key(const struct engine_vcpu *v)
{
	return v->cpu.mode & ~(MODE_STEP | MODE_SMM);
}

/* x86/translate.c: leaf, but for instructions that were not decoded before. */
size_t translate_room(void); /* size of the working state */
/*
 * NULL when the cache is full. *status: X86_FAULT when fetching the bytes faulted; X86_FULL, with nothing done, when
 * only full context can do it.
 */
struct block *translate(struct engine_vcpu *v, gpa_t gpa, u8 *host, enum block_form form,
			enum x86_status *status);
/* The same in whatever context; NULL when LEAVE_TRANSLATE is needed. */
struct block *translate_here(struct engine_vcpu *v, gpa_t gpa, u8 *host, enum block_form form);
/* watch.c, leaf: point the calls of @v to the watching functions or to the plain ones, as its engine says. Its own thread. */
void watch_apply(struct engine_vcpu *v);
/* x86/stubs.c */
bool stubs_make(struct engine_vcpu *v);
/* perf_map.c: give a new block its line, if there is a map. */
void perf_map_block(const struct engine_vcpu *v, const struct block *b);
void perf_map_stubs(const struct engine_vcpu *v);
/* signal.c */
int signals_install(void);
void signals_enter(struct engine_vcpu *v);
void signals_leave(struct engine_vcpu *v);
/* Ask the thread of a vCPU that does not come to a poll to look at its requests. Any thread. */
void signals_fetch(const struct engine_vcpu *v);

#endif

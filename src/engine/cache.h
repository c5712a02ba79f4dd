/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The code cache: blocks of translated code, found by guest-physical address and mode. */
#ifndef ENGINE_CACHE_H
#define ENGINE_CACHE_H

#include "cpu/x86/insn.h"
#include "mem/mem.h"

/*
 * One region of address space per vCPU (its own thread is the only one that touches it), mapped twice: once writable, once executable.
 *
 *	code_w  [ stubs | block | block | ...            ]  grows up; exec = write + delta
 *	meta    [ struct block, records, pc maps, pages  ]  grows up
 *
 * Nothing is freed singly. A block that must not run any more is killed: its incoming jumps are sent back to their
 * stubs, its entry is overwritten by a call of the dead stub, which is where branch caches that still know it end up.
 * It stays in the hash: a new translation of the same bytes, mode and form takes its place, when it fits, and so
 * whoever still knows the old entry is right again. Code that is patched for ever needs no new memory. When one
 * of the two regions is full, all is forgotten at once (cache_reset()), which only engine_run() does, while no
 * translated code runs.
 *
 * A block belongs to one guest-physical page (two when its only instruction straddles) and holds no guest
 * address: it serves every mapping of its page. Direct jumps inside the page are chained; those that
 * leave it too, in a supervisor's code, as long as the translation of the target's page stays (struct cache, .cross).
 *
 * Each page with blocks keeps a snapshot of the bytes that were translated. Stores by a vCPU reach
 * cache_written() because such a page gets no write tag; stores by anybody else are found by
 * cache_verify_page(), called whenever an execute tag is filled.
 */

enum block_form {
	FORM_FAST,    /* many instructions, inline memory access, chained */
	FORM_CHECKED, /* one instruction, a C call per memory operand, next by the branch cache */
	FORM_SINGLE, /* as checked, next by C: steps, shadows, blocks that cannot be trusted to stay */
	FORM_NARROW, /* as fast, but each access is checked by itself: where windows cross the end of a page */
	FORM_BOUNCE, /* one instruction on the bounce buffer */
};

struct exit_link {
	u32 site;	     /* code offset of the jump's displacement; 0: none */
	u32 stub;	     /* code offset of the stub that it reaches while not linked */
	u32 poll;	     /* a jump back: code offset of its poll; 0: none */
	u32 keep, keep_site; /* of the poll that keeps the flags, and its jump's displacement */
	u16 target_off;	     /* of the target in its page */
	u16 kind;	     /* LINK_* */
	struct block *from;
	struct exit_link *next;	 /* among the links into one block */
	struct exit_link **prev; /* what points here; NULL: not linked */
};

#define LINK_CROSS                                                                                 \
	BIT(0) /* it may leave the page: rip_page is the target's already; .keep is the way while it cannot be linked */
#define LINK_SAVED  BIT(1) /* the flags are in cpu.aflags */
#define LINK_AROUND BIT(2) /* sent to .keep */

struct pc_entry {     /* host pc to guest instruction; sorted by .host */
	u32 host;     /* offset from the block's code */
	u16 page_off; /* guest instruction, offset in the page */
	u8 len;
	u8 flags; /* PC_* */
};
#define PC_FLAGS_SAVED BIT(0) /* arithmetic flags are in cpu->aflags */
#define PC_LENT_SHIFT  1      /* three bits: RSI, RDI, RBP are in v->lent[] */
#define PC_ACCESS                                                                                  \
	BIT(4) /* the host instruction here is an access to guest memory, and nothing was done before it */

/* Guest registers in the second body of a loop (x86/loop.c): host register by guest register; IN_GPR: in cpu.gpr[]. */
struct loop_regs {
	u32 from, to; /* offsets from the block's code */
	u8 home[16];
};
#define IN_GPR 0xff

struct page_node { /* on the list of one chunk of a page */
	struct block *block;
	struct code_page *page;
	u32 chunk;
	struct page_node *next, **prev;
};

struct block {
	/* What cache_find() looks at lies in one line: a lookup is mostly misses of the host's caches. */
	struct block *hash_next;
	gpa_t gpa; /* of the first byte; address space in bits 60.. */
	u32 mode;
	u8 form;
	bool dead;
	bool straddles;
	bool exact;	  /* flags are kept also where they look dead: it may store into itself */
	bool tightened;	  /* it was made exact: it stays so */
	bool needs_flags; /* the arithmetic flags are read before they are written */
	u8 nnodes;
	u16 len; /* guest bytes */
	/* Offsets in the page: it holds for as long as nothing in between is stored to. It straddles: not used. */
	u16 from, to;
	u16 ninsns;
	u16 npc;
	u16 meta_words;	    /* of 8 bytes, from here on: this block's part of meta */
	u32 code, code_len; /* offset in the code region; entry with the flags in cpu.aflags */
	u32 code_room;	    /* for another translation at the same place */
	u32 chain;	    /* offset of the entry with the flags in the host, for linked jumps */
	gpa_t second;	    /* straddles: gpa of the second page */
	struct pc_entry *pc;
	struct page_node *node; /* one for each chunk that it was made from */
	struct exit_link exit[2];
	struct exit_link *incoming;
	struct loop_regs *loop; /* NULL: none */
} __attribute__((aligned(64)));
_Static_assert(sizeof(struct block) == 192,
	       "a boot makes 72,000: each line of the host's cache counts");

#define CHUNK_SHIFT 6 /* a page has 64 chunks of 64 bytes */
#define CHUNKS	    64
#define IDLE_WRITES                                                                                \
	64 /* stores to a page without live blocks until it is no page of code any more */

struct code_page {
	gpa_t gpa; /* page address with the address space */
	struct code_page *hash_next;
	u64 map;  /* chunks that live blocks were made from */
	u32 live; /* blocks that are not dead */
	u32 idle_writes;
	u32 quiet;   /* stores beside code since the last block was made from the page */
	u64 linear;  /* where it runs, as a supervisor's page; CODE_LINEAR_NONE, CODE_LINEAR_MANY */
	bool ranged; /* some of its bytes may be in a range for writes: see tlb_beside() */
	u8 *snapshot;
	u64 serial; /* of the slot whose descriptor counts this vCPU as holder; 0: none does */
	struct page_node *chunk[CHUNKS]; /* live blocks by the chunks that they touch */
};

/* No page begins there. */
#define CODE_LINEAR_NONE 0x1ull
#define CODE_LINEAR_MANY 0x2ull

/* Whether live blocks were made from a chunk of these bytes, which lie in the page and are not all of it. */
static inline bool cache_has_code(const struct code_page *p, unsigned off, unsigned size)
{
	unsigned first = off >> CHUNK_SHIFT, last = (off + size - 1) >> CHUNK_SHIFT;

	return p->map >> first & (BIT_ULL(last - first + 1) - 1);
}

#define CACHE_HASH	BIT(16)
#define CACHE_PAGE_HASH BIT(13)
#define CACHE_CROSS	16384

static inline u32 cache_hash(gpa_t gpa, u32 mode)
{
	return (gpa + mode) * 0x9e3779b97f4a7c15ull >> 48;
}

struct cache {
	u8 *code_w; /* writable alias */
	s64 delta;  /* executable - writable */
	size_t code_size, code_used, stubs_end;
	size_t code_touched; /* up to there the host has memory for it */
	u8 *meta;
	size_t meta_size, meta_used;
	struct block **by_code; /* in order of their code: for the pc map */
	u32 nblocks, max_blocks;
	struct block **hash;
	struct code_page **pages;
	u64 generation; /* counts resets */
	/*
	 * Exits that rest on the translation of the target's page, or on there being none that was asked for: some of them were
	 * unlinked since. cache_cross_undo() sends all back to their stubs.
	 */
	struct exit_link *cross[CACHE_CROSS];
	u32 ncross;
	u64 cross_lo, cross_hi; /* linear addresses of the pages that they rest on */
	u8 scratch[PAGE_SIZE];	/* of cache_verify_page() */
	u64 dead_stub;		/* executable address */
	bool ranges_stale; /* there is a block where stores may go by a range: translate() looks */
	/* statistics */
	u64 translated, killed, verified, verify_killed, resets, insns, bytes;
	u64 cycles; /* verbose only: of the time stamp counter, in translate() */
};

/* The guest-physical address in a key. */
static inline gpa_t cache_gpa(gpa_t key)
{
	return key & ~(15ull << 60);
}

static inline gpa_t cache_key(unsigned space, gpa_t gpa)
{
	return gpa | (gpa_t)space << 60;
}

/* Full context. 0 or -errno. */
int cache_create(struct cache *c);
void cache_destroy(struct cache *c);
void cache_reset(struct cache *c, const struct mem *mem);
/* NULL when the region is full. */
void *cache_alloc(struct cache *c, size_t n);
struct code_page *cache_page_get(struct cache *c, gpa_t page, const u8 *host);
/* Leaf. */
/*
 * Make a block findable: a new one, or a dead one that was translated again in its place. @bytes, which it was made
 * from, go into the snapshots of its pages, which this vCPU holds, even when others are there by now: so the difference
 * is found. There is room for cache_nodes() nodes at b->node.
 */
bool cache_insert(struct cache *c, struct block *b, const u8 *bytes);
unsigned cache_nodes(const struct block *b);
/* @bytes of a page were looked at for a block that is inserted next, and lie between its .from and .to. */
void cache_seen(struct cache *c, gpa_t at, const u8 *bytes, unsigned len);
/* Kill the blocks that touch [off, off + len). Returns their number. */
unsigned cache_kill_range(struct cache *c, struct code_page *p, unsigned off, unsigned len);
void cache_kill(struct cache *c, struct block *b);
struct block *cache_find(const struct cache *c, gpa_t gpa, u32 mode, enum block_form form);
/* The killed block whose place a new translation may take. */
struct block *cache_find_dead(const struct cache *c, gpa_t gpa, u32 mode, enum block_form form);
/* A dead block's place was written to in vain. It is not found any more. */
void cache_abandon(struct cache *c, struct block *b);
struct code_page *cache_page_find(const struct cache *c, gpa_t page);
struct block *cache_block_at(const struct cache *c, u64 pc);
/*
 * Bytes [gpa, gpa + len) of one page of @s are about to be, or were, written: kill what was made from them.
 * When no block of the page has been left for a while, this vCPU ceases to be a holder. Returns blocks killed.
 */
unsigned cache_written(struct cache *c, struct slot *s, gpa_t gpa, unsigned len);
/* Compare a page with its snapshot; kill the blocks that differ. Returns blocks killed. */
unsigned cache_verify_page(struct cache *c, gpa_t page, const u8 *host);
/* The same for all pages that this vCPU holds. */
void cache_verify_all(struct cache *c, const struct mem *mem);
/* The first bytes of CMP word gs:[disp32], 0: a poll. While its exit is not linked, a jump to the stub lies over them. */
#define POLL_BYTES ((const u8[5]){ 0x66, 0x65, 0x83, 0x3c, 0x25 })
/* Let an exit jump straight to @to. */
void cache_link(struct cache *c, struct exit_link *l, struct block *to);
/* The same for a target that was found by way of the pages [lo, hi], and holds until cache_cross_undo(). */
void cache_link_cross(struct cache *c, struct exit_link *l, struct block *to, u64 lo, u64 hi);
/* Until then the exit looks its target up at each turn. */
void cache_link_around(struct cache *c, struct exit_link *l);
void cache_cross_undo(struct cache *c);

#endif

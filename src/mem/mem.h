/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Guest memory: slots, the flat second stage, and the one place that grants a write. */
#ifndef MEM_MEM_H
#define MEM_MEM_H

#include "base/types.h"

/*
 * A slot maps guest-physical frames to the VMM's own memory. Its second stage is flat: one
 * descriptor per 4 KiB page in the format of an EPT leaf entry (design: docs/ARCHITECTURE.md,
 * "Memory"), index gfn - base_gfn, out of one reserved arena per VM.
 *
 * Threads: the slot list is published whole (RCU-like); a vCPU reads it without a lock between
 * two safepoints. slots change only by mem_slot_set(), under mem->lock, which returns after all
 * vCPUs have dropped the old list (the caller passes that wait down in struct mem_ops).
 */

/* Descriptor bits: EPT leaf entry, SDM "EPT paging structures". Bits 52.. are ours. */
#define S2_R	    BIT_ULL(0)
#define S2_W	    BIT_ULL(1)
#define S2_X	    BIT_ULL(2)
#define S2_PS	    BIT_ULL(7)
#define S2_A	    BIT_ULL(8)
#define S2_D	    BIT_ULL(9)
#define S2_CODE_ONE BIT_ULL(52)	    /* a counter: vCPUs that hold code translated from this page */
#define S2_CODE	    (0x7full << 52) /* not 0: no write tag */
#define S2_RES	    BIT_ULL(59)	    /* resident: clear means async page fault (not used yet) */

#define MEM_SPACES 2 /* address spaces: 0 normal, 1 SMM */

/* Guest pages by level of the second stage, for statistics and for the arrays of a slot. */
enum stage2_level { LEVEL_4K, LEVEL_2M, LEVEL_1G, LEVELS };

struct mem;
struct mem_writer;

struct slot {
	u32 id;	   /* KVM slot number with the address space in bits 16.. */
	u32 flags; /* KVM_MEM_* */
	gfn_t base_gfn;
	u64 npages;
	u8 *hva;
	u64 serial;	/* never used twice in a VM */
	u64 *desc;	/* npages descriptors; from the arena, zero = not touched yet */
	u64 *block;	/* one per 2 MiB that the slot touches, see mem/levels.h */
	u64 *giga;	/* one per 1 GiB */
	u32 level_lock; /* spin: changes of level */
	bool logged;	/* KVM_MEM_LOG_DIRTY_PAGES: published after log, see mem/dirty.h */
	struct dirty_log {
		u64 *bits;    /* one per page: written since the last harvest; NULL: never logged */
		u64 *summary; /* one per word of bits that may be nonzero */
		u64 *taken, *taken_summary; /* of the harvest under way; else all zero */
		u64 npages, nwords, nsummary;
	} log;
	u64 mark;   /* bit of a descriptor that says "recorded": by the collector */
	u64 *pages; /* mappings of the VM by level, for statistics; atomic */
	bool *late; /* of the VM: set when a bit is set in a log; rings are to be given it */
	struct mem *mem;
};

/* Handed down at creation; every pointer may be NULL. */
struct mem_ops {
	/*
	 * Every vCPU must drop all cached translations before this returns, code of the slot included:
	 * descriptors of a new slot know of no code. Called under mem->lock.
	 */
	void (*flush_all)(void *owner);
	/*
	 * Every vCPU must drop its write tags before this returns, those at least that were granted while
	 * their slot was logged. @granted_only: vCPUs that hold none of these (struct mem_writer) need not be asked.
	 */
	void (*drop_writes)(void *owner, bool granted_only);
};

struct mem *mem_create(const struct mem_ops *ops, void *owner);
void mem_destroy(struct mem *m);

/*
 * Create, move, change flags of or delete (npages 0) a slot. Arguments as in
 * KVM_SET_USER_MEMORY_REGION, sizes already checked for page alignment by the caller.
 * Returns 0 or -EINVAL, -EEXIST (overlap), -ENOMEM.
 */
int mem_slot_set(struct mem *m, unsigned space, u32 id, u32 flags, gfn_t gfn, u64 npages, u8 *hva);

/* The slot of @gfn or NULL. Lock-free; remembers the last hit in *@hint (may be NULL). */
struct slot *mem_slot_find(const struct mem *m, unsigned space, gfn_t gfn, struct slot **hint);

static inline bool slot_has(const struct slot *s, gfn_t gfn)
{
	return gfn - s->base_gfn < s->npages;
}

static inline u8 *slot_hva(const struct slot *s, gpa_t gpa)
{
	return s->hva + (gpa - (s->base_gfn << PAGE_SHIFT));
}

static inline u64 *slot_desc(const struct slot *s, gfn_t gfn)
{
	return &s->desc[gfn - s->base_gfn];
}

bool slot_is_readonly(const struct slot *s);

/* The slot of that number, or NULL. For ioctls; the caller keeps slots from changing meanwhile. */
struct slot *mem_slot_by_id(const struct mem *m, unsigned space, u32 id);

/* Whether an address of the process lies in a slot, and where. Async-signal-safe; for a fault, since it looks at every slot. */
bool mem_has_hva(const struct mem *m, const void *hva, gpa_t *gpa);

/*
 * The only place that grants a write: record the write (D bit; dirty log, PML or ring of @w while the slot is
 * logged), then say whether a write tag may be installed. False: this one store may proceed (unless the slot is
 * read-only) but the next must ask again (page holds translated code). @w: the vCPU that writes, or NULL.
 */
bool page_grant_write(struct mem_writer *w, struct slot *s, gfn_t gfn);

/* Note a read; sets A and R. */
void page_note_read(struct slot *s, gfn_t gfn);

/*
 * A vCPU begins, or ceases, to hold code translated from a page. page_code_get() returns whether some
 * vCPU held code already; if not, write tags may exist and must be dropped by all before the bytes are read.
 */
bool page_code_get(struct slot *s, gfn_t gfn);
void page_code_put(struct slot *s, gfn_t gfn);
unsigned page_code_holders(const struct slot *s, gfn_t gfn);
bool page_has_code(const struct slot *s, gfn_t gfn);

/* Whether there is a slot that may be written, whatever becomes of its memory: what KVM asks when it is given an address. */
bool mem_is_writable(const struct mem *m, unsigned space, gpa_t gpa, size_t len);

/*
 * Copy between guest-physical memory and a buffer, for devices and ioctls (never a vCPU's own
 * accesses). Returns 0 or -EFAULT when a byte has no slot, or its slot's memory is gone or may not be
 * accessed, or, for writes, is read-only. The thread must not have the fault signals blocked. A write
 * stores first and marks dirty after. A slot that is deleted meanwhile is kept until they are done.
 */
int mem_read(const struct mem *m, unsigned space, gpa_t gpa, void *buf, size_t len);
int mem_write(struct mem *m, unsigned space, gpa_t gpa, const void *buf, size_t len);
/* The same on behalf of a vCPU, by its own thread: the write is logged as that vCPU's. */
int mem_write_as(struct mem *m, struct mem_writer *w, unsigned space, gpa_t gpa, const void *buf,
		 size_t len);
/* Exchange a byte that vCPUs change too; as mem_write_as(). */
int mem_xchg8(struct mem *m, struct mem_writer *w, unsigned space, gpa_t gpa, u8 value, u8 *old);

/*
 * Set bits of a byte that vCPUs change too. It is not logged, and takes no lock: for pages that a protocol takes for
 * dirty always, and from a signal handler. 0 or -EFAULT.
 */
int mem_or8(struct mem *m, unsigned space, gpa_t gpa, u8 bits, u8 *old);

#endif

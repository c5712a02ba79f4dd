/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Dirty state: which pages the guest has written since they were last harvested, and who records it how. */
#ifndef MEM_DIRTY_H
#define MEM_DIRTY_H

#include "mem/mem.h"
#include "mem/ring.h"

/*
 * The invariant: a page may be written without being recorded only while a tag says so, and a tag implies that the
 * page is recorded - in the current log, or in that of a harvest that has not returned.
 *
 *	vCPU, in page_grant_write()			harvester, under mem->lock
 *	G0  writer.granted = true			H0  drain what the collectors hold into the bitmap
 *	G1  mark set? then recorded already		H1  take words of the bitmap, found by the summary
 *	G2  record: bit, PML entry or ring entry	    and clear the marks of the pages taken
 *	G3  set the mark				H2  nothing taken: done, nobody is asked
 *	G4  record taken meanwhile? back to G2		H3  ask every vCPU that has .granted to drop its tags
 *	G5  install the tag, store			H4  wait for each: dropped and fenced, or outside
 *							H5  copy out; where that fails put the bits back
 *
 * The mark is W of the 4 KiB descriptor (write protection), or D (PML). G4 closes the gap in which a harvester takes
 * the record of G2 before G3 sets the mark, which then would stand for ever without a record. There is no safepoint
 * between G0 and G5: H4 waits for whoever is in there.
 *
 * Who writes on nobody's behalf (@w NULL) stores first and sets the bit after.
 */

/* How writes of vCPUs are collected. Both find the same pages. */
enum dirty_collector {
	DIRTY_WP, /* write protection: the bitmap directly */
	DIRTY_PML, /* page modification log: 512 entries per vCPU, drained when full and by the harvester */
};

#define PML_SIZE 512u

struct pml {
	struct pml_entry {
		struct slot *slot;
		gfn_t gfn;
	} entry[PML_SIZE];
	u32 head; /* entries published; by the vCPU */
	u32 tail; /* entries drained; under lock */
	u32 lock; /* spin: vCPU and harvester both drain */
};

#define DIRTY_OPEN 16

/* A vCPU as one who writes. All but what is said otherwise is its own thread's. */
struct mem_writer {
	bool granted; /* may hold tags of logged pages; also read by harvesters */
	bool pml_on;  /* some slot is logged, and the collector is PML */
	struct pml *pml;
	struct dirty_ring ring; /* .entry NULL: there is none */
	struct mem *mem;
	struct mem_writer *next; /* under mem->lock */
	/*
	 * Pages of logged slots that the instruction under way was allowed to write. Who must let a harvest through in the
	 * middle of it records them again.
	 */
	u32 nopen; /* > DIRTY_OPEN: not all are kept */
	struct {
		struct slot *slot;
		gfn_t gfn;
	} open[DIRTY_OPEN];
	u64 records, pml_entries, pml_full, pml_exit; /* counters */
};

/* For page_grant_write() alone: the slot is logged. @again: a mark that is set means nothing. */
void dirty_record(struct mem_writer *w, struct slot *s, gfn_t gfn, bool again);

/* Record the open pages once more: they will be written after the harvest that is waiting. False: not possible. */
bool dirty_renew(struct mem_writer *w);

/* Set the bit of a page. */
void dirty_bit_set(struct slot *s, gfn_t gfn);

/* Move what the log of a vCPU holds into bitmaps. Any thread. Returns the number of entries. */
u32 pml_drain(struct pml *p);

/* Whether the vCPU must go to user space before it writes any more. */
static inline bool mem_writer_is_full(const struct mem_writer *w)
{
	return unlikely(w->ring.entry) && ring_is_soft_full(&w->ring);
}

/* A vCPU goes out to user space: its log is drained, as by KVM at every VM exit. Own thread. */
void mem_writer_exit(struct mem_writer *w);

/* --- Not leaf. */

/* One vCPU more, before it runs; NULL: no memory. */
struct mem_writer *mem_writer_create(struct mem *m);
void mem_writer_destroy(struct mem_writer *w);

/* Choose before the first slot is logged. */
void mem_dirty_collector(struct mem *m, enum dirty_collector c);
/* KVM_DIRTY_LOG_INITIALLY_SET: logs begin with all pages in them. */
void mem_dirty_initially_set(struct mem *m, bool on);

/* Copies between the log and the memory of the program: 0 or -EFAULT. @at: offset in the program's bitmap. */
struct dirty_copy {
	int (*out)(void *arg, u64 at, const void *bytes, size_t len);
	int (*in)(void *arg, void *bytes, size_t len);
	void *arg;
};

/*
 * KVM_GET_DIRTY_LOG and KVM_CLEAR_DIRTY_LOG, with the kernel's checks in its order. @keep: the bits stay (manual
 * protect). A failing copy loses nothing. 0 or -errno.
 */
int mem_dirty_get(struct mem *m, unsigned space, u32 id, bool keep, const struct dirty_copy *copy);
int mem_dirty_clear(struct mem *m, unsigned space, u32 id, u64 first, u64 npages,
		    const struct dirty_copy *copy);

/*
 * Dirty rings: the VM has them from the first vCPU on, or never. Bitmaps then hold only what no vCPU wrote, or what did
 * not fit: mem_ring_refill() moves it to the ring of a vCPU that is about to run.
 */
void mem_ring_enable(struct mem *m);
void mem_ring_attach(struct mem_writer *w, struct kvm_dirty_gfn *entries, u32 size);
void mem_ring_refill(struct mem_writer *w);
/* KVM_RESET_DIRTY_RINGS: entries of all vCPUs taken back. */
long mem_ring_reset(struct mem *m);

/* For slots_set.c. 0 or -ENOMEM. */
int dirty_log_create(struct slot *s, u64 npages);
void dirty_log_destroy(struct slot *s);
void dirty_log_start(struct slot *s);
void dirty_log_stop(struct slot *s);
/* A slot moves: @to goes on with the log of @from. */
void dirty_log_move(struct slot *to, struct slot *from);
/* Entries of vCPUs' logs into the bitmaps; of slots that are about to go too. */
void dirty_drain_all(struct mem *m);

struct dirty_stats {
	u64 harvests, empty; /* GET and CLEAR; and those that asked nobody */
	u64 pages;	     /* harvested */
	u64 records, pml_entries, pml_full, pml_exit, pml_harvest;
	u64 logged_slots;
	u64 ring_late; /* pages that no ring took at once */
};
void mem_dirty_stats(struct mem *m, struct dirty_stats *out);

/* Mappings of the second stage by level. */
void mem_level_stats(const struct mem *m, u64 pages[LEVELS]);

#endif

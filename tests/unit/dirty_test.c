/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Dirty logs without a VM: errno, transitions, both collectors, levels, and writers against a harvester. */
#include <errno.h>
#include <linux/kvm.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "mem/dirty.h"
#include "mem/levels.h"

#define LOG KVM_MEM_LOG_DIRTY_PAGES

static u8 *const HVA = (u8 *)0x10000000000; /* 1 GiB aligned, never touched */

struct program {
	u64 bits[1 << 14];
	bool bad;
	u64 copied;
};
static struct program prog;

static int out(void *arg, u64 at, const void *bytes, size_t len)
{
	struct program *p = arg;

	if (p->bad && at + len > sizeof(u64))
		return -EFAULT;
	memcpy((u8 *)p->bits + at, bytes, len);
	p->copied += len;
	return 0;
}

static int in(void *arg, void *bytes, size_t len)
{
	struct program *p = arg;

	memcpy(bytes, p->bits, p->bad ? len / 2 : len);
	return p->bad ? -EFAULT : 0;
}

static const struct dirty_copy copy = { out, in, &prog };

static unsigned asked, asked_all;
static struct mem_writer *first_writer;

static void drop_writes(void *owner, bool granted_only)
{
	(void)owner;
	asked += granted_only;
	asked_all += !granted_only;
	if (first_writer)
		first_writer->granted = false;
}

static const struct mem_ops ops = { .drop_writes = drop_writes };

static struct mem *make(enum dirty_collector c)
{
	struct mem *m = mem_create(&ops, NULL);

	asked = asked_all = 0;
	prog.bad = false;
	mem_dirty_collector(m, c);
	first_writer = mem_writer_create(m);
	return m;
}

static void end(struct mem *m)
{
	mem_writer_destroy(first_writer);
	first_writer = NULL;
	mem_destroy(m);
}

static void touch(struct mem *m, gfn_t gfn)
{
	page_grant_write(first_writer, mem_slot_find(m, 0, gfn, NULL), gfn);
}

static int get(struct mem *m, bool keep)
{
	memset(prog.bits, 0xa5, sizeof(prog.bits));
	prog.copied = 0;
	return mem_dirty_get(m, 0, 0, keep, &copy);
}

static int clear(struct mem *m, u64 first, u64 n)
{
	return mem_dirty_clear(m, 0, 0, first, n, &copy);
}

static void test_errno(enum dirty_collector c)
{
	struct mem *m = make(c);

	assert_int_equal(get(m, false), -ENOENT); /* no slot */
	assert_int_equal(mem_slot_set(m, 0, 0, 0, 0x100, 200, HVA), 0);
	assert_int_equal(get(m, false), -ENOENT); /* not logged */
	assert_int_equal(clear(m, 0, 64), -ENOENT);
	assert_int_equal(clear(m, 1, 64), -EINVAL); /* before it looks at the slot */
	assert_int_equal(mem_slot_set(m, 0, 0, LOG, 0x100, 200, HVA), 0);
	assert_int_equal(asked_all, 1);
	assert_int_equal(mem_slot_set(m, 0, 0, LOG, 0x100, 200, HVA), 0);
	assert_int_equal(asked_all, 1);
	assert_int_equal(get(m, false), 0);
	assert_int_equal(prog.copied, 32); /* whole words */
	assert_int_equal(clear(m, 63, 64), -EINVAL);
	assert_int_equal(clear(m, 64, 63), -EINVAL);
	assert_int_equal(clear(m, 256, 0), -EINVAL);
	assert_int_equal(clear(m, 128, 73), -EINVAL);
	assert_int_equal(clear(m, 0, ~0ull), -EINVAL);
	assert_int_equal(clear(m, ~0ull << 6, 128), -EINVAL);
	assert_int_equal(clear(m, 128, 72), 0); /* reaches the end */
	assert_int_equal(clear(m, 192, 8), 0);
	assert_int_equal(clear(m, 64, 0), 0);
	assert_int_equal(mem_slot_set(m, 0, 0, 0, 0x100, 200, HVA), 0);
	assert_int_equal(get(m, false), -ENOENT);
	end(m);
}

static void expect(const u64 *words, unsigned n)
{
	assert_memory_equal(prog.bits, words, n * sizeof(u64));
}

static void test_get(enum dirty_collector c)
{
	struct mem *m = make(c);

	assert_int_equal(mem_slot_set(m, 0, 0, LOG, 0x100, 200, HVA), 0);
	assert_int_equal(get(m, false), 0);
	expect((u64[]){ 0, 0, 0, 0 }, 4);
	assert_int_equal(asked, 0); /* nothing was there */
	touch(m, 0x100);
	touch(m, 0x100);
	touch(m, 0x1c7);
	assert_true(first_writer->granted);
	assert_int_equal(get(m, true), 0); /* stays */
	expect((u64[]){ 1, 0, 0, 0x80 }, 4);
	assert_int_equal(asked, 0);
	assert_int_equal(get(m, false), 0);
	expect((u64[]){ 1, 0, 0, 0x80 }, 4);
	assert_int_equal(asked, 1);
	assert_int_equal(get(m, false), 0);
	expect((u64[]){ 0, 0, 0, 0 }, 4);
	assert_int_equal(asked, 1);
	touch(m, 0x100); /* is recorded anew */
	page_note_read(mem_slot_find(m, 0, 0x101, NULL), 0x101);
	assert_int_equal(get(m, false), 0);
	expect((u64[]){ 1, 0, 0, 0 }, 4);
	end(m);
}

static void test_clear(enum dirty_collector c)
{
	struct mem *m = make(c);

	assert_int_equal(mem_slot_set(m, 0, 0, LOG, 0x100, 200, HVA), 0);
	for (gfn_t g = 0x100; g < 0x100 + 200; g++)
		touch(m, g);
	memset(prog.bits, 0, sizeof(prog.bits));
	assert_int_equal(clear(m, 64, 64), 0); /* nothing asked for */
	assert_int_equal(asked, 0);
	prog.bits[0] = 0xf0;
	assert_int_equal(clear(m, 64, 64), 0);
	assert_int_equal(asked, 1);
	assert_int_equal(clear(m, 64, 64), 0); /* clean already */
	assert_int_equal(asked, 1);
	prog.bits[0] = ~0ull;
	assert_int_equal(clear(m, 192, 8), 0); /* bits past the end are ignored */
	touch(m, 0x100 + 64 + 5);
	assert_int_equal(get(m, true), 0);
	expect((u64[]){ ~0ull, ~0xd0ull, ~0ull, 0 }, 4);
	end(m);
}

/* A call that fails loses nothing. */
static void test_fault(enum dirty_collector c)
{
	struct mem *m = make(c);

	assert_int_equal(mem_slot_set(m, 0, 0, LOG, 0x100, 200, HVA), 0);
	touch(m, 0x105);
	touch(m, 0x1a5);
	prog.bad = true;
	assert_int_equal(get(m, false), -EFAULT);
	touch(m, 0x106);
	memset(prog.bits, 0xff, sizeof(prog.bits));
	assert_int_equal(clear(m, 0, 200), -EFAULT);
	prog.bad = false;
	assert_int_equal(get(m, false), 0);
	expect((u64[]){ 0x60, 0, 1ull << 37, 0 }, 4);
	assert_int_equal(get(m, false), 0);
	expect((u64[]){ 0, 0, 0, 0 }, 4);
	end(m);
}

static void test_initially_set(enum dirty_collector c)
{
	struct mem *m = make(c);

	mem_dirty_initially_set(m, true);
	assert_int_equal(mem_slot_set(m, 0, 0, 0, 0x100, 200, HVA), 0);
	touch(m, 0x100);
	assert_int_equal(mem_slot_set(m, 0, 0, LOG, 0x100, 200, HVA), 0);
	assert_int_equal(get(m, true), 0);
	expect((u64[]){ ~0ull, ~0ull, ~0ull, 0xff }, 4);
	memset(prog.bits, 0xff, sizeof(prog.bits));
	assert_int_equal(clear(m, 0, 200), 0);
	assert_int_equal(get(m, true), 0);
	expect((u64[]){ 0, 0, 0, 0 }, 4);
	touch(m, 0x100); /* a mark from before the logging says nothing */
	assert_int_equal(get(m, true), 0);
	expect((u64[]){ 1, 0, 0, 0 }, 4);
	end(m);
}

/* create, move, off, on, delete; the log follows a move and ends with off. */
static void test_transitions(enum dirty_collector c)
{
	struct mem *m = make(c);
	struct dirty_stats s;

	assert_int_equal(mem_slot_set(m, 0, 0, LOG, 0x100, 128, HVA), 0);
	touch(m, 0x101);
	assert_int_equal(mem_slot_set(m, 0, 0, LOG, 0x140, 128, HVA), 0); /* moved, overlapping */
	touch(m, 0x142);
	assert_int_equal(get(m, false), 0);
	expect((u64[]){ 6, 0 }, 2);
	touch(m, 0x140);
	assert_int_equal(mem_slot_set(m, 0, 0, 0, 0x140, 128, HVA), 0);
	touch(m, 0x143);
	assert_int_equal(mem_slot_set(m, 0, 0, LOG, 0x140, 128, HVA), 0);
	assert_int_equal(get(m, false), 0);
	expect((u64[]){ 0, 0 }, 2); /* what was written before is forgotten */
	touch(m, 0x143);	    /* its mark from the time between must not count */
	assert_int_equal(get(m, false), 0);
	expect((u64[]){ 8, 0 }, 2);
	assert_int_equal(mem_slot_set(m, 0, 0, 0, 0x100, 128, HVA), 0); /* move and off */
	assert_int_equal(get(m, false), -ENOENT);
	assert_int_equal(mem_slot_set(m, 0, 0, LOG, 0x200, 128, HVA), 0); /* move and on */
	assert_int_equal(get(m, false), 0);
	expect((u64[]){ 0, 0 }, 2);
	mem_dirty_stats(m, &s);
	assert_int_equal(s.logged_slots, 1);
	assert_int_equal(first_writer->pml_on, c == DIRTY_PML);
	assert_int_equal(mem_slot_set(m, 0, 0, 0, 0, 0, NULL), 0);
	mem_dirty_stats(m, &s);
	assert_int_equal(s.logged_slots, 0);
	assert_false(first_writer->pml_on);
	assert_int_equal(mem_slot_set(m, 0, 0, LOG | KVM_MEM_READONLY, 0x200, 128, HVA), 0);
	touch(m, 0x200);
	assert_int_equal(get(m, false), 0);
	expect((u64[]){ 0, 0 }, 2);
	end(m);
}

/* A vCPU made while logging is on begins with its log on; what the log does not hold is drained. */
static void test_pml(void **state)
{
	struct mem *m = make(DIRTY_PML);
	struct mem_writer *late;
	struct dirty_stats s;

	(void)state;
	assert_int_equal(mem_slot_set(m, 0, 0, LOG, 0, 4096, HVA), 0);
	late = mem_writer_create(m);
	assert_true(late->pml_on);
	for (gfn_t g = 0; g < 2 * PML_SIZE; g++)
		touch(m, g);
	mem_dirty_stats(m, &s);
	assert_int_equal(s.pml_entries, 2 * PML_SIZE);
	assert_int_equal(s.pml_full, 1);
	page_grant_write(late, mem_slot_find(m, 0, 2000, NULL), 2000);
	mem_writer_exit(late);
	mem_writer_exit(late);
	assert_int_equal(get(m, false), 0);
	for (unsigned i = 0; i < 64; i++)
		assert_int_equal(prog.bits[i], i < 16 ? ~0ull : i == 31 ? 1ull << 16 : 0);
	mem_dirty_stats(m, &s);
	assert_int_equal(s.pml_exit, 1);
	assert_int_equal(s.pml_harvest, PML_SIZE);
	assert_int_equal(s.pages, 2 * PML_SIZE + 1);
	mem_writer_destroy(late);
	end(m);
}

#define BLOCK 512ull
#define GIGA  (512 * BLOCK)

static void expect_levels(struct mem *m, u64 n4k, u64 n2m, u64 n1g)
{
	u64 n[LEVELS];

	mem_level_stats(m, n);
	assert_int_equal(n[LEVEL_4K], n4k);
	assert_int_equal(n[LEVEL_2M], n2m);
	assert_int_equal(n[LEVEL_1G], n1g);
}

static void log_set(struct mem *m, gfn_t gfn, u64 npages, u8 *hva, bool on)
{
	assert_int_equal(mem_slot_set(m, 0, 0, on ? LOG : 0, gfn, npages, hva), 0);
}

static void test_levels(void **state)
{
	struct mem *m = make(DIRTY_WP);

	(void)state;
	log_set(m, GIGA, 2 * GIGA + BLOCK + 7, HVA, false);
	touch(m, GIGA + 5);
	touch(m, GIGA + 3 * BLOCK);
	touch(m, 3 * GIGA + 1);		/* the rest is no GiB */
	touch(m, 3 * GIGA + BLOCK + 6); /* the last page of the slot */
	expect_levels(m, 1, 1, 1);
	log_set(m, GIGA, 2 * GIGA + BLOCK + 7, HVA, true);
	expect_levels(m, 1, 1, 1); /* lazily */
	touch(m, GIGA + 5);
	touch(m, GIGA + 6);
	expect_levels(m, 3, 2, 0);  /* the other block that was mapped is whole */
	touch(m, GIGA + 4 * BLOCK); /* not mapped yet: 4 KiB while logged */
	page_note_read(mem_slot_find(m, 0, GIGA + 3 * BLOCK, NULL), GIGA + 3 * BLOCK);
	touch(m, 3 * GIGA + BLOCK + 6);
	expect_levels(m, 4, 2, 0);
	log_set(m, GIGA, 2 * GIGA + BLOCK + 7, HVA, false);
	expect_levels(m, 1, 1, 1); /* all back, in place */
	touch(m, GIGA + 4 * BLOCK);
	expect_levels(m, 1, 1, 1);
	log_set(m, GIGA, 2 * GIGA + BLOCK + 7, HVA, true);
	touch(m, GIGA + 5);
	assert_int_equal(get(m, false), 0);
	assert_int_equal(prog.bits[0], 32);
	assert_int_equal(mem_slot_set(m, 0, 0, 0, 0, 0, NULL), 0);
	expect_levels(m, 0, 0, 0);
	end(m);
}

/* Host memory that lies otherwise than the guest's: no large pages, and nothing is lost by logging. */
static void test_unaligned(void **state)
{
	struct mem *m = make(DIRTY_WP);

	(void)state;
	log_set(m, 0, 2 * GIGA, HVA + PAGE_SIZE, false);
	for (gfn_t g = 0; g < 2000; g++)
		touch(m, g);
	expect_levels(m, 2000, 0, 0);
	log_set(m, 0, 2 * GIGA, HVA + PAGE_SIZE, true);
	touch(m, 3);
	expect_levels(m, 2000, 0, 0);
	assert_int_equal(get(m, false), 0);
	assert_int_equal(prog.bits[0], 8);
	log_set(m, 0, 2 * GIGA, HVA + PAGE_SIZE, false);
	expect_levels(m, 2000, 0, 0);
	end(m);
}

/*
 * Not logged, no descriptor counts as a record: a writer may have looked before logging begins, and set it after the
 * blocks were made stale.
 */
static void test_unlogged_is_stale(void **state)
{
	struct mem *m = make(DIRTY_WP);
	const struct slot *s;

	(void)state;
	for (unsigned round = 0; round < 3; round++) {
		log_set(m, 0, 200, HVA, false);
		touch(m, 3);
		s = mem_slot_find(m, 0, 3, NULL);
		assert_false(block_is_split(*slot_block(s, 3)));
		log_set(m, 0, 200, HVA, true);
		touch(m, 3);
		assert_true(block_is_split(*slot_block(s, 3)));
	}
	end(m);
}

/* --- Writers against a harvester, by the protocol of dirty.h: nobody is lost, whoever comes in between. */

#define WRITERS 3
#define PAGES	96
#define ROUNDS	3000 /* at most; on a busy machine a round costs a time slice */
#define SECONDS 2

struct racer {
	struct mem_writer *w;
	pthread_t thread;
	u32 epoch, acked;
	u32 tag[PAGES]; /* written without asking while set */
	unsigned seed;
};
static struct racer racers[WRITERS];
static struct mem *race_mem;
static u32 race_page[PAGES]; /* "memory": a counter per page */
static bool race_stop;

static void race_drop(void *owner, bool granted_only)
{
	u32 epoch[WRITERS];

	(void)owner;
	for (unsigned i = 0; i < WRITERS; i++) {
		epoch[i] = 0;
		if (!granted_only || __atomic_load_n(&racers[i].w->granted, __ATOMIC_SEQ_CST))
			epoch[i] = __atomic_add_fetch(&racers[i].epoch, 1, __ATOMIC_SEQ_CST);
	}
	for (unsigned i = 0; i < WRITERS; i++)
		while (epoch[i] && !__atomic_load_n(&race_stop, __ATOMIC_RELAXED) &&
		       (s32)(__atomic_load_n(&racers[i].acked, __ATOMIC_ACQUIRE) - epoch[i]) < 0)
			sched_yield();
}

static const struct mem_ops race_ops = { .drop_writes = race_drop };

static void *racer_run(void *arg)
{
	struct racer *r = arg;

	while (!__atomic_load_n(&race_stop, __ATOMIC_RELAXED)) {
		u32 epoch = __atomic_load_n(&r->epoch, __ATOMIC_SEQ_CST);

		if (epoch != r->acked) {
			r->w->granted = false;
			memset(r->tag, 0, sizeof(r->tag));
			__atomic_store_n(&r->acked, epoch, __ATOMIC_RELEASE);
		}
		for (unsigned n = 0; n < 8; n++) {
			unsigned i = rand_r(&r->seed) % PAGES;

			r->w->nopen = 0;
			if (!r->tag[i])
				r->tag[i] = page_grant_write(
					r->w, mem_slot_find(race_mem, 0, i, NULL), i);
			__atomic_fetch_add(&race_page[i], 1, __ATOMIC_RELAXED);
		}
	}
	return NULL;
}

/* In each round, what is not reported must not have changed since it was reported last. */
static void race(enum dirty_collector c, bool manual)
{
	u32 seen[PAGES] = { 0 };
	unsigned lost = 0;
	struct dirty_stats s;
	time_t end;

	race_mem = mem_create(&race_ops, NULL);
	mem_dirty_collector(race_mem, c);
	race_stop = false;
	memset(race_page, 0, sizeof(race_page));
	assert_int_equal(mem_slot_set(race_mem, 0, 0, LOG, 0, PAGES, HVA), 0);
	for (unsigned i = 0; i < WRITERS; i++) {
		racers[i] = (struct racer){ .w = mem_writer_create(race_mem), .seed = i + 1 };
		assert_int_equal(pthread_create(&racers[i].thread, NULL, racer_run, &racers[i]), 0);
	}
	end = time(NULL) + SECONDS;
	for (unsigned round = 0; round < ROUNDS && time(NULL) < end;) {
		u32 before[PAGES];

		for (unsigned i = 0; i < PAGES; i++)
			before[i] = __atomic_load_n(&race_page[i], __ATOMIC_SEQ_CST);
		assert_int_equal(mem_dirty_get(race_mem, 0, 0, manual, &copy), 0);
		round += prog.bits[0] || prog.bits[1];
		if (manual)
			assert_int_equal(mem_dirty_clear(race_mem, 0, 0, 0, PAGES, &copy), 0);
		for (unsigned i = 0; i < PAGES; i++) {
			if (prog.bits[i / 64] >> i % 64 & 1)
				seen[i] = __atomic_load_n(&race_page[i], __ATOMIC_SEQ_CST);
			else
				lost += before[i] > seen[i];
		}
	}
	race_stop = true;
	for (unsigned i = 0; i < WRITERS; i++)
		pthread_join(racers[i].thread, NULL);
	assert_int_equal(mem_dirty_get(race_mem, 0, 0, false, &copy), 0);
	for (unsigned i = 0; i < PAGES; i++)
		lost += !(prog.bits[i / 64] >> i % 64 & 1) && seen[i] != race_page[i];
	mem_dirty_stats(race_mem, &s);
	for (unsigned i = 0; i < WRITERS; i++)
		mem_writer_destroy(racers[i].w);
	mem_destroy(race_mem);
	assert_int_equal(lost, 0);
	assert_true(s.pages > PAGES);
}

#define BOTH(name)                                                                                 \
	static void name##_wp(void **state)                                                        \
	{                                                                                          \
		(void)state;                                                                       \
		name(DIRTY_WP);                                                                    \
	}                                                                                          \
	static void name##_pml(void **state)                                                       \
	{                                                                                          \
		(void)state;                                                                       \
		name(DIRTY_PML);                                                                   \
	}
static void test_race(enum dirty_collector c)
{
	race(c, false);
	race(c, true);
}
BOTH(test_errno)
BOTH(test_get)
BOTH(test_clear)
BOTH(test_fault)
BOTH(test_initially_set)
BOTH(test_transitions)
BOTH(test_race)
#define CASE(name) cmocka_unit_test(name##_wp), cmocka_unit_test(name##_pml)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(test_errno),
		CASE(test_get),
		CASE(test_clear),
		CASE(test_fault),
		CASE(test_initially_set),
		CASE(test_transitions),
		CASE(test_race),
		cmocka_unit_test(test_pml),
		cmocka_unit_test(test_levels),
		cmocka_unit_test(test_unaligned),
		cmocka_unit_test(test_unlogged_is_stale),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

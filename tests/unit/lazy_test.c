/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Memory of a snapshot that is read when it is used: devices and processors come to missing, wrong and written pages. */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "vmm/move/lazy.h"
#include "vmm/ram.h"

#define SIZE  (8ull << 20)
#define PAGES (SIZE >> PAGE_SHIFT)
#define CHUNK 16u		      /* pages that come together */
#define HOLE  (5 * CHUNK)	      /* the first page of a chunk that is not in the file */
#define BAD   (PAGES - 3 * CHUNK + 2) /* far behind what is read ahead at first */
#define DESCRIPTION                                                                                \
	"{\"format\":1,\"memory\":8388608,\"options\":\"\",\"cpuid\":[[[0,0,0,0,0,0,0]]]}"

struct lazily {
	char path[64];
	struct snapshot snapshot;
	struct ram ram;
	struct lazy lazy;
	atomic_uint damages;
	char text[400];
};

static void page_make(u8 *to, u64 page)
{
	u64 *w = (u64 *)(void *)to;

	for (unsigned i = 0; i < PAGE_SIZE / 8; i++)
		w[i] = page * 0x9e3779b97f4a7c15ull + i;
}

static bool is_right(const u8 *data, u64 page)
{
	u8 want[PAGE_SIZE] __attribute__((aligned(8))) = { 0 };

	if (page / CHUNK != HOLE / CHUNK)
		page_make(want, page);
	return memcmp(data, want, PAGE_SIZE) == 0;
}

static void file_make(const char *path)
{
	u8 page[PAGE_SIZE] __attribute__((aligned(8)));
	struct snapshot_writer w = { .fd = -1 };
	struct why why;

	assert_int_equal(snapshot_begin(&w, path, SIZE, NULL, NULL, &why), 0);
	for (u64 i = 0; i < PAGES; i++) {
		page_make(page, i);
		if (i / CHUNK != HOLE / CHUNK)
			assert_int_equal(snapshot_page(&w, i, page, &why), 0);
	}
	assert_int_equal(snapshot_end(&w, DESCRIPTION, "state", 5, &why), 0);
	snapshot_abort(&w);
}

static void byte_change(const char *path, u64 at)
{
	FILE *f = fopen(path, "r+b");
	int byte;

	assert_non_null(f);
	fseek(f, (long)at, SEEK_SET);
	byte = fgetc(f);
	fseek(f, (long)at, SEEK_SET);
	fputc(byte ^ 1, f);
	fclose(f);
}

static void damaged(void *owner, const char *text)
{
	struct lazily *t = owner;

	snprintf(t->text, sizeof(t->text), "%s", text);
	atomic_fetch_add(&t->damages, 1);
}

/* @bad: a page that is wrong in the file; 0: none. */
static void begin(struct lazily *t, u64 bad)
{
	struct why why;
	int r;

	memset(t, 0, sizeof(*t));
	snprintf(t->path, sizeof(t->path), "/tmp/anykvm-lazy-%d", (int)getpid());
	file_make(t->path);
	if (bad)
		byte_change(t->path, SNAPSHOT_RAM_AT + bad * PAGE_SIZE + 8);
	assert_int_equal(snapshot_open(&t->snapshot, t->path, &why), 0);
	assert_int_equal(ram_create(&t->ram, SIZE, &why), 0);
	r = lazy_begin(&t->lazy, &t->snapshot, &t->ram, false, damaged, t, &why);
	if (r != -ENOSYS)
		assert_int_equal(r, 0);
	unlink(t->path);
}

static void end(struct lazily *t)
{
	lazy_end(&t->lazy);
	ram_destroy(&t->ram);
	snapshot_close(&t->snapshot);
}

static bool is_refused(struct lazily *t)
{
	if (t->lazy.snapshot)
		return false;
	end(t); /* the host allows no userfaultfd */
	return true;
}

/* Pages in an order of its own; a device asks for each, a processor touches it. */
struct user {
	struct lazily *all;
	u64 step;
	bool is_processor;
	u64 wrong;
	pthread_t thread;
};

static void *user_run(void *arg)
{
	struct user *u = arg;

	for (u64 i = 0; i < PAGES; i++) {
		const u64 page = i * u->step % PAGES;
		const u8 *data = u->is_processor
					 ? u->all->ram.host + (page << PAGE_SHIFT)
					 : ram_at(&u->all->ram, page << PAGE_SHIFT, PAGE_SIZE);

		u->wrong += !data || !is_right(data, page);
	}
	return NULL;
}

static void test_users(void **st)
{
	struct user users[] = { { .step = 1 },
				{ .step = 37 },
				{ .step = 641, .is_processor = true },
				{ .step = 1021, .is_processor = true } };
	struct lazily t;

	(void)st;
	begin(&t, 0);
	if (is_refused(&t))
		skip();
	lazy_runs(&t.lazy);
	for (unsigned i = 0; i < ARRAY_SIZE(users); i++) {
		users[i].all = &t;
		assert_int_equal(pthread_create(&users[i].thread, NULL, user_run, &users[i]), 0);
	}
	for (unsigned i = 0; i < ARRAY_SIZE(users); i++) {
		pthread_join(users[i].thread, NULL);
		assert_int_equal(users[i].wrong, 0);
	}
	assert_int_equal(t.damages, 0);
	end(&t);
}

/* A device writes a part of a page that is not there yet: the rest of it is the file's. */
static void test_write(void **st)
{
	u8 want[PAGE_SIZE] __attribute__((aligned(8)));
	const u64 page = PAGES - CHUNK + 1;
	struct lazily t;

	(void)st;
	begin(&t, 0);
	if (is_refused(&t))
		skip();
	assert_int_equal(ram_write(&t.ram, (page << PAGE_SHIFT) + 100, "device", 6), 0);
	page_make(want, page);
	memcpy(want + 100, "device", 6);
	assert_memory_equal(t.ram.host + (page << PAGE_SHIFT), want, PAGE_SIZE);
	assert_int_equal(ram_marks_take(&t.ram, page / 64 * 64), BIT_ULL(page % 64));
	end(&t);
}

/* A device of a machine that runs comes to a wrong page: it gets no address, nothing is stored, and the machine is told once. */
static void test_device_damage(void **st)
{
	struct lazily t;

	(void)st;
	begin(&t, BAD);
	if (is_refused(&t))
		skip();
	lazy_runs(&t.lazy);
	assert_int_equal(ram_write(&t.ram, BAD << PAGE_SHIFT, "device", 6), -EFAULT);
	assert_null(ram_at(&t.ram, (BAD + 1) << PAGE_SHIFT, 8)); /* it comes with that one */
	assert_null(ram_at(&t.ram, 0, 8)); /* the machine ends: nobody waits any more */
	assert_int_equal(t.damages, 1);
	assert_non_null(strstr(t.text, "page of memory is damaged"));
	assert_int_equal(ram_marks_take(&t.ram, BAD / 64 * 64), 0);
	end(&t);
}

static sigjmp_buf out;

static void on_fault(int sig)
{
	(void)sig;
	siglongjmp(out, 1);
}

/* And a processor gets a fault of its host's, not a byte. */
static void test_processor_damage(void **st)
{
	struct sigaction sa = { .sa_handler = on_fault }, before;
	volatile bool has_read = false;
	struct lazily t;

	(void)st;
	begin(&t, BAD);
	if (is_refused(&t))
		skip();
	lazy_runs(&t.lazy);
	sigaction(SIGSEGV, &sa, &before);
	if (!sigsetjmp(out, 1)) {
		(void)*(volatile u8 *)(t.ram.host + (BAD << PAGE_SHIFT));
		has_read = true;
	}
	sigaction(SIGSEGV, &before, NULL);
	assert_false(has_read);
	assert_int_equal(t.damages, 1);
	assert_null(ram_at(&t.ram, BAD << PAGE_SHIFT, 8));
	end(&t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_users),
		cmocka_unit_test(test_write),
		cmocka_unit_test(test_device_damage),
		cmocka_unit_test(test_processor_damage),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

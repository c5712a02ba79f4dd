/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* qcow2: random requests on images of qemu-img against a model, checked by qemu-img; damaged images; a process that is killed. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "vmm/disk/disk.h"

#define SIZE	(6u << 20)
#define REQUEST (256u << 10)
#define OPS	100
#define DAMAGES 200

static char folder[64];
static u8 *model, *old, *buffer;
static u64 state = 88172645463325252ull;

static u64 any(u64 n)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state % n;
}

__attribute__((format(printf, 1, 2))) static int run(const char *format, ...)
{
	char command[1024];
	va_list args;
	int status;

	va_start(args, format);
	vsnprintf(command, sizeof(command), format, args);
	va_end(args);
	status = system(command);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static bool has_tool(void)
{
	return run("qemu-img --version >/dev/null 2>&1") == 0;
}

static void file_write(const char *name, const void *data, size_t n)
{
	char path[128];
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s", folder, name);
	f = fopen(path, "wb");
	assert_non_null(f);
	assert_int_equal(fwrite(data, 1, n, f), n);
	assert_int_equal(fclose(f), 0);
}

static size_t file_read(const char *name, void *data, size_t room)
{
	char path[128];
	size_t n;
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s", folder, name);
	f = fopen(path, "rb");
	assert_non_null(f);
	n = fread(data, 1, room, f);
	fclose(f);
	return n;
}

static struct disk *image_open_as(bool read_only, bool is_away, struct why *why)
{
	char path[128];
	struct disk *d = NULL;

	snprintf(path, sizeof(path), "%s/image", folder);
	why->text[0] = 0;
	return disk_open(&d, path, DISK_QCOW2, read_only, is_away, why) == 0 ? d : NULL;
}

static struct disk *image_open(bool read_only, struct why *why)
{
	return image_open_as(read_only, false, why);
}

static void fill(u8 *to, size_t n)
{
	const u64 seed = any(~0ull);

	/* Half of it compresses. */
	for (size_t i = 0; i < n; i++)
		to[i] = (u8)(i % 64 < 32 ? seed >> (i % 56) : seed * (i | 1) >> 24);
}

/* A raw image with holes, and of it the image that is to be tested. */
static void image_make(const char *options, const char *compress)
{
	memset(model, 0, SIZE);
	for (unsigned i = 0; i < 24; i++) {
		const u64 at = any(SIZE / 512) * 512, n = 512 * (1 + any(400));

		fill(model + at, (size_t)(n < SIZE - at ? n : SIZE - at));
	}
	file_write("raw", model, SIZE);
	assert_int_equal(run("rm -f %s/image && qemu-img convert -q -f raw -O qcow2 %s -o %s "
			     "%s/raw %s/image",
			     folder, compress, options, folder, folder),
			 0);
}

static u64 range(u64 *n)
{
	const u64 at = any(SIZE / 512) * 512;

	*n = 512 * (1 + (any(3) ? any(24) : any(REQUEST / 512)));
	if (*n > SIZE - at)
		*n = SIZE - at;
	return at;
}

/* The pieces that a guest's request is made of. */
static unsigned pieces(struct iovec *iov, size_t n)
{
	unsigned count = 0;

	for (size_t at = 0; at < n; count++) {
		size_t part = count == 15 ? n - at : 1 + any(n - at);

		iov[count] = (struct iovec){ buffer + at, part };
		at += part;
	}
	return count;
}

static void request(struct disk *d)
{
	struct iovec iov[17];
	const u64 kind = any(12);
	u64 n, at = range(&n);

	if (kind < 4) {
		assert_int_equal(d->ops->read(d, iov, pieces(iov, n), at), 0);
		assert_memory_equal(buffer, model + at, n);
	} else if (kind < 9) {
		fill(buffer, n);
		memcpy(model + at, buffer, n);
		assert_int_equal(d->ops->write(d, iov, pieces(iov, n), at), 0);
	} else if (kind == 9) {
		memset(model + at, 0, n);
		assert_int_equal(d->ops->zero(d, at, n, any(2)), 0);
	} else if (kind == 10) {
		const struct iovec all = { buffer, n };

		assert_int_equal(d->ops->discard(d, at, n), 0);
		assert_int_equal(d->ops->read(d, &all, 1, at), 0);
		for (u64 i = 0; i < n; i++)
			assert_true(buffer[i] == 0 || buffer[i] == model[at + i]);
		memcpy(model + at, buffer, n);
	} else {
		assert_int_equal(d->ops->flush(d), 0);
	}
}

static void expect_image(const char *options)
{
	if (run("qemu-img check -q %s/image", folder) != 0)
		fail_msg("%s: qemu-img check finds something", options);
	file_write("raw", model, SIZE);
	if (run("qemu-img compare -q -f raw -F qcow2 %s/raw %s/image", folder, folder) != 0)
		fail_msg("%s: qemu-img reads something else", options);
}

/* Name of the variety, whether it is compressed, and whether it gets a snapshot first. */
static const struct variety {
	const char *options, *compress;
	bool has_snapshot;
} varieties[] = {
	{ "compat=1.1", "", false },
	{ "compat=1.1", "-c", true },
	{ "compat=1.1,compression_type=zstd", "-c", false },
	{ "compat=0.10", "-c", false },
	{ "compat=0.10", "", true },
	{ "cluster_size=512", "", true },
	{ "cluster_size=512,refcount_bits=64", "-c", true },
	{ "cluster_size=1024,refcount_bits=1", "", false },
	{ "cluster_size=4096,refcount_bits=2", "", true },
	{ "cluster_size=4096,refcount_bits=4", "-c", false },
	{ "cluster_size=4096,refcount_bits=8,lazy_refcounts=on", "", true },
	{ "cluster_size=64k,refcount_bits=32", "-c", true },
	{ "cluster_size=2M", "", false },
	{ "cluster_size=2M", "-c", true },
	{ "preallocation=metadata", "", false },
};

static void test_varieties(void **st)
{
	struct why why;

	(void)st;
	if (!has_tool())
		skip();
	for (size_t i = 0; i < ARRAY_SIZE(varieties); i++) {
		const struct variety *v = &varieties[i];
		struct disk *d;

		image_make(v->options, v->compress);
		memcpy(old, model, SIZE);
		if (v->has_snapshot)
			assert_int_equal(run("qemu-img snapshot -c one %s/image", folder), 0);
		for (unsigned round = 0; round < (i % 4 ? 1 : 2); round++) {
			d = image_open(false, &why);
			if (!d)
				fail_msg("%s: %s", v->options, why.text);
			assert_int_equal(d->size, SIZE);
			for (unsigned k = 0; k < OPS; k++)
				request(d);
			disk_close(d);
			expect_image(v->options);
		}
		if (!v->has_snapshot)
			continue;
		file_write("raw", old, SIZE);
		assert_int_equal(run("rm -f %s/one; qemu-img convert -q -l snapshot.name=one -O "
				     "raw %s/image "
				     "%s/one && cmp -s %s/raw %s/one",
				     folder, folder, folder, folder, folder),
				 0);
	}
}

/* A machine moves to and fro over one image: each side writes only while it has it, and finds what the other has written. */
static void test_handover(void **st)
{
	struct disk *side[2];
	struct why why;

	(void)st;
	if (!has_tool())
		skip();
	for (size_t i = 0; i < ARRAY_SIZE(varieties); i += 3) {
		image_make(varieties[i].options, varieties[i].compress);
		side[0] = image_open(false, &why);
		assert_non_null(side[0]);
		assert_null(image_open(false, &why)); /* it is in use */
		side[1] = image_open_as(false, true, &why);
		assert_non_null(side[1]);
		for (unsigned turn = 0; turn < 8; turn++) {
			struct disk *here = side[turn % 2], *there = side[!(turn % 2)];

			for (unsigned k = 0; k < 20; k++)
				request(here);
			assert_int_equal(disk_settle(here, &why), 0);
			if (turn == 1)
				expect_image(varieties[i].options);
			assert_int_equal(disk_check(there, &why), 0);
			assert_int_equal(disk_take(there, &why), -EBUSY);
			for (unsigned k = 0; k < 5; k++) /* it did not move after all */
				request(here);
			assert_int_equal(disk_settle(here, &why), 0);
			disk_release(here);
			assert_int_equal(disk_take(there, &why), 0);
			assert_int_equal(disk_take(there, &why), 0);
			assert_int_equal(disk_take(here, &why), -EBUSY);
		}
		disk_close(side[1]); /* which does not have it */
		for (unsigned k = 0; k < 20; k++)
			request(side[0]);
		disk_close(side[0]);
		expect_image(varieties[i].options);
	}
}

/* An image that became another one meanwhile is not taken, and is not written. */
static void test_handover_refused(void **st)
{
	struct disk *d;
	struct why why;

	(void)st;
	if (!has_tool())
		skip();
	image_make("compat=1.1", "");
	d = image_open_as(false, true, &why);
	assert_non_null(d);
	assert_int_equal(run("qemu-img resize -q %s/image 32M", folder), 0);
	assert_int_equal(disk_check(d, &why), -EINVAL);
	assert_int_equal(disk_take(d, &why), -EINVAL);
	assert_true(d->is_away);
	disk_close(d);
	assert_int_equal(run("qemu-img check -q %s/image", folder), 0);
}

/* What is freed is used again: the file does not grow with every write. */
static void test_reuse(void **st)
{
	const struct iovec iov = { buffer, REQUEST };
	struct why why;
	struct stat before, after;
	struct disk *d;

	(void)st;
	if (!has_tool())
		skip();
	assert_int_equal(
		run("rm -f %s/image; qemu-img create -q -f qcow2 -o cluster_size=4k %s/image 6M",
		    folder, folder),
		0);
	d = image_open(false, &why);
	assert_non_null(d);
	memset(model, 0, SIZE);
	for (unsigned round = 0; round < 40; round++) {
		fill(buffer, REQUEST);
		assert_int_equal(d->ops->write(d, &iov, 1, 0), 0);
		assert_int_equal(d->ops->flush(d), 0);
		if (round == 0)
			fstat(d->fd, &before);
		if (round < 39) {
			assert_int_equal(d->ops->discard(d, 0, REQUEST), 0);
			assert_int_equal(d->ops->flush(d), 0);
		}
	}
	fstat(d->fd, &after);
	assert_true(after.st_size <= before.st_size + (s64)REQUEST);
	memcpy(model, buffer, REQUEST);
	disk_close(d);
	expect_image("reuse");
}

/* Killed while it writes: nothing that was written is lost, and nothing is worse than lost clusters. */
static void writer(int tell)
{
	const struct iovec iov = { buffer, 3 * 512 };
	struct why why;
	struct disk *d = image_open(false, &why);

	for (u32 i = 0; d; i++) {
		memset(buffer, (int)(i | 1), iov.iov_len);
		if (d->ops->write(d, &iov, 1, SIZE / 2 + (i * 37 % 2000) * 1536ull) != 0 ||
		    (i % 16 == 0 && d->ops->discard(d, any(SIZE / 2 - 20000), 20000) != 0) ||
		    (i % 8 == 0 && d->ops->flush(d) != 0) || write(tell, &i, 4) != 4)
			break;
	}
	_exit(1);
}

static void test_killed(void **st)
{
	struct why why;
	struct disk *d;
	int status;

	(void)st;
	if (!has_tool())
		skip();
	for (unsigned round = 0; round < 4; round++) {
		int ends[2];
		u32 last = 0, i;
		pid_t child;

		image_make(round % 2 ? "cluster_size=1k" : "cluster_size=64k",
			   round % 3 ? "-c" : "");
		assert_int_equal(run("qemu-img snapshot -c one %s/image", folder), 0);
		assert_int_equal(pipe(ends), 0);
		child = fork();
		if (child == 0)
			writer(ends[1]);
		close(ends[1]);
		for (unsigned k = 0; k < 30 + any(200) && read(ends[0], &i, 4) == 4; k++)
			last = i;
		kill(child, SIGKILL);
		waitpid(child, &status, 0);
		assert_true(WIFSIGNALED(status));
		while (read(ends[0], &i, 4) == 4)
			last = i;
		close(ends[0]);
		status = run("qemu-img check -q %s/image >/dev/null 2>&1", folder);
		if (status != 0 && status != 3) /* 3: lost clusters only */
			fail_msg("round %u: qemu-img check ends with %d", round, status);
		d = image_open(false, &why);
		assert_non_null(d);
		for (i = last; i + 1 > last - 8 && i % 16; i--) {
			const struct iovec iov = { buffer, 1536 };

			assert_int_equal(
				d->ops->read(d, &iov, 1, SIZE / 2 + (i * 37 % 2000) * 1536ull), 0);
			assert_int_equal(buffer[0], (u8)(i | 1));
			assert_int_equal(buffer[1535], (u8)(i | 1));
		}
		disk_close(d);
		assert_int_equal(run("qemu-img check -q -r leaks %s/image >/dev/null 2>&1", folder),
				 0);
	}
}

/* One field of the header, and a word of the line that refuses it. */
static const struct bad {
	unsigned at, size;
	u64 value;
	const char *word;
} bads[] = {
	{ 4, 4, 1, "version" },
	{ 4, 4, 4, "version" },
	{ 8, 8, 0x200, "backing" },
	{ 20, 4, 8, "clusters" },
	{ 20, 4, 22, "clusters" },
	{ 20, 4, 0xffffffff, "clusters" },
	{ 24, 8, 0, "size of the disk" },
	{ 24, 8, SIZE + 1, "size of the disk" },
	{ 24, 8, ~511ull, "size of the disk" },
	{ 24, 8, 1ull << 61, "L1 table" },
	{ 32, 4, 1, "encrypted" },
	{ 36, 4, 0, "L1 table" },
	{ 36, 4, 0xffffffff, "L1 table" },
	{ 36, 4, 0x400000, "L1 table" },
	{ 40, 8, 0, "L1 table" },
	{ 40, 8, 0x30001, "L1 table" },
	{ 40, 8, ~0xffffull, "L1 table" },
	{ 48, 8, 0, "reference counts" },
	{ 48, 8, 0x10008, "reference counts" },
	{ 48, 8, 1ull << 50, "reference counts" },
	{ 56, 4, 0, "reference counts" },
	{ 56, 4, 0xffffffff, "reference counts" },
	{ 72, 8, 1, "closed well" },
	{ 72, 8, 2, "closed well" },
	{ 72, 8, 4, "feature" },
	{ 72, 8, 8, "compression" },
	{ 72, 8, 16, "feature" },
	{ 72, 8, 1ull << 63, "feature" },
	{ 96, 4, 7, "counts" },
	{ 96, 4, 0xffffffff, "counts" },
	{ 100, 4, 96, "length" },
	{ 100, 4, 0xfffffff8, "length" },
	{ 104, 1, 2, "compressed" },
};

static void test_bad_headers(void **st)
{
	static u8 image[4 << 20];
	struct why why;
	struct disk *d;
	size_t n;

	(void)st;
	if (!has_tool())
		skip();
	image_make("compat=1.1", "-c");
	n = file_read("image", image, sizeof(image));
	for (size_t i = 0; i < ARRAY_SIZE(bads); i++) {
		u8 saved[8];

		memcpy(saved, image + bads[i].at, 8);
		for (unsigned k = 0; k < bads[i].size; k++)
			image[bads[i].at + k] = (u8)(bads[i].value >> 8 * (bads[i].size - 1 - k));
		file_write("image", image, n);
		memcpy(image + bads[i].at, saved, 8);
		d = image_open(false, &why);
		if (d || !strstr(why.text, bads[i].word) || strchr(why.text, '\n'))
			fail_msg("field %u = 0x%llx: '%s'", bads[i].at,
				 (unsigned long long)bads[i].value, why.text);
	}
	for (size_t cut = 0; cut < 0x30000; cut = cut ? 3 * cut : 1) {
		file_write("image", image, cut);
		d = image_open(false, &why);
		assert_null(d);
		assert_true(why.text[0]);
	}
}

/* Damage anywhere: errors, and nothing else. */
static void test_damage(void **st)
{
	static u8 image[8 << 20], damaged[8 << 20];
	int quiet, stream; /* one line for each image would be many */
	struct why why;
	size_t n;

	(void)st;
	if (!has_tool())
		skip();
	image_make("cluster_size=512", "-c");
	n = file_read("image", image, sizeof(image));
	assert_true(n < sizeof(image));
	fflush(stderr);
	quiet = open("/dev/null", O_WRONLY | O_CLOEXEC);
	assert_true(quiet >= 0);
	stream = dup(STDERR_FILENO);
	dup2(quiet, STDERR_FILENO);
	for (unsigned i = 0; i < DAMAGES; i++) {
		struct disk *d;

		memcpy(damaged, image, n);
		for (u64 k = 1 + any(40); k; k--)
			damaged[any(i % 4 ? 0x2000 : n)] = (u8)any(256);
		memcpy(damaged, image, i % 8 ? 104 : 0);
		file_write("image", damaged, any(4) ? n : any(n));
		d = image_open(false, &why);
		for (unsigned k = 0; d && k < 40; k++) {
			const u64 sectors = any(64) + 1, at = any(d->size / 512) * 512;
			const struct iovec iov = { buffer, 512 * sectors };

			if (at + iov.iov_len > d->size)
				continue;
			if (any(2))
				d->ops->read(d, &iov, 1, at);
			else if (any(4))
				d->ops->write(d, &iov, 1, at);
			else
				d->ops->zero(d, at, iov.iov_len, any(2));
			if (!any(8))
				d->ops->flush(d);
		}
		disk_close(d);
	}
	dup2(stream, STDERR_FILENO);
	close(stream);
	close(quiet);
}

static int setup(void **st)
{
	(void)st;
	/* In memory where that is: these tests flush often. */
	snprintf(folder, sizeof(folder), "%s/anykvm-qcow2-XXXXXX",
		 access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
	model = malloc(SIZE);
	old = malloc(SIZE);
	buffer = malloc(REQUEST + 512);
	return mkdtemp(folder) && model && old && buffer ? 0 : -1;
}

static int teardown(void **st)
{
	(void)st;
	free(model);
	free(old);
	free(buffer);
	return run("rm -rf %s", folder);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_varieties),	 cmocka_unit_test(test_handover),
		cmocka_unit_test(test_handover_refused), cmocka_unit_test(test_reuse),
		cmocka_unit_test(test_killed),		 cmocka_unit_test(test_bad_headers),
		cmocka_unit_test(test_damage),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}

/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Shared folders: what a hostile guest sends does not lead out of the folder, change a read-only one, or break the server. */
#define _GNU_SOURCE /* nftw */
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "vmm/fs/share.h"

#define ROUNDS 20000

static char top[] = "/tmp/anykvm-share-XXXXXX", inside[64];
static struct share share;
static u8 out[16384], in[16384];
static struct fuse_out_header *const reply = (void *)in;

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *ftw)
{
	(void)st;
	(void)kind;
	(void)ftw;
	return remove(path);
}

static void file_write(const char *folder, const char *name, const char *text)
{
	char path[128];
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s", folder, name);
	f = fopen(path, "w");
	assert_non_null(f);
	fputs(text, f);
	fclose(f);
}

/* top/secret beside top/in, which is shared and has a file, a folder, a pipe and links that lead out. */
static int setup(void **state)
{
	char path[128];
	struct why why;

	(void)state;
	memcpy(top + sizeof(top) - 7, "XXXXXX", 6);
	assert_non_null(mkdtemp(top));
	snprintf(inside, sizeof(inside), "%s/in", top);
	assert_int_equal(mkdir(inside, 0755), 0);
	file_write(top, "secret", "secret");
	file_write(inside, "file", "hello");
	snprintf(path, sizeof(path), "%s/folder", inside);
	assert_int_equal(mkdir(path, 0755), 0);
	snprintf(path, sizeof(path), "%s/link", inside);
	assert_int_equal(symlink("../secret", path), 0);
	snprintf(path, sizeof(path), "%s/up", inside);
	assert_int_equal(symlink("..", path), 0);
	snprintf(path, sizeof(path), "%s/pipe", inside);
	assert_int_equal(mkfifo(path, 0600), 0);
	assert_int_equal(share_open(&share, inside, false, &why), 0);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	share_close(&share);
	nftw(top, remove_one, 8, FTW_DEPTH | FTW_PHYS);
	return 0;
}

/* One request of @n bytes of arguments; the error, or 0. */
static int request(u32 opcode, u64 node, const void *args, size_t n)
{
	struct fuse_in_header head = {
		.len = (u32)(sizeof(head) + n), .opcode = opcode, .unique = 7, .nodeid = node
	};
	const struct iovec from = { out, sizeof(head) + n }, to = { in, sizeof(in) };

	memcpy(out, &head, sizeof(head));
	memcpy(out + sizeof(head), args, n);
	memset(in, 0, sizeof(in));
	assert_true(share_serve(&share, &from, 1, &to, 1) >= (s64)sizeof(*reply));
	assert_int_equal(reply->unique, 7);
	return reply->error;
}

static int lookup(u64 parent, const char *name)
{
	return request(FUSE_LOOKUP, parent, name, strlen(name) + 1);
}

static u64 found(void)
{
	return ((const struct fuse_entry_out *)(reply + 1))->nodeid;
}

static void test_escape(void **state)
{
	static const char *const names[] = {
		"..", ".", "", "../secret", "folder/../../secret", "/etc/passwd", "/", "up/secret"
	};
	const struct fuse_open_in open_in = { .flags = O_RDONLY };
	u64 node;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		if (lookup(FUSE_ROOT_ID, names[i]) != -EINVAL)
			fail_msg("taken: '%s'", names[i]);
	/* A link is a link, and never what it points to. */
	assert_int_equal(lookup(FUSE_ROOT_ID, "link"), 0);
	node = found();
	assert_int_equal(request(FUSE_OPEN, node, &open_in, sizeof(open_in)), -ENXIO);
	assert_int_equal(request(FUSE_READLINK, node, "", 0), 0);
	assert_memory_equal(reply + 1, "../secret", 9);
	assert_int_equal(lookup(FUSE_ROOT_ID, "up"), 0);
	node = found();
	assert_int_equal(lookup(node, "secret"), -ENOTDIR);
	assert_int_equal(request(FUSE_OPENDIR, node, &open_in, sizeof(open_in)), -ENOTDIR);
	/* A pipe is not opened: that would block. */
	assert_int_equal(lookup(FUSE_ROOT_ID, "pipe"), 0);
	assert_int_equal(request(FUSE_OPEN, found(), &open_in, sizeof(open_in)), -ENXIO);
}

static int create(const char *name)
{
	struct {
		struct fuse_create_in in;
		char name[64];
	} args = { .in = { .flags = O_RDWR, .mode = 0600 } };

	snprintf(args.name, sizeof(args.name), "%s", name);
	return request(FUSE_CREATE, FUSE_ROOT_ID, &args, sizeof(args.in) + strlen(name) + 1);
}

static void test_create(void **state)
{
	struct {
		struct fuse_rename2_in in;
		char names[32];
	} rename = { .in = { .newdir = FUSE_ROOT_ID }, .names = "file\0../stolen" };
	struct {
		struct fuse_mknod_in in;
		char name[8];
	} node = { .in = { .mode = S_IFCHR | 0666, .rdev = 0x103 }, .name = "null" };

	(void)state;
	assert_int_equal(create("../new"), -EINVAL);
	assert_int_equal(create("link"), -ELOOP);
	assert_int_equal(create("new"), 0);
	assert_int_equal(request(FUSE_RENAME2, FUSE_ROOT_ID, &rename, sizeof(rename)), -EINVAL);
	assert_int_equal(request(FUSE_MKNOD, FUSE_ROOT_ID, &node, sizeof(node)), -EPERM);
	assert_int_equal(request(FUSE_SYMLINK, FUSE_ROOT_ID, "a/b\0x", 6), -EINVAL);
	assert_int_equal(request(FUSE_UNLINK, FUSE_ROOT_ID, "../secret", 10), -EINVAL);
	assert_int_equal(request(FUSE_SETXATTR, FUSE_ROOT_ID, "", 0), -ENOSYS);
}

static void test_read_only(void **state)
{
	const struct fuse_open_in open_in = { .flags = O_WRONLY }, trunc = { .flags = O_TRUNC };
	const struct fuse_setattr_in set = { .valid = FATTR_SIZE };

	(void)state;
	share.is_read_only = true;
	assert_int_equal(lookup(FUSE_ROOT_ID, "file"), 0);
	const u64 node = found();

	assert_int_equal(request(FUSE_OPEN, node, &open_in, sizeof(open_in)), -EROFS);
	assert_int_equal(request(FUSE_OPEN, node, &trunc, sizeof(trunc)), -EROFS);
	assert_int_equal(request(FUSE_SETATTR, node, &set, sizeof(set)), -EROFS);
	assert_int_equal(request(FUSE_UNLINK, FUSE_ROOT_ID, "file", 5), -EROFS);
	assert_int_equal(request(FUSE_MKDIR, FUSE_ROOT_ID, "12345678x", 10), -EROFS);
	assert_int_equal(create("new"), -EROFS);
	share.is_read_only = false;
}

/* Numbers that were never given, or are forgotten; arguments that end too early; strings that do not end. */
static void test_broken(void **state)
{
	const struct fuse_forget_in all = { .nlookup = ~0ull };
	const struct fuse_read_in read_in = { .fh = 99, .size = 100 };
	struct iovec from = { out, 10 }, to = { in, sizeof(in) };

	(void)state;
	assert_int_equal(share_serve(&share, &from, 1, &to, 1), -EPROTO);
	assert_int_equal(request(FUSE_GETATTR, 0, "", 0), -ESTALE);
	assert_int_equal(request(FUSE_GETATTR, ~0ull, "", 0), -ESTALE);
	assert_int_equal(request(FUSE_READ, FUSE_ROOT_ID, &read_in, sizeof(read_in)), -EBADF);
	assert_int_equal(request(FUSE_LOOKUP, FUSE_ROOT_ID, "file", 4), -EINVAL);
	assert_int_equal(lookup(FUSE_ROOT_ID, "file"), 0);
	const u64 node = found();

	share_forget(&share, node, all.nlookup);
	assert_int_equal(request(FUSE_GETATTR, node, "", 0), -ESTALE);
	share_forget(&share, FUSE_ROOT_ID, all.nlookup);
	assert_int_equal(request(FUSE_GETATTR, FUSE_ROOT_ID, "", 0), 0);
	for (u32 op = 0; op < 64; op++)
		if (op != FUSE_FORGET && op != FUSE_BATCH_FORGET)
			request(op, FUSE_ROOT_ID, "", 0);
	assert_int_equal(request(4096, FUSE_ROOT_ID, "", 0), -ENOSYS);
}

/* Any bytes at all: an answer with the number of the request, and the secret stays as it is. */
static void test_random(void **state)
{
	const char *seed = getenv("ANYKVM_SEED");
	u8 args[256];
	char path[64];

	(void)state;
	srand(seed ? (unsigned)atoi(seed) : 1);
	for (unsigned round = 0; round < ROUNDS; round++) {
		const u32 op = 1 + (u32)rand() % 46;

		if (op == FUSE_FORGET || op == FUSE_BATCH_FORGET)
			continue;
		for (size_t i = 0; i < sizeof(args); i++)
			args[i] = rand() % 3   ? 0
				  : rand() % 4 ? (u8)("./afilenk"[rand() % 9])
					       : (u8)rand();
		request(op, (u64)(rand() % 8), args, (size_t)(rand() % (int)sizeof(args)));
	}
	snprintf(path, sizeof(path), "%s/secret", top);
	struct stat st;

	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_size, 6);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_escape, setup, teardown),
		cmocka_unit_test_setup_teardown(test_create, setup, teardown),
		cmocka_unit_test_setup_teardown(test_read_only, setup, teardown),
		cmocka_unit_test_setup_teardown(test_broken, setup, teardown),
		cmocka_unit_test_setup_teardown(test_random, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

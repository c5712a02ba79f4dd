/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The files and open files that a guest knows. */
#define _GNU_SOURCE /* O_PATH */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "vmm/fs/share.h"

#define NONE	       (~0u)
#define INODES_FIRST   1024u
#define HANDLES_MAX    (1u << 20)
#define NAME_BYTES_MAX 255
#define VALID_SECONDS  1

static u32 bucket_of(const struct share *s, dev_t dev, ino_t ino)
{
	const u64 h = ((u64)ino + (u64)dev * 0x9e3779b97f4a7c15ull) * 0xff51afd7ed558ccdull;

	return (u32)(h >> 32) & (s->bucket_count - 1);
}

/* All inodes anew into @count buckets. */
static bool rehash(struct share *s, u32 count)
{
	u32 *buckets = realloc(s->buckets, count * sizeof(*buckets));

	if (!buckets)
		return false;
	s->buckets = buckets;
	s->bucket_count = count;
	memset(buckets, 0xff, count * sizeof(*buckets));
	for (u32 i = 0; i < s->inode_count; i++) {
		struct inode *n = &s->inodes[i];

		if (n->fd < 0)
			continue;
		n->next = buckets[bucket_of(s, n->dev, n->ino)];
		buckets[bucket_of(s, n->dev, n->ino)] = i;
	}
	return true;
}

static bool inodes_grow(struct share *s)
{
	const u32 count = s->inode_count ? s->inode_count * 2 : INODES_FIRST;
	struct inode *grown = realloc(s->inodes, count * sizeof(*grown));

	if (!grown)
		return false;
	s->inodes = grown;
	for (u32 i = s->inode_count; i < count; i++)
		grown[i] = (struct inode){ .fd = -1, .next = i + 1 < count ? i + 1 : NONE };
	s->inode_free = s->inode_count;
	s->inode_count = count;
	return rehash(s, count);
}

static u32 inode_find(const struct share *s, dev_t dev, ino_t ino)
{
	u32 i = s->buckets[bucket_of(s, dev, ino)];

	while (i != NONE && (s->inodes[i].dev != dev || s->inodes[i].ino != ino))
		i = s->inodes[i].next;
	return i;
}

/* Takes over @fd, and closes it where the file is known already. */
static s64 inode_ref(struct share *s, int fd, const struct stat *st)
{
	u32 i = s->bucket_count ? inode_find(s, st->st_dev, st->st_ino) : NONE;
	u32 *bucket;

	if (i != NONE) {
		close(fd);
		s->inodes[i].refs++;
		return i;
	}
	if (s->inode_free == NONE && !inodes_grow(s)) {
		close(fd);
		return -ENOMEM;
	}
	i = s->inode_free;
	s->inode_free = s->inodes[i].next;
	bucket = &s->buckets[bucket_of(s, st->st_dev, st->st_ino)];
	s->inodes[i] =
		(struct inode){ fd, *bucket, 1, st->st_dev, st->st_ino, st->st_mode & S_IFMT };
	*bucket = i;
	return i;
}

static void inode_drop(struct share *s, u32 i)
{
	struct inode *n = &s->inodes[i];
	u32 *at = &s->buckets[bucket_of(s, n->dev, n->ino)];

	while (*at != i)
		at = &s->inodes[*at].next;
	*at = n->next;
	close(n->fd);
	n->fd = -1;
	n->next = s->inode_free;
	s->inode_free = i;
}

struct inode *share_inode(struct share *s, u64 number)
{
	if (!number || number > s->inode_count || s->inodes[number - 1].fd < 0)
		return NULL;
	return &s->inodes[number - 1];
}

void share_forget(struct share *s, u64 number, u64 count)
{
	struct inode *n = share_inode(s, number);

	if (!n || number == FUSE_ROOT_ID)
		return;
	n->refs -= count < n->refs ? count : n->refs;
	if (!n->refs)
		inode_drop(s, (u32)(number - 1));
}

int share_name_check(const char *name)
{
	const size_t n = strlen(name);

	if (n > NAME_BYTES_MAX)
		return -ENAMETOOLONG;
	if (!n || strchr(name, '/') || strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
		return -EINVAL;
	return 0;
}

void share_attr(const struct stat *st, struct fuse_attr *attr)
{
	*attr = (struct fuse_attr){
		.ino = st->st_ino,
		.size = (u64)st->st_size,
		.blocks = (u64)st->st_blocks,
		.atime = (u64)st->st_atim.tv_sec,
		.mtime = (u64)st->st_mtim.tv_sec,
		.ctime = (u64)st->st_ctim.tv_sec,
		.atimensec = (u32)st->st_atim.tv_nsec,
		.mtimensec = (u32)st->st_mtim.tv_nsec,
		.ctimensec = (u32)st->st_ctim.tv_nsec,
		.mode = st->st_mode,
		.nlink = (u32)st->st_nlink,
		.uid = st->st_uid,
		.gid = st->st_gid,
		.rdev = (u32)st->st_rdev,
		.blksize = (u32)st->st_blksize,
	};
}

int share_lookup(struct share *s, u64 parent, const char *name, struct fuse_entry_out *entry)
{
	const struct inode *folder = share_inode(s, parent);
	struct stat st;
	s64 i;
	int fd, r = share_name_check(name);

	if (!folder || r < 0)
		return r < 0 ? r : -ESTALE;
	fd = openat(folder->fd, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return errno == EMFILE ? -ENFILE : -errno;
	if (fstat(fd, &st) < 0) {
		r = -errno;
		close(fd);
		return r;
	}
	i = inode_ref(s, fd, &st);
	if (i < 0)
		return (int)i;
	memset(entry, 0, sizeof(*entry));
	entry->nodeid = (u64)i + 1;
	entry->entry_valid = entry->attr_valid = VALID_SECONDS;
	share_attr(&st, &entry->attr);
	return 0;
}

s64 share_handle_new(struct share *s, int fd, DIR *dir)
{
	u32 i = 0;

	while (i < s->handle_count && (s->handles[i].fd >= 0 || s->handles[i].dir))
		i++;
	if (i == s->handle_count) {
		const u32 count = i ? i * 2 : 64;
		struct handle *grown =
			count > HANDLES_MAX ? NULL : realloc(s->handles, count * sizeof(*grown));

		if (!grown) {
			if (dir)
				closedir(dir);
			else
				close(fd);
			return -ENFILE;
		}
		for (u32 k = i; k < count; k++)
			grown[k] = (struct handle){ -1, NULL };
		s->handles = grown;
		s->handle_count = count;
	}
	s->handles[i] = (struct handle){ dir ? -1 : fd, dir };
	return i;
}

struct handle *share_handle(struct share *s, u64 number)
{
	struct handle *h = number < s->handle_count ? &s->handles[number] : NULL;

	return h && (h->fd >= 0 || h->dir) ? h : NULL;
}

void share_handle_drop(struct share *s, u64 number)
{
	struct handle *h = share_handle(s, number);

	if (!h)
		return;
	if (h->dir)
		closedir(h->dir);
	else
		close(h->fd);
	*h = (struct handle){ -1, NULL };
}

const char *share_proc_path(const struct inode *inode, char path[32])
{
	snprintf(path, 32, "/proc/self/fd/%d", inode->fd);
	return path;
}

/* Each file that the guest knows costs a descriptor. */
static void limit_raise(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur == limit.rlim_max)
		return;
	limit.rlim_cur = limit.rlim_max;
	setrlimit(RLIMIT_NOFILE, &limit);
}

int share_open(struct share *s, const char *path, bool read_only, struct why *why)
{
	const int fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	struct stat st;

	memset(s, 0, sizeof(*s));
	if (fd < 0)
		return why_set(why, errno, "cannot share the folder '%s': %s; give a folder", path,
			       strerror(errno));
	s->is_read_only = read_only;
	s->inode_free = NONE;
	s->args = malloc(SHARE_ARGS_MAX + 1);
	s->reply = malloc(SHARE_REPLY_MAX);
	if (fstat(fd, &st) < 0 || !s->args || !s->reply || inode_ref(s, fd, &st) != 0) {
		share_close(s);
		return why_set(why, ENOMEM, "no memory to share the folder '%s'", path);
	}
	limit_raise();
	return 0;
}

/* Inodes but the first, and all open files. */
void share_reset(struct share *s)
{
	for (u32 i = 1; i < s->inode_count; i++)
		if (s->inodes[i].fd >= 0)
			inode_drop(s, i);
	for (u32 i = 0; i < s->handle_count; i++)
		share_handle_drop(s, i);
}

void share_close(struct share *s)
{
	share_reset(s);
	if (s->inode_count && s->inodes[0].fd >= 0)
		inode_drop(s, 0);
	free(s->inodes);
	free(s->buckets);
	free(s->handles);
	free(s->args);
	free(s->reply);
	memset(s, 0, sizeof(*s));
}

/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* FUSE requests about open files and folders. */
#define _GNU_SOURCE /* O_PATH, fallocate */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "vmm/fs/share.h"
#include "vmm/virtio/iov.h"

/* Flags of the guest that mean something to the host's file; O_APPEND is the guest's own affair, as it gives offsets. */
#define FLAGS_KEPT (O_ACCMODE | O_TRUNC | O_EXCL | O_SYNC | O_DSYNC)

static s64 open_reply(struct fuse_request *r, struct fuse_open_out *out, int fd, DIR *dir)
{
	const s64 handle = share_handle_new(r->share, fd, dir);

	if (handle < 0)
		return handle;
	/* The guest compares times when it looks at a file, so what it has cached may stay. */
	*out = (struct fuse_open_out){ .fh = (u64)handle, .open_flags = FOPEN_KEEP_CACHE };
	return sizeof(*out);
}

static bool writes(u32 flags)
{
	return (flags & O_ACCMODE) != O_RDONLY || flags & O_TRUNC;
}

s64 fuse_open(struct fuse_request *r)
{
	const struct fuse_open_in *in = fuse_args(r, sizeof(*in));
	const struct inode *n = share_inode(r->share, r->head.nodeid);
	char path[32];
	int fd;

	if (!in || !n)
		return in ? -ESTALE : -EINVAL;
	/* Pipes, sockets and device nodes are the guest's own: opening them here would reach the host's. */
	if (n->type != S_IFREG)
		return n->type == S_IFDIR ? -EISDIR : -ENXIO;
	if (r->share->is_read_only && writes(in->flags))
		return -EROFS;
	fd = open(share_proc_path(n, path), (int)(in->flags & FLAGS_KEPT & ~O_EXCL) | O_CLOEXEC);
	return fd < 0 ? -errno : open_reply(r, (void *)r->reply, fd, NULL);
}

s64 fuse_create(struct fuse_request *r)
{
	const struct fuse_create_in *in = fuse_args(r, sizeof(*in));
	const struct inode *folder = share_inode(r->share, r->head.nodeid);
	struct fuse_entry_out *entry = (void *)r->reply;
	size_t at = sizeof(*in);
	const char *name = in ? fuse_string(r, &at) : NULL;
	int fd, error = name ? share_name_check(name) : -EINVAL;
	s64 n;

	if (error < 0 || !folder)
		return error < 0 ? error : -ESTALE;
	fd = openat(folder->fd, name,
		    (int)(in->flags & FLAGS_KEPT) | O_CREAT | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK,
		    in->mode & ~in->umask & 07777);
	if (fd < 0)
		return -errno;
	fuse_own(r, folder->fd, name);
	error = share_lookup(r->share, r->head.nodeid, name, entry);
	if (error == 0 && share_inode(r->share, entry->nodeid)->type != S_IFREG) {
		share_forget(r->share, entry->nodeid, 1);
		error = -ENXIO;
	}
	if (error < 0) {
		close(fd);
		return error;
	}
	n = open_reply(r, (void *)(entry + 1), fd, NULL);
	return n < 0 ? n : n + (s64)sizeof(*entry);
}

s64 fuse_read(struct fuse_request *r)
{
	const struct fuse_read_in *in = fuse_args(r, sizeof(*in));
	const struct handle *h = in ? share_handle(r->share, in->fh) : NULL;
	struct iovec iov[SHARE_IOV_MAX];
	unsigned count;
	ssize_t n;

	if (!h || h->dir)
		return in ? -EBADF : -EINVAL;
	count = iov_cut(r->data, r->data_count, 0, in->size, iov);
	if (!count)
		return 0;
	n = preadv(h->fd, iov, (int)count, (off_t)in->offset);
	return n < 0 ? -errno : n;
}

s64 fuse_write(struct fuse_request *r)
{
	const struct fuse_write_in *in = fuse_args(r, sizeof(*in));
	const struct handle *h = in ? share_handle(r->share, in->fh) : NULL;
	struct fuse_write_out *out = (void *)r->reply;
	ssize_t n = 0;

	if (!h || h->dir)
		return in ? -EBADF : -EINVAL;
	if (in->size != r->data_bytes)
		return -EINVAL;
	if (in->size)
		n = pwritev(h->fd, r->data, (int)r->data_count, (off_t)in->offset);
	if (n < 0)
		return -errno;
	*out = (struct fuse_write_out){ .size = (u32)n };
	return sizeof(*out);
}

s64 fuse_release(struct fuse_request *r)
{
	const struct fuse_release_in *in = fuse_args(r, sizeof(*in));

	if (!in)
		return -EINVAL;
	share_handle_drop(r->share, in->fh);
	return 0;
}

/* What close() of the host would say: a full disk of a network file system. */
s64 fuse_flush(struct fuse_request *r)
{
	const struct fuse_flush_in *in = fuse_args(r, sizeof(*in));
	const struct handle *h = in ? share_handle(r->share, in->fh) : NULL;
	int copy;

	if (!h || h->dir)
		return in ? -EBADF : -EINVAL;
	copy = fcntl(h->fd, F_DUPFD_CLOEXEC, 0);
	return copy < 0 || close(copy) < 0 ? -errno : 0;
}

s64 fuse_fsync(struct fuse_request *r)
{
	const struct fuse_fsync_in *in = fuse_args(r, sizeof(*in));
	const struct handle *h = in ? share_handle(r->share, in->fh) : NULL;
	int fd, error;

	if (!h)
		return in ? -EBADF : -EINVAL;
	fd = h->dir ? dirfd(h->dir) : h->fd;
	error = in->fsync_flags & FUSE_FSYNC_FDATASYNC ? fdatasync(fd) : fsync(fd);
	return error < 0 ? -errno : 0;
}

s64 fuse_fallocate(struct fuse_request *r)
{
	const struct fuse_fallocate_in *in = fuse_args(r, sizeof(*in));
	const struct handle *h = in ? share_handle(r->share, in->fh) : NULL;

	if (!h || h->dir)
		return in ? -EBADF : -EINVAL;
	return fallocate(h->fd, (int)in->mode, (off_t)in->offset, (off_t)in->length) < 0 ? -errno
											 : 0;
}

s64 fuse_lseek(struct fuse_request *r)
{
	const struct fuse_lseek_in *in = fuse_args(r, sizeof(*in));
	const struct handle *h = in ? share_handle(r->share, in->fh) : NULL;
	struct fuse_lseek_out *out = (void *)r->reply;
	off_t at;

	if (!h || h->dir)
		return in ? -EBADF : -EINVAL;
	if (in->whence != SEEK_DATA && in->whence != SEEK_HOLE)
		return -EINVAL;
	at = lseek(h->fd, (off_t)in->offset, (int)in->whence);
	if (at < 0)
		return -errno;
	out->offset = (u64)at;
	return sizeof(*out);
}

s64 fuse_opendir(struct fuse_request *r)
{
	const struct inode *n = share_inode(r->share, r->head.nodeid);
	DIR *dir;
	int fd;

	if (!n)
		return -ESTALE;
	fd = openat(n->fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	dir = fdopendir(fd);
	if (!dir) {
		close(fd);
		return -ENOMEM;
	}
	return open_reply(r, (void *)r->reply, -1, dir);
}

static void dirent_put(struct fuse_dirent *d, const struct dirent *e, size_t name)
{
	d->ino = e->d_ino;
	d->off = (u64)e->d_off;
	d->namelen = (u32)name;
	d->type = e->d_type;
	memcpy(d->name, e->d_name, name);
}

/* An entry that cannot be looked up, or is "." or "..", goes without a number: no reference. */
static void entry_put(struct fuse_request *r, struct fuse_entry_out *entry, const struct dirent *e)
{
	if (share_lookup(r->share, r->head.nodeid, e->d_name, entry) == 0)
		return;
	memset(entry, 0, sizeof(*entry));
	entry->attr.ino = e->d_ino;
	entry->attr.mode = (u32)e->d_type << 12;
}

static s64 listing(struct fuse_request *r, bool is_plus)
{
	const struct fuse_read_in *in = fuse_args(r, sizeof(*in));
	const struct handle *h = in ? share_handle(r->share, in->fh) : NULL;
	const size_t head = is_plus ? sizeof(struct fuse_entry_out) : 0;
	size_t room = r->reply_room, used = 0;
	const struct dirent *e;

	if (!h || !h->dir)
		return in ? -EBADF : -EINVAL;
	if (in->size < room)
		room = in->size;
	seekdir(h->dir, (long)in->offset);
	while ((errno = 0, e = readdir(h->dir))) {
		const size_t name = strlen(e->d_name);
		const size_t n = head + FUSE_DIRENT_ALIGN(FUSE_NAME_OFFSET + name);

		if (n > room - used)
			return (s64)used;
		memset(r->reply + used, 0, n);
		if (is_plus)
			entry_put(r, (void *)(r->reply + used), e);
		dirent_put((void *)(r->reply + used + head), e, name);
		used += n;
	}
	return errno && !used ? -errno : (s64)used;
}

s64 fuse_readdir(struct fuse_request *r)
{
	return listing(r, false);
}

s64 fuse_readdirplus(struct fuse_request *r)
{
	return listing(r, true);
}

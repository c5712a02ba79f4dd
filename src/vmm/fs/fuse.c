/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* FUSE requests: taking them apart, the table of them, and those about names and attributes. */
#define _GNU_SOURCE /* AT_EMPTY_PATH, renameat2 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "vmm/fs/share.h"
#include "vmm/virtio/iov.h"

#define MINOR_VERSION 31
#define OFFERED                                                                                    \
	(FUSE_ASYNC_READ | FUSE_ATOMIC_O_TRUNC | FUSE_BIG_WRITES | FUSE_DONT_MASK |                \
	 FUSE_AUTO_INVAL_DATA | FUSE_DO_READDIRPLUS | FUSE_READDIRPLUS_AUTO |                      \
	 FUSE_PARALLEL_DIROPS | FUSE_MAX_PAGES)

const void *fuse_args(const struct fuse_request *r, size_t n)
{
	return r->args_size >= n ? r->args : NULL;
}

const char *fuse_string(const struct fuse_request *r, size_t *offset)
{
	const char *text = (const char *)r->args + *offset;
	const char *end;

	if (*offset >= r->args_size)
		return NULL;
	end = memchr(text, 0, r->args_size - *offset);
	if (!end)
		return NULL;
	*offset += (size_t)(end - text) + 1;
	return text;
}

void fuse_own(const struct fuse_request *r, int folder, const char *name)
{
	if (geteuid() == 0 && (r->head.uid || r->head.gid) &&
	    fchownat(folder, name, r->head.uid, r->head.gid, AT_SYMLINK_NOFOLLOW) < 0)
		return; /* a file system without owners */
}

static s64 fuse_init(struct fuse_request *r)
{
	const struct fuse_init_in *in = fuse_args(r, FUSE_COMPAT_22_INIT_OUT_SIZE - 8);
	struct fuse_init_out *out = (void *)r->reply;

	if (!in || in->major != FUSE_KERNEL_VERSION)
		return -EPROTO;
	share_reset(r->share);
	*out = (struct fuse_init_out){
		.major = FUSE_KERNEL_VERSION,
		.minor = MINOR_VERSION,
		.max_readahead = in->max_readahead,
		.flags = in->flags & OFFERED,
		.max_background = 64,
		.congestion_threshold = 48,
		.max_write = SHARE_PAGES_MAX * (u32)PAGE_SIZE,
		.time_gran = 1,
		.max_pages = SHARE_PAGES_MAX,
	};
	return sizeof(*out);
}

static s64 fuse_lookup(struct fuse_request *r)
{
	size_t at = 0;
	const char *name = fuse_string(r, &at);
	int error = name ? share_lookup(r->share, r->head.nodeid, name, (void *)r->reply) : -EINVAL;

	return error < 0 ? error : (s64)sizeof(struct fuse_entry_out);
}

static s64 fuse_forget(struct fuse_request *r)
{
	const struct fuse_forget_in *in = fuse_args(r, sizeof(*in));

	if (in)
		share_forget(r->share, r->head.nodeid, in->nlookup);
	return 0;
}

static s64 fuse_batch_forget(struct fuse_request *r)
{
	const struct fuse_batch_forget_in *in = fuse_args(r, sizeof(*in));
	const struct fuse_forget_one *one = (const void *)(in + 1);

	for (u32 i = 0; in && i < in->count; i++)
		if (r->args_size >= sizeof(*in) + (i + 1ull) * sizeof(*one))
			share_forget(r->share, one[i].nodeid, one[i].nlookup);
	return 0;
}

static s64 attr_reply(struct fuse_request *r, const struct inode *n)
{
	struct fuse_attr_out *out = (void *)r->reply;
	struct stat st;

	if (fstatat(n->fd, "", &st, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW) < 0)
		return -errno;
	*out = (struct fuse_attr_out){ .attr_valid = 1 };
	share_attr(&st, &out->attr);
	return sizeof(*out);
}

static s64 fuse_getattr(struct fuse_request *r)
{
	const struct inode *n = share_inode(r->share, r->head.nodeid);

	return n ? attr_reply(r, n) : -ESTALE;
}

static struct timespec time_of(u32 valid, u32 set, u32 now, u64 seconds, u32 ns)
{
	if (valid & now)
		return (struct timespec){ 0, UTIME_NOW };
	if (valid & set)
		return (struct timespec){ (time_t)seconds, ns };
	return (struct timespec){ 0, UTIME_OMIT };
}

static int size_set(struct fuse_request *r, const struct inode *n, const struct fuse_setattr_in *in)
{
	const struct handle *h = in->valid & FATTR_FH ? share_handle(r->share, in->fh) : NULL;
	char path[32];
	int error;

	if (n->type != S_IFREG)
		return -EINVAL;
	error = h && h->fd >= 0 ? ftruncate(h->fd, (off_t)in->size)
				: truncate(share_proc_path(n, path), (off_t)in->size);
	return error < 0 ? -errno : 0;
}

static s64 fuse_setattr(struct fuse_request *r)
{
	const struct fuse_setattr_in *in = fuse_args(r, sizeof(*in));
	const struct inode *n = share_inode(r->share, r->head.nodeid);
	struct timespec times[2];
	char path[32];
	int error = 0;

	if (!in || !n)
		return in ? -ESTALE : -EINVAL;
	if (in->valid & FATTR_MODE && chmod(share_proc_path(n, path), in->mode & 07777) < 0)
		return -errno;
	if (in->valid & (FATTR_UID | FATTR_GID) &&
	    fchownat(n->fd, "", in->valid & FATTR_UID ? in->uid : (uid_t)-1,
		     in->valid & FATTR_GID ? in->gid : (gid_t)-1,
		     AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW) < 0)
		return -errno;
	if (in->valid & FATTR_SIZE)
		error = size_set(r, n, in);
	if (error < 0)
		return error;
	times[0] = time_of(in->valid, FATTR_ATIME, FATTR_ATIME_NOW, in->atime, in->atimensec);
	times[1] = time_of(in->valid, FATTR_MTIME, FATTR_MTIME_NOW, in->mtime, in->mtimensec);
	if (in->valid & (FATTR_ATIME | FATTR_MTIME) && n->type != S_IFLNK &&
	    utimensat(AT_FDCWD, share_proc_path(n, path), times, 0) < 0)
		return -errno;
	return attr_reply(r, n);
}

static s64 fuse_readlink(struct fuse_request *r)
{
	const struct inode *n = share_inode(r->share, r->head.nodeid);
	ssize_t got = n ? readlinkat(n->fd, "", (char *)r->reply, PAGE_SIZE) : -1;

	if (!n)
		return -ESTALE;
	return got < 0 ? -errno : got;
}

/* What makes a name has checked it; the answer is its entry. */
static s64 made(struct fuse_request *r, const struct inode *folder, const char *name, int result)
{
	int error = result < 0 ? -errno : 0;

	if (error == 0) {
		fuse_own(r, folder->fd, name);
		error = share_lookup(r->share, r->head.nodeid, name, (void *)r->reply);
	}
	return error < 0 ? error : (s64)sizeof(struct fuse_entry_out);
}

/* The folder of a request and the one name in it that the arguments hold after @skip bytes. */
static int folder_and_name(struct fuse_request *r, size_t skip, const struct inode **folder,
			   const char **name)
{
	size_t at = skip;

	*folder = share_inode(r->share, r->head.nodeid);
	*name = r->args_size >= skip ? fuse_string(r, &at) : NULL;
	if (!*folder)
		return -ESTALE;
	return *name ? share_name_check(*name) : -EINVAL;
}

static s64 fuse_mkdir(struct fuse_request *r)
{
	const struct fuse_mkdir_in *in = (const void *)r->args;
	const struct inode *folder;
	const char *name;
	int error = folder_and_name(r, sizeof(*in), &folder, &name);

	if (error < 0)
		return error;
	return made(r, folder, name, mkdirat(folder->fd, name, in->mode & ~in->umask & 07777));
}

/* Device nodes would be the host's. */
static s64 fuse_mknod(struct fuse_request *r)
{
	const struct fuse_mknod_in *in = (const void *)r->args;
	const struct inode *folder;
	const char *name;
	int error = folder_and_name(r, sizeof(*in), &folder, &name);

	if (error < 0)
		return error;
	if (!S_ISREG(in->mode) && !S_ISFIFO(in->mode) && !S_ISSOCK(in->mode))
		return -EPERM;
	return made(r, folder, name,
		    mknodat(folder->fd, name, in->mode & ~(in->umask & 07777u), 0));
}

static s64 fuse_symlink(struct fuse_request *r)
{
	const struct inode *folder;
	const char *name, *target;
	size_t at = 0;
	int error = folder_and_name(r, 0, &folder, &name);

	if (error < 0)
		return error;
	fuse_string(r, &at);
	target = fuse_string(r, &at);
	return target ? made(r, folder, name, symlinkat(target, folder->fd, name)) : -EINVAL;
}

static s64 fuse_link(struct fuse_request *r)
{
	const struct fuse_link_in *in = (const void *)r->args;
	const struct inode *folder, *old;
	const char *name;
	char path[32];
	int error = folder_and_name(r, sizeof(*in), &folder, &name);

	if (error < 0)
		return error;
	old = share_inode(r->share, in->oldnodeid);
	if (!old || old->type == S_IFLNK)
		return old ? -EPERM : -ESTALE;
	if (linkat(AT_FDCWD, share_proc_path(old, path), folder->fd, name, AT_SYMLINK_FOLLOW) < 0)
		return -errno;
	error = share_lookup(r->share, r->head.nodeid, name, (void *)r->reply);
	return error < 0 ? error : (s64)sizeof(struct fuse_entry_out);
}

static s64 remove_name(struct fuse_request *r, int flags)
{
	const struct inode *folder;
	const char *name;
	int error = folder_and_name(r, 0, &folder, &name);

	if (error < 0)
		return error;
	return unlinkat(folder->fd, name, flags) < 0 ? -errno : 0;
}

static s64 fuse_unlink(struct fuse_request *r)
{
	return remove_name(r, 0);
}

static s64 fuse_rmdir(struct fuse_request *r)
{
	return remove_name(r, AT_REMOVEDIR);
}

static s64 rename_names(struct fuse_request *r, size_t skip, u64 newdir, u32 flags)
{
	const struct inode *from, *to = share_inode(r->share, newdir);
	const char *name, *new;
	size_t at = skip;
	int error = folder_and_name(r, skip, &from, &name);

	if (error < 0)
		return error;
	fuse_string(r, &at);
	new = fuse_string(r, &at);
	if (!new || !to)
		return new ? -ESTALE : -EINVAL;
	error = share_name_check(new);
	if (error < 0)
		return error;
	return renameat2(from->fd, name, to->fd, new, flags) < 0 ? -errno : 0;
}

static s64 fuse_rename(struct fuse_request *r)
{
	const struct fuse_rename_in *in = fuse_args(r, sizeof(*in));

	return in ? rename_names(r, sizeof(*in), in->newdir, 0) : -EINVAL;
}

static s64 fuse_rename2(struct fuse_request *r)
{
	const struct fuse_rename2_in *in = fuse_args(r, sizeof(*in));

	if (!in || in->flags & ~(RENAME_NOREPLACE | RENAME_EXCHANGE))
		return -EINVAL;
	return rename_names(r, sizeof(*in), in->newdir, in->flags);
}

static s64 fuse_statfs(struct fuse_request *r)
{
	const struct inode *n = share_inode(r->share, r->head.nodeid);
	struct fuse_statfs_out *out = (void *)r->reply;
	struct statvfs st;

	if (!n || fstatvfs(n->fd, &st) < 0)
		return n ? -errno : -ESTALE;
	*out = (struct fuse_statfs_out){ .st = { .blocks = st.f_blocks,
						 .bfree = st.f_bfree,
						 .bavail = st.f_bavail,
						 .files = st.f_files,
						 .ffree = st.f_ffree,
						 .bsize = (u32)st.f_bsize,
						 .namelen = (u32)st.f_namemax,
						 .frsize = (u32)st.f_frsize } };
	return sizeof(*out);
}

static s64 fuse_destroy(struct fuse_request *r)
{
	share_reset(r->share);
	return 0;
}

/* What is not here is ENOSYS, and the guest does not ask again: locks and attributes beyond the usual are its own. */
static const struct fuse_row {
	fuse_handler handle;
	bool changes;	/* refused where the share is read-only */
	bool is_silent; /* no reply */
} rows[] = {
	[FUSE_LOOKUP] = { fuse_lookup, false, false },
	[FUSE_FORGET] = { fuse_forget, false, true },
	[FUSE_GETATTR] = { fuse_getattr, false, false },
	[FUSE_SETATTR] = { fuse_setattr, true, false },
	[FUSE_READLINK] = { fuse_readlink, false, false },
	[FUSE_SYMLINK] = { fuse_symlink, true, false },
	[FUSE_MKNOD] = { fuse_mknod, true, false },
	[FUSE_MKDIR] = { fuse_mkdir, true, false },
	[FUSE_UNLINK] = { fuse_unlink, true, false },
	[FUSE_RMDIR] = { fuse_rmdir, true, false },
	[FUSE_RENAME] = { fuse_rename, true, false },
	[FUSE_LINK] = { fuse_link, true, false },
	[FUSE_OPEN] = { fuse_open, false, false },
	[FUSE_READ] = { fuse_read, false, false },
	[FUSE_WRITE] = { fuse_write, true, false },
	[FUSE_STATFS] = { fuse_statfs, false, false },
	[FUSE_RELEASE] = { fuse_release, false, false },
	[FUSE_FSYNC] = { fuse_fsync, false, false },
	[FUSE_FLUSH] = { fuse_flush, false, false },
	[FUSE_INIT] = { fuse_init, false, false },
	[FUSE_OPENDIR] = { fuse_opendir, false, false },
	[FUSE_READDIR] = { fuse_readdir, false, false },
	[FUSE_RELEASEDIR] = { fuse_release, false, false },
	[FUSE_FSYNCDIR] = { fuse_fsync, false, false },
	[FUSE_CREATE] = { fuse_create, true, false },
	[FUSE_DESTROY] = { fuse_destroy, false, false },
	[FUSE_BATCH_FORGET] = { fuse_batch_forget, false, true },
	[FUSE_FALLOCATE] = { fuse_fallocate, true, false },
	[FUSE_READDIRPLUS] = { fuse_readdirplus, false, false },
	[FUSE_RENAME2] = { fuse_rename2, true, false },
	[FUSE_LSEEK] = { fuse_lseek, false, false },
};

static const struct fuse_row *row_of(u32 opcode)
{
	return opcode < ARRAY_SIZE(rows) && rows[opcode].handle ? &rows[opcode] : NULL;
}

/* A write's data stays where it is; everything else of a request is copied, so that it does not change any more. */
static int request_take(struct fuse_request *r, const struct iovec *out, unsigned count)
{
	const size_t total = iov_bytes(out, count), head = sizeof(r->head);

	if (total < head)
		return -EPROTO;
	iov_read(out, count, 0, &r->head, head);
	r->args_size = total - head;
	if (r->head.opcode == FUSE_WRITE && r->args_size > sizeof(struct fuse_write_in)) {
		r->args_size = sizeof(struct fuse_write_in);
		r->data_bytes = total - head - r->args_size;
		r->data_count = iov_cut(out, count, head + r->args_size, r->data_bytes, r->data);
	}
	if (r->args_size > SHARE_ARGS_MAX)
		return -EPROTO;
	iov_read(out, count, head, r->share->args, r->args_size);
	r->share->args[r->args_size] = 0;
	return 0;
}

static s64 request_run(struct fuse_request *r, const struct fuse_row *row)
{
	if (!row)
		return -ENOSYS;
	if (row->changes && r->share->is_read_only)
		return -EROFS;
	return row->handle(r);
}

s64 share_serve(struct share *s, const struct iovec *out, unsigned out_count,
		const struct iovec *in, unsigned in_count)
{
	struct fuse_request r = { .share = s, .args = s->args, .reply = s->reply };
	const size_t room = iov_bytes(in, in_count), head = sizeof(struct fuse_out_header);
	struct fuse_out_header answer;
	const struct fuse_row *row;
	s64 n;

	if (out_count > SHARE_IOV_MAX || in_count > SHARE_IOV_MAX ||
	    request_take(&r, out, out_count) < 0)
		return -EPROTO;
	row = row_of(r.head.opcode);
	if (row && row->is_silent) {
		row->handle(&r);
		return 0;
	}
	if (room < head)
		return -EPROTO;
	if (r.head.opcode == FUSE_READ) {
		r.data_count = iov_cut(in, in_count, head, room - head, r.data);
		r.data_bytes = room - head;
	}
	r.reply_room = room - head < SHARE_REPLY_MAX ? room - head : SHARE_REPLY_MAX;
	n = request_run(&r, row);
	if (n > 0 && (size_t)n > room - head)
		n = -EIO;
	answer = (struct fuse_out_header){ .len = (u32)(head + (n > 0 ? (u64)n : 0)),
					   .error = n < 0 ? (s32)n : 0,
					   .unique = r.head.unique };
	iov_write(in, in_count, 0, &answer, head);
	if (n > 0 && r.head.opcode != FUSE_READ)
		iov_write(in, in_count, head, r.reply, (size_t)n);
	return answer.len;
}

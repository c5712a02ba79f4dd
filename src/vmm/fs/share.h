/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* A folder of the host as a FUSE file system: the files that a guest knows, and the requests about them. */
/*
 * A file is known by an O_PATH descriptor, and the guest by a number for it. A name that comes from the guest is one component:
 * no slash, no "." and no "..", looked up beside a descriptor and without following a symbolic link, which the guest reads and
 * follows itself. So there is no path, and none that leads out of the folder.
 */
#ifndef VMM_FS_SHARE_H
#define VMM_FS_SHARE_H

#include <dirent.h>
#include <sys/stat.h>
#include <sys/uio.h>

#include <linux/fuse.h>

#include "base/types.h"
#include "vmm/why.h"

#define SHARE_ARGS_MAX	10240u	     /* of a request without the data of a write */
#define SHARE_REPLY_MAX (128u << 10) /* of a listing */
#define SHARE_PAGES_MAX 128u	     /* of one read or write */
#define SHARE_IOV_MAX	256u

struct inode {
	int fd;	  /* O_PATH; -1: the slot is free */
	u32 next; /* in its bucket, or in the list of free slots */
	u64 refs; /* lookups that the guest has not forgotten */
	dev_t dev;
	ino_t ino;
	mode_t type; /* S_IFMT of the mode */
};

struct handle {
	int fd;	  /* -1: free, or a directory */
	DIR *dir; /* NULL: no directory */
};

struct share {
	bool is_read_only;
	struct inode *inodes; /* number of the guest - 1; the first is the folder */
	u32 inode_count, inode_free;
	u32 *buckets; /* index + 1 of the first inode */
	u32 bucket_count;
	struct handle *handles;
	u32 handle_count;
	u8 *args, *reply;
};

/* One request, with the parts that a handler needs. */
struct fuse_request {
	struct share *share;
	struct fuse_in_header head;
	const u8 *args; /* after the header, a copy; NUL follows it */
	size_t args_size;
	u8 *reply; /* SHARE_REPLY_MAX bytes */
	size_t reply_room;
	/* A write's data, or where a read's go: guest memory. */
	struct iovec data[SHARE_IOV_MAX];
	unsigned data_count;
	size_t data_bytes;
};

/* 0, or -errno with one line. */
int share_open(struct share *s, const char *path, bool read_only, struct why *why);
void share_close(struct share *s);
void share_reset(struct share *s); /* the guest knows nothing any more */

/*
 * Serve one request: @out pieces are read, @in pieces written. Returns the bytes written, or -EPROTO for what no
 * driver sends. No reply is wanted for a forget.
 */
s64 share_serve(struct share *s, const struct iovec *out, unsigned out_count,
		const struct iovec *in, unsigned in_count);

/* For the handlers. The inode of a number, or NULL. */
struct inode *share_inode(struct share *s, u64 number);

/* Look @name up below @parent: 0 and a reference more in @entry, or -errno. */
int share_lookup(struct share *s, u64 parent, const char *name, struct fuse_entry_out *entry);
void share_forget(struct share *s, u64 number, u64 count);
void share_attr(const struct stat *st, struct fuse_attr *attr);

int share_name_check(const char *name); /* 0, -EINVAL or -ENAMETOOLONG */

s64 share_handle_new(struct share *s, int fd,
		     DIR *dir); /* the number, or -errno; takes over both */
struct handle *share_handle(struct share *s, u64 number);
void share_handle_drop(struct share *s, u64 number);

/* "/proc/self/fd/N" of an inode: opens or changes this very file. */
const char *share_proc_path(const struct inode *inode, char path[32]);

/* Handlers: bytes of the reply, or -errno. */
typedef s64 (*fuse_handler)(struct fuse_request *r);

s64 fuse_open(struct fuse_request *r);
s64 fuse_create(struct fuse_request *r);
s64 fuse_read(struct fuse_request *r);
s64 fuse_write(struct fuse_request *r);
s64 fuse_release(struct fuse_request *r);
s64 fuse_flush(struct fuse_request *r);
s64 fuse_fsync(struct fuse_request *r);
s64 fuse_fallocate(struct fuse_request *r);
s64 fuse_lseek(struct fuse_request *r);
s64 fuse_opendir(struct fuse_request *r);
s64 fuse_readdir(struct fuse_request *r);
s64 fuse_readdirplus(struct fuse_request *r);

/* The @n bytes of the request's structure; NULL: it is too short. */
const void *fuse_args(const struct fuse_request *r, size_t n);

/* The string after @offset bytes; moves @offset behind it. NULL: it does not end. */
const char *fuse_string(const struct fuse_request *r, size_t *offset);

/* A new file belongs to who asked for it, where the host lets us. */
void fuse_own(const struct fuse_request *r, int folder, const char *name);

#endif

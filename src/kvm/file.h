/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Descriptors of ours: memfds known by number and by inode. */
#ifndef KVM_FILE_H
#define KVM_FILE_H

#include <sys/types.h>

#include "base/types.h"

enum file_kind { FILE_SYSTEM, FILE_VM, FILE_VCPU, FILE_KINDS };

struct file {
	u32 users; /* descriptors and calls under way; 0: free. Atomic */
	u32 generation;
	enum file_kind kind;
	unsigned nfds; /* descriptors known; under the lock */
	bool doubtful; /* all known ones are closed, and others were not looked for yet; under the lock */
	dev_t dev;
	ino_t ino;
	void *object;
	void (*release)(void *object);
	struct file *next; /* list of the living, or of the free */
};

/* Prepare the table: 0 or -errno. */
int file_init(void);

/* A memfd of @size bytes, sealed; not yet in the table, so that its pages can be mapped first. */
int file_memfd(enum file_kind kind, size_t size, bool cloexec);

/*
 * Put @fd into the table. release(object) is called when the last descriptor is closed and the last
 * call has returned. 0 or -errno; on failure nothing is released or closed.
 */
int file_add(int fd, enum file_kind kind, void *object, void (*release)(void *object));

/*
 * The file behind @fd with a use counted, or NULL. file_get() asks the kernel which inode it is;
 * file_get_hot() trusts the number (KVM_RUN). *stale: the file was made before a fork().
 */
struct file *file_get(int fd, bool *stale);
struct file *file_get_hot(int fd, bool *stale);
void file_put(struct file *f);

/* Close one descriptor: 0 or -errno (-EBADF: not ours). */
int file_close(int fd);

/* Another number in every child of fork(). */
u32 file_generation(void);
/*
 * For whoever stands before the system calls. file_known(): the number is in the table, so it is probably ours, without
 * asking the kernel; file_next(): the first such number from @fd on, or -1. file_note(): @fd has just been made or replaced
 * (dup). file_owner(): whether this process made the table, and is no child of vfork() that shares it.
 */
bool file_known(int fd);
int file_next(int fd);
void file_note(int fd);
bool file_owner(void);

/* Process id without a system call, right after a fork too. */
pid_t file_pid(void);

#endif

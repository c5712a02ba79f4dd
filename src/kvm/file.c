/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Descriptors of ours: memfds known by number and by inode. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "engine/engine.h"
#include "kvm/file.h"

/*
 * Two indexes: by number, lock-free, for KVM_RUN; and a list searched by inode, for descriptors that
 * dup() made. A struct file is never given back to libc but reused, so that a reader which lost a
 * race against close looks at valid memory, and finds out by looking at the number again.
 *
 * What must not survive fork() lives in one page that the kernel wipes in the child: the lock
 * (all zero is an unlocked mutex of glibc) and the generation. Files of the parent stay in the child's table with
 * the old generation, so that requests on them give EIO.
 */
#define CHUNK_BITS 10
#define CHUNK_SIZE (1 << CHUNK_BITS)
#define CHUNKS	   1024 /* descriptors up to 1 Mi, the kernel's default limit (fs.nr_open) */

struct wiped {
	pthread_mutex_t lock;
	u32 generation; /* 0: a child that has not called yet */
	pid_t pid;
};

static struct wiped *wiped;
static u32 last_generation;
static struct file **chunks[CHUNKS];
static struct file *living, *unused; /* under the lock */
static unsigned nliving, ndoubtful;

int file_init(void)
{
	static pthread_mutex_t once = PTHREAD_MUTEX_INITIALIZER;
	struct wiped *w;
	int r = 0;

	if (__atomic_load_n(&wiped, __ATOMIC_ACQUIRE))
		return 0;
	pthread_mutex_lock(&once);
	if (!wiped) {
		w = mmap(NULL, PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
			 0);
		if (w == MAP_FAILED) {
			r = -ENOMEM;
		} else if (madvise(w, PAGE_SIZE, MADV_WIPEONFORK)) {
			munmap(w, PAGE_SIZE);
			r = -ENOTSUP;
		} else {
			__atomic_store_n(&wiped, w, __ATOMIC_RELEASE);
		}
	}
	pthread_mutex_unlock(&once);
	return r;
}

static u32 generation(void)
{
	u32 g = __atomic_load_n(&wiped->generation, __ATOMIC_ACQUIRE), none = 0;

	if (likely(g))
		return g;
	wiped->pid = getpid();
	engine_forked();
	g = __atomic_add_fetch(&last_generation, 1, __ATOMIC_RELAXED);
	if (__atomic_compare_exchange_n(&wiped->generation, &none, g, false, __ATOMIC_ACQ_REL,
					__ATOMIC_ACQUIRE))
		return g;
	return none;
}

u32 file_generation(void)
{
	return generation();
}

pid_t file_pid(void)
{
	generation();
	return wiped->pid;
}

static struct file **number_slot(int fd)
{
	struct file **c;

	if (fd < 0 || fd >= CHUNKS * CHUNK_SIZE)
		return NULL;
	c = __atomic_load_n(&chunks[fd >> CHUNK_BITS], __ATOMIC_ACQUIRE);
	return c ? &c[fd & (CHUNK_SIZE - 1)] : NULL;
}

/* Under the lock. */
static struct file **number_slot_make(int fd)
{
	if (fd < 0 || fd >= CHUNKS * CHUNK_SIZE)
		return NULL;
	if (!chunks[fd >> CHUNK_BITS]) {
		struct file **c = calloc(CHUNK_SIZE, sizeof(*c));

		if (!c)
			return NULL;
		__atomic_store_n(&chunks[fd >> CHUNK_BITS], c, __ATOMIC_RELEASE);
	}
	return number_slot(fd);
}

int file_memfd(enum file_kind kind, size_t size, bool cloexec)
{
	static const char *const name[FILE_KINDS] = { "anykvm-system", "anykvm-vm", "anykvm-vcpu" };
	int fd = syscall(SYS_memfd_create, name[kind],
			 MFD_ALLOW_SEALING | (cloexec ? MFD_CLOEXEC : 0));
	int seals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL | (size ? 0 : F_SEAL_WRITE);
	int r;

	if (fd < 0)
		return -errno;
	if ((size && ftruncate(fd, size)) || fcntl(fd, F_ADD_SEALS, seals)) {
		r = -errno;
		close(fd);
		return r;
	}
	return fd;
}

/* A use more, unless the file is already dead. */
static bool file_use(struct file *f)
{
	u32 n = __atomic_load_n(&f->users, __ATOMIC_RELAXED);

	while (n) {
		if (__atomic_compare_exchange_n(&f->users, &n, n + 1, true, __ATOMIC_ACQUIRE,
						__ATOMIC_RELAXED))
			return true;
	}
	return false;
}

void file_put(struct file *f)
{
	if (__atomic_sub_fetch(&f->users, 1, __ATOMIC_ACQ_REL))
		return;
	if (f->release && f->generation == generation())
		f->release(f->object);
	pthread_mutex_lock(&wiped->lock);
	f->next = unused;
	unused = f;
	pthread_mutex_unlock(&wiped->lock);
}

/* *@p leaves the living. Under the lock. */
static void file_retire(struct file **p)
{
	struct file *f = *p;

	ndoubtful -= f->doubtful;
	f->doubtful = false;
	nliving--;
	__atomic_store_n(p, f->next, __ATOMIC_RELEASE);
}

/* Forget that @fd is @f. Returns whether the caller owes a file_put(). Under the lock. */
static bool number_drop(int fd)
{
	struct file **slot = number_slot(fd), **p, *f = slot ? *slot : NULL;

	if (!f)
		return false;
	__atomic_store_n(slot, NULL, __ATOMIC_RELEASE);
	if (!--f->nfds) {
		for (p = &living; *p && *p != f; p = &(*p)->next)
			;
		if (*p)
			file_retire(p);
	}
	return true;
}

/* Under the lock: @fd is one more descriptor of @f, whose users already count it. */
static struct file *number_set(struct file **slot, int fd, struct file *f)
{
	struct file *old = *slot;

	if (old && !number_drop(fd))
		old = NULL;
	if (unlikely(f->doubtful)) { /* the caller's use takes the place of the one that was left */
		f->doubtful = false;
		ndoubtful--;
		__atomic_sub_fetch(&f->users, 1, __ATOMIC_RELAXED);
	}
	f->nfds++;
	__atomic_store_n(slot, f, __ATOMIC_RELEASE);
	return old;
}

int file_add(int fd, enum file_kind kind, void *object, void (*release)(void *object))
{
	struct file *f, *old = NULL, **slot;
	u32 now = generation();
	struct stat st;
	int r = 0;

	if (fstat(fd, &st))
		return -errno;
	pthread_mutex_lock(&wiped->lock);
	slot = number_slot_make(fd);
	f = unused;
	if (f)
		unused = f->next;
	else
		f = calloc(1, sizeof(*f));
	if (!slot || !f) {
		if (f) {
			f->next = unused;
			unused = f;
		}
		r = slot ? -ENOMEM : -EMFILE;
	} else {
		f->generation = now;
		f->kind = kind;
		f->dev = st.st_dev;
		f->ino = st.st_ino;
		f->object = object;
		f->release = release;
		f->nfds = 0;
		f->doubtful = false;
		nliving++;
		f->next = living;
		__atomic_store_n(&living, f, __ATOMIC_RELEASE);
		old = number_set(slot, fd, f);
		__atomic_store_n(&f->users, 1, __ATOMIC_RELEASE);
	}
	pthread_mutex_unlock(&wiped->lock);
	if (old)
		file_put(old); /* somebody closed the number behind our back */
	return r;
}

struct file *file_get_hot(int fd, bool *stale)
{
	struct file **slot = number_slot(fd), *f;

	f = slot ? __atomic_load_n(slot, __ATOMIC_ACQUIRE) : NULL;
	if (!f || !file_use(f))
		return NULL;
	if (unlikely(__atomic_load_n(slot, __ATOMIC_ACQUIRE) != f)) {
		file_put(f);
		return NULL;
	}
	*stale = f->generation != generation();
	return f;
}

bool file_known(int fd)
{
	struct file **slot = number_slot(fd);

	return slot && __atomic_load_n(slot, __ATOMIC_ACQUIRE);
}

int file_next(int fd)
{
	for (fd = fd < 0 ? 0 : fd; fd < CHUNKS * CHUNK_SIZE; fd++) {
		if (!__atomic_load_n(&chunks[fd >> CHUNK_BITS], __ATOMIC_ACQUIRE))
			fd |= CHUNK_SIZE - 1;
		else if (file_known(fd))
			return fd;
	}
	return -1;
}

bool file_owner(void)
{
	return __atomic_load_n(&wiped, __ATOMIC_ACQUIRE) && file_pid() == getpid();
}

static struct file *find_inode(const struct stat *st)
{
	struct file *f;

	for (f = living; f; f = f->next) {
		if (f->ino == st->st_ino && f->dev == st->st_dev)
			return f;
	}
	return NULL;
}

/*
 * The number says nothing, or what it says is wrong: look for the inode, as dup() keeps it. Then the
 * number is known from now on, and counts as a descriptor.
 */
static struct file *find_dup(int fd, const struct stat *st)
{
	struct file **slot, *f, *old = NULL;

	pthread_mutex_lock(&wiped->lock);
	f = find_inode(st);
	slot = f ? number_slot_make(fd) : number_slot(fd);
	if (f && slot && *slot != f && file_use(f))
		old = number_set(slot, fd, f);
	if (!f && slot && *slot) {
		old = *slot; /* closed behind our back, and the number is in other use */
		number_drop(fd);
	}
	if (f && !file_use(f))
		f = NULL;
	pthread_mutex_unlock(&wiped->lock);
	if (old)
		file_put(old);
	return f;
}

struct file *file_get(int fd, bool *stale)
{
	struct file *f;
	struct stat st;

	*stale = false;
	if (!wiped || fstat(fd, &st))
		return NULL;
	generation();
	f = file_get_hot(fd, stale);
	if (f && f->ino == st.st_ino && f->dev == st.st_dev)
		return f;
	if (f)
		file_put(f);
	f = find_dup(fd, &st);
	if (f)
		*stale = f->generation != generation();
	return f;
}

void file_note(int fd)
{
	bool stale;
	struct file *f = file_get(fd, &stale);

	if (f)
		file_put(f);
}

struct dirent64_head {
	u64 ino;
	s64 off;
	u16 len;
	u8 type;
	char name[];
};

/* Give the number to the file that it is of, if that is one of those whose numbers are all closed. Under the lock. */
static void doubt_settle(int fd)
{
	struct file **slot = number_slot(fd), *f;
	struct stat st;

	if ((slot && *slot) || fstat(fd, &st))
		return;
	f = find_inode(&st);
	slot = f && f->doubtful ? number_slot_make(fd) : NULL;
	if (slot && file_use(f))
		number_set(slot, fd, f);
}

/*
 * All known numbers of some files are closed: which of them has one by a dup() that was not seen? The others are taken off the
 * table and returned as a list, a file_put() owed for each. Without /proc nobody has one. Under the lock.
 */
static struct file *doubts_settle(void)
{
	int dir = open("/proc/self/fd", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	char buf[2048] __attribute__((aligned(8)));
	struct file *f, **p, *gone = NULL;
	struct dirent64_head *d;
	long n, at;

	while (dir >= 0 && (n = syscall(SYS_getdents64, dir, buf, sizeof(buf))) > 0) {
		for (at = 0; at < n; at += d->len) {
			d = (struct dirent64_head *)(buf + at);
			if (d->name[0] >= '0' && d->name[0] <= '9' && atoi(d->name) != dir)
				doubt_settle(atoi(d->name));
		}
	}
	if (dir >= 0)
		close(dir);
	for (p = &living; (f = *p);) {
		if (!f->doubtful) {
			p = &f->next;
			continue;
		}
		file_retire(p);
		f->next = gone;
		gone = f;
	}
	return gone;
}

/*
 * The look through all descriptors costs as much as there are, so a VM's many vCPUs are closed in batches, of a part of what is
 * open: constant cost for each, on average. All else, and a few, at once.
 */
#define BATCH_PART 16
static bool look_is_due(const struct file *f)
{
	return f->kind != FILE_VCPU || ndoubtful > nliving / BATCH_PART;
}

int file_close(int fd)
{
	struct file **slot, *f, *gone = NULL, *next;
	bool stale, owed = false;
	int r;

	f = file_get(fd, &stale);
	if (!f)
		return -EBADF;
	pthread_mutex_lock(&wiped->lock);
	slot = number_slot(fd);
	r = close(fd) ? -errno : 0;
	if (f->nfds == 1 && slot && *slot == f) {
		__atomic_store_n(slot, NULL, __ATOMIC_RELEASE);
		f->nfds = 0;
		f->doubtful = true;
		ndoubtful++;
		if (look_is_due(f))
			gone = doubts_settle();
	} else {
		owed = number_drop(fd);
	}
	pthread_mutex_unlock(&wiped->lock);
	for (; gone; gone = next) {
		next = gone->next;
		file_put(gone);
	}
	if (owed)
		file_put(f);
	file_put(f);
	return r;
}

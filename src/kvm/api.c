/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The public functions: open, ioctl, mmap, close. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "anykvm/anykvm.h"
#include "cpu/x86/host.h"
#include "kvm/calling.h"
#include "kvm/dispatch.h"
#include "kvm/options.h"
#include "kvm/trace/trace.h"

static pthread_mutex_t start_lock = PTHREAD_MUTEX_INITIALIZER;
static bool started, configured;
static struct options chosen;
static struct system system_state;

/* One line for a person; @what was refused because of @why. */
static int complain(const char *what, const char *why, int err)
{
	/* Not through the program's stderr, whose lock it may hold. */
	dprintf(STDERR_FILENO, "anykvm: %s: %s\n", what, why);
	return -err;
}

static int options_load(struct options *o)
{
	const char *text = getenv("ANYKVM_OPTIONS");
	char why[160];

	if (configured)
		*o = chosen;
	else
		options_default(o);
	if (!configured && text && options_parse(o, text, why, sizeof(why)))
		return complain("ANYKVM_OPTIONS", why, EINVAL);
	return 0;
}

static int system_start(void)
{
	const char *why = NULL;
	struct options o;
	int r = options_load(&o);

	if (!r)
		r = file_init();
	if (r)
		return r;
	r = trace_start(&why);
	if (r)
		return complain("no trace", why, -r);
	r = x86_host_probe(&system_state.host, o.cpu_mask[0] ? o.cpu_mask : NULL, &why);
	if (!r)
		r = engine_init(&why);
	if (r)
		return complain("this machine cannot be used", why ? why : strerror(-r), -r);
	r = o.perf_map ? engine_perf_map_open() : 0;
	if (r)
		return complain("perf-map=on: cannot make /tmp/perf-PID.map", strerror(-r), -r);
	chosen = o;
	system_state.engine.form = o.form;
	system_state.engine.verbose = o.counters;
	system_state.engine.host = &system_state.host;
	system_state.collector = o.collector;
	system_state.halt_poll_ns = o.halt_poll ? HALT_POLL_NS : 0;
	system_state.engine.windows = o.windows;
	system_state.engine.loops = o.loops;
	system_state.engine.ahead = o.ahead;
	system_state.engine.cross = o.cross;
	system_state.engine.beside = o.beside;
	system_state.engine.named = o.perf_map;
	system_state.engine.exact = o.exact;
	system_state.engine.audit = o.audit;
	system_state.engine.audit_strict = o.audit_strict;
	system_state.engine.cpu_mask = chosen.cpu_mask[0] ? chosen.cpu_mask : NULL;
	dispatch_init();
	return 0;
}

static int system_get(void)
{
	int r = 0;

	pthread_mutex_lock(&start_lock);
	if (!started) {
		r = system_start();
		started = !r;
	}
	pthread_mutex_unlock(&start_lock);
	return r;
}

static int fail(long r)
{
	errno = -r;
	return -1;
}

int anykvm_configure(const char *options)
{
	struct options o;
	char why[160];
	int r = 0;

	pthread_mutex_lock(&start_lock);
	options_default(&o);
	if (started)
		r = -EBUSY;
	else if (options_parse(&o, options ? options : "", why, sizeof(why)))
		r = complain("options", why, EINVAL);
	if (!r) {
		chosen = o;
		configured = true;
	}
	pthread_mutex_unlock(&start_lock);
	return r ? fail(r) : 0;
}

static int system_open(int flags)
{
	int fd, r = system_get();

	if (r)
		return r;
	fd = file_memfd(FILE_SYSTEM, 0, flags & O_CLOEXEC);
	if (fd < 0)
		return fd;
	r = file_add(fd, FILE_SYSTEM, &system_state, NULL);
	if (r)
		close(fd);
	return r ? r : fd;
}

int anykvm_open(const char *path, int flags)
{
	int r;

	if (!path || strcmp(path, "/dev/kvm"))
		return fail(path ? -ENOENT : -EFAULT);
	calling_enter();
	r = system_open(flags);
	trace_opened(r);
	calling_leave();
	return r < 0 ? fail(r) : r;
}

static long vcpu_call(struct vcpu *v, unsigned long request, unsigned long arg)
{
	struct call c = { .sys = &system_state, .vm = v->vm, .vcpu = v, .arg = arg };
	long r;

	pthread_mutex_lock(&v->lock);
	if (likely((u32)request == KVM_RUN))
		r = arg ? -EINVAL : vcpu_run(v);
	else
		r = dispatch(FILE_VCPU, request, &c);
	pthread_mutex_unlock(&v->lock);
	return r;
}

static long file_call(struct file *f, unsigned long request, unsigned long arg)
{
	struct call c = { .sys = &system_state, .arg = arg };

	if (f->kind == FILE_VCPU)
		return vcpu_call(f->object, request, arg);
	if (f->kind == FILE_VM)
		c.vm = f->object;
	return dispatch(f->kind, request, &c);
}

/* @stale: from before a fork(), so that its object is not looked at. */
static long file_call_traced(int fd, struct file *f, bool stale, unsigned long request,
			     unsigned long arg)
{
	struct trace_call t = { .fd = fd, .kind = f->kind, .request = request, .arg = arg };
	long r;

	t.vcpu = !stale && f->kind == FILE_VCPU ? f->object : NULL;
	trace_begin(&t);
	r = stale ? -EIO : file_call(f, request, arg);
	trace_end(&t, r);
	return r;
}

/* Requests that the kernel serves for every descriptor. */
static bool request_is_generic(unsigned long request)
{
	return request == FIOCLEX || request == FIONCLEX || request == FIONBIO ||
	       request == FIOASYNC;
}

static long descriptor_call(int fd, unsigned long request, unsigned long arg)
{
	bool stale = false;
	struct file *f = NULL;
	long r;

	/*
	 * DIFFERS: a request of KVM's on a number of ours goes by the number alone, so that it costs no system call. Who gives the
	 * number to another file in a way that is not seen (close() in a program that links the library; a bare system call under the
	 * preload library) reaches the old object with it; mmap() and requests that are not KVM's ask the kernel which file it is.
	 */
	if (likely(_IOC_TYPE(request) == KVMIO) || calling_is_restricted(CALLING_BY_NUMBER))
		f = file_get_hot(fd, &stale);
	if (!f)
		f = file_get(fd, &stale);
	if (!f)
		return -EBADF;
	if (unlikely(request_is_generic(request))) {
		r = ioctl(fd, request, arg);
		r = r < 0 ? -errno : r;
	} else if (unlikely(trace_on)) {
		r = file_call_traced(fd, f, stale, request, arg);
	} else {
		r = stale ? -EIO : file_call(f, request, arg);
	}
	file_put(f);
	return r;
}

int anykvm_ioctl(int fd, unsigned long request, ...)
{
	unsigned long arg;
	int type, ours;
	va_list ap;
	long r;

	va_start(ap, request);
	arg = va_arg(ap, unsigned long);
	va_end(ap);
	/*
	 * A thread that asked to be cancelled at any point would leave locks, and a vCPU that is never out of guest
	 * code: it is cancelled between two parts of its call. No signal comes for that, so KVM_RUN breaks off
	 * now and then and begins again.
	 */
	do {
		pthread_setcanceltype(PTHREAD_CANCEL_DEFERRED, &type);
		calling.cancellable = type == PTHREAD_CANCEL_ASYNCHRONOUS;
		calling_enter();
		r = descriptor_call(fd, request, arg);
		calling_leave();
		pthread_setcanceltype(type, &ours);
	} while (unlikely(r == -ERESTART));
	return r < 0 ? fail(r) : r;
}

/* The pages of the descriptor, and over one of them the VM's ring. */
static void *vcpu_mmap(struct file *f, void *addr, size_t length, int prot, int flags, int fd,
		       off_t offset)
{
	struct vm *vm = ((struct vcpu *)f->object)->vm;
	void *p;
	int r = 0;

	if (!dirty_ring_map_is_valid(vm, length, prot, flags, offset)) {
		file_put(f);
		errno = EINVAL;
		return MAP_FAILED;
	}
	p = mmap(addr, length, prot, flags, fd, offset);
	if (p != MAP_FAILED)
		r = iobus_map_ring(vm, p, length, prot, offset);
	file_put(f);
	if (!r)
		return p;
	munmap(p, length);
	errno = -r;
	return MAP_FAILED;
}

static void *descriptor_mmap(void *addr, size_t length, int prot, int flags, int fd, off_t offset)
{
	bool stale;
	struct file *f = file_get(fd, &stale);

	if (!f) {
		errno = EBADF;
		return MAP_FAILED;
	}
	if (f->kind == FILE_VCPU)
		return vcpu_mmap(f, addr, length, prot, flags, fd, offset);
	file_put(f);
	errno = ENODEV;
	return MAP_FAILED;
}

void *anykvm_mmap(void *addr, size_t length, int prot, int flags, int fd, off_t offset)
{
	int saved;
	void *p;

	calling_enter();
	p = descriptor_mmap(addr, length, prot, flags, fd, offset);
	trace_mapped(fd, length, offset, p);
	saved = errno;
	calling_leave();
	errno = saved;
	return p;
}

int anykvm_close(int fd)
{
	int r;

	calling_enter();
	r = file_close(fd);
	calling_leave();
	return r ? fail(r) : 0;
}

int anykvm_is_ours(int fd)
{
	bool stale;
	struct file *f = file_get(fd, &stale);

	if (f)
		file_put(f);
	return f != NULL;
}

int anykvm_eventfd_write(int fd, unsigned long long value)
{
	if (value != ~0ull && kvm_eventfd_written(fd))
		return 0;
	return write(fd, &value, sizeof(value)) == sizeof(value) ? 0 : -1;
}

const char *anykvm_version(void)
{
	return ANYKVM_VERSION;
}

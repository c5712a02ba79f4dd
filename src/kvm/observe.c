/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The public functions that look at a VM while it runs: counters, and where its vCPUs are. */
#include <errno.h>

#include "anykvm/anykvm.h"
#include "kvm/file.h"
#include "kvm/kvm.h"

/* Before the numbers of the engine. */
enum { WHERE_IDLE, WHERE_OUTSIDE, WHERE_KVM, WHERE_OURS };
static const char *const where_names[WHERE_OURS] = {
	[WHERE_IDLE] = "idle",
	[WHERE_OUTSIDE] = "outside",
	[WHERE_KVM] = "kvm",
};

/* The file with a use counted; NULL and errno. */
static struct file *get(int fd, struct file *(*find)(int fd, bool *stale))
{
	bool stale;
	struct file *f = find(fd, &stale);

	errno = f ? EIO : EBADF;
	if (!f || !stale)
		return f;
	file_put(f);
	return NULL;
}

static int refuse(struct file *f)
{
	file_put(f);
	errno = EINVAL;
	return -1;
}

int anykvm_counters(int fd, void (*fn)(void *arg, const char *name, unsigned long value), void *arg)
{
	struct file *f = get(fd, file_get);

	if (!f)
		return -1;
	if (f->kind == FILE_VM) {
		vm_counters(f->object, fn, arg);
	} else if (f->kind == FILE_VCPU) {
		struct vcpu *v = f->object;

		engine_counters(v->vm->engine, v->engine, fn, arg);
		stats_visit_vcpu(&v->stats, fn, arg);
	} else {
		return refuse(f);
	}
	file_put(f);
	return 0;
}

static void counter_print(void *out, const char *name, unsigned long value)
{
	fprintf(out, "%s %lu\n", name, value);
}

int anykvm_print_counters(int fd, FILE *out)
{
	return anykvm_counters(fd, counter_print, out);
}

int anykvm_watch(int fd, int on)
{
	struct file *f = get(fd, file_get);

	if (!f)
		return -1;
	if (f->kind != FILE_VM)
		return refuse(f);
	engine_watch(((struct vm *)f->object)->engine, on);
	file_put(f);
	return 0;
}

static int where(const struct vcpu *v)
{
	if (__atomic_load_n(&v->rest, __ATOMIC_RELAXED) != REST_NOT)
		return WHERE_IDLE;
	if (!__atomic_load_n(&v->in_guest, __ATOMIC_RELAXED))
		return WHERE_OUTSIDE;
	if (!engine_is_in(v->engine))
		return WHERE_KVM;
	return WHERE_OURS + (int)engine_where(v->engine);
}

int anykvm_where(int fd)
{
	struct file *f = get(fd, file_get_hot);
	int r;

	if (!f)
		return -1;
	if (f->kind != FILE_VCPU)
		return refuse(f);
	r = where(f->object);
	file_put(f);
	return r;
}

const char *anykvm_where_name(int at)
{
	if (at < 0)
		return NULL;
	return at < WHERE_OURS ? where_names[at] : engine_where_name((u32)at - WHERE_OURS);
}

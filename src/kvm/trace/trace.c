/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The trace of requests: times, filters, counters, and the line of each. */
#define _GNU_SOURCE
#include "kvm/trace/trace.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/kvm_names.h"
#include "kvm/trace/decode.h"

bool trace_on;
static struct trace_area *area;

/* What belongs to a thread; a child of fork() is another one. */
static __thread struct {
	u32 tid, generation;
	bool known;
	struct trace_thread *row;
	u64 exit_ns; /* when KVM_RUN returned with an exit; 0: it did not */
	u32 exit_reason;
} self __attribute__((tls_model("initial-exec")));

static u64 now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (u64)t.tv_sec * 1000000000 + (u64)t.tv_nsec;
}

int trace_start(const char **why)
{
	const char *path = getenv(TRACE_ENV);
	struct trace_area *a = MAP_FAILED;
	struct stat st;
	int fd;

	if (!path || !*path)
		return 0;
	*why = "the memory that ANYKVM_TRACE names cannot be used; it is set by 'anykvm trace' "
	       "(AK015)";
	fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	if (!fstat(fd, &st) && st.st_size >= (off_t)sizeof(*a))
		a = mmap(NULL, sizeof(*a), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	close(fd);
	if (a == MAP_FAILED)
		return -EINVAL;
	if (a->magic != TRACE_MAGIC || a->version != TRACE_VERSION || a->size != sizeof(*a)) {
		munmap(a, sizeof(*a));
		return -EINVAL;
	}
	area = a;
	trace_on = true;
	return 0;
}

static void row_claim(void)
{
	self.row = NULL;
	for (unsigned i = 0; i < TRACE_THREADS && !self.row; i++) {
		u32 none = 0;

		if (__atomic_compare_exchange_n(&area->thread[i].tid, &none, self.tid, false,
						__ATOMIC_RELAXED, __ATOMIC_RELAXED))
			self.row = &area->thread[i];
	}
}

void trace_thread_prepare(void)
{
	if (!trace_on || (self.known && self.generation == file_generation()))
		return;
	self.tid = (u32)syscall(SYS_gettid);
	self.generation = file_generation();
	self.known = true;
	self.exit_ns = 0;
	row_claim();
}

/* An empty choice is everything. */
static bool is_chosen(const struct trace_choice *c, u32 value)
{
	for (u32 i = 0; i < c->count && i < TRACE_CHOICES; i++)
		if (c->value[i] == value)
			return !c->except;
	return !c->count || c->except;
}

static bool is_run(const struct trace_call *c)
{
	return c->vcpu && (u32)c->request == KVM_RUN;
}

/* A choice of exits only is one of KVM_RUN. */
static bool wants_line(const struct trace_call *c)
{
	if (!area->wants_lines)
		return false;
	if (area->exits.count && !area->requests.count)
		return is_run(c);
	return is_chosen(&area->requests, (u32)c->request);
}

static void line_begin(struct line *l, char *text)
{
	*l = (struct line){ .text = text,
			    .room = TRACE_LINE - LINE_TAIL,
			    .is_plain = area->is_plain };
	if (!area->is_plain)
		line_add(l, "%6u %11.6f ", self.tid, (double)(now() - area->start_ns) / 1e9);
}

static void file_show(struct line *l, int fd, enum file_kind kind, const struct vcpu *v)
{
	static const char *const kinds[] = {
		[FILE_SYSTEM] = "kvm", [FILE_VM] = "vm", [FILE_VCPU] = "vcpu"
	};

	if (v)
		line_add(l, "%d<vcpu:%u>", fd, v->id);
	else
		line_add(l, "%d<%s>", fd, kinds[kind]);
}

static void call_show(struct line *l, const struct trace_call *c)
{
	const struct ioctl_row *row = dispatch_find(c->kind, c->request);
	const char *name = kvm_name_of(KVM_NAME_IOCTL, (u32)c->request);

	line_add(l, "ioctl(");
	file_show(l, c->fd, c->kind, c->vcpu);
	if (name)
		line_add(l, ", %s", name);
	else
		line_add(l, ", %#x", (u32)c->request);
	if (is_run(c)) {
		decode_answer(l, c->vcpu);
	} else if (!row || row->pass != PASS_NONE || c->arg) {
		line_add(l, ", ");
		decode_before(l, row, c->arg);
	}
}

void trace_begin(struct trace_call *c)
{
	int saved = errno;
	struct trace_counter *e;

	trace_thread_prepare();
	c->thread = self.row;
	if (is_run(c) && self.exit_ns) {
		e = trace_counter(area->exit_counts, TRACE_EXITS, self.exit_reason + 1);
		if (e)
			trace_count_time(e, now() - self.exit_ns);
		self.exit_ns = 0;
	}
	c->has_line = wants_line(c);
	if (c->has_line) {
		line_begin(&c->line, c->thread ? c->thread->line : c->own);
		call_show(&c->line, c);
		if (c->thread)
			__atomic_store_n(&c->thread->busy, 1, __ATOMIC_RELEASE);
	}
	errno = saved;
	c->start = now();
}

static void count(const struct trace_call *c, long result, u64 end)
{
	u64 ns = end - c->start;
	struct trace_counter *r =
		trace_counter(area->request_counts, TRACE_REQUESTS, (u32)c->request);

	if (r) {
		trace_count(r, result < 0);
		trace_count_time(r, ns);
	}
	if (!is_run(c) || (result < 0 && result != -EINTR))
		return;
	self.exit_reason = result < 0 ? KVM_EXIT_INTR : c->vcpu->run->exit_reason;
	self.exit_ns = end;
	r = trace_counter(area->exit_counts, TRACE_EXITS, self.exit_reason + 1);
	if (r) {
		trace_count(r, false);
		__atomic_fetch_add(&r->guest_ns, ns, __ATOMIC_RELAXED);
	}
}

static bool is_shown(const struct trace_call *c, long result, u64 ns)
{
	if (area->only_failed && result >= 0)
		return false;
	if (ns < area->slower_ns)
		return false;
	if (!is_run(c) || (result < 0 && result != -EINTR))
		return true;
	return is_chosen(&area->exits, result < 0 ? KVM_EXIT_INTR : c->vcpu->run->exit_reason);
}

static void result_show(struct line *l, const struct trace_call *c, long result)
{
	const struct ioctl_row *row = dispatch_find(c->kind, c->request);

	if (decode_shows_after(row))
		decode_after(l, row, c->arg, result >= 0);
	l->room = TRACE_LINE - 48;
	line_add(l, ") = ");
	if (result < 0)
		line_add(l, "-1 %s", strerrorname_np((int)-result));
	else
		line_add(l, "%ld", result);
	if (is_run(c) && result >= 0) {
		line_add(l, " (");
		decode_exit(l, c->vcpu);
		line_add(l, ")");
	} else if (is_run(c)) {
		line_add(l, " (rip=%#llx)", (unsigned long long)decode_rip(c->vcpu));
	}
}

static void line_end(struct line *l, u64 ns)
{
	l->room = TRACE_LINE;
	if (l->n > TRACE_LINE - 48)
		l->n = TRACE_LINE - 48;
	if (!l->is_plain)
		line_add(l, " <%.6f>", (double)ns / 1e9);
	line_add(l, "\n");
	trace_write(area, self.tid, l->text, l->n);
}

void trace_end(struct trace_call *c, long result)
{
	const u64 end = now(), ns = end - c->start;
	int saved = errno;

	if (area->wants_counts)
		count(c, result, end);
	if (c->has_line) {
		if (is_shown(c, result, ns)) {
			result_show(&c->line, c, result);
			line_end(&c->line, ns);
		}
		if (c->thread)
			__atomic_store_n(&c->thread->busy, 0, __ATOMIC_RELEASE);
	}
	errno = saved;
}

/* Lines without a request: only when none was chosen. */
static bool wants_others(void)
{
	trace_thread_prepare();
	return area->wants_lines && !area->requests.count && !area->exits.count && !area->slower_ns;
}

void trace_opened(long result)
{
	char text[TRACE_LINE];
	struct line l;

	if (!trace_on || !wants_others() || (area->only_failed && result >= 0))
		return;
	line_begin(&l, text);
	line_add(&l, "open(\"/dev/kvm\") = ");
	if (result < 0)
		line_add(&l, "-1 %s", strerrorname_np((int)-result));
	else
		line_add(&l, "%ld<kvm>", result);
	line_end(&l, 0);
}

void trace_mapped(int fd, size_t length, long offset, const void *result)
{
	char text[TRACE_LINE];
	struct line l;

	if (!trace_on || !wants_others() || (area->only_failed && result != MAP_FAILED))
		return;
	line_begin(&l, text);
	line_add(&l, "mmap(%d<vcpu>, %zu, offset=", fd, length);
	line_hex(&l, (u64)offset);
	line_add(&l, ") = ");
	if (result == MAP_FAILED)
		line_add(&l, "-1 %s", strerrorname_np(errno));
	else
		line_user(&l, (u64)(uintptr_t)result);
	line_end(&l, 0);
}

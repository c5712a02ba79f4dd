/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The counters of a trace as two tables, or as JSON. */
#include "cmd/summary.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "base/kvm_names.h"

static int by_time(const void *a, const void *b)
{
	const struct trace_counter *x = a, *y = b;

	if (x->ns != y->ns)
		return x->ns < y->ns ? 1 : -1;
	return x->key < y->key ? -1 : x->key > y->key;
}

/* The rows in use, the longest first; how many. */
static unsigned sorted(const struct trace_counter *rows, unsigned count, struct trace_counter *out)
{
	unsigned n = 0;

	for (unsigned i = 0; i < count; i++)
		if (rows[i].key)
			out[n++] = rows[i];
	qsort(out, n, sizeof(*out), by_time);
	return n;
}

static const char *name_of(enum kvm_name_kind kind, u32 key)
{
	static char text[24];
	const u32 value = kind == KVM_NAME_EXIT ? key - 1 : key;
	const char *name = kvm_name_of(kind, value);

	if (name)
		return name;
	snprintf(text, sizeof(text), kind == KVM_NAME_EXIT ? "exit %u" : "%#x", value);
	return text;
}

static double seconds(u64 ns)
{
	return (double)ns / 1e9;
}

static double mean_us(const struct trace_counter *c)
{
	return c->calls ? (double)c->ns / 1e3 / (double)c->calls : 0;
}

static void requests_print(const struct trace_counter *rows, unsigned n, FILE *out)
{
	u64 calls = 0, errors = 0, ns = 0;

	for (unsigned i = 0; i < n; i++) {
		calls += rows[i].calls;
		errors += rows[i].errors;
		ns += rows[i].ns;
	}
	fprintf(out, "%% time     seconds   us/call    max us      calls  errors  ioctl\n");
	for (unsigned i = 0; i < n; i++) {
		const struct trace_counter *c = &rows[i];

		fprintf(out, "%6.2f %11.6f %9.1f %9.1f %10llu %7llu  %s\n",
			ns ? 100 * (double)c->ns / (double)ns : 0, seconds(c->ns), mean_us(c),
			(double)c->ns_max / 1e3, (unsigned long long)c->calls,
			(unsigned long long)c->errors, name_of(KVM_NAME_IOCTL, c->key));
	}
	fprintf(out, "100.00 %11.6f %9s %9s %10llu %7llu  total\n", seconds(ns), "", "",
		(unsigned long long)calls, (unsigned long long)errors);
}

static void exits_print(const struct trace_counter *rows, unsigned n, FILE *out)
{
	u64 exits = 0, ns = 0, guest = 0;

	for (unsigned i = 0; i < n; i++) {
		exits += rows[i].calls;
		ns += rows[i].ns;
		guest += rows[i].guest_ns;
	}
	fprintf(out, "\nIn KVM_RUN before the exit; in the program until the next KVM_RUN of the "
		     "thread:\n"
		     "   guest s   program s   us/exit    max us      exits  reason\n");
	for (unsigned i = 0; i < n; i++) {
		const struct trace_counter *c = &rows[i];

		fprintf(out, "%10.6f %11.6f %9.1f %9.1f %10llu  %s\n", seconds(c->guest_ns),
			seconds(c->ns), mean_us(c), (double)c->ns_max / 1e3,
			(unsigned long long)c->calls, name_of(KVM_NAME_EXIT, c->key));
	}
	fprintf(out, "%10.6f %11.6f %9s %9s %10llu  total\n", seconds(guest), seconds(ns), "", "",
		(unsigned long long)exits);
}

int summary_print(const struct trace_area *a, FILE *out)
{
	struct trace_counter rows[TRACE_REQUESTS];
	unsigned n = sorted(a->request_counts, TRACE_REQUESTS, rows);

	requests_print(rows, n, out);
	n = sorted(a->exit_counts, TRACE_EXITS, rows);
	if (n)
		exits_print(rows, n, out);
	if (a->lost)
		fprintf(out, "\n%llu lines were lost.\n", (unsigned long long)a->lost);
	return fflush(out);
}

int summary_print_json(const struct trace_area *a, FILE *out)
{
	struct trace_counter rows[TRACE_REQUESTS];
	unsigned n = sorted(a->request_counts, TRACE_REQUESTS, rows);
	json_t *requests = json_array(), *exits = json_array(), *all;
	int r;

	for (unsigned i = 0; i < n; i++)
		json_array_append_new(requests, json_pack("{ss sI sI sI sI}", "name",
							  name_of(KVM_NAME_IOCTL, rows[i].key),
							  "calls", (json_int_t)rows[i].calls,
							  "errors", (json_int_t)rows[i].errors,
							  "ns", (json_int_t)rows[i].ns, "max_ns",
							  (json_int_t)rows[i].ns_max));
	n = sorted(a->exit_counts, TRACE_EXITS, rows);
	for (unsigned i = 0; i < n; i++)
		json_array_append_new(exits, json_pack("{ss sI sI sI sI}", "name",
						       name_of(KVM_NAME_EXIT, rows[i].key), "exits",
						       (json_int_t)rows[i].calls, "guest_ns",
						       (json_int_t)rows[i].guest_ns, "program_ns",
						       (json_int_t)rows[i].ns, "max_program_ns",
						       (json_int_t)rows[i].ns_max));
	all = json_pack("{si so so sI}", "version", 1, "ioctls", requests, "exits", exits,
			"lost_lines", (json_int_t)a->lost);
	r = all ? json_dumpf(all, out, JSON_INDENT(2)) : -1;
	fprintf(out, "\n");
	json_decref(all);
	return r || fflush(out) ? -1 : 0;
}

/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* What is told at the end of a VM: how it ended, and counters. */
#include "vmm/report.h"

#include <jansson.h>
#include <string.h>
#include <time.h>

#include "vmm/say.h"
#include "vmm/terminal.h"

static const struct end_row {
	const char *name;
	int status;
} end_rows[] = {
	[VM_RUNNING] = { "running", STATUS_INTERNAL },
	[VM_POWEROFF] = { "power-off", STATUS_OK },
	[VM_QUIT] = { "quit", STATUS_OK },
	[VM_MOVED] = { "moved", STATUS_OK },
	[VM_RESET] = { "reset", STATUS_RESET },
	[VM_TRIPLE_FAULT] = { "triple-fault", STATUS_TRIPLE_FAULT },
	[VM_PANIC] = { "panic", STATUS_PANIC },
	[VM_SIGNAL] = { "signal", STATUS_SIGNAL },
	[VM_FAILED] = { "failed", STATUS_INTERNAL },
};

static u64 now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (u64)t.tv_sec * 1000000000u + (u64)t.tv_nsec;
}

void report_start(struct report *r, u64 started_ns)
{
	memset(r, 0, sizeof(*r));
	r->started_ns = started_ns ? started_ns : now_ns();
}

double report_seconds(const struct report *r)
{
	return (double)(now_ns() - r->started_ns) / 1e9;
}

void report_add(struct report *r, const struct exits *x)
{
	for (unsigned i = 0; i < EXIT_REASONS; i++)
		r->counts[i] += x->counts[i];
	r->signals += x->signals;
}

const char *report_end_name(enum vm_end end)
{
	return end_rows[end].name;
}

int report_status(const struct ending *e, int signal)
{
	const enum vm_end end = ending_get(e);

	if (end == VM_FAILED)
		return e->status;
	return end_rows[end].status + (end == VM_SIGNAL ? signal : 0);
}

static void print_json(const struct report *r, const struct ending *e, int status, double seconds)
{
	json_t *root = json_object(), *exits = json_object();
	char *text;

	json_object_set_new(root, "end", json_string(report_end_name(ending_get(e))));
	json_object_set_new(root, "status", json_integer(status));
	json_object_set_new(root, "seconds", json_real(seconds));
	json_object_set_new(root, "resets", json_integer(r->resets));
	for (u32 i = 0; i < EXIT_REASONS; i++)
		if (r->counts[i] && exit_name(i))
			json_object_set_new(exits, exit_name(i),
					    json_integer((json_int_t)r->counts[i]));
	json_object_set_new(root, "exits", exits);
	if (ending_get(e) == VM_FAILED)
		json_object_set_new(root, "why", json_string(e->why.text));
	text = json_dumps(root, JSON_COMPACT | JSON_REAL_PRECISION(6));
	if (text) {
		/* stdout is the guest's console. */
		fprintf(stderr, "%s\n", text);
		free(text);
	}
	json_decref(root);
}

static void print_counters(const struct report *r, const struct ending *e, double seconds)
{
	say("%s after %.3f s, %u resets", report_end_name(ending_get(e)), seconds, r->resets);
	for (u32 i = 0; i < EXIT_REASONS; i++)
		if (r->counts[i] && exit_name(i))
			say("exits %s %llu", exit_name(i), (unsigned long long)r->counts[i]);
	if (r->signals)
		say("exits interrupted %llu", (unsigned long long)r->signals);
	if (r->mmio_unclaimed)
		say("mmio without a device %llu", (unsigned long long)r->mmio_unclaimed);
}

int report_finish(const struct report *r, const struct vmm_config *config, const struct ending *e,
		  int signal)
{
	const double seconds = report_seconds(r);
	const int status = report_status(e, signal);
	const enum vm_end end = ending_get(e);

	terminal_restore();
	if (end == VM_FAILED)
		say("%s", e->why.text);
	else if (end == VM_TRIPLE_FAULT)
		say("the guest ended in a triple fault");
	else if (end == VM_PANIC)
		say("the guest's kernel panicked");
	else if (end == VM_SIGNAL)
		say("ended by signal %d (%s)", signal, strsignal(signal));
	if (config->verbose)
		print_counters(r, e, seconds);
	if (config->json)
		print_json(r, e, status, seconds);
	return status;
}

/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* What happened in a VM between two of its reports, as text or JSON. */
#include "cmd/stat_print.h"

#include <stdlib.h>
#include <string.h>

#include "base/types.h"

#define HELPER	      "helper_"
#define COLUMNS_MAX   8u /* processors that have a column of their own */
#define HELPERS_SHOWN 12u

/* A line of the table: what anykvm_where() calls it; helpers are all that begin so. */
static const struct {
	const char *label, *place;
} places[] = {
	{ "guest code", "guest" },
	{ "memory slow path", "slow_path" },
	{ "finding blocks", "dispatch" },
	{ "translation", "translate" },
	{ "helpers", HELPER },
	{ "devices, page crossings", "device" },
	{ "exceptions, requests", "engine" },
	{ "KVM floor", "kvm" },
	{ "outside (exits, stopped)", "outside" },
	{ "idle", "idle" },
};

static const struct {
	const char *label, *counter;
} rates[] = {
	{ "exits to the VMM: ports", "io_exits" },
	{ "exits to the VMM: memory", "mmio_exits" },
	{ "exits of the engine", "exits" },
	{ "halts, ended while looking", "halt_successful_poll" },
	{ "halts, woken from sleep", "halt_wakeup" },
	{ "interrupts", "irq_injections" },
	{ "blocks translated", "blocks" },
	{ "instructions translated", "insns_translated" },
	{ "blocks killed", "blocks_killed" },
	{ "code cache resets", "cache_resets" },
	{ "memory slow path", "mem_slow" },
	{ "TLB fills (misses)", "tlb_fills" },
	{ "TLB flushes", "tlb_flushes" },
	{ "execute tags filled", "execute_tag_fills" },
	{ "dispatches", "dispatches" },
	{ "helper calls", "helpers" },
	{ "exceptions", "faults" },
	{ "stores to code", "code_writes" },
};

static double number(json_t *object, const char *key)
{
	return json_number_value(json_object_get(object, key));
}

static double seconds(const struct stat_pair *p)
{
	const double s = number(p->after, "seconds") - number(p->before, "seconds");

	return s > 0 ? s : 1e-9;
}

static json_t *cpus(json_t *report)
{
	return json_object_get(report, "cpus");
}

/* Processor @i of @report, its @part. */
static json_t *part(json_t *report, size_t i, const char *what)
{
	return json_object_get(json_array_get(cpus(report), i), what);
}

static bool is_place(const char *name, const char *place)
{
	return strcmp(place, HELPER) == 0 ? strncmp(name, HELPER, strlen(HELPER)) == 0
					  : strcmp(name, place) == 0;
}

/* Samples of processor @i that were at @place (NULL: anywhere). */
static double samples(const struct stat_pair *p, size_t i, const char *place)
{
	json_t *before = part(p->before, i, "where"), *after = part(p->after, i, "where"), *value;
	const char *name;
	double n = 0;

	json_object_foreach(after, name, value)
	{
		if (!place || is_place(name, place))
			n += json_number_value(value) - number(before, name);
	}
	return n;
}

static double samples_all(const struct stat_pair *p, const char *place)
{
	double n = 0;

	for (size_t i = 0; i < json_array_size(cpus(p->after)); i++)
		n += samples(p, i, place);
	return n;
}

static double share(double n, double of)
{
	return of > 0 ? n / of : 0;
}

static void places_print(const struct stat_pair *p, FILE *out)
{
	const size_t count = json_array_size(cpus(p->after));
	const size_t columns = count > 1 && count <= COLUMNS_MAX ? count : 0;

	fprintf(out, "%-26s%8s", "time", "all");
	for (size_t i = 0; i < columns; i++)
		fprintf(out, "   cpu%zu%s", i, i < 10 ? " " : "");
	fprintf(out, "\n");
	for (size_t k = 0; k < ARRAY_SIZE(places); k++) {
		const char *place = places[k].place;

		fprintf(out, "%-26s%7.1f%%", places[k].label,
			100 * share(samples_all(p, place), samples_all(p, NULL)));
		for (size_t i = 0; i < columns; i++)
			fprintf(out, "%7.1f%%",
				100 * share(samples(p, i, place), samples(p, i, NULL)));
		fprintf(out, "\n");
	}
}

struct helper {
	const char *name;
	double calls, share;
};

static int helper_order(const void *a, const void *b)
{
	const struct helper *x = a, *y = b;

	if (x->share != y->share)
		return x->share < y->share ? 1 : -1;
	return x->calls < y->calls ? 1 : x->calls > y->calls ? -1 : strcmp(x->name, y->name);
}

static double delta(const struct stat_pair *p, const char *counter)
{
	return number(json_object_get(p->after, "counters"), counter) -
	       number(json_object_get(p->before, "counters"), counter);
}

/* Counters of processors alone are added up; those of the VM count all. */
static double delta_cpus(const struct stat_pair *p, const char *counter)
{
	double n = 0;

	if (json_object_get(json_object_get(p->after, "counters"), counter))
		return delta(p, counter);
	for (size_t i = 0; i < json_array_size(cpus(p->after)); i++)
		n += number(part(p->after, i, "counters"), counter) -
		     number(part(p->before, i, "counters"), counter);
	return n;
}

static void helpers_print(const struct stat_pair *p, FILE *out)
{
	json_t *counters = json_object_get(p->after, "counters"), *value;
	struct helper *list = calloc(json_object_size(counters) + 1, sizeof(*list));
	const double all = samples_all(p, NULL);
	const char *name;
	size_t n = 0;

	if (!list)
		return;
	json_object_foreach(counters, name, value)
	{
		const struct helper h = { name, delta(p, name), share(samples_all(p, name), all) };

		if (is_place(name, HELPER) && (h.calls > 0 || h.share > 0))
			list[n++] = h;
	}
	qsort(list, n, sizeof(*list), helper_order);
	fprintf(out, "%-26s%8s%14s\n", "helper", "time", "calls/s");
	for (size_t i = 0; i < n && i < HELPERS_SHOWN; i++)
		fprintf(out, "%-26s%7.1f%%%14.0f\n", list[i].name + strlen(HELPER),
			100 * list[i].share, list[i].calls / seconds(p));
	free(list);
}

static double mib(json_t *counters, const char *name)
{
	return number(counters, name) / 1048576;
}

static void memory_print(const struct stat_pair *p, FILE *out)
{
	json_t *vm = json_object_get(p->after, "counters");
	const double count = (double)json_array_size(cpus(p->after));

	if (!json_object_get(vm, "cache_code_room"))
		return;
	fprintf(out,
		"code cache                %.1f of %.0f MiB, records %.1f of %.0f MiB, %.0f "
		"blocks\n",
		mib(vm, "cache_code_bytes"), mib(vm, "cache_code_room"),
		mib(vm, "cache_record_bytes"), mib(vm, "cache_record_room"),
		number(vm, "cache_blocks"));
	fprintf(out,
		"TLB and site tables       %.1f MiB for each processor (at most 8), all tables "
		"%.1f MiB\n",
		mib(vm, "tlb_and_site_bytes") / count, mib(vm, "table_bytes") / count);
}

void stat_print_text(const struct stat_pair *p, FILE *out)
{
	const size_t count = json_array_size(cpus(p->after));

	fprintf(out, "%s: %zu processor%s, %.2f s, %.0f samples\n", p->name, count,
		count == 1 ? "" : "s", seconds(p),
		number(p->after, "samples") - number(p->before, "samples"));
	if (samples_all(p, NULL) > 0)
		places_print(p, out);
	helpers_print(p, out);
	fprintf(out, "%-26s%8s%14s\n", "event", "", "per second");
	for (size_t k = 0; k < ARRAY_SIZE(rates); k++)
		fprintf(out, "%-34s%14.0f\n", rates[k].label,
			delta_cpus(p, rates[k].counter) / seconds(p));
	memory_print(p, out);
}

/* { name: (after - before) / @by } */
static json_t *rates_new(json_t *before, json_t *after, double by)
{
	json_t *object = json_object(), *value;
	const char *name;

	json_object_foreach(after, name, value)
	{
		const double d = json_number_value(value) - number(before, name);

		json_object_set_new(object, name, json_real(share(d, by)));
	}
	return object;
}

static json_t *cpu_new(const struct stat_pair *p, size_t i)
{
	json_t *counters = part(p->after, i, "counters");

	return json_pack("{s:o,s:o,s:O}", "share",
			 rates_new(part(p->before, i, "where"), part(p->after, i, "where"),
				   samples(p, i, NULL)),
			 "rate", rates_new(part(p->before, i, "counters"), counters, seconds(p)),
			 "total", counters);
}

void stat_print_json(const struct stat_pair *p, FILE *out)
{
	json_t *list = json_array(), *vm = json_object_get(p->after, "counters"), *line;

	for (size_t i = 0; i < json_array_size(cpus(p->after)); i++)
		json_array_append_new(list, cpu_new(p, i));
	line = json_pack(
		"{s:s,s:f,s:f,s:o,s:o,s:O}", "name", p->name, "seconds", seconds(p), "samples",
		number(p->after, "samples") - number(p->before, "samples"), "cpus", list, "rate",
		rates_new(json_object_get(p->before, "counters"), vm, seconds(p)), "total", vm);
	json_dumpf(line, out, JSON_COMPACT | JSON_REAL_PRECISION(9));
	putc('\n', out);
	json_decref(line);
}

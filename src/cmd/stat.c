/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* anykvm stat: where the time of a running VM goes. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cmd/args.h"
#include "cmd/cmd.h"
#include "cmd/stat_dirty.h"
#include "cmd/stat_print.h"
#include "vmm/monitor/client.h"
#include "vmm/sampler.h"
#include "vmm/say.h"
#include "vmm/status.h"

#define MORE_MS 2000 /* samples go on over the next question */

struct stat_options {
	unsigned interval_ms, count;
	bool json, dirty;
	const char *png;
};

static int parse_seconds(const char *value, void *field, struct why *why)
{
	char *end;
	const double s = strtod(value, &end);

	if (end == value || *end || !(s >= 0.01 && s <= (SAMPLER_MAX_MS - MORE_MS) / 1000))
		return why_set(why, EINVAL, "'%.40s' is no time from 0.01 to %u seconds", value,
			       (SAMPLER_MAX_MS - MORE_MS) / 1000);
	*(unsigned *)field = (unsigned)(s * 1000);
	return 0;
}

#define FIELD(f) offsetof(struct stat_options, f)

static const struct args_row rows[] = {
	{ "interval", 'i', parse_seconds, FIELD(interval_ms), "SECONDS",
	  "between two reports, which then go on until the VM ends; default: one report of 1 s" },
	{ "count", 'c', args_count, FIELD(count), "N", "so many reports" },
	{ "dirty", 0, NULL, FIELD(dirty), NULL,
	  "instead: how fast the guest writes to its memory, by slot; default: 10 rounds" },
	{ "png", 0, args_text, FIELD(png), "FILE",
	  "with --dirty: a picture; memory from left to right, rounds downwards" },
	{ "json", 0, NULL, FIELD(json), NULL,
	  "each report as one line of JSON: shares, rates per second, totals" },
};

static const struct args_table table = { rows, ARRAY_SIZE(rows) };

static int help(void)
{
	printf("usage: anykvm stat NAME [OPTIONS]\n\n"
	       "Shows where the time of the VM goes that 'anykvm run --name NAME' has started: "
	       "guest "
	       "code,\n"
	       "translation, slow paths, helpers by name, exits, idle; and what happened how "
	       "often. "
	       "Its\n"
	       "processors are looked at a thousand times a second meanwhile; that is all it "
	       "costs.\n\n");
	args_help(&table, stdout);
	printf("\nExit status: 0 done, 1 the VM refuses or has ended before the first report, 2 "
	       "usage, or\nthere is no such VM.\n");
	return STATUS_OK;
}

static int ask(struct monitor_client *c, const struct stat_options *o, json_t **out,
	       struct why *why)
{
	return monitor_client_call(
		c, "query-stat",
		json_pack("{s:I}", "sample-ms", (json_int_t)o->interval_ms + MORE_MS), out, why);
}

static void sleep_ms(unsigned ms)
{
	struct timespec t = { ms / 1000, (long)(ms % 1000) * 1000000 };

	while (nanosleep(&t, &t) < 0 && errno == EINTR)
		;
}

static bool is_same_machine(const json_t *a, const json_t *b)
{
	return json_integer_value(json_object_get(a, "machine")) ==
	       json_integer_value(json_object_get(b, "machine"));
}

static int output_check(void)
{
	if (fflush(stdout) == 0)
		return STATUS_OK;
	say("cannot write to stdout: %s", strerror(errno));
	return STATUS_OUTPUT;
}

/* Report after report; the status. */
static int follow(struct monitor_client *c, const char *name, const struct stat_options *o)
{
	struct stat_pair p = { .name = name };
	struct why why;
	unsigned done = 0;
	int status = STATUS_OK, r = ask(c, o, &p.before, &why);

	while (r == 0 && status == STATUS_OK && (!o->count || done < o->count)) {
		sleep_ms(o->interval_ms);
		r = ask(c, o, &p.after, &why);
		if (r < 0)
			break;
		if (is_same_machine(p.before, p.after)) {
			(o->json ? stat_print_json : stat_print_text)(&p, stdout);
			done++;
			if (!o->json && (!o->count || done < o->count))
				putchar('\n');
			status = output_check();
		} else {
			say("the machine has started again: this report is left out");
		}
		json_decref(p.before);
		p.before = p.after;
		p.after = NULL;
	}
	json_decref(p.before);
	if (r == 0 || (r == -EPIPE && done && !o->count))
		return status;
	say("%s", why.text);
	return STATUS_REFUSED;
}

int cmd_stat(int argc, char **argv)
{
	struct stat_options o = { .interval_ms = 0 };
	struct monitor_client client;
	const char *name = NULL;
	struct why why;
	int status, r = args_parse(&table, argc, argv, &o, &name, 1, &why);

	if (r == -ENOENT)
		return help();
	if (r == 0)
		r = why_set(&why, EINVAL, "stat needs the name of a VM; write anykvm stat NAME");
	if (r > 0 && o.png && !o.dirty)
		r = why_set(&why, EINVAL, "--png draws what --dirty measures; give both");
	if (r > 0 && o.dirty && (o.count > 120 || o.interval_ms > 60000))
		r = why_set(&why, EINVAL, "--dirty has at most 120 rounds of a minute");
	if (r > 0)
		r = monitor_client_open(&client, name, &why);
	if (r < 0) {
		say("%s", why.text);
		return STATUS_USAGE;
	}
	if (!o.interval_ms) {
		o.interval_ms = 1000;
		o.count = o.count ? o.count : o.dirty ? 10 : 1;
	}
	status = o.dirty ? stat_dirty(&client, name,
				      &(struct stat_dirty){ o.interval_ms, o.count ? o.count : 10,
							    o.json, o.png })
			 : follow(&client, name, &o);
	monitor_client_close(&client);
	return status;
}

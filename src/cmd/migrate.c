/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* anykvm migrate: a running VM goes to another process or host. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cmd/args.h"
#include "cmd/cmd.h"
#include "cmd/progress.h"
#include "vmm/monitor/client.h"
#include "vmm/move/uri.h"
#include "vmm/say.h"
#include "vmm/status.h"

struct migrate_options {
	u64 max_bandwidth;
	unsigned downtime, timeout;
	const char *strategy, *resolve;
	bool verify, json;
};

static int one_of(const char *value, const char *a, const char *b, void *field, struct why *why)
{
	if (strcmp(value, a) != 0 && strcmp(value, b) != 0)
		return why_set(why, EINVAL, "'%.40s' is unknown; give %s or %s", value, a, b);
	*(const char **)field = value;
	return 0;
}

static int parse_strategy(const char *value, void *field, struct why *why)
{
	return one_of(value, "cancel", "force", field, why);
}

static int parse_resolve(const char *value, void *field, struct why *why)
{
	return one_of(value, "run", "discard", field, why);
}

#define FIELD(f) offsetof(struct migrate_options, f)

static const struct args_row rows[] = {
	{ "max-bandwidth", 0, args_size, FIELD(max_bandwidth), "SIZE",
	  "per second, MiB without a unit; default: no limit" },
	{ "downtime", 0, args_count, FIELD(downtime), "MS",
	  "the guest may stand so long at the end; default: 300" },
	{ "timeout", 0, args_count, FIELD(timeout), "SECONDS", "of the whole; default: none" },
	{ "timeout-do", 0, parse_strategy, FIELD(strategy), "WHAT",
	  "after the timeout: cancel (default), or force the end however long the guest stands" },
	{ "verify", 0, NULL, FIELD(verify), NULL,
	  "compare SHA-256 of all memory on both sides while the guest stands" },
	{ "resolve", 0, parse_resolve, FIELD(resolve), "WHAT",
	  "a VM that stands after a cut in the commit exchange: run it, or discard it" },
	{ "json", 0, NULL, FIELD(json), NULL, "the report as one line of JSON on stdout" },
};

static const struct args_table table = { rows, ARRAY_SIZE(rows) };

static int help(void)
{
	printf("usage: anykvm migrate NAME URI [OPTIONS]\n"
	       "       anykvm migrate NAME --resolve run|discard\n\n"
	       "Sends the VM that 'anykvm run --name NAME' has started to the one that waits with\n"
	       "'anykvm run --incoming URI' and the same options. The guest runs until the end. "
	       "URI\n"
	       "is unix:PATH or tcp:HOST:PORT. Ctrl-C cancels.\n\n");
	args_help(&table, stdout);
	printf("\nExit status: 0 it runs there, 1 refused or failed (it runs here, unless the "
	       "message\n"
	       "says that it stands), 2 usage, or there is no such VM.\n");
	return STATUS_OK;
}

static json_t *arguments_make(const struct migrate_options *o, const char *uri)
{
	json_t *a = json_pack("{s:s,s:b,s:b}", "uri", uri, "verify", o->verify, "force",
			      o->strategy && strcmp(o->strategy, "force") == 0);

	if (a && o->max_bandwidth)
		json_object_set_new(a, "max-bandwidth", json_integer((json_int_t)o->max_bandwidth));
	if (a && o->downtime)
		json_object_set_new(a, "downtime-ms", json_integer(o->downtime));
	if (a && o->timeout)
		json_object_set_new(a, "timeout-ms", json_integer((json_int_t)o->timeout * 1000));
	return a;
}

static int resolve(const char *name, const char *how)
{
	struct monitor_client client;
	json_t *result = NULL;
	struct why why;
	int r;

	if (monitor_client_open(&client, name, &why) < 0) {
		say("%s", why.text);
		return STATUS_USAGE;
	}
	r = monitor_client_call(&client, "migrate-resolve", json_pack("{s:s}", "how", how), &result,
				&why);
	if (r < 0)
		say("%s", why.text);
	json_decref(result);
	monitor_client_close(&client);
	return r < 0 ? STATUS_REFUSED : STATUS_OK;
}

int cmd_migrate(int argc, char **argv)
{
	struct migrate_options o = { .max_bandwidth = 0 };
	const char *words[2] = { NULL, NULL };
	struct why why;
	int r = args_parse(&table, argc, argv, &o, words, 2, &why);

	if (r == -ENOENT)
		return help();
	if (r >= 0 && r != (o.resolve ? 1 : 2))
		r = why_set(&why, EINVAL,
			    "migrate needs a name and a place; write anykvm migrate NAME URI, or "
			    "anykvm migrate NAME --resolve run");
	if (r == 2)
		r = uri_check(words[1], &why);
	if (r < 0) {
		say("%s", why.text);
		return STATUS_USAGE;
	}
	if (o.resolve)
		return resolve(words[0], o.resolve);
	return progress_run(words[0], "migrate", arguments_make(&o, words[1]), o.json);
}

/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* What the monitor of a VM is asked. */
#include "vmm/manage.h"

#include <errno.h>
#include <string.h>

#include "anykvm/anykvm.h"
#include "vmm/move/uri.h"

static int no_arguments(json_t *arguments, struct why *why)
{
	if (!json_object_size(arguments))
		return 0;
	return why_set(why, EINVAL, "this command takes no arguments");
}

static int ending(struct why *why)
{
	return why_set(why, EBUSY, "the machine is ending or starting again; ask once more");
}

static const char *status_name(const struct manage *m)
{
	const unsigned closed = atomic_load(&m->control->gate.closed);

	if (closed & GATE_INCOMING)
		return m->incoming && incoming_status(m->incoming) == INCOMING_UNRESOLVED
			       ? "postmigrate"
			       : "inmigrate";
	if (closed & GATE_UNRESOLVED)
		return "postmigrate";
	if (closed & GATE_MOVE)
		return "finish-migrate";
	if (closed & GATE_DEBUG)
		return "debug";
	return closed ? "paused" : "running";
}

static int query_status(void *owner, json_t *arguments, json_t **result, struct why *why)
{
	const struct manage *m = owner;

	if (no_arguments(arguments, why) < 0)
		return -EINVAL;
	*result = json_pack("{s:s,s:b,s:b}", "status", status_name(m), "running",
			    control_is_running(m->control), "singlestep", 0);
	return 0;
}

static int query_name(void *owner, json_t *arguments, json_t **result, struct why *why)
{
	const struct manage *m = owner;

	*result = json_pack("{s:s}", "name", m->name);
	return no_arguments(arguments, why);
}

static int query_version(void *owner, json_t *arguments, json_t **result, struct why *why)
{
	(void)owner;
	*result = json_pack("{s:s}", "anykvm", anykvm_version());
	return no_arguments(arguments, why);
}

/* Processors stand or go for the user's sake, and whoever listens is told. */
static int change(const struct manage *m, json_t *arguments,
		  int (*fn)(struct control *c, enum gate_reason reason, struct why *why),
		  const char *event, struct why *why)
{
	int r = no_arguments(arguments, why);

	if (r < 0)
		return r;
	if (!control_hold(m->control))
		return ending(why);
	r = fn(m->control, GATE_USER, why);
	control_release(m->control);
	if (r == 0)
		monitor_event(m->monitor, event, NULL);
	return r;
}

static int stop(void *owner, json_t *arguments, json_t **result, struct why *why)
{
	(void)result;
	return change(owner, arguments, control_stop, "STOP", why);
}

static int cont(void *owner, json_t *arguments, json_t **result, struct why *why)
{
	(void)result;
	return change(owner, arguments, control_go, "RESUME", why);
}

static int quit(void *owner, json_t *arguments, json_t **result, struct why *why)
{
	const struct manage *m = owner;
	const int r = no_arguments(arguments, why);

	(void)result;
	if (r < 0)
		return r;
	if (!control_hold(m->control))
		return ending(why);
	m->control->ops.end(m->control->ops.owner, VM_QUIT);
	control_release(m->control);
	return 0;
}

/* A string of @arguments, which has no other members. */
static const char *only_string(json_t *arguments, const char *key, struct why *why)
{
	const char *text = json_string_value(json_object_get(arguments, key));

	if (text && *text && json_object_size(arguments) == 1)
		return text;
	why_set(why, EINVAL, "this command takes one argument, the string \"%s\"", key);
	return NULL;
}

/* A path of @arguments: 1, or 0 if it has not that key. */
static int path_take(char out[4096], json_t *arguments, const char *key, struct why *why)
{
	const char *text = json_string_value(json_object_get(arguments, key));

	if (!json_object_get(arguments, key))
		return 0;
	if (!text || text[0] != '/' || strlen(text) >= 4096)
		return why_set(why, EINVAL, "\"%s\" is an absolute path, and not too long", key);
	memcpy(out, text, strlen(text) + 1);
	return 1;
}

static int snapshot(void *owner, json_t *arguments, json_t **result, struct why *why)
{
	json_t *follow = json_object_get(arguments, "follow");
	struct move_options options = { .follow = json_is_true(follow) };
	struct manage *m = owner;
	int file = path_take(options.target, arguments, "file", why);
	int base = file < 0 ? file : path_take(options.base, arguments, "base", why);

	(void)result;
	if (base < 0)
		return base;
	if (!file || (follow && !json_is_boolean(follow)) ||
	    (int)json_object_size(arguments) != file + base + !!follow)
		return why_set(why, EINVAL,
			       "this command takes the string \"file\", and if wished the string "
			       "\"base\" and the boolean \"follow\"");
	return job_start(&m->job, "snapshot", snapshot_take, &options, why);
}

/* Members of migrate's arguments, each optional but the first. */
enum { ARGUMENT_TEXT, ARGUMENT_NUMBER, ARGUMENT_BOOLEAN };

static const struct argument_row {
	const char *name;
	int kind;
	size_t field;
	double scale; /* of a number */
} migrate_rows[] = {
	{ "uri", ARGUMENT_TEXT, offsetof(struct move_options, target), 0 },
	{ "max-bandwidth", ARGUMENT_NUMBER, offsetof(struct move_options, max_bandwidth), 1 },
	{ "downtime-ms", ARGUMENT_NUMBER, offsetof(struct move_options, downtime_us), 1e3 },
	{ "timeout-ms", ARGUMENT_NUMBER, offsetof(struct move_options, timeout_us), 1e3 },
	{ "force", ARGUMENT_BOOLEAN, offsetof(struct move_options, force), 0 },
	{ "verify", ARGUMENT_BOOLEAN, offsetof(struct move_options, verify), 0 },
};

/* False: the value is none of its kind. */
static bool argument_take(struct move_options *o, const struct argument_row *row, json_t *value)
{
	void *field = (u8 *)o + row->field;
	const double number = json_number_value(value) * row->scale;

	switch (row->kind) {
	case ARGUMENT_TEXT:
		if (!json_is_string(value) || json_string_length(value) >= sizeof(o->target))
			return false;
		memcpy(field, json_string_value(value), json_string_length(value) + 1);
		return true;
	case ARGUMENT_NUMBER:
		if (!json_is_number(value) || !(number >= 0 && number < 1e15))
			return false;
		*(u64 *)field = (u64)number;
		return true;
	default:
		*(bool *)field = json_is_true(value);
		return json_is_boolean(value);
	}
}

static int arguments_take(struct move_options *o, json_t *arguments, struct why *why)
{
	const char *key;
	json_t *value;

	json_object_foreach(arguments, key, value)
	{
		const struct argument_row *row = NULL;

		for (size_t i = 0; i < ARRAY_SIZE(migrate_rows) && !row; i++)
			if (strcmp(migrate_rows[i].name, key) == 0)
				row = &migrate_rows[i];
		if (!row)
			return why_set(why, EINVAL, "migrate has no argument '%.40s'", key);
		if (!argument_take(o, row, value))
			return why_set(why, EINVAL, "the argument '%s' has a wrong value", key);
	}
	return o->target[0] ? 0 : why_set(why, EINVAL, "migrate needs the argument 'uri'");
}

static int migrate(void *owner, json_t *arguments, json_t **result, struct why *why)
{
	struct move_options options = { .downtime_us = 300000 };
	struct manage *m = owner;
	int r = arguments_take(&options, arguments, why);

	(void)result;
	if (r == 0)
		r = uri_check(options.target, why);
	if (r == 0 && atomic_load(&m->control->gate.closed) & (GATE_INCOMING | GATE_UNRESOLVED))
		r = why_set(why, EBUSY, "the machine has not arrived here, or is not resolved");
	return r < 0 ? r : job_start(&m->job, "migration", migration_send, &options, why);
}

static int source_resolve(struct manage *m, bool runs_here, struct why *why)
{
	int r = 0;

	if (job_status(&m->job) != MOVE_UNRESOLVED)
		return why_set(why, EINVAL, "there is nothing to resolve");
	if (!control_hold(m->control))
		return ending(why);
	if (runs_here)
		r = control_go(m->control, GATE_UNRESOLVED, why);
	else
		m->control->ops.end(m->control->ops.owner, VM_MOVED);
	control_release(m->control);
	if (r == 0)
		job_resolve(&m->job, runs_here ? "resolved: it runs here" : "resolved: discarded");
	return r;
}

static int migrate_resolve(void *owner, json_t *arguments, json_t **result, struct why *why)
{
	const char *how = only_string(arguments, "how", why);
	struct manage *m = owner;
	bool runs_here;

	(void)result;
	if (!how)
		return -EINVAL;
	runs_here = strcmp(how, "run") == 0;
	if (!runs_here && strcmp(how, "discard") != 0)
		return why_set(why, EINVAL, "\"how\" is \"run\" or \"discard\"");
	if (m->incoming && incoming_status(m->incoming) == INCOMING_UNRESOLVED)
		return incoming_resolve(m->incoming, runs_here, why);
	return source_resolve(m, runs_here, why);
}

static json_t *incoming_report(struct incoming *in)
{
	static const char *const names[] = {
		[INCOMING_ACTIVE] = "active",
		[INCOMING_RUNNING] = "completed",
		[INCOMING_FAILED] = "failed",
		[INCOMING_UNRESOLVED] = "unresolved",
	};
	char error[sizeof(in->error)];
	const enum incoming_status status = incoming_why(in, error);

	return json_pack("{s:s,s:s,s:s}", "status", names[status], "kind", "incoming", "error-desc",
			 error);
}

static int query_migrate(void *owner, json_t *arguments, json_t **result, struct why *why)
{
	struct manage *m = owner;

	if (no_arguments(arguments, why) < 0)
		return -EINVAL;
	*result = m->incoming && job_status(&m->job) == MOVE_NONE ? incoming_report(m->incoming)
								  : job_report(&m->job);
	return 0;
}

static int migrate_cancel(void *owner, json_t *arguments, json_t **result, struct why *why)
{
	struct manage *m = owner;

	(void)result;
	if (no_arguments(arguments, why) < 0)
		return -EINVAL;
	job_cancel(&m->job);
	return 0;
}

/* "sample-ms": how long to go on looking where the processors are. */
static int query_stat(void *owner, json_t *arguments, json_t **result, struct why *why)
{
	json_t *ms = json_object_get(arguments, "sample-ms");
	struct manage *m = owner;

	if (json_object_size(arguments) != (ms != NULL) ||
	    (ms && (!json_is_integer(ms) || json_integer_value(ms) < 0 ||
		    json_integer_value(ms) > SAMPLER_MAX_MS)))
		return why_set(why, EINVAL,
			       "this command takes one argument, \"sample-ms\" from 0 to %u",
			       SAMPLER_MAX_MS);
	return sampler_report(&m->sampler, (unsigned)json_integer_value(ms), result, why);
}

static int measure_dirty(void *owner, json_t *arguments, json_t **result, struct why *why)
{
	struct manage *m = owner;
	const struct move_options options = { .measure = &m->measure };
	const json_int_t ms = json_integer_value(json_object_get(arguments, "interval-ms"));
	const json_int_t rounds = json_integer_value(json_object_get(arguments, "rounds"));

	(void)result;
	if (json_object_size(arguments) != 2 || ms < 10 || ms > 60000 || rounds < 1 ||
	    rounds > MEASURE_ROUNDS)
		return why_set(why, EINVAL,
			       "this command takes \"interval-ms\" from 10 to 60000 and "
			       "\"rounds\" from 1 to %u",
			       MEASURE_ROUNDS);
	if (atomic_load(&m->control->gate.closed) & (GATE_INCOMING | GATE_UNRESOLVED))
		return why_set(why, EBUSY, "the machine has not arrived here, or is not resolved");
	if (job_status(&m->job) == MOVE_ACTIVE)
		return why_set(why, EBUSY, "a migration, snapshot or measurement is under way");
	/* No job runs, and this is the only thread that starts one. */
	pthread_mutex_lock(&m->measure.lock);
	m->measure.interval_ms = (unsigned)ms;
	m->measure.wanted = (unsigned)rounds;
	m->measure.done = 0;
	pthread_mutex_unlock(&m->measure.lock);
	return job_start(&m->job, "measurement", measure_run, &options, why);
}

static int query_dirty(void *owner, json_t *arguments, json_t **result, struct why *why)
{
	struct manage *m = owner;

	if (no_arguments(arguments, why) < 0)
		return -EINVAL;
	*result = measure_report(&m->measure);
	return 0;
}

static void job_told(void *owner, const char *event)
{
	struct manage *m = owner;
	monitor_event(m->monitor, event, job_report(&m->job));
}

static const struct monitor_command commands[] = {
	{ "query-status", query_status },
	{ "query-name", query_name },
	{ "query-version", query_version },
	{ "stop", stop },
	{ "cont", cont },
	{ "quit", quit },
	{ "snapshot", snapshot },
	{ "migrate", migrate },
	{ "migrate-resolve", migrate_resolve },
	{ "query-migrate", query_migrate },
	{ "migrate-cancel", migrate_cancel },
	{ "query-stat", query_stat },
	{ "measure-dirty", measure_dirty },
	{ "query-dirty", query_dirty },
};

int manage_open(struct manage *m, struct control *control, const char *name,
		struct incoming *incoming, struct why *why)
{
	*m = (struct manage){ .control = control, .name = name, .incoming = incoming };
	job_init(&m->job, control, job_told, m);
	sampler_init(&m->sampler, control);
	measure_init(&m->measure);
	if (!name)
		return 0;
	return monitor_open(&m->monitor, name,
			    (struct monitor_table){ commands, ARRAY_SIZE(commands), m }, why);
}

void manage_close(struct manage *m)
{
	if (!m->control)
		return;
	job_join(&m->job); /* it may tell something to the monitor */
	if (m->monitor)
		monitor_close(m->monitor);
	sampler_destroy(&m->sampler);
	measure_destroy(&m->measure);
	memset(m, 0, sizeof(*m));
}

void manage_machine_ends(struct manage *m)
{
	if (!m->control)
		return;
	job_join(&m->job);
	if (m->incoming)
		incoming_join(m->incoming);
}

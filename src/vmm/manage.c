/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* What the monitor of a VM is asked. */
#include "vmm/manage.h"

#include <errno.h>
#include <string.h>

#include "anykvm/anykvm.h"

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

static const char *status_name(struct control *c)
{
	const unsigned closed = atomic_load(&c->gate.closed);

	if (closed & GATE_INCOMING)
		return "inmigrate";
	if (closed & GATE_UNRESOLVED)
		return "postmigrate";
	if (closed & GATE_MOVE)
		return "finish-migrate";
	return closed ? "paused" : "running";
}

static int query_status(void *owner, json_t *arguments, json_t **result, struct why *why)
{
	const struct manage *m = owner;

	if (no_arguments(arguments, why) < 0)
		return -EINVAL;
	*result = json_pack("{s:s,s:b,s:b}", "status", status_name(m->control), "running",
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

static int stop(void *owner, json_t *arguments, json_t **result, struct why *why)
{
	const struct manage *m = owner;
	int r = no_arguments(arguments, why);

	(void)result;
	if (r < 0)
		return r;
	if (!control_hold(m->control))
		return ending(why);
	r = control_stop(m->control, GATE_USER, why);
	control_release(m->control);
	if (r == 0)
		monitor_event(m->monitor, "STOP", NULL);
	return r;
}

static int cont(void *owner, json_t *arguments, json_t **result, struct why *why)
{
	const struct manage *m = owner;
	int r = no_arguments(arguments, why);

	(void)result;
	if (r < 0)
		return r;
	if (!control_hold(m->control))
		return ending(why);
	r = control_go(m->control, GATE_USER, why);
	control_release(m->control);
	if (r == 0)
		monitor_event(m->monitor, "RESUME", NULL);
	return r;
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

static int snapshot(void *owner, json_t *arguments, json_t **result, struct why *why)
{
	const char *file = only_string(arguments, "file", why);
	struct move_options options = { .target = "" };
	struct manage *m = owner;

	(void)result;
	if (!file)
		return -EINVAL;
	if (file[0] != '/' || strlen(file) >= sizeof(options.target))
		return why_set(why, EINVAL, "\"file\" is an absolute path, and not too long");
	memcpy(options.target, file, strlen(file) + 1);
	return job_start(&m->job, "snapshot", snapshot_take, &options, why);
}

static int query_migrate(void *owner, json_t *arguments, json_t **result, struct why *why)
{
	struct manage *m = owner;

	if (no_arguments(arguments, why) < 0)
		return -EINVAL;
	*result = job_report(&m->job);
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

static void job_told(void *owner, const char *event)
{
	struct manage *m = owner;
	json_t *report = job_report(&m->job), *data = json_object();

	json_object_set(data, "status", json_object_get(report, "status"));
	json_decref(report);
	monitor_event(m->monitor, event, data);
}

static const struct monitor_command commands[] = {
	{ "query-status", query_status },
	{ "query-name", query_name },
	{ "query-version", query_version },
	{ "stop", stop },
	{ "cont", cont },
	{ "quit", quit },
	{ "snapshot", snapshot },
	{ "query-migrate", query_migrate },
	{ "migrate-cancel", migrate_cancel },
};

int manage_open(struct manage *m, struct control *control, const char *name, struct why *why)
{
	*m = (struct manage){ .control = control, .name = name };
	job_init(&m->job, control, job_told, m);
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
	memset(m, 0, sizeof(*m));
}

void manage_machine_ends(struct manage *m)
{
	if (m->control)
		job_join(&m->job);
}

/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* A snapshot or migration of a running VM, followed to its end. */
#include "cmd/progress.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "vmm/monitor/client.h"
#include "vmm/say.h"
#include "vmm/status.h"

#define FAST_POLL_MS 5
#define SLOW_POLL_MS 100

static volatile sig_atomic_t interrupted;

static void interrupt(int signal)
{
	(void)signal;
	interrupted = 1;
}

static double number(json_t *object, const char *key)
{
	return json_number_value(json_object_get(object, key));
}

/* Rounds that were not told yet. */
static void rounds_print(json_t *report, int *told)
{
	json_t *rounds = json_object_get(report, "rounds"), *round;
	size_t i;

	json_array_foreach(rounds, i, round)
	{
		const int n = (int)number(round, "round");

		if (n <= *told)
			continue;
		*told = n;
		fprintf(stderr,
			"round %d: %.1f MiB in %.0f ms (%.0f MiB/s), written meanwhile %.1f MiB "
			"(%.1f MiB/s), throttle %.0f%%\n",
			n, number(round, "bytes") / 1048576, number(round, "ms"),
			number(round, "link-rate") / 1048576, number(round, "left-bytes") / 1048576,
			number(round, "dirty-rate") / 1048576, number(round, "throttle"));
	}
}

static int end_print(json_t *report, bool json)
{
	json_t *parts = json_object_get(report, "downtime");
	const char *error = json_string_value(json_object_get(report, "error-desc"));
	const char *sha = json_string_value(json_object_get(report, "sha256"));
	char *text;

	if (error)
		say("%s", error);
	if (json) {
		text = json_dumps(report, JSON_COMPACT | JSON_REAL_PRECISION(9));
		if (text)
			puts(text);
		free(text);
	} else {
		printf("%s %s in %.0f ms; the guest stood %.1f ms (stop %.1f, last pages %.1f, "
		       "state "
		       "%.1f, commit %.1f)\n",
		       json_string_value(json_object_get(report, "kind")),
		       json_string_value(json_object_get(report, "status")),
		       number(report, "total-ms"), number(report, "downtime-ms"),
		       number(parts, "stop-ms"), number(parts, "last-pages-ms"),
		       number(parts, "state-ms"), number(parts, "commit-ms"));
		if (sha)
			printf("SHA-256 of memory, equal on both sides: %s\n", sha);
	}
	return fflush(stdout) == 0 ? STATUS_OK : STATUS_OUTPUT;
}

/* False: it is over, and *@status says how. */
static bool report_look(struct monitor_client *c, json_t **report, int *status)
{
	struct why why = { "" };
	json_t *result;
	const char *text;

	if (monitor_client_call(c, "query-migrate", NULL, &result, &why) < 0 && c->moved) {
		result = json_incref(c->moved);
	} else if (why.text[0]) {
		say("%s", why.text);
		*status = STATUS_REFUSED;
		return false;
	}
	json_decref(*report);
	*report = result;
	text = json_string_value(json_object_get(result, "status"));
	*status = text && strcmp(text, "completed") == 0 ? STATUS_OK : STATUS_REFUSED;
	return text && strcmp(text, "active") == 0;
}

static int follow(struct monitor_client *c, bool json)
{
	struct timespec pause = { 0, FAST_POLL_MS * 1000000l };
	json_t *report = NULL, *ignored;
	bool is_cancelled = false;
	int status, told = 0;
	struct why why;

	while (report_look(c, &report, &status)) {
		if (!json)
			rounds_print(report, &told);
		if (interrupted && !is_cancelled) {
			is_cancelled = true;
			if (monitor_client_call(c, "migrate-cancel", NULL, &ignored, &why) == 0)
				json_decref(ignored);
		}
		nanosleep(&pause, NULL);
		if (pause.tv_nsec < SLOW_POLL_MS * 1000000l)
			pause.tv_nsec += 1000000l;
	}
	if (report && !json)
		rounds_print(report, &told);
	if (report && end_print(report, json) != STATUS_OK)
		status = STATUS_OUTPUT;
	json_decref(report);
	return status;
}

int progress_run(const char *name, const char *command, json_t *arguments, bool json)
{
	const struct sigaction action = { .sa_handler = interrupt };
	struct monitor_client client;
	json_t *result;
	struct why why;
	int status;

	if (monitor_client_open(&client, name, &why) < 0) {
		say("%s", why.text);
		json_decref(arguments);
		return STATUS_USAGE;
	}
	sigaction(SIGINT, &action, NULL);
	sigaction(SIGTERM, &action, NULL);
	if (monitor_client_call(&client, command, arguments, &result, &why) < 0) {
		say("%s", why.text);
		status = STATUS_REFUSED;
	} else {
		json_decref(result);
		status = follow(&client, json);
	}
	monitor_client_close(&client);
	return status;
}

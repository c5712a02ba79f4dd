/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* anykvm doctor: what this machine has, what it lacks, and what to do about it. */
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "cmd/args.h"
#include "cmd/checks.h"
#include "cmd/cmd.h"
#include "vmm/say.h"
#include "vmm/status.h"

struct doctor_options {
	bool json;
};

static const struct args_row doctor_rows[] = {
	{ "json", 0, NULL, offsetof(struct doctor_options, json), NULL, "print JSON" },
};

static const struct args_table doctor_table = { doctor_rows, ARRAY_SIZE(doctor_rows) };

static const char *const level_names[] = {
	[CHECK_INFO] = "info",
	[CHECK_PASS] = "pass",
	[CHECK_WARN] = "warn",
	[CHECK_FAIL] = "fail",
};

static int help(void)
{
	printf("usage: anykvm doctor [OPTIONS] [-- COMMAND...]\n\n"
	       "Looks at processor, /dev/kvm, memory and limits, and says what to do; with "
	       "COMMAND,\n"
	       "by which way anykvm gets into it.\n\n");
	args_help(&doctor_table, stdout);
	printf("\nExit status: 0 nothing failed, 3 something failed, 2 usage.\n");
	return STATUS_OK;
}

static void print_text(const struct check *c)
{
	printf("%-4s  %-12s %s%s%s%s\n", level_names[c->level], c->name, c->text,
	       c->code ? " (" : "", c->code ? c->code : "", c->code ? ")" : "");
	if (c->todo[0])
		printf("%-4s  %-12s -> %s\n", "", "", c->todo);
}

static int print_json(const struct check *checks, unsigned n, bool ok)
{
	json_t *list = json_array(), *all;
	int r;

	for (unsigned i = 0; i < n; i++) {
		const struct check *c = &checks[i];

		json_array_append_new(list,
				      json_pack("{ss ss ss ss* ss*}", "check", c->name, "level",
						level_names[c->level], "text", c->text, "code",
						c->code, "todo", c->todo[0] ? c->todo : NULL));
	}
	all = json_pack("{si sb so}", "version", 1, "ok", ok, "checks", list);
	r = all ? json_dumpf(all, stdout, JSON_INDENT(2)) : -1;
	printf("\n");
	json_decref(all);
	return r;
}

static int diagnose(const char *command, bool json)
{
	struct check checks[CHECKS_MAX];
	unsigned n = checks_run(checks, command);
	bool ok = true;
	int r = 0;

	for (unsigned i = 0; i < n; i++) {
		ok &= checks[i].level != CHECK_FAIL;
		if (!json)
			print_text(&checks[i]);
	}
	if (json)
		r = print_json(checks, n, ok);
	if (r || fflush(stdout)) {
		say("cannot write to stdout: %s", strerror(errno));
		return STATUS_OUTPUT;
	}
	return ok ? STATUS_OK : STATUS_PREFLIGHT;
}

int cmd_doctor(int argc, char **argv)
{
	struct doctor_options o = { false };
	const char *command = NULL;
	struct why why;
	int own = 1, r;

	/* What follows the command's name is the command's own. */
	while (own < argc && argv[own][0] == '-' && strcmp(argv[own], "--") != 0)
		own++;
	r = args_parse(&doctor_table, own, argv, &o, NULL, 0, &why);
	if (r == -ENOENT)
		return help();
	if (r < 0) {
		say("%s", why.text);
		return STATUS_USAGE;
	}
	if (own < argc && strcmp(argv[own], "--") == 0)
		own++;
	if (own < argc)
		command = argv[own];
	return diagnose(command, o.json);
}

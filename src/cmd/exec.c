/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* anykvm exec and anykvm env: other programs, with the preload library. */
#define _GNU_SOURCE /* asprintf */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cmd/args.h"
#include "cmd/cmd.h"
#include "cmd/exec.h"
#include "vmm/say.h"
#include "vmm/status.h"

#define PRELOAD_ENV "LD_PRELOAD"
#define MODE_ENV    "ANYKVM"

static const struct args_table exec_table = { NULL, 0 };

static int exec_help(void)
{
	printf("usage: anykvm exec [--] COMMAND [ARGUMENT...]\n\n"
	       "Runs COMMAND with anykvm's own /dev/kvm, whether or not the machine has one.\n"
	       "Environment: " PRELOAD_ENV " gets the preload library, " MODE_ENV " is force.\n\n"
	       "Exit status: that of COMMAND; 2 usage, 3 anykvm cannot get into COMMAND, 126 it\n"
	       "cannot be run, 127 it is not found.\n");
	return STATUS_OK;
}

int exec_options_end(int argc, char **argv)
{
	int i = 1;

	while (i < argc && argv[i][0] == '-' && argv[i][1] && strcmp(argv[i], "--") != 0)
		i++;
	return i;
}

static int preload_add(const char *library, struct why *why)
{
	const char *old = getenv(PRELOAD_ENV);
	char *text;

	if (old && strstr(old, library))
		return 0;
	if (asprintf(&text, "%s%s%s", library, old && *old ? ":" : "", old ? old : "") < 0)
		return why_set(why, ENOMEM, "out of memory");
	setenv(PRELOAD_ENV, text, 1);
	free(text);
	return 0;
}

int exec_prepare(struct program *program, char *const command[])
{
	char library[PATH_MAX];
	struct why why;
	int r = program_inspect(program, command[0], &why);

	if (r < 0) {
		say("%s", why.text);
		return r == -ENOENT ? STATUS_NOT_FOUND : STATUS_NOT_RUN;
	}
	r = program_check(program, &why);
	if (!r)
		r = preload_find(library, &why);
	if (!r)
		r = preload_add(library, &why);
	if (r < 0) {
		say("%s", why.text);
		return STATUS_PREFLIGHT;
	}
	setenv(MODE_ENV, "force", 1);
	return STATUS_OK;
}

static int command_run(char **command)
{
	struct program program;
	int status = exec_prepare(&program, command);

	if (status != STATUS_OK)
		return status;
	execv(program.path, command);
	say("%s: %s", program.path, strerror(errno));
	return STATUS_NOT_RUN;
}

int cmd_exec(int argc, char **argv)
{
	int end = exec_options_end(argc, argv);
	struct why why;
	int r = args_parse(&exec_table, end, argv, NULL, NULL, 0, &why);

	if (r == -ENOENT)
		return exec_help();
	if (r < 0) {
		say("%s", why.text);
		return STATUS_USAGE;
	}
	if (end < argc && strcmp(argv[end], "--") == 0)
		end++;
	if (end >= argc) {
		say("exec needs a command; write anykvm exec -- COMMAND");
		return STATUS_USAGE;
	}
	return command_run(argv + end);
}

struct env_options {
	const char *mode;
};

static int parse_mode(const char *value, void *field, struct why *why)
{
	if (strcmp(value, "auto") && strcmp(value, "force") && strcmp(value, "off"))
		return why_set(why, EINVAL, "'%.40s' is no mode; give auto, force or off", value);
	*(const char **)field = value;
	return 0;
}

static const struct args_row env_rows[] = {
	{ "mode", 'm', parse_mode, offsetof(struct env_options, mode), "MODE",
	  "auto (default): the device where it works, else anykvm; force: anykvm; off: the "
	  "device" },
};

static const struct args_table env_table = { env_rows, ARRAY_SIZE(env_rows) };

static int env_help(void)
{
	printf("usage: anykvm env [OPTIONS]\n\n"
	       "Prints the lines of shell that make every program started from this shell find\n"
	       "/dev/kvm:  eval \"$(anykvm env)\"\n\n");
	args_help(&env_table, stdout);
	return STATUS_OK;
}

int cmd_env(int argc, char **argv)
{
	struct env_options o = { "auto" };
	char library[PATH_MAX];
	struct why why;
	int r = args_parse(&env_table, argc, argv, &o, NULL, 0, &why);

	if (r == -ENOENT)
		return env_help();
	if (r < 0) {
		say("%s", why.text);
		return STATUS_USAGE;
	}
	if (preload_find(library, &why) < 0) {
		say("%s", why.text);
		return STATUS_PREFLIGHT;
	}
	if (strchr(library, '\'')) {
		say("%.200s: the path cannot be quoted; move it (AK001)", library);
		return STATUS_PREFLIGHT;
	}
	printf("export " PRELOAD_ENV "='%s'${" PRELOAD_ENV ":+:$" PRELOAD_ENV "}\n"
	       "export " MODE_ENV "=%s\n",
	       library, o.mode);
	if (fflush(stdout) == 0)
		return STATUS_OK;
	say("cannot write to stdout: %s", strerror(errno));
	return STATUS_OUTPUT;
}

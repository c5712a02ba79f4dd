/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The anykvm command: one table of verbs. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "anykvm/anykvm.h"
#include "base/types.h"
#include "cmd/args.h"
#include "cmd/cmd.h"
#include "vmm/say.h"
#include "vmm/status.h"

static int cmd_version(int argc, char **argv);
static int cmd_help(int argc, char **argv);

static const struct verb {
	const char *name; /* first: args_nearest() looks there */
	int (*run)(int argc, char **argv);
	const char *help;
} verbs[] = {
	{ "run", cmd_run, "run a VM, with Debian's kernel and a shell when nothing else is asked" },
	{ "exec", cmd_exec, "run a KVM program, unmodified, with anykvm's own /dev/kvm" },
	{ "env", cmd_env, "print the environment that does the same for a whole shell" },
	{ "trace", cmd_trace, "run a KVM program and show its ioctls and exits, decoded" },
	{ "migrate", cmd_migrate, "send a running VM to another process or host" },
	{ "snapshot", cmd_snapshot, "write a running VM to a file" },
	{ "restore", cmd_restore, "run a VM from such a file" },
	{ "stat", cmd_stat, "show where the time of a running VM goes" },
	{ "ctl", cmd_ctl, "ask or tell a running VM something by its name" },
	{ "doctor", cmd_doctor, "say what this machine has and lacks, and what to do" },
	{ "explain", cmd_explain, "explain the code of a message" },
	{ "fetch", cmd_fetch, "fetch a Debian kernel into the cache" },
	{ "version", cmd_version, "print the version" },
	{ "help", cmd_help, "print this list, or the options of a verb" },
};

static const struct verb *verb_find(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(verbs); i++)
		if (strcmp(verbs[i].name, name) == 0)
			return &verbs[i];
	return NULL;
}

static int output_status(void)
{
	if (fflush(stdout) == 0)
		return STATUS_OK;
	say("cannot write to stdout: %s", strerror(errno));
	return STATUS_OUTPUT;
}

static void usage(FILE *out)
{
	fprintf(out, "usage: anykvm VERB [OPTIONS]\n\n");
	for (size_t i = 0; i < ARRAY_SIZE(verbs); i++)
		fprintf(out, "  %-8s %s\n", verbs[i].name, verbs[i].help);
	fprintf(out, "\n'anykvm VERB --help' lists the options of a verb.\n");
}

static int cmd_version(int argc, char **argv)
{
	(void)argc;
	(void)argv;
	printf("anykvm %s\n", anykvm_version());
	return output_status();
}

static int verb_unknown(const char *name)
{
	const char *near = args_nearest(name, verbs, ARRAY_SIZE(verbs), sizeof(verbs[0]));

	if (near)
		say("there is no verb '%s'; did you mean '%s'?", name, near);
	else
		say("there is no verb '%s'; 'anykvm help' lists them", name);
	return STATUS_USAGE;
}

static int cmd_help(int argc, char **argv)
{
	char *help[] = { argc > 1 ? argv[1] : NULL, (char *)"--help", NULL };
	const struct verb *v;

	if (argc < 2) {
		usage(stdout);
		return output_status();
	}
	v = verb_find(argv[1]);
	if (!v)
		return verb_unknown(argv[1]);
	/* The verbs without options explain themselves in the list. */
	if (v->run == cmd_help || v->run == cmd_version) {
		printf("usage: anykvm %s\n\n%s\n", v->name, v->help);
		return output_status();
	}
	return v->run(2, help);
}

int main(int argc, char **argv)
{
	const struct verb *v;
	const char *name;

	if (argc < 2) {
		usage(stderr);
		return STATUS_USAGE;
	}
	name = argv[1];
	if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0)
		name = "help";
	if (strcmp(name, "--version") == 0)
		name = "version";
	v = verb_find(name);
	return v ? v->run(argc - 1, argv + 1) : verb_unknown(name);
}

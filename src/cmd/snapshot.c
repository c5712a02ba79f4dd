/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* anykvm snapshot: a running VM writes itself to a file and runs on. */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cmd/args.h"
#include "cmd/cmd.h"
#include "cmd/progress.h"
#include "vmm/say.h"
#include "vmm/status.h"

struct snapshot_options {
	bool json, follow;
	const char *base;
};

static const struct args_row rows[] = {
	{ "base", 0, args_text, offsetof(struct snapshot_options, base), "FILE",
	  "write only what changed since this snapshot of the VM" },
	{ "follow", 0, NULL, offsetof(struct snapshot_options, follow), NULL,
	  "let the VM remember what it writes from here on, for --base" },
	{ "json", 0, NULL, offsetof(struct snapshot_options, json), NULL,
	  "the report as one line of JSON on stdout" },
};
static const struct args_table table = { rows, ARRAY_SIZE(rows) };

static int help(void)
{
	printf("usage: anykvm snapshot NAME FILE [OPTIONS]\n\n"
	       "The VM that 'anykvm run --name NAME' has started writes its memory and state to\n"
	       "FILE, and runs on. FILE is there whole or not at all; Ctrl-C cancels. An increment "
	       "(--base)\n"
	       "needs its base in the same folder, or where it was, to be restored.\n\n");
	args_help(&table, stdout);
	printf("\nExit status: 0 written, 1 refused or failed, 2 usage, or there is no such VM.\n");
	return STATUS_OK;
}

/* The VM may have another current folder. */
static int path_absolute(char *out, size_t room, const char *path, struct why *why)
{
	char folder[PATH_MAX];
	int n;

	if (path[0] == '/')
		n = snprintf(out, room, "%s", path);
	else if (getcwd(folder, sizeof(folder)))
		n = snprintf(out, room, "%s/%s", folder, path);
	else
		return why_set(why, errno, "the current folder is gone: %s", strerror(errno));
	return n < (int)room ? 0 : why_set(why, ENAMETOOLONG, "the path is too long");
}

int cmd_snapshot(int argc, char **argv)
{
	const char *words[2] = { NULL, NULL };
	struct snapshot_options o = { .base = NULL };
	char path[PATH_MAX], base[PATH_MAX];
	json_t *arguments;
	struct why why;
	int r = args_parse(&table, argc, argv, &o, words, 2, &why);

	if (r == -ENOENT)
		return help();
	if (r >= 0 && r < 2)
		r = why_set(&why, EINVAL,
			    "snapshot needs a name and a file; write anykvm snapshot NAME FILE");
	if (r >= 0)
		r = path_absolute(path, sizeof(path), words[1], &why);
	if (r >= 0 && o.base)
		r = path_absolute(base, sizeof(base), o.base, &why);
	if (r < 0) {
		say("%s", why.text);
		return STATUS_USAGE;
	}
	arguments = json_pack("{s:s,s:b}", "file", path, "follow", o.follow);
	if (o.base)
		json_object_set_new(arguments, "base", json_string(base));
	return progress_run(words[0], "snapshot", arguments, o.json);
}

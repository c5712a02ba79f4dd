/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* anykvm fetch: a Debian kernel into the cache. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "cmd/args.h"
#include "cmd/cache.h"
#include "cmd/cmd.h"
#include "vmm/say.h"
#include "vmm/status.h"

struct fetch_options {
	bool refresh;
};

static const struct args_row fetch_rows[] = {
	{ "refresh", 0, NULL, offsetof(struct fetch_options, refresh), NULL,
	  "ask apt again although the cache has it" },
};

static const struct args_table fetch_table = { fetch_rows, ARRAY_SIZE(fetch_rows) };

static int help(void)
{
	printf("usage: anykvm fetch [OPTIONS] [PACKAGE]\n\n"
	       "Puts the kernel of a Debian package (default " CACHE_DEFAULT_KERNEL ")\n"
	       "into ${XDG_CACHE_HOME:-~/.cache}/anykvm, and prints its path. PACKAGE:ARCH takes "
	       "one of\n"
	       "another architecture, as linux-image-686-pae:i386, and leaves the machine's apt "
	       "alone;\n"
	       "busybox-static:ARCH gives its program.\n\n");
	args_help(&fetch_table, stdout);
	return STATUS_OK;
}

int cmd_fetch(int argc, char **argv)
{
	struct fetch_options options = { false };
	const char *package = CACHE_DEFAULT_KERNEL;
	char path[PATH_MAX];
	struct why why;
	int r = args_parse(&fetch_table, argc, argv, &options, &package, 1, &why);

	if (r == -ENOENT)
		return help();
	if (r >= 0)
		r = strncmp(package, "busybox-static", 14)
			    ? cache_kernel(package, options.refresh, path, &why)
			    : cache_program(package, path, &why);
	if (r < 0) {
		say("%s", why.text);
		return STATUS_USAGE;
	}
	printf("%s\n", path);
	if (fflush(stdout) == 0)
		return STATUS_OK;
	say("cannot write to stdout: %s", strerror(errno));
	return STATUS_OUTPUT;
}

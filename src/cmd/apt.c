/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Calls of Debian's apt, for packages of the machine's architecture and of others. */
#include "cmd/apt.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/types.h"
#include "cmd/child.h"
#include "vmm/say.h"

static const char *const architectures[] = { "amd64", "arm64", "i386" };
#define NATIVE "amd64"

static bool architecture_is_known(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(architectures); i++)
		if (!strcmp(architectures[i], name))
			return true;
	return false;
}

/* Folders and an empty status, which apt asks for. */
static int state_make(const char *folder, struct why *why)
{
	static const char *const parts[] = { "", "/lists", "/lists/partial", "/archives",
					     "/archives/partial" };
	char path[PATH_MAX];
	int fd;

	for (size_t i = 0; i < ARRAY_SIZE(parts); i++) {
		snprintf(path, sizeof(path), "%s%s", folder, parts[i]);
		if (mkdir(path, 0755) < 0 && errno != EEXIST)
			return why_set(why, errno, "cannot make '%s': %s", path, strerror(errno));
	}
	snprintf(path, sizeof(path), "%s/status", folder);
	fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
	if (fd < 0)
		return why_set(why, errno, "cannot write '%s': %s", path, strerror(errno));
	close(fd);
	return 0;
}

/* Lists that cannot all be fetched may still have the package: apt says so when it is asked for. */
static int lists_fetch(const struct apt *apt, const char *folder, const char *architecture,
		       struct why *why)
{
	static const char *const words[] = { "-qq", "update", NULL };
	const char *argv[APT_ARGV];
	char output[4096], mark[PATH_MAX];
	int r, fd;

	snprintf(mark, sizeof(mark), "%s/fetched", folder);
	if (access(mark, F_OK) == 0)
		return 0;
	say("fetching apt's lists for %s, once", architecture);
	apt_argv(apt, "apt-get", words, argv);
	r = child_output(argv, folder, true, output, sizeof(output));
	if (r < 0)
		return why_set(why, -r, "cannot start apt-get: %s", strerror(-r));
	fd = open(mark, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
	if (fd >= 0)
		close(fd);
	return 0;
}

int apt_prepare(struct apt *apt, const char *package, const char *cache, struct why *why)
{
	const char *colon = strchr(package, ':'), *architecture = colon ? colon + 1 : NATIVE;
	char folder[PATH_MAX - 64];
	int r;

	snprintf(apt->name, sizeof(apt->name), "%.*s", (int)strcspn(package, ":"), package);
	apt->n = 0;
	if (!strcmp(architecture, NATIVE))
		return 0;
	if (!architecture_is_known(architecture))
		return why_set(why, EINVAL,
			       "'%.20s' is no architecture that is known here; give amd64, "
			       "arm64 or i386",
			       architecture);
	if (snprintf(folder, sizeof(folder), "%s/apt-%s", cache, architecture) >=
	    (int)sizeof(folder))
		return why_set(why, ENAMETOOLONG, "the path of the cache is too long");
	r = state_make(folder, why);
	if (r < 0)
		return r;
	snprintf(apt->option[apt->n++], sizeof(apt->option[0]), "-oAPT::Architecture=%s",
		 architecture);
	snprintf(apt->option[apt->n++], sizeof(apt->option[0]), "-oDir::State=%s", folder);
	snprintf(apt->option[apt->n++], sizeof(apt->option[0]), "-oDir::State::status=%s/status",
		 folder);
	snprintf(apt->option[apt->n++], sizeof(apt->option[0]), "-oDir::Cache=%s", folder);
	snprintf(apt->option[apt->n++], sizeof(apt->option[0]), "-oAPT::Sandbox::User=root");
	return lists_fetch(apt, folder, architecture, why);
}

void apt_argv(const struct apt *apt, const char *tool, const char *const words[],
	      const char *argv[APT_ARGV])
{
	unsigned n = 0;

	argv[n++] = tool;
	for (unsigned i = 0; i < apt->n; i++)
		argv[n++] = apt->option[i];
	for (unsigned i = 0; words[i] && n < APT_ARGV - 1; i++)
		argv[n++] = words[i];
	argv[n] = NULL;
}

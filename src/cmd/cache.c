/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Files that were fetched once. They appear under their name when they are whole: unpacked beside, then renamed. */
#define _GNU_SOURCE /* basename without side effects, asprintf */
#include "cmd/cache.h"

#include <ctype.h>
#include <dirent.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cmd/apt.h"
#include "cmd/child.h"
#include "vmm/modules.h"
#include "vmm/say.h"

#define OUTPUT_MAX 16384

static int too_long(struct why *why)
{
	return why_set(why, ENAMETOOLONG,
		       "the path of the cache is too long; set XDG_CACHE_HOME to a shorter one");
}

static int join(char out[PATH_MAX], const char *directory, const char *name, struct why *why)
{
	return snprintf(out, PATH_MAX, "%s/%s", directory, name) < PATH_MAX ? 0 : too_long(why);
}

static int directories_make(char *path, struct why *why)
{
	for (char *p = path + 1;; p++) {
		const char c = *p;

		if (c && c != '/')
			continue;
		*p = 0;
		if (mkdir(path, 0755) < 0 && errno != EEXIST)
			return why_set(
				why, errno,
				"cannot make the cache folder '%s': %s; set XDG_CACHE_HOME to "
				"a folder that can be written",
				path, strerror(errno));
		*p = c;
		if (!c)
			return 0;
	}
}

static int cache_folder(char path[PATH_MAX], struct why *why)
{
	const char *base = getenv("XDG_CACHE_HOME");
	const char *home = getenv("HOME");
	int n;

	if (base && base[0] == '/')
		n = snprintf(path, PATH_MAX, "%s/anykvm", base);
	else if (home && home[0] == '/')
		n = snprintf(path, PATH_MAX, "%s/.cache/anykvm", home);
	else
		return why_set(why, ENOENT,
			       "there is no place for the cache; set HOME or "
			       "XDG_CACHE_HOME");
	return n < PATH_MAX ? directories_make(path, why) : too_long(why);
}

static bool is_file(const char *path)
{
	struct stat st;

	return stat(path, &st) == 0 && S_ISREG(st.st_mode) && st.st_size > 0;
}

/* Names as Debian's policy allows them: no path, no option. */
static int package_check(const char *package, struct why *why)
{
	const size_t n = strcspn(package, ":");

	if (n < 2 || n > 200 || !isalnum((unsigned char)package[0]) ||
	    strspn(package, "abcdefghijklmnopqrstuvwxyz0123456789+.-") != n)
		return why_set(why, EINVAL,
			       "'%.80s' is no name of a Debian package; give for "
			       "example " CACHE_DEFAULT_KERNEL,
			       package);
	return 0;
}

static int tool_missing(const char *tool, int err, struct why *why)
{
	return why_set(why, err,
		       "cannot start %s: %s; fetching needs Debian's apt, elsewhere give "
		       "--kernel FILE",
		       tool, strerror(err));
}

/* The package that a name such as linux-image-cloud-amd64 stands for; itself if it has the kernel. */
static int package_resolve(const char *package, const char *cache, char real[256], struct why *why)
{
	struct apt apt;
	const char *const words[] = { "depends", "--important", apt.name, NULL };
	const char *argv[APT_ARGV];
	static const char key[] = "Depends: linux-image-";
	char output[OUTPUT_MAX];
	const char *p;
	int r = apt_prepare(&apt, package, cache, why);

	if (r < 0)
		return r;
	apt_argv(&apt, "apt-cache", words, argv);
	r = child_output(argv, NULL, false, output, sizeof(output));
	if (r < 0)
		return tool_missing("apt-cache", -r, why);
	if (r > 0 || !output[0])
		return why_set(why, ENOENT,
			       "apt knows no package '%s'; run 'apt-get update' as root, "
			       "or look for its name with 'apt-cache search linux-image'",
			       package);
	p = strstr(output, key);
	if (p)
		sscanf(p + strlen("Depends: "), "%240[a-z0-9+.-]", real);
	else
		snprintf(real, 256, "%s", apt.name);
	if (strchr(package, ':'))
		strncat(real, strchr(package, ':'), 10);
	return 0;
}

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *ftw)
{
	(void)st;
	(void)kind;
	(void)ftw;
	return remove(path);
}

/* The line of apt that tells what went wrong. */
static void error_line(const char *output, char *line, size_t room)
{
	const char *p = strstr(output, "E: ");

	snprintf(line, room, "%s", p ? p + 3 : "it does not say why");
	line[strcspn(line, "\n")] = 0;
}

static int package_download(const char *package, const char *cache, const char *folder,
			    struct why *why)
{
	/* In a folder of ours there is nothing to protect from apt: no second user, no warning. */
	struct apt apt;
	const char *const words[] = { "-qq",	  "-o",	    "APT::Sandbox::User=root",
				      "download", apt.name, NULL };
	const char *argv[APT_ARGV];
	char output[OUTPUT_MAX], line[200];
	int r = apt_prepare(&apt, package, cache, why);

	if (r < 0)
		return r;
	apt_argv(&apt, "apt-get", words, argv);
	say("fetching %s by apt, once", package);
	r = child_output(argv, folder, true, output, sizeof(output));
	if (r < 0)
		return tool_missing("apt-get", -r, why);
	if (r == 0)
		return 0;
	error_line(output, line, sizeof(line));
	return why_set(why, EIO,
		       "apt cannot fetch %s: %s; look at the network, or run 'apt-get "
		       "update' as root",
		       package, line);
}

/* The one file of a folder that begins and ends so. */
static int file_find(const char *folder, const char *prefix, const char *suffix,
		     char path[PATH_MAX], struct why *why)
{
	DIR *d = opendir(folder);
	struct dirent *e;
	int r = -ENOENT;

	while (d && r == -ENOENT && (e = readdir(d))) {
		const size_t n = strlen(e->d_name), m = strlen(suffix);

		if (n > m && !strncmp(e->d_name, prefix, strlen(prefix)) &&
		    !strcmp(e->d_name + n - m, suffix))
			r = join(path, folder, e->d_name, why);
	}
	if (d)
		closedir(d);
	return r;
}

#define PATTERN_MAX 128

/* The modules of a kernel that the builtin initramfs may want, as patterns for tar. */
static unsigned module_patterns(char patterns[][PATTERN_MAX])
{
	unsigned n = 0;

	for (; module_places[n].name; n++)
		snprintf(patterns[n], PATTERN_MAX, "*lib/modules/*/kernel/%s/%s",
			 module_places[n].folder, module_places[n].file);
	return n;
}

/* dpkg-deb --fsys-tarfile DEB | tar -x PATTERN..., both in @folder. */
static void package_unpack(const char *deb, const char *folder, const char *pattern,
			   bool with_modules)
{
	const char *const list[] = { "dpkg-deb", "--fsys-tarfile", deb, NULL };
	char patterns[MODULES_MAX][PATTERN_MAX];
	const char *take[8 + MODULES_MAX] = { "tar",	     "-x",   "-f", "-", "--no-same-owner",
					      "--wildcards", pattern };
	const unsigned n = with_modules ? module_patterns(patterns) : 0;
	int ends[2], from, to;

	for (unsigned i = 0; i < n; i++)
		take[7 + i] = patterns[i];

	if (pipe2(ends, O_CLOEXEC) < 0)
		return;
	from = child_start(list, folder, CHILD_NULL, ends[1], CHILD_NULL);
	to = child_start(take, folder, ends[0], CHILD_NULL, CHILD_NULL);
	close(ends[0]);
	close(ends[1]);
	/* What came out is looked at, so the statuses do not matter. */
	if (from > 0)
		child_wait(from);
	if (to > 0)
		child_wait(to);
}

struct wish {
	const char *package;
	const char *pattern; /* for tar */
	const char *folder;  /* in the package, of the file wanted */
	const char *prefix;  /* of its name */
	bool with_modules;   /* keep those of lib/modules too */
	const char *name;    /* in the cache; NULL: its own */
};

/* TEMPORARY/lib/modules/VERSION/kernel becomes CACHE/modules/VERSION; a package without modules is none's fault. */
static void modules_keep(const char *cache, const char *temporary, const char *version)
{
	static const char *const places[] = { "lib", "usr/lib" };
	char from[PATH_MAX], to[PATH_MAX], folder[PATH_MAX];
	struct why why;

	if (snprintf(folder, PATH_MAX, "%s/modules", cache) >= PATH_MAX ||
	    snprintf(to, PATH_MAX, "%s/modules/%s", cache, version) >= PATH_MAX ||
	    directories_make(folder, &why) < 0)
		return;
	nftw(to, remove_one, 16, FTW_DEPTH | FTW_PHYS);
	for (size_t i = 0; i < ARRAY_SIZE(places); i++) {
		if (snprintf(from, PATH_MAX, "%s/%s/modules/%s/kernel", temporary, places[i],
			     version) < PATH_MAX &&
		    rename(from, to) == 0)
			return;
	}
}

static int wish_take(const struct wish *w, const char *cache, const char *temporary,
		     char path[PATH_MAX], struct why *why)
{
	char deb[PATH_MAX], folder[PATH_MAX], found[PATH_MAX];
	int r = package_download(w->package, cache, temporary, why);

	if (r == 0 && file_find(temporary, "", ".deb", deb, why) < 0)
		r = why_set(why, EIO, "apt fetched nothing for %s; try again", w->package);
	if (r == 0) {
		package_unpack(deb, temporary, w->pattern, w->with_modules);
		r = join(folder, temporary, w->folder, why);
	}
	if (r == 0 && (file_find(folder, w->prefix, "", found, why) < 0 || !is_file(found)))
		r = why_set(why, ENOENT,
			    "the package %s holds no %s/%s; give another one, for "
			    "example " CACHE_DEFAULT_KERNEL,
			    w->package, w->folder, w->prefix);
	if (r == 0 && w->with_modules)
		modules_keep(cache, temporary, basename(found) + strlen(w->prefix));
	if (r == 0)
		r = join(path, cache, w->name ? w->name : basename(found), why);
	if (r == 0 && (chmod(found, 0755) < 0 || rename(found, path) < 0))
		r = why_set(why, errno, "cannot write '%s': %s; make room in the cache folder",
			    path, strerror(errno));
	return r;
}

/* Signals wait until the temporary folder is gone; the children have them unblocked. */
static int wish_fetch(const struct wish *w, const char *cache, char path[PATH_MAX], struct why *why)
{
	char temporary[PATH_MAX];
	sigset_t ends, old;
	int r = join(temporary, cache, ".fetch-XXXXXX", why);

	if (r < 0)
		return r;
	sigemptyset(&ends);
	sigaddset(&ends, SIGINT);
	sigaddset(&ends, SIGTERM);
	sigaddset(&ends, SIGHUP);
	sigprocmask(SIG_BLOCK, &ends, &old);
	if (mkdtemp(temporary)) {
		r = wish_take(w, cache, temporary, path, why);
		nftw(temporary, remove_one, 16, FTW_DEPTH | FTW_PHYS);
	} else {
		r = why_set(why, errno,
			    "cannot write to the cache folder '%s': %s; set "
			    "XDG_CACHE_HOME to a folder that can be written",
			    cache, strerror(errno));
	}
	sigprocmask(SIG_SETMASK, &old, NULL);
	return r;
}

/* @cache/@name points to the file @target beside it, from now on. */
static int link_set(const char *cache, const char *name, const char *target, struct why *why)
{
	char path[PATH_MAX], temporary[PATH_MAX];
	int r = join(path, cache, name, why);

	if (r < 0)
		return r;
	if (snprintf(temporary, sizeof(temporary), "%s.%d", path, getpid()) >= PATH_MAX)
		return too_long(why);
	unlink(temporary);
	if (symlink(target, temporary) < 0 || rename(temporary, path) < 0)
		return why_set(why, errno, "cannot write '%s': %s; make room in the cache folder",
			       path, strerror(errno));
	return 0;
}

/* A cache of before has the kernel alone. */
static bool has_modules(const char *cache, const char *kernel)
{
	const char *version = strstr(basename(kernel), "vmlinuz-");
	char path[PATH_MAX];

	return version &&
	       snprintf(path, PATH_MAX, "%s/modules/%s", cache, version + strlen("vmlinuz-")) <
		       PATH_MAX &&
	       access(path, X_OK) == 0;
}

int cache_modules(const char *version, char path[PATH_MAX], struct why *why)
{
	char cache[PATH_MAX];
	int r = cache_folder(cache, why);

	if (r == 0 && snprintf(path, PATH_MAX, "%s/modules/%s", cache, version) < PATH_MAX &&
	    access(path, X_OK) == 0)
		return 0;
	if (snprintf(path, PATH_MAX, "/lib/modules/%s/kernel", version) < PATH_MAX &&
	    access(path, X_OK) == 0)
		return 0;
	return why_set(why, ENOENT,
		       "there are no modules of the kernel %s in the cache or in /lib/modules; "
		       "'anykvm fetch --refresh' gets those of Debian's kernel",
		       version);
}

int cache_kernel(const char *package, bool refresh, char path[PATH_MAX], struct why *why)
{
	char cache[PATH_MAX], named[PATH_MAX], real[256];
	struct wish wish = { real, "./boot/vmlinuz-*", "boot", "vmlinuz-", true, NULL };
	int r = package_check(package, why);

	if (r == 0)
		r = cache_folder(cache, why);
	if (r == 0)
		r = join(named, cache, package, why);
	if (r < 0)
		return r;
	if (!refresh && is_file(named) && realpath(named, path) && has_modules(cache, path))
		return 0;
	r = package_resolve(package, cache, real, why);
	if (r == 0)
		r = wish_fetch(&wish, cache, path, why);
	/* The kernel is there and only its modules are not: it boots all the same. */
	if (r < 0 && !refresh && is_file(named) && realpath(named, path))
		return 0;
	if (r == 0 && strcmp(real, package) != 0)
		r = link_set(cache, real, basename(path), why);
	return r == 0 ? link_set(cache, package, basename(path), why) : r;
}

/* A program for x86-64 without an interpreter: it runs in an initramfs alone. */
static bool is_static_program(const char *path)
{
	FILE *f = fopen(path, "rbe");
	Elf64_Ehdr e = { .e_phnum = 0 };
	Elf64_Phdr p;
	bool is_static;

	if (!f)
		return false;
	is_static = fread(&e, sizeof(e), 1, f) == 1 && !memcmp(e.e_ident, ELFMAG, SELFMAG) &&
		    e.e_machine == EM_X86_64 && fseek(f, (long)e.e_phoff, SEEK_SET) == 0;
	for (unsigned i = 0; is_static && i < e.e_phnum; i++)
		is_static = fread(&p, sizeof(p), 1, f) == 1 && p.p_type != PT_INTERP;
	fclose(f);
	return is_static;
}

int cache_busybox(char path[PATH_MAX], struct why *why)
{
	static const char *const places[] = { "/bin/busybox", "/usr/bin/busybox" };
	static const struct wish wishes[] = {
		{ "busybox-static", "./bin/busybox", "bin", "busybox", false, NULL },
		{ "busybox-static", "./usr/bin/busybox", "usr/bin", "busybox", false, NULL },
	};
	char cache[PATH_MAX];
	int r;

	for (size_t i = 0; i < ARRAY_SIZE(places); i++)
		if (is_static_program(places[i]))
			return snprintf(path, PATH_MAX, "%s", places[i]) < 0;
	r = cache_folder(cache, why);
	if (r == 0)
		r = join(path, cache, "busybox", why);
	if (r < 0 || is_static_program(path))
		return r;
	for (size_t i = 0; i < ARRAY_SIZE(wishes); i++) {
		r = wish_fetch(&wishes[i], cache, path, why);
		if (r != -ENOENT)
			break;
	}
	return r;
}

int cache_program(const char *package, char path[PATH_MAX], struct why *why)
{
	char cache[PATH_MAX];
	const struct wish wish = { package, "./bin/busybox", "bin", "busybox", false, package };
	int r = package_check(package, why);

	if (r == 0)
		r = cache_folder(cache, why);
	if (r == 0)
		r = join(path, cache, package, why);
	return r < 0 || is_file(path) ? r : wish_fetch(&wish, cache, path, why);
}

/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* A program that is to use KVM: where it is, and by which way anykvm gets into it. */
#include "cmd/program.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#define SCRIPTS_MAX    4 /* as the kernel: a script whose interpreter is a script ... */
#define PROGRAM_HEADS  64
#define PRELOAD_NAME   "libanykvm-preload.so"
#define PATH_FALLBACK  "/usr/local/bin:/usr/bin:/bin"
#define CAPABILITY_KEY "security.capability"

static int find(char out[PATH_MAX], const char *name, struct why *why)
{
	const char *dirs = getenv("PATH");

	if (!*name)
		return why_set(why, ENOENT, "the program's name is empty (AK008)");
	if (strchr(name, '/')) {
		if (access(name, X_OK) == 0 && snprintf(out, PATH_MAX, "%s", name) < PATH_MAX)
			return 0;
		return why_set(why, errno, "%.200s: %s (AK008)", name, strerror(errno));
	}
	for (dirs = dirs ? dirs : PATH_FALLBACK; *dirs; dirs += *dirs == ':') {
		size_t n = strcspn(dirs, ":");

		if (snprintf(out, PATH_MAX, "%.*s%s%s", (int)n, dirs, n ? "/" : "./", name) <
			    PATH_MAX &&
		    access(out, X_OK) == 0)
			return 0;
		dirs += n;
	}
	return why_set(why, ENOENT, "%.200s: not found in PATH (AK008)", name);
}

/* The first word after "#!". */
static void script_interpreter(char out[PATH_MAX], const char *line)
{
	size_t n;

	line += 2 + strspn(line + 2, " \t");
	n = strcspn(line, " \t\n");
	snprintf(out, PATH_MAX, "%.*s", (int)n, line);
}

static enum program_kind elf_kind(int fd, const Elf64_Ehdr *head)
{
	Elf64_Phdr ph[PROGRAM_HEADS];
	char loader[128];
	unsigned n = head->e_phnum < PROGRAM_HEADS ? head->e_phnum : PROGRAM_HEADS;

	if (head->e_ident[EI_CLASS] != ELFCLASS64 || head->e_machine != EM_X86_64)
		return PROGRAM_FOREIGN;
	if (pread(fd, ph, n * sizeof(ph[0]), (off_t)head->e_phoff) != (ssize_t)(n * sizeof(ph[0])))
		return PROGRAM_FOREIGN;
	for (unsigned i = 0; i < n; i++) {
		ssize_t size;

		if (ph[i].p_type != PT_INTERP)
			continue;
		size = pread(fd, loader, sizeof(loader) - 1, (off_t)ph[i].p_offset);
		loader[size > 0 ? size : 0] = 0;
		return strstr(loader, "ld-linux-x86-64") ? PROGRAM_DYNAMIC : PROGRAM_OTHER_LIBC;
	}
	return PROGRAM_STATIC;
}

static bool is_privileged(int fd)
{
	struct stat st;

	if (fstat(fd, &st))
		return false;
	if (st.st_mode & S_ISUID && st.st_uid != getuid())
		return true;
	if ((st.st_mode & (S_ISGID | S_IXGRP)) == (S_ISGID | S_IXGRP) && st.st_gid != getgid())
		return true;
	return getuid() && fgetxattr(fd, CAPABILITY_KEY, NULL, 0) > 0;
}

/* 0: @p->kind is known; 1: a script, whose interpreter is in @next. */
static int inspect_file(struct program *p, const char *path, char next[PATH_MAX], struct why *why)
{
	union {
		Elf64_Ehdr elf;
		char text[256];
	} head = { .text = "" };
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n;

	if (fd < 0)
		return why_set(why, errno, "%.200s: %s (AK008)", path, strerror(errno));
	n = read(fd, &head, sizeof(head) - 1);
	p->kind = PROGRAM_FOREIGN;
	if (n >= (ssize_t)sizeof(head.elf) && !memcmp(head.text, ELFMAG, SELFMAG))
		p->kind = elf_kind(fd, &head.elf);
	if (p->kind == PROGRAM_DYNAMIC && is_privileged(fd))
		p->kind = PROGRAM_PRIVILEGED;
	close(fd);
	if (n > 2 && !memcmp(head.text, "#!", 2)) {
		script_interpreter(next, head.text);
		return 1;
	}
	if (n < SELFMAG || memcmp(head.text, ELFMAG, SELFMAG))
		return why_set(why, ENOEXEC, "%.200s: neither an ELF program nor a script (AK004)",
			       path);
	return 0;
}

int program_inspect(struct program *p, const char *name, struct why *why)
{
	char at[PATH_MAX], next[PATH_MAX];
	int r = find(p->path, name, why);

	p->interpreter[0] = 0;
	memcpy(at, p->path, sizeof(at));
	for (int depth = 0; r == 0; depth++) {
		r = inspect_file(p, at, next, why);
		if (r <= 0)
			return r;
		if (depth == SCRIPTS_MAX)
			return why_set(why, ELOOP, "%.200s: too many levels of scripts (AK008)",
				       name);
		memcpy(at, next, sizeof(at));
		memcpy(p->interpreter, next, sizeof(next));
		r = 0;
	}
	return r;
}

const char *program_kind_name(const struct program *p)
{
	static const char *const names[] = {
		[PROGRAM_DYNAMIC] = "dynamic",	     [PROGRAM_STATIC] = "static",
		[PROGRAM_FOREIGN] = "foreign",	     [PROGRAM_OTHER_LIBC] = "other-libc",
		[PROGRAM_PRIVILEGED] = "privileged",
	};

	return names[p->kind];
}

int program_check(const struct program *p, struct why *why)
{
	const char *path = p->interpreter[0] ? p->interpreter : p->path;

	switch (p->kind) {
	case PROGRAM_STATIC:
		return why_set(why, ENOTSUP,
			       "%.200s is statically linked, and anykvm cannot get into static "
			       "programs yet; use a dynamic build (AK003)",
			       path);
	case PROGRAM_FOREIGN:
		return why_set(why, ENOTSUP,
			       "%.200s is no x86-64 program; use an x86-64 build (AK004)", path);
	case PROGRAM_OTHER_LIBC:
		return why_set(why, ENOTSUP,
			       "%.200s uses a C library other than glibc; use a build for glibc "
			       "(AK006)",
			       path);
	case PROGRAM_PRIVILEGED:
		return why_set(why, ENOTSUP,
			       "%.200s runs with the rights of its file, so LD_PRELOAD is ignored; "
			       "run it as that user (AK007)",
			       path);
	default:
		return 0;
	}
}

static bool preload_at(char out[PATH_MAX], const char *folder, const char *below)
{
	return snprintf(out, PATH_MAX, "%s%s/" PRELOAD_NAME, folder, below) < PATH_MAX &&
	       access(out, R_OK) == 0;
}

int preload_find(char path[PATH_MAX], struct why *why)
{
	/* Below the program's folder: the build tree, then where a moved installation has it. */
	static const char *const below[] = { "", "/../" ANYKVM_LIBDIR "/anykvm", "/../lib/anykvm",
					     "/../lib64/anykvm" };
	char folder[PATH_MAX], *slash, *real;
	ssize_t n = readlink("/proc/self/exe", folder, sizeof(folder) - 1);
	bool found = false;

	folder[n > 0 ? n : 0] = 0;
	slash = strrchr(folder, '/');
	if (slash)
		*slash = 0;
	for (unsigned i = 0; i < ARRAY_SIZE(below) && slash && !found; i++)
		found = preload_at(path, folder, below[i]);
	if (!found && !preload_at(path, ANYKVM_PREFIX "/" ANYKVM_LIBDIR "/anykvm", ""))
		return why_set(why, ENOENT,
			       PRELOAD_NAME " is neither beside this program nor installed; run "
					    "'make install' (AK001)");
	real = realpath(path, NULL);
	if (real)
		snprintf(path, PATH_MAX, "%s", real);
	free(real);
	if (strpbrk(path, " :"))
		return why_set(
			why, EINVAL,
			"%.200s: LD_PRELOAD cannot hold a path with a space or a colon; move "
			"it (AK001)",
			path);
	return 0;
}

/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* A program that is to use KVM: where it is, and by which way anykvm gets into it. */
#ifndef CMD_PROGRAM_H
#define CMD_PROGRAM_H

#include <limits.h>

#include "base/types.h"
#include "vmm/why.h"

enum program_kind {
	PROGRAM_DYNAMIC, /* x86-64, glibc: the preload library works */
	PROGRAM_STATIC,
	PROGRAM_FOREIGN, /* another architecture */
	PROGRAM_OTHER_LIBC,
	PROGRAM_PRIVILEGED, /* set-user-ID and the like: LD_PRELOAD is ignored */
};

struct program {
	enum program_kind kind;
	char path[PATH_MAX];	    /* what was asked for, found in PATH */
	char interpreter[PATH_MAX]; /* of a script: the program that really runs; else "" */
};

/* Look at @name as execvp() would find it. 0, or -ENOENT, -EACCES, -ENOEXEC with the reason and its code. */
int program_inspect(struct program *p, const char *name, struct why *why);

/* 0 when anykvm can get in, or -ENOTSUP with one line that ends in a code. */
int program_check(const struct program *p, struct why *why);

/* "dynamic", "static", ... */
const char *program_kind_name(const struct program *p);

/* Find libanykvm-preload.so. 0 or -ENOENT with the reason. */
int preload_find(char path[PATH_MAX], struct why *why);

#endif

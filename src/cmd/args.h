/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Command-line options as rows of a table, which also gives --help. */
#ifndef CMD_ARGS_H
#define CMD_ARGS_H

#include <stdio.h>

#include "base/types.h"
#include "vmm/why.h"

/* Store what @value says into @field; 0, or -EINVAL with the reason (without the option's name). */
typedef int (*args_parse_fn)(const char *value, void *field, struct why *why);

struct args_row {
	const char *name;    /* without dashes */
	char letter;	     /* 0: no short form */
	args_parse_fn parse; /* NULL: a flag, the field is a bool */
	size_t field;	     /* offset in the target */
	const char *value;   /* for --help: "SIZE" */
	const char *help;    /* one line */
};

struct args_table {
	const struct args_row *rows;
	unsigned count;
};

/*
 * Parse argv[1...] into @target; what is no option goes to @words (at most @words_max). Returns the number
 * of words, or -EINVAL with one line that says what is wrong and what to do. "--help" is -ENOENT.
 */
int args_parse(const struct args_table *table, int argc, char **argv, void *target,
	       const char **words, int words_max, struct why *why);

void args_help(const struct args_table *table, FILE *out);

/* Parsers for fields: const char *, u64 bytes, unsigned. */
int args_text(const char *value, void *field, struct why *why);
int args_size(const char *value, void *field, struct why *why); /* 512 (MiB), 64K, 1G, 1.5G */
int args_count(const char *value, void *field, struct why *why);

/* The entry of @names (@stride bytes apart, each beginning with its name) most like @word, or NULL if none is. */
const char *args_nearest(const char *word, const void *names, unsigned count, size_t stride);

#endif

/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Values of options that are a name or path and then words after commas. */
#ifndef CMD_WORDS_H
#define CMD_WORDS_H

#include "base/types.h"
#include "vmm/why.h"

/* A word after a comma, "name" or "name=value"; @value is NULL without one. */
struct word_row {
	const char *name;
	int (*take)(void *device, const char *value, struct why *why);
	bool has_value;
};

/* "FIRST,word,word=value": @first gets what stands before the first comma. 0 or -errno. */
int words_take(const struct word_row *rows, unsigned count, const char *text, char *first,
	       size_t room, void *device, struct why *why);

/* -EINVAL, with the line that says so. */
int words_too_many(const char *what, unsigned max, struct why *why);

#endif
